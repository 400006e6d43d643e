/* SPDX-License-Identifier: Apache-2.0
 * Metrics in Prometheus' text format.  Families are made at start; children (one per combination of
 * label values) when first used.  Values may be changed from any thread; making and formatting belong
 * to the loop thread. */
#ifndef PHX_DAEMON_METRICS_H
#define PHX_DAEMON_METRICS_H

#include <stdint.h>

#include "rpc/base/buf.h"

struct phx_metrics;
struct phx_metric_family;
struct phx_metric;

enum phx_metric_kind { PHX_METRIC_NONE = 0, PHX_METRIC_COUNTER, PHX_METRIC_GAUGE, PHX_METRIC_HISTOGRAM };
enum { PHX_METRIC_LABELS_MAX = 4, PHX_METRIC_BUCKETS_MAX = 24 };

struct phx_metrics *phx_metrics_create(void);
void                phx_metrics_destroy(struct phx_metrics *m); /* NULL is allowed */

/* labels: "tenant,outcome" or "".  A name and labels that exist give the same family again.  All strings
 * must live as long as the registry (literals). */
struct phx_metric_family *phx_metrics_counter(struct phx_metrics *m, const char *name,
                                              const char *help, const char *labels);
struct phx_metric_family *phx_metrics_gauge(struct phx_metrics *m, const char *name,
                                            const char *help, const char *labels);
/* Buckets for seconds: 1 ms to 120 s, 17 of them. */
struct phx_metric_family *phx_metrics_seconds(struct phx_metrics *m, const char *name,
                                              const char *help, const char *labels);
/* The child with these label values (as many as labels; copied; escaped when printed). */
struct phx_metric *phx_metric_of(struct phx_metric_family *f, const char *const *values);

void   phx_metric_add(struct phx_metric *c, uint64_t n);          /* counter */
void   phx_metric_set(struct phx_metric *g, double value);        /* gauge */
void   phx_metric_observe(struct phx_metric *h, double value);    /* histogram */
double phx_metric_value(const struct phx_metric *c);              /* counter, gauge; histogram: its count */

/* The whole page.  Content type: "text/plain; version=0.0.4; charset=utf-8". */
void phx_metrics_format(const struct phx_metrics *m, struct phx_buf *out);

#endif
