/* SPDX-License-Identifier: Apache-2.0
 * Products and what follows them: in one launch where rows are few, else one after the other. */
#include "kernels/cuda/matmul_ends.h"

#include "kernels/cuda/hopper.h"
#include "kernels/cuda/pick_matmul.h"

/* Whether the product can go on with its outputs; then *p is what it is launched with, row_tiles (0: as it is chosen) a block. */
static bool plan(const struct cuda_device *d, struct phx_tensor x, const struct cuda_weight *w, struct phx_tensor bias,
                 int32_t *row_tiles, struct cuda_product *p)
{
    struct cuda_matmul_choice c =
        phx_cuda_pick_matmul(d->compute, d->is_fast, phx_cuda_hopper_is_usable(d), d->sm_count, &w->desc, x.dim[0]);

    if (x.dim[0] == 0 || !phx_cuda_pick_ends(&c, &w->desc, x.dim[0]))
        return false;
    *row_tiles = *row_tiles > 0 ? *row_tiles : c.row_tiles;
    *p = (struct cuda_product){.w = phx_cuda_weight_look(w), .n_rows = x.dim[0], .x = x.data, .x_stride = x.stride0,
                               .bias = bias.data};
    p->ahead = phx_cuda_matmul_ahead(d, &p->w, *row_tiles);
    return true;
}

const char *phx_cuda_matmul_rope_write(void *device, const struct phx_matmul_rope_args *a, const void *weight, void *cache)
{
    struct cuda_device    *d = device;
    const struct cuda_kv  *kv = cache;
    int32_t                keys = kv->desc.kv_heads * kv->desc.head_dim, turned = a->out.dim[1] - keys, row_tiles = 2;
    struct phx_tensor      qk = phx_columns(a->out, 0, turned), v = phx_columns(a->out, turned, keys);
    struct cuda_rope_write rope = phx_cuda_rope_call(kv, a->layer, qk, v, a->cos, a->sin);
    struct cuda_product    p;
    const char            *fault;

    if (phx_cuda_pick_rope(&kv->desc) && plan(d, a->x, weight, a->bias, &row_tiles, &p)) {
        if (phx_cuda_spans(d, a->spans, &rope.write.spans) == 0)
            (void)phx_cuda_check(d, phx_cuda_matmul_rotate(d->stream, &p, &rope), "matmul_rope_write");
        return NULL; /* the reason is kept */
    }
    fault = phx_cuda_matmul(d, a->out, a->x, weight, a->bias);
    if (fault == NULL)
        phx_cuda_rope_write(d, qk, cache, a->layer, v, a->spans, a->cos, a->sin);
    return fault;
}

const char *phx_cuda_matmul_glu(void *device, const struct phx_matmul_glu_args *a, const void *weight)
{
    struct cuda_device *d = device;
    struct cuda_glu_end glu = {a->out.data, a->out.stride0, a->kind, a->limit};
    int32_t             row_tiles = 2;
    struct cuda_product p;
    const char         *fault;

    if (a->out.dim[1] % CUDA_TILE_ROWS == 0 && plan(d, a->x, weight, a->bias, &row_tiles, &p)) {
        (void)phx_cuda_check(d, phx_cuda_matmul_gate(d->stream, &p, &glu), "matmul_glu"); /* the reason is kept */
        return NULL;
    }
    fault = phx_cuda_matmul(d, a->gate_up, a->x, weight, a->bias);
    if (fault == NULL)
        phx_cuda_swiglu(d, a->out, a->gate_up, a->kind, a->limit);
    return fault;
}

const char *phx_cuda_matmul_add_norm(void *device, struct phx_tensor x, const void *weight, const struct phx_add_norm_args *a)
{
    struct cuda_device *d = device;
    struct cuda_ending  end = {phx_cuda_add_norm_call(d, a), d->staging.counters};
    int32_t             row_tiles = 0;
    struct cuda_product p;
    const char         *fault;

    if (end.call.top_k == 0 && cuda_can_end(&end.call) && plan(d, x, weight, (struct phx_tensor){0}, &row_tiles, &p)) {
        (void)phx_cuda_check(d, phx_cuda_matmul_end(d->stream, &p, &end, row_tiles), "matmul_add_norm"); /* the reason is kept */
        return NULL;
    }
    fault = phx_cuda_matmul(d, a->y, x, weight, (struct phx_tensor){0});
    if (fault == NULL)
        phx_cuda_add_norm(d, a);
    return fault;
}
