/* SPDX-License-Identifier: Apache-2.0
 * Counters, gauges and histograms, written as Prometheus text.  Every metric is in one table with its help
 * and kind; an unknown name is a bug.  Loop thread only. */
#ifndef PHX_DAEMON_METRICS_H
#define PHX_DAEMON_METRICS_H

#include "rpc/base/buf.h"

struct phx_metrics;

struct phx_metrics *phx_metrics_create(void);
void                phx_metrics_destroy(struct phx_metrics *m); /* NULL is allowed */

/* labels: `name="value",name="value"` with values free of quotes, backslashes and newlines, or "".  A metric
 * holds at most 4096 label sets; further ones are counted under labels "". */
void phx_metrics_count(struct phx_metrics *m, const char *name, const char *labels, double add);
void phx_metrics_gauge(struct phx_metrics *m, const char *name, const char *labels, double value);
void phx_metrics_observe(struct phx_metrics *m, const char *name, const char *labels, double value);
/* A histogram's series for those who observe often; lives as long as the metrics.  It appears on the page at once. */
struct phx_series;
struct phx_series *phx_metrics_series(struct phx_metrics *m, const char *name, const char *labels);
void               phx_series_observe(struct phx_series *s, double value);
/* Appends the whole page. */
void phx_metrics_write(const struct phx_metrics *m, struct phx_buf *out);

#endif
