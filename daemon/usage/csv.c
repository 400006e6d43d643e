/* SPDX-License-Identifier: Apache-2.0
 * A line per commit or correction. */
#include "daemon/usage/out.h"
#include "rpc/base/clock.h"

static int write_row(void *ctx, const struct phx_ledger_row *row)
{
    struct out *o = ctx;
    char        at[32];

    phx_clock_format_utc(row->at_ns, at);
    phx_out_cell(o, at);
    phx_out_cell(o, phx_ledger_kind_name(row->kind));
    phx_out_cell(o, row->lease);
    phx_out_cell(o, row->tenant);
    phx_out_cell(o, row->user);
    phx_out_cell(o, row->key_id);
    phx_out_cell(o, row->cost_centre);
    phx_out_cell(o, row->model);
    phx_out_cell(o, row->request_id);
    phx_out_cell(o, row->outcome);
    phx_out_number(o, row->prompt);
    phx_out_number(o, row->cached);
    phx_out_number(o, row->output);
    phx_out_number(o, row->reasoning);
    phx_out_number(o, row->compute_ms);
    phx_out_number(o, row->queue_ms);
    phx_out_number(o, row->upper);
    phx_out_number(o, row->id);
    phx_out_number(o, row->ref);
    phx_out_cell(o, row->note);
    phx_out_end(o);
    return phx_out_pass(o);
}

int phx_usage_write_csv(struct out *o)
{
    if (!o->report->has_no_header)
        phx_buf_puts(&o->text, "at,kind,receipt,tenant,user,key_id,cost_centre,model,request_id,outcome,"
                               "prompt_tokens,cached_tokens,output_tokens,reasoning_tokens,compute_ms,queue_ms,"
                               "upper_tokens,ledger_id,corrects_id,note\r\n");
    return phx_ledger_usage_rows(o->tx, &o->report->filter, write_row, o, o->err);
}
