/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/text/vocab.h"

#include <string.h>

#include "daemon/text/text.h"
#include "rpc/base/mem.h"

void phx_vocab_init(struct phx_vocab *v)
{
    *v = (struct phx_vocab){0};
    phx_buf_init(&v->bytes, PHX_TEXT_FILE_BYTES_MAX);
}

void phx_vocab_fini(struct phx_vocab *v)
{
    phx_mem_free(v->tokens);
    phx_mem_free(v->slots);
    phx_buf_fini(&v->bytes);
}

static int grow(struct phx_vocab *v, int32_t n, struct phx_err *err)
{
    if (n > v->capacity) {
        int32_t capacity = n < 1024 ? 1024 : n + n / 2;
        if (capacity > PHX_VOCAB_MAX)
            capacity = PHX_VOCAB_MAX;
        struct phx_token *bigger = phx_mem_try((size_t)capacity, sizeof *bigger);
        if (!bigger)
            return phx_fail(err, PHX_E_NOMEM, "no memory for a vocabulary of %d tokens", capacity);
        if (v->n_ids > 0)
            memcpy(bigger, v->tokens, (size_t)v->n_ids * sizeof *bigger);
        phx_mem_free(v->tokens);
        v->tokens = bigger;
        v->capacity = capacity;
    }
    if (n > v->n_ids)
        v->n_ids = n;
    return 0;
}

int phx_vocab_add(struct phx_vocab *v, const char *where, int64_t id, const char *bytes,
                  size_t size, uint32_t flags, struct phx_err *err)
{
    if (id < 0 || id >= PHX_VOCAB_MAX)
        return phx_fail(err, PHX_E_FORMAT, "%s: token id %lld is outside 0..%d", where,
                        (long long)id, PHX_VOCAB_MAX - 1);
    if (phx_vocab_has(v, id))
        return phx_fail(err, PHX_E_FORMAT, "%s: token id %lld is given twice", where,
                        (long long)id);
    int rc = grow(v, (int32_t)id + 1, err);
    if (rc)
        return rc;
    struct phx_token *t = &v->tokens[id];
    t->offset = (uint32_t)v->bytes.size;
    t->size = (uint32_t)size;
    t->flags = flags | PHX_TOKEN_USED;
    phx_buf_put(&v->bytes, bytes, size);
    phx_buf_putc(&v->bytes, '\0');
    return phx_buf_check(&v->bytes, "the vocabulary", err);
}

static uint64_t mix(uint64_t a, uint64_t b)
{
    __extension__ unsigned __int128 p =
        (unsigned __int128)(a ^ 0x9E3779B97F4A7C15u) * (b ^ 0xD6E8FEB86659FD93u);
    return (uint64_t)p ^ (uint64_t)(p >> 64);
}

static uint32_t hash_bytes(const char *s, size_t size)
{
    uint64_t h = size, word = 0;
    for (; size >= 8; s += 8, size -= 8) {
        memcpy(&word, s, 8);
        h = mix(h, word);
    }
    word = 0;
    if (size > 0)
        memcpy(&word, s, size);
    return (uint32_t)(mix(h, word) >> 16);
}

/* The slot that holds these bytes, or the free one where they belong. */
static uint32_t probe(const struct phx_vocab *v, const char *bytes, size_t size)
{
    uint32_t i = hash_bytes(bytes, size) & v->slot_mask;
    for (; v->slots[i] >= 0; i = (i + 1) & v->slot_mask) {
        const struct phx_token *t = &v->tokens[v->slots[i]];
        if (t->size == size && memcmp(v->bytes.data + t->offset, bytes, size) == 0)
            break;
    }
    return i;
}

int phx_vocab_index(struct phx_vocab *v, const char *where, struct phx_err *err)
{
    uint32_t n_slots = 1024;
    while (n_slots < (uint64_t)v->n_ids * 2)
        n_slots *= 2;
    phx_mem_free(v->slots);
    v->slots = phx_mem_try(n_slots, sizeof *v->slots);
    if (!v->slots)
        return phx_fail(err, PHX_E_NOMEM, "%s: no memory for the vocabulary index", where);
    memset(v->slots, 0xFF, n_slots * sizeof *v->slots);
    v->slot_mask = n_slots - 1;
    v->longest = 0;
    for (int32_t id = 0; id < v->n_ids; id++) {
        const struct phx_token *t = &v->tokens[id];
        if (!(t->flags & PHX_TOKEN_USED) || (t->flags & PHX_TOKEN_RAW))
            continue;
        uint32_t slot = probe(v, phx_vocab_bytes(v, id), t->size);
        if (v->slots[slot] >= 0)
            return phx_fail(err, PHX_E_FORMAT, "%s: tokens %d and %d are the same", where,
                            v->slots[slot], id);
        v->slots[slot] = id;
        if (t->size > v->longest)
            v->longest = t->size;
    }
    return 0;
}

int32_t phx_vocab_find(const struct phx_vocab *v, const char *bytes, size_t size)
{
    return size > v->longest ? -1 : v->slots[probe(v, bytes, size)];
}
