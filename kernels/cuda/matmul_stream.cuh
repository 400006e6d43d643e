/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: products of few rows, where reading the weights is what one waits for: a block of the grid owns 16 or
 * 32 outputs.  Its warps take the segments in turn, each with some blocks of 32 k in flight, and every weight goes straight from
 * memory into the registers of the one lane that needs it.  The segments' sums meet in shared memory, in order. */
#ifndef PHX_KERNELS_CUDA_MATMUL_STREAM_CUH
#define PHX_KERNELS_CUDA_MATMUL_STREAM_CUH

#include "kernels/cuda/matmul.cuh"

enum { WARPS_MAX = 8 };

/* Where a warp reads. */
template <int ROW_TILES> struct source {
    const struct cuda_product *a;
    const unsigned char       *w[ROW_TILES];
    int32_t                    x_tile; /* the first */
    int32_t                    k, k_end, block; /* of the segment: its first k, its slice's end, its first block */
    int                        lane;
};

/* Rows that a kernel of its own has rounded. */
struct rounded_rows {
    struct raw {
        uint4 v;
    };

    template <int ROW_TILES>
    static __device__ __forceinline__ void load(raw &r, const struct source<ROW_TILES> &from, int tile, int32_t block)
    {
        const struct cuda_product &a = *from.a;
        int32_t                    t = from.x_tile + tile;

        r.v = make_uint4(0, 0, 0, 0);
        if (t * CUDA_X_ROWS < a.n_rows)
            r.v = __ldca((const uint4 *)a.rounded + ((int64_t)t * a.w.cut.n_blocks + block) * PHX_WARP + from.lane);
    }

    static __device__ __forceinline__ void decode(uint32_t b[2][2], const raw &r)
    {
        b[0][0] = r.v.x;
        b[0][1] = r.v.y;
        b[1][0] = r.v.z;
        b[1][1] = r.v.w;
    }
};

/* Rows as they are. */
struct plain_rows {
    struct raw {
        float v[8];
    };

    template <int ROW_TILES>
    static __device__ __forceinline__ void load(raw &r, const struct source<ROW_TILES> &from, int tile, int32_t block)
    {
        const struct cuda_product &a = *from.a;
        int32_t                    row = (from.x_tile + tile) * CUDA_X_ROWS + from.lane / 4;
        int32_t                    k = from.k + (block - from.block) * CUDA_BLOCK_K + from.lane % 4 * 2;
        const float               *x = a.x + row * a.x_stride + k;

#pragma unroll
        for (int i = 0; i < 8; i++)
            r.v[i] = row < a.n_rows && k + i / 2 * 8 + i % 2 < from.k_end ? __ldca(x + i / 2 * 8 + i % 2) : 0.0f;
    }

    static __device__ __forceinline__ void decode(uint32_t b[2][2], const raw &r)
    {
#pragma unroll
        for (int i = 0; i < 4; i++)
            b[i / 2][i % 2] = phx_bf16_pair(r.v[2 * i], r.v[2 * i + 1]);
    }
};

/* One block of 32 k on its way. */
template <class W, class X, int ROW_TILES, int X_TILES> struct slot {
    typename W::raw w[ROW_TILES];
    typename X::raw x[X_TILES];

    __device__ __forceinline__ void load(const struct source<ROW_TILES> &from, int32_t block)
    {
#pragma unroll
        for (int m = 0; m < ROW_TILES; m++)
            W::load(w[m], from.w[m], block, from.lane);
#pragma unroll
        for (int t = 0; t < X_TILES; t++)
            X::load(x[t], from, t, block);
    }

    __device__ __forceinline__ void add(float acc[ROW_TILES][X_TILES][4]) const
    {
        uint32_t b[X_TILES][2][2];

#pragma unroll
        for (int t = 0; t < X_TILES; t++)
            X::decode(b[t], x[t]);
#pragma unroll
        for (int m = 0; m < ROW_TILES; m++) {
            uint32_t a[2][4];

            W::decode(a, w[m]);
#pragma unroll
            for (int t = 0; t < X_TILES; t++) {
                phx_mma_bf16(acc[m][t], a[0], b[t][0]);
                phx_mma_bf16(acc[m][t], a[1], b[t][1]);
            }
        }
    }
};

/* A warp's segment: the sums of its outputs and all rows, into part[row][output]. */
template <class W, class X, int ROW_TILES, int X_TILES>
static __device__ __forceinline__ void sum_segment(float *part, const struct source<ROW_TILES> &from,
                                                   const struct segment &s)
{
    enum { DEPTH = 2 * ROW_TILES + X_TILES <= 4 ? 4 : 2, STRIDE = part_of<ROW_TILES * 16>::STRIDE };
    float                           acc[ROW_TILES][X_TILES][4] = {};
    slot<W, X, ROW_TILES, X_TILES>  slots[DEPTH];
    int                             g = from.lane / 4, t = from.lane % 4;

#pragma unroll
    for (int i = 0; i < DEPTH; i++)
        if (s.first + i < s.end)
            slots[i].load(from, s.first + i);
    for (int32_t block = s.first; block < s.end; block += DEPTH)
#pragma unroll
        for (int i = 0; i < DEPTH; i++)
            if (block + i < s.end) {
                slots[i].add(acc);
                if (block + i + DEPTH < s.end)
                    slots[i].load(from, block + i + DEPTH);
            }
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
        for (int p = 0; p < X_TILES; p++)
#pragma unroll
            for (int c = 0; c < 4; c++)
                part[(p * 8 + t * 2 + c % 2) * STRIDE + m * 16 + c / 2 * 8 + g] = acc[m][p][c];
}

/* All of a block's outputs; they are in state behind the last barrier. */
template <class W, class X, int ROW_TILES, int X_TILES>
static __device__ __forceinline__ void stream_outputs(const struct cuda_product &a, const struct corner &at, float *part,
                                                      float *state)
{
    enum { OUTPUTS = ROW_TILES * 16, ROWS = X_TILES * 8, BLOCKS = segment_of<W>::BLOCKS,
           PART = ROWS * part_of<OUTPUTS>::STRIDE, IS_I8 = segment_of<W>::IS_I8 };
    int                      warp = (int)threadIdx.x / PHX_WARP;
    struct segment           round = first_segment(a.w.cut, BLOCKS), next;
    struct source<ROW_TILES> from;

    from.a = &a;
    from.x_tile = (int32_t)blockIdx.y * X_TILES;
    from.lane = (int)threadIdx.x % PHX_WARP;
    for (int m = 0; m < ROW_TILES; m++) {
        int32_t output = at.output + m * at.step;

        from.w[m] = a.w.data + (size_t)((output < a.w.n ? output : 0) / 16) * a.w.tile_bytes;
    }
    for (; round.slice < a.w.cut.n_slices; round = next) {
        struct segment      s = share_segment<BLOCKS>(a.w.cut, round, &next);
        struct cuda_block_k b = {0, 0, 0};

        if (s.first < s.end)
            b = cuda_find_block(a.w.cut, s.first);
        from.k = b.first;
        from.k_end = a.w.cut.k_end[s.slice];
        from.block = s.first;
        sum_segment<W, X, ROW_TILES, X_TILES>(part + warp * PART, from, s);
        __syncthreads();
        join_round<IS_I8, BLOCKS, OUTPUTS, ROWS>(a, at, round, part, state);
        __syncthreads();
    }
}

/* Floats of shared memory that stream_outputs() wants, and those of them that come before the state. */
template <int ROW_TILES, int X_TILES> static __host__ __device__ __forceinline__ size_t count_parts(int n_warps)
{
    return (size_t)n_warps * X_TILES * 8 * part_of<ROW_TILES * 16>::STRIDE;
}

template <int ROW_TILES, int X_TILES> static inline size_t count_shared_bytes(const struct cuda_product *a, int n_warps)
{
    return (count_parts<ROW_TILES, X_TILES>(n_warps) +
            (size_t)ROW_TILES * 16 * X_TILES * 8 * (a->w.cut.n_slices > 1 ? 1 + SLICE_LEVELS : 1)) * sizeof(float);
}

#endif
