/* SPDX-License-Identifier: Apache-2.0
 * Between config.c and rope.c.  Private to shard/model. */
#ifndef PHX_SHARD_MODEL_PARSE_H
#define PHX_SHARD_MODEL_PARSE_H

#include <jansson.h>

#include "shard/model/config.h"

/* A whole number within [min, max]; a fallback below min means that the key is needed. */
int phx_parse_int(const json_t *root, const char *key, int64_t min, int64_t max, int64_t fallback,
                  int32_t *out, struct phx_err *err) PHX_CHECKED;

/* rope_parameters, or rope_scaling and rope_theta, into config->rope. */
int phx_parse_rope(const json_t *root, struct phx_model_config *config, struct phx_err *err)
    PHX_CHECKED;

#endif
