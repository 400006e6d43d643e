/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/pick_moe.h"

enum {
    SLICES_BYTES = 256 << 20, /* of the pairs of one pass: 704 rows of gpt-oss */
    ROWS_STEP = 64,
    STREAM_PAIRS_MAX = 16,
    HOPPER_EACH_MIN = 11, /* predicted, not measured: from here on the stream kernel has no tile for an expert's pairs */
    HOPPER_PAIRS = 64,
    FLOAT_PAIRS = 16,
    CHOOSING_ROWS_MAX = 64, /* whose experts one block chooses, with a warp for each of 32 experts ... */
    ROUTER_ROWS_MAX = 16,   /* ... and with the 8 warps of a product; all predicted, not measured */
    FINISH_ROWS_MAX = 8     /* an output for each thread */
};

static int32_t min_i32(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

/* Experts get at least as many pairs as this on the average of those that get any. */
static int32_t count_each(int32_t n_pairs, int32_t n_experts)
{
    int32_t active = min_i32(n_pairs, n_experts);

    return active > 0 ? (n_pairs + active - 1) / active : 0;
}

/* Routing is uneven: room for half as many again, so that most experts have one tile and are read once. */
static int32_t pick_tile_pairs(int32_t each)
{
    return each <= 5 ? 8 : each <= 10 ? 16 : each <= 20 ? 32 : 64;
}

static bool is_rounded(enum phx_dtype dtype)
{
    return dtype == PHX_DTYPE_BF16 || dtype == PHX_DTYPE_MXFP4;
}

/* Both halves begin at a row tile, and no slice of the down product has padding that somebody must clear. */
static bool can_fuse(const struct phx_weight_desc *down)
{
    for (int32_t s = 0; s < down->n_slices; s++)
        if (down->slice_end[s] % CUDA_MOE_BLOCK_K != 0)
            return false;
    return true;
}

struct cuda_moe_choice phx_cuda_pick_moe(enum phx_compute compute, bool is_fast, bool has_warpgroups,
                                         const struct phx_weight_desc *gate_up, const struct phx_weight_desc *down,
                                         int32_t n_pairs)
{
    int32_t each = count_each(n_pairs, gate_up->n_experts), tile_pairs = pick_tile_pairs(each);

    if (compute != PHX_COMPUTE_BF16 || !is_rounded(gate_up->dtype) || !is_rounded(down->dtype))
        return (struct cuda_moe_choice){CUDA_MOE_FLOAT, FLOAT_PAIRS, false, false};
    if (has_warpgroups && each >= HOPPER_EACH_MIN && can_fuse(down))
        return (struct cuda_moe_choice){CUDA_MOE_HOPPER, HOPPER_PAIRS, true, is_fast && down->n_slices > 1};
    return (struct cuda_moe_choice){.kernel = tile_pairs <= STREAM_PAIRS_MAX ? CUDA_MOE_STREAM : CUDA_MOE_TILE,
                                    .tile_pairs = tile_pairs,
                                    .is_fused = can_fuse(down),
                                    .is_joined = is_fast && down->n_slices > 1};
}

bool phx_cuda_pick_choosing(const struct cuda_moe_choice *c, int32_t n_rows)
{
    return c->kernel == CUDA_MOE_STREAM && n_rows <= CHOOSING_ROWS_MAX;
}

bool phx_cuda_pick_router(const struct cuda_moe_choice *c, const struct phx_weight_desc *router, int32_t n_rows)
{
    return c->kernel == CUDA_MOE_STREAM && router->dtype == PHX_DTYPE_F32 && router->n <= CUDA_ROUTER_EXPERTS_MAX &&
           n_rows <= ROUTER_ROWS_MAX;
}

bool phx_cuda_pick_finish(const struct cuda_moe_choice *c, int32_t n_rows)
{
    return c->kernel == CUDA_MOE_STREAM && n_rows <= FINISH_ROWS_MAX;
}

const char *phx_cuda_moe_kernel_name(enum cuda_moe_kernel kernel)
{
    static const char *const names[] = {"", "float", "stream", "tile", "hopper"};

    return names[kernel];
}

int32_t phx_cuda_pick_moe_rows(const struct phx_weight_desc *down, bool is_joined, int32_t max_rows, int32_t top_k)
{
    int64_t row_bytes = (int64_t)top_k * (is_joined ? 1 : down->n_slices) * down->n * (int64_t)sizeof(float);
    int64_t rows = SLICES_BYTES / row_bytes;

    rows = rows * top_k > CUDA_MOE_PAIRS_MAX ? CUDA_MOE_PAIRS_MAX / top_k : rows;
    rows = rows > ROWS_STEP ? rows / ROWS_STEP * ROWS_STEP : rows > 1 ? rows : 1;
    return rows < max_rows ? (int32_t)rows : max_rows;
}

int32_t phx_cuda_moe_tiles_max(int32_t n_pairs, int32_t n_experts, int32_t tile_pairs)
{
    int32_t active = min_i32(n_pairs, n_experts);

    return active + (n_pairs - active) / tile_pairs;
}
