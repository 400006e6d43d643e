/* SPDX-License-Identifier: Apache-2.0
 * Normalizers of tokenizer.json (private to daemon/text). */
#ifndef PHX_DAEMON_TEXT_NORMALIZE_H
#define PHX_DAEMON_TEXT_NORMALIZE_H

#include <jansson.h>

#include "daemon/text/regex.h"
#include "rpc/base/buf.h"
#include "rpc/base/err.h"

enum phx_normal_kind {
    PHX_NORMAL_UNICODE = 1, /* NFC, NFD, NFKC, NFKD */
    PHX_NORMAL_PREPEND,
    PHX_NORMAL_REPLACE,
};

struct phx_normal_step {
    enum phx_normal_kind kind;
    int                  utf8proc_options;
    char                *text;    /* prepend: what; replace: by what */
    char                *pattern; /* replace: a literal string, or NULL and regex is set */
    struct phx_regex    *regex;
};

#define PHX_NORMAL_STEPS_MAX 16
struct phx_normalizer {
    struct phx_normal_step steps[PHX_NORMAL_STEPS_MAX];
    size_t                 n;
};

/* Reads the "normalizer" value (may be NULL or null).  PHX_E_UNSUPPORTED by name. */
int  phx_normalizer_parse(struct phx_normalizer *n, json_t *value, const char *where,
                          struct phx_err *err) PHX_CHECKED;
void phx_normalizer_fini(struct phx_normalizer *n);

/* Replaces *text by its normal form.  `text` must be UTF-8. */
int phx_normalizer_run(const struct phx_normalizer *n, struct phx_regex_state *state,
                       struct phx_buf *text, struct phx_err *err) PHX_CHECKED;

#endif
