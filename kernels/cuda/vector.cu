/* SPDX-License-Identifier: Apache-2.0
 * Operations on one row.  A row's order of operations is fixed by its length alone; rows that are aligned to 16 bytes
 * are read four floats at a time, in the same order. */
#include "kernels/cuda/rows.cuh"

template <bool is_vector> static __global__ void __launch_bounds__(THREADS) rmsnorm_kernel(struct cuda_rows_call c)
{
    ask_ahead<is_vector>(c.y, c.n);
    phx_begin();
    __shared__ float shared[PHX_WARP];
    const float     *x = c.x + (int64_t)blockIdx.x * c.x_stride;
    float           *out = c.out + (int64_t)blockIdx.x * c.out_stride;
    float            sum = 0.0f, scale;

    for (int i = (int)threadIdx.x * PER_THREAD; i < c.n; i += STEP) {
        float4 v = load4<is_vector>(x, i, c.n);

        sum = fmaf(v.x, v.x, sum);
        sum = fmaf(v.y, v.y, sum);
        sum = fmaf(v.z, v.z, sum);
        sum = fmaf(v.w, v.w, sum);
    }
    sum = phx_block_sum(sum, shared, WARPS);
    scale = 1.0f / sqrtf(sum / (float)c.n + c.eps);
    for (int i = (int)threadIdx.x * PER_THREAD; i < c.n; i += STEP) {
        float4 v = load4<is_vector>(x, i, c.n), g = load4<is_vector>(c.y, i, c.n);

        store4<is_vector>(out, i, c.n,
                          make_float4(v.x * scale * g.x, v.y * scale * g.y, v.z * scale * g.z, v.w * scale * g.w));
    }
}

template <bool is_vector> static __global__ void __launch_bounds__(THREADS) add_norm_kernel(struct cuda_add_norm_call c)
{
    ask_ahead<is_vector>(c.gain, c.n);
    ask_ahead<is_vector>(c.bias, c.n);
    phx_begin();
    __shared__ float shared[PHX_WARP];
    const float     *y = c.y + (int64_t)blockIdx.x * c.y_stride;

    add_norm_row<is_vector>(c, (int)blockIdx.x, shared, [&](int i) { return load4<is_vector>(y, i, c.n); });
}

static __device__ __forceinline__ float glu(enum phx_glu kind, float gate, float up, float limit)
{
    float g, u;

    if (kind == PHX_GLU_SILU)
        return gate / (1.0f + phx_exp(-gate)) * up;
    g = gate > limit ? limit : gate; /* NaN stays */
    u = up > limit ? limit : up;
    u = u < -limit ? -limit : u;
    return g / (1.0f + phx_exp(g * -1.702f)) * (u + 1.0f);
}

template <bool is_vector> static __global__ void __launch_bounds__(THREADS) swiglu_kernel(struct cuda_rows_call c)
{
    phx_begin();
    const float *x = c.x + (int64_t)blockIdx.x * c.x_stride;
    float       *out = c.out + (int64_t)blockIdx.x * c.out_stride;
    int          i = ((int)blockIdx.y * THREADS + (int)threadIdx.x) * PER_THREAD;
    float4       g = load4<is_vector>(x, i, c.n), u = load4<is_vector>(x + c.n, i, c.n);

    store4<is_vector>(out, i, c.n,
                      make_float4(glu(c.kind, g.x, u.x, c.limit), glu(c.kind, g.y, u.y, c.limit),
                                  glu(c.kind, g.z, u.z, c.limit), glu(c.kind, g.w, u.w, c.limit)));
}

template <bool is_vector> static __global__ void __launch_bounds__(THREADS) add_kernel(struct cuda_rows_call c)
{
    phx_begin();
    const float *x = c.x + (int64_t)blockIdx.x * c.x_stride, *y = c.y + (int64_t)blockIdx.x * c.y_stride;
    float       *out = c.out + (int64_t)blockIdx.x * c.out_stride;
    int          i = ((int)blockIdx.y * THREADS + (int)threadIdx.x) * PER_THREAD;
    float4       a = load4<is_vector>(x, i, c.n), b = load4<is_vector>(y, i, c.n);

    store4<is_vector>(out, i, c.n, make_float4(a.x + b.x, a.y + b.y, a.z + b.z, a.w + b.w));
}

template <bool is_vector> static __global__ void __launch_bounds__(THREADS) gather_kernel(struct cuda_rows_call c)
{
    phx_begin();
    const float *x = c.x + (int64_t)c.row_of[blockIdx.x] * c.x_stride;
    float       *out = c.out + (int64_t)blockIdx.x * c.out_stride;
    int          i = ((int)blockIdx.y * THREADS + (int)threadIdx.x) * PER_THREAD;

    store4<is_vector>(out, i, c.n, load4<is_vector>(x, i, c.n));
}

static __global__ void __launch_bounds__(THREADS) rope_kernel(struct cuda_rope_call c)
{
    phx_begin();
    int row = (int)blockIdx.x, i = (int)blockIdx.y * THREADS + (int)threadIdx.x, head = i / c.half, j = i % c.half;

    if (head >= c.n_heads || c.spans.seq_of_row[row] < 0)
        return;
    int64_t pos = c.spans.pos_of_row[row];
    float  *x = c.x + row * c.x_stride + (int64_t)head * 2 * c.half + j;
    float   a = x[0], b = x[c.half], cos = c.cos[pos * c.cos_stride + j], sin = c.sin[pos * c.sin_stride + j];

    x[0] = fmaf(-b, sin, a * cos);
    x[c.half] = fmaf(a, sin, b * cos);
}

static bool is_aligned(const void *p, int64_t stride)
{
    return (uintptr_t)p % sizeof(float4) == 0 && stride % PER_THREAD == 0;
}

/* Whether every row begins at 16 bytes and has whole fours. */
static bool can_vector(const struct cuda_rows_call *c)
{
    return c->n % PER_THREAD == 0 && is_aligned(c->out, c->out_stride) && is_aligned(c->x, c->x_stride) &&
           (c->y == NULL || is_aligned(c->y, c->y_stride));
}

static dim3 flat_grid(const struct cuda_rows_call *c)
{
    return dim3((unsigned)c->n_rows, (unsigned)((c->n + STEP - 1) / STEP));
}

int phx_cuda_rmsnorm_rows(cudaStream_t stream, const struct cuda_rows_call *c)
{
    return PHX_LAUNCH(can_vector(c) ? rmsnorm_kernel<true> : rmsnorm_kernel<false>, (unsigned)c->n_rows, THREADS, 0,
                      stream, *c);
}

int phx_cuda_swiglu_rows(cudaStream_t stream, const struct cuda_rows_call *c)
{
    return PHX_LAUNCH(can_vector(c) ? swiglu_kernel<true> : swiglu_kernel<false>, flat_grid(c), THREADS, 0, stream, *c);
}

int phx_cuda_add_rows(cudaStream_t stream, const struct cuda_rows_call *c)
{
    return PHX_LAUNCH(can_vector(c) ? add_kernel<true> : add_kernel<false>, flat_grid(c), THREADS, 0, stream, *c);
}

bool phx_cuda_add_norm_is_vector(const struct cuda_add_norm_call *c)
{
    return c->n % PER_THREAD == 0 && is_aligned(c->x, c->x_stride) && is_aligned(c->y, c->y_stride) && is_aligned(c->bias, 0) &&
           is_aligned(c->gain, 0) && is_aligned(c->norm, c->norm_stride) && is_aligned(c->expert_bias, c->expert_stride);
}

int phx_cuda_add_norm_rows(cudaStream_t stream, const struct cuda_add_norm_call *c)
{
    return PHX_LAUNCH(phx_cuda_add_norm_is_vector(c) ? add_norm_kernel<true> : add_norm_kernel<false>, (unsigned)c->n_rows, THREADS, 0, stream,
                      *c);
}

int phx_cuda_gather(cudaStream_t stream, const struct cuda_rows_call *c)
{
    return PHX_LAUNCH(can_vector(c) ? gather_kernel<true> : gather_kernel<false>, flat_grid(c), THREADS, 0, stream, *c);
}

int phx_cuda_rope_rows(cudaStream_t stream, const struct cuda_rope_call *c)
{
    dim3 grid((unsigned)c->spans.n_rows_total, (unsigned)((c->n_heads * c->half + THREADS - 1) / THREADS));

    return PHX_LAUNCH(rope_kernel, grid, THREADS, 0, stream, *c);
}
