/* SPDX-License-Identifier: Apache-2.0
 * A run of text between two special ids is encoded alone, so its ids depend on nothing but its bytes and the flags:
 * that is what is remembered.  A conversation that comes back with one message more finds all its old runs.
 * The key is a MAC of tenant, flags and text under a secret of this process: whether a text was seen before can be
 * told (by timing) only inside the tenant that sent it, and nobody can make two texts meet. */
#include "daemon/text/cache.h"

#include <pthread.h>
#include <string.h>

#include "rpc/base/hash.h"
#include "rpc/base/id.h"
#include "rpc/base/mem.h"
#include "rpc/base/table.h"

enum { TEXT_MIN_BYTES = 64, /* encoding less costs no more than looking it up */
       ENTRIES_MAX = 1 << 20, ENTRY_OVERHEAD = 160 };

struct entry {
    struct entry *newer, *older;
    uint8_t       key[PHX_SHA256_BYTES];
    size_t        n;
    int32_t       ids[];
};

struct phx_text_cache {
    pthread_mutex_t                   lock;
    uint8_t                           secret[32];
    struct phx_table                 *by_key; /* under the first 8 bytes of the key */
    struct entry                     *newest, *oldest;
    size_t                            max_bytes;
    struct phx_text_cache_facts       facts;
};

struct phx_text_cache *phx_text_cache_create(size_t max_bytes)
{
    struct phx_text_cache *c = phx_mem_calloc(1, sizeof(*c));

    phx_assert(pthread_mutex_init(&c->lock, NULL) == 0);
    phx_id_random(c->secret, sizeof(c->secret));
    c->by_key = phx_table_create(ENTRIES_MAX);
    c->max_bytes = max_bytes;
    return c;
}

static size_t size_of(const struct entry *e)
{
    return ENTRY_OVERHEAD + e->n * sizeof(e->ids[0]);
}

static uint64_t short_key(const uint8_t key[PHX_SHA256_BYTES])
{
    uint64_t k;

    memcpy(&k, key, sizeof(k));
    return k;
}

static void unlink_entry(struct phx_text_cache *c, struct entry *e)
{
    *(e->newer != NULL ? &e->newer->older : &c->newest) = e->older;
    *(e->older != NULL ? &e->older->newer : &c->oldest) = e->newer;
}

static void link_newest(struct phx_text_cache *c, struct entry *e)
{
    e->newer = NULL;
    e->older = c->newest;
    *(c->newest != NULL ? &c->newest->newer : &c->oldest) = e;
    c->newest = e;
}

static void drop(struct phx_text_cache *c, struct entry *e)
{
    (void)phx_table_remove_u64(c->by_key, short_key(e->key));
    unlink_entry(c, e);
    c->facts.bytes -= size_of(e);
    c->facts.n_entries--;
    phx_mem_free(e);
}

void phx_text_cache_destroy(struct phx_text_cache *c)
{
    if (c == NULL)
        return;
    while (c->oldest != NULL)
        drop(c, c->oldest);
    phx_table_destroy(c->by_key);
    phx_secret_wipe(c->secret, sizeof(c->secret));
    (void)pthread_mutex_destroy(&c->lock); /* nobody holds it any more */
    phx_mem_free(c);
}

void phx_text_cache_facts(struct phx_text_cache *c, struct phx_text_cache_facts *out)
{
    (void)pthread_mutex_lock(&c->lock);
    *out = c->facts;
    (void)pthread_mutex_unlock(&c->lock);
}

/* The MAC of MAC(tenant) + flags + text: lengths are fixed, so nothing can be read in two ways. */
static void make_key(const struct phx_text_scope *scope, const char *text, size_t size, unsigned flags,
                     uint8_t key[PHX_SHA256_BYTES])
{
    const struct phx_text_cache *c = scope->cache;
    uint8_t                      head[PHX_SHA256_BYTES + sizeof(uint32_t)];
    uint32_t                     bits = flags;
    struct phx_sha256            h;

    phx_hmac_sha256(c->secret, sizeof(c->secret), scope->tenant, strlen(scope->tenant), head);
    memcpy(head + PHX_SHA256_BYTES, &bits, sizeof(bits));
    phx_sha256_init(&h);
    phx_sha256_update(&h, head, sizeof(head));
    phx_sha256_update(&h, text, size);
    phx_sha256_final(&h, key);
}

static bool find(struct phx_text_cache *c, const uint8_t key[PHX_SHA256_BYTES], struct phx_ids *ids)
{
    struct entry *e;
    bool          is_hit;

    (void)pthread_mutex_lock(&c->lock);
    e = phx_table_get_u64(c->by_key, short_key(key));
    is_hit = e != NULL && memcmp(e->key, key, sizeof(e->key)) == 0;
    if (is_hit) {
        unlink_entry(c, e);
        link_newest(c, e);
        for (size_t i = 0; i < e->n; i++)
            phx_ids_put(ids, e->ids[i]);
        c->facts.n_hits++;
    } else
        c->facts.n_misses++;
    (void)pthread_mutex_unlock(&c->lock);
    return is_hit;
}

static void keep(struct phx_text_cache *c, const uint8_t key[PHX_SHA256_BYTES], const int32_t *ids, size_t n)
{
    struct entry *e = phx_mem_calloc(1, sizeof(*e) + n * sizeof(*ids)), *old;

    memcpy(e->key, key, sizeof(e->key));
    memcpy(e->ids, ids, n * sizeof(*ids));
    e->n = n;
    if (size_of(e) > c->max_bytes / 4) { /* one text must not turn all others out */
        phx_mem_free(e);
        return;
    }
    (void)pthread_mutex_lock(&c->lock);
    old = phx_table_get_u64(c->by_key, short_key(key));
    if (old != NULL)
        drop(c, old); /* another thread was faster */
    while (c->oldest != NULL && (c->facts.bytes + size_of(e) > c->max_bytes || c->facts.n_entries == ENTRIES_MAX))
        drop(c, c->oldest);
    phx_assert(phx_table_set_u64(c->by_key, short_key(key), e) == 0);
    link_newest(c, e);
    c->facts.bytes += size_of(e);
    c->facts.n_entries++;
    (void)pthread_mutex_unlock(&c->lock);
}

int phx_text_cache_encode(const struct phx_text_scope *scope, const struct phx_tokenizer *t, const char *text, size_t size,
                          unsigned flags, struct phx_ids *ids, struct phx_err *err)
{
    uint8_t key[PHX_SHA256_BYTES];
    size_t  before = ids->n;
    int     rc;

    if (scope == NULL || scope->cache == NULL || scope->cache->max_bytes == 0 || size < TEXT_MIN_BYTES)
        return phx_tokenizer_encode(t, text, size, flags, ids, err);
    make_key(scope, text, size, flags, key);
    if (find(scope->cache, key, ids))
        return 0;
    rc = phx_tokenizer_encode(t, text, size, flags, ids, err);
    if (rc == 0)
        keep(scope->cache, key, ids->data + before, ids->n - before);
    return rc;
}
