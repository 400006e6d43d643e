/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: which experts a row goes to, and their biases. */
#ifndef PHX_KERNELS_CUDA_ROUTE_H
#define PHX_KERNELS_CUDA_ROUTE_H

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

struct cuda_route_call {
    int32_t     *ids;    /* [n_rows][top_k] */
    float       *gates;  /* [n_rows][top_k] */
    const float *logits; /* [n_rows][n_experts] */
    int64_t      ids_stride, gates_stride, logits_stride;
    int32_t      n_rows, n_experts, top_k;
};

struct cuda_route_call phx_cuda_route_call(struct phx_tensor ids, struct phx_tensor gates, struct phx_tensor logits);

/* A row's top_k experts, largest logit first (the lowest index on ties, NaN last), and the softmax over them: sums in
 * that order. */
int phx_cuda_route_rows(cudaStream_t stream, const struct cuda_route_call *call);

struct cuda_expert_bias_call {
    float         *x;    /* [n_rows][n] */
    const int32_t *ids;  /* [n_rows][top_k] */
    const float   *gates;
    const float   *bias; /* [n_experts][n] */
    int64_t        x_stride, ids_stride, gates_stride, bias_stride;
    int32_t        n_rows, n, top_k, n_experts;
    int32_t       *fault;
};

/* x = fma(gate, bias of the expert, x) in the order of ids; a wrong id leaves the row and is a fault. */
int phx_cuda_expert_bias(cudaStream_t stream, const struct cuda_expert_bias_call *call);

/* Entries of struct phx_ops. */
void        phx_cuda_moe_route(void *device, struct phx_tensor ids, struct phx_tensor gates, struct phx_tensor logits);
const char *phx_cuda_moe_bias(void *device, struct phx_tensor x, struct phx_tensor ids, struct phx_tensor gates,
                              struct phx_tensor bias);

#ifdef __cplusplus
}
#endif
#endif
