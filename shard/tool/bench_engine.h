/* SPDX-License-Identifier: Apache-2.0
 * The engine alone, without daemon and HTTP: prefill and decode of random tokens on real ranks, each
 * new token chosen greedily and sent round as in service. */
#ifndef PHX_SHARD_TOOL_BENCH_ENGINE_H
#define PHX_SHARD_TOOL_BENCH_ENGINE_H

#include "shard/tool/ranks.h"

enum { PHX_BENCH_BATCHES_MAX = 16, PHX_BENCH_BATCH_MAX = 256, PHX_BENCH_BATCH_PROMPT = 128 };

struct phx_bench_request {
    struct phx_ranks_options ranks;
    int32_t prompt, gen, chunk, reps;
    int32_t n_batches, batch[PHX_BENCH_BATCHES_MAX];
};

/* Facts of one rank, sent to rank 0. */
struct phx_bench_rank {
    double   load_seconds;
    uint64_t weights_bytes, kv_bytes, scratch_bytes;
    uint64_t resident_bytes, peak_bytes; /* of its process */
    double   token_bytes; /* weights read for one decoded token alone in the batch */
    double   token_macs;  /* multiply-adds of one prefilled token, without attention over the context */
    double   context_bytes; /* keys and values read per decoded token and position of context */
};

struct phx_bench_result {
    struct phx_bench_rank ranks[PHX_RANKS_MAX];
    double prefill_tokens_per_s;                         /* median of reps */
    double decode_tokens_per_s[PHX_BENCH_BATCHES_MAX];   /* of all sequences together */
    int32_t context[PHX_BENCH_BATCHES_MAX];              /* mean positions while decoding */
    char   isa[32];
    int32_t n_threads; /* per rank */
};

/* Filled on rank 0's process only; *is_head says whether this is it. */
int phx_bench_run(struct phx_bench_request *request, struct phx_bench_result *result, bool *is_head,
                  struct phx_err *err) PHX_CHECKED;

#endif
