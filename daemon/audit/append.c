/* SPDX-License-Identifier: Apache-2.0
 * One statement makes a leaf: its number is read and taken in the same step of the one writer, so numbers
 * have no gaps, also when a job before it was rolled back.  (As INSERT ... SELECT it could write many rows, and
 * SQLite would keep a journal per statement, whose cost grows with all that the job has written.) */
#include "daemon/audit/audit.h"
#include "daemon/store/store.h"

int phx_audit_append(struct phx_tx *tx, const char *kind, const char *receipt, const char *tenant,
                     struct phx_record *r, struct phx_err *err)
{
    static const char insert[] =
        "INSERT INTO audit(leaf, kind, receipt, at_ns, tenant, record, leaf_hash)"
        " VALUES((SELECT COALESCE(MAX(leaf), -1) + 1 FROM audit), ?, ?, ?, ?, ?, ?)";
    struct phx_tlog_hash leaf;
    int                  rc = phx_record_end(r, err);

    if (rc == 0) {
        struct phx_value values[6];

        phx_assert(r->has_at_ns); /* a record without its time is a bug of the caller */
        phx_tlog_leaf(r->text.data, r->text.size, &leaf);
        values[0] = phx_value_text(kind);
        values[1] = phx_value_text(receipt);
        values[2] = phx_value_int(r->at_ns);
        values[3] = phx_value_text(tenant);
        values[4] = phx_value_text(r->text.data);
        values[5] = phx_value_blob(leaf.bytes, sizeof(leaf.bytes));
        rc = phx_tx_exec(tx, insert, values, 6, NULL, NULL, err);
    }
    phx_record_fini(r);
    return rc;
}

int phx_audit_event(struct phx_tx *tx, const char *kind, const char *event, const char *subject,
                    const char *by, const char *detail, int64_t at_ns, struct phx_err *err)
{
    struct phx_record r;
    char              receipt[PHX_RECEIPT_BYTES];

    phx_receipt_make(receipt);
    phx_record_init(&r);
    phx_record_int(&r, "at_ns", at_ns);
    phx_record_str(&r, "by", by);
    phx_record_str(&r, "detail", detail);
    phx_record_str(&r, "event", event);
    phx_record_str(&r, "kind", kind);
    phx_record_str(&r, "receipt", receipt);
    phx_record_str(&r, "subject", subject);
    phx_record_int(&r, "v", 1);
    return phx_audit_append(tx, kind, receipt, "", &r, err);
}
