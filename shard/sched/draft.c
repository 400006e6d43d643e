/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/sched/draft.h"

enum {
    FIRST_DRAFTS = 2,
    ROW = 64,            /* credit that a tried row costs; each token of output earns 1 */
    ACCEPTED = 2 * ROW,  /* that a right one earns */
    FIRST_CREDIT = 4 * ROW,
    CREDIT_MAX = 32 * ROW
};

void phx_drafter_init(struct phx_drafter *d, int32_t max_tokens)
{
    *d = (struct phx_drafter){.is_on = true, .n_next = FIRST_DRAFTS, .credit = FIRST_CREDIT};
    phx_lookup_init(&d->lookup, max_tokens);
}

void phx_drafter_fini(struct phx_drafter *d)
{
    phx_lookup_fini(&d->lookup);
}

static int32_t smaller(int32_t a, int32_t b)
{
    return a < b ? a : b;
}

int32_t phx_drafter_guess(struct phx_drafter *d, int32_t *tokens, int32_t n_tokens, int32_t most)
{
    int32_t n = smaller(smaller(most, d->n_next), d->credit / ROW);

    if (!d->is_on || n < 1 || phx_lookup_follow(&d->lookup, tokens, n_tokens) == 0)
        return 0;
    phx_lookup_guess(&d->lookup, tokens, n_tokens, n);
    return n;
}

void phx_drafter_learn(struct phx_drafter *d, int32_t n_drafts, int32_t n_accepted, int32_t n_told)
{
    d->credit = smaller(d->credit + n_told + n_accepted * ACCEPTED - n_drafts * ROW, CREDIT_MAX);
    if (n_drafts == 0)
        return;
    if (n_accepted == n_drafts)
        d->n_next = smaller(2 * d->n_next, PHX_DRAFTS_MAX);
    else
        d->n_next = n_accepted > 1 ? n_accepted : 1;
}
