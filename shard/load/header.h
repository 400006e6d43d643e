/* SPDX-License-Identifier: Apache-2.0
 * One safetensors file in memory: its JSON header to a list of tensors.  Private to shard/load. */
#ifndef PHX_SHARD_LOAD_HEADER_H
#define PHX_SHARD_LOAD_HEADER_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"
#include "rpc/base/mem.h"
#include "shard/load/load.h"

enum {
    PHX_ST_HEADER_MAX = 100000000, /* bytes; the limit of the format */
    PHX_ST_TENSORS_MAX = 4000000,  /* of one checkpoint */
    PHX_ST_DEPTH_MAX = 16          /* nesting of what is skipped */
};

/* A growing list; items are owned by the list, names by the arena. */
struct phx_st_list {
    struct phx_ckpt_tensor *items;
    int32_t                 n;
    int32_t                 capacity;
};

/* A cursor over the JSON of one header. */
struct phx_st_reader {
    const char       *at;
    const char       *end;
    const char       *start;
    const char       *file;    /* for messages */
    char             *text;    /* the last string read, unescaped; room for the longest one */
    size_t            text_size;
    struct phx_arena *arena;
    struct phx_err   *err;
};

/* Checks a whole file (size bytes at base) and appends its tensors, their data pointing into base and
 * their `file` set.  `name` is the file's name for messages.  On failure the list may have grown. */
int phx_st_parse(const uint8_t *base, uint64_t size, const char *name, int32_t file,
                 struct phx_arena *arena, struct phx_st_list *list, struct phx_err *err) PHX_CHECKED;

/* The reader's steps (json.c).  All answer 0 or the code of the error they filled in. */
void phx_st_skip_space(struct phx_st_reader *r);
int  phx_st_expect(struct phx_st_reader *r, char c) PHX_CHECKED;
bool phx_st_accept(struct phx_st_reader *r, char c); /* takes c when it is next */
int  phx_st_string(struct phx_st_reader *r) PHX_CHECKED; /* into text, text_size, NUL behind */
int  phx_st_integer(struct phx_st_reader *r, int64_t *out) PHX_CHECKED; /* 0 .. INT64_MAX */
int  phx_st_skip_value(struct phx_st_reader *r) PHX_CHECKED;
int  phx_st_bad(struct phx_st_reader *r, const char *what);

#endif
