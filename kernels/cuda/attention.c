/* SPDX-License-Identifier: Apache-2.0
 * Attention: which kernel, and the list of units that it works on. */
#include "kernels/cuda/attention.h"

#include <string.h>


enum { UNITS_MAX = 512 }; /* of one launch */

/* What goes into one launch. */
struct launch {
    struct cuda_device         *d;
    const struct phx_spans     *spans;
    struct cuda_attention      *a;
    int32_t                     dim, n_heads; /* of the kernel; the most heads per kv head */
    bool                        is_narrow;
    int32_t                     n, rows_max;
    struct cuda_attention_unit  unit[UNITS_MAX];
};

static int32_t min32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Pieces of n tokens, aligned to position 0, of which the rows of a sequence see something. */
static int32_t count_pieces(const struct launch *l, int32_t seq, int32_t n)
{
    int32_t window = l->a->window, pos = l->spans->pos[seq];
    int32_t first = window > 0 && pos - window + 1 > 0 ? pos - window + 1 : 0;

    return (pos + l->spans->n_rows[seq] - 1) / n - first / n + 1;
}

static struct cuda_split_shape describe(const struct launch *l)
{
    struct cuda_split_shape s = {.is_narrow = l->is_narrow, .sm_count = l->d->sm_count, .n_kv = l->a->n_kv, .n_units = l->n};

    for (int32_t i = 0; i < l->n; i++) {
        int32_t leaves = count_pieces(l, l->unit[i].seq, CUDA_LEAF_TOKENS);

        s.leaves_max = leaves > s.leaves_max ? leaves : s.leaves_max;
        s.n_leaves += leaves;
        s.n_parts += count_pieces(l, l->unit[i].seq, CUDA_PART_TOKENS);
    }
    s.slot_bytes = (size_t)l->a->slot_queries * (size_t)(l->dim + 2) * sizeof(float);
    return s;
}

/* Gives every unit the slots of its pieces; returns how many there are. */
static int32_t assign_slots(struct launch *l)
{
    int32_t tokens = l->a->split == CUDA_SPLIT_LEAVES ? CUDA_LEAF_TOKENS : CUDA_PART_TOKENS, n_slots = 0;

    l->a->n_pieces = 1;
    for (int32_t i = 0; i < l->n && l->a->split != CUDA_SPLIT_NONE; i++) {
        int32_t n = count_pieces(l, l->unit[i].seq, tokens);

        l->unit[i].slot = n_slots;
        n_slots += n;
        l->a->n_pieces = n > l->a->n_pieces ? n : l->a->n_pieces;
    }
    return n_slots;
}

static void flush(struct launch *l)
{
    struct cuda_attention  *a = l->a;
    struct cuda_split_shape shape;
    int32_t                 n_slots;

    if (l->n == 0)
        return;
    a->unit_queries = phx_cuda_pick_unit(l->is_narrow, l->dim);
    a->slot_queries = l->rows_max < a->unit_queries ? min32(a->unit_queries, l->rows_max * l->n_heads) : a->unit_queries;
    a->n_units = l->n;
    shape = describe(l);
    a->split = phx_cuda_pick_split(&shape);
    n_slots = assign_slots(l);
    a->pieces = NULL;
    if (n_slots > 0)
        a->pieces = phx_cuda_scratch(l->d, (size_t)n_slots * (size_t)a->n_kv * shape.slot_bytes);
    a->units = phx_cuda_stage(l->d, l->unit, (size_t)l->n * sizeof(l->unit[0]));
    l->n = l->rows_max = 0;
    if (a->units == NULL || (n_slots > 0 && a->pieces == NULL)) /* the error is kept */
        return;
    if (phx_cuda_check(l->d, phx_cuda_attend_tiles(l->d->stream, a, l->dim), "attention") && n_slots > 0)
        (void)phx_cuda_check(l->d, phx_cuda_attend_join(l->d->stream, a, l->dim), "attention");
}

/* All units of the sequences of one kind. */
static void attend_kind(struct launch *l, bool is_narrow)
{
    int32_t step = phx_cuda_pick_unit(is_narrow, l->dim);

    l->is_narrow = is_narrow;
    for (int32_t seq = 0; seq < l->spans->n_seqs; seq++) {
        int32_t n_rows = l->spans->n_rows[seq];
        int64_t n_queries = (int64_t)n_rows * l->n_heads;

        if (phx_cuda_pick_narrow(n_rows, l->n_heads, l->dim, l->d->shared_max) != is_narrow)
            continue;
        for (int64_t first = 0; first < n_queries; first += step) {
            if (l->n == UNITS_MAX)
                flush(l);
            l->unit[l->n++] = (struct cuda_attention_unit){seq, (int32_t)first, 0};
            l->rows_max = n_rows > l->rows_max ? n_rows : l->rows_max;
        }
    }
    flush(l);
}

static struct cuda_attention translate(const struct cuda_device *d, const struct phx_attention_args *args,
                                       const struct cuda_kv *kv)
{
    struct cuda_attention a = {
        .out = args->out.data,
        .q = args->q.data,
        .sinks = args->sinks.data,
        .out_stride = args->out.stride0,
        .q_stride = args->q.stride0,
        .kv = cuda_kv_layer(kv, args->layer),
        .n_heads = args->n_heads,
        .group = args->group,
        .head_first = args->head_first,
        .kv_first = args->kv_first,
        .window = args->window,
        .scale = args->scale,
        .is_rounded = d->compute == PHX_COMPUTE_BF16 && kv->desc.dtype == PHX_DTYPE_BF16,
        .kv_begin = args->head_first / args->group - args->kv_first,
    };

    a.n_kv = (args->head_first + args->n_heads - 1) / args->group - args->kv_first - a.kv_begin + 1;
    return a;
}

size_t phx_cuda_attention_scratch(const struct cuda_device *d, const struct phx_kv_desc *desc)
{
    return phx_cuda_pick_attention(d->compute, desc) == 0 ? 0 : PHX_CUDA_PIECES_BYTES;
}

bool phx_cuda_attention_reserve(struct cuda_device *d, const struct phx_kv_desc *desc)
{
    size_t bytes = phx_cuda_attention_scratch(d, desc);

    return bytes == 0 || phx_cuda_scratch(d, bytes) != NULL;
}

void phx_cuda_attention(void *device, const struct phx_attention_args *args, const void *cache)
{
    struct cuda_device    *d = device;
    const struct cuda_kv  *kv = cache;
    struct cuda_attention  a = translate(d, args, kv);
    struct launch          l;

    if (phx_cuda_spans(d, args->spans, &a.spans) != 0)
        return;
    memset(&l, 0, offsetof(struct launch, unit));
    l.d = d;
    l.spans = args->spans;
    l.a = &a;
    l.dim = phx_cuda_pick_attention(d->compute, &kv->desc);
    l.n_heads = min32(args->group, args->n_heads);
    if (l.dim == 0) {
        (void)phx_cuda_check(d, phx_cuda_attend_plain(d->stream, &a), "attention");
        return;
    }
    attend_kind(&l, true);
    attend_kind(&l, false);
}
