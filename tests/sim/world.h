/* SPDX-License-Identifier: Apache-2.0
 * A world around a scheduler: clients that know what their answers must be, and an engine that keeps an
 * imitated cache.  A cell of it holds a hash of all tokens up to its position, so that a block that was
 * shared, evicted or reused wrongly is noticed by whoever reads it. */
#ifndef PHX_TESTS_SIM_WORLD_H
#define PHX_TESTS_SIM_WORLD_H

#include "shard/sched/sched.h"

enum { WORLD_CLIENTS_MAX = 4096, WORLD_TOKENS_MAX = 160, WORLD_STOP = 3 };

struct world_client {
    uint64_t        id;
    int32_t         tenant;
    int32_t         tokens[WORLD_TOKENS_MAX]; /* as told by events */
    int32_t         n_tokens, n_prompt, n_first; /* n_first: when submitted */
    int32_t         max_new;
    int32_t         n_check, n_told; /* the last n_check tokens are checked, n_told of them are answered */
    bool            has_stop, is_over, is_cancelled;
    enum phx_finish finish;
};

struct world {
    struct phx_sched_options options;
    struct phx_sched        *sched;
    uint64_t                *cells; /* [n_blocks * block_tokens] */
    struct world_client     *clients;
    int32_t                  n_clients, n_open_clients;
    struct phx_sched_event  *events;
    /* open plans, oldest first: what the engine will answer */
    struct phx_sampled (*sampled)[64];
    int32_t  n_sampled[8];
    bool     is_dropped[8];
    int32_t  first, n_open;
    bool     is_repetitive; /* the answers mostly follow from the last two tokens */
    uint64_t random, n_steps, n_dropped, n_tokens, n_checked, trace; /* trace: hash of all that happened */
};

uint32_t world_random(struct world *w, uint32_t below);

/* A random shape of scheduler from a seed. */
void world_create(struct world *w, uint64_t seed);
void world_destroy(struct world *w);

void world_submit(struct world *w); /* a random request, some of which share prefixes, some resume */
void world_cancel(struct world *w); /* a random client that still waits */
bool world_plan(struct world *w);   /* false: nothing can be planned */
void world_complete(struct world *w, bool is_dropped);
/* Everything that must hold at any time. */
void world_check(const struct world *w);

#endif
