/* SPDX-License-Identifier: Apache-2.0
 * Products of many rows: a block of the grid owns a tile of outputs and rows; weights and activations pass through shared
 * memory, some blocks of 32 k ahead, in the order in which the lanes want them.  A warp owns 32 of the outputs and all
 * or half of the rows: sums stay in its registers, those of slices that wait for their neighbours in shared memory. */
#include "kernels/cuda/matmul.cuh"

enum { STAGES = 4, ROW_TILES = 2 /* of a warp */, PIECE = 16 /* bytes of a copy */ };

/* The shape of a tile. */
template <int OUTPUT_WARPS_, int X_WARPS_, int X_TILES_> struct shape {
    enum {
        OUTPUT_WARPS = OUTPUT_WARPS_,
        X_WARPS = X_WARPS_,
        X_TILES = X_TILES_, /* of a warp */
        THREADS = OUTPUT_WARPS * X_WARPS * PHX_WARP,
        OUTPUT_TILES = OUTPUT_WARPS * ROW_TILES,
        ALL_X_TILES = X_WARPS * X_TILES,
        OUTPUTS = OUTPUT_TILES * CUDA_TILE_ROWS,
        ROWS = ALL_X_TILES * CUDA_X_ROWS,
        SUMS = ROW_TILES * X_TILES * 4, /* of a lane */
        BLOCKS_PER_SM = THREADS > 128 ? 1 : 3
    };
};
typedef shape<2, 2, 4> small_shape;
typedef shape<4, 2, 8> large_shape;

/* What a block of the grid works on. */
struct place {
    int32_t output_tile, x_tile; /* the first */
    int     warp_output_tile, warp_x_tile; /* of the warp, from there */
    int     lane;
};

template <class W, class S> static __host__ __device__ constexpr int stage_bytes()
{
    return S::OUTPUT_TILES * W::BLOCK_BYTES + S::ALL_X_TILES * CUDA_X_BLOCK_BYTES;
}

/* Block `block` of all operands; zeros where there is none. */
template <class W, class S>
static __device__ __forceinline__ void load_stage(unsigned char *stage, const struct cuda_product &a,
                                                  const struct place &at, int32_t block)
{
    enum { W_PIECES = W::BLOCK_BYTES / PIECE, ALL_W = S::OUTPUT_TILES * W_PIECES, X_PIECES = CUDA_X_BLOCK_BYTES / PIECE,
           ALL_X = S::ALL_X_TILES * X_PIECES };
    bool                 is_block = block < a.w.cut.n_blocks;
    const unsigned char *x = (const unsigned char *)a.rounded;

#pragma unroll
    for (int first = 0; first < ALL_W; first += S::THREADS) {
        int     piece = first + (int)threadIdx.x, tile = piece / W_PIECES;
        bool    is_there = is_block && (at.output_tile + tile) * CUDA_TILE_ROWS < a.w.n;
        int64_t from = 0;

        if (is_there && piece < ALL_W)
            from = (int64_t)((size_t)(at.output_tile + tile) * a.w.tile_bytes + (size_t)block * W::BLOCK_BYTES) +
                   piece % W_PIECES * PIECE;
        if (piece < ALL_W)
            phx_cp_async16_if(stage + piece * PIECE, a.w.data + from, is_there);
    }
    stage += ALL_W * PIECE;
#pragma unroll
    for (int first = 0; first < ALL_X; first += S::THREADS) {
        int     piece = first + (int)threadIdx.x, tile = piece / X_PIECES;
        bool    is_there = is_block && (at.x_tile + tile) * CUDA_X_ROWS < a.n_rows;
        int64_t from = 0;

        if (is_there)
            from = ((int64_t)(at.x_tile + tile) * a.w.cut.n_blocks + block) * CUDA_X_BLOCK_BYTES + piece % X_PIECES * PIECE;
        phx_cp_async16_if(stage + piece * PIECE, x + from, is_there);
    }
    phx_cp_async_commit();
}

/* The sums of a lane, of one segment and of its slice. */
template <class S> struct sums {
    float segment[ROW_TILES][S::X_TILES][4], slice[ROW_TILES][S::X_TILES][4];
};

template <class W, class S>
static __device__ __forceinline__ void add_stage(struct sums<S> &v, const unsigned char *stage, const struct place &at)
{
    const uint4 *x = (const uint4 *)(const void *)(stage + S::OUTPUT_TILES * W::BLOCK_BYTES) +
                     at.warp_x_tile * PHX_WARP + at.lane;
    uint32_t     a[ROW_TILES][2][4];

#pragma unroll
    for (int m = 0; m < ROW_TILES; m++) {
        typename W::raw raw;

        W::take(raw, stage + (at.warp_output_tile + m) * W::BLOCK_BYTES, at.lane);
        W::decode(a[m], raw);
    }
#pragma unroll
    for (int t = 0; t < S::X_TILES; t++) {
        uint4    b = x[t * PHX_WARP];
        uint32_t first[2] = {b.x, b.y}, second[2] = {b.z, b.w};

#pragma unroll
        for (int m = 0; m < ROW_TILES; m++) {
            phx_mma_bf16(v.segment[m][t], a[m][0], first);
            phx_mma_bf16(v.segment[m][t], a[m][1], second);
        }
    }
}

/* Output and row of sum c of tile (m, t). */
static __device__ __forceinline__ int32_t find_output(const struct place &at, int m, int c)
{
    return (at.output_tile + at.warp_output_tile + m) * CUDA_TILE_ROWS + c / 2 * 8 + at.lane / 4;
}

static __device__ __forceinline__ int32_t find_row(const struct place &at, int t, int c)
{
    return (at.x_tile + at.warp_x_tile + t) * CUDA_X_ROWS + at.lane % 4 * 2 + c % 2;
}

/* A segment's sums join its slice's. */
template <bool IS_I8, class S>
static __device__ __forceinline__ void end_segment(struct sums<S> &v, const struct cuda_product &a, const struct place &at,
                                                   const struct segment &s)
{
#pragma unroll
    for (int i = 0; i < S::SUMS; i++) {
        int     m = i / (S::X_TILES * 4), t = i / 4 % S::X_TILES, c = i % 4;
        float  &slice = v.slice[m][t][c];
        int32_t output = find_output(at, m, c), row = find_row(at, t, c);

        if (!IS_I8 || (output < a.w.n && row < a.n_rows))
            slice = add_segment<IS_I8>(a, s, slice, v.segment[m][t][c], output, row);
        v.segment[m][t][c] = 0.0f;
    }
}

/* A slice that is complete joins those that wait; what comes out waits, but for the last.  waiting: [level][sum][thread]. */
template <class S> static __device__ __forceinline__ void end_slice(struct sums<S> &v, float *waiting, int32_t slice, int32_t n_slices)
{
    int level = waiting_count(slice);

    for (int merges = merge_count(slice, n_slices); merges > 0; merges--) {
        level--;
#pragma unroll
        for (int i = 0; i < S::SUMS; i++) {
            float &sum = v.slice[i / (S::X_TILES * 4)][i / 4 % S::X_TILES][i % 4];

            sum = __fadd_rn(waiting[(level * S::SUMS + i) * S::THREADS + (int)threadIdx.x], sum);
        }
    }
    if (slice + 1 == n_slices)
        return;
#pragma unroll
    for (int i = 0; i < S::SUMS; i++)
        waiting[(level * S::SUMS + i) * S::THREADS + (int)threadIdx.x] =
            v.slice[i / (S::X_TILES * 4)][i / 4 % S::X_TILES][i % 4];
}

/* All segments that end at this block. */
template <class W, class S>
static __device__ __forceinline__ void end_block(struct sums<S> &v, struct segment &s, const struct cuda_product &a,
                                                 const struct place &at, float *waiting, int32_t block)
{
    enum { BLOCKS = segment_of<W>::BLOCKS, IS_I8 = segment_of<W>::IS_I8 };

    while (s.slice < a.w.cut.n_slices && s.end == block) {
        end_segment<IS_I8, S>(v, a, at, s);
        if (s.ends_slice && a.w.cut.n_slices > 1)
            end_slice<S>(v, waiting, s.slice, a.w.cut.n_slices);
        s = next_segment(a.w.cut, BLOCKS, s);
    }
}

template <class S>
static __device__ __forceinline__ void write_sums(const struct sums<S> &v, const struct cuda_product &a, const struct place &at)
{
#pragma unroll
    for (int m = 0; m < ROW_TILES; m++)
#pragma unroll
        for (int c = 0; c < 4; c += 2) {
            int32_t output = find_output(at, m, c);
            float   bias = a.bias != NULL && output < a.w.n ? a.bias[output] : 0.0f;

#pragma unroll
            for (int i = 0; i < S::X_TILES * 2; i++) {
                int32_t row = find_row(at, i / 2, c + i % 2);
                float   sum = v.slice[m][i / 2][c + i % 2];

                if (output < a.w.n && row < a.n_rows)
                    a.out[row * a.out_stride + output] = a.bias != NULL ? __fadd_rn(sum, bias) : sum;
            }
        }
}

template <class W, class S>
static __global__ void __launch_bounds__(S::THREADS, S::BLOCKS_PER_SM) tile_product(const struct cuda_product a)
{
    phx_begin();
    enum { STAGE_BYTES = stage_bytes<W, S>() };
    PHX_SHARED(unsigned char, stages);
    float          *waiting = (float *)(void *)(stages + STAGES * STAGE_BYTES);
    int             warp = (int)threadIdx.x / PHX_WARP;
    struct sums<S>  v = {};
    struct segment  s = first_segment(a.w.cut, segment_of<W>::BLOCKS);
    struct place    at = {(int32_t)blockIdx.x * S::OUTPUT_TILES, (int32_t)blockIdx.y * S::ALL_X_TILES,
                          warp % S::OUTPUT_WARPS * ROW_TILES, warp / S::OUTPUT_WARPS * S::X_TILES,
                          (int)threadIdx.x % PHX_WARP};

    for (int i = 0; i < STAGES - 1; i++)
        load_stage<W, S>(stages + i * STAGE_BYTES, a, at, i);
    end_block<W, S>(v, s, a, at, waiting, 0);
    for (int32_t block = 0; block < a.w.cut.n_blocks; block++) {
        phx_cp_async_wait<STAGES - 2>();
        __syncthreads(); /* this block is there, and all are done with the one before */
        load_stage<W, S>(stages + (block + STAGES - 1) % STAGES * STAGE_BYTES, a, at, block + STAGES - 1);
        add_stage<W, S>(v, stages + block % STAGES * STAGE_BYTES, at);
        end_block<W, S>(v, s, a, at, waiting, block + 1);
    }
    phx_cp_async_wait<0>();
    write_sums<S>(v, a, at);
}

template <class W, class S> static int launch(cudaStream_t stream, const struct cuda_product *a)
{
    size_t shared = (size_t)STAGES * (size_t)stage_bytes<W, S>();
    dim3   grid(count_pieces(a->w.n, S::OUTPUTS), count_pieces(a->n_rows, S::ROWS));

    if (a->w.cut.n_slices > 1)
        shared += (size_t)SLICE_LEVELS * S::SUMS * S::THREADS * sizeof(float);
    return PHX_LAUNCH((tile_product<W, S>), grid, S::THREADS, shared, stream, *a);
}

template <class W> static int launch_shape(cudaStream_t stream, const struct cuda_product *a, bool is_large)
{
    return is_large ? launch<W, large_shape>(stream, a) : launch<W, small_shape>(stream, a);
}

int phx_cuda_matmul_tile(cudaStream_t stream, const struct cuda_product *a, bool is_large)
{
    switch (a->w.dtype) {
    case PHX_DTYPE_I8: return launch_shape<cuda_i8>(stream, a, is_large);
    case PHX_DTYPE_MXFP4: return launch_shape<cuda_mxfp4>(stream, a, is_large);
    default: return launch_shape<cuda_bf16>(stream, a, is_large);
    }
}
