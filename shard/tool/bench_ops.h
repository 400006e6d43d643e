/* SPDX-License-Identifier: Apache-2.0
 * Where the device's time of one step goes, op by op.  Private to shard/tool. */
#ifndef PHX_SHARD_TOOL_BENCH_OPS_H
#define PHX_SHARD_TOOL_BENCH_OPS_H

#include "kernels/backend.h"

enum { PHX_BENCH_OPS_MAX = 32 };

/* Ops of one name and one width of their output, added up. */
struct phx_bench_op {
    char    name[24];
    int32_t columns, n;
    double  us;
};

struct phx_bench_ops {
    int32_t             n;
    struct phx_bench_op ops[PHX_BENCH_OPS_MAX]; /* the longest first */
    double              us;                     /* of all; 0: the device has no times */
    int32_t             n_calls;
    struct phx_bench_op calls[PHX_STAMPS_MAX];  /* in their order, n = 1 */
};

struct phx_bench_trace {
    struct phx_backend *backend;
    int32_t             n; /* stamps */
    struct phx_bench_op seen[PHX_STAMPS_MAX];
};

/* From here on every op is launched as it is called, and stamped. */
void phx_bench_trace_begin(struct phx_bench_trace *t, struct phx_backend *b);
/* No longer; adds up. */
void phx_bench_trace_end(struct phx_bench_trace *t, struct phx_bench_ops *out);

#endif
