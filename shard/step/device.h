/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/step: which device a rank computes on, and how much of its memory is this rank's. */
#ifndef PHX_SHARD_STEP_DEVICE_H
#define PHX_SHARD_STEP_DEVICE_H

#include "shard/step/memory.h"
#include "shard/step/step.h"

/* PHX_E_INVALID, naming what the backend would not honour. */
int phx_step_check_device(const struct phx_step_options *o, struct phx_err *err) PHX_CHECKED;

/* The device of one of n_places ranks of this machine (all replicas): devices are given out in turn, from the list or
 * from all visible ones. */
int phx_step_choose_device(const char *devices, int32_t place, struct phx_backend_options *options,
                           struct phx_err *err) PHX_CHECKED;
/* How many of the n_places ranks use the device of `facts`; pure. */
int32_t phx_step_sharers(const char *devices, int32_t n_places, const struct phx_device_facts *facts);

/* Bytes of the device's memory for this rank: an equal part of what is free, without a reserve; pure. */
int64_t phx_device_room(const struct phx_device_facts *facts, int32_t n_sharers);
/* Blocks of cache that fit beside the rest of a rank, all the room taken; 0 = none; pure. */
int64_t phx_device_blocks(const struct phx_part *part, int64_t room_bytes);
/* PHX_E_NOMEM with all numbers and the remedy when the rank needs more than the room; pure. */
int phx_device_check(const struct phx_part *part, int64_t n_blocks, const struct phx_device_facts *facts,
                     int32_t n_sharers, struct phx_err *err) PHX_CHECKED;

#endif
