/* SPDX-License-Identifier: Apache-2.0
 * Life of a tokenizer, and questions about its tokens. */
#include "daemon/text/tokenizer.h"

#include <string.h>

#include "rpc/base/mem.h"

void phx_ids_put(struct phx_ids *ids, int32_t id)
{
    if (ids->n == ids->capacity) {
        ids->capacity = ids->capacity ? ids->capacity * 2 : 64;
        ids->data = phx_mem_realloc(ids->data, ids->capacity, sizeof *ids->data);
    }
    ids->data[ids->n++] = id;
}

void phx_ids_fini(struct phx_ids *ids)
{
    phx_mem_free(ids->data);
    *ids = (struct phx_ids){0};
}

struct phx_tokenizer *phx_tokenizer_create(void)
{
    struct phx_tokenizer *t = phx_mem_calloc(1, sizeof *t);
    phx_vocab_init(&t->vocab);
    phx_vocab_init(&t->shown);
    t->unknown_id = t->bos = t->eos = t->pad = -1;
    for (int i = 0; i < 256; i++)
        t->byte_ids[i] = -1;
    return t;
}

void phx_tokenizer_close(struct phx_tokenizer *t)
{
    if (!t)
        return;
    phx_vocab_fini(&t->vocab);
    phx_vocab_fini(&t->shown);
    phx_merges_fini(&t->merges);
    phx_normalizer_fini(&t->normalizer);
    phx_splitter_fini(&t->splitter);
    phx_added_fini(&t->added);
    phx_added_fini(&t->added_normalized);
    phx_ids_fini(&t->prefix);
    phx_ids_fini(&t->suffix);
    phx_mem_free(t);
}

/* Pieces that are exactly one token need no merging.  That holds for every token under
 * ignore_merges, else for those that merging their own bytes arrives at. */
static int mark_whole_tokens(struct phx_tokenizer *t, struct phx_err *err)
{
    struct phx_encode_scratch scratch = {0};
    struct phx_ids            ids = {0};
    int                       rc = 0;
    for (int32_t id = 0; id < t->vocab.n_ids && rc == 0; id++) {
        struct phx_token *token = &t->vocab.tokens[id];
        if (!(token->flags & PHX_TOKEN_USED) || token->size == 0 ||
            (token->flags & (PHX_TOKEN_SPECIAL | PHX_TOKEN_RAW)))
            continue;
        ids.n = 0;
        if (!t->ignores_merges)
            rc = phx_tokenizer_merge_piece(t, phx_vocab_bytes(&t->vocab, id), token->size, &scratch,
                                           &ids, err);
        if (t->ignores_merges || (rc == 0 && ids.n == 1 && ids.data[0] == id))
            token->flags |= PHX_TOKEN_WHOLE;
    }
    phx_ids_fini(&ids);
    phx_encode_scratch_fini(&scratch);
    return rc;
}

/* A word start (marker behind another character) inside a token means that merges cross it. */
static bool has_inner_marker(const struct phx_vocab *v)
{
    for (int32_t id = 0; id < v->n_ids; id++) {
        const char *s = phx_vocab_has(v, id) ? phx_vocab_bytes(v, id) : "";
        size_t      size = phx_vocab_has(v, id) ? v->tokens[id].size : 0, n = 0;
        while (size - n >= 3 && memcmp(s + n, PHX_MARKER, 3) == 0)
            n += 3;
        if (!(v->tokens[id].flags & PHX_TOKEN_ADDED) &&
            memmem(s + n, size - n, PHX_MARKER, 3) != NULL)
            return true;
    }
    return false;
}

int phx_tokenizer_finish(struct phx_tokenizer *t, struct phx_err *err)
{
    int32_t marker = phx_vocab_find(&t->vocab, PHX_MARKER, 3);
    t->cuts_words =
        !t->is_byte_level && !t->ignores_merges && marker >= 0 && !has_inner_marker(&t->vocab);
    return mark_whole_tokens(t, err);
}

int32_t phx_tokenizer_vocab_size(const struct phx_tokenizer *t)
{
    return t->vocab.n_ids;
}

int32_t phx_tokenizer_id(const struct phx_tokenizer *t, const char *content)
{
    size_t size = strlen(content);
    for (size_t i = 0; i < t->added.n + t->added_normalized.n; i++) {
        int32_t id =
            i < t->added.n ? t->added.tokens[i].id : t->added_normalized.tokens[i - t->added.n].id;
        if (t->vocab.tokens[id].size == size &&
            memcmp(phx_vocab_bytes(&t->vocab, id), content, size) == 0)
            return id;
    }
    return phx_vocab_find(&t->vocab, content, size);
}

bool phx_tokenizer_is_special(const struct phx_tokenizer *t, int32_t id)
{
    return phx_vocab_has(&t->vocab, id) && (t->vocab.tokens[id].flags & PHX_TOKEN_SPECIAL);
}

int32_t phx_tokenizer_bos(const struct phx_tokenizer *t)
{
    return t->bos;
}

int32_t phx_tokenizer_eos(const struct phx_tokenizer *t)
{
    return t->eos;
}

int32_t phx_tokenizer_pad(const struct phx_tokenizer *t)
{
    return t->pad;
}

const char *phx_tokenizer_bytes(const struct phx_tokenizer *t, int32_t id, size_t *size_bytes)
{
    const struct phx_vocab *v = t->decoder.is_byte_level ? &t->vocab : &t->shown;
    *size_bytes = 0;
    if (!phx_vocab_has(v, id))
        return NULL;
    *size_bytes = v->tokens[id].size;
    return phx_vocab_bytes(v, id);
}
