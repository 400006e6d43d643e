/* SPDX-License-Identifier: Apache-2.0
 * Pre-tokenizers: text -> pieces that are merged each on its own (private to daemon/text).
 * Steps call each other piece by piece, so no list of pieces is ever built. */
#ifndef PHX_DAEMON_TEXT_SPLIT_H
#define PHX_DAEMON_TEXT_SPLIT_H

#include <jansson.h>
#include <stdbool.h>
#include <stddef.h>

#include "daemon/text/regex.h"
#include "rpc/base/err.h"

/* The pattern of GPT-2, which ByteLevel applies unless told otherwise. */
#define PHX_PATTERN_GPT2                                                                           \
    "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+"

enum phx_split_kind {
    PHX_SPLIT_PATTERN = 1,
    PHX_SPLIT_METASPACE,
    PHX_SPLIT_PREFIX_SPACE, /* ByteLevel add_prefix_space */
};

/* What becomes of the matches of a pattern. */
enum phx_split_rule {
    PHX_RULE_ISOLATED = 1, /* pieces of their own */
    PHX_RULE_REMOVED,
    PHX_RULE_WITH_PREVIOUS,
    PHX_RULE_WITH_NEXT,
    PHX_RULE_CONTIGUOUS, /* neighbouring matches become one piece */
};

enum phx_prepend { PHX_PREPEND_ALWAYS = 1, PHX_PREPEND_FIRST, PHX_PREPEND_NEVER };

struct phx_split_step {
    enum phx_split_kind kind;
    enum phx_split_rule rule;
    bool                is_inverted;
    struct phx_regex   *regex;   /* or */
    char               *literal; /* a string to find (metaspace: the marker) */
    enum phx_prepend    prepend;
    bool                is_splitting; /* metaspace: cut before each marker */
};

#define PHX_SPLIT_STEPS_MAX 16
struct phx_splitter {
    struct phx_split_step steps[PHX_SPLIT_STEPS_MAX];
    size_t                n;
    bool                  is_byte_level; /* ends in ByteLevel: pieces are bytes, not characters */
};

/* Reads the "pre_tokenizer" value (may be NULL or null).  PHX_E_UNSUPPORTED by name. */
int phx_splitter_parse(struct phx_splitter *s, json_t *value, const char *where,
                       struct phx_err *err) PHX_CHECKED;
/* One isolating pattern in front of ByteLevel: what a rank file's encoding does. */
int  phx_splitter_set_pattern(struct phx_splitter *s, const char *pattern, const char *where,
                              struct phx_err *err) PHX_CHECKED;
void phx_splitter_fini(struct phx_splitter *s);

typedef int phx_piece_fn(void *ctx, const char *piece, size_t size, struct phx_err *err);

/* Calls fn for each piece of `text` in order.  is_start: the text stands at offset 0 of the input
 * (the scheme "first" of Metaspace asks).  The first error of fn ends the run. */
int phx_splitter_run(const struct phx_splitter *s, struct phx_regex_state *state, const char *text,
                     size_t size, bool is_start, phx_piece_fn *fn, void *ctx,
                     struct phx_err *err) PHX_CHECKED;

#endif
