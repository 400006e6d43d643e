/* SPDX-License-Identifier: Apache-2.0
 * The rule of time: whatever happens to the clocks, T never falls, and a wall clock that jumped ends no
 * licence. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/time/time.h"

#define S INT64_C(1000000000)
#define MINUTE (60 * S)
#define HOUR (3600 * S)
#define DAY (86400 * S)
#define YEAR (365 * DAY)

static const int64_t START = INT64_C(1793491200) * S; /* 2026-11-01T00:00:00Z */

/* A machine: the true time, and what its clocks say. */
struct machine {
    int64_t                 true_ns;
    struct phx_time_reading r;
    struct phx_time_mark    mark;
    enum phx_clock_state    state;
    int                     n_boots;
};

static void start(struct machine *m, int64_t wall_ns)
{
    memset(m, 0, sizeof(*m));
    m->true_ns = wall_ns;
    m->r.wall_ns = wall_ns;
    m->r.boot_ns = 100 * S;
    (void)snprintf(m->r.boot_id, sizeof(m->r.boot_id), "boot-%d", ++m->n_boots);
}

static void pass(struct machine *m, int64_t ns)
{
    m->true_ns += ns;
    m->r.wall_ns += ns;
    m->r.boot_ns += ns;
}

static void reboot(struct machine *m, int64_t off_ns)
{
    m->true_ns += off_ns;
    m->r.wall_ns += off_ns;
    m->r.boot_ns = 20 * S; /* when the daemon is back */
    m->true_ns += 20 * S;
    m->r.wall_ns += 20 * S;
    (void)snprintf(m->r.boot_id, sizeof(m->r.boot_id), "boot-%d", ++m->n_boots);
}

static int64_t step(struct machine *m)
{
    return phx_time_step(&m->mark, &m->r, &m->state);
}

static void a_good_clock_is_followed(void **state)
{
    struct machine m;

    (void)state;
    start(&m, START);
    assert_int_equal(step(&m), START);
    for (int i = 0; i < 100; i++) {
        pass(&m, 7 * MINUTE);
        assert_int_equal(step(&m), m.true_ns);
        assert_int_equal(m.state, PHX_CLOCK_OK);
    }
    pass(&m, 3 * DAY); /* nobody asked for days, the machine was up */
    assert_int_equal(step(&m), m.true_ns);
    assert_int_equal(m.state, PHX_CLOCK_OK);
}

static void turning_back_gains_nothing(void **state)
{
    static const int64_t backs[] = {6 * S, MINUTE, 2 * HOUR, 40 * DAY, 20 * YEAR, INT64_MAX / 4};

    (void)state;
    for (size_t i = 0; i < sizeof(backs) / sizeof(backs[0]); i++) {
        struct machine m;

        start(&m, START);
        (void)step(&m);
        m.r.wall_ns -= backs[i];
        for (int j = 0; j < 10; j++) {
            pass(&m, HOUR);
            assert_int_equal(step(&m), m.true_ns); /* the boot clock carries T on */
            assert_int_equal(m.state, PHX_CLOCK_BACK);
        }
        m.r.wall_ns = m.true_ns; /* put right again */
        assert_int_equal(step(&m), m.true_ns);
        assert_int_equal(m.state, PHX_CLOCK_OK);
    }
}

static void a_frozen_clock_stops_nothing(void **state)
{
    struct machine m;
    int64_t        frozen;

    (void)state;
    start(&m, START);
    (void)step(&m);
    frozen = m.r.wall_ns;
    for (int i = 1; i <= 40; i++) {
        pass(&m, DAY);
        m.r.wall_ns = frozen;
        assert_int_equal(step(&m), START + i * DAY);
        assert_int_equal(m.state, PHX_CLOCK_BACK);
    }
}

static void small_leads_are_followed_large_ones_held(void **state)
{
    struct machine m;

    (void)state;
    start(&m, START);
    (void)step(&m);
    m.r.wall_ns += MINUTE;
    assert_int_equal(step(&m), START + MINUTE);
    assert_int_equal(m.state, PHX_CLOCK_OK);
    m.r.wall_ns += HOUR;
    assert_int_equal(step(&m), START + MINUTE + HOUR);
    assert_int_equal(m.state, PHX_CLOCK_OK);
    m.r.wall_ns += HOUR + 1;
    assert_int_equal(step(&m), START + MINUTE + HOUR);
    assert_int_equal(m.state, PHX_CLOCK_SUSPECT);
}

/* 2 hours, a month, 20 years, 2038 and the end of 64 bits: T goes on by the boot clock, so that a licence
 * ends when it would have ended, and the wall that comes back is taken again. */
static void a_jump_ends_no_licence(void **state)
{
    static const int64_t jumps[] = {2 * HOUR, 31 * DAY, 20 * YEAR, INT64_C(4102444800) * S, INT64_MAX / 2};
    const int64_t        not_after = START + 10 * DAY;

    (void)state;
    for (size_t i = 0; i < sizeof(jumps) / sizeof(jumps[0]); i++) {
        struct machine m;

        start(&m, START);
        (void)step(&m);
        m.r.wall_ns = START + jumps[i] < START ? INT64_MAX : START + jumps[i];
        for (int day = 0; day < 9; day++) {
            if (m.r.wall_ns < INT64_MAX - DAY)
                m.r.wall_ns += DAY;
            m.true_ns += DAY;
            m.r.boot_ns += DAY;
            assert_int_equal(step(&m), m.true_ns);
            assert_true(m.mark.hwm_ns < not_after);
            assert_int_equal(m.state, day < 7 ? PHX_CLOCK_SUSPECT : PHX_CLOCK_SUSPECT_LONG);
        }
        m.r.wall_ns = m.true_ns + MINUTE;
        assert_int_equal(step(&m), m.true_ns + MINUTE);
        assert_int_equal(m.state, PHX_CLOCK_OK);
        assert_int_equal(m.mark.suspect_since_ns, 0);
    }
}

static void accepting_leaves_the_state(void **state)
{
    struct machine m;

    (void)state;
    start(&m, START);
    (void)step(&m);
    reboot(&m, 31 * DAY); /* the power was off for a month */
    assert_int_equal(step(&m), START);
    assert_int_equal(m.state, PHX_CLOCK_SUSPECT);
    phx_time_accept(&m.mark, &m.r);
    assert_int_equal(step(&m), m.true_ns);
    assert_int_equal(m.state, PHX_CLOCK_OK);
    pass(&m, HOUR);
    assert_int_equal(step(&m), m.true_ns);
    m.r.wall_ns -= YEAR; /* accepting a clock that is behind never lowers T */
    phx_time_accept(&m.mark, &m.r);
    assert_int_equal(step(&m), m.true_ns);
}

static void a_short_reboot_is_no_news(void **state)
{
    struct machine m;

    (void)state;
    start(&m, START);
    pass(&m, 400 * DAY); /* the boot clock before was far ahead of the one after */
    (void)step(&m);
    for (int i = 0; i < 10; i++) {
        reboot(&m, 5 * MINUTE);
        assert_int_equal(step(&m), m.true_ns);
        assert_int_equal(m.state, PHX_CLOCK_OK);
    }
    reboot(&m, 0);
    pass(&m, 5 * HOUR); /* the machine was up for hours before the daemon was started */
    assert_int_equal(step(&m), m.true_ns);
    assert_int_equal(m.state, PHX_CLOCK_OK);
    reboot(&m, 0);
    m.r.wall_ns = 0; /* a flat battery: 1970 */
    assert_int_equal(step(&m), m.true_ns - 20 * S);
    assert_int_equal(m.state, PHX_CLOCK_BACK);
}

/* The data folder goes to a machine that has been up for years: its boot clock says nothing of the mark. */
static void another_machine_goes_on_from_the_mark(void **state)
{
    struct machine m;

    (void)state;
    start(&m, START);
    (void)step(&m);
    pass(&m, 10 * MINUTE);
    (void)snprintf(m.r.boot_id, sizeof(m.r.boot_id), "other");
    m.r.boot_ns = 3 * YEAR;
    assert_int_equal(step(&m), m.true_ns);
    assert_int_equal(m.state, PHX_CLOCK_OK);
    pass(&m, DAY);
    assert_int_equal(step(&m), m.true_ns);
    start(&m, START);
    (void)step(&m);
    (void)snprintf(m.r.boot_id, sizeof(m.r.boot_id), "other");
    m.r.boot_ns = 3 * YEAR;
    m.r.wall_ns -= DAY; /* and its clock is behind */
    assert_int_equal(step(&m), START);
    assert_int_equal(m.state, PHX_CLOCK_BACK);
}

static void a_leap_second_is_no_news(void **state)
{
    struct machine m;

    (void)state;
    start(&m, START);
    (void)step(&m);
    m.r.wall_ns -= S; /* 23:59:59 twice */
    assert_int_equal(step(&m), START);
    assert_int_equal(m.state, PHX_CLOCK_OK);
    pass(&m, S / 2);
    assert_int_equal(step(&m), START + S / 2);
    m.r.wall_ns += S;
    pass(&m, S);
    assert_int_equal(step(&m), START + 3 * S / 2);
    assert_int_equal(m.state, PHX_CLOCK_OK);
}

/* A month ends once: turning the clock back over the edge does not open it again. */
static void a_month_does_not_come_back(void **state)
{
    struct machine m;
    const int64_t  edge = START + 30 * DAY; /* 2026-12-01 */

    (void)state;
    start(&m, edge - MINUTE);
    (void)step(&m);
    pass(&m, 2 * MINUTE);
    assert_true(step(&m) >= edge);
    m.r.wall_ns -= 10 * MINUTE;
    for (int i = 0; i < 1000; i++) {
        pass(&m, S / 10);
        assert_true(step(&m) > edge);
    }
}

/* ---- random sequences ---------------------------------------------------------------------------------- */

static uint64_t draw(uint64_t *seed)
{
    *seed ^= *seed << 13;
    *seed ^= *seed >> 7;
    *seed ^= *seed << 17;
    return *seed;
}

static void disturb(struct machine *m, uint64_t *seed)
{
    static const int64_t jumps[] = {1, S, MINUTE, HOUR, HOUR + 1, 2 * HOUR, DAY, 31 * DAY, 20 * YEAR};
    int64_t              jump = jumps[draw(seed) % (sizeof(jumps) / sizeof(jumps[0]))];

    switch (draw(seed) % 24) {
    case 0: m->r.wall_ns -= jump; break;
    case 1: m->r.wall_ns += m->r.wall_ns < INT64_MAX / 2 ? jump : 0; break;
    case 2: reboot(m, jump < 31 * DAY ? jump : MINUTE); break;
    case 3: m->r.wall_ns = m->true_ns; break;
    case 4: m->r.boot_ns -= jump < m->r.boot_ns ? jump : 0; break; /* must not happen, must not hurt */
    case 5: phx_time_accept(&m->mark, &m->r); break;
    case 6:
    case 7: pass(m, (int64_t)(draw(seed) % (uint64_t)(3 * DAY))); break;
    default: pass(m, (int64_t)(draw(seed) % (uint64_t)(3 * HOUR))); break;
    }
}

static void random_sequences_never_fall(void **state)
{
    int n_of_state[5] = {0};

    (void)state;
    for (uint64_t seed = 1; seed <= 1000; seed++) {
        struct machine m;
        uint64_t       random = seed * UINT64_C(0x9E3779B97F4A7C15);
        int64_t        last = 0;

        start(&m, START);
        for (int i = 0; i < 500; i++) {
            struct phx_time_mark before = m.mark;
            int64_t              t = step(&m);

            if (t < last)
                fail_msg("seed %d step %d: T fell by %lld ns", (int)seed, i, (long long)(last - t));
            assert_int_equal(t, m.mark.hwm_ns);
            /* held: not a nanosecond more than the boot clock gives */
            if (m.state == PHX_CLOCK_SUSPECT || m.state == PHX_CLOCK_SUSPECT_LONG) {
                bool    is_same = strcmp(before.boot_id, m.r.boot_id) == 0;
                int64_t elapsed = is_same ? m.r.boot_ns - before.boot_ns : 0;

                assert_int_equal(t, before.hwm_ns + (elapsed > 0 ? elapsed : 0));
                assert_true(m.r.wall_ns - t > HOUR && m.mark.suspect_since_ns != 0);
            } else {
                assert_int_equal(m.mark.suspect_since_ns, 0);
            }
            n_of_state[m.state]++;
            last = t;
            disturb(&m, &random);
        }
    }
    print_message("ok %d, back %d, suspect %d, suspect-long %d\n", n_of_state[PHX_CLOCK_OK],
                  n_of_state[PHX_CLOCK_BACK], n_of_state[PHX_CLOCK_SUSPECT],
                  n_of_state[PHX_CLOCK_SUSPECT_LONG]);
    for (int i = PHX_CLOCK_OK; i <= PHX_CLOCK_SUSPECT_LONG; i++)
        assert_true(n_of_state[i] > 1000); /* the walks went where it is interesting */
}

static void states_have_names(void **state)
{
    (void)state;
    assert_string_equal(phx_clock_state_name(PHX_CLOCK_OK), "ok");
    assert_string_equal(phx_clock_state_name(PHX_CLOCK_BACK), "back");
    assert_string_equal(phx_clock_state_name(PHX_CLOCK_SUSPECT), "suspect");
    assert_string_equal(phx_clock_state_name(PHX_CLOCK_SUSPECT_LONG), "suspect-long");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_good_clock_is_followed),
        cmocka_unit_test(turning_back_gains_nothing),
        cmocka_unit_test(a_frozen_clock_stops_nothing),
        cmocka_unit_test(small_leads_are_followed_large_ones_held),
        cmocka_unit_test(a_jump_ends_no_licence),
        cmocka_unit_test(accepting_leaves_the_state),
        cmocka_unit_test(a_short_reboot_is_no_news),
        cmocka_unit_test(another_machine_goes_on_from_the_mark),
        cmocka_unit_test(a_leap_second_is_no_news),
        cmocka_unit_test(a_month_does_not_come_back),
        cmocka_unit_test(random_sequences_never_fall),
        cmocka_unit_test(states_have_names),
    };

    return cmocka_run_group_tests_name("daemon/time/step", tests, NULL, NULL);
}
