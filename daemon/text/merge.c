/* SPDX-License-Identifier: Apache-2.0
 * Two ways to the same result.  Most pieces are words: a scan over an array of ranks is fastest.
 * A piece may also be a whole document (SentencePiece) or megabytes without a space: there a linked
 * list and a heap keep the work at O(n log n). */
#include "daemon/text/merge.h"

#include <string.h>

#include "rpc/base/mem.h"

#define NO_PAIR    UINT64_MAX
#define NO_RANK    UINT32_MAX
#define SCAN_LIMIT 96 /* ids; above it the heap wins */

int phx_merges_init(struct phx_merges *m, size_t n, struct phx_err *err)
{
    size_t n_slots = 64;
    while (n_slots < n * 2)
        n_slots *= 2;
    m->slots = phx_mem_try(n_slots, sizeof *m->slots);
    if (!m->slots)
        return phx_fail(err, PHX_E_NOMEM, "no memory for %zu merges", n);
    m->mask = n_slots - 1;
    for (size_t i = 0; i < n_slots; i++)
        m->slots[i].pair = NO_PAIR;
    return 0;
}

void phx_merges_fini(struct phx_merges *m)
{
    phx_mem_free(m->slots);
    m->slots = NULL;
}

static uint64_t pair_of(int32_t left, int32_t right)
{
    return (uint64_t)(uint32_t)left << 32 | (uint32_t)right;
}

static struct phx_merge *probe(const struct phx_merges *m, uint64_t pair)
{
    uint64_t h = pair * 0x9E3779B97F4A7C15u;
    uint64_t i = (h ^ h >> 32) & m->mask;
    while (m->slots[i].pair != pair && m->slots[i].pair != NO_PAIR)
        i = (i + 1) & m->mask;
    return &m->slots[i];
}

void phx_merges_put(struct phx_merges *m, int32_t left, int32_t right, uint32_t rank, int32_t id)
{
    uint64_t          pair = pair_of(left, right);
    struct phx_merge *slot = probe(m, pair);
    *slot = (struct phx_merge){.pair = pair, .rank = rank, .id = id};
}

static uint32_t rank_of(const struct phx_merges *m, int32_t left, int32_t right)
{
    const struct phx_merge *slot = probe(m, pair_of(left, right));
    return slot->pair == NO_PAIR ? NO_RANK : slot->rank;
}

/* ---- short pieces ---- */

static size_t apply_scan(const struct phx_merges *m, int32_t *ids, size_t n)
{
    uint32_t ranks[SCAN_LIMIT];
    for (size_t i = 0; i + 1 < n; i++)
        ranks[i] = rank_of(m, ids[i], ids[i + 1]);
    while (n > 1) {
        size_t best = 0;
        for (size_t i = 1; i + 1 < n; i++)
            if (ranks[i] < ranks[best])
                best = i;
        if (ranks[best] == NO_RANK)
            break;
        ids[best] = probe(m, pair_of(ids[best], ids[best + 1]))->id;
        n--;
        size_t rest = n - best - 1; /* ids behind the merged one */
        memmove(&ids[best + 1], &ids[best + 2], rest * sizeof *ids);
        if (rest > 0) {
            memmove(&ranks[best + 1], &ranks[best + 2], (rest - 1) * sizeof *ranks);
            ranks[best] = rank_of(m, ids[best], ids[best + 1]);
        }
        if (best > 0)
            ranks[best - 1] = rank_of(m, ids[best - 1], ids[best]);
    }
    return n;
}

/* ---- long pieces ---- */

struct link {
    int32_t prev, next; /* -1 at the ends */
};

struct candidate {
    uint64_t key;  /* rank << 32 | position of the left id: the order of merging */
    uint64_t pair; /* what stood there when it was pushed; stale when it no longer does */
};

struct heap {
    struct candidate *items;
    size_t            n;
};

static void sift_down(struct heap *h, size_t i)
{
    struct candidate item = h->items[i];
    for (;;) {
        size_t child = 2 * i + 1;
        if (child >= h->n)
            break;
        if (child + 1 < h->n && h->items[child + 1].key < h->items[child].key)
            child++;
        if (h->items[child].key >= item.key)
            break;
        h->items[i] = h->items[child];
        i = child;
    }
    h->items[i] = item;
}

static void heap_push(struct heap *h, struct candidate item)
{
    size_t i = h->n++;
    while (i > 0 && h->items[(i - 1) / 2].key > item.key) {
        h->items[i] = h->items[(i - 1) / 2];
        i = (i - 1) / 2;
    }
    h->items[i] = item;
}

static struct candidate heap_pop(struct heap *h)
{
    struct candidate top = h->items[0];
    h->items[0] = h->items[--h->n];
    if (h->n > 0)
        sift_down(h, 0);
    return top;
}

/* Pushes the pair (i, next of i) if it can be merged. */
static void offer(struct heap *h, const struct phx_merges *m, const int32_t *ids,
                  const struct link *links, int32_t i)
{
    if (i < 0 || links[i].next < 0)
        return;
    uint64_t                pair = pair_of(ids[i], ids[links[i].next]);
    const struct phx_merge *slot = probe(m, pair);
    if (slot->pair != NO_PAIR)
        heap_push(h, (struct candidate){(uint64_t)slot->rank << 32 | (uint32_t)i, pair});
}

static int reserve(struct phx_merge_scratch *s, size_t size_bytes, struct phx_err *err)
{
    if (s->size_bytes >= size_bytes)
        return 0;
    phx_mem_free(s->memory);
    s->size_bytes = 0;
    s->memory = phx_mem_try(1, size_bytes);
    if (!s->memory)
        return phx_fail(err, PHX_E_NOMEM, "no memory (%zu MiB) to tokenize one long word",
                        size_bytes >> 20);
    s->size_bytes = size_bytes;
    return 0;
}

static void heap_fill(struct heap *h, const struct phx_merges *m, const int32_t *ids, size_t n)
{
    h->n = 0;
    for (size_t i = 0; i + 1 < n; i++) {
        uint64_t                pair = pair_of(ids[i], ids[i + 1]);
        const struct phx_merge *slot = probe(m, pair);
        if (slot->pair != NO_PAIR)
            h->items[h->n++] = (struct candidate){(uint64_t)slot->rank << 32 | i, pair};
    }
    for (size_t i = h->n / 2; i-- > 0;)
        sift_down(h, i);
}

/* Every merge removes one id and offers at most two pairs, and pops one: n initial candidates grow
 * by at most one for each of n - 1 merges, so 2n items suffice. */
static int apply_heap(const struct phx_merges *m, int32_t *ids, size_t n,
                      struct phx_merge_scratch *scratch, size_t *n_out, struct phx_err *err)
{
    int rc = reserve(scratch, n * (2 * sizeof(struct candidate) + sizeof(struct link)), err);
    if (rc)
        return rc;
    struct heap  heap = {.items = scratch->memory};
    struct link *links = (struct link *)(heap.items + 2 * n);
    for (size_t i = 0; i < n; i++)
        links[i] = (struct link){(int32_t)i - 1, i + 1 < n ? (int32_t)i + 1 : -1};
    heap_fill(&heap, m, ids, n);
    while (heap.n > 0) {
        struct candidate top = heap_pop(&heap);
        int32_t          i = (int32_t)(uint32_t)top.key, next = links[i].next;
        if (ids[i] < 0 || next < 0 || pair_of(ids[i], ids[next]) != top.pair)
            continue;
        ids[i] = probe(m, top.pair)->id;
        ids[next] = -1; /* swallowed */
        links[i].next = links[next].next;
        if (links[i].next >= 0)
            links[links[i].next].prev = i;
        offer(&heap, m, ids, links, links[i].prev);
        offer(&heap, m, ids, links, i);
    }
    size_t left = 0;
    for (size_t i = 0; i < n; i++)
        if (ids[i] >= 0)
            ids[left++] = ids[i];
    *n_out = left;
    return 0;
}

int phx_merges_apply(const struct phx_merges *m, int32_t *ids, size_t n,
                     struct phx_merge_scratch *scratch, size_t *n_out, struct phx_err *err)
{
    if (n > SCAN_LIMIT)
        return apply_heap(m, ids, n, scratch, n_out, err);
    *n_out = apply_scan(m, ids, n);
    return 0;
}

void phx_merge_scratch_fini(struct phx_merge_scratch *s)
{
    phx_mem_free(s->memory);
    *s = (struct phx_merge_scratch){0};
}
