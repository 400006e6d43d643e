/* SPDX-License-Identifier: Apache-2.0
 * Sums for people, on a terminal. */
#include <inttypes.h>
#include <string.h>

#include "daemon/usage/out.h"

enum { COLUMN_CHARS = 18 };

/* Names come from clients: nothing in them may move the cursor. */
static void put_name(struct out *o, const char *name)
{
    size_t chars = 0;

    for (const char *p = name; *p != '\0'; p++) {
        unsigned char c = (unsigned char)*p;

        phx_buf_putc(&o->text, c < 0x20 || c == 0x7f ? '?' : (char)c);
        chars += (c & 0xc0) != 0x80; /* not inside a UTF-8 character */
    }
    do
        phx_buf_putc(&o->text, ' ');
    while (++chars < COLUMN_CHARS);
}

static void put_numbers(struct out *o, const struct phx_usage_row *row)
{
    phx_buf_printf(&o->text, "%9" PRId64 " %13" PRId64, row->requests, row->prompt);
    phx_buf_printf(&o->text, " %13" PRId64 " %13" PRId64, row->cached, row->output);
    phx_buf_printf(&o->text, " %13" PRId64 " %13" PRId64 "\n", row->reasoning, row->compute_ms);
}

static int write_sum(void *ctx, const struct phx_usage_row *row)
{
    struct out *o = ctx;

    for (int i = 0; i < PHX_USAGE_GROUPS_MAX && o->report->groups[i] != PHX_GROUP_NONE; i++)
        put_name(o, row->group[i]);
    put_numbers(o, row);
    return phx_usage_add(&o->total, row, o->err) != 0 ? PHX_E_INVALID : phx_out_pass(o);
}

int phx_usage_write_table(struct out *o)
{
    const enum phx_usage_group *groups = o->report->groups;
    int64_t                     at_id = 0;
    int                         rc;

    for (int i = 0; i < PHX_USAGE_GROUPS_MAX && groups[i] != PHX_GROUP_NONE; i++)
        put_name(o, phx_usage_group_name(groups[i]));
    phx_buf_printf(&o->text, "%9s %13s %13s %13s %13s %13s\n", "requests", "prompt", "cached", "output",
                   "reasoning", "compute ms");
    rc = phx_ledger_usage(o->tx, &o->report->filter, groups, write_sum, o, &at_id, o->err);
    for (int i = 0; i < PHX_USAGE_GROUPS_MAX && groups[i] != PHX_GROUP_NONE; i++)
        put_name(o, i == 0 ? "total" : "");
    put_numbers(o, &o->total);
    return rc;
}
