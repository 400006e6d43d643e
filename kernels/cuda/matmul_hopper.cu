/* SPDX-License-Identifier: Apache-2.0
 * Products of many rows with one matrix on warpgroups, and the activations they take. */
#include "kernels/cuda/hopper_tile.cuh"

/* ---- activations ----------------------------------------------------------------------------- */

enum { ROUND_THREADS = 256, CHUNK_K = 8, ATOM_CHUNKS = PHX_ATOM_K / CHUNK_K };

/* A thread rounds a chunk of a row; rows and k that are not there are zeros. */
static __global__ void __launch_bounds__(ROUND_THREADS) round_rows(const __grid_constant__ struct cuda_round a)
{
    phx_begin();
    int64_t item = (int64_t)blockIdx.x * ROUND_THREADS + threadIdx.x;
    int32_t rows = (a.n_rows + PHX_ATOM_ROWS - 1) / PHX_ATOM_ROWS * PHX_ATOM_ROWS;
    int32_t n_chunks = (a.cut.n_blocks + 1) / 2 * ATOM_CHUNKS;
    int32_t row = (int32_t)(item / n_chunks), chunk = (int32_t)(item % n_chunks), in_atom = chunk % ATOM_CHUNKS;

    if (row < rows)
        ((uint4 *)a.out)[((int64_t)(chunk / ATOM_CHUNKS) * rows + row) * ATOM_CHUNKS + phx_swizzle_chunk(row, in_atom)] =
            hopper_round_chunk(a.cut, chunk, a.x + row * a.x_stride, row < a.n_rows);
}

int phx_cuda_round_atoms(cudaStream_t stream, const struct cuda_round *a)
{
    int64_t chunks = (int64_t)count_pieces(a->n_rows, PHX_ATOM_ROWS) * PHX_ATOM_ROWS * ((a->cut.n_blocks + 1) / 2 * ATOM_CHUNKS);

    return PHX_LAUNCH(round_rows, (unsigned)((chunks + ROUND_THREADS - 1) / ROUND_THREADS), ROUND_THREADS, 0, stream, *a);
}

/* ---- products -------------------------------------------------------------------------------- */

template <class S> struct matmul_job {
    enum { ADDS_TO_ZERO = 0 };
    struct cuda_weight_view w;
    struct cuda_atoms       x;
    const float            *bias;
    float                  *out;
    int64_t                 out_stride;
    int32_t                 n_rows, n_output_groups;

    __device__ __forceinline__ int32_t n_pieces() const
    {
        return n_output_groups * ((n_rows + S::X_ROWS - 1) / S::X_ROWS);
    }

    __device__ __forceinline__ struct hopper_piece find_piece(int32_t i) const
    {
        int32_t first = i / n_output_groups * S::X_ROWS, n = min(n_rows - first, (int32_t)S::X_ROWS);

        return {0, i % n_output_groups, first, (n + PHX_ATOM_ROWS - 1) / PHX_ATOM_ROWS * PHX_ATOM_ROWS, first, n};
    }

    __device__ __forceinline__ int32_t find_tile(const struct hopper_piece &p, int slot) const
    {
        int32_t tile = p.output_group * S::ROW_TILES + slot;

        return tile * CUDA_TILE_ROWS < w.n ? tile : -1;
    }

    __device__ __forceinline__ void end_slice(const struct hopper_piece &, int32_t, struct hopper_sums<S> &) const {}

    __device__ __forceinline__ void end_piece(const struct hopper_piece &p, struct hopper_sums<S> &v) const
    {
        int32_t tile = p.output_group * S::ROW_TILES + (int32_t)threadIdx.x / PHX_WARP * S::M_TILES;

#pragma unroll
        for (int m = 0; m < S::M_TILES; m++)
#pragma unroll
            for (int c = 0; c < 4; c += 2) {
                int32_t output = (tile + m) * CUDA_TILE_ROWS + hopper_output_of(c);
                float   b = bias != NULL && output < w.n ? bias[output] : 0.0f;

#pragma unroll
                for (int i = 0; i < S::SUMS / 2; i++) {
                    int     at = i / 2 * 4 + c + i % 2;
                    int32_t row = hopper_row_of(at);

                    if (output < w.n && row < p.n)
                        out[(p.first + row) * out_stride + output] =
                            bias != NULL ? __fadd_rn(v.slice[m][at], b) : v.slice[m][at];
                }
            }
    }
};

template <class S> static __global__ void __launch_bounds__(HOPPER_THREADS, 1) hopper_product(const __grid_constant__ matmul_job<S> job)
{
    phx_begin();
    PHX_SHARED(unsigned char, shared);

    hopper_run<S>(job, shared);
}

template <class S> static int launch(cudaStream_t stream, const struct cuda_product *a, int32_t n_blocks)
{
    matmul_job<S> job = {};
    int32_t       pieces;

    job.w = a->w;
    job.x.data = (const unsigned char *)a->rounded;
    job.x.atom_bytes = cuda_round_up((size_t)a->n_rows, PHX_ATOM_ROWS) * CUDA_HOPPER_ROW_BYTES;
    job.bias = a->bias;
    job.out = a->out;
    job.out_stride = a->out_stride;
    job.n_rows = a->n_rows;
    job.n_output_groups = (int32_t)count_pieces(a->w.n, S::OUTPUTS);
    pieces = job.n_output_groups * (int32_t)count_pieces(a->n_rows, S::X_ROWS);
    return PHX_LAUNCH((hopper_product<S>), (unsigned)(pieces < n_blocks ? pieces : n_blocks), HOPPER_THREADS, hopper_shared_bytes<S>(),
                      stream, job);
}

/* Slices wait for their neighbours in registers: half the rows. */
template <class W> static int launch_shape(cudaStream_t stream, const struct cuda_product *a, int32_t n_blocks)
{
    return a->w.cut.n_slices > 1 ? launch<hopper_shape<W, 1, 64, SLICE_LEVELS>>(stream, a, n_blocks)
                                 : launch<hopper_shape<W, 1, 128, 0>>(stream, a, n_blocks);
}

int phx_cuda_matmul_hopper(cudaStream_t stream, const struct cuda_product *a, int32_t n_blocks)
{
    return a->w.dtype == PHX_DTYPE_MXFP4 ? launch_shape<cuda_mxfp4>(stream, a, n_blocks)
                                         : launch_shape<cuda_bf16>(stream, a, n_blocks);
}
