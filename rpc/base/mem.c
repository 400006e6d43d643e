/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/mem.h"

#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { CHUNK_BYTES = 8192, ALIGN_BYTES = 16 };

struct chunk {
    struct chunk *next;
    size_t        used;
    size_t        size;
    _Alignas(ALIGN_BYTES) unsigned char data[];
};

struct cleanup {
    struct cleanup *next;
    void (*fn)(void *ctx);
    void *ctx;
};

struct phx_arena {
    struct chunk   *chunks;
    struct cleanup *cleanups;
};

void *phx_mem_try(size_t n, size_t size)
{
    size_t total;

    if (__builtin_mul_overflow(n, size, &total) || total > PTRDIFF_MAX)
        return NULL;
    return calloc(1, total > 0 ? total : 1);
}

void *phx_mem_calloc(size_t n, size_t size)
{
    void *p = phx_mem_try(n, size);

    phx_assert(p != NULL);
    return p;
}

void *phx_mem_realloc(void *ptr, size_t n, size_t size)
{
    size_t total;
    void  *p;

    phx_assert(!__builtin_mul_overflow(n, size, &total));
    p = realloc(ptr, total > 0 ? total : 1);
    phx_assert(p != NULL);
    return p;
}

void *phx_mem_dup(const void *data, size_t size)
{
    void *p = phx_mem_calloc(1, size);

    if (size > 0)
        memcpy(p, data, size);
    return p;
}

char *phx_mem_strndup(const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char  *p = phx_mem_calloc(1, len + 1);

    memcpy(p, s, len);
    return p;
}

char *phx_mem_strdup(const char *s)
{
    return phx_mem_strndup(s, SIZE_MAX);
}

char *phx_mem_printf(const char *fmt, ...)
{
    va_list ap;
    int     n;
    char   *p;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    phx_assert(n >= 0);
    p = phx_mem_calloc(1, (size_t)n + 1);
    va_start(ap, fmt);
    (void)vsnprintf(p, (size_t)n + 1, fmt, ap); /* the size was measured above */
    va_end(ap);
    return p;
}

void phx_mem_free(void *ptr)
{
    free(ptr);
}

struct phx_arena *phx_arena_create(void)
{
    return phx_mem_calloc(1, sizeof(struct phx_arena));
}

void phx_arena_destroy(struct phx_arena *a)
{
    if (a == NULL)
        return;
    for (struct cleanup *c = a->cleanups; c != NULL; c = c->next)
        c->fn(c->ctx);
    for (struct chunk *c = a->chunks, *next; c != NULL; c = next) {
        next = c->next;
        free(c);
    }
    free(a);
}

void *phx_arena_calloc(struct phx_arena *a, size_t n, size_t size)
{
    struct chunk *c = a->chunks;
    size_t        total, want;
    void         *p;

    phx_assert(!__builtin_mul_overflow(n, size, &total));
    phx_assert(!__builtin_add_overflow(total, (size_t)ALIGN_BYTES - 1, &want));
    want &= ~((size_t)ALIGN_BYTES - 1);
    if (c == NULL || c->size - c->used < want) {
        size_t size_bytes = want > CHUNK_BYTES ? want : CHUNK_BYTES;

        c = phx_mem_calloc(1, sizeof(*c) + size_bytes);
        c->size = size_bytes;
        c->next = a->chunks;
        a->chunks = c;
    }
    p = c->data + c->used; /* chunks come zeroed and are used once */
    c->used += want;
    return p;
}

char *phx_arena_strndup(struct phx_arena *a, const char *s, size_t n)
{
    size_t len = strnlen(s, n);
    char  *p = phx_arena_calloc(a, 1, len + 1);

    memcpy(p, s, len);
    return p;
}

char *phx_arena_strdup(struct phx_arena *a, const char *s)
{
    return phx_arena_strndup(a, s, SIZE_MAX);
}

void phx_arena_cleanup(struct phx_arena *a, void (*fn)(void *ctx), void *ctx)
{
    struct cleanup *c = phx_arena_calloc(a, 1, sizeof(*c));

    c->fn = fn;
    c->ctx = ctx;
    c->next = a->cleanups;
    a->cleanups = c;
}
