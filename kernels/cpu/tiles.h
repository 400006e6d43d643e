/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cpu: products on the matrix unit (AMX).  Activations are packed once per product into A
 * tiles of 16 rows x 32 k; a block of a panel is a B tile as it lies (MXFP4: once widened).  A C tile has
 * 16 rows x 16 outputs. */
#ifndef PHX_KERNELS_CPU_TILES_H
#define PHX_KERNELS_CPU_TILES_H

#include "kernels/cpu/isa.h"

enum {
    TILE_BYTES = 1024,
    TILE_ROW_BYTES = 64,
    PAIR_PANELS = 2,    /* panels that share an A tile */
    BAND_ROWS = 512,    /* rows whose sums stay in the second-level cache */
    CHUNK_BLOCKS = 16,  /* blocks of a pair of panels that stay in the first-level cache */
    TREE_LEVELS = 4,    /* sums that wait for their neighbour in the tree of 8 slices */
    /* of one member: sums of a band, then a chunk of widened weights */
    BAND_FLOATS = BAND_ROWS * PAIR_PANELS * LANES,
    CHUNK_BYTES = PAIR_PANELS * CHUNK_BLOCKS * TILE_BYTES,
    MEMBER_BYTES = TREE_LEVELS * BAND_FLOATS * 4 + CHUNK_BYTES
};

/* Rows of activations as A tiles [row block][n_blocks of w][16][32] bf16, rounded as v16_round_bf16 does; rows
 * and k that are not there are zeros. */
struct tile_rows {
    const struct cpu_weight *w;     /* whose slices say where blocks begin */
    const float             *x;
    int64_t                  x_stride;
    const int32_t           *x_row; /* [n_rows] which rows of x, or NULL for the first ones */
    int32_t                  n_rows;
    unsigned char           *tiles;
};

static inline size_t tiles_bytes(const struct cpu_weight *w, int32_t n_rows)
{
    return (size_t)((n_rows + LANES - 1) / LANES) * (size_t)w->n_blocks * TILE_BYTES;
}

/* Units of packing: parts of row blocks, [first, end) of phx_tiles_units(). */
int32_t phx_tiles_units(const struct tile_rows *rows);
void    phx_tiles_pack(const struct tile_rows *rows, int32_t first, int32_t end);

/* A product as job says, save that its x is tiles; sums: MEMBER_BYTES of this member.  Units: panels. */
void phx_tiles_matmul(const struct matmul_job *job, const unsigned char *tiles, unsigned char *sums, int32_t first,
                      int32_t end);

#endif
