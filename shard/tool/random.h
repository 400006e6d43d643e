/* SPDX-License-Identifier: Apache-2.0
 * A checkpoint of a published shape with random weights that lies on no disk: a few MB of values of each kind, mapped again
 * and again.  For speed alone: layers have equal weights.  Private to shard/tool. */
#ifndef PHX_SHARD_TOOL_RANDOM_H
#define PHX_SHARD_TOOL_RANDOM_H

#include "shard/load/load.h"
#include "shard/model/config.h"

struct phx_random; /* the values */

/* preset: of synth.h; n_layers 0: as published.  Owned: close the checkpoint first, then phx_random_close(). */
int  phx_random_open(const char *preset, int32_t n_layers, struct phx_random **random, struct phx_checkpoint **checkpoint,
                     struct phx_model_config *config, struct phx_err *err) PHX_CHECKED;
void phx_random_close(struct phx_random *r); /* NULL is allowed */

#endif
