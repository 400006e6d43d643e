/* SPDX-License-Identifier: Apache-2.0
 * The split patterns of tokenizers on PCRE2 (private to daemon/text).
 * Patterns come from files in the dialect of another engine (Oniguruma, Rust's regex).  What both
 * read alike passes; what differs is rewritten; what cannot be is refused by name. */
#ifndef PHX_DAEMON_TEXT_REGEX_H
#define PHX_DAEMON_TEXT_REGEX_H

#include <stdbool.h>
#include <stddef.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

struct phx_regex; /* never changes after compile; any number of threads may match */

/* `where` names the file and field for messages.  PHX_E_UNSUPPORTED, PHX_E_FORMAT. */
int  phx_regex_compile(const char *pattern, const char *where, struct phx_regex **out,
                       struct phx_err *err) PHX_CHECKED;
void phx_regex_free(struct phx_regex *re);

/* What one thread needs to match; made on first use, reused for every pattern. */
struct phx_regex_state {
    void *match;   /* pcre2_match_data */
    void *context; /* pcre2_match_context */
    void *stack;   /* pcre2_jit_stack */
};
void phx_regex_state_fini(struct phx_regex_state *s);

/* The first match in text[start..size), which must be UTF-8.  1 = found (*from, *to), 0 = none,
 * negative = PHX_E_LIMIT when the pattern takes too much work on this text. */
int phx_regex_find(const struct phx_regex *re, struct phx_regex_state *s, const char *text,
                   size_t size, size_t start, size_t *from, size_t *to,
                   struct phx_err *err) PHX_CHECKED;

/* The rewriting alone, for tests. */
int phx_regex_translate(const char *pattern, const char *where, struct phx_buf *out,
                        struct phx_err *err) PHX_CHECKED;

/* Class members that newer Unicode versions added to a category, or NULL. */
const char *phx_unicode_new(const char *category, size_t size);

#endif
