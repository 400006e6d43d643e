/* SPDX-License-Identifier: Apache-2.0
 * The audit log: leaves in the order they happened, each a canonical JSON record (sorted keys, integers and
 * strings).  The leaf is made durable in the transaction of what it records; a publisher then builds the
 * RFC 6962 tree from the database as C2SP tlog-tiles under DATA/audit with signed checkpoints.  What is
 * published can always be built again from the database.
 *
 * Prompts and answers appear as keyed commitments only.  The folder format is in docs/audit.md. */
#ifndef PHX_DAEMON_AUDIT_H
#define PHX_DAEMON_AUDIT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/tlog/tlog.h"
#include "rpc/base/buf.h"
#include "rpc/base/err.h"

struct event_base;
struct phx_store;
struct phx_tx;
struct phx_time;

enum { PHX_RECEIPT_BYTES = 40, PHX_SALT_BYTES = 32, PHX_RECORD_MAX_BYTES = 16384 };

/* "rcpt_" and 32 random hex digits. */
void phx_receipt_make(char receipt[PHX_RECEIPT_BYTES]);

/* ---- records -------------------------------------------------------------------------------------------- */

/* A canonical JSON object under construction: keys are given in ascending order (asserted). */
struct phx_record {
    struct phx_buf text;
    char           last_key[4][48]; /* per depth */
    int            depth;
    int64_t        at_ns; /* of the key at_ns */
    bool           has_at_ns;
};
/* A record that is not appended is freed with phx_record_fini(). */
void phx_record_init(struct phx_record *r);
void phx_record_fini(struct phx_record *r);
void phx_record_str(struct phx_record *r, const char *key, const char *value);
void phx_record_int(struct phx_record *r, const char *key, int64_t value);
void phx_record_open(struct phx_record *r, const char *key); /* a nested object */
void phx_record_close(struct phx_record *r);
/* Ends it: text holds the whole record.  PHX_E_TOOBIG above PHX_RECORD_MAX_BYTES. */
int phx_record_end(struct phx_record *r, struct phx_err *err) PHX_CHECKED;

/* Ends the record, appends it as a leaf and frees it (also when it fails).  kind: "intent", "result",
 * "refusal", "admin", "licence", "clock", "key", "model", "config", "gap", "shred", "read", "correct", ...
 * The record must have at_ns, kind, receipt and v itself. */
int phx_audit_append(struct phx_tx *tx, const char *kind, const char *receipt, const char *tenant,
                     struct phx_record *r, struct phx_err *err) PHX_CHECKED;
/* An event about a subject: kind as above, event "daemon.start", detail "" = none. */
int phx_audit_event(struct phx_tx *tx, const char *kind, const char *event, const char *subject,
                    const char *by, const char *detail, int64_t at_ns, struct phx_err *err) PHX_CHECKED;

/* hex of HMAC-SHA256(salt, ids as little-endian 32-bit integers); of bytes. */
void phx_audit_commit(const uint8_t salt[PHX_SALT_BYTES], const int32_t *ids, size_t n, char hex[65]);
void phx_audit_commit_bytes(const uint8_t salt[PHX_SALT_BYTES], const void *data, size_t size, char hex[65]);

/* ---- finding -------------------------------------------------------------------------------------------------- */

struct phx_leaf { /* borrowed while fn runs */
    uint64_t    index;
    const char *kind, *receipt, *tenant;
    int64_t     at_ns;
    const char *record; /* canonical JSON: the bytes that are hashed */
    size_t      record_size;
};
/* A non-zero return ends the walk with it. */
typedef int (*phx_leaf_fn)(void *ctx, const struct phx_leaf *leaf);
struct phx_leaf_query { /* NULL = any */
    uint64_t    from, below;    /* indices; below 0 = all there are */
    int64_t     from_ns, to_ns; /* to 0 = no end */
    const char *kind, *tenant;
    const char *request_id, *user, *manifest_root; /* as they stand in the record; user is a pseudonym */
};
/* By index.  Reads every leaf from `from` to `below`: bound them. */
int phx_audit_search(struct phx_tx *tx, const struct phx_leaf_query *q, phx_leaf_fn fn, void *ctx,
                     struct phx_err *err) PHX_CHECKED;
/* All leaves of a receipt, quickly. */
int phx_audit_find(struct phx_tx *tx, const char *receipt, phx_leaf_fn fn, void *ctx,
                   struct phx_err *err) PHX_CHECKED;
/* Index of the last leaf, -1 = none. */
int phx_audit_last(struct phx_tx *tx, int64_t *index, struct phx_err *err) PHX_CHECKED;

/* ---- publishing ------------------------------------------------------------------------------------------------ */

struct phx_publisher;
struct phx_publisher_options {
    const char *dir;        /* DATA/audit */
    const char *key_dir;    /* DATA/keys: log.seed, 0600 */
    const char *origin;     /* "phalanx/<cluster id>" */
    int64_t     interval_ms; /* a checkpoint so often while there is something new */
    int64_t     key_life_s;  /* the signing key moves on after so long, and at every start */
};
/* Rebuilds what is missing under dir from the database, moves the key on, starts the publishing thread.
 * PHX_E_STATE: the published tree is larger than the database's, or differs from it (a restored snapshot):
 * says so with both sizes; nothing is overwritten. */
int  phx_publisher_open(struct phx_store *store, const struct phx_publisher_options *options,
                        struct phx_publisher **out, struct phx_err *err) PHX_CHECKED;
void phx_publisher_close(struct phx_publisher *p); /* publishes what is left; NULL is allowed */
/* More leaves are durable (called from a store's done callback). */
void phx_publisher_wake(struct phx_publisher *p);
/* The newest checkpoint (signed note); owned text, NULL when there is none yet.  Thread-safe. */
char    *phx_publisher_checkpoint(struct phx_publisher *p);
uint64_t phx_publisher_size(struct phx_publisher *p);
/* The last problem in writing ("" = none): publishing is behind, not lost. */
void phx_publisher_problem(struct phx_publisher *p, char *text, size_t size);

/* ---- proofs ------------------------------------------------------------------------------------------------------- */

/* From a folder: hash reader over its tiles. */
struct phx_tiles;
int  phx_tiles_open(const char *dir, struct phx_tiles **out, struct phx_err *err) PHX_CHECKED;
void phx_tiles_close(struct phx_tiles *t);
int  phx_tiles_read(void *tiles, int level, uint64_t index, struct phx_tlog_hash *out, struct phx_err *err);
int  phx_tiles_entry(struct phx_tiles *t, uint64_t index, struct phx_buf *out, struct phx_err *err) PHX_CHECKED;
uint64_t phx_tiles_size(const struct phx_tiles *t); /* of the newest checkpoint */
/* Its signed note and root; borrowed. */
const struct phx_buf *phx_tiles_note(const struct phx_tiles *t, struct phx_tlog_hash *root);

/* The receipt of a leaf as JSON (docs/audit.md): record, index, proof, checkpoint, the chain of log keys. */
int phx_receipt_format(struct phx_tiles *t, uint64_t index, struct phx_buf *out, struct phx_err *err) PHX_CHECKED;

#endif
