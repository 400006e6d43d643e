/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/control/job.h"
#include "daemon/ledger/ledger.h"
#include "daemon/store/store.h"

enum { DEFAULT_ROWS = 1000 };

int phx_control_usage_filter(struct phx_control_job *job, const struct phx_rpc_usage_filter *in,
                             struct phx_usage_filter *out, struct phx_err *err)
{
    const unsigned all = PHX_ROLE_BIT_OPERATOR | PHX_ROLE_BIT_AUDITOR | PHX_ROLE_BIT_ADMIN;

    *out = (struct phx_usage_filter){
        .from_ns = in->from_unix_ns,
        .to_ns = in->to_unix_ns,
        .tenant = phx_control_filter(job, in->tenant),
        .user = phx_control_filter(job, in->user),
        .model = phx_control_filter(job, in->model),
        .cost_centre = phx_control_filter(job, in->cost_centre),
    };
    if ((job->who.roles & all) != 0)
        return 0;
    if ((out->tenant != NULL && strcmp(out->tenant, job->who.tenant) != 0) ||
        (out->user != NULL && strcmp(out->user, job->who.user) != 0))
        return phx_fail(err, PHX_E_DENIED, "users see their own usage alone");
    out->tenant = job->who.tenant;
    out->user = job->who.user;
    return 0;
}

struct query {
    struct phx_usage_filter   filter;
    enum phx_usage_group      groups[PHX_USAGE_GROUPS_MAX];
    int32_t                   n_groups;
    uint64_t                  skip, seen;
    int32_t                   max, n;
    struct phx_rpc_usage_row *rows;
    int64_t                   at_id;
    bool                      is_more;
    struct phx_arena         *arena;
};

static int keep_row(void *ctx, const struct phx_usage_row *row)
{
    struct query *q = ctx;
    const char  **group;

    if (q->seen++ < q->skip)
        return 0;
    if (q->n == q->max) {
        q->is_more = true;
        return 1; /* ends the walk */
    }
    group = phx_arena_calloc(q->arena, PHX_USAGE_GROUPS_MAX, sizeof(*group));
    for (int32_t i = 0; i < q->n_groups; i++)
        group[i] = phx_arena_strdup(q->arena, row->group[i]);
    q->rows[q->n++] = (struct phx_rpc_usage_row){
        .group = group,
        .n_group = q->n_groups,
        .totals = {.requests = row->requests,
                   .input_tokens = row->prompt,
                   .cached_input_tokens = row->cached,
                   .output_tokens = row->output,
                   .reasoning_tokens = row->reasoning,
                   .queue_ms = row->queue_ms,
                   .compute_ms = row->compute_ms},
    };
    return 0;
}

static int read_usage(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct query *q = ctx;
    int           rc = phx_ledger_usage(tx, &q->filter, q->groups, keep_row, q, &q->at_id, err);

    return rc > 0 ? 0 : rc;
}

static int work_usage(struct phx_control_job *job, struct phx_err *err)
{
    struct query *q = job->state;
    char          token[48] = "";
    int           rc = phx_store_read(job->d->store, read_usage, q, err);
    int64_t       at_id = q->filter.below_id > 0 ? q->filter.below_id - 1 : q->at_id;

    if (q->is_more)
        (void)snprintf(token, sizeof(token), "%" PRId64 ".%" PRIu64, at_id, q->skip + (uint64_t)q->n);
    job->answer.u.usage_query = (struct phx_rpc_usage_answer){
        q->rows, q->n, phx_arena_strdup(job->arena, token), (uint64_t)at_id};
    return rc;
}

static int parse_groups(const struct phx_rpc_usage_query *in, struct query *q, struct phx_err *err)
{
    for (int32_t i = 0; i < in->n_group_by; i++) {
        q->groups[i] = phx_usage_group_parse(in->group_by[i]);
        if (q->groups[i] == PHX_GROUP_NONE)
            return phx_fail(err, PHX_E_INVALID,
                            "group_by: '%.60s' is none of tenant, user, model, cost_centre, hour, day, month",
                            in->group_by[i]);
        for (int32_t j = 0; j < i; j++)
            if (q->groups[j] == q->groups[i])
                return phx_fail(err, PHX_E_INVALID, "group_by: '%.60s' is there twice", in->group_by[i]);
    }
    q->n_groups = in->n_group_by;
    return 0;
}

/* Later pages hold for the ledger of the first: the token tells its last row, and how many sums went before. */
static int parse_query(struct phx_control_job *job, const struct phx_rpc_usage_query *in, struct query *q,
                       struct phx_err *err)
{
    uint64_t numbers[2];
    int      rc = phx_control_usage_filter(job, &in->filter, &q->filter, err);

    if (rc == 0)
        rc = parse_groups(in, q, err);
    if (rc == 0 && *in->page_token != '\0') {
        rc = phx_control_token(in->page_token, numbers, 2, err);
        if (rc == 0) {
            q->filter.below_id = (int64_t)numbers[0] + 1;
            q->skip = numbers[1];
        }
    }
    q->max = in->page_size > 0 ? in->page_size : DEFAULT_ROWS;
    q->rows = phx_arena_calloc(job->arena, (size_t)q->max, sizeof(*q->rows));
    q->arena = job->arena;
    return rc;
}

void phx_control_metering(struct phx_control_job *job, const struct phx_rpc_request *request)
{
    struct phx_err err = {0};

    job->state = phx_arena_calloc(job->arena, 1, sizeof(struct query));
    if (parse_query(job, &request->u.usage_query, job->state, &err) != 0)
        phx_control_fail(job, &err, -1);
    else
        phx_control_read(job, work_usage, phx_control_finish);
}
