/* SPDX-License-Identifier: Apache-2.0
 * The "model" and "added_tokens" values of tokenizer.json. */
#include <stdio.h>
#include <string.h>

#include "daemon/text/bytelevel.h"
#include "daemon/text/json_field.h"
#include "daemon/text/tokenizer.h"

/* The bytes a vocabulary key stands for; *is_raw when it is outside the byte alphabet. */
static void key_bytes(const struct phx_tokenizer *t, const char *key, size_t size,
                      struct phx_buf *bytes, bool *is_raw)
{
    phx_buf_clear(bytes);
    *is_raw = t->is_byte_level && !phx_bytelevel_decode(key, size, bytes);
    if (!t->is_byte_level || *is_raw)
        phx_buf_put(bytes, key, size);
}

static int read_vocab(struct phx_tokenizer *t, json_t *vocab, const char *where,
                      struct phx_err *err)
{
    if (!json_is_object(vocab) || json_object_size(vocab) == 0)
        return phx_fail(err, PHX_E_FORMAT, "%s: model.vocab must be an object of token: id", where);
    struct phx_buf bytes;
    const char    *key;
    json_t        *value;
    int            rc = 0;
    phx_buf_init(&bytes, 0);
    json_object_foreach(vocab, key, value)
    {
        bool is_raw = false;
        if (!json_is_integer(value)) {
            rc = phx_fail(err, PHX_E_FORMAT, "%s: model.vocab has an id that is no integer", where);
            break;
        }
        key_bytes(t, key, strlen(key), &bytes, &is_raw);
        rc =
            phx_vocab_add(&t->vocab, where, json_integer_value(value), bytes.data ? bytes.data : "",
                          bytes.size, is_raw ? PHX_TOKEN_RAW : 0, err);
        if (rc)
            break;
    }
    phx_buf_fini(&bytes);
    return rc;
}

/* ---- added tokens ---- */

static int read_flags(json_t *item, const char *where, struct phx_added_token *token,
                      bool *is_normalized, struct phx_err *err)
{
    static const char *const keys[] = {"id",     "content",    "single_word", "lstrip",
                                       "rstrip", "normalized", "special",     NULL};
    int                      rc = phx_field_only(item, keys, where, err);
    if (rc == 0)
        rc = phx_field_bool(item, "special", where, &token->is_special, err);
    *is_normalized = !token->is_special;
    if (rc == 0)
        rc = phx_field_bool(item, "normalized", where, is_normalized, err);
    if (rc == 0)
        rc = phx_field_bool(item, "single_word", where, &token->is_single_word, err);
    if (rc == 0)
        rc = phx_field_bool(item, "lstrip", where, &token->is_lstrip, err);
    if (rc == 0)
        rc = phx_field_bool(item, "rstrip", where, &token->is_rstrip, err);
    return rc;
}

/* Puts the token into the vocabulary, or marks the entry the model has for it. */
static int register_token(struct phx_tokenizer *t, json_t *vocab, const char *content, int64_t id,
                          bool is_special, const char *where, struct phx_err *err)
{
    uint32_t flags = PHX_TOKEN_ADDED | (is_special ? PHX_TOKEN_SPECIAL : 0u);
    json_t  *known = json_object_get(vocab, content);
    if (!known)
        return phx_vocab_add(&t->vocab, where, id, content, strlen(content), flags | PHX_TOKEN_RAW,
                             err);
    if (json_integer_value(known) != id)
        return phx_fail(err, PHX_E_FORMAT, "%s: added token %lld has id %lld in model.vocab", where,
                        (long long)id, (long long)json_integer_value(known));
    t->vocab.tokens[id].flags |= flags;
    return 0;
}

static int put_normalized(struct phx_tokenizer *t, const char *content,
                          struct phx_added_token token, const char *where, struct phx_err *err)
{
    struct phx_regex_state state = {0};
    struct phx_buf         normal;
    phx_buf_init(&normal, 1 << 16);
    phx_buf_puts(&normal, content);
    int rc = phx_normalizer_run(&t->normalizer, &state, &normal, err);
    if (rc == 0)
        rc = phx_added_put(&t->added_normalized, normal.data ? normal.data : "", normal.size, token,
                           where, err);
    phx_buf_fini(&normal);
    phx_regex_state_fini(&state);
    return rc;
}

static int read_added(struct phx_tokenizer *t, json_t *list, json_t *vocab, const char *where,
                      struct phx_err *err)
{
    json_t *item;
    size_t  i;
    if (list && !json_is_null(list) && !json_is_array(list))
        return phx_fail(err, PHX_E_FORMAT, "%s: added_tokens must be a list", where);
    json_array_foreach(list, i, item)
    {
        struct phx_added_token token = {0};
        bool                   is_normalized = false;
        json_t                *id = json_object_get(item, "id");
        const char            *content = phx_field_text(item, "content", where, err);
        if (!content)
            return PHX_E_FORMAT;
        if (!json_is_integer(id))
            return phx_fail(err, PHX_E_FORMAT, "%s: added_tokens[%zu] has no id", where, i);
        int rc = read_flags(item, where, &token, &is_normalized, err);
        if (rc == 0)
            rc = register_token(t, vocab, content, json_integer_value(id), token.is_special, where,
                                err);
        if (rc)
            return rc;
        token.id = (int32_t)json_integer_value(id);
        rc = is_normalized ? put_normalized(t, content, token, where, err)
                           : phx_added_put(&t->added, content, strlen(content), token, where, err);
        if (rc)
            return rc;
    }
    return 0;
}

/* ---- merges ---- */

/* Both forms: "left right", or ["left", "right"] (the only way to write tokens with spaces). */
static bool split_merge(json_t *item, const char **left, size_t *left_size, const char **right,
                        size_t *right_size)
{
    if (json_is_array(item) && json_array_size(item) == 2) {
        *left = json_string_value(json_array_get(item, 0));
        *right = json_string_value(json_array_get(item, 1));
        if (!*left || !*right)
            return false;
        *left_size = strlen(*left);
        *right_size = strlen(*right);
        return true;
    }
    const char *text = json_string_value(item);
    const char *space = text ? strchr(text, ' ') : NULL;
    if (!space || strchr(space + 1, ' '))
        return false;
    *left = text;
    *left_size = (size_t)(space - text);
    *right = space + 1;
    *right_size = strlen(space + 1);
    return true;
}

static int read_merge(struct phx_tokenizer *t, json_t *item, size_t rank, struct phx_buf *bytes,
                      const char *where, struct phx_err *err)
{
    const char *left, *right;
    size_t      left_size, right_size;
    bool        is_left_raw, is_right_raw;
    if (!split_merge(item, &left, &left_size, &right, &right_size))
        return phx_fail(err, PHX_E_FORMAT, "%s: merge %zu is not a pair of tokens", where, rank);
    key_bytes(t, left, left_size, bytes, &is_left_raw);
    size_t  cut = bytes->size;
    int32_t left_id = phx_vocab_find(&t->vocab, bytes->data ? bytes->data : "", cut);
    is_right_raw = t->is_byte_level && !phx_bytelevel_decode(right, right_size, bytes);
    if (!t->is_byte_level)
        phx_buf_put(bytes, right, right_size);
    if (is_left_raw || is_right_raw || left_id < 0 || cut == 0 || right_size == 0)
        return phx_fail(err, PHX_E_FORMAT,
                        "%s: merge %zu names a token that is not in the vocabulary", where, rank);
    int32_t right_id = phx_vocab_find(&t->vocab, bytes->data + cut, bytes->size - cut);
    int32_t id = phx_vocab_find(&t->vocab, bytes->data, bytes->size);
    if (right_id < 0 || id < 0)
        return phx_fail(err, PHX_E_FORMAT,
                        "%s: merge %zu names a token that is not in the vocabulary", where, rank);
    /* Ordinary text must never become a special token, whatever the merges say. */
    if (!(t->vocab.tokens[id].flags & PHX_TOKEN_SPECIAL))
        phx_merges_put(&t->merges, left_id, right_id, (uint32_t)rank, id);
    return 0;
}

static int read_merges(struct phx_tokenizer *t, json_t *merges, const char *where,
                       struct phx_err *err)
{
    if (!json_is_array(merges))
        return phx_fail(err, PHX_E_FORMAT, "%s: model.merges must be a list", where);
    int rc = phx_merges_init(&t->merges, json_array_size(merges), err);
    if (rc)
        return rc;
    struct phx_buf bytes;
    phx_buf_init(&bytes, 0);
    for (size_t i = 0; i < json_array_size(merges) && rc == 0; i++)
        rc = read_merge(t, json_array_get(merges, i), i, &bytes, where, err);
    phx_buf_fini(&bytes);
    return rc;
}

/* ---- the model ---- */

static int read_byte_ids(struct phx_tokenizer *t, const char *where, struct phx_err *err)
{
    for (int b = 0; b < 256; b++) {
        char name[8] = {(char)b, '\0'};
        if (!t->is_byte_level)
            (void)snprintf(name, sizeof name, "<0x%02X>", (unsigned)b);
        int32_t id = phx_vocab_find(&t->vocab, name, t->is_byte_level ? 1 : strlen(name));
        if (id < 0 && t->is_byte_level)
            return phx_fail(err, PHX_E_UNSUPPORTED,
                            "%s: the vocabulary has no token for byte 0x%02X", where, (unsigned)b);
        t->byte_ids[b] = id;
    }
    return 0;
}

static int read_options(struct phx_tokenizer *t, json_t *model, const char *where,
                        struct phx_err *err)
{
    static const char *const keys[] = {
        "type",          "dropout",       "unk_token", "continuing_subword_prefix",
        "fuse_unk",      "byte_fallback", "vocab",     "end_of_word_suffix",
        "ignore_merges", "merges",        NULL};
    static const char *const off[] = {"dropout", "continuing_subword_prefix", "end_of_word_suffix"};
    const char              *type = json_string_value(json_object_get(model, "type"));
    if (!type || strcmp(type, "BPE") != 0)
        return phx_fail(err, PHX_E_UNSUPPORTED,
                        "%s: model type \"%.40s\" is not supported (only BPE)", where,
                        type ? type : "(none)");
    int rc = phx_field_only(model, keys, where, err);
    for (size_t i = 0; i < sizeof off / sizeof off[0] && rc == 0; i++)
        if (!phx_field_is_off(model, off[i]))
            rc = phx_fail(err, PHX_E_UNSUPPORTED, "%s: model.%s is not supported", where, off[i]);
    if (rc == 0)
        rc = phx_field_bool(model, "fuse_unk", where, &t->fuses_unknown, err);
    if (rc == 0)
        rc = phx_field_bool(model, "byte_fallback", where, &t->has_byte_fallback, err);
    if (rc == 0)
        rc = phx_field_bool(model, "ignore_merges", where, &t->ignores_merges, err);
    return rc;
}

int phx_tokenizer_read_model(struct phx_tokenizer *t, json_t *root, const char *where,
                             struct phx_err *err)
{
    json_t *model = json_object_get(root, "model"), *vocab = json_object_get(model, "vocab");
    int     rc = read_options(t, model, where, err);
    if (rc == 0)
        rc = read_vocab(t, vocab, where, err);
    if (rc == 0)
        rc = read_added(t, json_object_get(root, "added_tokens"), vocab, where, err);
    if (rc == 0)
        rc = phx_vocab_index(&t->vocab, where, err);
    if (rc == 0)
        rc = read_merges(t, json_object_get(model, "merges"), where, err);
    if (rc == 0)
        rc = read_byte_ids(t, where, err);
    const char *unknown = json_string_value(json_object_get(model, "unk_token"));
    if (rc == 0 && unknown) {
        t->unknown_id = phx_vocab_find(&t->vocab, unknown, strlen(unknown));
        if (t->unknown_id < 0 && !t->is_byte_level)
            rc = phx_fail(err, PHX_E_FORMAT, "%s: model.unk_token is not in the vocabulary", where);
    }
    return rc;
}
