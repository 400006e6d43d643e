/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/tool/bench_ops.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* Behind every op; what is not watched counts to the next that is. */
static void stamp(void *ctx, const char *op, struct phx_tensor out)
{
    struct phx_bench_trace *t = ctx;

    if (t->n >= PHX_STAMPS_MAX)
        return;
    (void)snprintf(t->seen[t->n - 1].name, sizeof(t->seen[0].name), "%.23s", op);
    t->seen[t->n - 1].columns = out.dim[1];
    phx_device_stamp(t->backend, t->n++);
}

void phx_bench_trace_begin(struct phx_bench_trace *t, struct phx_backend *b)
{
    memset(t, 0, sizeof(*t));
    t->backend = b;
    t->n = 1;
    phx_backend_set_watch(b, stamp, t);
    phx_device_stamp(b, 0);
}

static int compare_us(const void *a, const void *b)
{
    double x = ((const struct phx_bench_op *)a)->us, y = ((const struct phx_bench_op *)b)->us;

    return (x < y) - (x > y);
}

/* The last place takes what has none of its own. */
static void add(struct phx_bench_ops *out, const struct phx_bench_op *op, double us)
{
    int32_t i = 0;

    while (i < out->n && (strcmp(out->ops[i].name, op->name) != 0 || out->ops[i].columns != op->columns))
        i++;
    if (i == PHX_BENCH_OPS_MAX)
        i--;
    else if (i == out->n) {
        out->ops[out->n++] = *op;
        out->ops[i].us = 0;
        out->ops[i].n = 0;
    }
    out->ops[i].n++;
    out->ops[i].us += us;
    out->us += us;
}

void phx_bench_trace_end(struct phx_bench_trace *t, struct phx_bench_ops *out)
{
    static float us[PHX_STAMPS_MAX]; /* one benchmark at a time */

    phx_backend_set_watch(t->backend, NULL, NULL);
    memset(out, 0, sizeof(*out));
    if (phx_device_stamps(t->backend, t->n, us) != 0)
        return;
    for (int32_t i = 0; i + 1 < t->n; i++) {
        add(out, &t->seen[i], (double)us[i]);
        out->calls[out->n_calls] = t->seen[i];
        out->calls[out->n_calls].n = 1;
        out->calls[out->n_calls++].us = (double)us[i];
    }
    qsort(out->ops, (size_t)out->n, sizeof(out->ops[0]), compare_us);
}
