/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/ctl: the actions of `phalanx usage`. */
#ifndef PHX_DAEMON_CTL_USAGE_H
#define PHX_DAEMON_CTL_USAGE_H

#include "daemon/usage/usage.h"

struct phx_ctl_usage {
    const char                 *data_dir, *action, *period, *out, *firm, *groups, *message, *by;
    enum phx_usage_format       format;
    struct phx_usage_correction correction;
    /* of the run */
    struct phx_store *store;
    int64_t           now_ns;
    char              cluster_id[33];
};

int phx_ctl_usage_report(struct phx_ctl_usage *u, struct phx_err *err) PHX_CHECKED;
int phx_ctl_usage_export(struct phx_ctl_usage *u, struct phx_err *err) PHX_CHECKED;
int phx_ctl_usage_correct(struct phx_ctl_usage *u, struct phx_err *err) PHX_CHECKED;

#endif
