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

/* What is wanted of the logits of a row when not all of them (shard/sample knows: phx_sample_need). */
struct phx_logits_want {
    bool    is_whole;
    int32_t n_best;    /* the best ids and their logits, at most PHX_TOP_MAX and the vocabulary */
    int32_t n_draws;   /* as phx_draw */
    struct {
        float  temperature;
        double share;
    } draws[PHX_LOGITS_DRAWS_MAX];
};

struct phx_logits_drawn {
    int32_t id; /* -1: the logits are not numbers */
    float   logit, largest;
    double  sum;
};

/* What came of it; pointers are valid until the next step. */
struct phx_logits_got {
    int32_t        row;       /* of the step's logits: where they are, or would be */
    bool           is_whole;  /* they are there, and there is nothing else */
    const int32_t *ids;       /* [n_best] */
    const float   *best;      /* [n_best] */
    bool           is_number; /* with n_best: no logit is NaN or +infinity, one is not -infinity */
    struct phx_logits_drawn draws[PHX_LOGITS_DRAWS_MAX];
};

/* The rows of one step (host memory, borrowed for the call).  Row r of the batch is one token. */
struct phx_batch {
    int32_t          n_rows;
    const int32_t   *tokens;     /* [n_rows] ids */
    struct phx_spans spans;      /* which sequence owns which rows, positions, block tables */
    int32_t          n_logits;   /* rows whose logits are wanted ... */
    const int32_t   *logit_rows; /* ... ascending */
    const struct phx_logits_want *wants; /* [n_logits], the same on every rank; NULL: all of all, in order */
    struct phx_logits_got        *got;   /* [n_logits], filled on tp 0 of the last stage when there are wants */
    int32_t          n_pads;     /* The last so many rows, each a sequence of its own, repeat another row to fill the step up:
                                  * token, position and blocks.  Their logits are computed besides, and nobody gets them. */
    void           (*meanwhile)(void *ctx); /* called once while a device computes, before anybody waits for it; */
    void            *ctx;                   /* not on a host backend, whose part is done by then.  NULL: nothing */
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

/* Whether this rank's steps of so many rows may be recorded and repeated: then it pays to pad batches to few sizes. */
bool phx_model_can_record(const struct phx_model *m, int32_t n_rows);

/* This stage's part of a step: receives from the previous stage, computes its layers, sends on; the last
 * stage fills logits [n_logits, V], host memory, on tp 0 (data may be NULL elsewhere): every row in order, or those of
 * which that is said in batch->got.  Allocates nothing.
 * 0; or, agreed by all ranks of the stage, the code of the failed step (its outputs are dropped). */
int phx_model_step(struct phx_model *m, const struct phx_batch *batch, struct phx_tensor logits,
                   struct phx_err *err) PHX_CHECKED;

/* On tp 0 of the last stage: the logits of the batch's i-th row of logits, until the next step, to row [V], host memory.
 * PHX_E_STATE when they are not there: only one rank that has all of the vocabulary, in memory that is not the host's,
 * keeps them. */
int phx_model_late_logits(struct phx_model *m, int32_t i, float *row, struct phx_err *err) PHX_CHECKED;

/* Bytes really allocated, by kind. */
struct phx_model_memory {
    uint64_t weights_bytes, kv_bytes, scratch_bytes;
};
void phx_model_memory(const struct phx_model *m, struct phx_model_memory *memory);

#endif
