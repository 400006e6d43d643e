/* SPDX-License-Identifier: Apache-2.0
 * Usage reports: one set of ledger rows (commits and corrections) in five formats that agree to the token.
 * docs/usage.md says what each column means. */
#ifndef PHX_DAEMON_USAGE_H
#define PHX_DAEMON_USAGE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/ledger/ledger.h"
#include "rpc/base/err.h"

struct phx_store;
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
    bool                    has_no_header; /* csv, focus: what came before had the line of names */
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

/* ---- corrections ------------------------------------------------------------------------------------------ */

struct phx_usage_correction {
    const char *receipt; /* of a committed request */
    int64_t     prompt, cached, output, reasoning, compute_ms, queue_ms; /* deltas; not all 0 */
    const char *reason, *by, *approved_by;                               /* two different people */
    int64_t     at_ns;
};
/* Adds a correct row and a "correct" leaf.  PHX_E_INVALID naming the field; PHX_E_NOTFOUND; PHX_E_STATE: not
 * committed; what phx_ledger_put() says of the numbers. */
int phx_usage_correct(struct phx_tx *tx, const struct phx_usage_correction *c, int64_t *row_id,
                      struct phx_err *err) PHX_CHECKED;

/* ---- the true-up of a cluster without a network ------------------------------------------------------------ */

#define PHX_USAGE_EXPORT_PAYLOAD_TYPE "application/vnd.phalanx.usage-export+json;v=1"
enum { PHX_USAGE_MESSAGE_MAX = 200 };

struct phx_usage_export {
    const char *audit_dir;  /* DATA/audit, published by the daemon */
    const char *cluster_id; /* 32 hex digits */
    const char *period;     /* "2026-11", over by now_ns */
    const char *message;    /* the reader's reference, "CHG-1" */
    const char *by;         /* for the audit leaf of the first export of a period */
    int64_t     now_ns;     /* trusted time */
};
/* Counts of a month, nothing that names anybody: canonical JSON, owned.  The first export of a period fixes where
 * ledger and log ended; exported again with the same message it is the same text.
 * PHX_E_INVALID: period or message; PHX_E_STATE: the period is not over, or the published log is shorter than it
 * was. */
int phx_usage_export(struct phx_store *store, const struct phx_usage_export *e, char **payload,
                     struct phx_err *err) PHX_CHECKED;
/* Signs it (DSSE) with the site's report key DATA/keys/report.key, made on first use beside report.pub.  Owned. */
int phx_usage_seal(const char *key_dir, const char *payload, char **envelope, struct phx_err *err) PHX_CHECKED;

#endif
