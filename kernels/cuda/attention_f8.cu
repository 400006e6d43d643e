/* SPDX-License-Identifier: Apache-2.0
 * Attention on tensor cores over a cache of E4M3 with scales. */
#include "kernels/cuda/attention_tiles.cuh"

extern "C" int phx_cuda_attend_f8(cudaStream_t stream, const struct cuda_attention *a, int32_t dim)
{
    return launch_kind<CUDA_KV_F8>(stream, a, dim);
}
