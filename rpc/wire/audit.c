/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/wire/map.h"

#define T struct phx_rpc_record
static const struct phx_map_row record_rows[] = {
    PHX_MAP_ANY(1, T, index),
    PHX_MAP_ANY(2, T, kind),
    PHX_MAP_TIME(3, T, unix_ns),
    PHX_MAP_ANY(4, T, request_id),
    PHX_MAP_ANY(5, T, tenant),
    PHX_MAP_ANY(6, T, leaf),
};
static const struct phx_map record = {PHX_MAP(T, audit_record, record)};
#undef T

#define T struct phx_rpc_audit_get
static const struct phx_map_row get_rows[] = {
    PHX_MAP_ANY(1, T, index),
    PHX_MAP_RULE(2, T, receipt_id, PHX_MAP_NEEDED),
    PHX_MAP_RULE(3, T, request_id, PHX_MAP_NEEDED),
};
const struct phx_map phx_map_audit_get = {PHX_MAP(T, get_record_request, get), .is_one = true,
                                          .one_at = offsetof(T, by)};
#undef T

#define T struct phx_rpc_records_answer
static const struct phx_map_row get_answer_rows[] = {
    PHX_MAP_LIST(1, T, records, n_records, &record),
};
const struct phx_map phx_map_audit_get_answer = {PHX_MAP(T, get_record_response, get_answer)};
#undef T

#define T struct phx_rpc_audit_prove
static const struct phx_map_row prove_rows[] = {
    PHX_MAP_ANY(1, T, index),
    PHX_MAP_RULE(2, T, receipt_id, PHX_MAP_NEEDED),
    PHX_MAP_ANY(3, T, old_tree_size),
    PHX_MAP_ANY(4, T, tree_size),
};
const struct phx_map phx_map_audit_prove = {PHX_MAP(T, prove_request, prove), .is_one = true,
                                            .one_at = offsetof(T, what)};
#undef T

#define T struct phx_rpc_prove_answer
static const struct phx_map_row prove_answer_rows[] = {
    PHX_MAP_ANY(1, T, index),
    PHX_MAP_ANY(2, T, tree_size),
    PHX_MAP_LIST(3, T, hashes, n_hashes, NULL),
    PHX_MAP_ANY(4, T, checkpoint),
    PHX_MAP_SUB_IF(5, T, record, has_record, &record, 0),
};
const struct phx_map phx_map_prove_answer = {PHX_MAP(T, prove_response, prove_answer)};
#undef T

const struct phx_map phx_map_checkpoint = {
    .type = &phalanx__v1__checkpoint_request__descriptor, .size = sizeof(struct phx_rpc_empty)};

#define T struct phx_rpc_checkpoint_answer
static const struct phx_map_row checkpoint_answer_rows[] = {
    PHX_MAP_ANY(1, T, checkpoint),
    PHX_MAP_ANY(2, T, tree_size),
};
const struct phx_map phx_map_checkpoint_answer = {
    PHX_MAP(T, checkpoint_response, checkpoint_answer)};
#undef T

#define T struct phx_rpc_audit_search
static int check_search(const void *plain, struct phx_err *err)
{
    const struct phx_rpc_audit_search *s = plain;

    return phx_map_span("SearchRecordsRequest.from_unix_ns, to_unix_ns", (uint64_t)s->from_unix_ns,
                        (uint64_t)s->to_unix_ns, err);
}

static const struct phx_map_row search_rows[] = {
    PHX_MAP_TIME(1, T, from_unix_ns),
    PHX_MAP_TIME(2, T, to_unix_ns),
    PHX_MAP_ANY(3, T, kind),
    PHX_MAP_ANY(4, T, tenant),
    PHX_MAP_ANY(5, T, user),
    PHX_MAP_ANY(6, T, model_digest),
    PHX_MAP_INT(7, T, page_size, 0, PHX_RPC_RECORDS_MAX),
    PHX_MAP_ANY(8, T, page_token),
};
const struct phx_map phx_map_audit_search = {PHX_MAP(T, search_records_request, search),
                                             .check = check_search};
#undef T

#define T struct phx_rpc_search_answer
static const struct phx_map_row search_answer_rows[] = {
    PHX_MAP_LIST(1, T, records, n_records, &record),
    PHX_MAP_ANY(2, T, next_page_token),
};
const struct phx_map phx_map_search_answer = {PHX_MAP(T, search_records_response, search_answer)};
#undef T

#define T struct phx_rpc_audit_replay
static const struct phx_map_row replay_rows[] = {
    PHX_MAP_RULE(1, T, receipt_id, PHX_MAP_NEEDED),
    PHX_MAP_ANY(2, T, as_class),
};
const struct phx_map phx_map_audit_replay = {PHX_MAP(T, replay_request, replay)};
#undef T

#define T struct phx_rpc_replay_answer
static const struct phx_map_row replay_answer_rows[] = {
    PHX_MAP_ANY(1, T, receipt_id),
    PHX_MAP_ANY(2, T, replay_class),
    PHX_MAP_ANY(3, T, is_equal),
    PHX_MAP_COUNT(4, T, n_tokens),
    PHX_MAP_COUNT(5, T, n_checked),
    PHX_MAP_INT(6, T, first_difference, -1, PHX_RPC_COUNT_MAX),
    PHX_MAP_ANY(7, T, tolerance),
};
const struct phx_map phx_map_replay_answer = {PHX_MAP(T, replay_response, replay_answer)};
#undef T
