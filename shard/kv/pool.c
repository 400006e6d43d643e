/* SPDX-License-Identifier: Apache-2.0 */
#include <sodium.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/kv/kv.h"

enum { HASH_BYTES = 32, BLOCKS_MAX = 1 << 26, BLOCK_TOKENS_MAX = 1024 };

/* A block is free (no name, no user), cached (a name, no user: in the lru list) or used. */
struct block {
    uint8_t hash[HASH_BYTES];
    bool    is_named;
    int32_t n_users;
    int32_t lru_prev, lru_next;
};

/* A place of the name table.  A name stands at the first free place from where its first word points; the word is
 * kept beside it, so that looking for a name that is not there touches no block. */
struct name {
    uint32_t word;
    int32_t  block; /* PHX_KV_NONE: free */
};

struct phx_kv_pool {
    int32_t       n_blocks, block_tokens;
    struct block *blocks;
    int32_t      *free_stack;
    int32_t       n_free;
    struct name  *names;      /* [mask + 1], half of them free at least */
    uint32_t      mask;
    int32_t       unnamed;    /* a used block with its hash, whose name comes with the next one; or PHX_KV_NONE */
    int32_t       lru_oldest, lru_newest, n_cached;
    uint64_t      hit_tokens, lookup_tokens, evictions;
};

int phx_kv_pool_create(int32_t n_blocks, int32_t block_tokens, struct phx_kv_pool **out,
                       struct phx_err *err)
{
    struct phx_kv_pool *p;

    *out = NULL;
    if (n_blocks < 1 || n_blocks > BLOCKS_MAX || block_tokens < 1 || block_tokens > BLOCK_TOKENS_MAX)
        return phx_fail(err, PHX_E_INVALID, "kv pool: %d blocks of %d tokens; 1 to %d of 1 to %d",
                        n_blocks, block_tokens, BLOCKS_MAX, BLOCK_TOKENS_MAX);
    p = phx_mem_calloc(1, sizeof(*p));
    p->n_blocks = n_blocks;
    p->block_tokens = block_tokens;
    p->mask = 15;
    while (p->mask / 2 < (uint32_t)n_blocks)
        p->mask = 2 * p->mask + 1;
    p->blocks = phx_mem_calloc((size_t)n_blocks, sizeof(*p->blocks));
    p->free_stack = phx_mem_calloc((size_t)n_blocks, sizeof(*p->free_stack));
    p->names = phx_mem_calloc((size_t)p->mask + 1, sizeof(*p->names));
    for (uint32_t i = 0; i <= p->mask; i++)
        p->names[i].block = PHX_KV_NONE;
    for (int32_t i = 0; i < n_blocks; i++)
        p->free_stack[i] = n_blocks - 1 - i; /* block 0 is handed out first */
    p->n_free = n_blocks;
    p->lru_oldest = p->lru_newest = p->unnamed = PHX_KV_NONE;
    *out = p;
    return 0;
}

void phx_kv_pool_destroy(struct phx_kv_pool *p)
{
    if (p == NULL)
        return;
    phx_mem_free(p->blocks);
    phx_mem_free(p->free_stack);
    phx_mem_free(p->names);
    phx_mem_free(p);
}

void phx_kv_seq_init(struct phx_kv_seq *s, int32_t *blocks, int32_t max_blocks,
                     const uint8_t salt[PHX_KV_SALT_BYTES])
{
    memset(s, 0, sizeof(*s));
    s->blocks = blocks;
    s->max_blocks = max_blocks;
    memcpy(s->chain, salt, sizeof(s->chain));
}

/* The name of a block: BLAKE2b of the name before it and its tokens.  The first name is the tenant's salt,
 * so that tenants never share. */
static void hash_block(const struct phx_kv_pool *p, const uint8_t chain[HASH_BYTES],
                       const int32_t *tokens, uint8_t out[HASH_BYTES])
{
    crypto_generichash_state state;

    (void)crypto_generichash_init(&state, NULL, 0, HASH_BYTES); /* fixed sizes cannot fail */
    (void)crypto_generichash_update(&state, chain, HASH_BYTES);
    (void)crypto_generichash_update(&state, (const unsigned char *)tokens,
                                    (size_t)p->block_tokens * sizeof(*tokens));
    (void)crypto_generichash_final(&state, out, HASH_BYTES);
}

static uint32_t word_of(const uint8_t hash[HASH_BYTES])
{
    uint32_t word;

    memcpy(&word, hash, sizeof(word));
    return word;
}

/* Where a name stands, or the free place where it would. */
static uint32_t place_of(const struct phx_kv_pool *p, const uint8_t hash[HASH_BYTES])
{
    uint32_t word = word_of(hash), at = word & p->mask;

    while (p->names[at].block != PHX_KV_NONE &&
           (p->names[at].word != word || memcmp(p->blocks[p->names[at].block].hash, hash, HASH_BYTES) != 0))
        at = (at + 1) & p->mask;
    return at;
}

static int32_t find_name(const struct phx_kv_pool *p, const uint8_t hash[HASH_BYTES])
{
    return p->names[place_of(p, hash)].block;
}

/* The last sealed block gets its name. */
static void add_name(struct phx_kv_pool *p)
{
    int32_t  b = p->unnamed;
    uint32_t at;

    if (b == PHX_KV_NONE)
        return;
    p->unnamed = PHX_KV_NONE;
    at = place_of(p, p->blocks[b].hash);
    if (p->names[at].block != PHX_KV_NONE)
        return; /* another block has that name already, this copy stays nameless */
    p->names[at] = (struct name){word_of(p->blocks[b].hash), b};
    p->blocks[b].is_named = true;
}

/* A name follows when its place has had time to come from memory. */
static void add_name_soon(struct phx_kv_pool *p, int32_t b, const uint8_t hash[HASH_BYTES])
{
    __builtin_prefetch(&p->names[word_of(hash) & p->mask], 1);
    add_name(p);
    memcpy(p->blocks[b].hash, hash, HASH_BYTES);
    p->unnamed = b;
}

/* Names behind it move up, so that no search ends at the gap before it has found them. */
static void remove_name(struct phx_kv_pool *p, int32_t b)
{
    uint32_t gap = place_of(p, p->blocks[b].hash), at = gap;

    while (p->names[at = (at + 1) & p->mask].block != PHX_KV_NONE)
        if (((at - p->names[at].word) & p->mask) >= ((at - gap) & p->mask)) {
            p->names[gap] = p->names[at];
            gap = at;
        }
    p->names[gap].block = PHX_KV_NONE;
    p->blocks[b].is_named = false;
}

static void lru_push(struct phx_kv_pool *p, int32_t b)
{
    p->blocks[b].lru_prev = p->lru_newest;
    p->blocks[b].lru_next = PHX_KV_NONE;
    if (p->lru_newest != PHX_KV_NONE)
        p->blocks[p->lru_newest].lru_next = b;
    else
        p->lru_oldest = b;
    p->lru_newest = b;
    p->n_cached++;
}

static void lru_remove(struct phx_kv_pool *p, int32_t b)
{
    int32_t prev = p->blocks[b].lru_prev, next = p->blocks[b].lru_next;

    if (prev != PHX_KV_NONE)
        p->blocks[prev].lru_next = next;
    else
        p->lru_oldest = next;
    if (next != PHX_KV_NONE)
        p->blocks[next].lru_prev = prev;
    else
        p->lru_newest = prev;
    p->n_cached--;
}

int32_t phx_kv_match(struct phx_kv_pool *p, struct phx_kv_seq *s, const int32_t *tokens,
                     int32_t n_tokens)
{
    int32_t n_full = (n_tokens - 1) / p->block_tokens;

    phx_assert(s->n_blocks == 0);
    add_name(p);
    p->lookup_tokens += (uint64_t)n_tokens;
    for (int32_t i = 0; i < n_full && i < s->max_blocks; i++) {
        uint8_t hash[HASH_BYTES];
        int32_t b;

        hash_block(p, s->chain, tokens + (size_t)i * (size_t)p->block_tokens, hash);
        b = find_name(p, hash);
        if (b == PHX_KV_NONE)
            break;
        if (p->blocks[b].n_users++ == 0)
            lru_remove(p, b);
        s->blocks[s->n_blocks++] = b;
        s->n_sealed++;
        memcpy(s->chain, hash, HASH_BYTES);
    }
    p->hit_tokens += (uint64_t)s->n_blocks * (uint64_t)p->block_tokens;
    return s->n_blocks * p->block_tokens;
}

int32_t phx_kv_available(const struct phx_kv_pool *p)
{
    return p->n_free + p->n_cached;
}

static int32_t take_block(struct phx_kv_pool *p)
{
    int32_t b;

    if (p->n_free > 0)
        return p->free_stack[--p->n_free];
    b = p->lru_oldest;
    lru_remove(p, b);
    remove_name(p, b);
    p->evictions++;
    return b;
}

int phx_kv_extend(struct phx_kv_pool *p, struct phx_kv_seq *s, int32_t n_tokens)
{
    int32_t want;

    if (n_tokens <= s->n_blocks * p->block_tokens)
        return 0; /* as in most steps, which need no division to see it */
    want = (n_tokens + p->block_tokens - 1) / p->block_tokens;
    if (want > s->max_blocks)
        return PHX_E_TOOBIG;
    if (want - s->n_blocks > phx_kv_available(p))
        return PHX_E_BUSY;
    while (s->n_blocks < want) {
        int32_t b = take_block(p);

        p->blocks[b].n_users = 1;
        s->blocks[s->n_blocks++] = b;
    }
    return 0;
}

void phx_kv_seal(struct phx_kv_pool *p, struct phx_kv_seq *s, const int32_t *tokens, int32_t n_tokens)
{
    while ((s->n_sealed + 1) * p->block_tokens <= n_tokens && s->n_sealed < s->n_blocks) {
        uint8_t hash[HASH_BYTES];

        hash_block(p, s->chain, tokens + (size_t)s->n_sealed * (size_t)p->block_tokens, hash);
        add_name_soon(p, s->blocks[s->n_sealed], hash);
        memcpy(s->chain, hash, HASH_BYTES);
        s->n_sealed++;
    }
}

void phx_kv_release(struct phx_kv_pool *p, struct phx_kv_seq *s)
{
    add_name(p);
    /* from the end: the tail of a prefix is evicted before its head */
    while (s->n_blocks > 0) {
        int32_t b = s->blocks[--s->n_blocks];

        if (--p->blocks[b].n_users > 0)
            continue;
        if (p->blocks[b].is_named)
            lru_push(p, b);
        else
            p->free_stack[p->n_free++] = b;
    }
    s->n_sealed = 0;
}

void phx_kv_unmatch(struct phx_kv_pool *p, struct phx_kv_seq *s, int32_t found, int32_t n_tokens)
{
    phx_kv_release(p, s);
    p->hit_tokens -= (uint64_t)found;
    p->lookup_tokens -= (uint64_t)n_tokens;
}

void phx_kv_stats(const struct phx_kv_pool *p, struct phx_kv_stats *stats)
{
    *stats = (struct phx_kv_stats){
        .n_blocks = p->n_blocks,
        .n_free = p->n_free,
        .n_cached = p->n_cached,
        .n_used = p->n_blocks - p->n_free - p->n_cached,
        .hit_tokens = p->hit_tokens,
        .lookup_tokens = p->lookup_tokens,
        .evictions = p->evictions,
    };
}

bool phx_kv_is_consistent(const struct phx_kv_pool *p)
{
    int32_t n_cached = 0, n_unused = 0, n_named = 0, n_places = 0;

    for (int32_t b = 0; b < p->n_blocks; b++) {
        if (p->blocks[b].n_users < 0)
            return false;
        n_unused += p->blocks[b].n_users == 0;
        n_named += p->blocks[b].is_named;
        if (p->blocks[b].is_named && find_name(p, p->blocks[b].hash) != b)
            return false;
    }
    for (int32_t b = p->lru_oldest; b != PHX_KV_NONE && n_cached <= p->n_blocks;
         b = p->blocks[b].lru_next, n_cached++)
        if (p->blocks[b].n_users != 0 || !p->blocks[b].is_named)
            return false;
    for (uint32_t i = 0; i <= p->mask; i++)
        n_places += p->names[i].block != PHX_KV_NONE;
    for (int32_t i = 0; i < p->n_free; i++)
        if (p->blocks[p->free_stack[i]].n_users != 0 || p->blocks[p->free_stack[i]].is_named)
            return false;
    return n_cached == p->n_cached && n_unused == p->n_cached + p->n_free && n_places == n_named;
}
