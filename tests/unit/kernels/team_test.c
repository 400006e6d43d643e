/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/team.h"

enum { UNITS_MAX = 200 };

struct job {
    int32_t done[UNITS_MAX]; /* how often each unit ran */
    int32_t member[UNITS_MAX];
};

static void count_units(void *ctx, int32_t member, int32_t first, int32_t end)
{
    struct job *j = ctx;

    for (int32_t i = first; i < end; i++) {
        j->done[i]++;
        j->member[i] = member;
    }
}

/* More threads than cores too, and fewer units than threads. */
static void each_unit_runs_once_by_a_fixed_member(void **state)
{
    const int32_t sizes[] = {1, 2, 3, 5, 17}, units[] = {0, 1, 2, 3, 16, 17, 100, UNITS_MAX};

    (void)state;
    for (size_t s = 0; s < sizeof(sizes) / sizeof(sizes[0]); s++) {
        struct phx_team *t = phx_team_create(sizes[s], s % 2 == 0, 1);

        assert_non_null(t);
        assert_int_equal(phx_team_size(t), sizes[s]);
        for (size_t u = 0; u < sizeof(units) / sizeof(units[0]); u++) {
            struct job first = {{0}, {0}}, again = {{0}, {0}};

            phx_team_run(t, units[u], count_units, &first);
            phx_team_run(t, units[u], count_units, &again);
            for (int32_t i = 0; i < UNITS_MAX; i++)
                assert_int_equal(first.done[i], i < units[u] ? 1 : 0);
            assert_memory_equal(&first, &again, sizeof(first));
        }
        phx_team_destroy(t);
    }
    phx_team_destroy(NULL);
}

/* Jobs back to back, jobs after a pause that lets all members sleep, and pauses in between. */
static void no_wake_up_is_lost(void **state)
{
    const struct timespec pauses[] = {{0, 0}, {0, 50000}, {0, 2000000}};
    struct phx_team      *t = phx_team_create(3, false, 0);
    struct job            j = {{0}, {0}};
    int32_t               n = 0;

    (void)state;
    for (int i = 0; i < 3000; i++, n++)
        phx_team_run(t, 3, count_units, &j);
    for (int i = 0; i < 150; i++, n++) {
        nanosleep(&pauses[i % 3], NULL);
        phx_team_run(t, 3, count_units, &j);
    }
    for (int32_t i = 0; i < 3; i++)
        assert_int_equal(j.done[i], n);
    phx_team_destroy(t);
}

static int64_t process_cpu_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &now);
    return now.tv_sec * INT64_C(1000000000) + now.tv_nsec;
}

static void an_idle_team_costs_nothing(void **state)
{
    const struct timespec settle = {0, 50000000}, idle = {0, 300000000};
    struct phx_team      *t = phx_team_create(4, false, 0);
    struct job            j = {{0}, {0}};
    int64_t               before;

    (void)state;
    phx_team_run(t, 4, count_units, &j);
    nanosleep(&settle, NULL);
    before = process_cpu_ns();
    nanosleep(&idle, NULL);
    assert_true(process_cpu_ns() - before < 3000000); /* 1 % of a core */
    phx_team_destroy(t);
}

static void an_absurd_size_is_refused(void **state)
{
    (void)state;
    assert_null(phx_team_create(100000, false, 0));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_unit_runs_once_by_a_fixed_member),
        cmocka_unit_test(no_wake_up_is_lost),
        cmocka_unit_test(an_idle_team_costs_nothing),
        cmocka_unit_test(an_absurd_size_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
