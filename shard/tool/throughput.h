/* SPDX-License-Identifier: Apache-2.0
 * The engine under load, without daemon and HTTP: requests of random tokens pass the scheduler, the head and the stages as in
 * service; as many as `concurrency` are under way until all are done.  Private to shard/tool. */
#ifndef PHX_SHARD_TOOL_THROUGHPUT_H
#define PHX_SHARD_TOOL_THROUGHPUT_H

#include "shard/tool/ranks.h"

enum { PHX_THROUGHPUT_REQUESTS_MAX = 65536 };

struct phx_throughput_request {
    struct phx_ranks_options ranks;
    int32_t input, output;  /* tokens of a prompt and of its answer; with a spread the middle of what is drawn */
    int32_t spread_percent; /* lengths are drawn evenly from this much less to this much more */
    int32_t concurrency, n_requests;
    int32_t rows;           /* of a step at most; 0 = the backend's default */
    float   temperature;
};

/* Milliseconds. */
struct phx_throughput_times {
    double mean, p50, p90, p99, max;
};

struct phx_throughput_result {
    double   seconds, load_seconds;
    uint64_t input_tokens, output_tokens;
    uint64_t n_steps, n_preempted;
    double   rows_per_step;
    struct phx_throughput_times ttft; /* from a request's submission to its first token */
    struct phx_throughput_times itl;  /* between two tokens of a request */
};

/* Filled on rank 0's process only; *is_head says whether this is it.  A request that fails fails all. */
int phx_throughput_run(struct phx_throughput_request *request, struct phx_throughput_result *result, bool *is_head,
                       struct phx_err *err) PHX_CHECKED;

/* The command; argv[0] is what argp calls the program. */
int phx_throughput_command(int argc, char **argv);

#endif
