/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/step: steps that decode are filled up to few sizes, so that a device repeats what it has recorded
 * instead of being told every launch anew (docs/internals/cuda.md).  Pure. */
#ifndef PHX_SHARD_STEP_PAD_H
#define PHX_SHARD_STEP_PAD_H

#include "shard/model/model.h"

/* Rows of a step that decodes n sequences, where there is room for most >= n. */
int32_t phx_pad_rows(int32_t n, int32_t most);

/* The arrays of a batch, which may change where they end, with room for `most` rows and sequences. */
struct phx_pad_room {
    int32_t *tokens, *row, *n_rows, *pos, *table;
    int32_t  most;
};

/* Fills the batch up when all its sequences decode: one row each, whose logits are wanted.  The pads repeat the sequence
 * that has the fewest keys: they find keys, values and experts that are in use already, and write the same bits to the
 * same slot of the cache as the row they repeat, in a launch that reads none of them. */
void phx_pad_batch(struct phx_batch *batch, const struct phx_pad_room *room, int32_t block_tokens);

#endif
