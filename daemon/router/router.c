/* SPDX-License-Identifier: Apache-2.0
 * The cheapest replica for one sequence. */
#include "daemon/router/router.h"

#include <stdbool.h>

enum {
    SEQUENCE_COST = 64,      /* a sequence that decodes slows a newcomer like so many prompt tokens */
    FULL_CACHE_COST = 4096,  /* a replica about to preempt */
    FULL_CACHE_PERCENT = 95
};

static int64_t cost_of(const struct phx_route_candidate *c, int32_t n_prompt)
{
    int32_t n_prefill = n_prompt > c->n_hit_tokens ? n_prompt - c->n_hit_tokens : 0;
    int64_t cost = (int64_t)c->n_running * SEQUENCE_COST + n_prefill;
    bool    is_full = c->kv_blocks > 0 && (int64_t)c->kv_blocks_used * 100 >=
                                           (int64_t)c->kv_blocks * FULL_CACHE_PERCENT;

    return is_full ? cost + FULL_CACHE_COST : cost;
}

int phx_route_pick(const struct phx_route_candidate *candidates, int n, int32_t n_prompt)
{
    int64_t best_cost = 0;
    int     best = -1;

    for (int i = 0; i < n; i++) {
        int64_t cost = cost_of(&candidates[i], n_prompt);

        if (candidates[i].n_running >= candidates[i].capacity)
            continue;
        if (best < 0 || cost < best_cost ||
            (cost == best_cost && candidates[i].n_tokens < candidates[best].n_tokens)) {
            best = i;
            best_cost = cost;
        }
    }
    return best;
}
