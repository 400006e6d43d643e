/* SPDX-License-Identifier: Apache-2.0
 * Runs a recorded answer again on the running cluster and compares.
 *
 * Class A: the same prompt, sampler and seed must give the same token ids.  Class B: one prefill pass over
 * prompt and answer; each token must be what the recorded sampler draws there, within a tolerance
 * (PHX_REPLAY_LOGIT_GAP for the arg-max, PHX_REPLAY_MASS_GAP of probability for a draw).
 * Needs what was asked and answered: the tenant's privacy must be "encrypted" or "clear".  Reading it is a
 * "read" leaf, the verdict a "replay" leaf. */
#ifndef PHX_DAEMON_REPLAY_H
#define PHX_DAEMON_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct phx_daemon;

#define PHX_REPLAY_LOGIT_GAP 0.05
#define PHX_REPLAY_MASS_GAP 0.005

struct phx_replay_verdict {
    char    receipt[40], replay_class[2]; /* class: as recorded */
    bool    is_equal;
    int64_t n_tokens, n_checked;
    int64_t first_difference; /* index of the token over all choices, -1 = none */
};
typedef void (*phx_replay_fn)(void *ctx, const struct phx_replay_verdict *verdict, const struct phx_err *err);

/* fn runs on the loop, once; err: PHX_E_NOTFOUND, PHX_E_STATE (nothing was kept, it was shredded, or another
 * model is served), PHX_E_BUSY. */
void phx_replay_run(struct phx_daemon *d, const char *receipt, const char *by, phx_replay_fn fn, void *ctx);

#endif
