/* SPDX-License-Identifier: Apache-2.0
 * What this machine can do at best, measured in the same run as the engine: the read bandwidth of all
 * threads together, and the peak of float32 fused multiply-adds and of AMX where they exist.  The best of
 * a few repetitions each: a stricter measure than their median. */
#ifndef PHX_SHARD_TOOL_CEILING_H
#define PHX_SHARD_TOOL_CEILING_H

#include <stdint.h>

struct phx_ceiling {
    double read_gb_s;
    double fma_gflop_s;      /* float32, the widest vectors the CPU has */
    double amx_bf16_gflop_s; /* 0 without AMX */
    double amx_int8_gop_s;   /* as well; a multiply and an add are two */
};

/* Takes about two seconds; n_threads 1 .. 256, pinned to the allowed cores when they suffice. */
void phx_ceiling_measure(int32_t n_threads, struct phx_ceiling *out);

#endif
