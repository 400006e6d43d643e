/* SPDX-License-Identifier: Apache-2.0
 * Tokens from what a model brings of its logits, against tokens from the whole logits of the same rows. */
#ifndef PHX_TESTS_MODEL_SAMPLING_H
#define PHX_TESTS_MODEL_SAMPLING_H

#include "tests/model/harness.h"

/* What the rounds of a check came upon. */
struct sampling_seen {
    int32_t n_rows, n_whole, n_late; /* rows; wanted whole or brought so; brought whole because their part did not decide */
};

/* Rounds of random parameters for the rows of one step; fails the test where a token, a logprob, a recorded token's
 * distance or a row of logits is another one. */
struct sampling_seen sampling_check(const struct golden *g, const struct phx_ranks_options *options, int32_t n_rounds);

#endif
