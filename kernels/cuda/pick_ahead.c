/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/pick_ahead.h"

enum {
    BLOCKS_PER_SM = 4,      /* that begin before their turn: later ones have it when they begin */
    L2_SHARE = 2,           /* half of the cache; the rest is for what the launch before reads */
    BYTES_MAX = 1 << 20,    /* of one hint, less */
    BYTES_MIN = 1024,       /* fewer come sooner than the hint pays */
    LINE = 128
};

struct cuda_ahead phx_cuda_pick_ahead(size_t l2_bytes, int sm_count, int64_t n_tiles, int tiles_per_block, size_t tile_bytes)
{
    int64_t           early = (int64_t)sm_count * BLOCKS_PER_SM * tiles_per_block;
    struct cuda_ahead a = {0, 0};
    size_t            bytes;

    early = n_tiles < early ? n_tiles : early;
    if (early <= 0)
        return a;
    bytes = l2_bytes / L2_SHARE / (size_t)early / LINE * LINE;
    bytes = bytes < tile_bytes ? bytes : tile_bytes;
    bytes = bytes < BYTES_MAX ? bytes : BYTES_MAX - LINE;
    if (bytes >= BYTES_MIN)
        a = (struct cuda_ahead){(int32_t)early, (uint32_t)bytes};
    return a;
}
