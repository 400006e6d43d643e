/* SPDX-License-Identifier: Apache-2.0
 * A growing byte buffer with a maximum.  Appending past the maximum marks the buffer "over"; the
 * bytes are dropped and phx_buf_check() reports it once, so that writers need no error path. */
#ifndef PHX_RPC_BASE_BUF_H
#define PHX_RPC_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct phx_buf {
    char  *data; /* NUL-terminated behind size whenever it is not NULL; owned */
    size_t size;
    size_t capacity;
    size_t max;  /* 0 = 1 GiB */
    bool   is_over;
};

void phx_buf_init(struct phx_buf *b, size_t max_bytes);
void phx_buf_fini(struct phx_buf *b);
void phx_buf_clear(struct phx_buf *b); /* keeps the memory */
void phx_buf_put(struct phx_buf *b, const void *data, size_t size);
/* Makes the buffer `size` bytes longer and returns where they are to be written, or NULL past the maximum. */
void *phx_buf_extend(struct phx_buf *b, size_t size);
void phx_buf_puts(struct phx_buf *b, const char *s);
void phx_buf_putc(struct phx_buf *b, char c);
void phx_buf_printf(struct phx_buf *b, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void phx_buf_consume(struct phx_buf *b, size_t size); /* drops bytes from the front */
/* Takes the memory out of the buffer (never NULL), which becomes empty.  Owned by the caller. */
char *phx_buf_take(struct phx_buf *b);
/* 0, or PHX_E_TOOBIG naming `what` and the limit. */
int phx_buf_check(const struct phx_buf *b, const char *what, struct phx_err *err) PHX_CHECKED;

/* Reads a whole regular file.  PHX_E_TOOBIG above max_bytes, PHX_E_IO with path and reason. */
int phx_buf_read_file(struct phx_buf *b, const char *path, size_t max_bytes, struct phx_err *err)
    PHX_CHECKED;
/* Writes a new file of that mode, fsynced, by rename over `path`. */
int phx_file_write(const char *path, const void *data, size_t size, unsigned mode,
                   struct phx_err *err) PHX_CHECKED;

#endif
