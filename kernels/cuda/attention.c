/* SPDX-License-Identifier: Apache-2.0
 * Attention: which kernel, and what it is launched on. */
#include "kernels/cuda/attention.h"

#include "kernels/cuda/step.h"

_Static_assert((int)CUDA_JOINS_MAX <= (int)CUDA_COUNTERS, "a counter for each");

/* The launches of one share; a is the layer's. */
static void launch(struct cuda_device *d, struct cuda_attention a, const struct cuda_attention_shape *shape,
                   const struct cuda_attention_share *share, const struct cuda_attention_unit *units)
{
    bool is_split = share->split != CUDA_SPLIT_NONE;

    a.units = units;
    a.n_units = share->n_units;
    a.unit_queries = share->unit_queries;
    a.slot_queries = share->slot_queries;
    a.split = share->split;
    a.n_pieces = share->n_pieces;
    a.pieces = is_split ? phx_cuda_scratch(d, share->pieces_bytes) : NULL;
    if (is_split && a.pieces == NULL) /* the error is kept */
        return;
    a.counters = share->is_joined_inside ? d->staging.counters : NULL;
    if (phx_cuda_check(d, phx_cuda_attend_tiles(d->stream, &a, shape->dim), "attention") && is_split && a.counters == NULL)
        (void)phx_cuda_check(d, phx_cuda_attend_join(d->stream, &a, shape->dim), "attention");
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
        .is_rounded = d->compute == PHX_COMPUTE_BF16 && kv->desc.dtype != PHX_DTYPE_F32,
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
    struct cuda_device                 *d = device;
    const struct cuda_kv               *kv = cache;
    struct cuda_attention               a = translate(d, args, kv);
    struct cuda_attention_shape         shape = {.window = args->window, .n_kv = a.n_kv};
    const struct cuda_attention_layout *layout;

    if (phx_cuda_spans(d, args->spans, &a.spans) != 0)
        return;
    shape.dim = phx_cuda_pick_attention(d->compute, &kv->desc);
    shape.n_heads = args->group < args->n_heads ? args->group : args->n_heads;
    if (shape.dim == 0) {
        (void)phx_cuda_check(d, phx_cuda_attend_plain(d->stream, &a), "attention");
        return;
    }
    layout = phx_cuda_lay_attention(d, &shape, args->spans);
    for (int wide = 0; wide < 2 && layout != NULL; wide++)
        if (layout->plan.share[wide].n_units > 0)
            launch(d, a, &shape, &layout->plan.share[wide], layout->units[wide]);
}
