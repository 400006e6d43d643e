/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/sample/sample.h"

#include <float.h>
#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/sample/weights.h"

enum { VOCAB_MAX = 1 << 21 };

struct phx_sampler {
    int32_t  vocab_size;
    int32_t *count;  /* [V] zero between calls */
    double  *weight; /* [V] */
    int32_t *list;   /* [V] */
};

int phx_sampler_create(int32_t vocab_size, struct phx_sampler **out, struct phx_err *err)
{
    struct phx_sampler *s;

    *out = NULL;
    if (vocab_size < 1 || vocab_size > VOCAB_MAX)
        return phx_fail(err, PHX_E_INVALID, "vocab_size: %d is not 1 to %d", vocab_size, VOCAB_MAX);
    s = phx_mem_calloc(1, sizeof(*s));
    s->vocab_size = vocab_size;
    s->count = phx_mem_calloc((size_t)vocab_size, sizeof(*s->count));
    s->weight = phx_mem_calloc((size_t)vocab_size, sizeof(*s->weight));
    s->list = phx_mem_calloc((size_t)vocab_size, sizeof(*s->list));
    *out = s;
    return 0;
}

void phx_sampler_destroy(struct phx_sampler *s)
{
    if (s == NULL)
        return;
    phx_mem_free(s->count);
    phx_mem_free(s->weight);
    phx_mem_free(s->list);
    phx_mem_free(s);
}

static bool is_id(const struct phx_sampler *s, int32_t id)
{
    return id >= 0 && id < s->vocab_size;
}

/* Repetition counts every known token once; presence and frequency count the output. */
static void apply_penalties(struct phx_sampler *s, const struct phx_sample_input *in)
{
    const struct phx_sampling *p = in->sampling;

    if (p->repetition_penalty != 1.0f) {
        for (int32_t i = 0; i < in->n_tokens; i++) {
            int32_t id = in->tokens[i];

            if (!is_id(s, id) || s->count[id]++ > 0)
                continue;
            in->logits[id] = in->logits[id] > 0 ? in->logits[id] / p->repetition_penalty
                                                : in->logits[id] * p->repetition_penalty;
        }
        for (int32_t i = 0; i < in->n_tokens; i++)
            if (is_id(s, in->tokens[i]))
                s->count[in->tokens[i]] = 0;
    }
    if (p->presence_penalty == 0.0f && p->frequency_penalty == 0.0f)
        return;
    for (int32_t i = in->n_prompt; i < in->n_tokens; i++)
        if (is_id(s, in->tokens[i]))
            s->count[in->tokens[i]]++;
    for (int32_t i = in->n_prompt; i < in->n_tokens; i++) {
        int32_t id = in->tokens[i];

        if (!is_id(s, id) || s->count[id] == 0)
            continue;
        in->logits[id] -= p->presence_penalty + p->frequency_penalty * (float)s->count[id];
        s->count[id] = 0;
    }
}

static void apply_bias(const struct phx_sampler *s, const struct phx_sample_input *in)
{
    for (int32_t i = 0; i < in->sampling->n_bias; i++)
        if (is_id(s, in->sampling->bias[i].token))
            in->logits[in->sampling->bias[i].token] += in->sampling->bias[i].bias;
}

/* ln of the sum of e^logit. */
static double log_sum(struct phx_sampler *s, const float *logits, int32_t n, float largest)
{
    phx_weigh(logits, n, largest, 1.0f, s->weight);
    return (double)largest + phx_weights_log(phx_weights_sum(s->weight, n));
}

/* The n_top best, kept sorted by insertion: few, and most logits fail the first comparison. */
static void put_top(const float *logits, int32_t n, int32_t n_top, double norm,
                    struct phx_sample_output *out)
{
    for (int32_t i = 0; i < n && n_top > 0; i++) {
        int32_t at = out->n_top;

        if (at == n_top && logits[i] <= logits[out->top_ids[at - 1]])
            continue;
        at -= at == n_top;
        for (; at > 0 && logits[i] > logits[out->top_ids[at - 1]]; at--)
            out->top_ids[at] = out->top_ids[at - 1];
        out->top_ids[at] = i;
        out->n_top += out->n_top < n_top;
    }
    for (int32_t i = 0; i < out->n_top; i++)
        out->top_logprobs[i] = (float)((double)logits[out->top_ids[i]] - norm);
}

static int32_t draw_token(struct phx_sampler *s, const struct phx_sample_input *in, int32_t n,
                          float largest)
{
    const struct phx_sampling *p = in->sampling;

    if (p->top_k > 0)
        phx_keep_top_k(in->logits, n, p->top_k, s->list);
    phx_weigh(in->logits, n, largest, p->temperature, s->weight);
    if (p->top_p < 1.0f)
        phx_keep_top_p(in->logits, s->weight, n, p->top_p, s->list);
    if (p->min_p > 0.0f)
        phx_keep_min_p(s->weight, n, p->min_p);
    return phx_weights_pick(s->weight, n, phx_weights_share(p->seed, in->n_tokens));
}

/* Bias and penalties; *best: the likeliest id. */
static int adjust(struct phx_sampler *s, const struct phx_sample_input *in, int32_t n, int32_t *best,
                  struct phx_err *err)
{
    if (n < 1)
        return phx_fail(err, PHX_E_INVALID, "sampling: every id is masked");
    apply_bias(s, in);
    apply_penalties(s, in);
    *best = phx_find_largest(in->logits, n);
    if (*best < 0)
        return phx_fail(err, PHX_E_INTERNAL, "sampling: the logits are not numbers");
    return 0;
}

static void choose(struct phx_sampler *s, const struct phx_sample_input *in, int32_t n, int32_t best,
                   struct phx_sample_output *out)
{
    double norm = 0;

    if (in->sampling->n_logprobs >= 0) {
        norm = log_sum(s, in->logits, n, in->logits[best]);
        put_top(in->logits, n, in->sampling->n_logprobs, norm, out);
    }
    out->token = in->sampling->temperature > 0.0f ? draw_token(s, in, n, in->logits[best]) : best;
    if (in->sampling->n_logprobs >= 0)
        out->logprob = (float)((double)in->logits[out->token] - norm);
}

int phx_sample(struct phx_sampler *s, const struct phx_sample_input *in,
               struct phx_sample_output *out, struct phx_err *err)
{
    int32_t n = s->vocab_size - in->n_masked, best;
    int     rc;

    memset(out, 0, sizeof(*out));
    out->token = -1;
    rc = adjust(s, in, n, &best, err);
    if (rc == 0)
        choose(s, in, n, best, out);
    return rc;
}

/* ---- checking --------------------------------------------------------------------------------- */

/* Of the ids that the filters kept, the lowest logit. */
static float find_lowest(const struct phx_sampler *s, const float *logits, int32_t n)
{
    float lowest = INFINITY;

    for (int32_t i = 0; i < n; i++)
        if (s->weight[i] > 0.0 && logits[i] < lowest)
            lowest = logits[i];
    return lowest;
}

/* After a draw, whose weights are still there.  logit: of the recorded id before the filters. */
static double gap_of_draw(const struct phx_sampler *s, const struct phx_sample_input *in, int32_t n,
                          int32_t recorded, float logit)
{
    double gap = phx_weights_distance(s->weight, n, recorded, phx_weights_share(in->sampling->seed, in->n_tokens));

    if (s->weight[recorded] <= 0.0)
        gap = fmax(gap, (double)(find_lowest(s, in->logits, n) - logit) / (double)PHX_SAMPLE_LOGITS_PER_MASS);
    return fmin(gap, 1.0);
}

int phx_sample_check(struct phx_sampler *s, const struct phx_sample_input *in, int32_t recorded,
                     struct phx_sample_output *out, float *gap, struct phx_err *err)
{
    int32_t n = s->vocab_size - in->n_masked, best;
    bool    is_draw = in->sampling->temperature > 0.0f, has_logit;
    float   logit, largest;
    int     rc;

    *gap = 0;
    memset(out, 0, sizeof(*out));
    out->token = -1;
    rc = adjust(s, in, n, &best, err);
    if (rc != 0)
        return rc;
    largest = in->logits[best];
    has_logit = recorded >= 0 && recorded < n && in->logits[recorded] > -INFINITY;
    logit = has_logit ? in->logits[recorded] : -INFINITY; /* the filters overwrite it */
    choose(s, in, n, best, out);
    if (out->token == recorded)
        return 0;
    if (!has_logit)
        *gap = is_draw ? 1.0f : FLT_MAX;
    else
        *gap = is_draw ? (float)gap_of_draw(s, in, n, recorded, logit) : largest - logit;
    return 0;
}
