/* SPDX-License-Identifier: Apache-2.0
 * The audit log: leaves in the order they happened, each a canonical JSON record with its RFC 6962 leaf hash
 * and a chain over all before it.  Prompts and answers appear as salted commitments only. */
#ifndef PHX_DAEMON_AUDIT_H
#define PHX_DAEMON_AUDIT_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

struct phx_store;
struct phx_tx;

enum { PHX_RECEIPT_BYTES = 40, PHX_SALT_BYTES = 32 };

/* "rcpt_" and 32 random hex digits. */
void phx_receipt_make(char receipt[PHX_RECEIPT_BYTES]);

/* Appends a leaf.  record: compact JSON with sorted keys, made by the caller; kind: "intent", "result",
 * "refusal", "admin"; salt: of its commitments, or NULL. */
int phx_audit_append(struct phx_tx *tx, const char *kind, const char *receipt, const char *record,
                     const uint8_t *salt, struct phx_err *err) PHX_CHECKED;
/* An administrative event about a subject. */
int phx_audit_admin(struct phx_tx *tx, const char *event, const char *subject, struct phx_err *err)
    PHX_CHECKED;

/* hex of SHA-256(salt || ids as little-endian 32-bit integers). */
void phx_audit_commit(const uint8_t salt[PHX_SALT_BYTES], const int32_t *ids, size_t n,
                      char hex[65]);

enum phx_audit_verdict {
    PHX_AUDIT_OK = 0,
    PHX_AUDIT_TAMPERED = 1,
    PHX_AUDIT_INCOMPLETE = 2 /* a record is missing what should follow or stand beside it */
};

struct phx_audit_report {
    enum phx_audit_verdict verdict;
    int64_t                n_leaves, n_requests, n_open; /* open: admitted, not ended yet */
    char                   head[65];                     /* chain of the last leaf, hex */
    char                   text[240];                    /* what is wrong, or "" */
};

/* Recomputes every leaf and the chain, and compares results with the ledger; with a receipt, its intent and
 * result must be there.  PHX_E_NOTFOUND for an unknown receipt. */
int phx_audit_verify(struct phx_store *store, const char *receipt, struct phx_audit_report *report,
                     struct phx_err *err) PHX_CHECKED;

#endif
