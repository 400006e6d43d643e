/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/sched/lookup.h"

#include <stdbool.h>

#include "rpc/base/mem.h"

enum {
    GRAM_MIN = 2, GRAM_MAX = 3, N_GRAMS = 2,
    TRIES = 8, /* places of a chain that are compared */
    ENTRIES_PER_TOKEN = 1, ENTRIES_MIN = 64, ENTRIES_MAX = 1 << 22
};

void phx_lookup_init(struct phx_lookup *l, int32_t max_tokens)
{
    uint32_t n = ENTRIES_MIN;

    while (n < ENTRIES_MAX && n / ENTRIES_PER_TOKEN < (uint32_t)max_tokens)
        n *= 2;
    *l = (struct phx_lookup){.mask = n - 1};
    l->newest = phx_mem_calloc((size_t)n * N_GRAMS, sizeof(*l->newest));
    l->older = phx_mem_calloc(N_GRAMS * ((size_t)max_tokens + 1), sizeof(*l->older));
}

void phx_lookup_fini(struct phx_lookup *l)
{
    phx_mem_free(l->newest);
    phx_mem_free(l->older);
    *l = (struct phx_lookup){0};
}

/* The chain of the n-gram that ends with tokens[end - 1]. */
static int32_t *chain_of(const struct phx_lookup *l, const int32_t *tokens, int32_t end, int32_t n)
{
    uint64_t h = 0;

    for (int32_t i = end - n; i < end; i++)
        h = (h ^ (uint64_t)(uint32_t)tokens[i]) * 0x9E3779B97F4A7C15u;
    return &l->newest[(size_t)((uint32_t)(h >> 32) & l->mask) * N_GRAMS + (size_t)(n - GRAM_MIN)];
}

static int32_t *older_of(const struct phx_lookup *l, int32_t at, int32_t n)
{
    return &l->older[(size_t)at * N_GRAMS + (size_t)(n - GRAM_MIN)];
}

static void feed(struct phx_lookup *l, const int32_t *tokens, int32_t end)
{
    while (l->n_fed < end) {
        l->n_fed++;
        for (int32_t n = GRAM_MIN; n <= GRAM_MAX && n <= l->n_fed; n++) {
            int32_t *newest = chain_of(l, tokens, l->n_fed, n);

            *older_of(l, l->n_fed, n) = *newest;
            *newest = l->n_fed;
        }
    }
}

/* How many tokens before `at` agree with those before `end`. */
static int32_t measure(const int32_t *tokens, int32_t at, int32_t end)
{
    int32_t n = 0;

    while (n < PHX_LOOKUP_LENGTH && n < at && tokens[at - 1 - n] == tokens[end - 1 - n])
        n++;
    return n;
}

/* Of the last places with the same three tokens, or else two, the one that agrees for longest. */
static void find(struct phx_lookup *l, const int32_t *tokens, int32_t end)
{
    l->at = 0;
    l->length = 0;
    for (int32_t n = GRAM_MAX; n >= GRAM_MIN && l->at == 0; n--) {
        int32_t at = n < end ? *chain_of(l, tokens, end, n) : 0;

        for (int32_t i = 0; i < TRIES && at > 0; i++, at = *older_of(l, at, n)) {
            int32_t length = measure(tokens, at, end);

            if (length < n || length <= l->length)
                continue;
            l->at = at;
            l->length = length;
        }
    }
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
