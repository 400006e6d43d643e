/* SPDX-License-Identifier: Apache-2.0
 * Sums over commits and corrections, grouped by what the caller asks for. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/ledger/row.h"
#include "rpc/base/mem.h"
#include "rpc/base/table.h"

static const char *const group_names[] = {"", "tenant", "user", "model", "cost_centre", "hour", "day", "month"};

const char *phx_usage_group_name(enum phx_usage_group group)
{
    return group_names[group >= PHX_GROUP_NONE && group <= PHX_GROUP_MONTH ? (int)group : 0];
}

enum phx_usage_group phx_usage_group_parse(const char *name)
{
    for (int g = PHX_GROUP_TENANT; g <= PHX_GROUP_MONTH; g++)
        if (strcmp(name, group_names[g]) == 0)
            return g;
    return PHX_GROUP_NONE;
}

int phx_usage_add(struct phx_usage_row *sum, const struct phx_usage_row *row, struct phx_err *err)
{
    if (__builtin_add_overflow(sum->requests, row->requests, &sum->requests) ||
        __builtin_add_overflow(sum->prompt, row->prompt, &sum->prompt) ||
        __builtin_add_overflow(sum->cached, row->cached, &sum->cached) ||
        __builtin_add_overflow(sum->output, row->output, &sum->output) ||
        __builtin_add_overflow(sum->reasoning, row->reasoning, &sum->reasoning) ||
        __builtin_add_overflow(sum->compute_ms, row->compute_ms, &sum->compute_ms) ||
        __builtin_add_overflow(sum->queue_ms, row->queue_ms, &sum->queue_ms))
        return phx_fail(err, PHX_E_INVALID, "usage: a sum overflows; ask for a shorter period");
    if (sum->first_id == 0 || (row->first_id != 0 && row->first_id < sum->first_id))
        sum->first_id = row->first_id;
    if (row->last_id > sum->last_id)
        sum->last_id = row->last_id;
    return 0;
}

/* ---- grouping --------------------------------------------------------------------------------------------- */

struct grouping {
    const enum phx_usage_group *groups;
    int                         n_groups;
    struct phx_arena           *arena;
    struct phx_table           *sums; /* key: values with their lengths -> struct phx_usage_row */
    int64_t                     hour; /* of the last row, and its texts: rows come by time */
    char                        hour_text[32], day_text[16], month_text[8];
    struct phx_err             *err;
};

static void set_hour(struct grouping *g, int64_t at_ns)
{
    const int64_t hour_ns = INT64_C(3600000000000);

    if (g->hour == at_ns / hour_ns && g->month_text[0] != '\0')
        return;
    g->hour = at_ns / hour_ns;
    phx_window_format(PHX_PERIOD_DAY, at_ns, g->day_text);
    phx_period_format(at_ns, g->month_text);
    (void)snprintf(g->hour_text, sizeof(g->hour_text), "%.10sT%02d:00:00Z", g->day_text,
                   (int)(g->hour % 24 & 31));
}

static const char *value_of(const struct grouping *g, enum phx_usage_group group,
                            const struct phx_ledger_row *row)
{
    switch (group) {
    case PHX_GROUP_TENANT: return row->tenant;
    case PHX_GROUP_USER: return row->user;
    case PHX_GROUP_MODEL: return row->model;
    case PHX_GROUP_COST_CENTRE: return row->cost_centre;
    case PHX_GROUP_HOUR: return g->hour_text;
    case PHX_GROUP_DAY: return g->day_text;
    default: return g->month_text;
    }
}

static int find_sum(struct grouping *g, const struct phx_ledger_row *row, struct phx_usage_row **out)
{
    enum { KEY_MAX = PHX_USAGE_GROUPS_MAX * (PHX_USAGE_GROUP_BYTES + 8) };
    char   key[KEY_MAX];
    size_t used = 0;
    int    rc;

    key[0] = '\0';
    for (int i = 0; i < g->n_groups; i++) {
        const char *value = value_of(g, g->groups[i], row);
        size_t      n = strlen(value);

        if (n >= PHX_USAGE_GROUP_BYTES)
            return phx_fail(g->err, PHX_E_TOOBIG, "usage: a %s has %zu bytes, the limit is %d",
                            phx_usage_group_name(g->groups[i]), n, PHX_USAGE_GROUP_BYTES - 1);
        used += (size_t)snprintf(key + used, sizeof(key) - used, "%zu:%s", n, value);
    }
    *out = phx_table_get_str(g->sums, key);
    if (*out != NULL)
        return 0;
    *out = phx_arena_calloc(g->arena, 1, sizeof(**out));
    for (int i = 0; i < PHX_USAGE_GROUPS_MAX; i++)
        (*out)->group[i] =
            i < g->n_groups ? phx_arena_strdup(g->arena, value_of(g, g->groups[i], row)) : "";
    rc = phx_table_set_str(g->sums, key, *out);
    return rc == 0 ? 0
                   : phx_fail(g->err, rc, "usage: more than %d sums; ask for fewer groups or a shorter period",
                              PHX_USAGE_SUMS_MAX);
}

static int add_row(void *ctx, const struct phx_ledger_row *row)
{
    struct grouping           *g = ctx;
    const struct phx_usage_row numbers = {
        .requests = row->kind == PHX_LEDGER_COMMIT,
        .prompt = row->prompt,
        .cached = row->cached,
        .output = row->output,
        .reasoning = row->reasoning,
        .compute_ms = row->compute_ms,
        .queue_ms = row->queue_ms,
        .first_id = row->id,
        .last_id = row->id,
    };
    struct phx_usage_row *sum = NULL;
    int                   rc;

    set_hour(g, row->at_ns);
    rc = find_sum(g, row, &sum);
    return rc == 0 ? phx_usage_add(sum, &numbers, g->err) : rc;
}

static int compare_sums(const void *a, const void *b)
{
    const struct phx_usage_row *const *x = a, *const *y = b;
    int                                order = 0;

    for (int i = 0; i < PHX_USAGE_GROUPS_MAX && order == 0; i++)
        order = strcmp((*x)->group[i], (*y)->group[i]);
    return order;
}

static int tell_sums(struct grouping *g, phx_usage_fn fn, void *ctx)
{
    size_t                 n = phx_table_count(g->sums), cursor = 0;
    struct phx_usage_row **list = phx_mem_calloc(n + 1, sizeof(struct phx_usage_row *));
    int                    rc = 0;

    for (size_t i = 0; i < n; i++)
        list[i] = phx_table_next(g->sums, &cursor);
    qsort(list, n, sizeof(struct phx_usage_row *), compare_sums);
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = fn(ctx, list[i]);
    phx_mem_free(list);
    return rc;
}

int phx_ledger_usage(struct phx_tx *tx, const struct phx_usage_filter *filter,
                     const enum phx_usage_group groups[PHX_USAGE_GROUPS_MAX], phx_usage_fn fn, void *ctx,
                     int64_t *at_id, struct phx_err *err)
{
    struct grouping g = {.groups = groups, .err = err};
    int             rc;

    while (g.n_groups < PHX_USAGE_GROUPS_MAX && groups[g.n_groups] != PHX_GROUP_NONE)
        g.n_groups++;
    g.arena = phx_arena_create();
    g.sums = phx_table_create(PHX_USAGE_SUMS_MAX);
    rc = phx_ledger_last_id(tx, at_id, err);
    if (rc == 0)
        rc = phx_ledger_usage_rows(tx, filter, add_row, &g, err);
    if (rc == 0)
        rc = tell_sums(&g, fn, ctx);
    phx_table_destroy(g.sums);
    phx_arena_destroy(g.arena);
    return rc;
}
