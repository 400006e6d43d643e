/* SPDX-License-Identifier: Apache-2.0
 * Loading onto a device, on the emulated one: several copying threads, odd cuts and a single thread give the same bits;
 * a device that refuses memory or a copy at any point of it ends the loading with the reason, and nothing stays behind. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "tests/emu/control.h"
#include "tests/model/harness.h"

static struct phx_emu *emu;

static int find_emulator(void **state)
{
    void *module = dlopen(PHX_BIN_DIR "/../tests/phalanx_cuda.so", RTLD_NOW | RTLD_LOCAL);

    (void)state;
    if (module == NULL)
        fail_msg("%s", dlerror());
    emu = dlsym(module, "phx_emu");
    assert_non_null(emu);
    return 0;
}

static int start(void **state)
{
    (void)state;
    emu->reset();
    return 0;
}

static int finish(void **state)
{
    (void)state;
    assert_int_equal(emu->used_bytes, 0);
    assert_int_equal(emu->pinned_bytes, 0);
    emu->reset();
    return 0;
}

static struct phx_ranks_options options_of(const struct golden *g)
{
    struct phx_ranks_options o = harness_options(g, 1, 1);

    o.backend = "cuda";
    return o;
}

static void threads_and_cuts_do_not_change_a_bit(void **state)
{
    static const char *const names[] = {"gpt-oss-window-f32", "gpt-oss-parameters-bf16"};
    static const struct {
        int    threads;
        size_t bytes;
    } cuts[] = {{2, 1000}, {3, 64}, {4, 4097}};

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        struct golden            g = golden_load(names[i]);
        struct phx_ranks_options o = options_of(&g);
        float                   *want;

        emu->copy_threads = 1;
        want = harness_text(&g, &o, g.T);
        for (size_t j = 0; j < sizeof(cuts) / sizeof(cuts[0]); j++) {
            float *got;

            emu->copy_threads = cuts[j].threads;
            emu->copy_bytes = cuts[j].bytes;
            got = harness_text(&g, &o, g.T);
            assert_same_bits(got, want, g.T, g.V, names[i]);
            phx_mem_free(got);
        }
        phx_mem_free(want);
        golden_free(&g);
    }
}

static int do_nothing(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    (void)rank;
    (void)ctx;
    (void)err;
    return 0;
}

/* The n-th of *countdown is refused; false when loading did not come that far. */
static bool load_refused(const struct golden *g, int *countdown, int n, const char *word)
{
    struct phx_ranks_options o = options_of(g);
    struct phx_err           err = {0};
    int                      rc;

    *countdown = n;
    rc = phx_ranks_run(&o, do_nothing, NULL, &err);
    if (*countdown > 0) { /* nothing was refused */
        assert_int_equal(rc, 0);
        *countdown = 0;
        return false;
    }
    if (rc == 0 || strstr(err.text, word) == NULL)
        fail_msg("refusal %d: code %d, \"%s\" does not say %s", n, rc, err.text, word);
    assert_int_equal(emu->used_bytes, 0);
    return true;
}

static void whatever_a_device_refuses_ends_loading_with_the_reason(void **state)
{
    struct golden g = golden_load("gpt-oss-parameters-bf16");
    int           n_copies = 1, n_mallocs = 1, n_launches = 3; /* two ask whether launches overlap */

    (void)state;
    emu->copy_threads = 3;
    emu->copy_bytes = 500;
    while (load_refused(&g, &emu->fail_copy, n_copies, "invalid argument"))
        n_copies += 11;
    while (load_refused(&g, &emu->fail_launch, n_launches, "too many resources"))
        n_launches += 5;
    while (load_refused(&g, &emu->fail_malloc, n_mallocs, "memory"))
        n_mallocs += 3;
    print_message("refused up to copy %d, launch %d, allocation %d\n", n_copies, n_launches, n_mallocs);
    assert_in_range(n_copies, 100, 100000);
    assert_in_range(n_launches, 50, 100000);
    assert_in_range(n_mallocs, 40, 100000);
    for (int i = 1; i <= 4; i++) /* the ring, what kernels report to, and two slots for bulk data */
        (void)load_refused(&g, &emu->fail_pinned, i, "memory");
    golden_free(&g);
}

static void a_device_that_dies_while_loading_is_told(void **state)
{
    struct golden            g = golden_load("gpt-oss-window-f32");
    struct phx_ranks_options o = options_of(&g);
    struct phx_err           err = {0};

    (void)state;
    emu->die_at_launch = 3;
    emu->die_error = 214; /* uncorrectable ECC error */
    assert_int_not_equal(phx_ranks_run(&o, do_nothing, NULL, &err), 0);
    if (strstr(err.text, "ECC") == NULL || strstr(err.text, "lost") == NULL)
        fail_msg("%s", err.text);
    emu->reset();
    golden_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(threads_and_cuts_do_not_change_a_bit, start, finish),
        cmocka_unit_test_setup_teardown(whatever_a_device_refuses_ends_loading_with_the_reason, start, finish),
        cmocka_unit_test_setup_teardown(a_device_that_dies_while_loading_is_told, start, finish),
    };

    return cmocka_run_group_tests(tests, find_emulator, NULL);
}
