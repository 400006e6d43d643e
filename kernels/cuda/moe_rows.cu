/* SPDX-License-Identifier: Apache-2.0
 * What happens to whole rows between the products of a mixture: rounding, glu, joining. */
#include "kernels/cuda/moe.cuh"

enum { THREADS = 256 };

static unsigned count_blocks(int64_t items)
{
    return (unsigned)((items + THREADS - 1) / THREADS);
}

static __device__ inline int64_t this_item()
{
    return (int64_t)blockIdx.x * THREADS + (int64_t)threadIdx.x;
}

static __global__ void __launch_bounds__(THREADS) round_rows(const __grid_constant__ struct cuda_moe_round a)
{
    phx_begin();
    moe_round_item(a, this_item());
}

int phx_cuda_moe_round(cudaStream_t stream, const struct cuda_moe_round *a)
{
    int64_t items = (int64_t)a->n_rows * a->cut.n_blocks * MOE_BLOCK_CHUNKS;

    return PHX_LAUNCH(round_rows, count_blocks(items), THREADS, 0, stream, *a);
}

static __global__ void __launch_bounds__(THREADS) glu_rounded(const __grid_constant__ struct cuda_moe_glu a)
{
    phx_begin();
    int64_t item = this_item(), pair = item / (a.cut.n_blocks * MOE_BLOCK_CHUNKS);
    int32_t chunk = (int32_t)(item % (a.cut.n_blocks * MOE_BLOCK_CHUNKS));

    if (pair < a.n_pairs) {
        const float *gate = a.gate_up + pair * 2 * a.n, *up = gate + a.n;

        ((uint4 *)a.act)[item] =
            moe_round_chunk(a.cut, chunk / MOE_BLOCK_CHUNKS, chunk % MOE_BLOCK_CHUNKS,
                            [&a, gate, up](int32_t k) { return cuda_glu(gate[k], up[k], a.kind, a.limit); });
    }
}

static __global__ void __launch_bounds__(THREADS) glu_floats(const __grid_constant__ struct cuda_moe_glu a)
{
    phx_begin();
    int64_t item = this_item(), pair = item / a.n;
    int32_t i = (int32_t)(item % a.n);

    if (pair < a.n_pairs) {
        const float *gate = a.gate_up + pair * 2 * a.n + i;

        a.out[item] = cuda_glu(gate[0], gate[a.n], a.kind, a.limit);
    }
}

int phx_cuda_moe_glu(cudaStream_t stream, const struct cuda_moe_glu *a)
{
    if (a->act != NULL)
        return PHX_LAUNCH(glu_rounded, count_blocks((int64_t)a->n_pairs * a->cut.n_blocks * MOE_BLOCK_CHUNKS), THREADS, 0,
                          stream, *a);
    return PHX_LAUNCH(glu_floats, count_blocks((int64_t)a->n_pairs * a->n), THREADS, 0, stream, *a);
}

static __global__ void __launch_bounds__(THREADS) join_pairs(const __grid_constant__ struct cuda_moe_join a)
{
    phx_begin();
    int64_t item = this_item();
    int32_t t = (int32_t)(item / a.n), i = (int32_t)(item % a.n);

    if (t < a.n_rows)
        a.out[(int64_t)t * a.out_stride + i] = moe_join_output<false>(a, t, i);
}

int phx_cuda_moe_join(cudaStream_t stream, const struct cuda_moe_join *a)
{
    return PHX_LAUNCH(join_pairs, count_blocks((int64_t)a->n_rows * a->n), THREADS, 0, stream, *a);
}
