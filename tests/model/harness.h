/* SPDX-License-Identifier: Apache-2.0
 * Runs golden checkpoints in any layout, chunking, batching and block order, with ranks as threads. */
#ifndef PHX_TESTS_MODEL_HARNESS_H
#define PHX_TESTS_MODEL_HARNESS_H

#include "shard/tool/ranks.h"

enum { CASES = 8, SEQS_MAX = 4, STEP_SEQS_MAX = 4 };

extern const char *const case_names[CASES];

struct golden {
    char     dir[512];
    int32_t *tokens;
    int32_t  T, V;
    float   *logits; /* [T, V] of the reference implementation */
};

struct golden golden_load(const char *name);
void          golden_free(struct golden *g);

/* One sequence: its tokens, the blocks it uses, and where its logits go. */
struct sequence {
    const int32_t *tokens;
    int32_t        n;
    const int32_t *blocks;
    float         *logits; /* [n, V], filled */
    int32_t        start;  /* positions below are already in the blocks (a prefix hit) */
};

/* A step takes n[i] tokens of sequence seq[i], from where it stands. */
struct step_plan {
    int32_t n_seqs;
    int32_t seq[STEP_SEQS_MAX];
    int32_t n[STEP_SEQS_MAX];
};

struct plan {
    struct sequence         seqs[SEQS_MAX];
    const struct step_plan *steps;
    int32_t                 n_steps;
    int32_t                 dropped; /* index + 1 of a step that is meant to fail: nobody advances */
    /* called on each rank before and after each step when set */
    void (*before)(struct phx_rank *rank, int32_t step, void *ctx);
    void (*after)(struct phx_rank *rank, int32_t step, int code, void *ctx);
    void *ctx;
};

/* Of the options that harness_options() makes. */
extern enum phx_compute harness_compute;
extern bool             harness_is_int8;

/* Options for a whole text of at most T tokens in any chunking, two sequences at a time. */
struct phx_ranks_options harness_options(const struct golden *g, int32_t tp, int32_t pp);
/* Runs the plan on all ranks; the code and text of the first failure. */
int harness_run(const struct phx_ranks_options *options, const struct plan *plan, struct phx_err *err);

/* The logits [T, V] of the whole text in chunks of that many tokens.  Owned: free with phx_mem_free.
 * Fails the test when the run fails. */
float *harness_text(const struct golden *g, const struct phx_ranks_options *options, int32_t chunk);

/* Fails the test, naming row and column, unless the bits agree. */
void assert_same_bits(const float *a, const float *b, int32_t T, int32_t V, const char *what);
double relative_error(const float *a, const float *b, size_t n);

#endif
