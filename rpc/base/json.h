/* SPDX-License-Identifier: Apache-2.0
 * Strict JSON over jansson: size and depth limits, no duplicate keys, no NUL, valid UTF-8, and getters
 * that name the field in their errors.  Error texts never quote the input.
 *
 * `where` is the path of the object for messages: "" for the root, "messages[3]" below it; a field is
 * then named "messages[3].role".  The plain getters need the field; the opt_ ones leave *out untouched
 * when it is absent or null.  Strings and values are borrowed from the parsed tree. */
#ifndef PHX_RPC_BASE_JSON_H
#define PHX_RPC_BASE_JSON_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

enum { PHX_JSON_DEPTH = 32 }; /* default of max_depth */

/* Parses one whole JSON value.  `what` names the input in errors ("request body", a path).
 * PHX_E_TOOBIG above max_bytes, PHX_E_FORMAT with line and column else.  max_depth 0 = PHX_JSON_DEPTH.
 * *root is owned: json_decref(). */
int phx_json_parse(json_t **root, const char *text, size_t size, size_t max_bytes, int max_depth,
                   const char *what, struct phx_err *err) PHX_CHECKED;
/* Reads and parses a file. */
int phx_json_load(json_t **root, const char *path, size_t max_bytes, int max_depth,
                  struct phx_err *err) PHX_CHECKED;

/* PHX_E_INVALID unless value is an object; `where` names it ("" = "the document"). */
int phx_json_check_object(const json_t *value, const char *where, struct phx_err *err) PHX_CHECKED;
/* PHX_E_INVALID naming the first key of `object` that is not in the NULL-terminated list. */
int phx_json_check_keys(const json_t *object, const char *where, const char *const *known,
                        struct phx_err *err) PHX_CHECKED;

/* Strings of at most max_bytes bytes; integers and numbers within [min, max]; real numbers may be
 * written as integers and are finite; arrays of at most max_items.  PHX_E_INVALID names the field. */
int phx_json_get_str(const json_t *object, const char *where, const char *key, size_t max_bytes,
                     const char **out, struct phx_err *err) PHX_CHECKED;
int phx_json_opt_str(const json_t *object, const char *where, const char *key, size_t max_bytes,
                     const char **out, struct phx_err *err) PHX_CHECKED;
int phx_json_get_int(const json_t *object, const char *where, const char *key, int64_t min,
                     int64_t max, int64_t *out, struct phx_err *err) PHX_CHECKED;
int phx_json_opt_int(const json_t *object, const char *where, const char *key, int64_t min,
                     int64_t max, int64_t *out, struct phx_err *err) PHX_CHECKED;
int phx_json_get_real(const json_t *object, const char *where, const char *key, double min,
                      double max, double *out, struct phx_err *err) PHX_CHECKED;
int phx_json_opt_real(const json_t *object, const char *where, const char *key, double min,
                      double max, double *out, struct phx_err *err) PHX_CHECKED;
int phx_json_get_bool(const json_t *object, const char *where, const char *key, bool *out,
                      struct phx_err *err) PHX_CHECKED;
int phx_json_opt_bool(const json_t *object, const char *where, const char *key, bool *out,
                      struct phx_err *err) PHX_CHECKED;
int phx_json_get_array(const json_t *object, const char *where, const char *key, size_t max_items,
                       const json_t **out, struct phx_err *err) PHX_CHECKED;
int phx_json_opt_array(const json_t *object, const char *where, const char *key, size_t max_items,
                       const json_t **out, struct phx_err *err) PHX_CHECKED;
int phx_json_get_object(const json_t *object, const char *where, const char *key,
                        const json_t **out, struct phx_err *err) PHX_CHECKED;
int phx_json_opt_object(const json_t *object, const char *where, const char *key,
                        const json_t **out, struct phx_err *err) PHX_CHECKED;

/* Writing straight into a buffer: a quoted, escaped string (invalid UTF-8 becomes U+FFFD) and a
 * compact dump of a tree, keys in insertion order. */
void phx_json_put_str(struct phx_buf *b, const char *s, size_t size);
void phx_json_put(struct phx_buf *b, const json_t *value);

#endif
