/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cpu: products of int8 weights.  Activations become int8 too, per row and group of 256 k of a
 * slice: x = scale * q, scale = largest |x| / 127, q the nearest.  A group's sum of products is an exact integer;
 * an output is the chain sum = fma(group, w_scale * x_scale, sum) over the groups of a slice, ascending from 0; slices
 * combine by the tree of adjacent pairs.  So every path gives the same bits. */
#ifndef PHX_KERNELS_CPU_I8_H
#define PHX_KERNELS_CPU_I8_H

#include "kernels/cpu/isa.h"

enum { I8_TILE_BYTES = 1024, I8_ROW_BYTES = 64 };

/* Quantised rows.  tiles: group, row block of 16, block of the group, [16][64] int8 (A tiles of the matrix unit);
 * scales and sums (of q): [n_groups][row blocks * 16]. */
struct i8_rows {
    const struct cpu_weight *w; /* whose slices say where groups begin */
    const float             *x;
    int64_t                  x_stride;
    int32_t                  n_rows;
    signed char             *tiles;
    float                   *scales;
    int32_t                 *sums;
    bool                     is_whole; /* blocks of 16 rows are filled up with zeros: the matrix unit reads them */
};

static inline int32_t i8_row_blocks(int32_t n_rows)
{
    return (n_rows + LANES - 1) / LANES;
}

/* Bytes of tiles, then of scales, then of sums. */
static inline size_t i8_tiles_bytes(const struct cpu_weight *w, int32_t n_rows)
{
    return (size_t)i8_row_blocks(n_rows) * (size_t)w->n_blocks * I8_TILE_BYTES;
}

static inline size_t i8_bytes(const struct cpu_weight *w, int32_t n_rows)
{
    return i8_tiles_bytes(w, n_rows) + (size_t)w->n_groups * (size_t)i8_row_blocks(n_rows) * LANES * 8;
}

/* A group of a weight: its slice's blocks from `block` on. */
struct i8_group {
    int32_t block, n_blocks, k, n; /* n of its k are there */
};

static inline struct i8_group i8_find_group(const struct cpu_weight *w, int32_t group)
{
    struct i8_group g;
    int32_t         s = 0, first, block_end, k_end;

    while (group >= w->group_end[s])
        s++;
    first = group - (s > 0 ? w->group_end[s - 1] : 0);
    block_end = w->block_end[s];
    k_end = w->desc.slice_end[s];
    g.block = (s > 0 ? w->block_end[s - 1] : 0) + first * I8_GROUP_BLOCKS;
    g.n_blocks = block_end - g.block < I8_GROUP_BLOCKS ? block_end - g.block : I8_GROUP_BLOCKS;
    g.k = (s > 0 ? w->desc.slice_end[s - 1] : 0) + first * PHX_I8_GROUP;
    g.n = k_end - g.k < PHX_I8_GROUP ? k_end - g.k : PHX_I8_GROUP;
    return g;
}

/* Where a row block's part of a group begins in the tiles. */
static inline size_t i8_offset(const struct i8_group *g, int32_t n_row_blocks, int32_t row_block)
{
    return ((size_t)g->block * (size_t)n_row_blocks + (size_t)row_block * (size_t)g->n_blocks) * I8_TILE_BYTES;
}

static inline const unsigned char *i8_panel(const struct cpu_weight *w, int32_t panel)
{
    return w->data + (size_t)panel * w->panel_bytes;
}

static inline const float *i8_scales(const struct cpu_weight *w, int32_t panel)
{
    return (const float *)(const void *)(i8_panel(w, panel) + (size_t)w->units * I8_TILE_BYTES);
}

struct i8_isa {
    /* n BF16 or F16 of any alignment as floats */
    void (*widen)(float *to, const void *from, enum phx_dtype dtype, int32_t n);
    /* n values (of a weight's group), their scale as result */
    float (*quantise_group)(signed char *to, const float *x, int32_t n);
    /* units: row blocks */
    void (*quantise)(const struct i8_rows *rows, int32_t first, int32_t end);
    /* job->x is not read; panels [first, end) */
    void (*matmul)(const struct matmul_job *job, const struct i8_rows *rows, int32_t first, int32_t end);
};

extern const struct i8_isa i8_ref, i8_avx2, i8_vnni;

/* The fastest that goes with an instruction set. */
const struct i8_isa *phx_i8_pick(const struct isa *isa);

/* On the matrix unit; sums: MEMBER_BYTES of tiles.h.  Units: pairs of panels. */
void phx_tiles_matmul_i8(const struct matmul_job *job, const struct i8_rows *rows, unsigned char *sums, int32_t first,
                         int32_t end);

const char *phx_cpu_matmul_i8(struct cpu_device *d, struct matmul_job *job);

#endif
