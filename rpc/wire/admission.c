/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/wire/map.h"

#define T struct phx_rpc_lease_usage
static int check_usage(const void *plain, struct phx_err *err)
{
    const struct phx_rpc_lease_usage *u = plain;

    if (u->cached_input_tokens > u->input_tokens)
        return phx_fail(err, PHX_E_INVALID, "LeaseUsage.cached_input_tokens is above input_tokens");
    if (u->reasoning_tokens > u->output_tokens)
        return phx_fail(err, PHX_E_INVALID, "LeaseUsage.reasoning_tokens is above output_tokens");
    return 0;
}

static const struct phx_map_row usage_rows[] = {
    PHX_MAP_COUNT(1, T, input_tokens),
    PHX_MAP_COUNT(2, T, cached_input_tokens),
    PHX_MAP_COUNT(3, T, output_tokens),
    PHX_MAP_COUNT(4, T, reasoning_tokens),
};
static const struct phx_map usage = {PHX_MAP(T, lease_usage, usage), .check = check_usage};
#undef T

#define T struct phx_rpc_admit
static const struct phx_map_row admit_rows[] = {
    PHX_MAP_ANY(1, T, tenant),
    PHX_MAP_ANY(2, T, user),
    PHX_MAP_RULE(3, T, model, PHX_MAP_NEEDED),
    PHX_MAP_ANY(4, T, purpose),
    PHX_MAP_ANY(5, T, idempotency_key),
    PHX_MAP_RULE(6, T, request_digest, PHX_MAP_DIGEST),
    PHX_MAP_COUNT(7, T, max_input_tokens),
    PHX_MAP_COUNT(8, T, max_output_tokens),
    PHX_MAP_ANY(9, T, cost_centre),
    PHX_MAP_ANY(10, T, session),
};
const struct phx_map phx_map_admit = {PHX_MAP(T, admit_request, admit)};
#undef T

#define T struct phx_rpc_admit_answer
static const struct phx_map_row admit_answer_rows[] = {
    PHX_MAP_INT(1, T, decision, 0, PHX_RPC_DECISION_REPLAYED),
    PHX_MAP_ANY(2, T, lease_id),
    PHX_MAP_TIME(3, T, expires_unix_ns),
    PHX_MAP_ANY(4, T, seat_id),
    PHX_MAP_INT(5, T, budget_left_tokens, -1, PHX_RPC_COUNT_MAX),
    PHX_MAP_SUB(6, T, usage, &usage),
    PHX_MAP_LIST(7, T, warnings, n_warnings, NULL),
};
const struct phx_map phx_map_admit_answer = {PHX_MAP(T, admit_response, admit_answer)};
#undef T

#define T struct phx_rpc_renew
static const struct phx_map_row renew_rows[] = {
    PHX_MAP_RULE(1, T, lease_id, PHX_MAP_NEEDED),
    PHX_MAP_SUB(2, T, so_far, &usage),
};
const struct phx_map phx_map_renew = {PHX_MAP(T, renew_request, renew)};
#undef T

#define T struct phx_rpc_renew_answer
static const struct phx_map_row renew_answer_rows[] = {
    PHX_MAP_TIME(1, T, expires_unix_ns),
};
const struct phx_map phx_map_renew_answer = {PHX_MAP(T, renew_response, renew_answer)};
#undef T

#define T struct phx_rpc_settle
static const struct phx_map_row settle_rows[] = {
    PHX_MAP_RULE(1, T, lease_id, PHX_MAP_NEEDED),
    PHX_MAP_SUB_IF(2, T, usage, has_usage, &usage, PHX_MAP_NEEDED),
    PHX_MAP_RULE(3, T, outcome, PHX_MAP_NEEDED),
    PHX_MAP_RULE(4, T, response_digest, PHX_MAP_DIGEST),
};
const struct phx_map phx_map_settle = {PHX_MAP(T, settle_request, settle)};
#undef T

#define T struct phx_rpc_settle_answer
static const struct phx_map_row settle_answer_rows[] = {
    PHX_MAP_ANY(1, T, receipt_id),
};
const struct phx_map phx_map_settle_answer = {PHX_MAP(T, settle_response, settle_answer)};
#undef T

#define T struct phx_rpc_cancel_lease
static const struct phx_map_row cancel_lease_rows[] = {
    PHX_MAP_RULE(1, T, lease_id, PHX_MAP_NEEDED),
    PHX_MAP_ANY(2, T, reason),
};
const struct phx_map phx_map_cancel_lease = {PHX_MAP(T, cancel_lease_request, cancel_lease)};
#undef T

const struct phx_map phx_map_cancel_lease_answer = {
    .type = &phalanx__v1__cancel_lease_response__descriptor, .size = sizeof(struct phx_rpc_empty)};
