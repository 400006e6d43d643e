/* SPDX-License-Identifier: Apache-2.0
 * Added tokens: literal strings cut out of the text before anything else (private to daemon/text).
 * Matching is leftmost-longest over a trie, as the reference's Aho-Corasick. */
#ifndef PHX_DAEMON_TEXT_ADDED_H
#define PHX_DAEMON_TEXT_ADDED_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

#define PHX_ADDED_BYTES_MAX 512
#define PHX_ADDED_MAX       (1 << 17)

struct phx_added_token {
    int32_t id;
    bool    is_special;
    bool    is_single_word; /* only between non-word characters */
    bool    is_lstrip;      /* swallows white space before it */
    bool    is_rstrip;      /* ... and behind it */
};

struct phx_added_node;
struct phx_added {
    struct phx_added_token *tokens;
    size_t                  n;
    struct phx_added_node  *nodes; /* [0] is the root */
    size_t                  n_nodes;
    size_t                  capacity;
    int32_t                 first[256]; /* child of the root, 0 = none */
};

/* PHX_E_FORMAT for an empty, too long or repeated content. */
int  phx_added_put(struct phx_added *a, const char *content, size_t size,
                   struct phx_added_token token, const char *where,
                   struct phx_err *err) PHX_CHECKED;
void phx_added_fini(struct phx_added *a);

struct phx_added_hit {
    size_t  from, to; /* what the token replaces, stripped white space included */
    int32_t id;
};
/* The next token in text[*at..size) that does not begin before `floor` (where the last hit ended).
 * Advances *at; false at the end.  Special tokens count only when with_special. */
bool phx_added_next(const struct phx_added *a, const char *text, size_t size, size_t *at,
                    size_t floor, bool with_special, struct phx_added_hit *hit);

#endif
