/* SPDX-License-Identifier: Apache-2.0
 * Products of few rows that do nothing but multiply. */
#include "kernels/cuda/matmul_stream.cuh"

template <class W, class X, int ROW_TILES, int X_TILES>
static __global__ void __launch_bounds__(WARPS_MAX *PHX_WARP, 2) stream_product(const struct cuda_product a)
{
    PHX_SHARED(float, part);
    struct corner at = {(int32_t)blockIdx.x * ROW_TILES * 16, (int32_t)blockIdx.y * X_TILES * 8, CUDA_TILE_ROWS};

    ask_ahead<ROW_TILES>(a, at);
    phx_begin();
    stream_outputs<W, X, ROW_TILES, X_TILES>(a, at, part,
                                             part + count_parts<ROW_TILES, X_TILES>((int)blockDim.x / PHX_WARP));
}

template <class W, class X, int ROW_TILES, int X_TILES> static int launch(cudaStream_t stream, const struct cuda_product *a)
{
    int  warps = count_warps(a->w.cut, segment_of<W>::BLOCKS, WARPS_MAX);
    dim3 grid(count_pieces(a->w.n, ROW_TILES * 16), count_pieces(a->n_rows, X_TILES * 8));

    return PHX_LAUNCH((stream_product<W, X, ROW_TILES, X_TILES>), grid, (unsigned)(warps * PHX_WARP),
                      (count_shared_bytes<ROW_TILES, X_TILES>(a, warps)), stream, *a);
}

template <class W> static int launch_rounded(cudaStream_t stream, const struct cuda_product *a, int row_tiles, int x_tiles)
{
    if (x_tiles == 4)
        return launch<W, rounded_rows, 2, 4>(stream, a);
    if (x_tiles == 2)
        return row_tiles == 2 ? launch<W, rounded_rows, 2, 2>(stream, a) : launch<W, rounded_rows, 1, 2>(stream, a);
    return row_tiles == 2 ? launch<W, rounded_rows, 2, 1>(stream, a) : launch<W, rounded_rows, 1, 1>(stream, a);
}

template <class W> static int launch_any(cudaStream_t stream, const struct cuda_product *a, int row_tiles, int x_tiles)
{
    if (a->x == NULL)
        return launch_rounded<W>(stream, a, row_tiles, x_tiles);
    return row_tiles == 2 ? launch<W, plain_rows, 2, 1>(stream, a) : launch<W, plain_rows, 1, 1>(stream, a);
}

int phx_cuda_matmul_stream(cudaStream_t stream, const struct cuda_product *a, int row_tiles, int x_tiles)
{
    if (a->w.dtype == PHX_DTYPE_I8)
        return launch_rounded<cuda_i8>(stream, a, row_tiles, x_tiles);
    if (a->w.dtype == PHX_DTYPE_MXFP4)
        return launch_any<cuda_mxfp4>(stream, a, row_tiles, x_tiles);
    return launch_any<cuda_bf16>(stream, a, row_tiles, x_tiles);
}
