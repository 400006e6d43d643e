/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/pick_peer.h"

enum { FLOATS_OF_THREAD = 4 };

enum cuda_sum_way phx_cuda_pick_sum(size_t size_bytes, bool has_peers, bool has_library)
{
    if (has_peers && size_bytes <= CUDA_PEER_BYTES)
        return CUDA_SUM_PEER;
    return has_library ? CUDA_SUM_LIBRARY : CUDA_SUM_PIECES;
}

const char *phx_cuda_sum_way_name(enum cuda_sum_way way)
{
    switch (way) {
    case CUDA_SUM_PEER: return "peer";
    case CUDA_SUM_PIECES: return "pieces";
    case CUDA_SUM_LIBRARY: return "library";
    }
    return "?";
}

bool phx_cuda_pick_peer_end(int32_t n_rows, int32_t n, bool has_peers)
{
    return has_peers && (size_t)n_rows * (size_t)n * sizeof(float) <= CUDA_PEER_BYTES;
}

unsigned phx_cuda_peer_end_blocks(int32_t n_rows)
{
    if (n_rows < 1)
        return 1;
    return n_rows < CUDA_PEER_BLOCKS_MAX ? (unsigned)n_rows : CUDA_PEER_BLOCKS_MAX;
}

unsigned phx_cuda_peer_blocks(int64_t n)
{
    int64_t of_block = (int64_t)CUDA_PEER_THREADS * FLOATS_OF_THREAD, want = (n + of_block - 1) / of_block;

    if (want < 1)
        return 1;
    return want < CUDA_PEER_BLOCKS_MAX ? (unsigned)want : CUDA_PEER_BLOCKS_MAX;
}
