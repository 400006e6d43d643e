/* SPDX-License-Identifier: Apache-2.0
 * Hashes of prompt heads, one for every 64 tokens, in a ring that forgets the oldest.  A wrong match costs
 * time, never an answer: the replica compares the tokens themselves. */
#include "daemon/router/router.h"

#include <string.h>

#include "rpc/base/mem.h"
#include "rpc/base/table.h"

enum { PIECE_TOKENS = 64, PIECES_MAX = 256, RING_SIZE = 16384 };

struct phx_affinity {
    struct phx_table *known; /* hash -> its slot in the ring */
    uint64_t         *ring;  /* 0 = empty */
    size_t            next;
};

struct phx_affinity *phx_affinity_create(void)
{
    struct phx_affinity *a = phx_mem_calloc(1, sizeof(*a));

    a->known = phx_table_create(RING_SIZE);
    a->ring = phx_mem_calloc(RING_SIZE, sizeof(*a->ring));
    return a;
}

void phx_affinity_destroy(struct phx_affinity *a)
{
    if (a == NULL)
        return;
    phx_table_destroy(a->known);
    phx_mem_free(a->ring);
    phx_mem_free(a);
}

void phx_affinity_clear(struct phx_affinity *a)
{
    phx_table_destroy(a->known);
    a->known = phx_table_create(RING_SIZE);
    memset(a->ring, 0, RING_SIZE * sizeof(*a->ring));
    a->next = 0;
}

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * UINT64_C(0x9e3779b97f4a7c15);
    return h ^ (h >> 29);
}

static uint64_t begin(const uint8_t salt[32])
{
    uint64_t words[4], h = 0;

    memcpy(words, salt, sizeof(words));
    for (int i = 0; i < 4; i++)
        h = mix(h, words[i]);
    return h;
}

/* The hash behind the next piece; never 0, which marks an empty slot. */
static uint64_t extend(uint64_t h, const int32_t *piece)
{
    for (int i = 0; i < PIECE_TOKENS; i++)
        h = mix(h, (uint32_t)piece[i]);
    return h | 1;
}

static void remember(struct phx_affinity *a, uint64_t h)
{
    uint64_t *slot = &a->ring[a->next];

    if (phx_table_get_u64(a->known, h) != NULL)
        return;
    if (*slot != 0)
        (void)phx_table_remove_u64(a->known, *slot); /* the value is the slot itself */
    *slot = h;
    phx_assert(phx_table_set_u64(a->known, h, slot) == 0); /* as many as the ring has slots */
    a->next = (a->next + 1) % RING_SIZE;
}

void phx_affinity_add(struct phx_affinity *a, const uint8_t salt[32], const int32_t *tokens, int32_t n)
{
    uint64_t h = begin(salt);

    for (int32_t i = 0; i < PIECES_MAX && (i + 1) * PIECE_TOKENS <= n; i++) {
        h = extend(h, tokens + i * PIECE_TOKENS);
        remember(a, h);
    }
}

int32_t phx_affinity_match(const struct phx_affinity *a, const uint8_t salt[32], const int32_t *tokens,
                           int32_t n)
{
    uint64_t h = begin(salt);
    int32_t  n_matched = 0;

    for (int32_t i = 0; i < PIECES_MAX && (i + 1) * PIECE_TOKENS <= n; i++) {
        h = extend(h, tokens + i * PIECE_TOKENS);
        if (phx_table_get_u64(a->known, h) == NULL)
            break;
        n_matched = (i + 1) * PIECE_TOKENS;
    }
    return n_matched;
}
