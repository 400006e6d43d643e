/* SPDX-License-Identifier: Apache-2.0
 * From rows as a checkpoint has them to the tiles of weight.h.  A warp makes one block of one row tile; what the source
 * does not hold of it stays as it is, because rows of a tile may come from several sources. */
#include "kernels/cuda/quantise.cuh"
#include "kernels/cuda/weight.cuh"

enum { THREADS = 256, WARPS = THREADS / PHX_WARP };

/* ---- from any source ------------------------------------------------------------------------- */

static __device__ __forceinline__ uint32_t read2(const unsigned char *at)
{
    return (uint32_t)at[0] | (uint32_t)at[1] << 8;
}

static __device__ __forceinline__ uint32_t read4(const unsigned char *at)
{
    return read2(at) | read2(at + 2) << 16;
}

/* E4M3FN: bias 7, no infinities, NaN 0x7f and 0xff; E5M2: bias 15, IEEE-like. */
static __device__ float f8_float(uint32_t b, bool is_e5m2)
{
    uint32_t bits = is_e5m2 ? 2 : 3, bias = is_e5m2 ? 15 : 7, size = b & 0x7fu, sign = (b & 0x80u) << 24;
    uint32_t e = size >> bits, m = size & ((1u << bits) - 1u);

    if (!is_e5m2 && size == 0x7fu)
        return __uint_as_float(sign | 0x7fc00000u);
    if (is_e5m2 && e == 31)
        return __uint_as_float(sign | 0x7f800000u | m << 21);
    if (e == 0) /* m * 2^(1 - bias - bits) */
        return __uint_as_float(sign | __float_as_uint((float)m * __uint_as_float((128u - bias - bits) << 23)));
    return __uint_as_float(sign | (e + 127u - bias) << 23 | m << (23 - bits));
}

static __device__ float read_float(const struct cuda_pack &p, const unsigned char *at)
{
    switch (p.source) {
    case PHX_DTYPE_F32: return __uint_as_float(read4(at));
    case PHX_DTYPE_BF16: return phx_bf16_float((uint16_t)read2(at));
    case PHX_DTYPE_F16: return cuda_f16_float((uint16_t)read2(at));
    default: return f8_float(*at, p.source == PHX_DTYPE_F8_E5M2);
    }
}

/* An element as it is stored; an 8-bit float fits in the upper half of a float. */
static __device__ uint32_t read_stored(const struct cuda_pack &p, const unsigned char *at)
{
    if (p.stored == PHX_DTYPE_F32)
        return __float_as_uint(read_float(p, at));
    return p.source == p.stored ? read2(at) : __float_as_uint(read_float(p, at)) >> 16;
}

/* ---- blocks ---------------------------------------------------------------------------------- */

/* What this warp makes. */
struct work {
    int32_t tile, block;
    int     lane;
    bool    is_there;
};

static __device__ __forceinline__ struct work find_work(const struct cuda_pack &p)
{
    int64_t item = (int64_t)blockIdx.x * WARPS + (int64_t)threadIdx.x / PHX_WARP;
    int32_t first = p.first_row / CUDA_TILE_ROWS, last = (p.first_row + p.n_rows - 1) / CUDA_TILE_ROWS;
    int32_t tile = first + (int32_t)(item / p.cut.n_blocks);

    return {tile, (int32_t)(item % p.cut.n_blocks), (int)threadIdx.x % PHX_WARP, tile <= last};
}

/* Row `row` of the tile as a row of the source, or -1. */
static __device__ __forceinline__ int32_t find_source_row(const struct cuda_pack &p, int32_t tile, int row)
{
    int32_t r = tile * CUDA_TILE_ROWS + row - p.first_row;

    return r < p.n_rows ? max(r, (int32_t)-1) : -1;
}

/* BYTES of an element: 2 or 4. */
template <int BYTES> static __global__ void __launch_bounds__(THREADS) pack_elements(struct cuda_pack p)
{
    phx_begin();
    struct work          w = find_work(p);
    union {
        uint4    piece[BYTES];
        uint32_t word[4 * BYTES];
    } v;

    if (!w.is_there)
        return;
    struct cuda_block_k b = cuda_find_block(p.cut, w.block);
    uint4 *to = (uint4 *)(void *)(p.data + (size_t)w.tile * p.tile_bytes + (size_t)w.block * 512 * BYTES) + w.lane;

#pragma unroll
    for (int i = 0; i < BYTES; i++)
        v.piece[i] = to[i * PHX_WARP];
#pragma unroll
    for (int e = 0; e < 16; e++) {
        int32_t  row = find_source_row(p, w.tile, cuda_row_of(w.lane, e)), k = cuda_k_of(w.lane, e);
        uint32_t bits = 0;

        if (row < 0)
            continue;
        if (k < b.n)
            bits = read_stored(p, p.from + row * p.row_stride + (b.first + k) * p.k_stride);
        if (BYTES == 4)
            v.word[e] = bits;
        else
            v.word[e / 2] = e % 2 == 0 ? (v.word[e / 2] & 0xffff0000u) | bits : (v.word[e / 2] & 0xffffu) | bits << 16;
    }
#pragma unroll
    for (int i = 0; i < BYTES; i++)
        to[i * PHX_WARP] = v.piece[i];
}

/* Byte b of a source block has element 2 b in its lower half. */
static __global__ void __launch_bounds__(THREADS) pack_mxfp4(struct cuda_pack p)
{
    phx_begin();
    struct work w = find_work(p);

    if (!w.is_there)
        return;
    unsigned char *block = p.data + (size_t)w.tile * p.tile_bytes + (size_t)w.block * CUDA_MX_BLOCK_BYTES;
    uint2         *to = (uint2 *)(void *)block + w.lane;
    int            g = w.lane / 4, t = w.lane % 4;
    int32_t        rows[2] = {find_source_row(p, w.tile, g), find_source_row(p, w.tile, g + 8)};
    uint32_t       kept = (rows[0] < 0 ? mx_low_row_mask() : 0u) | (rows[1] < 0 ? ~mx_low_row_mask() : 0u);
    uint32_t       word[2] = {to->x & kept, to->y & kept};

#pragma unroll
    for (int i = 0; i < 8; i++) {
        int r = i % 4, step = i / 4;

        if (rows[r % 2] >= 0) {
            uint32_t b = p.from[rows[r % 2] * p.row_stride + w.block * 16 + step * 8 + r / 2 * 4 + t];

            word[step] |= mx_place(r, b & 15u) | mx_place(r, b >> 4) << 16;
        }
    }
    *to = make_uint2(word[0], word[1]);
    for (int i = 0; i < 2 && t == 0; i++)
        if (rows[i] >= 0)
            block[CUDA_MX_DATA_BYTES + g * 2 + i] = p.scale[rows[i] * p.scale_row_stride + w.block];
}

/* ---- int8: a warp makes a group of a row ----------------------------------------------------- */

static __global__ void __launch_bounds__(THREADS) pack_i8(struct cuda_pack p)
{
    phx_begin();
    int64_t item = (int64_t)blockIdx.x * WARPS + (int64_t)threadIdx.x / PHX_WARP;
    int32_t row = (int32_t)(item / p.cut.n_groups), index = (int32_t)(item % p.cut.n_groups);
    int     lane = (int)threadIdx.x % PHX_WARP;

    if (row >= p.n_rows) /* the whole warp */
        return;
    struct cuda_group g = cuda_find_group(p.cut, index);
    int32_t           stored = p.first_row + row;
    unsigned char    *tile = p.data + (size_t)(stored / CUDA_TILE_ROWS) * p.tile_bytes;
    const unsigned char *from = p.from + row * p.row_stride + g.k * p.k_stride;
    struct cuda_place    place = cuda_find_place(stored % CUDA_TILE_ROWS, lane);
    bool                 is_quantised = p.source == PHX_DTYPE_I8;
    float                v[I8_OF_LANE], scale;

#pragma unroll
    for (int i = 0; i < I8_OF_LANE; i++) {
        int k = i * PHX_WARP + lane;

        v[i] = k >= g.n ? 0.0f : is_quantised ? (float)(signed char)from[k] : read_float(p, from + k * p.k_stride);
    }
    scale = is_quantised ? __uint_as_float(read4(p.scale + row * p.scale_row_stride + index * 4)) : i8_find_scale(v);
#pragma unroll
    for (int i = 0; i < I8_OF_LANE; i++)
        if (i * CUDA_BLOCK_K < g.n)
            tile[(size_t)(g.block + i) * CUDA_I8_BLOCK_BYTES + (size_t)(place.lane * 16 + place.element)] =
                (unsigned char)(is_quantised ? (int)v[i] : i8_quantise(v[i], scale));
    if (lane == 0)
        ((float *)(void *)(tile + (size_t)p.cut.n_blocks * CUDA_I8_BLOCK_BYTES))[index * CUDA_TILE_ROWS +
                                                                                stored % CUDA_TILE_ROWS] = scale;
}

/* ---- launchers ------------------------------------------------------------------------------- */

static unsigned count_blocks(int64_t items)
{
    return (unsigned)((items + WARPS - 1) / WARPS);
}

static unsigned count_tile_blocks(const struct cuda_pack *p)
{
    int64_t tiles = p->n_rows > 0 ? (p->first_row + p->n_rows - 1) / CUDA_TILE_ROWS - p->first_row / CUDA_TILE_ROWS + 1 : 0;

    return count_blocks(tiles * p->cut.n_blocks);
}

int phx_cuda_pack_elements(cudaStream_t stream, const struct cuda_pack *p)
{
    if (p->stored == PHX_DTYPE_F32)
        return PHX_LAUNCH(pack_elements<4>, count_tile_blocks(p), THREADS, 0, stream, *p);
    return PHX_LAUNCH(pack_elements<2>, count_tile_blocks(p), THREADS, 0, stream, *p);
}

int phx_cuda_pack_mxfp4(cudaStream_t stream, const struct cuda_pack *p)
{
    return PHX_LAUNCH(pack_mxfp4, count_tile_blocks(p), THREADS, 0, stream, *p);
}

int phx_cuda_pack_i8(cudaStream_t stream, const struct cuda_pack *p)
{
    return PHX_LAUNCH(pack_i8, count_blocks((int64_t)p->n_rows * p->cut.n_groups), THREADS, 0, stream, *p);
}
