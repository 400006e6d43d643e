/* SPDX-License-Identifier: Apache-2.0
 * One replica without a process: what it is sent it runs in order of arrival, a token of each a step. */
#ifndef PHX_TESTS_FAKE_FLEET_H
#define PHX_TESTS_FAKE_FLEET_H

#include "daemon/fleet/fleet.h"

enum { FAKE_SEQS = 4, FAKE_SENT_MAX = 16, FAKE_VOCAB = 100, FAKE_CONTEXT = 1000 };

struct event_base;

struct phx_fleet {
    struct event_base        *base;
    struct phx_fleet_listener listener;
    struct phx_submit         sent[FAKE_SENT_MAX]; /* without their arrays */
    int32_t                   n_told[FAKE_SENT_MAX];
    int32_t                   n_sent;
    uint64_t                  step;
};

void fake_fleet_open(struct phx_fleet *f, struct event_base *base);
void fake_fleet_ready(struct phx_fleet *f);
/* The first FAKE_SEQS get a token each. */
void fake_fleet_step(struct phx_fleet *f);
/* It dies, and another takes its place. */
void fake_fleet_lose(struct phx_fleet *f);

#endif
