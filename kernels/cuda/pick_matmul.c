/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/pick_matmul.h"

enum {
    STREAM_ROWS_MAX = 32,
    SMALL_ROWS_MAX = 64,
    HOPPER_ROWS_MIN = 64, /* predicted, not measured: half a piece of 128 rows is filled */
    LIBRARY_ROWS_MIN = 512, /* below that bringing the weights into the library's order costs more than it gains */
    TILE = 128,
    ENDS_ROWS_MAX = 8, /* one tile of rows; predicted, not measured: the norms of as many by one block take what a launch does */
    PAIR_OUTPUTS = 32  /* of a block that rotates */
};

static int64_t divide_up(int64_t n, int64_t by)
{
    return (n + by - 1) / by;
}

bool phx_cuda_is_rounded(enum phx_compute compute, enum phx_dtype dtype)
{
    return dtype == PHX_DTYPE_I8 ||
           (compute == PHX_COMPUTE_BF16 && (dtype == PHX_DTYPE_BF16 || dtype == PHX_DTYPE_MXFP4));
}

/* Few rows: the weights are what one waits for, so all multiprocessors should read. */
static struct cuda_matmul_choice pick_stream(int sm_count, const struct phx_weight_desc *w, int32_t n_rows)
{
    struct cuda_matmul_choice c = {.kernel = CUDA_MATMUL_STREAM};

    c.x_tiles = n_rows <= 8 ? 1 : n_rows <= 16 ? 2 : 4;
    c.row_tiles = c.x_tiles == 4 || divide_up(w->n, 32) >= 2 * (int64_t)sm_count ? 2 : 1;
    c.is_rounded_first = c.x_tiles > 1 || w->dtype == PHX_DTYPE_I8;
    return c;
}

struct cuda_matmul_choice phx_cuda_pick_matmul(enum phx_compute compute, bool is_fast, bool has_warpgroups, int sm_count,
                                               const struct phx_weight_desc *w, int32_t n_rows)
{
    struct cuda_matmul_choice c = {.is_rounded_first = true};

    if (!phx_cuda_is_rounded(compute, w->dtype))
        return (struct cuda_matmul_choice){.kernel = CUDA_MATMUL_FLOAT, .x_rows = n_rows == 1 ? 1 : 8};
    if (n_rows <= STREAM_ROWS_MAX)
        return pick_stream(sm_count, w, n_rows);
    if (is_fast && w->dtype == PHX_DTYPE_BF16 && n_rows >= LIBRARY_ROWS_MIN)
        c.kernel = CUDA_MATMUL_LIBRARY;
    else if (has_warpgroups && w->dtype != PHX_DTYPE_I8 && n_rows >= HOPPER_ROWS_MIN)
        c.kernel = CUDA_MATMUL_HOPPER;
    else if (w->n_slices == 1 && n_rows > SMALL_ROWS_MAX && divide_up(w->n, TILE) * divide_up(n_rows, TILE) >= sm_count)
        c.kernel = CUDA_MATMUL_TILE_LARGE;
    else
        c.kernel = CUDA_MATMUL_TILE;
    return c;
}

bool phx_cuda_pick_ends(const struct cuda_matmul_choice *c, const struct phx_weight_desc *w, int32_t n_rows)
{
    return c->kernel == CUDA_MATMUL_STREAM && !c->is_rounded_first && w->dtype == PHX_DTYPE_BF16 && n_rows <= ENDS_ROWS_MAX;
}

bool phx_cuda_pick_rope(const struct phx_kv_desc *kv)
{
    bool has_scales = kv->dtype != PHX_DTYPE_F32 && kv->dtype != PHX_DTYPE_BF16;

    return !has_scales && (kv->head_dim % PAIR_OUTPUTS == 0 || PAIR_OUTPUTS % kv->head_dim == 0);
}

const char *phx_cuda_matmul_kernel_name(enum cuda_matmul_kernel kernel)
{
    static const char *const names[] = {"", "float", "stream", "tile", "large tile", "hopper", "library"};

    return names[kernel];
}
