/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: which way a sum over ranks goes.  Pure functions; none changes a bit of a result in class
 * bitwise. */
#ifndef PHX_KERNELS_CUDA_PICK_PEER_H
#define PHX_KERNELS_CUDA_PICK_PEER_H

#include "kernels/exchange.h"

#ifdef __cplusplus
extern "C" {
#endif

enum {
    CUDA_PEERS_MAX = PHX_EXCHANGE_PEERS_MAX,
    CUDA_PEER_THREADS = 256,
    CUDA_PEER_BLOCKS_MAX = 32,
    /* The crossover, predicted and not measured.  A rank sends its part to n - 1 peers either way in class bitwise; what
     * one launch saves (5 us against 20 us) is the time of 6 MiB over NVLink.  In class fast the library's ring sends
     * 2 (n - 1) / n parts, which is even at 1.2 MiB and 8 ranks over NVLink, at 0.1 MiB over PCIe.  Half a MiB
     * holds the activations of 44 rows of 2880 floats and costs 8 MiB of memory at 8 ranks. */
    CUDA_PEER_BYTES = 512 << 10
};

enum cuda_sum_way {
    CUDA_SUM_PEER = 1, /* one launch, each rank writes to all others' memory */
    CUDA_SUM_PIECES,   /* the same, CUDA_PEER_BYTES at a time: there is no library */
    CUDA_SUM_LIBRARY   /* NCCL */
};

/* Of size_bytes, the most of a rank.  One of has_peers and has_library is true. */
enum cuda_sum_way phx_cuda_pick_sum(size_t size_bytes, bool has_peers, bool has_library);
const char *phx_cuda_sum_way_name(enum cuda_sum_way way);

/* Blocks for n floats of a piece, at least 1: few, since the blocks of several ranks may share one device and wait
 * for each other there. */
unsigned phx_cuda_peer_blocks(int64_t n);

/* Whether a sum of rows that ends a branch is one launch with what follows it: a row is one block's, to its norm. */
bool phx_cuda_pick_peer_end(int32_t n_rows, int32_t n, bool has_peers);
/* Blocks for that many rows, at least 1. */
unsigned phx_cuda_peer_end_blocks(int32_t n_rows);

#ifdef __cplusplus
}
#endif
#endif
