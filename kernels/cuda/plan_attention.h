/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: what one layer's attention launches for the rows of a step.  Pure.
 *
 * Queries are numbered as in attention.h and cut into units; sequences of few queries go in narrow units, the others in
 * wide ones, each kind in a launch of its own.  A plan is made for one step, or with room for every step of equal
 * rows within some reach, so that its launches can be recorded and only the list of units is made anew. */
#ifndef PHX_KERNELS_CUDA_PLAN_ATTENTION_H
#define PHX_KERNELS_CUDA_PLAN_ATTENTION_H

#include "kernels/cuda/pick_attention.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Queries first, first + 1, ... of sequence seq; its pieces lie from slot `slot` on. */
struct cuda_attention_unit {
    int32_t seq, first, slot;
};

/* What a layer asks. */
struct cuda_attention_shape {
    int32_t window;  /* 0 = all */
    int32_t n_heads; /* the most query heads of a kv head */
    int32_t n_kv;    /* kv heads that are read */
    int32_t dim;     /* of the kernel: 64 or 128 */
};

/* How many keys the sequences of a step have: the most of one, and the sum. */
struct cuda_reach {
    int32_t keys_max;
    int64_t keys_total;
};

/* One launch; of none when n_units is 0. */
struct cuda_attention_share {
    int32_t         n_units, unit_queries;
    int32_t         slot_queries; /* of a slot: the queries of a unit that can be there */
    enum cuda_split split;
    int32_t         n_pieces;     /* the most of a unit, 1 without a split */
    bool            is_joined_inside; /* the launch joins its pieces itself */
    int64_t         n_slots;      /* of all units */
    size_t          pieces_bytes; /* scratch of the slots */
};

struct cuda_attention_plan {
    struct cuda_attention_shape shape;
    size_t                      shared_max;
    struct cuda_attention_share share[2]; /* narrow, wide */
};

/* reach NULL: for exactly these spans; else for all of the same row counts that reach no further. */
void phx_cuda_plan_attention(const struct cuda_attention_shape *shape, size_t shared_max, int32_t sm_count,
                             const struct phx_spans *spans, const struct cuda_reach *reach,
                             struct cuda_attention_plan *plan);

/* The units of share[is_wide], of spans that the plan has room for; units [n_units]. */
void phx_cuda_list_units(const struct cuda_attention_plan *plan, bool is_wide, const struct phx_spans *spans,
                         struct cuda_attention_unit *units);

#ifdef __cplusplus
}
#endif
#endif
