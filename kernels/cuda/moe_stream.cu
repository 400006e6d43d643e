/* SPDX-License-Identifier: Apache-2.0
 * Products of few pairs that do nothing but multiply. */
#include "kernels/cuda/moe_stream.cuh"

template <class W, int PAIR_TILES>
static __global__ void __launch_bounds__(WARPS_MAX *PHX_WARP, PAIR_TILES == 1 ? (int)stream_plan<W>::RESIDENT : 2)
    stream_tiles(const __grid_constant__ struct cuda_moe_product a)
{
    phx_begin();
    __shared__ struct stream_shared<PAIR_TILES> shared;

    if ((int32_t)blockIdx.y < *a.n_tiles)
        stream_tile<W, PAIR_TILES>(a, shared);
}

template <class W>
static int launch(cudaStream_t stream, const struct cuda_moe_product *a, unsigned threads)
{
    dim3 grid((unsigned)((a->act != NULL ? a->w.n / 2 + 15 : a->w.n + ROWS - 1) / (a->act != NULL ? 16 : ROWS)),
              (unsigned)a->tiles_max);

    if (a->tile_pairs == 8)
        return PHX_LAUNCH((stream_tiles<W, 1>), grid, threads, 0, stream, *a);
    return PHX_LAUNCH((stream_tiles<W, 2>), grid, threads, 0, stream, *a);
}

int phx_cuda_moe_stream(cudaStream_t stream, const struct cuda_moe_product *a)
{
    int32_t segments = 0, begin = 0;

    for (int32_t s = 0; s < a->w.cut.n_slices; s++) {
        int32_t n = (a->w.cut.block_end[s] - begin + CUDA_MOE_SEGMENT_BLOCKS - 1) / CUDA_MOE_SEGMENT_BLOCKS;

        segments += n > 0 ? n : 1;
        begin = a->w.cut.block_end[s];
    }
    if (segments > WARPS_MAX)
        segments = WARPS_MAX;
    if (a->w.dtype == PHX_DTYPE_MXFP4)
        return launch<cuda_mxfp4>(stream, a, (unsigned)segments * PHX_WARP);
    return launch<cuda_bf16>(stream, a, (unsigned)segments * PHX_WARP);
}
