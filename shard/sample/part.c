/* SPDX-License-Identifier: Apache-2.0
 * The token that the whole logits would give, from what a device sends of them: the best few, a draw, sums.
 *
 * What is summed over few here is summed over all there, in another order; so a nucleus is taken as decided only where
 * its edge is farther from the wanted share than any order of additions could carry it. */
#include <math.h>
#include <string.h>

#include "shard/sample/sample.h"
#include "shard/sample/weights.h"

/* Of a sum: far above the rounding of 2^21 additions in double precision, far below what an edge is usually away. */
#define DOUBT 1e-9

static bool has_history(const struct phx_sampling *p)
{
    return p->n_bias > 0 || p->repetition_penalty != 1.0f || p->presence_penalty != 0.0f || p->frequency_penalty != 0.0f;
}

static bool has_top_k(const struct phx_sampling *p, int32_t vocab_size)
{
    return p->top_k > 0 && p->top_k < vocab_size;
}

static bool has_nucleus(const struct phx_sampling *p)
{
    return p->top_p < 1.0f || p->min_p > 0.0f;
}

static void need_draw(const struct phx_sampling *p, int32_t n_tokens, struct phx_sample_need *need)
{
    need->has_draw = true;
    need->temperature = p->temperature;
    need->share = phx_weights_share(p->seed, n_tokens);
}

void phx_sample_need(const struct phx_sampling *p, int32_t vocab_size, int32_t n_tokens, bool is_check, bool is_final,
                     struct phx_sample_need *need)
{
    int32_t most = vocab_size < PHX_SAMPLE_BEST_MAX ? vocab_size : PHX_SAMPLE_BEST_MAX, n_top = p->n_logprobs;

    memset(need, 0, sizeof(*need));
    need->n_best = n_top > 0 ? (n_top < vocab_size ? n_top : vocab_size) : 0;
    if (p->temperature <= 0.0f) {
        need->n_best = need->n_best > 0 ? need->n_best : 1;
    } else if (has_top_k(p, vocab_size)) {
        need->is_whole = p->top_k > most || (is_final && p->top_p < 1.0f);
        need->n_best = p->top_k > need->n_best ? p->top_k : need->n_best;
    } else {
        if (has_nucleus(p)) {
            need->is_whole = is_final;
            need->n_best = most;
        }
        if (p->top_p < 1.0f || !has_nucleus(p))
            need_draw(p, n_tokens, need);
    }
    need->has_norm = n_top >= 0 && !(need->has_draw && need->temperature == 1.0f);
    if (need->is_whole || has_history(p) || (is_final && is_check))
        *need = (struct phx_sample_need){.is_whole = true};
}

/* ---- the draw --------------------------------------------------------------------------------- */

/* The ids that the filters keep, and their weights. */
struct kept {
    int32_t n, ids[PHX_SAMPLE_BEST_MAX];
    double  weight[PHX_SAMPLE_BEST_MAX];
};

static void sort_by_id(struct kept *k)
{
    for (int32_t i = 1; i < k->n; i++) {
        int32_t id = k->ids[i], at = i;
        double  weight = k->weight[i];

        for (; at > 0 && k->ids[at - 1] > id; at--) {
            k->ids[at] = k->ids[at - 1];
            k->weight[at] = k->weight[at - 1];
        }
        k->ids[at] = id;
        k->weight[at] = weight;
    }
}

/* Cuts k, best first, behind the shortest run that holds the share of sum.  *is_cut false: none of its runs does.
 * False: a sum is too near to say. */
static bool cut_at_share(struct kept *k, double sum, float share, bool *is_cut)
{
    double want = sum * (double)share, doubt = sum * DOUBT, run = 0;

    *is_cut = false;
    for (int32_t i = 0; i < k->n; i++) {
        run += k->weight[i];
        if (fabs(run - want) <= doubt)
            return false;
        if (run < want)
            continue;
        *is_cut = true;
        k->n = i + 1;
        break;
    }
    return true;
}

static void keep_heavy(struct kept *k, float min_p)
{
    int32_t n = 0;

    for (int32_t i = 0; i < k->n; i++) {
        k->ids[n] = k->ids[i];
        k->weight[n] = k->weight[i];
        n += k->weight[i] >= (double)min_p;
    }
    k->n = n;
}

/* Applies top_p and min_p to the best ones.  is_all: no other id has a weight.  False: others may belong to them. */
static bool filter(struct kept *k, const struct phx_sampling *p, bool is_all, const struct phx_sample_part *part)
{
    bool is_cut = false;

    if (p->top_p < 1.0f) {
        double      sum = part->draw.sum;
        struct kept ordered;

        if (is_all) {
            ordered = *k;
            sort_by_id(&ordered);
            sum = phx_weights_sum_of(ordered.ids, ordered.weight, ordered.n);
        }
        if (!cut_at_share(k, sum, p->top_p, &is_cut))
            return false;
    }
    /* all ids behind the last one weigh as much or less */
    if (!is_all && !is_cut && !(p->min_p > 0.0f && k->weight[k->n - 1] < (double)p->min_p * (1.0 - DOUBT)))
        return false;
    if (p->min_p > 0.0f)
        keep_heavy(k, p->min_p);
    return true;
}

/* False: the best ones do not decide. */
static bool draw_of_best(const struct phx_sample_input *in, int32_t vocab_size, const struct phx_sample_need *need,
                         const struct phx_sample_part *part, int32_t *token)
{
    const struct phx_sampling *p = in->sampling;
    bool                       is_cut = has_top_k(p, vocab_size);
    struct kept                k = {.n = is_cut ? p->top_k : need->n_best};

    memcpy(k.ids, part->ids, (size_t)k.n * sizeof(*k.ids));
    phx_weigh(part->best, k.n, part->best[0], p->temperature, k.weight);
    if (!filter(&k, p, is_cut || k.n == vocab_size, part))
        return false;
    sort_by_id(&k);
    *token = phx_weights_pick_of(k.ids, k.weight, k.n, phx_weights_share(p->seed, in->n_tokens));
    return true;
}

/* ---- the answer ------------------------------------------------------------------------------- */

static float logit_of(const struct phx_sample_need *need, const struct phx_sample_part *part, int32_t token)
{
    for (int32_t i = 0; i < need->n_best; i++)
        if (part->ids[i] == token)
            return part->best[i];
    return part->draw.logit;
}

static void put_logprobs(const struct phx_sampling *p, const struct phx_sample_need *need,
                         const struct phx_sample_part *part, struct phx_sample_output *out)
{
    double largest = need->n_best > 0 ? (double)part->best[0] : (double)part->draw.largest;
    double norm = largest + phx_weights_log(need->has_norm ? part->norm : part->draw.sum);

    out->logprob = (float)((double)logit_of(need, part, out->token) - norm);
    out->n_top = p->n_logprobs < need->n_best ? p->n_logprobs : need->n_best;
    for (int32_t i = 0; i < out->n_top; i++) {
        out->top_ids[i] = part->ids[i];
        out->top_logprobs[i] = (float)((double)part->best[i] - norm);
    }
}

int phx_sample_from(const struct phx_sample_input *in, int32_t vocab_size, const struct phx_sample_need *need,
                    const struct phx_sample_part *part, int32_t recorded, bool *is_decided,
                    struct phx_sample_output *out, struct phx_err *err)
{
    const struct phx_sampling *p = in->sampling;

    memset(out, 0, sizeof(*out));
    out->token = -1;
    *is_decided = true;
    if ((need->n_best > 0 && !part->is_number) || (need->has_draw && part->draw.id < 0))
        return phx_fail(err, PHX_E_INTERNAL, "sampling: the logits are not numbers");
    if (p->temperature <= 0.0f)
        out->token = part->ids[0];
    else if (has_top_k(p, vocab_size) || has_nucleus(p))
        *is_decided = draw_of_best(in, vocab_size, need, part, &out->token);
    else
        out->token = part->draw.id;
    if (*is_decided && p->n_logprobs >= 0)
        put_logprobs(p, need, part, out);
    if (recorded >= 0 && out->token != recorded)
        *is_decided = false; /* how far they are apart is for the whole logits to say */
    return 0;
}
