/* SPDX-License-Identifier: Apache-2.0
 * Products in float32 that do nothing but multiply. */
#include "kernels/cuda/matmul_float.cuh"

template <class W, int ROWS>
static __global__ void __launch_bounds__(warps_of<ROWS>::MAX * PHX_WARP, 1) float_product(const struct cuda_product a)
{
    PHX_SHARED(float, shared);
    struct corner at = {(int32_t)blockIdx.x * CUDA_TILE_ROWS, (int32_t)blockIdx.y * ROWS, 0};

    ask_ahead<1>(a, at);
    phx_begin();
    float_outputs<W, ROWS>(a, at, shared);
}

template <class W, int ROWS> static int launch(cudaStream_t stream, const struct cuda_product *a)
{
    int  warps = count_warps(a->w.cut, FLOAT_BLOCKS, warps_of<ROWS>::MAX);
    dim3 grid(count_pieces(a->w.n, CUDA_TILE_ROWS), count_pieces(a->n_rows, ROWS));

    return PHX_LAUNCH((float_product<W, ROWS>), grid, (unsigned)(warps * PHX_WARP), count_float_bytes<ROWS>(a, warps), stream, *a);
}

template <class W> static int launch_rows(cudaStream_t stream, const struct cuda_product *a, int x_rows)
{
    return x_rows == 1 ? launch<W, 1>(stream, a) : launch<W, 8>(stream, a);
}

int phx_cuda_matmul_float(cudaStream_t stream, const struct cuda_product *a, int x_rows)
{
    switch (a->w.dtype) {
    case PHX_DTYPE_F32: return launch_rows<cuda_f32>(stream, a, x_rows);
    case PHX_DTYPE_F16: return launch_rows<cuda_f16>(stream, a, x_rows);
    case PHX_DTYPE_MXFP4: return launch_rows<cuda_mxfp4>(stream, a, x_rows);
    default: return launch_rows<cuda_bf16>(stream, a, x_rows);
    }
}
