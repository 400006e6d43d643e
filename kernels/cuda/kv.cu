/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/kv.cuh"
#include "kernels/cuda/quantise.cuh"

enum { THREADS = 256, WARPS = THREADS / PHX_WARP, DIM_MAX = 512, GROUPS_MAX = DIM_MAX / (I8_OF_LANE * PHX_WARP) };

static __global__ void __launch_bounds__(THREADS) write_kernel(struct cuda_kv_write c)
{
    phx_begin();
    int row = (int)blockIdx.x, i = (int)blockIdx.y * THREADS + (int)threadIdx.x;
    int seq = c.spans.seq_of_row[row];

    if (seq < 0 || i >= c.kv.kv_heads * c.kv.head_dim)
        return;
    int64_t at = kv_place(c, row, seq, i);

    kv_put(c.kv, at, c.k[row * c.k_stride + i]);
    kv_put(c.kv, at + c.kv.v_offset, c.v[row * c.v_stride + i]);
}

/* Numbers j and j + half of a head, rotated as by rope_kernel. */
struct pair {
    float first, second;
};

static __device__ __forceinline__ struct pair rotate(const struct cuda_rope_write &c, int row, int head, int j)
{
    int          half = c.write.kv.head_dim / 2;
    int64_t      pos = c.write.spans.pos_of_row[row];
    const float *x = c.x + row * c.x_stride + (int64_t)head * 2 * half + j;
    float        a = x[0], b = x[half], cos = c.cos[pos * c.cos_stride + j], sin = c.sin[pos * c.sin_stride + j];

    return {fmaf(-b, sin, a * cos), fmaf(a, sin, b * cos)};
}

static __device__ __forceinline__ void rotate_query(const struct cuda_rope_write &c, int row, int head, int j)
{
    struct pair p = rotate(c, row, head, j);
    float      *x = c.x + row * c.x_stride + (int64_t)head * c.write.kv.head_dim + j;

    x[0] = p.first;
    x[c.write.kv.head_dim / 2] = p.second;
}

/* A thread per pair of a head; of a key's head it has two values too. */
static __global__ void __launch_bounds__(THREADS) rope_write_kernel(struct cuda_rope_write c)
{
    phx_begin();
    const struct cuda_kv_view &kv = c.write.kv;
    int half = kv.head_dim / 2, row = (int)blockIdx.x, i = (int)blockIdx.y * THREADS + (int)threadIdx.x;
    int head = i / half, j = i % half, seq = c.write.spans.seq_of_row[row];

    if (seq < 0 || head >= c.n_heads + kv.kv_heads)
        return;
    if (head < c.n_heads) {
        rotate_query(c, row, head, j);
        return;
    }
    struct pair  p = rotate(c, row, head, j);
    int          of_keys = (head - c.n_heads) * kv.head_dim + j;
    int64_t      at = kv_place(c.write, row, seq, of_keys);
    const float *v = c.write.v + row * c.write.v_stride + of_keys;

    kv_put(kv, at, p.first);
    kv_put(kv, at + half, p.second);
    kv_put(kv, at + kv.v_offset, v[0]);
    kv_put(kv, at + kv.v_offset + half, v[half]);
}

/* ---- bytes ------------------------------------------------------------------------------------- */

/* By one warp: head_dim numbers, get(d), with one scale. */
template <class Get>
static __device__ __forceinline__ void write_bytes(const Get &get, int head_dim, bool is_f8, unsigned char *to, float *scale_at)
{
    int   lane = (int)threadIdx.x % PHX_WARP;
    float v[GROUPS_MAX][I8_OF_LANE], scale = 0;

#pragma unroll
    for (int g = 0; g < GROUPS_MAX; g++) {
        float own;

#pragma unroll
        for (int i = 0; i < I8_OF_LANE; i++) {
            int d = (g * I8_OF_LANE + i) * PHX_WARP + lane;

            v[g][i] = d < head_dim ? get(d) : 0.0f;
        }
        own = find_scale(v[g], is_f8 ? PHX_F8_MAX : 127.0f);
        scale = scale >= own ? scale : scale < own ? own : __uint_as_float(0x7fc00000u); /* one NaN is enough */
    }
#pragma unroll
    for (int g = 0; g < GROUPS_MAX; g++)
#pragma unroll
        for (int i = 0; i < I8_OF_LANE; i++) {
            int d = (g * I8_OF_LANE + i) * PHX_WARP + lane;

            if (d < head_dim)
                to[d] = (unsigned char)(is_f8 ? f8_quantise(v[g][i], scale) : i8_quantise(v[g][i], scale));
        }
    if (lane == 0)
        *scale_at = scale;
}

/* By one warp: the keys (or values) of a head of a row of sequence `seq`. */
template <class Get>
static __device__ __forceinline__ void put_bytes(const struct cuda_kv_write &c, int row, int seq, int head, bool is_value,
                                              const Get &get)
{
    int            pos = c.spans.pos_of_row[row], offset = pos % c.kv.block_tokens;
    int            block = c.spans.table[(int64_t)seq * c.spans.table_stride + pos / c.kv.block_tokens];
    unsigned char *data = static_cast<unsigned char *>(c.kv.data) + (is_value ? c.kv.v_offset : 0);

    write_bytes(get, c.kv.head_dim, c.kv.kind == CUDA_KV_F8, data + cuda_kv_at(&c.kv, block, head, offset),
                reinterpret_cast<float *>(data + cuda_kv_scale_at(&c.kv, block, head, offset)));
}

/* A warp per row, head, and keys or values. */
static __global__ void __launch_bounds__(THREADS) write_bytes_kernel(struct cuda_kv_write c)
{
    phx_begin();
    int row = (int)blockIdx.x, which = (int)blockIdx.y * WARPS + (int)threadIdx.x / PHX_WARP;
    int head = which / 2, seq = c.spans.seq_of_row[row];

    if (seq < 0 || head >= c.kv.kv_heads) /* the whole warp */
        return;
    const float *x = (which % 2 == 0 ? c.k + row * c.k_stride : c.v + row * c.v_stride) + (int64_t)head * c.kv.head_dim;

    put_bytes(c, row, seq, head, which % 2 != 0, [x](int d) { return x[d]; });
}

/* A warp per row and head of queries, of keys, of values. */
static __global__ void __launch_bounds__(THREADS) rope_write_bytes_kernel(struct cuda_rope_write c)
{
    phx_begin();
    const struct cuda_kv_view &kv = c.write.kv;
    int row = (int)blockIdx.x, head = (int)blockIdx.y * WARPS + (int)threadIdx.x / PHX_WARP, key = head - c.n_heads;
    int half = kv.head_dim / 2, seq = c.write.spans.seq_of_row[row];

    if (seq < 0 || key >= 2 * kv.kv_heads) /* the whole warp */
        return;
    if (key < 0)
        for (int j = (int)threadIdx.x % PHX_WARP; j < half; j += PHX_WARP)
            rotate_query(c, row, head, j);
    else if (key < kv.kv_heads)
        put_bytes(c.write, row, seq, key, false, [&c, row, head, half](int d) {
            struct pair p = rotate(c, row, head, d % half);

            return d < half ? p.first : p.second;
        });
    else {
        const float *v = c.write.v + row * c.write.v_stride + (int64_t)(key - kv.kv_heads) * kv.head_dim;

        put_bytes(c.write, row, seq, key - kv.kv_heads, true, [v](int d) { return v[d]; });
    }
}

int phx_cuda_kv_write_rows(cudaStream_t stream, const struct cuda_kv_write *c)
{
    bool     is_bytes = c->kv.kind == CUDA_KV_I8 || c->kv.kind == CUDA_KV_F8;
    unsigned n = (unsigned)(is_bytes ? 2 * c->kv.kv_heads : c->kv.kv_heads * c->kv.head_dim);
    unsigned of_block = is_bytes ? WARPS : THREADS;
    dim3     grid((unsigned)c->spans.n_rows_total, (n + of_block - 1) / of_block);

    return PHX_LAUNCH(is_bytes ? write_bytes_kernel : write_kernel, grid, THREADS, 0, stream, *c);
}

int phx_cuda_rope_write_rows(cudaStream_t stream, const struct cuda_rope_write *c)
{
    const struct cuda_kv_view *kv = &c->write.kv;
    bool     is_bytes = kv->kind == CUDA_KV_I8 || kv->kind == CUDA_KV_F8;
    unsigned n = (unsigned)(is_bytes ? c->n_heads + 2 * kv->kv_heads : (c->n_heads + kv->kv_heads) * kv->head_dim / 2);
    unsigned of_block = is_bytes ? WARPS : THREADS;
    dim3     grid((unsigned)c->write.spans.n_rows_total, (n + of_block - 1) / of_block);

    return PHX_LAUNCH(is_bytes ? rope_write_bytes_kernel : rope_write_kernel, grid, THREADS, 0, stream, *c);
}
