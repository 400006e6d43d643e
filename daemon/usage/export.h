/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/usage: where the export of a period begins and ends. */
#ifndef PHX_DAEMON_USAGE_EXPORT_H
#define PHX_DAEMON_USAGE_EXPORT_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/usage/usage.h"

struct cursor {
    bool    is_known;       /* the period was exported before */
    int64_t below_id;       /* ledger rows with a lower id belong to it */
    int64_t from_leaf;      /* size of the log in the export before */
    int64_t below_leaf;     /* and in this one */
};
/* Of a period; when it was never exported: from_leaf alone, the largest log exported so far. */
int phx_cursor_load(struct phx_tx *tx, const char *period, struct cursor *out, struct phx_err *err) PHX_CHECKED;
int phx_cursor_store(struct phx_tx *tx, const char *period, const struct cursor *c, struct phx_err *err)
    PHX_CHECKED;

#endif
