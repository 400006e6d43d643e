/* SPDX-License-Identifier: Apache-2.0
 * Memory: the only place that calls malloc.  Two rules:
 *  - sizes that come from outside are bounded by a named limit and go through phx_mem_try();
 *  - everything else is small bookkeeping: phx_mem_*() never return NULL, they abort when the
 *    machine has no memory left (the supervisor restarts the process).
 * An arena holds many small objects with one lifetime (a request, a parsed file). */
#ifndef PHX_RPC_BASE_MEM_H
#define PHX_RPC_BASE_MEM_H

#include <stddef.h>

#include "rpc/base/err.h"

/* Zeroed memory of n * size bytes; a product that overflows aborts.  Owned: phx_mem_free(). */
void *phx_mem_calloc(size_t n, size_t size) __attribute__((malloc, returns_nonnull));
/* Grows or shrinks; new bytes are not zeroed.  ptr may be NULL. */
void *phx_mem_realloc(void *ptr, size_t n, size_t size) __attribute__((returns_nonnull));
/* As calloc, but answers NULL when the product overflows or memory is short. */
void *phx_mem_try(size_t n, size_t size) __attribute__((malloc));
char *phx_mem_strdup(const char *s) __attribute__((malloc, returns_nonnull));
char *phx_mem_strndup(const char *s, size_t n) __attribute__((malloc, returns_nonnull));
void *phx_mem_dup(const void *data, size_t size) __attribute__((malloc, returns_nonnull));
/* printf into owned memory. */
char *phx_mem_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2), returns_nonnull));
void  phx_mem_free(void *ptr); /* NULL is allowed */

struct phx_arena;
struct phx_arena *phx_arena_create(void);
void  phx_arena_destroy(struct phx_arena *a); /* runs the cleanups, newest first */
void *phx_arena_calloc(struct phx_arena *a, size_t n, size_t size) __attribute__((returns_nonnull));
char *phx_arena_strdup(struct phx_arena *a, const char *s) __attribute__((returns_nonnull));
char *phx_arena_strndup(struct phx_arena *a, const char *s, size_t n)
    __attribute__((returns_nonnull));
/* fn(ctx) runs when the arena is destroyed. */
void phx_arena_cleanup(struct phx_arena *a, void (*fn)(void *ctx), void *ctx);

#endif
