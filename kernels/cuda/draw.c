/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/draw.h"

#include "kernels/cuda/top.h" /* PHX_CUDA_TOP_BYTES */
#include "kernels/draw.h"

enum { DRAWS_MAX = 65535 /* of a grid's y */ };

static int32_t count_blocks(int32_t columns)
{
    return (columns - 1) / PHX_DRAW_BLOCK + 1;
}

static size_t count_bytes(int32_t n_blocks)
{
    return (size_t)n_blocks * (sizeof(double) + sizeof(float));
}

/* Draws of one pass. */
static int32_t count_batch(int32_t n_draws, int32_t n_blocks)
{
    size_t  most = PHX_CUDA_TOP_BYTES / count_bytes(n_blocks);
    int32_t batch = most < DRAWS_MAX ? (int32_t)most : DRAWS_MAX;

    batch = batch > 0 ? batch : 1;
    return batch < n_draws ? batch : n_draws;
}

size_t phx_cuda_draw_scratch(int32_t n_draws, int32_t columns)
{
    int32_t n_blocks = count_blocks(columns);

    return (size_t)count_batch(n_draws, n_blocks) * count_bytes(n_blocks);
}

void phx_cuda_draw(void *device, struct phx_tensor out, struct phx_tensor logits, const struct phx_draw_row *draws)
{
    struct cuda_device    *d = device;
    int32_t                n_draws = out.dim[0], n_blocks = count_blocks(logits.dim[1]);
    int32_t                batch = count_batch(n_draws, n_blocks);
    const struct phx_draw_row *staged = phx_cuda_stage(d, draws, (size_t)n_draws * sizeof(*draws));
    struct cuda_draw_call  c = {.logits = logits.data, .logits_stride = logits.stride0, .n = logits.dim[1],
                                .n_blocks = n_blocks, .out_stride = out.stride0};

    if (staged == NULL || n_draws == 0)
        return;
    c.sums = phx_cuda_scratch(d, (size_t)batch * count_bytes(n_blocks));
    if (c.sums == NULL)
        return;
    c.largest = (float *)(void *)(c.sums + (size_t)batch * (size_t)n_blocks);
    for (int32_t i = 0; i < n_draws; i += batch) {
        c.draws = staged + i;
        c.n_draws = n_draws - i < batch ? n_draws - i : batch;
        c.out = (double *)out.data + i * out.stride0;
        if (!phx_cuda_check(d, phx_cuda_draw_largest(d->stream, &c), "draw") ||
            !phx_cuda_check(d, phx_cuda_draw_sums(d->stream, &c), "draw") ||
            !phx_cuda_check(d, phx_cuda_draw_pick(d->stream, &c), "draw"))
            return;
    }
}
