/* SPDX-License-Identifier: Apache-2.0
 * Text -> ids: cut out added tokens, normalize the gaps, cut out normalized added tokens, split
 * into pieces, merge each piece. */
#include <string.h>

#include "daemon/text/tokenizer.h"
#include "daemon/text/utf8.h"
#include "rpc/base/utf8.h"

struct encode {
    const struct phx_tokenizer *t;
    struct phx_ids             *ids;
    bool                        with_special;
    bool                        is_inner;
    struct phx_encode_scratch   scratch;
};

void phx_encode_scratch_fini(struct phx_encode_scratch *s)
{
    phx_regex_state_fini(&s->regex);
    phx_merge_scratch_fini(&s->merge);
}

/* ---- one piece ---- */

static void put_bytes(const struct phx_tokenizer *t, const char *piece, size_t size,
                      struct phx_ids *ids)
{
    for (size_t i = 0; i < size; i++)
        phx_ids_put(ids, t->byte_ids[(unsigned char)piece[i]]);
}

static bool has_all_bytes(const struct phx_tokenizer *t, const char *s, size_t size)
{
    for (size_t i = 0; i < size; i++)
        if (t->byte_ids[(unsigned char)s[i]] < 0)
            return false;
    return t->has_byte_fallback;
}

static int put_characters(const struct phx_tokenizer *t, const char *piece, size_t size,
                          struct phx_ids *ids, struct phx_err *err)
{
    bool was_unknown = false;
    for (size_t i = 0; i < size;) {
        size_t length;
        (void)phx_utf8_first(piece + i, &length);
        int32_t id = phx_vocab_find(&t->vocab, piece + i, length);
        bool    is_unknown = false;
        if (id >= 0) {
            phx_ids_put(ids, id);
        } else if (has_all_bytes(t, piece + i, length)) {
            put_bytes(t, piece + i, length, ids);
        } else if (t->unknown_id < 0) {
            return phx_fail(err, PHX_E_UNSUPPORTED,
                            "the text has a character that this tokenizer cannot express");
        } else {
            is_unknown = true;
            if (!was_unknown || !t->fuses_unknown)
                phx_ids_put(ids, t->unknown_id);
        }
        was_unknown = is_unknown;
        i += length;
    }
    return 0;
}

int phx_tokenizer_merge_piece(const struct phx_tokenizer *t, const char *piece, size_t size,
                              struct phx_encode_scratch *scratch, struct phx_ids *ids,
                              struct phx_err *err)
{
    size_t start = ids->n, n = 0;
    if (t->is_byte_level) {
        put_bytes(t, piece, size, ids);
    } else {
        int rc = put_characters(t, piece, size, ids, err);
        if (rc)
            return rc;
    }
    if (ids->n == start)
        return 0;
    int rc =
        phx_merges_apply(&t->merges, ids->data + start, ids->n - start, &scratch->merge, &n, err);
    ids->n = start + n;
    return rc;
}

static int encode_word(struct encode *e, const char *piece, size_t size, struct phx_err *err)
{
    int32_t id = phx_vocab_find(&e->t->vocab, piece, size);
    if (id >= 0 && (e->t->vocab.tokens[id].flags & PHX_TOKEN_WHOLE)) {
        phx_ids_put(e->ids, id);
        return 0;
    }
    return phx_tokenizer_merge_piece(e->t, piece, size, &e->scratch, e->ids, err);
}

/* The end of the word at text: before the next marker that follows another character. */
static size_t word_end(const char *text, size_t size)
{
    size_t i = 0;
    while (size - i >= 3 && memcmp(text + i, PHX_MARKER, 3) == 0)
        i += 3;
    char *next = memmem(text + i, size - i, PHX_MARKER, 3);
    return next ? (size_t)(next - text) : size;
}

static int encode_piece(void *ctx, const char *piece, size_t size, struct phx_err *err)
{
    struct encode *e = ctx;
    if (!e->t->cuts_words)
        return encode_word(e, piece, size, err);
    for (size_t at = 0; at < size;) {
        size_t end = at + word_end(piece + at, size - at);
        int    rc = encode_word(e, piece + at, end - at, err);
        if (rc)
            return rc;
        at = end;
    }
    return 0;
}

/* ---- gaps between added tokens ---- */

static int encode_normalized(struct encode *e, const char *text, size_t size, bool is_start,
                             struct phx_err *err)
{
    struct phx_added_hit hit;
    size_t               at = 0, floor = 0;
    int                  rc = 0;
    while (e->t->added_normalized.n > 0 && rc == 0 &&
           phx_added_next(&e->t->added_normalized, text, size, &at, floor, e->with_special, &hit)) {
        rc = phx_splitter_run(&e->t->splitter, &e->scratch.regex, text + floor, hit.from - floor,
                              is_start && floor == 0, encode_piece, e, err);
        phx_ids_put(e->ids, hit.id);
        floor = hit.to;
    }
    if (rc)
        return rc;
    return phx_splitter_run(&e->t->splitter, &e->scratch.regex, text + floor, size - floor,
                            is_start && floor == 0, encode_piece, e, err);
}

static int encode_gap(struct encode *e, const char *text, size_t size, bool is_start,
                      struct phx_err *err)
{
    if (size == 0)
        return 0;
    if (e->t->normalizer.n == 0)
        return encode_normalized(e, text, size, is_start, err);
    struct phx_buf normal;
    phx_buf_init(&normal, 0);
    phx_buf_put(&normal, text, size);
    int rc = phx_buf_check(&normal, "the text", err);
    if (rc == 0)
        rc = phx_normalizer_run(&e->t->normalizer, &e->scratch.regex, &normal, err);
    if (rc == 0 && normal.size > 0)
        rc = encode_normalized(e, normal.data, normal.size, is_start, err);
    phx_buf_fini(&normal);
    return rc;
}

static int encode_text(struct encode *e, const char *text, size_t size, struct phx_err *err)
{
    struct phx_added_hit hit;
    size_t               at = 0, floor = 0;
    int                  rc = 0;
    while (e->t->added.n > 0 && rc == 0 &&
           phx_added_next(&e->t->added, text, size, &at, floor, e->with_special, &hit)) {
        rc = encode_gap(e, text + floor, hit.from - floor, floor == 0 && !e->is_inner, err);
        phx_ids_put(e->ids, hit.id);
        floor = hit.to;
    }
    return rc ? rc : encode_gap(e, text + floor, size - floor, floor == 0 && !e->is_inner, err);
}

static void put_all(struct phx_ids *ids, const struct phx_ids *more)
{
    for (size_t i = 0; i < more->n; i++)
        phx_ids_put(ids, more->data[i]);
}

int phx_tokenizer_encode(const struct phx_tokenizer *t, const char *text, size_t size_bytes,
                         unsigned flags, struct phx_ids *ids, struct phx_err *err)
{
    if (size_bytes > PHX_TEXT_BYTES_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "the text has %zu bytes, at most %u are allowed",
                        size_bytes, PHX_TEXT_BYTES_MAX);
    size_t valid = size_bytes ? phx_utf8_valid_prefix(text, size_bytes) : 0;
    if (valid != size_bytes)
        return phx_fail(err, PHX_E_FORMAT, "the text is not valid UTF-8 at byte %zu", valid);
    struct encode e = {.t = t,
                       .ids = ids,
                       .with_special = (flags & PHX_ENCODE_SPECIALS) != 0,
                       .is_inner = (flags & PHX_ENCODE_INNER) != 0};
    size_t        before = ids->n;
    if (flags & PHX_ENCODE_TEMPLATE)
        put_all(ids, &t->prefix);
    int rc = size_bytes ? encode_text(&e, text, size_bytes, err) : 0;
    if (flags & PHX_ENCODE_TEMPLATE)
        put_all(ids, &t->suffix);
    if (rc)
        ids->n = before;
    phx_encode_scratch_fini(&e.scratch);
    return rc;
}
