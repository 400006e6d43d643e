/* SPDX-License-Identifier: Apache-2.0
 * Canned answers of Admission, License, Metering and Audit: each shows that its request arrived. */
#include <string.h>

#include "tests/unit/rpc/transport/loop.h"

static void admit(struct phx_rpc_call *call, const struct phx_rpc_admit *in)
{
    static const char *const warnings[] = {"90 % of the seats are used"};
    struct phx_rpc_answer    answer = {0};
    struct phx_err           err;

    if (strcmp(in->user, "eleventh") == 0) {
        (void)phx_fail(&err, PHX_E_LICENSE, "all 10 seats are used this month: ask for more");
        phx_rpc_refuse(call, &err, "licence.seats", -1);
        return;
    }
    if (strcmp(in->user, "hasty") == 0) {
        (void)phx_fail(&err, PHX_E_LIMIT, "1 request a second");
        phx_rpc_refuse(call, &err, "rate", 2000);
        return;
    }
    answer.u.admit.decision = PHX_RPC_DECISION_ALLOWED;
    answer.u.admit.lease_id = in->session;
    answer.u.admit.seat_id = in->idempotency_key;
    answer.u.admit.expires_unix_ns = (int64_t)in->request_digest.size;
    answer.u.admit.budget_left_tokens = in->max_input_tokens + in->max_output_tokens;
    answer.u.admit.warnings = warnings;
    answer.u.admit.n_warnings = 1;
    phx_rpc_reply(call, &answer);
}

static void export(struct phx_rpc_call *call, const struct phx_rpc_usage_export *in)
{
    struct phx_err err;

    for (uint64_t i = in->from_index; i < in->to_index; i++) {
        struct phx_rpc_answer answer = {.u.usage_export = {{"a,b\r\n", 5}, i + 1}};

        if (phx_rpc_stream_send(call, &answer, &err) != 0)
            return;
    }
    phx_rpc_stream_end(call);
}

static void fill_audit(const struct phx_rpc_request *r, struct phx_rpc_answer *answer)
{
    static const struct phx_rpc_record record = {7, "intent", 1, "q-1", "acme", {"{}", 2}};
    static const struct phx_rpc_bytes  hash = {"0123456789abcdef0123456789abcdef", 32};

    if (r->method == PHX_RPC_AUDIT_GET)
        answer->u.audit_get = (struct phx_rpc_records_answer){&record, 1};
    else if (r->method == PHX_RPC_AUDIT_PROVE)
        answer->u.audit_prove = (struct phx_rpc_prove_answer){
            .index = r->u.audit_prove.index, .tree_size = r->u.audit_prove.tree_size, .hashes = &hash,
            .n_hashes = 1, .has_record = true, .record = record};
    else if (r->method == PHX_RPC_AUDIT_CHECKPOINT)
        answer->u.audit_checkpoint = (struct phx_rpc_checkpoint_answer){{"note", 4}, 8};
    else if (r->method == PHX_RPC_AUDIT_SEARCH)
        answer->u.audit_search = (struct phx_rpc_search_answer){&record, 1, "8"};
    else
        answer->u.audit_replay = (struct phx_rpc_replay_answer){
            r->u.audit_replay.receipt_id, "A", true, 5, 5, -1, "the same token ids"};
}

static void fill_rest(const struct phx_rpc_request *r, struct phx_rpc_answer *answer)
{
    static const struct phx_rpc_seat seat = {"ab12", "acme", 1, 2, false, true, false};

    if (r->method == PHX_RPC_RENEW)
        answer->u.renew.expires_unix_ns = r->u.renew.so_far.output_tokens;
    else if (r->method == PHX_RPC_SETTLE)
        answer->u.settle.receipt_id = r->u.settle.outcome;
    else if (r->method == PHX_RPC_LICENSE_GET)
        answer->u.license.facts = (struct phx_rpc_license){.legal_name = "Acme", .seats = -1};
    else if (r->method == PHX_RPC_LICENSE_INSTALL)
        answer->u.license_install.is_dry_run = r->u.license_install.is_dry_run;
    else if (r->method == PHX_RPC_LICENSE_SEATS)
        answer->u.seats = (struct phx_rpc_seats_answer){&seat, 1, r->u.seats.period};
    else if (r->method == PHX_RPC_LICENSE_ACCEPT_CLOCK)
        answer->u.accept_clock.clock_state = r->u.accept_clock.approved_by;
}

void test_control_answer(struct phx_rpc_call *call, const struct phx_rpc_request *r)
{
    struct phx_rpc_answer    answer = {0};
    struct phx_rpc_usage_row row = {r->u.usage_query.group_by, r->u.usage_query.n_group_by,
                                    {1, 2, 3, 4, 5, 6, 7, 8}};

    if (r->method == PHX_RPC_ADMIT) {
        admit(call, &r->u.admit);
        return;
    }
    if (r->method == PHX_RPC_METERING_EXPORT) {
        export(call, &r->u.usage_export);
        return;
    }
    if (r->method == PHX_RPC_METERING_QUERY)
        answer.u.usage_query = (struct phx_rpc_usage_answer){&row, 1, "", 42};
    else if (r->method >= PHX_RPC_AUDIT_GET)
        fill_audit(r, &answer);
    else
        fill_rest(r, &answer);
    phx_rpc_reply(call, &answer);
}
