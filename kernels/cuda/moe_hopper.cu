/* SPDX-License-Identifier: Apache-2.0
 * Products of many pairs per expert on warpgroups: 256 outputs of a tile of 64 pairs at a time, one tile after the other, all
 * outputs of a tile before the next tile.  Activations lie in slots: those of a tile begin at a multiple of 8. */
#include "kernels/cuda/hopper_tile.cuh"
#include "kernels/cuda/moe.cuh"

enum { ROUND_THREADS = 256, M_TILES = 2, PAIRS = CUDA_MOE_HOPPER_PAIRS, CHUNK_K = 8, ATOM_CHUNKS = PHX_ATOM_K / CHUNK_K };

/* Behind the tiles before, whose pairs are fewer than tile.first and whose padding is less than 8 each. */
static __device__ __forceinline__ int32_t find_slot(const struct cuda_moe_tile &tile, int32_t index)
{
    return (tile.first + PHX_ATOM_ROWS - 1) / PHX_ATOM_ROWS * PHX_ATOM_ROWS + index * PHX_ATOM_ROWS;
}

static __host__ __device__ __forceinline__ int32_t round_up_rows(int32_t n)
{
    return (n + PHX_ATOM_ROWS - 1) / PHX_ATOM_ROWS * PHX_ATOM_ROWS;
}

/* ---- activations ----------------------------------------------------------------------------- */

/* A thread rounds a chunk of a pair's row; slots behind a tile's last pair are zeros. */
static __global__ void __launch_bounds__(ROUND_THREADS) gather_pairs(const __grid_constant__ struct cuda_moe_gather a)
{
    phx_begin();
    int32_t item = (int32_t)(blockIdx.x * ROUND_THREADS + threadIdx.x), n_chunks = (a.cut.n_blocks + 1) / 2 * ATOM_CHUNKS;
    int32_t pair = item / n_chunks, chunk = item % n_chunks, slot;

    if ((int32_t)blockIdx.y >= *a.n_tiles)
        return;
    struct cuda_moe_tile tile = a.tiles[blockIdx.y];

    if (pair >= round_up_rows(tile.n))
        return;
    slot = find_slot(tile, (int32_t)blockIdx.y) + pair;
    ((uint4 *)a.out)[((int64_t)(chunk / ATOM_CHUNKS) * a.n_slots + slot) * ATOM_CHUNKS +
                     phx_swizzle_chunk(slot, chunk % ATOM_CHUNKS)] =
        hopper_round_chunk(a.cut, chunk, a.x + (pair < tile.n ? a.row[tile.first + pair] : 0) * a.x_stride, pair < tile.n);
}

int phx_cuda_moe_gather(cudaStream_t stream, const struct cuda_moe_gather *a)
{
    int64_t chunks = (int64_t)PAIRS * ((a->cut.n_blocks + 1) / 2 * ATOM_CHUNKS);
    dim3    grid((unsigned)((chunks + ROUND_THREADS - 1) / ROUND_THREADS), (unsigned)a->tiles_max);

    return PHX_LAUNCH(gather_pairs, grid, ROUND_THREADS, 0, stream, *a);
}

/* ---- products -------------------------------------------------------------------------------- */

/* IS_GLU: product 0 of a warp has gate rows, product 1 the up rows that go with them. */
template <class S, bool IS_GLU> struct moe_job {
    enum { ADDS_TO_ZERO = 1 };
    struct cuda_weight_view     w;
    struct cuda_atoms           x;
    const struct cuda_moe_tile *tiles;
    const int32_t              *n_tiles;
    const float                *bias;
    int64_t                     bias_stride;
    float                      *out; /* [pairs][n_slices][n] */
    unsigned char              *act; /* atoms of act_atom_bytes */
    size_t                      act_atom_bytes;
    int32_t                     n_output_groups;
    enum phx_glu                kind;
    float                       limit;

    __device__ __forceinline__ int32_t n_pieces() const
    {
        return n_output_groups * *n_tiles;
    }

    __device__ __forceinline__ struct hopper_piece find_piece(int32_t i) const
    {
        struct cuda_moe_tile tile = tiles[i / n_output_groups];

        return {tile.expert, i % n_output_groups, find_slot(tile, i / n_output_groups), round_up_rows(tile.n), tile.first, tile.n};
    }

    __device__ __forceinline__ int32_t find_tile(const struct hopper_piece &p, int slot) const
    {
        int32_t half = w.n / 2 / CUDA_TILE_ROWS, unit = p.output_group * (S::ROW_TILES / 2) + slot / 2;
        int32_t tile = p.output_group * S::ROW_TILES + slot;

        if (IS_GLU)
            return unit < half ? unit + slot % 2 * half : -1;
        return tile * CUDA_TILE_ROWS < w.n ? tile : -1;
    }

    __device__ __forceinline__ float find_bias(int32_t expert, int32_t row) const
    {
        return bias != NULL ? bias[expert * bias_stride + row] : 0.0f;
    }

    __device__ __forceinline__ void end_slice(const struct hopper_piece &p, int32_t slice, struct hopper_sums<S> &v) const
    {
        if (!IS_GLU)
            write_slice(p, slice, v);
    }

    __device__ __forceinline__ void end_piece(const struct hopper_piece &p, struct hopper_sums<S> &v) const
    {
        int32_t unit = p.output_group * (S::ROW_TILES / 2) + (int32_t)threadIdx.x / PHX_WARP;

        if (IS_GLU && unit * CUDA_TILE_ROWS < w.n / 2)
            write_act(p, unit, v);
    }

    __device__ __forceinline__ void write_slice(const struct hopper_piece &p, int32_t slice, const struct hopper_sums<S> &v) const
    {
        int32_t tile = p.output_group * S::ROW_TILES + (int32_t)threadIdx.x / PHX_WARP * S::M_TILES;

#pragma unroll
        for (int i = 0; i < S::SUMS / 2; i++) {
            int32_t pair = hopper_row_of(i / 2 * 4 + i % 2);
            float  *to = out + ((int64_t)(p.first + pair) * w.cut.n_slices + slice) * w.n;

            if (pair >= p.n)
                continue;
#pragma unroll
            for (int m = 0; m < S::M_TILES; m++)
#pragma unroll
                for (int c = 0; c < 4; c += 2) {
                    int32_t row = (tile + m) * CUDA_TILE_ROWS + hopper_output_of(c);

                    if (row < w.n)
                        to[row] = v.slice[m][i / 2 * 4 + c + i % 2];
                }
        }
    }

    __device__ __forceinline__ void write_act(const struct hopper_piece &p, int32_t unit, const struct hopper_sums<S> &v) const
    {
#pragma unroll
        for (int c = 0; c < 4; c += 2) {
            int32_t        f = unit * CUDA_TILE_ROWS + hopper_output_of(c);
            float          gate_bias = find_bias(p.expert, f), up_bias = find_bias(p.expert, w.n / 2 + f);
            unsigned char *to = act + (size_t)(f / PHX_ATOM_K) * act_atom_bytes + f % CHUNK_K * 2;

#pragma unroll
            for (int i = 0; i < S::SUMS / 2; i++) {
                int     at = i / 2 * 4 + c + i % 2;
                int32_t pair = hopper_row_of(at), slot = p.x_first + pair;

                if (pair < p.n)
                    *(uint16_t *)(void *)(to + (size_t)slot * CUDA_HOPPER_ROW_BYTES +
                                          phx_swizzle_chunk(slot, f % PHX_ATOM_K / CHUNK_K) * 16) =
                        phx_bf16_bits(cuda_glu(__fadd_rn(v.slice[0][at], gate_bias), __fadd_rn(v.slice[1][at], up_bias), kind, limit));
            }
        }
    }
};

template <class S, bool IS_GLU>
static __global__ void __launch_bounds__(HOPPER_THREADS, 1) multiply_tiles(const __grid_constant__ moe_job<S, IS_GLU> job)
{
    phx_begin();
    PHX_SHARED(unsigned char, shared);

    hopper_run<S>(job, shared);
}

template <class S, bool IS_GLU> static int launch(cudaStream_t stream, const struct cuda_moe_product *a, int32_t n_blocks)
{
    moe_job<S, IS_GLU> job = {};
    int64_t            pieces;

    job.w = a->w;
    job.x.data = (const unsigned char *)a->x;
    job.x.atom_bytes = (size_t)a->x_stride * CUDA_HOPPER_ROW_BYTES;
    job.tiles = a->tiles;
    job.n_tiles = a->n_tiles;
    job.bias = a->bias;
    job.bias_stride = a->bias_stride;
    job.out = a->out;
    job.act = (unsigned char *)a->act;
    job.act_atom_bytes = (size_t)a->act_stride * CUDA_HOPPER_ROW_BYTES;
    job.n_output_groups = (a->w.n + S::OUTPUTS - 1) / S::OUTPUTS;
    job.kind = a->kind;
    job.limit = a->limit;
    pieces = (int64_t)job.n_output_groups * a->tiles_max;
    return PHX_LAUNCH((multiply_tiles<S, IS_GLU>), (unsigned)(pieces < n_blocks ? pieces : n_blocks), HOPPER_THREADS,
                      hopper_shared_bytes<S>(), stream, job);
}

template <class W> static int launch_weight(cudaStream_t stream, const struct cuda_moe_product *a, int32_t n_blocks)
{
    return a->act != NULL ? launch<hopper_shape<W, M_TILES, PAIRS, 0>, true>(stream, a, n_blocks)
                          : launch<hopper_shape<W, M_TILES, PAIRS, 0>, false>(stream, a, n_blocks);
}

int phx_cuda_moe_hopper(cudaStream_t stream, const struct cuda_moe_product *a, int32_t n_blocks)
{
    return a->w.dtype == PHX_DTYPE_MXFP4 ? launch_weight<cuda_mxfp4>(stream, a, n_blocks)
                                         : launch_weight<cuda_bf16>(stream, a, n_blocks);
}
