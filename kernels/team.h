/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/: a team of threads that runs one job at a time.  Work is split statically over
 * outputs, never over a reduction, so the team's size does not change a bit of any result. */
#ifndef PHX_KERNELS_TEAM_H
#define PHX_KERNELS_TEAM_H

#include <stdbool.h>
#include <stdint.h>

struct phx_team;

/* Called once per member with its share [first, end) of the n units. */
typedef void (*phx_team_fn)(void *ctx, int32_t member, int32_t first, int32_t end);

/* n_threads counts the caller; 0 = the cores this process may use.  NULL when threads cannot be made. */
struct phx_team *phx_team_create(int32_t n_threads, bool is_pinned, int32_t first_core);
void             phx_team_destroy(struct phx_team *t); /* NULL is allowed */
int32_t          phx_team_size(const struct phx_team *t);
/* Splits n_units over the members and returns when all are done.  Waiting members spin briefly, then
 * sleep: an idle team costs nothing. */
void phx_team_run(struct phx_team *t, int32_t n_units, phx_team_fn fn, void *ctx);

#endif
