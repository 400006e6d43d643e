/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <string.h>

#include "shard/step/memory.h"

static const uint64_t GIB = (uint64_t)1 << 30;

static struct phx_memory_need two_ranks(int64_t n_blocks)
{
    struct phx_part        parts[4] = {{0}};
    const int32_t          here[] = {1, 3}; /* the others live on another host */
    struct phx_memory_need need;

    for (int i = 0; i < 4; i++)
        parts[i] = (struct phx_part){.weights_bytes = GIB * (uint64_t)(i + 1), .scratch_bytes = GIB / 4,
                                     .kv_bytes_per_block = GIB / 8};
    phx_memory_need(parts, here, 2, n_blocks, GIB / 16, &need);
    return need;
}

static void test_only_this_host_counts(void **state)
{
    struct phx_memory_need need = two_ranks(4);

    (void)state;
    assert_int_equal(need.weights_bytes, 6 * GIB);
    assert_int_equal(need.kv_bytes, GIB);
    assert_int_equal(need.scratch_bytes, GIB / 2);
    assert_int_equal(need.other_bytes, GIB / 8 + ((uint64_t)128 << 20));
}

static void test_refused_with_numbers(void **state)
{
    struct phx_memory_need need = two_ranks(4);
    struct phx_memory_room room = {.free_bytes = (int64_t)(8 * GIB), .source = "/sys/fs/cgroup/memory.max"};
    struct phx_err         err = {0};

    (void)state;
    assert_int_equal(phx_memory_check(&need, &room, &err), 0);
    room.free_bytes = (int64_t)(7 * GIB);
    room.limit_bytes = (int64_t)(12 * GIB);
    assert_int_equal(phx_memory_check(&need, &room, &err), PHX_E_NOMEM);
    assert_string_equal(err.text, "memory: 7.75 GiB needed by 2 ranks here (weights 6.00, kv 1.00, scratch 0.50, "
                                  "other 0.25), 7.00 can be had (cgroup limit 12.00); raise the limit or lower "
                                  "kv_memory, max_seqs, max_rows");
    room.limit_bytes = 0;
    assert_int_equal(phx_memory_check(&need, &room, &err), PHX_E_NOMEM);
    assert_non_null(strstr(err.text, "7.00 can be had (MemAvailable)"));
}

static void test_budget(void **state)
{
    struct phx_memory_need need = two_ranks(0);
    struct phx_memory_room room = {.free_bytes = (int64_t)(8 * GIB)};

    (void)state;
    assert_int_equal(phx_memory_budget(&need, &room), (8 * GIB - 27 * GIB / 4) / 2);
    room.free_bytes = (int64_t)(6 * GIB);
    assert_int_equal(phx_memory_budget(&need, &room), 0);
}

/* Sizes that only a mistake can ask for do not wrap to small ones. */
static void test_overflow(void **state)
{
    struct phx_memory_need need = two_ranks(INT64_MAX);
    struct phx_memory_room room = {.free_bytes = INT64_MAX};
    struct phx_err         err = {0};

    (void)state;
    assert_int_equal(phx_memory_check(&need, &room, &err), PHX_E_NOMEM);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_only_this_host_counts), cmocka_unit_test(test_refused_with_numbers),
        cmocka_unit_test(test_budget), cmocka_unit_test(test_overflow)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
