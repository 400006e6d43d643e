/* SPDX-License-Identifier: Apache-2.0
 * Threads that read a checkpoint ahead of the packing, in its order.  Private to shard/model. */
#ifndef PHX_SHARD_MODEL_AHEAD_H
#define PHX_SHARD_MODEL_AHEAD_H

#include <stdint.h>

#include "shard/load/load.h"

struct phx_ahead;

struct phx_ahead *phx_ahead_create(void);
/* The next piece that will be packed.  Before start only. */
void phx_ahead_add(struct phx_ahead *a, const struct phx_ckpt_tensor *t, uint64_t offset, uint64_t size_bytes);
/* Reads at most a window beyond what was packed.  Without threads packing reads for itself. */
void phx_ahead_start(struct phx_ahead *a);
/* Another piece is packed and its pages are given back. */
void phx_ahead_done(struct phx_ahead *a);
/* Stops wherever it is and frees; NULL is allowed. */
void phx_ahead_destroy(struct phx_ahead *a);

#endif
