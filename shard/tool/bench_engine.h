/* SPDX-License-Identifier: Apache-2.0
 * The engine alone, without daemon and HTTP: prefill and decode of random tokens on real ranks.  After
 * each step the best token is chosen and sent round as in service, but the next step reads a random
 * one: random weights soon repeat one token, and its experts would then stay in the processor's cache.
 * No step finds its prompt in a prefix cache: the ranks are driven without the scheduler. */
#ifndef PHX_SHARD_TOOL_BENCH_ENGINE_H
#define PHX_SHARD_TOOL_BENCH_ENGINE_H

#include "shard/tool/bench_ops.h"
#include "shard/tool/ranks.h"

enum {
    PHX_BENCH_BATCHES_MAX = 16,
    PHX_BENCH_BATCH_MAX = 256,
    PHX_BENCH_BATCH_PROMPT = 128,
    PHX_BENCH_REPS_MAX = 15
};

struct phx_bench_request {
    struct phx_ranks_options ranks;
    int32_t prompt;  /* tokens of the measured prefill; 0 = none */
    int32_t gen;     /* tokens of a measured decode; 0 = none */
    int32_t context; /* positions before decoding; -1 = prompt, at most PHX_BENCH_BATCH_PROMPT in a batch */
    int32_t chunk, reps;
    int32_t n_batches, batch[PHX_BENCH_BATCHES_MAX];
    struct phx_device_request device; /* its ceilings; calls 0: they are not measured */
};

/* Facts of one rank after all runs, sent to rank 0. */
struct phx_bench_rank {
    double   load_seconds;
    uint64_t weights_bytes, kv_bytes, scratch_bytes;
    uint64_t resident_bytes, peak_bytes; /* of its process */
    uint64_t huge_bytes;                 /* of the resident ones, in huge pages */
    double   token_bytes; /* weights read for one decoded token alone in the batch */
    double   token_macs;  /* multiply-adds of one prefilled token, without attention over the context */
    double   context_bytes; /* keys and values read per decoded token and position of context */
    double   dense_bytes;   /* weights that every step reads, whatever its batch */
    double   expert_bytes;  /* of one expert in all layers */
    double   head_macs;     /* of the logits of a token */
    double   attention_macs; /* of a token and a position of context, of layers that see all of it */
    double   window_share;  /* of the layers, that see `window` positions at most */
    int32_t  n_experts, top_k, window;
};

/* Tokens per second over the repetitions. */
struct phx_bench_rate {
    double median, min, max;
};

struct phx_bench_result {
    struct phx_bench_rank ranks[PHX_RANKS_MAX];
    struct phx_bench_rate prefill;
    struct phx_bench_rate decode[PHX_BENCH_BATCHES_MAX]; /* of all sequences together */
    int32_t context[PHX_BENCH_BATCHES_MAX];              /* mean positions while decoding */
    struct phx_bench_ops  ops[PHX_BENCH_BATCHES_MAX];    /* of a step of rank 0, with the device's ceilings */
    struct phx_device_ceiling device; /* zeros: not measured */
    char    device_name[64], launches[64]; /* struct phx_device_facts */
    char    isa[32];
    int32_t n_threads; /* per rank */
};

/* Filled on rank 0's process only; *is_head says whether this is it. */
int phx_bench_run(struct phx_bench_request *request, struct phx_bench_result *result, bool *is_head,
                  struct phx_err *err) PHX_CHECKED;

/* Loads, prefills request->prompt (1 or more) tokens and returns once the first new token is known. */
int phx_bench_first(struct phx_bench_request *request, struct phx_bench_result *result, bool *is_head,
                    struct phx_err *err) PHX_CHECKED;

#endif
