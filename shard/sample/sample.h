/* SPDX-License-Identifier: Apache-2.0
 * From logits to a token.  Pure and exact: the same logits, history, parameters, seed and position give
 * the same token on any machine and in any batch. */
#ifndef PHX_SHARD_SAMPLE_H
#define PHX_SHARD_SAMPLE_H

#include <stdint.h>

#include "rpc/rpc.h"


/* How much of a logit counts as much as 1 of probability mass, in the gap of a draw. */
#define PHX_SAMPLE_LOGITS_PER_MASS 10.0f

struct phx_sampler; /* scratch for one vocabulary; no state between calls */

struct phx_sample_input {
    float                     *logits;   /* [V], changed in place */
    const int32_t             *tokens;   /* prompt + generated so far */
    int32_t                    n_tokens;
    int32_t                    n_prompt; /* penalties: repetition over all, presence/frequency over output */
    const struct phx_sampling *sampling;
    int32_t                    n_masked; /* ids >= vocab - n_masked are never produced (padding rows) */
};

struct phx_sample_output {
    int32_t token;
    float   logprob; /* of the token, under the distribution before temperature and truncation */
    int32_t n_top;
    int32_t top_ids[PHX_TOP_LOGPROBS_MAX];
    float   top_logprobs[PHX_TOP_LOGPROBS_MAX];
};

int  phx_sampler_create(int32_t vocab_size, struct phx_sampler **out, struct phx_err *err) PHX_CHECKED;
void phx_sampler_destroy(struct phx_sampler *s);

/* Order: bias, penalties, logprobs taken, temperature (0 = the largest logit, lowest id on ties), top_k,
 * top_p, min_p, then one Philox4x32-10 draw keyed by (seed, position = n_tokens).  NaN or all -inf logits:
 * PHX_E_INTERNAL. */
int phx_sample(struct phx_sampler *s, const struct phx_sample_input *in, struct phx_sample_output *out,
               struct phx_err *err) PHX_CHECKED;

/* The same for a position whose token is recorded: out->token is what is drawn there, *gap how far the recorded
 * one is from it.  Temperature 0: its logit (bias and penalties included) below the largest; FLT_MAX for one
 * that has none.  Else, in probability mass, from the number drawn to its interval in the order of ids, at most
 * 1; for a token that the filters removed at least what its logit lacks to the lowest kept one, divided by
 * PHX_SAMPLE_LOGITS_PER_MASS.  0 when both are the same token. */
int phx_sample_check(struct phx_sampler *s, const struct phx_sample_input *in, int32_t recorded,
                     struct phx_sample_output *out, float *gap, struct phx_err *err) PHX_CHECKED;

/* Philox4x32-10 (Salmon et al. 2011): out[4] from a 128-bit counter and a 64-bit key. */
void phx_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
