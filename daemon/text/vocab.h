/* SPDX-License-Identifier: Apache-2.0
 * The token table: id <-> bytes (private to daemon/text). */
#ifndef PHX_DAEMON_TEXT_VOCAB_H
#define PHX_DAEMON_TEXT_VOCAB_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

enum phx_token_flag {
    PHX_TOKEN_USED = 1 << 0,    /* the id has a token */
    PHX_TOKEN_SPECIAL = 1 << 1, /* never the result of encoding ordinary text */
    PHX_TOKEN_ADDED = 1 << 2,   /* from added_tokens or an encoding's own list */
    PHX_TOKEN_RAW = 1 << 3,     /* not reachable by its bytes (text outside the byte alphabet) */
    PHX_TOKEN_BYTE = 1 << 4,    /* <0xHH> of a byte fallback: one byte, perhaps half a character */
    PHX_TOKEN_WHOLE = 1 << 5,   /* a piece with exactly these bytes is this one token */
};

struct phx_token {
    uint32_t offset; /* into bytes */
    uint32_t size;
    uint32_t flags;
};

struct phx_vocab {
    struct phx_token *tokens; /* [n_ids], gaps have flags 0 */
    int32_t           n_ids;
    int32_t           capacity;
    struct phx_buf    bytes;
    int32_t          *slots; /* hash of bytes -> id, -1 free; made by phx_vocab_index() */
    uint32_t          slot_mask;
    uint32_t          longest; /* bytes of the longest indexed token */
};

void phx_vocab_init(struct phx_vocab *v);
void phx_vocab_fini(struct phx_vocab *v);

/* Adds a token.  PHX_E_FORMAT for an id out of range or used already; `where` names the file. */
int phx_vocab_add(struct phx_vocab *v, const char *where, int64_t id, const char *bytes,
                  size_t size, uint32_t flags, struct phx_err *err) PHX_CHECKED;
/* Builds the index over all tokens that are not RAW.  PHX_E_FORMAT when two have the same bytes. */
int phx_vocab_index(struct phx_vocab *v, const char *where, struct phx_err *err) PHX_CHECKED;
/* The id of a token by its bytes, or -1. */
int32_t phx_vocab_find(const struct phx_vocab *v, const char *bytes, size_t size);

static inline const char *phx_vocab_bytes(const struct phx_vocab *v, int32_t id)
{
    return v->bytes.data + v->tokens[id].offset;
}

static inline bool phx_vocab_has(const struct phx_vocab *v, int64_t id)
{
    return id >= 0 && id < v->n_ids && (v->tokens[id].flags & PHX_TOKEN_USED) != 0;
}

#endif
