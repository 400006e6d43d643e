/* SPDX-License-Identifier: Apache-2.0
 * From checkpoint bytes to backend memory: rectangles into packed weights, vectors into float32.
 * Pages of the files are asked for before and given back after each piece.  Private to shard/model. */
#ifndef PHX_SHARD_MODEL_PACK_H
#define PHX_SHARD_MODEL_PACK_H

#include "shard/model/ahead.h"
#include "shard/model/state.h"

struct phx_packer {
    struct phx_backend *backend;
    void (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes); /* may be NULL */
    void    *progress_ctx;
    uint64_t done_bytes, total_bytes;
    uint64_t allocated_bytes; /* of backend memory */
    uint64_t unchecked_bytes; /* packed since the backend was asked for errors */
    int64_t  chunk_bytes;     /* of a file at a time, about */
    struct phx_ahead *ahead;  /* told of each packed piece; may be NULL */
    bool     is_listing;      /* nothing is packed: ahead hears of the pieces to come, total_bytes sums them up */
};

/* How a tensor lies in its file. */
enum phx_lie {
    PHX_LIE_OUT_IN = 1, /* [n, k], k adjacent */
    PHX_LIE_IN_OUT,     /* one expert of a stack [E, k, n], n adjacent */
    PHX_LIE_BLOCKS      /* one expert of MXFP4 blocks [E, n, k / 32, 16] with scales [E, n, k / 32] */
};

/* Rows row, row + row_step, ... (n_rows of them) and columns k .. k + n_k - 1 of a source matrix, for
 * rows dst_row ... of the packed weight, all of its k. */
struct phx_rect {
    const struct phx_ckpt_tensor *tensor;
    const struct phx_ckpt_tensor *scales; /* of PHX_LIE_BLOCKS, and of int8 values */
    int32_t                       group;  /* int8 values: the group in which k lies, its first */
    enum phx_lie                  lie;
    int32_t                       expert;
    int32_t                       row, row_step, n_rows;
    int32_t                       k, n_k;
    int32_t                       dst_row;
    bool                          is_kept; /* its pages are read again at once: do not give them back */
};

/* Reserves a weight; slice_end NULL for one slice.  what names it in errors. */
int phx_pack_create(struct phx_packer *p, const char *what, const struct phx_weight_desc *desc,
                    struct phx_weight **out, struct phx_err *err) PHX_CHECKED;
int phx_pack_rect(struct phx_packer *p, struct phx_weight *w, const struct phx_rect *rect,
                  struct phx_err *err) PHX_CHECKED;

/* Float32 memory [rows, columns] of the backend. */
int phx_pack_alloc(struct phx_packer *p, const char *what, int32_t rows, int32_t columns,
                   struct phx_tensor *out, struct phx_err *err) PHX_CHECKED;
/* Elements first, first + step, ... (n of them) of a float tensor into dst at element dst_first. */
int phx_pack_vector(struct phx_packer *p, const struct phx_ckpt_tensor *t, int64_t first,
                    int64_t step, int32_t n, struct phx_tensor dst, int64_t dst_first,
                    struct phx_err *err) PHX_CHECKED;

/* Waits for all that was packed: a device may tell of an error late. */
int phx_pack_finish(struct phx_packer *p, struct phx_err *err) PHX_CHECKED;

/* The storage type of a float tensor, and the wider one of two (equal, or F32). */
enum phx_dtype phx_pack_dtype(const struct phx_ckpt_tensor *t);
enum phx_dtype phx_pack_wider(enum phx_dtype a, enum phx_dtype b);

#endif
