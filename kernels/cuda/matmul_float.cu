/* SPDX-License-Identifier: Apache-2.0
 * Products in float32 for weights of every kind: a block of the grid owns 16 outputs of one or eight rows; its warps take
 * the segments in turn.  A lane has the elements that the tile gives it: two outputs, an eighth of the k of a block. */
#include "kernels/cuda/matmul.cuh"

enum { BLOCKS = CUDA_FLOAT_SEGMENT_BLOCKS, STRIDE = part_of<CUDA_TILE_ROWS>::STRIDE };

/* Warps of a block of the grid: what eight rows need of registers leaves room for eight. */
template <int ROWS> struct warps_of {
    enum { MAX = ROWS == 1 ? 16 : 8 };
};

/* Eight floats of a row in a block, those of the lane; n: how many k there are from the lane's first on. */
static __device__ __forceinline__ void load_x(float v[8], const float *x, int n)
{
#pragma unroll
    for (int i = 0; i < 8; i++)
        v[i] = i / 2 * 8 + i % 2 < n ? __ldca(x + i / 2 * 8 + i % 2) : 0.0f;
}

/* The lane's sums of a segment. */
template <class W, int ROWS>
static __device__ __forceinline__ void sum_blocks(float acc[ROWS][2], const struct cuda_product &a,
                                                  const unsigned char *tile, const struct segment &s, int32_t row)
{
    int             lane = (int)threadIdx.x % PHX_WARP, t = lane % 4;
    int32_t         k_end = a.w.cut.k_end[s.slice], k = s.first < s.end ? cuda_find_block(a.w.cut, s.first).first : 0;
    typename W::raw raw[BLOCKS];

#pragma unroll
    for (int i = 0; i < BLOCKS; i++)
        if (s.first + i < s.end)
            W::load(raw[i], tile, s.first + i, lane);
#pragma unroll
    for (int i = 0; i < BLOCKS; i++, k += CUDA_BLOCK_K)
        if (s.first + i < s.end) {
            float w[16];

            W::floats(w, raw[i]);
#pragma unroll
            for (int r = 0; r < ROWS; r++) {
                int32_t x_row = row + r < a.n_rows ? row + r : row; /* what is not there is not written */
                float   x[8];

                load_x(x, a.x + x_row * a.x_stride + k + t * 2, k_end - k - t * 2);
#pragma unroll
                for (int e = 0; e < 16; e++)
                    acc[r][e / 2 % 2] = __fmaf_rn(w[e], x[e / 4 * 2 + e % 2], acc[r][e / 2 % 2]);
            }
        }
}

template <class W, int ROWS>
static __global__ void __launch_bounds__(warps_of<ROWS>::MAX * PHX_WARP, 1) float_product(const struct cuda_product a)
{
    struct corner at = {(int32_t)blockIdx.x * CUDA_TILE_ROWS, (int32_t)blockIdx.y * ROWS, 0};

    ask_ahead<1>(a, at);
    phx_begin();
    PHX_SHARED(float, part);
    int                  lane = (int)threadIdx.x % PHX_WARP, warp = (int)threadIdx.x / PHX_WARP;
    float               *state = part + (int)blockDim.x / PHX_WARP * ROWS * STRIDE;
    const unsigned char *tile = a.w.data + (size_t)blockIdx.x * a.w.tile_bytes;
    struct segment       round = first_segment(a.w.cut, BLOCKS), next;

    for (; round.slice < a.w.cut.n_slices; round = next) {
        struct segment s = share_segment<BLOCKS>(a.w.cut, round, &next);
        float          acc[ROWS][2] = {};

        sum_blocks<W, ROWS>(acc, a, tile, s, at.row);
#pragma unroll
        for (int i = 0; i < ROWS * 2; i++) {
            float v = acc[i / 2][i % 2];

            v = __fadd_rn(v, phx_shfl_xor(v, 1));
            v = __fadd_rn(v, phx_shfl_xor(v, 2));
            if (lane % 4 == i % 4)
                part[(warp * ROWS + i / 2) * STRIDE + i % 2 * 8 + lane / 4] = v;
        }
        __syncthreads();
        join_round<false, BLOCKS, CUDA_TILE_ROWS, ROWS>(a, at, round, part, state);
        __syncthreads();
    }
}

template <class W, int ROWS> static int launch(cudaStream_t stream, const struct cuda_product *a)
{
    int    warps = count_warps(a->w.cut, BLOCKS, warps_of<ROWS>::MAX);
    dim3   grid(count_pieces(a->w.n, CUDA_TILE_ROWS), count_pieces(a->n_rows, ROWS));
    size_t shared = ((size_t)warps * ROWS * STRIDE +
                     (size_t)CUDA_TILE_ROWS * ROWS * (a->w.cut.n_slices > 1 ? 1 + SLICE_LEVELS : 1)) * sizeof(float);

    return PHX_LAUNCH((float_product<W, ROWS>), grid, (unsigned)(warps * PHX_WARP), shared, stream, *a);
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
