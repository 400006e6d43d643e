/* SPDX-License-Identifier: Apache-2.0
 * A product on the kernel that pick_matmul.c names.  Large steps go through in passes of rows, which changes no bit. */
#include "kernels/cuda/matmul.h"

#include "kernels/cuda/hopper.h"
#include "kernels/cuda/launch.h"
#include "kernels/cuda/library.h"
#include "kernels/cuda/pick_matmul.h"

enum { PASS_ROWS_MAX = 4096, PASS_BYTES = 64 << 20, PASS_ROWS_STEP = 256 }; /* what is rounded at a time */

static const char OP[] = "matmul";

/* Bytes of activations as the matrix unit takes them, and of their scales. */
struct x_bytes {
    size_t data, scales;
};

static struct x_bytes count_x(const struct cuda_cut *cut, bool is_i8, int32_t n_rows)
{
    size_t tiles = ((size_t)n_rows + CUDA_X_ROWS - 1) / CUDA_X_ROWS;

    return (struct x_bytes){cuda_atoms_bytes(cut, tiles * CUDA_X_ROWS), /* with room for an odd last block's neighbour */
                            is_i8 ? tiles * CUDA_X_ROWS * (size_t)cut->n_groups * sizeof(float) : 0};
}

static int32_t count_pass_rows(const struct cuda_cut *cut)
{
    int64_t row_bytes = (int64_t)cut->n_blocks * (CUDA_X_BLOCK_BYTES / CUDA_X_ROWS);
    int64_t rows = row_bytes > 0 ? PASS_BYTES / row_bytes / PASS_ROWS_STEP * PASS_ROWS_STEP : PASS_ROWS_MAX;

    rows = rows < PASS_ROWS_STEP ? PASS_ROWS_STEP : rows;
    return rows < PASS_ROWS_MAX ? (int32_t)rows : PASS_ROWS_MAX;
}

size_t phx_cuda_matmul_scratch(const struct cuda_device *d, const struct phx_weight_desc *w)
{
    struct cuda_cut cut = phx_cuda_weight_cut(w);
    int32_t         rows = count_pass_rows(&cut);
    struct x_bytes  x = count_x(&cut, w->dtype == PHX_DTYPE_I8, rows);
    size_t          library = d->is_fast && w->dtype == PHX_DTYPE_BF16 ? phx_cuda_library_scratch(w, rows) : 0;

    if (w->n_experts != 1 || !phx_cuda_is_rounded(d->compute, w->dtype))
        return 0;
    return library > x.data + x.scales ? library : x.data + x.scales;
}

void phx_cuda_matmul_reserve(struct cuda_device *d, const struct cuda_weight *w)
{
    size_t bytes = phx_cuda_matmul_scratch(d, &w->desc);

    if (bytes > 0)
        (void)phx_cuda_scratch(d, bytes);
}

struct cuda_ahead phx_cuda_matmul_ahead(const struct cuda_device *d, const struct cuda_weight_view *w, int32_t row_tiles)
{
    if (!phx_cuda_launches_overlap(d->stream))
        return (struct cuda_ahead){0};
    return phx_cuda_pick_ahead(d->l2_bytes, d->sm_count, (w->n + CUDA_TILE_ROWS - 1) / CUDA_TILE_ROWS, row_tiles, w->tile_bytes);
}

static bool launch_kernel(struct cuda_device *d, const struct cuda_matmul_choice *c, const struct cuda_product *p)
{
    struct cuda_product with = *p;
    int                 rc;

    with.ahead = phx_cuda_matmul_ahead(d, &p->w, c->kernel == CUDA_MATMUL_STREAM ? c->row_tiles : 1);
    switch (c->kernel) {
    case CUDA_MATMUL_FLOAT: rc = phx_cuda_matmul_float(d->stream, &with, c->x_rows); break;
    case CUDA_MATMUL_STREAM: rc = phx_cuda_matmul_stream(d->stream, &with, c->row_tiles, c->x_tiles); break;
    case CUDA_MATMUL_HOPPER: rc = phx_cuda_matmul_hopper(d->stream, p, d->sm_count); break;
    default: rc = phx_cuda_matmul_tile(d->stream, p, c->kernel == CUDA_MATMUL_TILE_LARGE); break;
    }
    return phx_cuda_check(d, rc, OP);
}

static bool round_rows(struct cuda_device *d, enum cuda_matmul_kernel kernel, const struct cuda_round *r)
{
    int rc;

    if (r->cut.n_blocks == 0)
        return true;
    rc = r->scale != NULL              ? phx_cuda_quantise_rows(d->stream, r)
         : kernel == CUDA_MATMUL_HOPPER ? phx_cuda_round_atoms(d->stream, r)
                                       : phx_cuda_round_rows(d->stream, r);
    return phx_cuda_check(d, rc, OP);
}

/* Some rows, rounded or quantised by a kernel of its own before the product. */
static bool multiply_pass(struct cuda_device *d, const struct cuda_matmul_choice *c, struct cuda_product *p)
{
    const struct cuda_cut *cut = &p->w.cut;
    bool                   is_i8 = p->w.dtype == PHX_DTYPE_I8;
    struct x_bytes         x = count_x(cut, is_i8, p->n_rows);
    unsigned char         *scratch = phx_cuda_scratch(d, x.data + x.scales);
    struct cuda_round      r = {.x = p->x, .x_stride = p->x_stride, .n_rows = p->n_rows, .cut = *cut, .out = scratch};

    if (scratch == NULL)
        return false;
    if (is_i8)
        r.scale = (float *)(void *)(scratch + x.data);
    if (!round_rows(d, c->kernel, &r))
        return false;
    p->x = NULL;
    p->rounded = scratch;
    p->x_scale = r.scale;
    return launch_kernel(d, c, p);
}

const char *phx_cuda_matmul(void *device, struct phx_tensor out, struct phx_tensor x, const void *weight,
                            struct phx_tensor bias)
{
    struct cuda_device       *d = device;
    const struct cuda_weight *w = weight;
    struct cuda_matmul_choice c;
    struct cuda_product       whole = {.w = phx_cuda_weight_look(w), .n_rows = x.dim[0], .x = x.data,
                                       .x_stride = x.stride0, .bias = bias.data, .out = out.data,
                                       .out_stride = out.stride0};

    if (x.dim[0] == 0)
        return NULL;
    c = phx_cuda_pick_matmul(d->compute, d->is_fast, phx_cuda_hopper_is_usable(d), d->sm_count, &w->desc, x.dim[0]);
    if (c.kernel == CUDA_MATMUL_FLOAT || !c.is_rounded_first) {
        (void)launch_kernel(d, &c, &whole); /* it has kept the reason */
        return NULL;
    }
    for (int32_t row = 0, pass = count_pass_rows(&w->cut); row < x.dim[0]; row += pass) {
        struct cuda_product p = whole;

        p.x += row * x.stride0;
        p.out += row * out.stride0;
        p.n_rows = x.dim[0] - row < pass ? x.dim[0] - row : pass;
        if (c.kernel == CUDA_MATMUL_LIBRARY) {
            if (phx_cuda_library_multiply(d, &p))
                continue;
            c = phx_cuda_pick_matmul(d->compute, false, phx_cuda_hopper_is_usable(d), d->sm_count, &w->desc, x.dim[0]);
        }
        if (!multiply_pass(d, &c, &p))
            break;
    }
    return NULL;
}
