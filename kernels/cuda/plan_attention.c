/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/plan_attention.h"

/* What the units of a share walk over. */
struct work {
    int32_t rows_max, leaves_max, parts_max;
    int64_t n_units, n_leaves, n_parts;
    int32_t units_max; /* of one sequence */
};

static int32_t min32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

static int32_t max32(int32_t a, int32_t b)
{
    return a > b ? a : b;
}

/* Pieces of n tokens, aligned to position 0, of which n_rows rows from pos on see something. */
static int32_t count_pieces(int32_t window, int32_t pos, int32_t n_rows, int32_t n)
{
    int32_t first = window > 0 && pos - window + 1 > 0 ? pos - window + 1 : 0;

    return (pos + n_rows - 1) / n - first / n + 1;
}

/* The same wherever the rows are, within keys_max keys. */
static int32_t bound_pieces(int32_t window, int32_t keys_max, int32_t n_rows, int32_t n)
{
    int32_t all = (keys_max - 1) / n + 1;

    /* `seen` adjacent positions touch at most this many pieces */
    return window > 0 && window <= INT32_MAX - n_rows - n ? min32(all, (window + n_rows - 2 + n - 1) / n + 1) : all;
}

static int32_t count_units(const struct cuda_attention_plan *plan, int32_t n_rows, bool is_wide)
{
    int64_t n = (int64_t)n_rows * plan->shape.n_heads, each = plan->share[is_wide].unit_queries;

    if (n_rows == 0 || phx_cuda_pick_narrow(n_rows, plan->shape.n_heads, plan->shape.dim, plan->shared_max) == is_wide)
        return 0;
    return (int32_t)((n + each - 1) / each);
}

static struct work measure(const struct cuda_attention_plan *plan, bool is_wide, const struct phx_spans *spans,
                           const struct cuda_reach *reach)
{
    struct work w = {0};

    for (int32_t i = 0; i < spans->n_seqs; i++) {
        int32_t window = plan->shape.window, n_rows = spans->n_rows[i], pos = spans->pos[i], leaves, parts;
        int32_t n = count_units(plan, n_rows, is_wide);

        if (n == 0)
            continue;
        leaves = reach != NULL ? bound_pieces(window, reach->keys_max, n_rows, CUDA_LEAF_TOKENS)
                               : count_pieces(window, pos, n_rows, CUDA_LEAF_TOKENS);
        parts = reach != NULL ? bound_pieces(window, reach->keys_max, n_rows, CUDA_PART_TOKENS)
                              : count_pieces(window, pos, n_rows, CUDA_PART_TOKENS);
        w.rows_max = max32(w.rows_max, n_rows);
        w.leaves_max = max32(w.leaves_max, leaves);
        w.parts_max = max32(w.parts_max, parts);
        w.units_max = max32(w.units_max, n);
        w.n_units += n;
        w.n_leaves += (int64_t)n * leaves;
        w.n_parts += (int64_t)n * parts;
    }
    return w;
}

/* No step has more pieces of n tokens than its keys fill, and one begun piece for each sequence. */
static int64_t limit_total(int64_t n_pieces, const struct work *w, const struct cuda_reach *reach, int32_t n_seqs, int32_t n)
{
    int64_t most = (int64_t)w->units_max * (reach->keys_total / n + n_seqs);

    return n_pieces < most ? n_pieces : most;
}

static void choose_split(struct cuda_attention_share *s, const struct cuda_attention_shape *shape, bool is_narrow,
                         int32_t sm_count, const struct work *w)
{
    struct cuda_split_shape split = {.is_narrow = is_narrow, .sm_count = sm_count, .n_kv = shape->n_kv,
                                     .leaves_max = w->leaves_max, .n_units = w->n_units, .n_parts = w->n_parts,
                                     .n_leaves = w->n_leaves};

    split.slot_bytes = (size_t)s->slot_queries * (size_t)(shape->dim + 2) * sizeof(float);
    s->split = phx_cuda_pick_split(&split);
    s->n_pieces = s->split == CUDA_SPLIT_LEAVES ? w->leaves_max : s->split == CUDA_SPLIT_PARTS ? w->parts_max : 1;
    s->is_joined_inside = is_narrow && s->split != CUDA_SPLIT_NONE &&
                          phx_cuda_pick_joining(shape->dim, s->slot_queries, s->n_pieces, w->n_units * shape->n_kv);
    s->n_slots = s->split == CUDA_SPLIT_LEAVES ? w->n_leaves : s->split == CUDA_SPLIT_PARTS ? w->n_parts : 0;
    s->pieces_bytes = (size_t)s->n_slots * (size_t)shape->n_kv * split.slot_bytes; /* pick_split has bounded it */
}

void phx_cuda_plan_attention(const struct cuda_attention_shape *shape, size_t shared_max, int32_t sm_count,
                             const struct phx_spans *spans, const struct cuda_reach *reach,
                             struct cuda_attention_plan *plan)
{
    *plan = (struct cuda_attention_plan){.shape = *shape, .shared_max = shared_max};
    for (int wide = 0; wide < 2; wide++) {
        struct cuda_attention_share *s = &plan->share[wide];
        struct work                  w;

        s->unit_queries = phx_cuda_pick_unit(wide == 0, shape->dim);
        w = measure(plan, wide, spans, reach);
        if (w.n_units == 0 || w.n_units > INT32_MAX)
            continue;
        if (reach != NULL) {
            w.n_leaves = limit_total(w.n_leaves, &w, reach, spans->n_seqs, CUDA_LEAF_TOKENS);
            w.n_parts = limit_total(w.n_parts, &w, reach, spans->n_seqs, CUDA_PART_TOKENS);
        }
        s->n_units = (int32_t)w.n_units;
        s->slot_queries = w.rows_max < s->unit_queries ? min32(s->unit_queries, w.rows_max * shape->n_heads) : s->unit_queries;
        choose_split(s, shape, wide == 0, sm_count, &w);
    }
}

void phx_cuda_list_units(const struct cuda_attention_plan *plan, bool is_wide, const struct phx_spans *spans,
                         struct cuda_attention_unit *units)
{
    const struct cuda_attention_share *s = &plan->share[is_wide];
    int32_t tokens = s->split == CUDA_SPLIT_LEAVES ? CUDA_LEAF_TOKENS : CUDA_PART_TOKENS, slot = 0;

    for (int32_t i = 0; i < spans->n_seqs; i++) {
        int32_t n = count_units(plan, spans->n_rows[i], is_wide);

        for (int32_t j = 0; j < n; j++) {
            *units++ = (struct cuda_attention_unit){i, j * s->unit_queries, slot};
            if (s->split != CUDA_SPLIT_NONE)
                slot += count_pieces(plan->shape.window, spans->pos[i], spans->n_rows[i], tokens);
        }
    }
}
