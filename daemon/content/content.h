/* SPDX-License-Identifier: Apache-2.0
 * What was asked and answered, kept as far as the tenant wants it, outside the log so that it can be erased
 * while the tree still verifies.
 *
 *   commit-only   the salt of the commitments alone: whoever has the text can show that it is the one
 *   encrypted     request and response under a key of their own (XChaCha20-Poly1305), which is wrapped by
 *                 the tenant's key of the month, which is wrapped by the site's key (DATA/keys/content.key)
 *   clear         as they are; never the default
 *
 * Erasing one answer destroys its key; erasing a month destroys the month's.  A legal hold blocks both. */
#ifndef PHX_DAEMON_CONTENT_H
#define PHX_DAEMON_CONTENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

struct phx_tx;

enum phx_privacy { PHX_PRIVACY_COMMIT_ONLY = 1, PHX_PRIVACY_ENCRYPTED, PHX_PRIVACY_CLEAR };
const char *phx_privacy_name(enum phx_privacy p); /* "commit-only", ... */
int         phx_privacy_parse(const char *text, enum phx_privacy *out, struct phx_err *err) PHX_CHECKED;

enum { PHX_CONTENT_KEY_BYTES = 32, PHX_CONTENT_MAX_BYTES = 16 << 20 };
/* Reads or makes the site's key (0600). */
int phx_content_key_read(const char *path, uint8_t key[PHX_CONTENT_KEY_BYTES], struct phx_err *err) PHX_CHECKED;

struct phx_content {
    const char      *receipt, *tenant, *user;
    enum phx_privacy mode;
    int64_t          at_ns, keep_until_ns;
    const uint8_t   *salt;     /* 32 bytes */
    const void      *request, *response; /* canonical JSON: token ids, sampling; borrowed */
    size_t           request_size, response_size;
};
/* In the transaction of the intent (request) and of the result (response).  *sha256: hex of what is stored
 * (the ciphertext when encrypted; "" when nothing is), for the leaf. */
int phx_content_put_request(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES],
                            const struct phx_content *c, char sha256[65], struct phx_err *err) PHX_CHECKED;
int phx_content_put_response(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES],
                             const struct phx_content *c, char sha256[65], struct phx_err *err) PHX_CHECKED;
/* Reading is itself a leaf ("read", with who and why), in the same transaction.  PHX_E_NOTFOUND;
 * PHX_E_STATE: shredded (when), or never kept (mode). */
struct phx_content_text {
    struct phx_buf request, response;
    uint8_t        salt[32];
    bool           has_text;
};
int phx_content_read(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES], const char *receipt,
                     const char *by, const char *why, int64_t at_ns, struct phx_content_text *out,
                     struct phx_err *err) PHX_CHECKED;
/* The name under which a person stands in the log: hex of HMAC-SHA256(pepper of tenant and year, subject).
 * The pepper is made on first use and kept wrapped like a key of the month; destroying it at the end of the
 * retention makes the people of that year unlinkable. */
int phx_content_pseudonym(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES], const char *tenant,
                          const char *subject, int64_t at_ns, char hex[65], struct phx_err *err) PHX_CHECKED;
/* Erases by destroying keys; each a "shred" leaf in the same transaction.  PHX_E_STATE naming the legal hold. */
int phx_content_shred(struct phx_tx *tx, const char *receipt, const char *by, int64_t at_ns,
                      struct phx_err *err) PHX_CHECKED;
int phx_content_shred_month(struct phx_tx *tx, const char *tenant, const char *period, const char *by,
                            int64_t at_ns, struct phx_err *err) PHX_CHECKED;
/* Erases what is past its time and not held; at most `max` a call; how many, or negative. */
int phx_content_expire(struct phx_tx *tx, int64_t now_ns, int max, struct phx_err *err);
/* How long a class keeps content: "standard" 184 d (the floor), "phi-6y", ...; negative code when unknown. */
int phx_retention_days(const char *class_name, int32_t *days, struct phx_err *err) PHX_CHECKED;
int phx_hold_open(struct phx_tx *tx, const char *name, const char *tenant, const char *user,
                  const char *reason, const char *by, int64_t at_ns, struct phx_err *err) PHX_CHECKED;
int phx_hold_close(struct phx_tx *tx, const char *name, const char *by, int64_t at_ns,
                   struct phx_err *err) PHX_CHECKED;

#endif
