/* SPDX-License-Identifier: Apache-2.0
 * Runs a recorded answer again on the running cluster and compares.
 *
 * Class A: the same prompt, sampler and seed must give the same token ids.  Class B: one prefill pass over
 * prompt and answer; each token must be what the recorded sampler draws there, within a tolerance
 * (docs/internals/replay.md tells where it comes from).  Class C cannot be run again.
 * Needs what was asked and answered: the tenant's privacy must be "encrypted" or "clear".  Reading it is a
 * "read" leaf, the verdict a "replay" leaf. */
#ifndef PHX_DAEMON_REPLAY_H
#define PHX_DAEMON_REPLAY_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct phx_daemon;

/* What class B allows for the arithmetic of another device or layout: how far below the largest logit the token of
 * an arg-max may be, and how far in probability mass the number drawn may be from the token's interval. */
#define PHX_REPLAY_LOGIT_GAP 0.05
#define PHX_REPLAY_MASS_GAP 0.005

struct phx_replay_verdict {
    char    receipt[40], replay_class[2]; /* class: as recorded */
    char    run_class[2];                 /* how it was run: "A" or "B" */
    bool    is_equal;
    int64_t n_tokens;
    int64_t n_checked;        /* of them, those that agree; class A stops at the first that does not */
    int64_t n_over;           /* class B: those over the tolerance, or behind a stop id */
    int64_t first_difference; /* index of the token over all choices, -1 = none */
    double  max_gap;          /* class B: the largest, of a logit or of mass */
};
typedef void (*phx_replay_fn)(void *ctx, const struct phx_replay_verdict *verdict, const struct phx_err *err);

/* as_class: "A", "B", or "" for the recorded one.  fn runs on the loop, once; err: PHX_E_NOTFOUND, PHX_E_STATE
 * (nothing was kept, it was shredded, another model is served, or it is class C), PHX_E_INVALID (as_class),
 * PHX_E_BUSY. */
void phx_replay_run(struct phx_daemon *d, const char *receipt, const char *as_class, const char *by,
                    phx_replay_fn fn, void *ctx);

#endif
