/* SPDX-License-Identifier: Apache-2.0
 * Which replica takes a sequence: pure, from load and prefix affinity. */
#ifndef PHX_DAEMON_ROUTER_H
#define PHX_DAEMON_ROUTER_H

#include <stdint.h>

struct phx_route_candidate {
    int32_t n_running;   /* sequences sent there and not ended */
    int32_t capacity;    /* how many it takes */
    int64_t n_tokens;    /* prompt + generated tokens of those: the weight of its work */
    int32_t kv_blocks, kv_blocks_used;
    int32_t n_hit_tokens; /* prompt tokens that were seen there before (phx_affinity_match) */
};

/* Index of the candidate with the least expected wait, or -1 when none has room.  Hits are worth what their
 * prefill would cost. */
int phx_route_pick(const struct phx_route_candidate *candidates, int n, int32_t n_prompt);

/* What prefixes a replica has probably cached: hashes of prompt heads at growing lengths.  One per
 * replica; forgets the oldest. */
struct phx_affinity;
struct phx_affinity *phx_affinity_create(void);
void    phx_affinity_destroy(struct phx_affinity *a); /* NULL is allowed */
/* salt: the tenant's, so that tenants never meet. */
void    phx_affinity_add(struct phx_affinity *a, const uint8_t salt[32], const int32_t *tokens,
                         int32_t n);
int32_t phx_affinity_match(const struct phx_affinity *a, const uint8_t salt[32],
                           const int32_t *tokens, int32_t n);
void    phx_affinity_clear(struct phx_affinity *a); /* the replica was restarted */

#endif
