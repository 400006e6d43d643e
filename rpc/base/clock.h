/* SPDX-License-Identifier: Apache-2.0
 * Clocks.  Monotonic time for durations and deadlines, wall time for records only. */
#ifndef PHX_RPC_BASE_CLOCK_H
#define PHX_RPC_BASE_CLOCK_H

#include <stddef.h>
#include <stdint.h>

int64_t phx_clock_mono_ns(void);
int64_t phx_clock_wall_ns(void); /* since 1970, UTC */
/* "2026-01-15T12:00:00.123Z" into text[32]. */
void phx_clock_format_utc(int64_t wall_ns, char text[32]);

#endif
