/* SPDX-License-Identifier: Apache-2.0
 * The rule, without a clock or a database.  The mark holds the last T and the boot clock at that moment. */
#include "daemon/time/time.h"

#include <stdio.h>
#include <string.h>

static const int64_t SECOND_NS = 1000000000;
static const int64_t LEAD_MAX_NS = 3600 * SECOND_NS;     /* further ahead, a wall clock is suspect */
static const int64_t BACK_NS = 5 * SECOND_NS;            /* leap seconds and slewing are no news */
static const int64_t LONG_NS = 7 * 86400 * SECOND_NS;    /* held for longer, every record says so */

const char *phx_clock_state_name(enum phx_clock_state state)
{
    switch (state) {
    case PHX_CLOCK_BACK: return "back";
    case PHX_CLOCK_SUSPECT: return "suspect";
    case PHX_CLOCK_SUSPECT_LONG: return "suspect-long";
    default: return "ok";
    }
}

static int64_t add_capped(int64_t a, int64_t b)
{
    int64_t sum;

    return __builtin_add_overflow(a, b, &sum) ? INT64_MAX : sum;
}

static bool is_same_boot(const struct phx_time_mark *mark, const struct phx_time_reading *now)
{
    return strcmp(mark->boot_id, now->boot_id) == 0;
}

/* What has passed since the mark.  Under another boot id the boot clock tells no lower bound: the machine may
 * be another one, up for years.  As an upper bound it still does for the same machine. */
struct elapsed {
    int64_t certain_ns, possible_ns;
};

static struct elapsed measure_elapsed(const struct phx_time_mark *mark, const struct phx_time_reading *now)
{
    int64_t since = now->boot_ns > mark->boot_ns ? now->boot_ns - mark->boot_ns : 0;

    if (is_same_boot(mark, now))
        return (struct elapsed){since, since};
    return (struct elapsed){0, now->boot_ns > 0 ? now->boot_ns : 0};
}

static void move_mark(struct phx_time_mark *mark, const struct phx_time_reading *now, int64_t t_ns)
{
    if (!is_same_boot(mark, now)) {
        (void)snprintf(mark->boot_id, sizeof(mark->boot_id), "%s", now->boot_id);
        mark->boot_ns = 0;
    }
    if (now->boot_ns > mark->boot_ns)
        mark->boot_ns = now->boot_ns; /* kept at its highest: a boot clock that falls counts nothing twice */
    mark->hwm_ns = t_ns;
}

int64_t phx_time_step(struct phx_time_mark *mark, const struct phx_time_reading *now,
                      enum phx_clock_state *state)
{
    struct elapsed elapsed = measure_elapsed(mark, now);
    int64_t        wall = now->wall_ns > 0 ? now->wall_ns : 0;
    int64_t        floor = add_capped(mark->hwm_ns, elapsed.certain_ns);
    int64_t        ceiling = add_capped(add_capped(mark->hwm_ns, elapsed.possible_ns), LEAD_MAX_NS);
    bool           is_first = mark->hwm_ns == 0;

    *state = PHX_CLOCK_OK;
    if (is_first || (wall >= floor && wall <= ceiling)) {
        mark->suspect_since_ns = 0;
        move_mark(mark, now, wall);
        return wall;
    }
    if (wall < floor) {
        mark->suspect_since_ns = 0;
        if (floor - wall > BACK_NS)
            *state = PHX_CLOCK_BACK;
    } else {
        if (mark->suspect_since_ns == 0)
            mark->suspect_since_ns = floor;
        *state = floor - mark->suspect_since_ns >= LONG_NS ? PHX_CLOCK_SUSPECT_LONG : PHX_CLOCK_SUSPECT;
    }
    move_mark(mark, now, floor);
    return floor;
}

void phx_time_accept(struct phx_time_mark *mark, const struct phx_time_reading *now)
{
    int64_t floor = add_capped(mark->hwm_ns, measure_elapsed(mark, now).certain_ns);

    mark->suspect_since_ns = 0;
    move_mark(mark, now, now->wall_ns > floor ? now->wall_ns : floor);
}
