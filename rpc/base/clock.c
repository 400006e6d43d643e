/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t read_clock(clockid_t id)
{
    struct timespec ts;

    (void)clock_gettime(id, &ts); /* cannot fail for these two clocks */
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

int64_t phx_clock_mono_ns(void)
{
    return read_clock(CLOCK_MONOTONIC);
}

int64_t phx_clock_wall_ns(void)
{
    return read_clock(CLOCK_REALTIME);
}

void phx_clock_format_utc(int64_t wall_ns, char text[32])
{
    time_t    seconds = (time_t)(wall_ns / 1000000000);
    struct tm tm;

    (void)gmtime_r(&seconds, &tm); /* any int64 nanosecond count has a year of 4 digits */
    (void)snprintf(text, 32, "%04d-%02d-%02dT%02d:%02d:%02d.%03dZ", (tm.tm_year + 1900) % 10000,
                   (tm.tm_mon + 1) % 100, tm.tm_mday % 100, tm.tm_hour % 100, tm.tm_min % 100,
                   tm.tm_sec % 100, (int)(wall_ns / 1000000 % 1000));
}
