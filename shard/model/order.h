/* SPDX-License-Identifier: Apache-2.0
 * In which order the rows of a step's logits are computed, so that those of which the same is wanted lie side by side.
 * Pure, private to shard/model; the same batch gives the same order on every rank. */
#ifndef PHX_SHARD_MODEL_ORDER_H
#define PHX_SHARD_MODEL_ORDER_H

#include "shard/model/model.h"

/* The first four are complete on tp 0, on the device or in host memory; of the others each rank sends the best of its
 * columns. */
enum phx_logits_class {
    PHX_LOGITS_WHOLE,      /* brought to the host */
    PHX_LOGITS_DRAWN,      /* draws alone */
    PHX_LOGITS_BEST,       /* the best one, and draws */
    PHX_LOGITS_BESTS,      /* several, and draws */
    PHX_LOGITS_SPLIT_BEST,
    PHX_LOGITS_SPLIT_BESTS,
    PHX_LOGITS_CLASSES
};

/* Floats of a row's best: n ids, n logits, ln of the sum of e^logit (of a rank's columns). */
static inline int32_t phx_logits_best_width(int32_t n_best)
{
    return 2 * n_best + 1;
}

struct phx_logits_shape {
    int32_t        vocab_size, tp_size;
    const int32_t *vocab_n;     /* [tp_size] columns of each rank */
    bool           is_in_place; /* logits are the host's already */
    bool           is_queued;   /* what is gathered stays on the device */
};

struct phx_logits_order {
    int32_t *place;  /* [max_logits] of row i of the batch */
    int32_t *rows;   /* [max_logits] the batch's logit_rows by place */
    int32_t  first[PHX_LOGITS_CLASSES + 1]; /* places of a class */
    int32_t  n_best[PHX_LOGITS_CLASSES];    /* the most that a row of the class wants */
    int32_t  n_draws;                       /* of all rows that are not whole */
};

void phx_logits_order(const struct phx_batch *batch, const struct phx_logits_shape *shape,
                      struct phx_logits_order *order);

/* The best n of one row from the best of all ranks: parts has phx_logits_best_width(least of n, vocab_n[i]) floats of
 * rank i, one behind the other, out phx_logits_best_width(n); ids become global.  The last float of out is NaN when
 * one of the ranks' is, else the largest. */
void phx_logits_merge(const float *parts, const struct phx_logits_shape *shape, const int32_t *vocab_first, int32_t n,
                      float *out);

#endif
