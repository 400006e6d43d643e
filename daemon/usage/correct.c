/* SPDX-License-Identifier: Apache-2.0
 * A correction is a row of its own that two people answer for; the row it corrects stays. */
#include <stdio.h>
#include <string.h>
#include <strings.h>

#include "daemon/audit/audit.h"
#include "daemon/usage/usage.h"
#include "rpc/base/mem.h"

enum { NAME_MAX_BYTES = 128, REASON_MAX_BYTES = 500 };

static int check_text(const char *field, const char *text, size_t max, struct phx_err *err)
{
    if (text == NULL || text[0] == '\0' || strlen(text) > max)
        return phx_fail(err, PHX_E_INVALID, "%s: 1 to %zu bytes are needed", field, max);
    return 0;
}

static int check_correction(const struct phx_usage_correction *c, struct phx_err *err)
{
    int rc = check_text("receipt", c->receipt, PHX_LEASE_BYTES - 1, err);

    if (rc == 0)
        rc = check_text("reason", c->reason, REASON_MAX_BYTES, err);
    if (rc == 0)
        rc = check_text("by", c->by, NAME_MAX_BYTES, err);
    if (rc == 0)
        rc = check_text("approved-by", c->approved_by, NAME_MAX_BYTES, err);
    if (rc == 0 && strcasecmp(c->by, c->approved_by) == 0)
        rc = phx_fail(err, PHX_E_INVALID, "approved-by: a second person has to approve");
    if (rc == 0 && c->prompt == 0 && c->cached == 0 && c->output == 0 && c->reasoning == 0 &&
        c->compute_ms == 0 && c->queue_ms == 0)
        rc = phx_fail(err, PHX_E_INVALID, "correction: every difference is 0");
    return rc;
}

static int append_leaf(struct phx_tx *tx, const struct phx_usage_correction *c,
                       const struct phx_ledger_row *row, struct phx_err *err)
{
    struct phx_record r;

    phx_record_init(&r);
    phx_record_str(&r, "approved_by", c->approved_by);
    phx_record_int(&r, "at_ns", c->at_ns);
    phx_record_str(&r, "by", c->by);
    phx_record_open(&r, "delta");
    phx_record_int(&r, "cached", c->cached);
    phx_record_int(&r, "compute_ms", c->compute_ms);
    phx_record_int(&r, "output", c->output);
    phx_record_int(&r, "prompt", c->prompt);
    phx_record_int(&r, "queue_ms", c->queue_ms);
    phx_record_int(&r, "reasoning", c->reasoning);
    phx_record_close(&r);
    phx_record_str(&r, "kind", "correct");
    phx_record_int(&r, "ledger_id", row->id);
    phx_record_str(&r, "reason", c->reason);
    phx_record_str(&r, "receipt", c->receipt);
    phx_record_int(&r, "ref", row->ref);
    phx_record_int(&r, "v", 1);
    return phx_audit_append(tx, "correct", c->receipt, row->tenant, &r, err);
}

int phx_usage_correct(struct phx_tx *tx, const struct phx_usage_correction *c, int64_t *row_id,
                      struct phx_err *err)
{
    struct phx_ledger_row begin, end, row;
    struct phx_arena     *arena;
    char                 *note;
    int                   rc = check_correction(c, err);

    if (rc != 0)
        return rc;
    arena = phx_arena_create();
    note = phx_mem_printf("%s (by %s, approved by %s)", c->reason, c->by, c->approved_by);
    rc = phx_ledger_find(tx, c->receipt, arena, &begin, &end, err);
    if (rc == 0) {
        row = begin; /* its texts */
        row.kind = PHX_LEDGER_CORRECT;
        row.at_ns = c->at_ns;
        row.reserved = row.upper = row.first_ms = row.total_ms = 0;
        row.prompt = c->prompt;
        row.cached = c->cached;
        row.output = c->output;
        row.reasoning = c->reasoning;
        row.compute_ms = c->compute_ms;
        row.queue_ms = c->queue_ms;
        row.outcome = "";
        row.note = note;
        rc = phx_ledger_put(tx, &row, err);
    }
    if (rc == 0) {
        *row_id = row.id;
        rc = append_leaf(tx, c, &row, err);
    }
    phx_mem_free(note);
    phx_arena_destroy(arena);
    return rc;
}
