/* SPDX-License-Identifier: Apache-2.0
 * What a model will need of scratch: the largest of what its ops say, each by the formula that it reserves by. */
#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda.h"
#include "kernels/cuda/draw.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/matmul.h"
#include "kernels/cuda/moe.h"
#include "kernels/cuda/top.h"

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t count_weight(const struct cuda_device *d, const struct phx_weight_desc *w)
{
    return larger(phx_cuda_weight_scratch(w), phx_cuda_matmul_scratch(d, w));
}

static size_t count_logits(const struct phx_work *w)
{
    int32_t top_k = w->n_columns < PHX_TOP_MAX ? w->n_columns : PHX_TOP_MAX;
    size_t  top = w->max_logits > 0 ? phx_cuda_top_scratch(w->max_logits, w->n_columns, top_k) : 0;
    size_t  draw = w->max_draws > 0 ? phx_cuda_draw_scratch(w->max_draws, w->n_columns) : 0;

    return larger(top, draw);
}

size_t phx_cuda_work_bytes(const void *device, const struct phx_work *work)
{
    const struct cuda_device *d = device;
    size_t                    bytes = larger(count_logits(work), phx_cuda_attention_scratch(d, &work->kv));

    for (int32_t i = 0; i < work->n_weights; i++)
        bytes = larger(bytes, count_weight(d, &work->weights[i]));
    if (work->top_k > 0) {
        const struct phx_weight_desc *down = &work->weights[work->n_weights - 1], *gate_up = down - 1;

        bytes = larger(bytes, phx_cuda_moe_scratch(d, work->max_rows, work->top_k, gate_up, down));
    }
    return bytes;
}

void phx_cuda_work_reserve(void *device, const struct phx_work *work)
{
    struct cuda_device *d = device;

    if (phx_cuda_scratch(d, phx_cuda_work_bytes(d, work)) != NULL && d->is_fast)
        phx_cuda_library_open(d);
}
