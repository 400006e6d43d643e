/* SPDX-License-Identifier: Apache-2.0
 * The parts of phalanx-bench.  Private to shard/tool. */
#ifndef PHX_SHARD_TOOL_BENCH_H
#define PHX_SHARD_TOOL_BENCH_H

#include "shard/tool/bench_engine.h"
#include "shard/tool/ceiling.h"

struct phx_bench_command {
    struct phx_bench_request request;
    struct phx_ceiling       ceiling;     /* zeros when it was not asked for */
    bool                     has_ceiling; /* measured before mpirun was started, or not wanted */
    bool                     is_first;    /* time to the first token alone */
    bool                     is_json;
};

/* bench_report.c: on stdout. */
void phx_bench_print_ceiling(const struct phx_ceiling *ceiling);
void phx_bench_print_json(const struct phx_bench_command *command, const struct phx_bench_result *result);
void phx_bench_print_text(const struct phx_bench_command *command, const struct phx_bench_result *result);

#endif
