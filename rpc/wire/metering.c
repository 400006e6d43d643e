/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/wire/map.h"

#define T struct phx_rpc_usage_filter
static int check_filter(const void *plain, struct phx_err *err)
{
    const struct phx_rpc_usage_filter *f = plain;

    return phx_map_span("UsageFilter.from_unix_ns, to_unix_ns", (uint64_t)f->from_unix_ns,
                        (uint64_t)f->to_unix_ns, err);
}

static const struct phx_map_row filter_rows[] = {
    PHX_MAP_TIME(1, T, from_unix_ns),
    PHX_MAP_TIME(2, T, to_unix_ns),
    PHX_MAP_ANY(3, T, tenant),
    PHX_MAP_ANY(4, T, user),
    PHX_MAP_ANY(5, T, model),
    PHX_MAP_ANY(6, T, cost_centre),
};
static const struct phx_map filter = {PHX_MAP(T, usage_filter, filter), .check = check_filter};
#undef T

/* Corrections may take a sum of a short time below zero. */
#define T struct phx_rpc_usage_totals
#define SUM(no, m) PHX_MAP_INT(no, T, m, INT64_MIN, INT64_MAX)
static const struct phx_map_row totals_rows[] = {
    SUM(1, requests), SUM(2, input_tokens), SUM(3, cached_input_tokens), SUM(4, output_tokens),
    SUM(5, reasoning_tokens), SUM(6, queue_ms), SUM(7, compute_ms), SUM(8, kv_block_seconds),
};
static const struct phx_map totals = {PHX_MAP(T, usage_totals, totals)};
#undef T

#define T struct phx_rpc_usage_query
static const struct phx_map_row query_rows[] = {
    PHX_MAP_SUB(1, T, filter, &filter),
    PHX_MAP_LIST(2, T, group_by, n_group_by, NULL),
    PHX_MAP_INT(3, T, page_size, 0, PHX_RPC_USAGE_ROWS_MAX),
    PHX_MAP_ANY(4, T, page_token),
};
const struct phx_map phx_map_usage_query = {PHX_MAP(T, query_usage_request, query)};
#undef T

#define T struct phx_rpc_usage_row
static const struct phx_map_row row_rows[] = {
    PHX_MAP_LIST(1, T, group, n_group, NULL),
    PHX_MAP_SUB(2, T, totals, &totals),
};
static const struct phx_map row = {PHX_MAP(T, usage_row, row)};
#undef T

#define T struct phx_rpc_usage_answer
static const struct phx_map_row answer_rows[] = {
    PHX_MAP_LIST(1, T, rows, n_rows, &row),
    PHX_MAP_ANY(2, T, next_page_token),
    PHX_MAP_ANY(3, T, ledger_index),
};
const struct phx_map phx_map_usage_answer = {PHX_MAP(T, query_usage_response, answer)};
#undef T

#define T struct phx_rpc_usage_export
static int check_export(const void *plain, struct phx_err *err)
{
    const struct phx_rpc_usage_export *e = plain;

    return phx_map_span("ExportUsageRequest.from_index, to_index", e->from_index, e->to_index, err);
}

static const struct phx_map_row export_rows[] = {
    PHX_MAP_SUB(1, T, filter, &filter),
    PHX_MAP_INT(2, T, format, PHX_RPC_EXPORT_CLOUDEVENTS, PHX_RPC_EXPORT_FOCUS),
    PHX_MAP_ANY(3, T, from_index),
    PHX_MAP_ANY(4, T, to_index),
};
const struct phx_map phx_map_usage_export = {PHX_MAP(T, export_usage_request, export),
                                             .check = check_export};
#undef T

#define T struct phx_rpc_usage_part
static const struct phx_map_row part_rows[] = {
    PHX_MAP_ANY(1, T, data),
    PHX_MAP_ANY(2, T, next_index),
};
const struct phx_map phx_map_usage_part = {PHX_MAP(T, export_usage_response, part)};
#undef T
