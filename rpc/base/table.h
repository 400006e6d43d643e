/* SPDX-License-Identifier: Apache-2.0
 * Hash maps from a string or a number to a pointer.  The hash is keyed with random bytes, so keys
 * chosen by an attacker do not pile up.  Values are borrowed.  One thread. */
#ifndef PHX_RPC_BASE_TABLE_H
#define PHX_RPC_BASE_TABLE_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct phx_table;

/* max_items: the most entries it will hold. */
struct phx_table *phx_table_create(size_t max_items);
void   phx_table_destroy(struct phx_table *t); /* NULL is allowed; values stay with their owner */
size_t phx_table_count(const struct phx_table *t);

/* Number keys.  set: adds or replaces (value not NULL); PHX_E_LIMIT when a new key does not fit. */
int   phx_table_set_u64(struct phx_table *t, uint64_t key, void *value) PHX_CHECKED;
void *phx_table_get_u64(const struct phx_table *t, uint64_t key);    /* NULL = absent */
void *phx_table_remove_u64(struct phx_table *t, uint64_t key);       /* its value, NULL = absent */

/* String keys (copied).  A table holds keys of one kind only. */
int   phx_table_set_str(struct phx_table *t, const char *key, void *value) PHX_CHECKED;
void *phx_table_get_str(const struct phx_table *t, const char *key);
void *phx_table_remove_str(struct phx_table *t, const char *key);

/* Walks all values in no order: start with *cursor = 0; NULL ends.  The table must not change. */
void *phx_table_next(const struct phx_table *t, size_t *cursor);

#endif
