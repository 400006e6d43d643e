/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: reading weights (layout: weight.h).  A type per kind, each with
 *
 *   raw       what a lane reads of a block
 *   load      from global memory; tile: the row tile's first byte
 *   take      from anywhere, shared memory too; block: the block's first byte
 *   decode    the a operands of both steps of phx_mma_bf16 (kinds that enter products as bf16)
 *   floats    the lane's 16 elements as floats, for the others as well
 *   value     one element, row of the tile, k of the block: slow, for tests of few and for whatever is not hot
 *
 * I8 values come without their scale. */
#ifndef PHX_KERNELS_CUDA_WEIGHT_CUH
#define PHX_KERNELS_CUDA_WEIGHT_CUH

#include "kernels/cuda/device.cuh"

#include "kernels/cuda/mxfp4.cuh"
#include "kernels/cuda/weight.h"

/* Where an element is: which lane has it, and which of its 16. */
struct cuda_place {
    int lane, element;
};

static __device__ __forceinline__ struct cuda_place cuda_find_place(int row, int k)
{
    return {row % 8 * 4 + k % 8 / 2, k / 16 * 8 + k % 16 / 8 * 4 + row / 8 * 2 + k % 2};
}

/* And back. */
static __device__ __forceinline__ int cuda_row_of(int lane, int element)
{
    return lane / 4 + element / 2 % 2 * 8;
}

static __device__ __forceinline__ int cuda_k_of(int lane, int element)
{
    return element / 8 * 16 + element / 4 % 2 * 8 + lane % 4 * 2 + element % 2;
}

static __device__ __forceinline__ float cuda_f16_float(uint16_t bits)
{
    uint32_t sign = (uint32_t)(bits & 0x8000u) << 16, e = (uint32_t)bits >> 10 & 31u, m = (uint32_t)bits & 0x3ffu;

    if (e == 31)
        return __uint_as_float(sign | 0x7f800000u | m << 13);
    if (e == 0)
        return __uint_as_float(sign | __float_as_uint((float)m * 5.9604644775390625e-8f)); /* 2^-24 */
    return __uint_as_float(sign | (e + 112u) << 23 | m << 13);
}

/* Blocks of 16-bit elements. */
struct cuda_halves {
    struct raw {
        uint4 step[2];
    };
    enum { BLOCK_BYTES = CUDA_BF16_BLOCK_BYTES };

    static __device__ __forceinline__ void load(raw &r, const unsigned char *tile, int32_t block, int lane)
    {
        const uint4 *from = (const uint4 *)(const void *)(tile + (size_t)block * BLOCK_BYTES) + lane;

        r.step[0] = __ldg(from);
        r.step[1] = __ldg(from + PHX_WARP);
    }

    static __device__ __forceinline__ void take(raw &r, const unsigned char *block, int lane)
    {
        const uint4 *from = (const uint4 *)(const void *)block + lane;

        r.step[0] = from[0];
        r.step[1] = from[PHX_WARP];
    }

    static __device__ __forceinline__ void decode(uint32_t a[2][4], const raw &r)
    {
#pragma unroll
        for (int s = 0; s < 2; s++) {
            a[s][0] = r.step[s].x;
            a[s][1] = r.step[s].y;
            a[s][2] = r.step[s].z;
            a[s][3] = r.step[s].w;
        }
    }

    static __device__ __forceinline__ uint16_t bits(const unsigned char *tile, int row, int32_t block, int k)
    {
        struct cuda_place p = cuda_find_place(row, k);

        return ((const uint16_t *)(const void *)(tile + (size_t)block * BLOCK_BYTES))[p.element / 8 * 256 + p.lane * 8 +
                                                                                     p.element % 8];
    }
};

struct cuda_bf16 : cuda_halves {
    static __device__ __forceinline__ void floats(float w[16], const raw &r)
    {
        uint32_t a[2][4];

        decode(a, r);
#pragma unroll
        for (int e = 0; e < 16; e += 2) {
            w[e] = __uint_as_float(a[e / 8][e / 2 % 4] << 16);
            w[e + 1] = __uint_as_float(a[e / 8][e / 2 % 4] & 0xffff0000u);
        }
    }

    static __device__ inline float value(const unsigned char *tile, int row, int32_t block, int k)
    {
        return phx_bf16_float(bits(tile, row, block, k));
    }
};

struct cuda_f16 : cuda_halves {
    static __device__ __forceinline__ void floats(float w[16], const raw &r)
    {
        uint32_t a[2][4];

        decode(a, r);
#pragma unroll
        for (int e = 0; e < 16; e += 2) {
            w[e] = cuda_f16_float((uint16_t)(a[e / 8][e / 2 % 4] & 0xffffu));
            w[e + 1] = cuda_f16_float((uint16_t)(a[e / 8][e / 2 % 4] >> 16));
        }
    }

    static __device__ inline float value(const unsigned char *tile, int row, int32_t block, int k)
    {
        return cuda_f16_float(bits(tile, row, block, k));
    }
};

struct cuda_f32 {
    struct raw {
        float4 piece[4];
    };
    enum { BLOCK_BYTES = CUDA_F32_BLOCK_BYTES };

    static __device__ __forceinline__ void load(raw &r, const unsigned char *tile, int32_t block, int lane)
    {
        const float4 *from = (const float4 *)(const void *)(tile + (size_t)block * BLOCK_BYTES) + lane;

#pragma unroll
        for (int p = 0; p < 4; p++)
            r.piece[p] = __ldg(from + p * PHX_WARP);
    }

    static __device__ __forceinline__ void floats(float w[16], const raw &r)
    {
#pragma unroll
        for (int p = 0; p < 4; p++) {
            w[p * 4] = r.piece[p].x;
            w[p * 4 + 1] = r.piece[p].y;
            w[p * 4 + 2] = r.piece[p].z;
            w[p * 4 + 3] = r.piece[p].w;
        }
    }

    static __device__ inline float value(const unsigned char *tile, int row, int32_t block, int k)
    {
        struct cuda_place p = cuda_find_place(row, k);

        return ((const float *)(const void *)(tile + (size_t)block * BLOCK_BYTES))[p.element / 4 * 128 + p.lane * 4 +
                                                                                  p.element % 4];
    }
};

struct cuda_mxfp4 {
    struct raw {
        uint2    words;
        uint32_t scales;
    };
    enum { BLOCK_BYTES = CUDA_MX_BLOCK_BYTES };

    static __device__ __forceinline__ void load(raw &r, const unsigned char *tile, int32_t block, int lane)
    {
        const unsigned char *from = tile + (size_t)block * BLOCK_BYTES;

        r.words = __ldg((const uint2 *)(const void *)from + lane);
        r.scales = __ldg((const uint16_t *)(const void *)(from + CUDA_MX_DATA_BYTES) + lane / 4);
    }

    static __device__ __forceinline__ void take(raw &r, const unsigned char *block, int lane)
    {
        r.words = ((const uint2 *)(const void *)block)[lane];
        r.scales = ((const uint16_t *)(const void *)(block + CUDA_MX_DATA_BYTES))[lane / 4];
    }

    static __device__ __forceinline__ void decode(uint32_t a[2][4], const raw &r)
    {
        mx_decode(a, r.words, r.scales);
    }

    static __device__ __forceinline__ void floats(float w[16], const raw &r)
    {
        uint32_t a[2][4];

        decode(a, r); /* all values are bf16, but those beyond its range */
#pragma unroll
        for (int e = 0; e < 16; e += 2) {
            w[e] = __uint_as_float(a[e / 8][e / 2 % 4] << 16);
            w[e + 1] = __uint_as_float(a[e / 8][e / 2 % 4] & 0xffff0000u);
        }
    }

    static __device__ inline float value(const unsigned char *tile, int row, int32_t block, int k)
    {
        struct cuda_place p = cuda_find_place(row, k);
        raw               r;
        float             w[16], v = 0.0f;

        take(r, tile + (size_t)block * BLOCK_BYTES, p.lane);
        floats(w, r);
#pragma unroll
        for (int e = 0; e < 16; e++)
            v = e == p.element ? w[e] : v;
        return v;
    }
};

struct cuda_i8 {
    struct raw {
        uint4 words;
    };
    enum { BLOCK_BYTES = CUDA_I8_BLOCK_BYTES };

    static __device__ __forceinline__ void load(raw &r, const unsigned char *tile, int32_t block, int lane)
    {
        r.words = __ldg((const uint4 *)(const void *)(tile + (size_t)block * BLOCK_BYTES) + lane);
    }

    static __device__ __forceinline__ void take(raw &r, const unsigned char *block, int lane)
    {
        r.words = ((const uint4 *)(const void *)block)[lane];
    }

    /* An integer below 128 is a bf16.  A byte b, its sign bit flipped, behind the exponent of 2^23 is the float 2^23 + b
     * + 128; subtracting is exact. */
    static __device__ __forceinline__ uint32_t pair(uint32_t biased, uint32_t low, uint32_t high)
    {
        const float base = 8388736.0f; /* 2^23 + 128 */
        uint32_t    a = __float_as_uint(__fadd_rn(__uint_as_float(__byte_perm(biased, 0x4b000000u, low)), -base));
        uint32_t    b = __float_as_uint(__fadd_rn(__uint_as_float(__byte_perm(biased, 0x4b000000u, high)), -base));

        return __byte_perm(a, b, 0x7632);
    }

    static __device__ __forceinline__ void decode(uint32_t a[2][4], const raw &r)
    {
        const uint32_t words[4] = {r.words.x, r.words.y, r.words.z, r.words.w};

#pragma unroll
        for (int i = 0; i < 4; i++) {
            uint32_t biased = words[i] ^ 0x80808080u;

            a[i / 2][i % 2 * 2] = pair(biased, 0x7650, 0x7651);
            a[i / 2][i % 2 * 2 + 1] = pair(biased, 0x7652, 0x7653);
        }
    }

    static __device__ inline float value(const unsigned char *tile, int row, int32_t block, int k)
    {
        struct cuda_place p = cuda_find_place(row, k);

        return (float)((const signed char *)tile)[(size_t)block * BLOCK_BYTES + (size_t)(p.lane * 16 + p.element)];
    }
};

/* ---- blocks, k and slices -------------------------------------------------------------------- */

/* The k of a block: first .. first + n - 1; group: of its I8 group. */
struct cuda_block_k {
    int32_t first, n, group;
};

static __device__ inline struct cuda_block_k cuda_find_block(const struct cuda_cut &cut, int32_t block)
{
    int32_t s = 0, in_slice, first;

    while (s + 1 < cut.n_slices && block >= cut.block_end[s])
        s++;
    in_slice = block - (s > 0 ? cut.block_end[s - 1] : 0);
    first = (s > 0 ? cut.k_end[s - 1] : 0) + in_slice * CUDA_BLOCK_K;
    return {first, min(cut.k_end[s] - first, (int32_t)CUDA_BLOCK_K),
            (s > 0 ? cut.group_end[s - 1] : 0) + in_slice / CUDA_GROUP_BLOCKS};
}

/* The block that holds k of a row, and where it is in there. */
static __device__ inline int32_t cuda_find_k(const struct cuda_cut &cut, int32_t k, int *in_block)
{
    int32_t s = 0, in_slice;

    while (s + 1 < cut.n_slices && k >= cut.k_end[s])
        s++;
    in_slice = k - (s > 0 ? cut.k_end[s - 1] : 0);
    *in_block = in_slice % CUDA_BLOCK_K;
    return (s > 0 ? cut.block_end[s - 1] : 0) + in_slice / CUDA_BLOCK_K;
}

/* The k of an I8 group, and its first block. */
struct cuda_group {
    int32_t k, n, block;
};

static __device__ inline struct cuda_group cuda_find_group(const struct cuda_cut &cut, int32_t group)
{
    int32_t s = 0, in_slice, k;

    while (s + 1 < cut.n_slices && group >= cut.group_end[s])
        s++;
    in_slice = group - (s > 0 ? cut.group_end[s - 1] : 0);
    k = (s > 0 ? cut.k_end[s - 1] : 0) + in_slice * PHX_I8_GROUP;
    return {k, min(cut.k_end[s] - k, (int32_t)PHX_I8_GROUP),
            (s > 0 ? cut.block_end[s - 1] : 0) + in_slice * CUDA_GROUP_BLOCKS};
}

/* ---- any kind -------------------------------------------------------------------------------- */

/* Scale of an I8 row of a tile. */
static __device__ __forceinline__ const float *cuda_i8_scales(const unsigned char *tile, const struct cuda_cut &cut)
{
    return (const float *)(const void *)(tile + (size_t)cut.n_blocks * CUDA_I8_BLOCK_BYTES);
}

/* Element [row][k] of a matrix as a float, scale included: what embedding reads. */
static __device__ inline float cuda_weight_value(const struct cuda_weight_view &w, int32_t expert, int32_t row, int32_t k)
{
    const unsigned char *tile = w.data + (size_t)expert * w.expert_bytes + (size_t)(row / CUDA_TILE_ROWS) * w.tile_bytes;
    int                  r = row % CUDA_TILE_ROWS, in_block;
    int32_t              block = cuda_find_k(w.cut, k, &in_block);

    switch (w.dtype) {
    case PHX_DTYPE_F32: return cuda_f32::value(tile, r, block, in_block);
    case PHX_DTYPE_F16: return cuda_f16::value(tile, r, block, in_block);
    case PHX_DTYPE_BF16: return cuda_bf16::value(tile, r, block, in_block);
    case PHX_DTYPE_MXFP4: return cuda_mxfp4::value(tile, r, block, in_block);
    default:
        return __fmul_rn(cuda_i8::value(tile, r, block, in_block),
                         cuda_i8_scales(tile, w.cut)[cuda_find_block(w.cut, block).group * CUDA_TILE_ROWS + r]);
    }
}

#endif
