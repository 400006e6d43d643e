/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/sample/sample.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/sample/candidates.h"

enum { VOCAB_MAX = 1 << 21 };

/* Weights this far below the largest cannot change a sum in double precision. */
static const double NEGLIGIBLE = 45.0;

struct phx_sampler {
    int32_t           vocab_size;
    int32_t          *count;   /* [V] zero between calls */
    struct candidate *list;    /* [V] */
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
    s->list = phx_mem_calloc((size_t)vocab_size, sizeof(*s->list));
    *out = s;
    return 0;
}

void phx_sampler_destroy(struct phx_sampler *s)
{
    if (s == NULL)
        return;
    phx_mem_free(s->count);
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

/* The largest logit, the lowest id on ties; -1 when there is none that is a number. */
static int32_t find_largest(const float *logits, int32_t n)
{
    int32_t best = -1;

    for (int32_t i = 0; i < n; i++) {
        if (isnan(logits[i]))
            return -1;
        if (logits[i] > -INFINITY && (best < 0 || logits[i] > logits[best]))
            best = i;
    }
    return best >= 0 && logits[best] < INFINITY ? best : -1;
}

/* ln of the sum of e^logit. */
static double log_sum(const float *logits, int32_t n, float largest)
{
    double sum = 0;

    for (int32_t i = 0; i < n; i++) {
        double d = (double)logits[i] - (double)largest;

        if (d > -NEGLIGIBLE)
            sum += phx_sample_exp(d);
    }
    return (double)largest + log(sum);
}

static void gather_all(struct phx_sampler *s, struct candidates *c, const float *logits, int32_t n)
{
    c->list = s->list;
    c->n = n;
    for (int32_t i = 0; i < n; i++)
        c->list[i] = (struct candidate){.id = i, .logit = logits[i]};
}

static void put_top(struct phx_sampler *s, const float *logits, int32_t n, int32_t n_top, double norm,
                    struct phx_sample_output *out)
{
    struct candidates c;

    gather_all(s, &c, logits, n);
    phx_candidates_top(&c, n_top < n ? n_top : n);
    out->n_top = c.n;
    for (int32_t i = 0; i < c.n; i++) {
        out->top_ids[i] = c.list[i].id;
        out->top_logprobs[i] = (float)((double)c.list[i].logit - norm);
    }
}

/* 53 random bits in [0, 1), keyed by the seed, counted by the position. */
static double draw(uint64_t seed, int32_t position)
{
    const uint32_t counter[4] = {(uint32_t)position, 0, 0, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t       out[4];

    phx_philox(counter, key, out);
    return (double)(((uint64_t)out[0] << 21) ^ (out[1] >> 11)) * 0x1p-53;
}

/* Candidates in id order unless top_k or top_p sorts them. */
static int32_t draw_token(struct phx_sampler *s, const struct phx_sample_input *in, int32_t n,
                          float largest)
{
    const struct phx_sampling *p = in->sampling;
    struct candidates          c = {s->list, 0};
    double                     cut = (double)largest - NEGLIGIBLE * (double)p->temperature;

    for (int32_t i = 0; i < n; i++)
        if ((double)in->logits[i] >= cut)
            c.list[c.n++] = (struct candidate){.id = i, .logit = in->logits[i]};
    if (p->top_k > 0 && p->top_k < c.n)
        phx_candidates_top(&c, p->top_k);
    phx_candidates_weigh(&c, largest, p->temperature);
    if (p->top_p < 1.0f)
        phx_candidates_top_p(&c, p->top_p);
    if (p->min_p > 0.0f)
        phx_candidates_min_p(&c, p->min_p);
    return phx_candidates_pick(&c, draw(p->seed, in->n_tokens));
}

int phx_sample(struct phx_sampler *s, const struct phx_sample_input *in,
               struct phx_sample_output *out, struct phx_err *err)
{
    int32_t n = s->vocab_size - in->n_masked, best;
    double  norm = 0;

    memset(out, 0, sizeof(*out));
    out->token = -1;
    if (n < 1)
        return phx_fail(err, PHX_E_INVALID, "sampling: every id is masked");
    apply_bias(s, in);
    apply_penalties(s, in);
    best = find_largest(in->logits, n);
    if (best < 0)
        return phx_fail(err, PHX_E_INTERNAL, "sampling: the logits are not numbers");
    if (in->sampling->n_logprobs >= 0) {
        norm = log_sum(in->logits, n, in->logits[best]);
        put_top(s, in->logits, n, in->sampling->n_logprobs, norm, out);
    }
    out->token = in->sampling->temperature > 0.0f ? draw_token(s, in, n, in->logits[best]) : best;
    if (in->sampling->n_logprobs >= 0)
        out->logprob = (float)((double)in->logits[out->token] - norm);
    return 0;
}
