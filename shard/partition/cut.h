/* SPDX-License-Identifier: Apache-2.0
 * The pieces of phx_partition().  Private to shard/partition. */
#ifndef PHX_SHARD_PARTITION_CUT_H
#define PHX_SHARD_PARTITION_CUT_H

#include "shard/partition/partition.h"

/* cut.c: the tensor-parallel share of rank tp: heads, kv heads, ffn, vocabulary and K-slices.
 * PHX_E_INVALID naming the nearest sizes that work. */
int phx_cut_tensor(const struct phx_model_config *config, int32_t tp, int32_t tp_size,
                   struct phx_part *part, struct phx_err *err) PHX_CHECKED;

/* bytes.c: all of one part's shares (cut and layers) must be set. */
struct phx_share_bytes {
    uint64_t layer;      /* allocated per layer */
    uint64_t layer_read; /* read per layer and token: of a mixture only the chosen experts */
    uint64_t embedding;  /* the table, on the first stage */
    uint64_t head;       /* lm_head and final norm, on the last stage */
    uint64_t row;        /* of the embedding, read per token */
};
void phx_share_bytes(const struct phx_partition_request *request, const struct phx_part *part,
                     struct phx_share_bytes *bytes);
/* Fills weights_bytes, kv_bytes_per_block, scratch_bytes and overhead_bytes. */
void phx_part_bytes(const struct phx_partition_request *request, struct phx_part *part);

/* stages.c: layers of every stage into parts[].layers, all other fields but the bytes being set. */
int phx_cut_stages(const struct phx_partition_request *request, struct phx_part *parts,
                   struct phx_err *err) PHX_CHECKED;

#endif
