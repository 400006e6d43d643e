/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: products of few rows that go on with their outputs in the same launch: rotation and cache, gated units,
 * the sum and norm at the end of a branch.  Outputs, and what is made of them, have the bits of single launches. */
#ifndef PHX_KERNELS_CUDA_MATMUL_ENDS_H
#define PHX_KERNELS_CUDA_MATMUL_ENDS_H

#include "kernels/cuda/ending.h"
#include "kernels/cuda/kv.h"
#include "kernels/cuda/matmul.h"

#ifdef __cplusplus
extern "C" {
#endif

/* All of products as for phx_cuda_matmul_stream(): BF16, x as they are, up to 8 rows (pick_matmul.h); out is NULL. */

/* Outputs are queries, keys and values of a step, as of rope->x with the values behind; rope->write.v is not used.  Rows of no
 * sequence keep their queries as they are. */
int phx_cuda_matmul_rotate(cudaStream_t stream, const struct cuda_product *call, const struct cuda_rope_write *rope);

/* out [n_rows][n / 2], rows out_stride apart. */
struct cuda_glu_end {
    float       *out;
    int64_t      out_stride;
    enum phx_glu kind;
    float        limit;
};
int phx_cuda_matmul_gate(cudaStream_t stream, const struct cuda_product *call, const struct cuda_glu_end *glu);

/* x += the outputs and their bias; the last block norms.  16 or 32 outputs a block. */
int phx_cuda_matmul_end(cudaStream_t stream, const struct cuda_product *call, const struct cuda_ending *end, int row_tiles);

/* Entries of struct phx_ops. */
const char *phx_cuda_matmul_rope_write(void *device, const struct phx_matmul_rope_args *args, const void *w, void *kv);
const char *phx_cuda_matmul_glu(void *device, const struct phx_matmul_glu_args *args, const void *w);
const char *phx_cuda_matmul_add_norm(void *device, struct phx_tensor x, const void *w, const struct phx_add_norm_args *end);

#ifdef __cplusplus
}
#endif
#endif
