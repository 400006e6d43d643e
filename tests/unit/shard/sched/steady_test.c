/* SPDX-License-Identifier: Apache-2.0
 * A step of sequences that decode allocates nothing, whatever happens in it short of somebody coming or going. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <cmocka.h>

#include "rpc/base/mem.h"
#include "allocations.h"
#include "step_mock.h"

enum { WARM = 40, STEPS = 200 };

/* The allocations of STEPS steps after a few that may grow the buffers. */
static uint64_t count(const struct mock_options *options, struct phx_sched_stats *stats)
{
    struct mock m;
    uint64_t    n;

    mock_create(&m, options);
    for (int32_t i = 0; i < WARM; i++)
        assert_true(mock_step(&m, NULL));
    n = allocations_count();
    for (int32_t i = 0; i < STEPS; i++)
        assert_true(mock_step(&m, NULL));
    n = allocations_count() - n;
    phx_sched_stats(m.sched, stats);
    assert_true(phx_sched_is_consistent(m.sched));
    mock_destroy(&m);
    return n;
}

static void test_counter_sees_allocations(void **state)
{
    uint64_t n = allocations_count();

    (void)state;
    phx_mem_free(phx_mem_calloc(1, 1));
    assert_int_equal(allocations_count(), n + 1);
}

static void test_decoding(void **state)
{
    const struct mock_options options = {
        .n_seqs = 64, .min_context = 100, .max_context = 900, .max_new = 1000, .has_prefix_cache = true};
    struct phx_sched_stats stats;

    (void)state;
    assert_int_equal(count(&options, &stats), 0);
    assert_int_equal(stats.n_running, 64);
    /* every sequence went over several ends of blocks, and they were named */
    assert_true(stats.kv.n_used > 64 * (100 + STEPS) / 16);
}

static void test_guessing(void **state)
{
    const struct mock_options options = {
        .n_seqs = 8, .min_context = 100, .max_context = 900, .max_new = 4000, .draft_rows = 64,
        .period = 53, .has_prefix_cache = true};
    struct phx_sched_stats stats;

    (void)state;
    assert_int_equal(count(&options, &stats), 0);
    assert_int_equal(stats.n_running, 8);
    assert_true(stats.n_accepted > 8 * STEPS); /* so that a step ends blocks, too */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_counter_sees_allocations),
        cmocka_unit_test(test_decoding),
        cmocka_unit_test(test_guessing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
