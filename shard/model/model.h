/* SPDX-License-Identifier: Apache-2.0
 * One rank's part of a model: its weights, its key/value cache, and the forward pass over a batch. */
#ifndef PHX_SHARD_MODEL_H
#define PHX_SHARD_MODEL_H

#include <stdint.h>

#include "kernels/backend.h"
#include "rpc/base/err.h"
#include "shard/comm/comm.h"
#include "shard/load/load.h"
#include "shard/model/config.h"
#include "shard/partition/partition.h"

/* The rows of one step (host memory, borrowed for the call).  Row r of the batch is one token. */
struct phx_batch {
    int32_t          n_rows;
    const int32_t   *tokens;     /* [n_rows] ids */
    struct phx_spans spans;      /* which sequence owns which rows, positions, block tables */
    int32_t          n_logits;   /* rows whose logits are wanted ... */
    const int32_t   *logit_rows; /* ... ascending */
};

struct phx_model_options {
    const struct phx_model_config *config;
    const struct phx_part         *part;   /* this rank's */
    const struct phx_part         *parts;  /* all, for the gather of logits */
    struct phx_backend            *backend;
    struct phx_comm               *comm;
    int32_t                        n_blocks;      /* of the kv cache */
    int32_t                        block_tokens;
    enum phx_dtype                 kv_dtype;
    int32_t                        max_rows;      /* of a step */
    int32_t                        max_seqs;      /* of a step */
    int32_t                        max_logits;    /* rows of logits of a step */
    int32_t                        max_context;   /* positions; rope tables */
    void (*progress)(void *ctx, uint64_t done_bytes, uint64_t total_bytes); /* while loading; may be NULL */
    void *progress_ctx;
};

struct phx_model;

/* Binds and packs this rank's slices of the checkpoint (which may be closed afterwards), checking every
 * tensor's name, shape and dtype; extra tensors that the architecture does not know are refused by name,
 * known buffers (rotary inv_freq, gpt-2 masks) are skipped.  Owned: phx_model_close(). */
int  phx_model_open(const struct phx_model_options *options, const struct phx_checkpoint *checkpoint,
                    struct phx_model **out, struct phx_err *err) PHX_CHECKED;
void phx_model_close(struct phx_model *m);

/* This stage's part of a step: receives from the previous stage, computes its layers, sends on; the last
 * stage fills logits [n_logits, V], host memory, on tp 0 (data may be NULL elsewhere).  Allocates nothing.
 * 0; or, agreed by all ranks of the stage, the code of the failed step (its outputs are dropped). */
int phx_model_step(struct phx_model *m, const struct phx_batch *batch, struct phx_tensor logits,
                   struct phx_err *err) PHX_CHECKED;

/* Bytes really allocated, by kind. */
struct phx_model_memory {
    uint64_t weights_bytes, kv_bytes, scratch_bytes;
};
void phx_model_memory(const struct phx_model *m, struct phx_model_memory *memory);

#endif
