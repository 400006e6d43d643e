/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/step: what the ranks of a host need, and whether the host has it. */
#ifndef PHX_SHARD_STEP_MEMORY_H
#define PHX_SHARD_STEP_MEMORY_H

#include <stdint.h>

#include "rpc/base/err.h"
#include "rpc/base/machine.h"
#include "shard/partition/partition.h"

struct phx_memory_need {
    int32_t  n_ranks;
    uint64_t weights_bytes, kv_bytes, scratch_bytes, other_bytes;
};

/* Of the ranks listed (n of them), each with n_blocks of the cache and extra_bytes of its own; pure. */
void phx_memory_need(const struct phx_part *parts, const int32_t *ranks, int32_t n, int64_t n_blocks,
                     uint64_t extra_bytes, struct phx_memory_need *out);
/* Bytes for the caches of all of them when nothing is said: at most half of what is left; 0 = none. */
int64_t phx_memory_budget(const struct phx_memory_need *without_kv, const struct phx_memory_room *room);
/* PHX_E_NOMEM with all numbers and the remedy when the need is more than the room; pure. */
int phx_memory_check(const struct phx_memory_need *need, const struct phx_memory_room *room,
                     struct phx_err *err) PHX_CHECKED;

#endif
