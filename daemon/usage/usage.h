/* SPDX-License-Identifier: Apache-2.0
 * Usage reports: one set of ledger rows (commits and corrections) in five formats that agree to the token.
 * docs/usage.md says what each column means. */
#ifndef PHX_DAEMON_USAGE_H
#define PHX_DAEMON_USAGE_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/ledger/ledger.h"
#include "rpc/base/err.h"

struct phx_tx;

enum phx_usage_format {
    PHX_USAGE_TABLE = 1,   /* sums, for people */
    PHX_USAGE_JSON,        /* sums */
    PHX_USAGE_CSV,         /* a line per row, RFC 4180 */
    PHX_USAGE_CLOUDEVENTS, /* a JSON line per row, CloudEvents 1.0 */
    PHX_USAGE_FOCUS        /* FOCUS 1.2 CSV: a line per hour, tenant, cost centre, model and meter */
};
/* "table", "json", "csv", "cloudevents", "focus"; 0 = none of them. */
enum phx_usage_format phx_usage_format_parse(const char *name);
const char           *phx_usage_format_name(enum phx_usage_format format);

struct phx_usage_report {
    const char             *cluster_id; /* 32 hex digits */
    const char             *firm;       /* who provides the service, for FOCUS and its readers */
    struct phx_usage_filter filter;
    enum phx_usage_group    groups[PHX_USAGE_GROUPS_MAX]; /* of sums; the other formats have their own */
};
/* "tenant,user" to groups.  PHX_E_INVALID naming the one that is unknown, twice there or too many. */
int phx_usage_groups_parse(const char *text, enum phx_usage_group groups[PHX_USAGE_GROUPS_MAX],
                           struct phx_err *err) PHX_CHECKED;

/* Takes the report in pieces, in order; a negative code ends it. */
typedef int (*phx_usage_sink_fn)(void *ctx, const void *data, size_t size);
/* The bytes depend on the rows and the report alone: the same range again is the same file.
 * Errors of phx_ledger_usage(), and the sink's. */
int phx_usage_write(struct phx_tx *tx, const struct phx_usage_report *report, enum phx_usage_format format,
                    phx_usage_sink_fn sink, void *ctx, struct phx_err *err) PHX_CHECKED;

#endif
