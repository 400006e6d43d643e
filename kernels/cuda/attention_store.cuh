/* SPDX-License-Identifier: Apache-2.0
 * Leaves of keys and values in shared memory, and how operands of products are made of them; included by the tiled
 * kernels of attention alone.
 *
 * A leaf is 64 rows of keys, 64 of values and, where the cache has them, their scales.  Numbers of 8 bits
 * are exact in bf16, so products take them as they are: a key's scale multiplies its scores, a value's its weights. */
#ifndef PHX_KERNELS_CUDA_ATTENTION_STORE_CUH
#define PHX_KERNELS_CUDA_ATTENTION_STORE_CUH

#include "kernels/cuda/attention_span.cuh"

enum {
    SLAB = 16, /* positions of one product; all of them lie in one block of the cache */
    SLABS = CUDA_LEAF_TOKENS / SLAB,
    CHUNK = 16 /* bytes that are copied at once */
};

/* Bytes of a leaf; KIND is an enum cuda_kv_kind. */
template <int KIND, int DIM> struct leaf {
    enum {
        HAS_SCALES = KIND != CUDA_KV_BF16,
        ELEMENT = HAS_SCALES ? 1 : 2,
        ROW = DIM * ELEMENT,
        VALUES = CUDA_LEAF_TOKENS * ROW,
        SCALES = 2 * VALUES, /* floats: of the keys, then of the values */
        BYTES = SCALES + (HAS_SCALES ? 2 * CUDA_LEAF_TOKENS * 4 : 0),
        DIMS_AT_ONCE = CHUNK / ELEMENT,   /* of a key that a lane reads */
        STEPS_AT_ONCE = DIMS_AT_ONCE / 4  /* products that it has operands for */
    };
};

/* Byte offset of a chunk of a row of `row` bytes: lanes that read together read different banks. */
template <int ROW> static __device__ inline uint32_t place(uint32_t position, uint32_t chunk)
{
    if (ROW == 64) /* two rows fill the banks */
        return (position >> 1) * 128 + ((((position & 1u) << 2 | chunk) ^ (position & 6u)) << 4);
    return position * ROW + ((chunk ^ (position & 6u) ^ ((position & 1u) << 2)) << 4);
}

/* Of a warp: lane i < SLABS gets the block of the cache that has slab i of the leaf at pos, when somebody sees it. */
static __device__ inline int32_t find_block(const struct cuda_attention &a, const struct view &see, int32_t pos)
{
    int32_t lane = (int32_t)threadIdx.x % LANES, at = pos + lane * SLAB, shift = a.kv.block_tokens == 16 ? 4 : 5; /* no others */

    return lane < SLABS && at < see.end && at + SLAB > see.begin ? see.table[at >> shift] : 0;
}

/* The scales of the leaf at pos, by the first warp: four positions a lane. */
static __device__ inline void load_scales(const struct cuda_attention &a, const struct view &see, unsigned char *to,
                                          int32_t pos, int32_t block)
{
    enum { FOURS = CUDA_LEAF_TOKENS / 4 };
    int32_t i = phx_opaque((int32_t)threadIdx.x), four = i % FOURS, at = pos + four * 4, own = phx_shfl(block, four * 4 / SLAB);
    bool    is_seen = at < see.end && at + 4 > see.begin;
    int64_t offset = cuda_kv_scale_at(&a.kv, own, see.kv_head, at & (a.kv.block_tokens - 1)) + i / FOURS * a.kv.v_offset;

    if (i < LANES)
        phx_cp_async16_if(to + i * CHUNK, (const unsigned char *)a.kv.data + (is_seen ? offset : 0), is_seen);
}

/* Starts to bring keys and values of the leaf at pos, whose blocks find_block knew; what nobody of the block sees
 * becomes 0: memory that was never written, or by an earlier owner of the block, may hold anything. */
template <int KIND, int DIM, int THREADS>
static __device__ inline void load_leaf(const struct cuda_attention &a, const struct view &see, unsigned char *to,
                                        int32_t pos, int32_t block)
{
    typedef leaf<KIND, DIM> layout;
    enum {
        CHUNKS = layout::ROW / CHUNK,
        STEP = THREADS / CHUNKS, /* positions that the block brings at once */
        GROUP = STEP > SLAB ? STEP : SLAB
    };
    const unsigned char *data = (const unsigned char *)a.kv.data;
    int32_t              begin = see.begin - pos, end = see.end - pos;
    int32_t              thread = phx_opaque((int32_t)threadIdx.x), in = thread / CHUNKS, chunk = thread % CHUNKS;

#pragma unroll 1 /* registers are for sums */
    for (int32_t first = 0; first < CUDA_LEAF_TOKENS; first += GROUP) {
        int32_t slab = first / SLAB + in / SLAB;
        int64_t base = cuda_kv_at(&a.kv, phx_shfl(block, slab), see.kv_head, (pos + slab * SLAB) & (a.kv.block_tokens - 1));

#pragma unroll
        for (int j = 0; j < GROUP; j += STEP) {
            int32_t              row = first + j + in;
            bool                 is_seen = row >= begin && row < end && chunk * CHUNK < a.kv.head_dim * layout::ELEMENT;
            int64_t              offset = (base + (int64_t)((j + in) % SLAB) * a.kv.head_dim) * layout::ELEMENT + chunk * CHUNK;
            const unsigned char *from = data + (is_seen ? offset : 0);
            unsigned char       *k = to + place<layout::ROW>((uint32_t)row, (uint32_t)chunk);

            phx_cp_async16_if(k, from, is_seen);
            phx_cp_async16_if(k + layout::VALUES, from + (is_seen ? a.kv.v_offset * layout::ELEMENT : 0), is_seen);
        }
    }
    if constexpr (layout::HAS_SCALES)
        load_scales(a, see, to + layout::SCALES, pos, block);
}

/* ---- operands --------------------------------------------------------------------------------- */

static __device__ inline uint4 read_chunk(const unsigned char *from)
{
    return *(const uint4 *)from;
}

/* Bytes i and j of eight as bf16, exactly.  int8: bits 0 to 6 behind the exponent of 128, less 128 or, with the sign, 256.
 * E4M3: exponent and fraction where bf16 has its own, times 2^120 with the sign. */
template <int KIND> static __device__ inline uint32_t widen_bytes(uint32_t x, uint32_t y, uint32_t i, uint32_t j)
{
    uint32_t pair = __byte_perm(x, y, KIND == CUDA_KV_F8 ? i << 4 | j << 12 : i | j << 8);

    if constexpr (KIND == CUDA_KV_F8)
        return phx_bf16_mul2(pair >> 4 & 0x07f007f0u, (pair & 0x80008000u) | 0x7b807b80u);
    return phx_bf16_add2((pair & 0x007f007fu) | 0x43004300u, (pair & 0x00800080u) | 0xc300c300u);
}

/* The B fragments of the products that a chunk of a key holds, as the head of attention_leaf.cuh has them. */
template <int KIND> static __device__ inline void take_key(const uint4 &k, int step, uint32_t to[2])
{
    const uint32_t words[4] = {k.x, k.y, k.z, k.w};

    if constexpr (KIND == CUDA_KV_BF16) {
        to[0] = words[2 * step];
        to[1] = words[2 * step + 1];
    } else {
        to[0] = widen_bytes<KIND>(words[step], 0, 0, 1);
        to[1] = widen_bytes<KIND>(words[step], 0, 2, 3);
    }
}

/* N adjacent d of a value, 8 or (bytes alone) 4. */
template <int KIND, int N> struct dims {
    uint32_t word[N * (KIND == CUDA_KV_BF16 ? 2 : 1) / 4];
};

/* The d from which * N on. */
template <int KIND, int DIM, int N>
static __device__ inline dims<KIND, N> read_value(const unsigned char *values, uint32_t position, uint32_t which)
{
    typedef leaf<KIND, DIM> layout;
    enum { SIZE = N * layout::ELEMENT, IN_CHUNK = CHUNK / SIZE };
    dims<KIND, N>        v;
    const unsigned char *from = values + place<layout::ROW>(position, which / IN_CHUNK) + which % IN_CHUNK * SIZE;

    if constexpr (SIZE == 16)
        *(uint4 *)v.word = *(const uint4 *)from;
    else if constexpr (SIZE == 8)
        *(uint2 *)v.word = *(const uint2 *)from;
    else
        v.word[0] = *(const uint32_t *)from;
    return v;
}

/* B fragments of N n-tiles: the pair of positions (x, y) of N d. */
template <int KIND, int N>
static __device__ inline void pair_up(const dims<KIND, N> &x, const dims<KIND, N> &y, uint32_t to[N])
{
#pragma unroll
    for (int i = 0; i < N; i++)
        if constexpr (KIND == CUDA_KV_BF16)
            to[i] = __byte_perm(x.word[i / 2], y.word[i / 2], i % 2 == 0 ? 0x5410 : 0x7632);
        else
            to[i] = widen_bytes<KIND>(x.word[i / 4], y.word[i / 4], (uint32_t)i % 4, (uint32_t)i % 4 + 4);
}

/* ---- values that are no numbers ---------------------------------------------------------------- */

/* Not every query sees all of an edge leaf, and 0 times an infinity or a NaN must not reach those who do not.  There
 * such values become 0, and who sees one gets a NaN afterwards.  A cache with scales needs none of this: its values are
 * finite, and a scale is not applied to the weight of what is hidden. */
template <int KIND, int DIM> struct wild {
    uint32_t is_any;
    uint32_t positions[KIND == CUDA_KV_BF16 ? DIM : 1][2]; /* bits of those of each d, when there are any */
};

static __device__ inline bool is_wild(uint32_t bf16)
{
    return (bf16 & 0x7f80u) == 0x7f80u;
}

/* A sign bit is set where one of two bf16 is an infinity or a NaN. */
static __device__ inline uint32_t find_wild(uint32_t pair)
{
    return (pair & 0x7f807f80u) + 0x00800080u;
}

/* Of the whole block; true when values were taken out.  is_any is 0 before, and whoever got true makes it so again. */
template <int DIM, int THREADS>
static __device__ inline bool take_out_wild(unsigned char *values, struct wild<CUDA_KV_BF16, DIM> *wild)
{
    uint32_t found = 0;

#pragma unroll 4
    for (uint32_t i = (uint32_t)phx_opaque((int32_t)threadIdx.x); i < CUDA_LEAF_TOKENS * DIM / 8; i += THREADS) {
        uint4 v = read_chunk(values + i * CHUNK);

        found |= find_wild(v.x) | find_wild(v.y) | find_wild(v.z) | find_wild(v.w);
    }
    if ((found & 0x80008000u) != 0)
        wild->is_any = 1;
    __syncthreads();
    if (wild->is_any == 0)
        return false;
    for (uint32_t i = threadIdx.x; i < 2 * DIM; i += THREADS)
        wild->positions[i / 2][i % 2] = 0;
    __syncthreads();
#pragma unroll 1
    for (uint32_t i = threadIdx.x; i < CUDA_LEAF_TOKENS * DIM; i += THREADS) {
        uint32_t  position = i / DIM, d = i % DIM;
        uint16_t *v = (uint16_t *)(values + place<DIM * 2>(position, d / 8)) + d % 8;

        if (is_wild(*v)) {
            *v = 0;
            atomicOr(&wild->positions[d][position / 32], 1u << position % 32);
        }
    }
    __syncthreads();
    return true;
}

#endif
