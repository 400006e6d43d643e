/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/model/order.h"

#include <math.h>
#include <string.h>

#include "rpc/base/mem.h"

static int32_t least(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Sending the best of each rank must be worth it, and fit where the ranks' columns would. */
static bool is_cheap(const struct phx_logits_shape *s, int32_t n_best)
{
    int64_t width = 0;

    for (int32_t i = 0; i < s->tp_size; i++) {
        int32_t mine = phx_logits_best_width(least(n_best, s->vocab_n[i]));

        if (mine > s->vocab_n[i])
            return false;
        width += mine;
    }
    return 2 * width <= s->vocab_size;
}

static enum phx_logits_class classify(const struct phx_logits_want *w, const struct phx_logits_shape *s)
{
    if (w->is_whole || s->is_in_place)
        return PHX_LOGITS_WHOLE;
    if (s->tp_size > 1 && w->n_draws == 0 && w->n_best > 0 && is_cheap(s, w->n_best))
        return w->n_best == 1 ? PHX_LOGITS_SPLIT_BEST : PHX_LOGITS_SPLIT_BESTS;
    if (s->tp_size > 1 && !s->is_queued)
        return PHX_LOGITS_WHOLE; /* it passes through host memory anyway */
    return w->n_best == 0 ? PHX_LOGITS_DRAWN : w->n_best == 1 ? PHX_LOGITS_BEST : PHX_LOGITS_BESTS;
}

static void put_in_order(const struct phx_batch *batch, struct phx_logits_order *order)
{
    memcpy(order->rows, batch->logit_rows, (size_t)batch->n_logits * sizeof(*order->rows));
    for (int32_t i = 0; i < batch->n_logits; i++)
        order->place[i] = i;
    for (int c = 0; c < PHX_LOGITS_CLASSES; c++)
        order->first[c + 1] = batch->n_logits;
}

void phx_logits_order(const struct phx_batch *batch, const struct phx_logits_shape *shape,
                      struct phx_logits_order *order)
{
    int32_t next[PHX_LOGITS_CLASSES];

    memset(order->first, 0, sizeof(order->first));
    memset(order->n_best, 0, sizeof(order->n_best));
    order->n_draws = 0;
    if (batch->wants == NULL) {
        put_in_order(batch, order);
        return;
    }
    for (int32_t i = 0; i < batch->n_logits; i++) {
        const struct phx_logits_want *w = &batch->wants[i];
        enum phx_logits_class         c = classify(w, shape);

        order->first[c + 1]++;
        order->n_best[c] = w->n_best > order->n_best[c] ? w->n_best : order->n_best[c];
        order->n_draws += c != PHX_LOGITS_WHOLE ? w->n_draws : 0;
    }
    for (int c = 0; c < PHX_LOGITS_CLASSES; c++) {
        next[c] = order->first[c];
        order->first[c + 1] += order->first[c];
    }
    for (int32_t i = 0; i < batch->n_logits; i++) {
        int32_t place = next[classify(&batch->wants[i], shape)]++;

        order->place[i] = place;
        order->rows[place] = batch->logit_rows[i];
    }
}

/* ---- the best of all ranks -------------------------------------------------------------------- */

/* A rank's list of best, from which the first are taken. */
struct list {
    const float *at; /* ids, logits, sum */
    int32_t      first, n, taken;
};

static int32_t id_of(const struct list *l)
{
    int32_t id;

    memcpy(&id, l->at + l->taken, sizeof(id));
    return (int32_t)((uint32_t)id + (uint32_t)l->first); /* whatever a failed device sent */
}

static float logit_of(const struct list *l)
{
    return l->at[l->n + l->taken];
}

static bool is_better(const struct list *a, const struct list *b)
{
    return logit_of(a) > logit_of(b) || (logit_of(a) == logit_of(b) && id_of(a) < id_of(b));
}

/* NULL when all lists are empty. */
static struct list *find_best(struct list *lists, int32_t n)
{
    struct list *best = NULL;

    for (int32_t i = 0; i < n; i++)
        if (lists[i].taken < lists[i].n && (best == NULL || is_better(&lists[i], best)))
            best = &lists[i];
    return best;
}

void phx_logits_merge(const float *parts, const struct phx_logits_shape *shape, const int32_t *vocab_first, int32_t n,
                      float *out)
{
    struct list  lists[PHX_TP_MAX];
    struct list *best;
    float        sum = -INFINITY;

    phx_assert(shape->tp_size <= PHX_TP_MAX);
    for (int32_t i = 0; i < shape->tp_size; i++) {
        float mine;

        lists[i] = (struct list){parts, vocab_first[i], least(n, shape->vocab_n[i]), 0};
        mine = parts[2 * lists[i].n];
        sum = isnan(mine) || isnan(sum) ? NAN : mine > sum ? mine : sum;
        parts += phx_logits_best_width(lists[i].n);
    }
    for (int32_t j = 0; j < n && (best = find_best(lists, shape->tp_size)) != NULL; j++) {
        int32_t id = id_of(best);

        memcpy(out + j, &id, sizeof(id));
        out[n + j] = logit_of(best);
        best->taken++;
    }
    out[2 * n] = sum;
}
