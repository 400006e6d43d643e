/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: operations on one row: norm, rotation, gated units, sums, choosing rows. */
#ifndef PHX_KERNELS_CUDA_VECTOR_H
#define PHX_KERNELS_CUDA_VECTOR_H

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* float32 rows [n_rows][n]; strides in floats. */
struct cuda_rows_call {
    float         *out;
    const float   *x, *y; /* y: gain, the second term, or sin; stride 0 where one row serves all */
    int64_t        out_stride, x_stride, y_stride;
    int32_t        n_rows, n;
    float          eps, limit;
    enum phx_glu   kind;
    const int32_t *row_of; /* [n_rows] which rows of x */
};

/* out = x / sqrt(mean(x^2) + eps) * y.  Thread t of 256 sums elements 4t .. 4t+3 of each 1024 by a chain of fused
 * multiply-adds, then the trees of phx_block_sum(). */
int phx_cuda_rmsnorm_rows(cudaStream_t stream, const struct cuda_rows_call *call);
/* out = glu(x[:, :n], x[:, n:]) */
int phx_cuda_swiglu_rows(cudaStream_t stream, const struct cuda_rows_call *call);
/* out = x + y */
int phx_cuda_add_rows(cudaStream_t stream, const struct cuda_rows_call *call);
/* Rows [n_rows][n]; NULL where a part is not asked for. */
struct cuda_add_norm_call {
    float         *x, *norm;
    const float   *y, *bias, *gain;
    const int32_t *ids; /* [n_rows][top_k], with gates and expert_bias [n_experts][n] */
    const float   *gates, *expert_bias;
    int64_t        x_stride, y_stride, norm_stride, ids_stride, gates_stride, expert_stride;
    int32_t        n_rows, n, top_k, n_experts;
    float          eps;
    int32_t       *fault;
};
/* x += y, which gets the biases first, and norm = rmsnorm(x): the operations of route.h's bias, of add and of rmsnorm in
 * their order.  A wrong expert id leaves the row and is a fault. */
int phx_cuda_add_norm_rows(cudaStream_t stream, const struct cuda_add_norm_call *call);
/* Every row can be read by fours. */
bool phx_cuda_add_norm_is_vector(const struct cuda_add_norm_call *call);
struct cuda_add_norm_call phx_cuda_add_norm_call(const struct cuda_device *d, const struct phx_add_norm_args *args);
/* out[i] = x[row_of[i]] */
int phx_cuda_gather(cudaStream_t stream, const struct cuda_rows_call *call);

struct cuda_rope_call {
    float            *x; /* [n_rows_total][n_heads * 2 * half], rows x_stride apart */
    const float      *cos, *sin;
    int64_t           x_stride, cos_stride, sin_stride;
    int32_t           n_heads, half;
    struct cuda_spans spans;
};

/* Pairs (j, j + half) of a head: a cos - b sin, b cos + a sin. */
int phx_cuda_rope_rows(cudaStream_t stream, const struct cuda_rope_call *call);

/* Entries of struct phx_ops. */
void phx_cuda_rmsnorm(void *device, struct phx_tensor out, struct phx_tensor x, struct phx_tensor gain, float eps);
void phx_cuda_rope(void *device, struct phx_tensor x, int32_t head_dim, const struct phx_spans *spans,
                   struct phx_tensor cos, struct phx_tensor sin);
void phx_cuda_swiglu(void *device, struct phx_tensor out, struct phx_tensor gate_up, enum phx_glu kind, float limit);
void phx_cuda_add(void *device, struct phx_tensor x, struct phx_tensor y);
void phx_cuda_add_row(void *device, struct phx_tensor x, struct phx_tensor row);
void phx_cuda_add_norm(void *device, const struct phx_add_norm_args *args);
void phx_cuda_gather_rows(void *device, struct phx_tensor out, struct phx_tensor x, const int32_t *rows);

#ifdef __cplusplus
}
#endif
#endif
