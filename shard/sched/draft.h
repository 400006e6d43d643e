/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/sched: guesses at the next tokens of a sequence, and how much of that it may try.
 *
 * Credit bounds what guessing can cost: one rejected row for each accepted one, beyond 4 to begin with and one
 * for every 64 tokens of output. */
#ifndef PHX_SHARD_SCHED_DRAFT_H
#define PHX_SHARD_SCHED_DRAFT_H

#include <stdbool.h>

#include "shard/sched/lookup.h"

enum { PHX_DRAFTS_MAX = 8 }; /* of one sequence in a step */

struct phx_drafter {
    struct phx_lookup lookup;
    bool              is_on;
    int32_t           n_next; /* how many are tried next time */
    int32_t           credit; /* in rows, times the tokens of output that earn one */
};

void phx_drafter_init(struct phx_drafter *d, int32_t max_tokens);
void phx_drafter_fini(struct phx_drafter *d);

/* Writes at most `most` guesses behind tokens[n_tokens]; their number. */
int32_t phx_drafter_guess(struct phx_drafter *d, int32_t *tokens, int32_t n_tokens, int32_t most);
/* A step gave n_told tokens; of its n_drafts guesses n_accepted were right. */
void phx_drafter_learn(struct phx_drafter *d, int32_t n_drafts, int32_t n_accepted, int32_t n_told);

#endif
