/* SPDX-License-Identifier: Apache-2.0
 * Which GPU a rank uses, what of its memory it may plan with, and what is refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "shard/step/device.h"

static const int64_t GIB = (int64_t)1 << 30;

static void ranks_take_devices_in_turn(void **state)
{
    static const int32_t       listed[] = {4, 0, 7};
    struct phx_backend_options options = {0};
    struct phx_err             err = {0};

    (void)state;
    for (int32_t place = 0; place < 5; place++) {
        assert_int_equal(phx_step_choose_device("", place, &options, &err), 0);
        assert_true(options.is_wrapped && options.device == place);
        assert_int_equal(phx_step_choose_device("4,0,7", place, &options, &err), 0);
        assert_false(options.is_wrapped);
        assert_int_equal(options.device, listed[place % 3]);
    }
    for (size_t i = 0; i < 6; i++) {
        const char *bad[] = {"a", "1,", "1,,2", "-1", "1 2", "9999"};

        assert_int_equal(phx_step_choose_device(bad[i], 0, &options, &err), PHX_E_INVALID);
        assert_non_null(strstr(err.text, bad[i]));
    }
}

static void ranks_of_one_device_are_counted(void **state)
{
    struct phx_device_facts facts = {.index = 1, .n_visible = 4};

    (void)state;
    assert_int_equal(phx_step_sharers("", 4, &facts), 1);
    assert_int_equal(phx_step_sharers("", 8, &facts), 2);
    assert_int_equal(phx_step_sharers(NULL, 6, &facts), 2);
    assert_int_equal(phx_step_sharers("1", 3, &facts), 3);
    assert_int_equal(phx_step_sharers("0,1", 3, &facts), 1);
    facts.n_visible = 0; /* not known: at least this one */
    assert_int_equal(phx_step_sharers("", 3, &facts), 3);
}

static void the_cache_gets_what_is_left(void **state)
{
    struct phx_device_facts facts = {.name = "NVIDIA H200", .free_bytes = 130 * GIB, .total_bytes = 128 * GIB};
    struct phx_part         part = {.rank = 1, .weights_bytes = (uint64_t)(60 * GIB), .scratch_bytes = (uint64_t)GIB,
                                    .kv_bytes_per_block = (uint64_t)GIB / 16};
    struct phx_err          err = {0};
    int64_t                 room = phx_device_room(&facts, 1);

    (void)state;
    assert_int_equal(room, 128 * GIB - GIB / 4);
    assert_int_equal(phx_device_blocks(&part, room), (67 * 16) - 4);
    assert_int_equal(phx_device_check(&part, 67 * 16 - 4, &facts, 1, &err), 0);
    assert_int_equal(phx_device_check(&part, 67 * 16 - 3, &facts, 1, &err), PHX_E_NOMEM);
    assert_string_equal(err.text, "device memory: rank 1 needs 127.81 GiB (weights 60.00, kv 66.81, scratch 1.00, backend 0.00), "
                                  "127.75 of 128.00 GiB of device 0 (NVIDIA H200) can be had by each of its 1 ranks; "
                                  "use more GPUs or lower kv_memory, max_seqs, max_rows");
    assert_int_equal(phx_device_blocks(&part, phx_device_room(&facts, 3)), 0);
    assert_int_equal(phx_device_check(&part, 0, &facts, 1, &err), PHX_E_NOMEM);
    facts.free_bytes = 0;
    assert_int_equal(phx_device_room(&facts, 1), 0);
}

static void what_a_backend_ignores_is_refused(void **state)
{
    const struct {
        struct phx_step_options options;
        const char             *word; /* NULL: taken */
    } cases[] = {
        {{.backend = "cpu"}, NULL},
        {{.backend = "cuda"}, NULL},
        {{.backend = "cuda", .isa = "auto", .is_fast = true, .devices = "0", .transport = "nccl", .interface = "lo"}, NULL},
        {{.backend = "cpu", .isa = "avx2", .n_threads = 3, .transport = "auto", .devices = ""}, NULL},
        {{.backend = "cuda", .isa = "avx2"}, "isa avx2"},
        {{.backend = "cuda", .n_threads = 2}, "threads"},
        {{.backend = "cpu", .is_fast = true}, "class fast"},
        {{.backend = "cpu", .is_eager = true}, "no-graphs"},
        {{.backend = "cpu", .is_serial = true}, "no-overlap"},
        {{.backend = "cpu", .devices = "0"}, "devices"},
        {{.backend = "cpu", .transport = "host"}, "transport"},
        {{.backend = "cuda", .transport = "peer", .tp = 2, .pp = 2}, "transport peer carries no stages (pp 2)"},
        {{.backend = "cuda", .transport = "peer", .interface = "lo"}, "interface is of a network"},
        {{.backend = "cpu", .interface = "lo"}, "interface"},
        {{.backend = "cpu", .ib_devices = "none"}, "ib_devices"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct phx_err err = {0};
        int            rc = phx_step_check_device(&cases[i].options, &err);

        assert_int_equal(rc, cases[i].word == NULL ? 0 : PHX_E_INVALID);
        if (cases[i].word != NULL && strstr(err.text, cases[i].word) != err.text)
            fail_msg("case %zu: %s", i, err.text);
    }
}

static void a_backend_gets_batches_that_suit_it(void **state)
{
    struct phx_step_options cpu = {.backend = "cpu"}, cuda = {.backend = "cuda"}, own = {.backend = "cuda", .max_rows = 7};

    (void)state;
    phx_step_set_batch(&cpu);
    phx_step_set_batch(&cuda);
    phx_step_set_batch(&own);
    assert_int_equal(cpu.max_seqs, 16);
    assert_int_equal(cpu.max_rows, 512);
    assert_int_equal(cuda.max_seqs, 256);
    assert_int_equal(cuda.max_rows, 2048);
    assert_int_equal(own.max_seqs, 256);
    assert_int_equal(own.max_rows, 7);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_take_devices_in_turn),
        cmocka_unit_test(ranks_of_one_device_are_counted),
        cmocka_unit_test(the_cache_gets_what_is_left),
        cmocka_unit_test(what_a_backend_ignores_is_refused),
        cmocka_unit_test(a_backend_gets_batches_that_suit_it),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
