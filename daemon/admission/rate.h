/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/admission: token buckets per user, integers only. */
#ifndef PHX_DAEMON_ADMISSION_RATE_H
#define PHX_DAEMON_ADMISSION_RATE_H

#include <stdint.h>

struct phx_rate;

/* per_minute: what flows in, and what fits at once. */
struct phx_rate *phx_rate_create(int64_t per_minute);
void             phx_rate_destroy(struct phx_rate *r); /* NULL is allowed */
/* Takes `want` from the bucket of `name`.  0 = taken; else the ns until it would fit, INT64_MAX = never. */
int64_t phx_rate_take(struct phx_rate *r, const char *name, int64_t want, int64_t now_ns); /* monotonic */
/* Gives back what was reserved and not used. */
void phx_rate_give(struct phx_rate *r, const char *name, int64_t amount);

#endif
