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

enum { PHX_CONTENT_KEY_BYTES = 32, PHX_CONTENT_MAX_BYTES = 16 << 20, PHX_WHY_MAX_BYTES = 500 };
/* Reads the site's key: 64 hex digits, readable by its owner alone (PHX_E_STATE else); makes it, and its
 * folder, when there is none.  PHX_E_IO, PHX_E_FORMAT naming the file. */
int phx_content_key_read(const char *path, uint8_t key[PHX_CONTENT_KEY_BYTES], struct phx_err *err) PHX_CHECKED;
/* Is it the key this database was written with?  PHX_E_STATE with the remedy.  To be asked at the start: a
 * key file that was lost has been made anew by then. */
int phx_content_key_check(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES],
                          struct phx_err *err) PHX_CHECKED;
/* Accepts that the site's key is lost: everything it wrapped counts as destroyed, legal holds or not, and
 * the key at hand serves from now on.  A "key" leaf.  PHX_E_STATE when the key at hand is the right one. */
int phx_content_key_lost(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES], const char *by,
                         const char *why, int64_t at_ns, struct phx_err *err) PHX_CHECKED;

struct phx_content {
    const char      *receipt, *tenant, *user; /* user "" = none */
    enum phx_privacy mode;
    int64_t          at_ns, keep_until_ns;
    const uint8_t   *salt;     /* 32 bytes */
    const void      *request, *response; /* canonical JSON: token ids, sampling; borrowed */
    size_t           request_size, response_size;
};
/* In the transaction of the intent (request) and of the result (response).  *sha256: hex of what is stored
 * (the ciphertext when encrypted; "" when nothing is), for the leaf.  PHX_E_INVALID: kept for less than
 * PHX_RETENTION_FLOOR_DAYS; PHX_E_TOOBIG; PHX_E_STATE: not this site's key.
 * The response follows the mode of its request's row.  When that was shredded meanwhile, nothing is stored
 * and it is a success; PHX_E_NOTFOUND when there is no such row. */
int phx_content_put_request(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES],
                            const struct phx_content *c, char sha256[65], struct phx_err *err) PHX_CHECKED;
int phx_content_put_response(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES],
                             const struct phx_content *c, char sha256[65], struct phx_err *err) PHX_CHECKED;
/* Reading is itself a leaf ("read", with who and why), in the same transaction: show what was read only
 * after the job is durable.  has_text is false for commit-only: then there is the salt alone.  An answer
 * that has not come is empty.  PHX_E_NOTFOUND; PHX_E_STATE: shredded (when), or another site's key;
 * PHX_E_FORMAT: the row is not as it was written. */
struct phx_content_text { /* phx_content_text_fini() */
    struct phx_buf request, response;
    uint8_t        salt[32];
    bool           has_text;
};
int phx_content_read(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES], const char *receipt,
                     const char *by, const char *why, int64_t at_ns, struct phx_content_text *out,
                     struct phx_err *err) PHX_CHECKED;
void phx_content_text_fini(struct phx_content_text *t); /* wipes it */
/* The name under which a person stands in the log: hex of HMAC-SHA256(pepper of tenant and year, subject).
 * The pepper is made on first use and kept wrapped like a key of the month; phx_content_expire() destroys it
 * at the end of the retention, which makes the people of that year unlinkable. */
int phx_content_pseudonym(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES], const char *tenant,
                          const char *subject, int64_t at_ns, char hex[65], struct phx_err *err) PHX_CHECKED;

/* ---- erasing: by destroying keys; each a "shred" leaf in the same transaction ---------------------------- */

/* PHX_E_STATE naming the legal hold, or when it was shredded; PHX_E_NOTFOUND. */
int phx_content_shred(struct phx_tx *tx, const char *receipt, const char *by, int64_t at_ns,
                      struct phx_err *err) PHX_CHECKED;
/* Destroys the key of the month: nothing of it can be read from then on.  What lies in the rows is taken out
 * by phx_content_sweep() afterwards (a month may be millions of rows, and this transaction is a short one).
 * period: "2026-11".  PHX_E_NOTFOUND: that month has no key. */
int phx_content_shred_month(struct phx_tx *tx, const char *tenant, const char *period, const char *by,
                            int64_t at_ns, struct phx_err *err) PHX_CHECKED;
/* Empties at most `max` rows whose key was destroyed; how many, or negative.  Until it answers 0. */
int phx_content_sweep(struct phx_tx *tx, int64_t at_ns, int max, struct phx_err *err);
/* Sweeps, erases what is past its time (and the floor) and not held, then the keys of past months without
 * content and of past years; at most `max` rows a call; how many, or negative.  One leaf per tenant and
 * month. */
int phx_content_expire(struct phx_tx *tx, int64_t now_ns, int max, struct phx_err *err);

/* Expires in the background: a minute after the start, then every hour, in short transactions.  Loop
 * thread.  Close it after the store was drained. */
struct event_base;
struct phx_store;
struct phx_time;
struct phx_keeper;
struct phx_keeper *phx_keeper_open(struct phx_store *store, struct event_base *base, struct phx_time *time);
void               phx_keeper_close(struct phx_keeper *k); /* NULL is allowed */

/* ---- retention ------------------------------------------------------------------------------------------- */

enum { PHX_RETENTION_FLOOR_DAYS = 184 };
/* How long a class keeps content: "standard" 184 d (the floor), "year-1", "phi-6y", "sec-6y", "year-10".
 * PHX_E_INVALID naming the classes. */
int phx_retention_days(const char *class_name, int32_t *days, struct phx_err *err) PHX_CHECKED;

/* ---- legal holds: while one is open, what it covers is neither shredded nor expired ----------------------- */

struct phx_hold {
    const char *name, *tenant, *user; /* "" = any; not both */
    const char *reason, *opened_by, *closed_by;
    int64_t     opened_ns, closed_ns; /* 0 = open */
};
/* "admin" leaves.  A name is used once.  PHX_E_INVALID, PHX_E_STATE, PHX_E_NOTFOUND. */
int phx_hold_open(struct phx_tx *tx, const char *name, const char *tenant, const char *user,
                  const char *reason, const char *by, int64_t at_ns, struct phx_err *err) PHX_CHECKED;
int phx_hold_close(struct phx_tx *tx, const char *name, const char *by, int64_t at_ns,
                   struct phx_err *err) PHX_CHECKED;
typedef int (*phx_hold_fn)(void *ctx, const struct phx_hold *hold);
int phx_hold_list(struct phx_tx *tx, phx_hold_fn fn, void *ctx, struct phx_err *err) PHX_CHECKED;

#endif
