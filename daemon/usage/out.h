/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/usage: where a format writes to, and its cells. */
#ifndef PHX_DAEMON_USAGE_OUT_H
#define PHX_DAEMON_USAGE_OUT_H

#include <stdbool.h>

#include "daemon/usage/usage.h"
#include "rpc/base/buf.h"

struct out {
    struct phx_tx                 *tx;
    const struct phx_usage_report *report;
    struct phx_buf                 text; /* goes to the sink when it is large enough */
    phx_usage_sink_fn              sink;
    void                          *ctx;
    struct phx_err                *err;
    bool                           is_first; /* of the rows of a list */
    enum phx_usage_class           usage_class;
    struct phx_usage_row           total;
};

/* Passes on what is there: always, or when there is much. */
int phx_out_flush(struct out *o) PHX_CHECKED;
int phx_out_pass(struct out *o) PHX_CHECKED;

/* A text cell and a comma: quoted as RFC 4180 says, with an apostrophe before what a spreadsheet would run.
 * An empty text is an empty cell. */
void phx_out_cell(struct out *o, const char *text);
void phx_out_number(struct out *o, int64_t n); /* and a comma */
void phx_out_end(struct out *o);               /* the last comma becomes the line's end */

int phx_usage_write_table(struct out *o) PHX_CHECKED;
int phx_usage_write_json(struct out *o) PHX_CHECKED;
int phx_usage_write_csv(struct out *o) PHX_CHECKED;
int phx_usage_write_events(struct out *o) PHX_CHECKED;
int phx_usage_write_focus(struct out *o) PHX_CHECKED;

#endif
