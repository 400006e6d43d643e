/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/license: payloads that were verified already, and the strict readers they share. */
#ifndef PHX_DAEMON_LICENSE_TERMS_H
#define PHX_DAEMON_LICENSE_TERMS_H

#include <jansson.h>

#include "daemon/license/license.h"
#include "rpc/base/mem.h"

enum { PHX_LICENSE_DEPTH_MAX = 8, PHX_LICENSE_KEY_SETS_MAX = 1000000000, PHX_DATE_BYTES = 21 };

struct phx_license {
    struct phx_arena        *arena;
    struct phx_license_terms terms;
};

/* The payload of a licence: everything but signatures.  PHX_E_FORMAT, _INVALID, _TOOBIG naming the field. */
int phx_license_read(const void *payload, size_t size, struct phx_license **out, struct phx_err *err)
    PHX_CHECKED;
/* The payload of a key set. */
int phx_key_set_read(const void *payload, size_t size, struct phx_key_set *out, struct phx_err *err)
    PHX_CHECKED;
/* Verifies an envelope: `threshold` of the keys have signed it, each under its own id.  payload is filled when it
 * verified. */
struct phx_dsse_signers;
int phx_license_unseal(const void *data, size_t size, const char *type, const uint8_t (*keys)[32], size_t n_keys,
                       int32_t threshold, struct phx_buf *payload, struct phx_dsse_signers *signers,
                       struct phx_err *err) PHX_CHECKED;
/* models[] and limits{}. */
int phx_license_read_models(struct phx_license *l, const json_t *root, struct phx_err *err) PHX_CHECKED;
int phx_license_read_limits(const json_t *object, const char *where, struct phx_license_limits *out,
                            struct phx_err *err) PHX_CHECKED;

/* Text without control characters, not empty, copied into the arena.  opt: absent or null gives "". */
int phx_terms_text(struct phx_arena *arena, const json_t *object, const char *where, const char *key,
                   const char **out, struct phx_err *err) PHX_CHECKED;
int phx_terms_opt_text(struct phx_arena *arena, const json_t *object, const char *where, const char *key,
                       const char **out, struct phx_err *err) PHX_CHECKED;
/* An array of such texts, each once; absent or null is empty. */
int phx_terms_list(struct phx_arena *arena, const json_t *object, const char *where, const char *key,
                   size_t max_items, const char *const **out, int32_t *n, struct phx_err *err) PHX_CHECKED;
/* "2026-10-01T00:00:00Z" in nanoseconds since 1970. */
int phx_terms_time(const json_t *object, const char *where, const char *key, int64_t *out,
                   struct phx_err *err) PHX_CHECKED;

/* Strict RFC 3339 in UTC without fractions, 1970 to 2199; false when text is not that. */
bool phx_date_parse(const char *text, int64_t *ns);
bool phx_date_parse_day(const char *text); /* "2026-10-01" */
void phx_date_format(int64_t ns, char text[PHX_DATE_BYTES]);
/* "sha256:" and 64 lower-case digits; "ed25519:" for a key. */
bool phx_digest_is_valid(const char *text, const char *prefix);

#endif
