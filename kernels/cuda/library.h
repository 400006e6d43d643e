/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: dense products of many rows by cuBLASLt, for class B only: which of its algorithms runs, and
 * so the order of its sums, is the library's choice.  It is looked for at first use; no program and no package needs it.
 * Weights keep the order of weight.h: some rows at a time are written out row by row before the library reads them. */
#ifndef PHX_KERNELS_CUDA_LIBRARY_H
#define PHX_KERNELS_CUDA_LIBRARY_H

#include "kernels/cuda/matmul.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Bytes of scratch for n_rows rows of activations with such a weight. */
size_t phx_cuda_library_scratch(const struct phx_weight_desc *w, int32_t n_rows);
/* The product of BF16 weights and plain rows (p->x).  False when there is no library or it does not take the shape: then
 * another kernel must do it.  Errors of the device are kept. */
bool phx_cuda_library_multiply(struct cuda_device *d, const struct cuda_product *p);
void phx_cuda_library_close(struct cuda_device *d);
/* Looks for it at once: it takes memory of the device when it starts. */
void phx_cuda_library_open(struct cuda_device *d);

/* The library's product of two square bf16 matrices of edge n, each row by row: c = a b^T in float32, to be measured.
 * NULL when there is no library or it does not take the shape; a call that fails keeps an error. */
struct cuda_library_square;
struct cuda_library_square *phx_cuda_library_square(struct cuda_device *d, const void *a, const void *b, float *c, int32_t n);
bool phx_cuda_library_run(struct cuda_library_square *square);
void phx_cuda_library_square_free(struct cuda_library_square *square);

/* Rows first_row .. first_row + n_rows - 1 of a BF16 matrix as bf16 [n_rows][stride]. */
struct cuda_write_out {
    struct cuda_weight_view w;
    int32_t                 first_row, n_rows; /* first_row begins a tile */
    uint16_t               *out;
    int64_t                 stride; /* even */
};
int phx_cuda_write_out(cudaStream_t stream, const struct cuda_write_out *call);

/* Rows of floats as bf16 [n_rows][stride], zeros behind k. */
struct cuda_round_plain {
    const float *x;
    int64_t      x_stride;
    int32_t      n_rows, k;
    uint16_t    *out;
    int64_t      stride; /* even */
};
int phx_cuda_round_plain(cudaStream_t stream, const struct cuda_round_plain *call);

#ifdef __cplusplus
}
#endif
#endif
