/* SPDX-License-Identifier: Apache-2.0
 * Sums and their total as one JSON document. */
#include <inttypes.h>
#include <string.h>

#include "daemon/usage/out.h"
#include "rpc/base/clock.h"
#include "rpc/base/json.h"

static void put_numbers(struct out *o, const struct phx_usage_row *row)
{
    phx_buf_printf(&o->text, "\"requests\":%" PRId64 ",\"prompt_tokens\":%" PRId64, row->requests, row->prompt);
    phx_buf_printf(&o->text, ",\"cached_tokens\":%" PRId64 ",\"output_tokens\":%" PRId64, row->cached,
                   row->output);
    phx_buf_printf(&o->text, ",\"reasoning_tokens\":%" PRId64 ",\"compute_ms\":%" PRId64, row->reasoning,
                   row->compute_ms);
    phx_buf_printf(&o->text, ",\"queue_ms\":%" PRId64, row->queue_ms);
    phx_buf_printf(&o->text, ",\"ledger\":{\"first\":%" PRId64 ",\"last\":%" PRId64 "}}", row->first_id,
                   row->last_id);
}

static int write_sum(void *ctx, const struct phx_usage_row *row)
{
    struct out                 *o = ctx;
    const enum phx_usage_group *groups = o->report->groups;

    phx_buf_puts(&o->text, o->is_first ? "{" : ",{");
    o->is_first = false;
    for (int i = 0; i < PHX_USAGE_GROUPS_MAX && groups[i] != PHX_GROUP_NONE; i++) {
        phx_buf_printf(&o->text, "\"%s\":", phx_usage_group_name(groups[i]));
        phx_json_put_str(&o->text, row->group[i], strlen(row->group[i]));
        phx_buf_putc(&o->text, ',');
    }
    put_numbers(o, row);
    return phx_usage_add(&o->total, row, o->err) != 0 ? PHX_E_INVALID : phx_out_pass(o);
}

int phx_usage_write_json(struct out *o)
{
    const struct phx_usage_filter *f = &o->report->filter;
    char                           from[32], to[32];
    int64_t                        at_id = 0;
    int                            rc;

    phx_clock_format_utc(f->from_ns, from);
    phx_clock_format_utc(f->to_ns, to);
    phx_buf_printf(&o->text, "{\"format\":\"phalanx.usage.v1\",\"cluster\":\"%.64s\",\"from\":\"%s\"",
                   o->report->cluster_id, from);
    phx_buf_printf(&o->text, ",\"to\":%s%s%s,\"rows\":[", f->to_ns != 0 ? "\"" : "",
                   f->to_ns != 0 ? to : "null", f->to_ns != 0 ? "\"" : "");
    o->is_first = true;
    rc = phx_ledger_usage(o->tx, f, o->report->groups, write_sum, o, &at_id, o->err);
    phx_buf_puts(&o->text, "],\"total\":{");
    put_numbers(o, &o->total);
    phx_buf_puts(&o->text, "}\n");
    return rc;
}
