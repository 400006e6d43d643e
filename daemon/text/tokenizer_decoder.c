/* SPDX-License-Identifier: Apache-2.0
 * The "decoder" value of tokenizer.json, and the text of each token that follows from it. */
#include <string.h>

#include "daemon/text/json_field.h"
#include "daemon/text/tokenizer.h"

struct parse {
    struct phx_tokenizer *t;
    const char           *where;
    struct phx_err       *err;
    bool                  is_fused;
    bool                  has_marker; /* markers become spaces */
};

static int parse_replace(struct parse *p, json_t *value)
{
    const char *pattern =
        json_string_value(json_object_get(json_object_get(value, "pattern"), "String"));
    const char *content = json_string_value(json_object_get(value, "content"));
    if (!pattern || !content || strcmp(pattern, PHX_MARKER) != 0 || strcmp(content, " ") != 0)
        return phx_fail(p->err, PHX_E_UNSUPPORTED,
                        "%s: decoder Replace other than U+2581 by a space", p->where);
    p->has_marker = true;
    return 0;
}

static int parse_strip(struct parse *p, json_t *value)
{
    const char *content = json_string_value(json_object_get(value, "content"));
    json_int_t  start = json_integer_value(json_object_get(value, "start"));
    json_int_t  stop = json_integer_value(json_object_get(value, "stop"));
    if (!content || strcmp(content, " ") != 0 || stop != 0 || start < 0 || start > 16 ||
        !p->is_fused)
        return phx_fail(p->err, PHX_E_UNSUPPORTED,
                        "%s: decoder Strip other than of leading spaces behind Fuse", p->where);
    p->t->decoder.strip_spaces = (int)start;
    return 0;
}

static int parse_metaspace(struct parse *p, json_t *value)
{
    const char *marker = json_string_value(json_object_get(value, "replacement"));
    const char *scheme = json_string_value(json_object_get(value, "prepend_scheme"));
    bool        has_prefix = true;
    int         rc = phx_field_bool(value, "add_prefix_space", p->where, &has_prefix, p->err);
    if (rc)
        return rc;
    if (!marker || strcmp(marker, PHX_MARKER) != 0)
        return phx_fail(p->err, PHX_E_UNSUPPORTED, "%s: decoder Metaspace with another marker",
                        p->where);
    p->has_marker = true;
    p->t->decoder.is_first_unspaced = has_prefix && !(scheme && strcmp(scheme, "never") == 0);
    return 0;
}

static int parse_step(struct parse *p, json_t *value)
{
    const char *type = phx_field_text(value, "type", p->where, p->err);
    if (!type)
        return PHX_E_FORMAT;
    if (p->t->decoder.is_byte_level)
        return phx_fail(p->err, PHX_E_UNSUPPORTED, "%s: decoder %.40s behind ByteLevel", p->where,
                        type);
    if (strcmp(type, "ByteLevel") == 0)
        p->t->decoder.is_byte_level = true;
    else if (strcmp(type, "ByteFallback") == 0)
        p->t->decoder.has_byte_fallback = true;
    else if (strcmp(type, "Fuse") == 0)
        p->is_fused = true;
    else if (strcmp(type, "Replace") == 0)
        return parse_replace(p, value);
    else if (strcmp(type, "Strip") == 0)
        return parse_strip(p, value);
    else if (strcmp(type, "Metaspace") == 0)
        return parse_metaspace(p, value);
    else
        return phx_fail(p->err, PHX_E_UNSUPPORTED, "%s: decoder type \"%.40s\" is not supported",
                        p->where, type);
    return 0;
}

/* Writes what a character-level token shows as. */
static int show_token(struct parse *p, int32_t id, struct phx_buf *text)
{
    struct phx_tokenizer *t = p->t;
    struct phx_token     *token = &t->vocab.tokens[id];
    const char           *s = phx_vocab_bytes(&t->vocab, id);
    phx_buf_clear(text);
    for (size_t i = 0; i < token->size;) {
        bool is_marker = p->has_marker && token->size - i >= 3 && memcmp(s + i, PHX_MARKER, 3) == 0;
        phx_buf_putc(text, is_marker ? ' ' : s[i]);
        i += is_marker ? 3 : 1;
    }
    return phx_vocab_add(&t->shown, p->where, id, text->data ? text->data : "", text->size,
                         token->flags, p->err);
}

static int show_all(struct parse *p)
{
    struct phx_tokenizer *t = p->t;
    struct phx_buf        text;
    int                   rc = 0;
    phx_buf_init(&text, 0);
    for (int b = 0; b < 256 && rc == 0 && t->decoder.has_byte_fallback; b++) {
        if (t->byte_ids[b] < 0)
            continue;
        char byte = (char)b;
        t->vocab.tokens[t->byte_ids[b]].flags |= PHX_TOKEN_BYTE;
        rc = phx_vocab_add(&t->shown, p->where, t->byte_ids[b], &byte, 1,
                           t->vocab.tokens[t->byte_ids[b]].flags, p->err);
    }
    for (int32_t id = 0; id < t->vocab.n_ids && rc == 0; id++)
        if (phx_vocab_has(&t->vocab, id) && !phx_vocab_has(&t->shown, id))
            rc = show_token(p, id, &text);
    phx_buf_fini(&text);
    return rc;
}

int phx_tokenizer_read_decoder(struct phx_tokenizer *t, json_t *root, const char *where,
                               struct phx_err *err)
{
    struct parse p = {.t = t, .where = where, .err = err};
    json_t      *value = json_object_get(root, "decoder"), *item;
    const char  *type = json_string_value(json_object_get(value, "type"));
    size_t       i;
    int          rc = 0;
    if (!type)
        return phx_fail(err, PHX_E_UNSUPPORTED, "%s: there is no decoder", where);
    if (strcmp(type, "Sequence") == 0) {
        json_array_foreach(json_object_get(value, "decoders"), i, item) if (rc == 0) rc =
            parse_step(&p, item);
    } else {
        rc = parse_step(&p, value);
    }
    if (rc == 0 && t->decoder.is_byte_level != t->is_byte_level)
        rc = phx_fail(err, PHX_E_UNSUPPORTED,
                      "%s: decoder and pre_tokenizer must both be ByteLevel or neither", where);
    if (rc == 0 && !t->is_byte_level && !p.is_fused && !p.has_marker)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "%s: the decoder joins tokens with spaces", where);
    return rc == 0 && !t->is_byte_level ? show_all(&p) : rc;
}
