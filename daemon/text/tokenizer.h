/* SPDX-License-Identifier: Apache-2.0
 * The inside of a tokenizer (private to daemon/text).  Filled by tokenizer_json.c or
 * tokenizer_ranks.c, finished by phx_tokenizer_finish(), read-only from then on. */
#ifndef PHX_DAEMON_TEXT_TOKENIZER_H
#define PHX_DAEMON_TEXT_TOKENIZER_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/text/added.h"
#include "daemon/text/merge.h"
#include "daemon/text/normalize.h"
#include "daemon/text/split.h"
#include "daemon/text/text.h"
#include "daemon/text/vocab.h"

/* A private encode flag: the text continues a longer one (Metaspace "first" must not act). */
#define PHX_ENCODE_INNER (1u << 8)

#define PHX_MARKER "\xE2\x96\x81" /* U+2581, the word start of SentencePiece */

/* How token bytes become text. */
struct phx_decoder {
    bool is_byte_level;     /* bytes of all tokens form one stream */
    bool has_byte_fallback; /* <0xHH> tokens are bytes */
    int  strip_spaces;      /* leading spaces to drop at the start of a text (Strip) */
    bool is_first_unspaced; /* Metaspace: the first token loses its word markers */
};

struct phx_tokenizer {
    struct phx_vocab      vocab;
    struct phx_vocab      shown; /* character level: tokens as text, markers as spaces; no index */
    struct phx_merges     merges;
    struct phx_normalizer normalizer;
    struct phx_splitter   splitter;
    struct phx_added      added;            /* cut out of the raw text */
    struct phx_added      added_normalized; /* cut out of the normalized text */
    struct phx_decoder    decoder;

    bool    is_byte_level; /* symbols are bytes; else Unicode characters */
    bool    ignores_merges;
    bool    has_byte_fallback;
    bool    fuses_unknown;
    bool    cuts_words; /* no merge crosses a word start: long texts may be cut there */
    int32_t unknown_id; /* -1 = none */
    int32_t byte_ids[256];

    struct phx_ids prefix, suffix; /* what the post-processor adds */
    int32_t        bos, eos, pad;  /* -1 = none */
};

struct phx_tokenizer *phx_tokenizer_create(void);
/* The tables that depend on all others: the vocabulary index is made already, merges are in. */
int phx_tokenizer_finish(struct phx_tokenizer *t, struct phx_err *err) PHX_CHECKED;

/* Merges one piece by the model alone, without the whole-token short cut.  Used by encode and by
 * finish; `ids` grows. */
struct phx_encode_scratch {
    struct phx_regex_state   regex;
    struct phx_merge_scratch merge;
};
void phx_encode_scratch_fini(struct phx_encode_scratch *s);
int  phx_tokenizer_merge_piece(const struct phx_tokenizer *t, const char *piece, size_t size,
                               struct phx_encode_scratch *scratch, struct phx_ids *ids,
                               struct phx_err *err) PHX_CHECKED;

/* tokenizer_json.c's parts */
int phx_tokenizer_read_model(struct phx_tokenizer *t, json_t *root, const char *where,
                             struct phx_err *err) PHX_CHECKED;
int phx_tokenizer_read_decoder(struct phx_tokenizer *t, json_t *root, const char *where,
                               struct phx_err *err) PHX_CHECKED;
int phx_tokenizer_read_post(struct phx_tokenizer *t, json_t *value, const char *where,
                            struct phx_err *err) PHX_CHECKED;
/* tokenizer_config.json: bos, eos, pad by name, add_bos_token, add_eos_token. */
int phx_tokenizer_read_config(struct phx_tokenizer *t, json_t *config, const char *where,
                              struct phx_err *err) PHX_CHECKED;

#endif
