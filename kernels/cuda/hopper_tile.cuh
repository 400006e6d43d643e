/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: the loop of the products on warpgroups (warpgroup.cuh).  Blocks of the grid stay and take one piece of
 * the result after the other: one warp brings weights and activations into a ring in shared memory by bulk copies, 64 k at a
 * time, two warpgroups multiply.
 *
 * Weights are the a operand, from registers.  Warp w of a warpgroup has rows 16 w to 16 w + 15 of an m64 product, in the lanes of
 * an m16 product of one warp: a row tile of weight.h per warp, whose bytes lie as the lanes want them.  Activations are the b
 * operand, in rows of 64 k as warpgroup.cuh wants them, in global memory already (struct cuda_atoms), so that a stage is one
 * copy.
 *
 * Sums are in the order of matmul.h: a segment of 512 k is one accumulator, 16 k after 16 k. */
#ifndef PHX_KERNELS_CUDA_HOPPER_TILE_CUH
#define PHX_KERNELS_CUDA_HOPPER_TILE_CUH

#include "kernels/cuda/warpgroup.cuh"

#include "kernels/cuda/hopper.h"
#include "kernels/cuda/matmul.cuh"

enum {
    HOPPER_CONSUMERS = 2, /* warpgroups that multiply */
    HOPPER_WARPS = HOPPER_CONSUMERS * 4,
    HOPPER_THREADS = (HOPPER_CONSUMERS + 1) * PHX_WARPGROUP, /* three warps of the last have nothing to do */
    HOPPER_REGISTERS = 240, /* of a thread that multiplies, and of one that does not: together three times 168, the start */
    HOPPER_REGISTERS_COPY = 24,
    HOPPER_STAGE_BLOCKS = PHX_ATOM_K / CUDA_BLOCK_K,
    HOPPER_STAGES_MAX = 8,
    HOPPER_SHARED_BYTES = 200 << 10, /* of the ring; a block of the grid has a multiprocessor for itself */
    HOPPER_BARRIERS_BYTES = 2 * HOPPER_STAGES_MAX * 8
};

/* The shape of a piece: M_TILES x 128 outputs and X_ROWS rows.  LEVELS: sums of slices that wait in registers. */
template <class W_, int M_TILES_, int X_ROWS_, int LEVELS_> struct hopper_shape {
    typedef W_ W;
    enum {
        M_TILES = M_TILES_,
        X_ROWS = X_ROWS_,
        LEVELS = LEVELS_,
        SUMS = X_ROWS / 2, /* of a lane, of one product of 64 outputs */
        ROW_TILES = M_TILES * HOPPER_WARPS,
        OUTPUTS = ROW_TILES * CUDA_TILE_ROWS,
        W_BYTES = HOPPER_STAGE_BLOCKS * W::BLOCK_BYTES, /* of a row tile and a stage */
        X_BYTES = X_ROWS * PHX_ATOM_K * 2,
        STAGE_BYTES = (X_BYTES + ROW_TILES * W_BYTES + PHX_ATOM_BYTES - 1) / PHX_ATOM_BYTES * PHX_ATOM_BYTES,
        FIT = HOPPER_SHARED_BYTES / STAGE_BYTES,
        STAGES = FIT < HOPPER_STAGES_MAX ? FIT : HOPPER_STAGES_MAX
    };
};

template <class S> struct hopper_sums {
    float segment[S::M_TILES][S::SUMS], slice[S::M_TILES][S::SUMS];
    float waiting[S::LEVELS > 0 ? S::LEVELS : 1][S::SUMS]; /* with LEVELS M_TILES is 1 */
};

/* Stages of the ring, and whose turn it is: full, when its bytes are there, empty, when all warps have read them. */
struct hopper_ring {
    unsigned char *stages;
    uint64_t      *full, *empty;
    int            stage;
    uint32_t       parity; /* of the ring's round */
};

template <class S> static __device__ __forceinline__ void hopper_advance(struct hopper_ring &r)
{
    if (++r.stage == S::STAGES) {
        r.stage = 0;
        r.parity ^= 1u;
    }
}

/* A piece of the result.  x_first is a multiple of 8 rows, and so is x_rows. */
struct hopper_piece {
    int32_t expert, output_group, x_first, x_rows;
    int32_t first, n; /* what the x_rows are rows or pairs of, and how many of them are there */
};

/* Row tile `slot` of a warp w and a product m is slot w * M_TILES + m.  A job has
 *   n_pieces(), find_piece(i), find_tile(piece, slot)   its row tile, or -1: none there
 *   end_slice(piece, slice, sums), end_piece(piece, sums)
 *   w, x   the weight and the activations, ADDS_TO_ZERO  whether a slice begins with 0 + segment or with segment */
template <class S, class J>
static __device__ __forceinline__ void hopper_produce(const J &job, struct hopper_ring r)
{
    int  lane = (int)threadIdx.x % PHX_WARP;
    bool is_primed = false; /* the ring was full once */

    for (int32_t i = (int32_t)blockIdx.x; i < job.n_pieces(); i += (int32_t)gridDim.x) {
        struct hopper_piece   p = job.find_piece(i);
        int32_t              tile = lane < S::ROW_TILES ? job.find_tile(p, lane) : -1;
        uint32_t             x_bytes = (uint32_t)p.x_rows * (PHX_ATOM_K * 2);
        uint32_t             n_tiles = (uint32_t)__popc(phx_ballot(tile >= 0));
        const unsigned char *w = job.w.data + (size_t)p.expert * job.w.expert_bytes + (size_t)max(tile, 0) * job.w.tile_bytes;
        const unsigned char *x = job.x.data + (size_t)p.x_first * (PHX_ATOM_K * 2);

        for (int32_t block = 0; block < job.w.cut.n_blocks; block += HOPPER_STAGE_BLOCKS) {
            unsigned char *stage = r.stages + r.stage * S::STAGE_BYTES;
            uint32_t       bytes = (uint32_t)(min(job.w.cut.n_blocks - block, (int32_t)HOPPER_STAGE_BLOCKS) * S::W::BLOCK_BYTES);

            if (is_primed)
                phx_barrier_wait(r.empty + r.stage, r.parity ^ 1u);
            if (lane == 0)
                phx_barrier_expect(r.full + r.stage, x_bytes + n_tiles * bytes);
            __syncwarp();
            if (tile >= 0)
                phx_bulk_copy(stage + S::X_BYTES + lane * S::W_BYTES, w + (size_t)block * S::W::BLOCK_BYTES, bytes,
                              r.full + r.stage);
            if (lane == PHX_WARP - 1)
                phx_bulk_copy(stage, x + (size_t)(block / HOPPER_STAGE_BLOCKS) * job.x.atom_bytes, x_bytes, r.full + r.stage);
            is_primed = is_primed || r.stage == S::STAGES - 1;
            hopper_advance<S>(r);
        }
    }
}

/* A segment's sums join its slice's. */
template <class S, bool ADDS_TO_ZERO>
static __device__ __forceinline__ void hopper_end_segment(struct hopper_sums<S> &v, const struct segment &s)
{
    bool is_empty = s.end == s.first;

#pragma unroll
    for (int m = 0; m < S::M_TILES; m++)
#pragma unroll
        for (int i = 0; i < S::SUMS; i++) {
            float part = is_empty ? 0.0f : v.segment[m][i];

            if (ADDS_TO_ZERO)
                v.slice[m][i] = __fadd_rn(s.starts_slice ? 0.0f : v.slice[m][i], part);
            else
                v.slice[m][i] = s.starts_slice ? part : __fadd_rn(v.slice[m][i], part);
        }
}

/* A complete slice joins those that wait; what comes out waits, but for the last (matmul.cuh). */
template <class S> static __device__ __forceinline__ void hopper_join_slice(struct hopper_sums<S> &v, int32_t slice, int32_t n_slices)
{
    int waiting = waiting_count(slice), left = waiting - merge_count(slice, n_slices);

#pragma unroll
    for (int level = S::LEVELS - 1; level >= 0; level--)
        if (level < waiting && level >= left) {
#pragma unroll
            for (int i = 0; i < S::SUMS; i++)
                v.slice[0][i] = __fadd_rn(v.waiting[level][i], v.slice[0][i]);
        }
#pragma unroll
    for (int level = 0; level < S::LEVELS; level++)
        if (level == left) {
#pragma unroll
            for (int i = 0; i < S::SUMS; i++)
                v.waiting[level][i] = v.slice[0][i];
        }
}

/* All segments that end at this block. */
template <class S, class J>
static __device__ __forceinline__ void hopper_end_block(const J &job, const struct hopper_piece &p, struct hopper_sums<S> &v,
                                                       struct segment &s, int32_t block)
{
    while (s.slice < job.w.cut.n_slices && s.end == block) {
        hopper_end_segment<S, (bool)J::ADDS_TO_ZERO>(v, s);
        if (s.ends_slice) {
            if (S::LEVELS > 0)
                hopper_join_slice<S>(v, s.slice, job.w.cut.n_slices);
            job.end_slice(p, s.slice, v);
        }
        s = next_segment(job.w.cut, CUDA_SEGMENT_BLOCKS, s);
    }
}

/* The operands of a block of 32 k. */
template <class S> struct hopper_operands {
    uint32_t a[S::M_TILES][2][4];
};

/* The sums of the first columns. */
template <int n, int all> static __device__ __forceinline__ float (&hopper_first(float (&sums)[all]))[n]
{
    return *reinterpret_cast<float(*)[n]>(&sums);
}

/* A group of products: both steps of 16 k of a block. */
template <class S, int COLUMNS>
static __device__ __forceinline__ void hopper_start(struct hopper_sums<S> &v, const struct hopper_operands<S> &o,
                                                    const unsigned char *stage, int half, bool starts_segment)
{
    phx_wgmma_fence();
#pragma unroll
    for (int step = 0; step < 2; step++) {
        uint64_t b = phx_wgmma_b(stage, half * 2 + step);

#pragma unroll
        for (int m = 0; m < S::M_TILES; m++)
            phx_wgmma(hopper_first<COLUMNS / 2>(v.segment[m]), o.a[m][step], b, !starts_segment || step > 0);
    }
    phx_wgmma_commit();
}

/* Half `half` of a stage; of a short piece half the columns. */
template <class S>
static __device__ __forceinline__ void hopper_add_block(struct hopper_sums<S> &v, struct hopper_operands<S> &o,
                                                        const unsigned char *stage, int half, bool starts_segment, bool is_short)
{
    int warp = (int)threadIdx.x / PHX_WARP, lane = (int)threadIdx.x % PHX_WARP;

#pragma unroll
    for (int m = 0; m < S::M_TILES; m++) {
        typename S::W::raw raw;

        S::W::take(raw, stage + S::X_BYTES + (warp * S::M_TILES + m) * S::W_BYTES + half * S::W::BLOCK_BYTES, lane);
        S::W::decode(o.a[m], raw);
    }
    if (is_short)
        hopper_start<S, S::X_ROWS / 2>(v, o, stage, half, starts_segment);
    else
        hopper_start<S, S::X_ROWS>(v, o, stage, half, starts_segment);
}

/* This warp has read the stage before the ring's. */
template <class S> static __device__ __forceinline__ void hopper_release(const struct hopper_ring &r)
{
    __syncwarp();
    if (threadIdx.x % PHX_WARP == 0)
        phx_barrier_arrive(r.empty + (r.stage > 0 ? r.stage : S::STAGES) - 1);
}

/* One piece; of a short one half the rows.  While the products of a block are under way, the operands of the next are made. */
template <class S, class J>
static __device__ __forceinline__ void hopper_multiply(const J &job, const struct hopper_piece &p, struct hopper_sums<S> &v,
                                                       struct hopper_ring &r)
{
    struct segment            s = first_segment(job.w.cut, CUDA_SEGMENT_BLOCKS);
    struct hopper_operands<S> operands[HOPPER_STAGE_BLOCKS];

    hopper_end_block<S>(job, p, v, s, 0);
    for (int32_t first = 0; first < job.w.cut.n_blocks; first += HOPPER_STAGE_BLOCKS) {
        phx_barrier_wait(r.full + r.stage, r.parity);
#pragma unroll
        for (int half = 0; half < HOPPER_STAGE_BLOCKS; half++) {
            int32_t block = first + half;

            if (block < job.w.cut.n_blocks) {
                hopper_add_block<S>(v, operands[half], r.stages + r.stage * S::STAGE_BYTES, half, block == s.first,
                                    p.x_rows <= S::X_ROWS / 2);
                phx_wgmma_wait<1>();
                if (half == 0 && first > 0)
                    hopper_release<S>(r); /* its last products are done */
                if (block + 1 == s.end) {
                    phx_wgmma_wait<0>();
                    hopper_end_block<S>(job, p, v, s, block + 1);
                }
            }
        }
        hopper_advance<S>(r);
    }
    phx_wgmma_wait<0>();
    if (job.w.cut.n_blocks > 0)
        hopper_release<S>(r);
}

template <class S, class J> static __device__ __forceinline__ void hopper_consume(const J &job, struct hopper_ring r)
{
    struct hopper_sums<S> v = {};

    for (int32_t i = (int32_t)blockIdx.x; i < job.n_pieces(); i += (int32_t)gridDim.x) {
        struct hopper_piece p = job.find_piece(i);

        hopper_multiply<S>(job, p, v, r);
        job.end_piece(p, v);
    }
}

/* The kernel: all threads of a block of HOPPER_THREADS; shared: hopper_shared_bytes<S>(). */
template <class S, class J> static __device__ __forceinline__ void hopper_run(const J &job, unsigned char *shared)
{
    struct hopper_ring r = {};

    r.stages = phx_align_atoms(shared);
    r.full = (uint64_t *)(void *)(r.stages + S::STAGES * S::STAGE_BYTES);
    r.empty = r.full + HOPPER_STAGES_MAX;
    if (threadIdx.x == 0) {
        for (int i = 0; i < S::STAGES; i++) {
            phx_barrier_init(r.full + i, 1);
            phx_barrier_init(r.empty + i, HOPPER_WARPS);
        }
        phx_barrier_ready();
    }
    __syncthreads();
    if (threadIdx.x >= HOPPER_CONSUMERS * PHX_WARPGROUP) {
        phx_registers_less<HOPPER_REGISTERS_COPY>();
        if (threadIdx.x / PHX_WARP == HOPPER_WARPS)
            hopper_produce<S>(job, r);
    } else {
        phx_registers_more<HOPPER_REGISTERS>();
        hopper_consume<S>(job, r);
    }
}

template <class S> static inline size_t hopper_shared_bytes()
{
    return (size_t)S::STAGES * S::STAGE_BYTES + HOPPER_BARRIERS_BYTES + PHX_ATOM_BYTES;
}

/* Chunk `chunk` of a row: 8 k of the blocks' k, two blocks an atom. */
static __device__ __forceinline__ uint4 hopper_round_chunk(const struct cuda_cut &cut, int32_t chunk, const float *x, bool is_there)
{
    enum { CHUNK_K = 8, BLOCK_CHUNKS = CUDA_BLOCK_K / CHUNK_K };
    int32_t block = chunk / BLOCK_CHUNKS;
    float   v[CHUNK_K];

    if (!is_there || block >= cut.n_blocks)
        return make_uint4(0, 0, 0, 0);
    struct cuda_block_k b = cuda_find_block(cut, block);
    int32_t             k = chunk % BLOCK_CHUNKS * CHUNK_K;

#pragma unroll
    for (int i = 0; i < CHUNK_K; i++)
        v[i] = k + i < b.n ? x[b.first + k + i] : 0.0f;
    return make_uint4(phx_bf16_pair(v[0], v[1]), phx_bf16_pair(v[2], v[3]), phx_bf16_pair(v[4], v[5]), phx_bf16_pair(v[6], v[7]));
}

/* Output (of its tile) and row of sum i of a lane. */
static __device__ __forceinline__ int hopper_output_of(int i)
{
    return i % 4 / 2 * 8 + (int)threadIdx.x % PHX_WARP / 4;
}

static __device__ __forceinline__ int hopper_row_of(int i)
{
    return i / 4 * 8 + (int)threadIdx.x % 4 * 2 + i % 2;
}

#endif
