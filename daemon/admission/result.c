/* SPDX-License-Identifier: Apache-2.0
 * The transaction that ends a lease: commit (or void, when nothing was produced), kept answer, result leaf. */
#include <string.h>

#include "daemon/admission/lease.h"

int phx_lease_forget(struct phx_tx *tx, const char *lease, struct phx_err *err)
{
    const struct phx_value value = phx_value_text(lease);

    return phx_tx_exec(tx, "DELETE FROM lease WHERE lease = ?", &value, 1, NULL, NULL, err);
}

static struct phx_ledger_row end_row(const struct phx_lease *l)
{
    bool is_void = l->n_output == 0 &&
                   (strcmp(l->finish, "cancelled") == 0 || strcmp(l->finish, "error") == 0);

    return (struct phx_ledger_row){
        .kind = is_void ? PHX_LEDGER_VOID : PHX_LEDGER_COMMIT,
        .lease = l->receipt,
        .at_ns = l->at_ns,
        .epoch = l->a->epoch,
        .tenant = l->who.tenant,
        .user = l->who.user,
        .key_id = l->who.key_id,
        .cost_centre = l->who.cost_centre,
        .model = l->a->o.model_name,
        .request_id = l->request_id,
        .prompt = is_void ? 0 : l->n_prompt,
        .cached = is_void ? 0 : l->n_cached,
        .output = l->n_output,
        .reasoning = l->n_reasoning,
        .upper = l->n_output,
        .compute_ms = l->total_ms - l->queue_ms,
        .queue_ms = l->queue_ms,
        .first_ms = l->first_ms,
        .total_ms = l->total_ms,
        .outcome = l->finish,
        .note = "",
    };
}

static int put_content(struct phx_tx *tx, struct phx_lease *l, char sha256[65], struct phx_err *err)
{
    const struct phx_content c = {
        .receipt = l->receipt,
        .tenant = l->who.tenant,
        .user = l->who.user,
        .mode = l->privacy,
        .at_ns = l->at_ns,
        .keep_until_ns = l->keep_until_ns,
        .salt = l->salt,
        .response = l->response.data,
        .response_size = l->response.size,
    };

    return phx_content_put_response(tx, l->a->o.site_key, &c, sha256, err);
}

int phx_result_write(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_lease       *l = ctx;
    struct phx_ledger_row   row = end_row(l);
    char                    sha256[65] = "";
    struct phx_result_facts facts = {&row, l->response_commit, sha256, l->replay_class};
    int                     rc = phx_ledger_put(tx, &row, err);

    if (rc == 0)
        rc = phx_lease_forget(tx, l->receipt, err);
    if (rc == 0 && l->privacy != PHX_PRIVACY_COMMIT_ONLY)
        rc = put_content(tx, l, sha256, err);
    return rc == 0 ? phx_record_result(tx, &facts, err) : rc;
}

/* ---- crashes --------------------------------------------------------------------------------------------- */

int phx_crash_write(struct phx_tx *tx, struct phx_admission *a, const struct phx_ledger_row *open,
                    int64_t at_ns, struct phx_err *err)
{
    struct phx_ledger_row   row = *open;
    struct phx_result_facts facts = {&row, "", "", a->o.engine.replay_class};
    int                     rc;

    row.kind = PHX_LEDGER_COMMIT;
    row.at_ns = at_ns;
    row.epoch = a->epoch;
    row.upper = open->reserved - open->prompt;
    row.reserved = 0;
    row.outcome = "crash";
    row.note = "";
    rc = phx_ledger_put(tx, &row, err);
    if (rc == 0)
        rc = phx_lease_forget(tx, row.lease, err);
    return rc == 0 ? phx_record_result(tx, &facts, err) : rc;
}
