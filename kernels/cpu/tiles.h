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
    PAIR_PANELS = 2,   /* panels that share an A tile */
    PAIR_OUTPUTS = PAIR_PANELS * LANES,
    CHUNK_BLOCKS = 16, /* blocks of a pair of panels that stay in the first-level cache */
    /* A band of rows passes a group of pairs chunk by chunk: their sums and the band's part of a chunk stay in
     * the second-level cache.  Sums of slices wait for their neighbour in the tree, so there are fewer pairs. */
    BAND_ROWS = 512,
    GROUP_PAIRS = 16,
    SLICED_BAND_ROWS = 256,
    SLICED_GROUP_PAIRS = 8,
    TREE_LEVELS = 4,   /* for 8 slices */
    SUM_FLOATS = BAND_ROWS * GROUP_PAIRS * PAIR_OUTPUTS,
    /* of one member: sums, then a chunk of widened weights */
    MEMBER_BYTES = SUM_FLOATS * 4 + PAIR_PANELS * CHUNK_BLOCKS * TILE_BYTES
};
_Static_assert((int)SUM_FLOATS == (int)(TREE_LEVELS * SLICED_BAND_ROWS * SLICED_GROUP_PAIRS * PAIR_OUTPUTS),
               "either way the sums fill their memory");

struct tile_config {
    uint8_t  palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t  n_rows[16];
};

/* Eight full tiles.  It must not be a local: compilers have been seen to drop stores to one. */
extern const struct tile_config phx_full_tiles;

/* Rows of activations as A tiles of [16][32] bf16, rounded as v16_round_bf16 does; rows and k that are not there
 * are zeros.  Order: chunk of a slice, row block, block of the chunk: what a band reads of a chunk is one piece,
 * spread over all sets of a cache. */
struct tile_rows {
    const struct cpu_weight *w;     /* whose slices say where blocks begin */
    const float             *x;
    int64_t                  x_stride;
    const int32_t           *x_row; /* [n_rows] which rows of x, or NULL for the first ones */
    int32_t                  n_rows;
    unsigned char           *tiles;
};

static inline int32_t count_row_blocks(int32_t n_rows)
{
    return (n_rows + LANES - 1) / LANES;
}

static inline size_t tiles_bytes(const struct cpu_weight *w, int32_t n_rows)
{
    return (size_t)count_row_blocks(n_rows) * (size_t)w->n_blocks * TILE_BYTES;
}

/* Units of packing: parts of row blocks, [first, end) of phx_tiles_units(). */
int32_t phx_tiles_units(const struct tile_rows *rows);
void    phx_tiles_pack(const struct tile_rows *rows, int32_t first, int32_t end);

/* A product as job says, save that its x is tiles; sums: MEMBER_BYTES of this member.  Units: pairs of
 * panels. */
void phx_tiles_matmul(const struct matmul_job *job, const unsigned char *tiles, unsigned char *sums, int32_t first,
                      int32_t end);

/* The down product of a mixture (body_moe.h): expert e's rows are the tiles from tiles + row_block[e] *
 * n_blocks * TILE_BYTES on.  Units: pairs of panels. */
void phx_tiles_moe_down(const struct moe_down_job *job, const unsigned char *tiles, const int32_t *row_block,
                        int32_t member, unsigned char *sums, int32_t first, int32_t end);

static inline int32_t count_pairs(const struct cpu_weight *w)
{
    return (w->n_panels + PAIR_PANELS - 1) / PAIR_PANELS;
}

/* The rounded_attention of struct isa. */
void phx_tiles_attention(const struct attention_job *job, int32_t first, int32_t end, int32_t n_shares);

#endif
