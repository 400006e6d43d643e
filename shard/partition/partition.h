/* SPDX-License-Identifier: Apache-2.0
 * Which part of a model each rank holds.  Pure: no files, no clock, no globals.
 *
 * Pipeline: contiguous layers per stage, uneven where bytes say so (embedding on the first stage, final
 * norm and lm_head on the last count by bytes; a rank's memory and speed weigh its share).
 * Tensor: query heads evenly (tp must divide them); kv heads by the query heads that read them
 * (replicated when tp > kv heads); the ffn dimension by whole K-slices at 32-element block borders;
 * vocabulary rows in multiples of 16; router, norms, sinks and biases follow their owner. */
#ifndef PHX_SHARD_PARTITION_H
#define PHX_SHARD_PARTITION_H

#include <stdint.h>

#include "kernels/backend.h"
#include "rpc/base/err.h"
#include "shard/model/config.h"

/* Draws that can be wanted of a row of logits, and floats that a device keeps for it besides: draws (double), the best
 * ids and logits, a sum. */
enum { PHX_LOGITS_DRAWS_MAX = 2, PHX_LOGITS_SMALL = PHX_LOGITS_DRAWS_MAX * PHX_DRAW_WIDTH * 2 + 2 * PHX_TOP_MAX + 1 };

enum { PHX_TP_MAX = 64, PHX_PP_MAX = 512, PHX_RANKS_MAX = 1024 };

struct phx_range {
    int32_t first;
    int32_t end; /* one past the last */
};

/* One rank's share.  All indices are global. */
struct phx_part {
    int32_t          rank;   /* pp * tp_size + tp */
    int32_t          pp, tp;
    int32_t          pp_size, tp_size;
    struct phx_range layers;
    struct phx_range heads;    /* query heads */
    struct phx_range kv_heads; /* covers what the query heads read */
    struct phx_range ffn;      /* intermediate columns (of every expert in a mixture) */
    struct phx_range vocab;    /* rows of lm_head and of the embedding table */
    int32_t          n_slices; /* owned of the K-slices of row-parallel products (8 / tp, or 1) */
    int32_t          attn_slice_end[PHX_SLICES_MAX]; /* local k ends of the attention-out slices */
    int32_t          ffn_slice_end[PHX_SLICES_MAX];  /* local k ends of the ffn-down slices */
    uint8_t          has_embedding; /* first stage (and last when tied: the table is the head) */
    uint8_t          has_head;      /* last stage */
    uint8_t          is_layout_invariant; /* tp divides 8: bits equal those of any such layout */
    /* exact bytes, as phx_model_memory() counts what was allocated */
    uint64_t weights_bytes;
    uint64_t kv_bytes_per_block; /* all its layers, one block of block_tokens positions */
    uint64_t scratch_bytes;
    uint64_t overhead_bytes; /* what its device takes besides: scratch of the ops, whole pages; 0 in host memory */
};

struct phx_rank_resource {
    uint64_t memory_bytes; /* 0 = unbounded */
    double   speed;        /* relative; 0 = 1.0 */
};

struct phx_partition_request {
    const struct phx_model_config  *config;
    int32_t                         tp, pp;
    const struct phx_rank_resource *resources; /* per rank, or NULL */
    const struct phx_backend       *backend;   /* whose packed layout is counted; NULL = the CPU's */
    int32_t                         block_tokens;
    enum phx_dtype                  kv_dtype;
    int32_t                         max_step_rows; /* rows of a step, for the scratch size */
    int32_t                         max_seqs;
    int32_t                         max_logits;    /* rows of logits of a step; 0 = max_seqs */
    int32_t                         max_context;   /* positions; 0 = all the model has */
};

/* Where the eight K-slices of the products that tp splits end: of attention out, or of ffn down. */
void phx_slice_ends(const struct phx_model_config *config, bool is_ffn, int32_t ends[PHX_SLICES_MAX]);

/* Fills parts[tp * pp] in rank order.  PHX_E_INVALID with the reason and the nearest possible values when
 * tp or pp do not fit; PHX_E_NOMEM naming the rank whose memory is too small and by how much. */
int phx_partition(const struct phx_partition_request *request, struct phx_part *parts,
                  struct phx_err *err) PHX_CHECKED;

/* What a rank takes of its device with a cache of so many blocks, exactly: a small one finds room in what is taken
 * already.  At most the sum of the part's bytes, but for whole pages of the cache. */
uint64_t phx_part_device_bytes(const struct phx_partition_request *request, const struct phx_part *part, int64_t n_blocks);

/* What a rank's backend will be asked for: phx_work_bytes(), phx_work_reserve().  Of the request: config, max_step_rows,
 * max_logits, block_tokens and kv_dtype.  Points into itself. */
struct phx_part_work {
    struct phx_work        work;
    struct phx_weight_desc weights[8];
};
void phx_part_work(const struct phx_partition_request *request, const struct phx_part *part, struct phx_part_work *out);

/* The type of a cache from its name: f32, bf16, int8 or fp8; false for any other. */
bool phx_kv_dtype_parse(const char *text, enum phx_dtype *out);

#endif
