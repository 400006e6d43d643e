/* SPDX-License-Identifier: Apache-2.0
 * A daemon's fleet and engine on a loop of their own, with fake ranks. */
#ifndef PHX_TESTS_FLEET_WORLD_H
#define PHX_TESTS_FLEET_WORLD_H

#include <stdbool.h>

#include "daemon/config/config.h"
#include "daemon/fleet/fleet.h"
#include "daemon/metrics/metrics.h"
#include "daemon/queue/queue.h"

struct world {
    char                   dir[64];
    struct event_base     *base;
    struct phx_metrics    *metrics;
    struct phx_config     *config;
    struct phx_fleet      *fleet;
    struct phx_engine     *engine;
    struct phx_rpc_server *rpc;
    struct event          *readable;
};

/* way: the name of the model folder, which tells the fake ranks what to do; more: further config lines. */
void world_open(struct world *w, const char *way, const char *more);
void world_close(struct world *w);
/* Runs the loop until *value >= want, at most so many seconds. */
bool world_run(struct world *w, const int *value, int want, int seconds);
/* Runs it until so many replicas are ready, or none ever will be. */
struct phx_fleet_facts world_settle(struct world *w, int n_ready, int seconds);

#endif
