/* SPDX-License-Identifier: Apache-2.0
 * Fields of a checkpoint's JSON files, with errors that name them (private to daemon/text).
 * Unlike the getters of rpc/base/json.h these speak of files: PHX_E_FORMAT, PHX_E_UNSUPPORTED. */
#ifndef PHX_DAEMON_TEXT_JSON_FIELD_H
#define PHX_DAEMON_TEXT_JSON_FIELD_H

#include <jansson.h>
#include <stdbool.h>

#include "rpc/base/err.h"

/* Reads a tokenizer_config.json.  Published ones hold integers such as 10^30 (model_max_length, "no
 * limit"), which no JSON integer type holds: here all numbers are read as reals.  *out is owned. */
int phx_field_load_config(const char *path, json_t **out, struct phx_err *err) PHX_CHECKED;

/* PHX_E_UNSUPPORTED for a key of `object` that is not in the NULL-terminated list. */
int phx_field_only(json_t *object, const char *const *keys, const char *where,
                   struct phx_err *err) PHX_CHECKED;
/* A required string, borrowed; NULL (and err filled, PHX_E_FORMAT) when missing. */
const char *phx_field_text(json_t *object, const char *key, const char *where, struct phx_err *err);
/* An optional boolean; *out keeps its value when the key is missing or null. */
int phx_field_bool(json_t *object, const char *key, const char *where, bool *out,
                   struct phx_err *err) PHX_CHECKED;
/* True when the key is missing, null, false, 0, "" or empty: nothing is asked for. */
bool phx_field_is_off(json_t *object, const char *key);

#endif
