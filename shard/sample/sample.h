/* SPDX-License-Identifier: Apache-2.0
 * From logits to a token.  Pure and exact: the same logits, history, parameters, seed and position give
 * the same token on any machine and in any batch. */
#ifndef PHX_SHARD_SAMPLE_H
#define PHX_SHARD_SAMPLE_H

#include <stdbool.h>
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

/* ---- from a part of the logits ---------------------------------------------------------------- */

/* Best logits that a part holds, at most. */
enum { PHX_SAMPLE_BEST_MAX = 256 };

/* What of a row of logits decides its token. */
struct phx_sample_need {
    bool    is_whole;  /* the logits themselves; then nothing else */
    int32_t n_best;    /* so many best ids with their logits: the largest first, the lowest id on ties */
    bool    has_draw;  /* a draw by the definition of weights.h ... */
    float   temperature;
    double  share;     /* ... at this number */
    bool    has_norm;  /* the sum of e^(logit - largest), when it is no draw's at temperature 1 already */
};

/* The needs of a row behind n_tokens known tokens; pure.  is_check: a recorded token is compared.  is_final: the logits
 * cannot be had later, so what may turn out not to decide is no need (then is_whole). */
void phx_sample_need(const struct phx_sampling *p, int32_t vocab_size, int32_t n_tokens, bool is_check, bool is_final,
                     struct phx_sample_need *need);

struct phx_sample_draw {
    int32_t id;      /* -1: the logits are not numbers */
    float   logit, largest;
    double  sum;     /* of e^((logit - largest) / temperature) */
};

/* What was needed. */
struct phx_sample_part {
    const int32_t         *ids;   /* [n_best] */
    const float           *best;
    bool                   is_number; /* with n_best: no logit is NaN or +infinity, one is not -infinity */
    struct phx_sample_draw draw;
    double                 norm;
};

/* The token that phx_sample() would give for the whole logits (in->logits is not read), or phx_sample_check() for the
 * recorded one (-1: there is none).  *is_decided false: only the whole logits tell; when is_final was said that cannot
 * be. */
int phx_sample_from(const struct phx_sample_input *in, int32_t vocab_size, const struct phx_sample_need *need,
                    const struct phx_sample_part *part, int32_t recorded, bool *is_decided,
                    struct phx_sample_output *out, struct phx_err *err) PHX_CHECKED;

/* Philox4x32-10 (Salmon et al. 2011): out[4] from a 128-bit counter and a 64-bit key. */
void phx_philox(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

#endif
