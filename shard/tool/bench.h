/* SPDX-License-Identifier: Apache-2.0
 * The parts of phalanx-bench.  Private to shard/tool. */
#ifndef PHX_SHARD_TOOL_BENCH_H
#define PHX_SHARD_TOOL_BENCH_H

#include "shard/tool/bench_engine.h"
#include "shard/tool/ceiling.h"

struct phx_random;

struct phx_bench_command {
    struct phx_bench_request request;
    struct phx_ceiling       ceiling;     /* zeros when it was not asked for */
    bool                     has_ceiling; /* measured before mpirun was started, or not wanted */
    bool                     is_first;    /* time to the first token alone */
    bool                     is_json;
    const char              *preset;   /* random weights of that shape instead of a folder's */
    int32_t                  n_layers; /* 0: as published */
    struct phx_random       *random;
};

/* bench_report.c: on stdout. */
void phx_bench_print_ceiling(const struct phx_ceiling *ceiling);
void phx_bench_print_json(const struct phx_bench_command *command, const struct phx_bench_result *result);
void phx_bench_print_text(const struct phx_bench_command *command, const struct phx_bench_result *result);

/* bench_device.c: tokens per second that the measured device could reach at best; 0 when it was not measured. */
double phx_bench_decode_ceiling(const struct phx_bench_command *c, const struct phx_bench_result *result, int32_t batch,
                                int32_t context);
double phx_bench_prefill_ceiling(const struct phx_bench_command *c, const struct phx_bench_result *result);
/* Nothing when it was not to be measured. */
void phx_bench_print_device_json(const struct phx_bench_command *c, const struct phx_bench_result *result);
void phx_bench_print_device_text(const struct phx_bench_command *c, const struct phx_bench_result *result);

#endif
