/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: NCCL and peer memory (peer.h) on the backend's stream, behind
 * kernels/exchange.h. */
#ifndef PHX_KERNELS_CUDA_EXCHANGE_H
#define PHX_KERNELS_CUDA_EXCHANGE_H

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* to[i] = the sum of parts[r][i] over n_parts ranks in the order of phx_comm_sum(): a tree of adjacent pairs when their
 * number is a power of two, else from rank 0 up.  parts [n_parts][n], dense. */
struct cuda_parts_call {
    float       *to;
    const float *parts;
    int64_t      n;
    int32_t      n_parts; /* at most CUDA_PARTS_MAX */
};
enum { CUDA_PARTS_MAX = 64 };
int phx_cuda_add_parts(cudaStream_t stream, const struct cuda_parts_call *call);

struct phx_exchange_ops;
extern const struct phx_exchange_ops phx_cuda_exchange_ops;

#ifdef __cplusplus
}
#endif
#endif
