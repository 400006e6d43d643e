/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/sched/lookup.h"

#include <stdbool.h>

#include "rpc/base/mem.h"

enum { GRAM_MIN = 2, GRAM_MAX = 3, ENTRIES_PER_TOKEN = 2, ENTRIES_MIN = 64, ENTRIES_MAX = 1 << 22 };

void phx_lookup_init(struct phx_lookup *l, int32_t max_tokens)
{
    uint32_t n = ENTRIES_MIN;

    while (n < ENTRIES_MAX && n / ENTRIES_PER_TOKEN < (uint32_t)max_tokens)
        n *= 2;
    *l = (struct phx_lookup){.table = phx_mem_calloc(n, sizeof(*l->table)), .mask = n - 1};
}

void phx_lookup_fini(struct phx_lookup *l)
{
    phx_mem_free(l->table);
    *l = (struct phx_lookup){0};
}

/* The entry of the n-gram that ends with tokens[end - 1]. */
static int32_t *entry_of(const struct phx_lookup *l, const int32_t *tokens, int32_t end, int32_t n)
{
    uint64_t h = (uint64_t)n;

    for (int32_t i = end - n; i < end; i++)
        h = (h ^ (uint64_t)(uint32_t)tokens[i]) * 0x9E3779B97F4A7C15u;
    return &l->table[(uint32_t)(h >> 32) & l->mask];
}

static void feed(struct phx_lookup *l, const int32_t *tokens, int32_t end)
{
    for (; l->n_fed < end; l->n_fed++)
        for (int32_t n = GRAM_MIN; n <= GRAM_MAX && n <= l->n_fed + 1; n++)
            *entry_of(l, tokens, l->n_fed + 1, n) = l->n_fed + 1;
}

/* How many tokens before `at` agree with those before `end`. */
static int32_t measure(const int32_t *tokens, int32_t at, int32_t end)
{
    int32_t n = 0;

    while (n < PHX_LOOKUP_LENGTH && n < at && tokens[at - 1 - n] == tokens[end - 1 - n])
        n++;
    return n;
}

/* The last place before `end` with the same three tokens, or two. */
static void find(struct phx_lookup *l, const int32_t *tokens, int32_t end)
{
    for (int32_t n = GRAM_MAX; n >= GRAM_MIN; n--) {
        if (n >= end)
            continue;
        l->at = *entry_of(l, tokens, end, n);
        l->length = measure(tokens, l->at, end);
        if (l->length >= n)
            return;
    }
    l->at = 0;
    l->length = 0;
}

int32_t phx_lookup_follow(struct phx_lookup *l, const int32_t *tokens, int32_t n_tokens)
{
    for (; l->n_seen < n_tokens && l->at > 0; l->n_seen++) {
        bool goes_on = tokens[l->at] == tokens[l->n_seen];

        l->at = goes_on ? l->at + 1 : 0;
        l->length += goes_on && l->length < PHX_LOOKUP_LENGTH;
    }
    if (n_tokens - 1 - l->n_fed > PHX_LOOKUP_FEED) {
        feed(l, tokens, l->n_fed + PHX_LOOKUP_FEED);
        return 0;
    }
    feed(l, tokens, n_tokens - 1); /* the end itself is looked up before it is known */
    if (l->at == 0)
        find(l, tokens, n_tokens);
    l->n_seen = n_tokens;
    return l->length;
}

void phx_lookup_guess(const struct phx_lookup *l, int32_t *tokens, int32_t n_tokens, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        tokens[n_tokens + i] = tokens[l->at + i];
}
