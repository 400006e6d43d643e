/* SPDX-License-Identifier: Apache-2.0
 * The audit log: an append-only chain of records.  A record is one line of canonical JSON (fixed key
 * order, integers and strings only) that holds its number and the leaf hash of the record before it; its
 * own leaf hash is RFC 6962's SHA-256(0x00 || record), so that the same leaves can be published as a
 * Merkle tree.  Prompts and answers appear as salted commitments only. */
#ifndef PHX_DAEMON_AUDIT_H
#define PHX_DAEMON_AUDIT_H

#include <stdint.h>

#include "daemon/store/store.h"
#include "rpc/base/hash.h"
#include "rpc/rpc.h"

/* Before the first token. */
struct phx_audit_intent {
    const char *log_id, *boot_id, *request_id, *receipt_id, *endpoint;
    const char *tenant, *user, *key_id;
    const char *end_user; /* or NULL; recorded as a salted commitment */
    const char *model_name, *model_digest, *build;
    const char *licence_id, *licence_state;
    int64_t     licence_serial;
    int64_t     at_wall_ns;
    const uint8_t *salt; /* 32 bytes, kept outside the log: without it the commitments say nothing */
    const int32_t *prompt;
    int32_t     n_prompt, max_new, n_choices;
    const struct phx_sampling *sampling;
};

/* Before the final frame, or at the next start with finish "crash". */
struct phx_audit_result {
    const char *log_id, *boot_id, *request_id, *receipt_id;
    const char *finish;
    int64_t     at_wall_ns;
    const uint8_t *salt;   /* NULL: no commitment (crash) */
    const int32_t *output;
    int64_t     n_prompt, n_cached, n_output, n_reasoning;
    int64_t     max_output; /* upper bound; differs from n_output after a crash only */
    int64_t     queue_ms, first_token_ms, total_ms;
};

int phx_audit_append_intent(struct phx_tx *tx, const struct phx_audit_intent *r,
                            struct phx_err *err) PHX_CHECKED;
int phx_audit_append_result(struct phx_tx *tx, const struct phx_audit_result *r,
                            struct phx_err *err) PHX_CHECKED;
/* Commitment to tokens: SHA-256(salt || each id as 4 bytes little endian). */
void phx_audit_commit_tokens(const uint8_t salt[32], const int32_t *tokens, int32_t n,
                             uint8_t digest[PHX_SHA256_BYTES]);

struct phx_audit_verdict {
    int64_t n_records, n_intents, n_results, n_open; /* open: an intent without a result */
    uint8_t head[PHX_SHA256_BYTES]; /* leaf hash of the last record */
    int64_t bad_seq;                /* the first record that does not fit, 0 = none */
    bool    has_receipt;            /* the receipt asked for: its intent and result are there */
};
/* Walks the whole chain and compares it with the ledger; receipt (or NULL) is looked for on the way.
 * 0 = intact; PHX_E_FORMAT with what is wrong where = tampered; PHX_E_NOTFOUND = intact, but that receipt
 * has no intent and result (incomplete). */
int phx_audit_verify(struct phx_store *s, const char *receipt, struct phx_audit_verdict *out,
                     struct phx_err *err) PHX_CHECKED;
/* All records of a receipt as JSON lines into fn, oldest first. */
typedef void (*phx_audit_record_fn)(void *ctx, int64_t seq, const char *record, size_t size);
int phx_audit_show(struct phx_store *s, const char *receipt, phx_audit_record_fn fn, void *ctx,
                   struct phx_err *err) PHX_CHECKED;

#endif
