/* SPDX-License-Identifier: Apache-2.0
 * Measuring a device, on the emulated one: every figure is there, what is missing is zero, and a refusal anywhere is told
 * and leaves nothing behind.  The figures themselves mean nothing here. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/backend.h"
#include "tests/emu/control.h"

static struct phx_emu *emu;
static const struct phx_device_request small = {.buffer_bytes = 100001, .matrix = 40, .calls = 2, .launches = 10};

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

static struct phx_backend *open_device(void)
{
    char                why[240] = "";
    struct phx_backend *b;

    emu->reset();
    b = phx_backend_open("cuda", NULL, why, sizeof(why));
    if (b == NULL)
        fail_msg("%s", why);
    return b;
}

static void every_figure_is_there(void **state)
{
    struct phx_backend       *b = open_device();
    struct phx_device_ceiling c;
    int64_t                   copies = emu->n_copies, graphs = emu->n_graph_launches, blas = emu->n_blas;

    (void)state;
    assert_int_equal(phx_device_measure(b, &small, &c), 0);
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    assert_true(c.copy_gb_s > 0 && c.read_gb_s > 0 && c.matmul_gflop_s > 0 && c.launch_us > 0);
    assert_int_equal(emu->n_copies - copies, 6 * 2); /* a round warms up */
    assert_int_equal(emu->n_blas - blas, 6 * 2);
    assert_int_equal(emu->n_graph_launches - graphs, 6 * 10);
    assert_int_equal(emu->n_graphs, 0);
    phx_backend_close(b);
    assert_int_equal(emu->used_bytes, 0);
}

static void what_is_missing_is_zero(void **state)
{
    struct phx_backend       *b = open_device(), *cpu = phx_backend_open("cpu", NULL, NULL, 0);
    struct phx_device_ceiling c;

    (void)state;
    emu->lacks_blas = 1;
    assert_int_equal(phx_device_measure(b, &small, &c), 0);
    assert_true(c.copy_gb_s > 0 && c.matmul_gflop_s == 0 && c.launch_us > 0);
    assert_int_equal(phx_device_measure(cpu, &small, &c), 0);
    assert_true(c.copy_gb_s == 0 && c.read_gb_s == 0 && c.matmul_gflop_s == 0 && c.launch_us == 0);
    phx_backend_close(cpu);
    phx_backend_close(b);
}

static void a_refusal_is_told_and_nothing_stays(void **state)
{
    int *const refusals[] = {&emu->fail_malloc, &emu->fail_launch, &emu->fail_copy, &emu->fail_instantiate, &emu->fail_graph_launch};

    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++)
        for (int n = 1; n < 60; n += 4) {
            struct phx_backend       *b = open_device();
            struct phx_device_ceiling c;
            const char               *what = "";
            int                       rc;

            *refusals[i] = n;
            rc = phx_device_measure(b, &small, &c);
            assert_int_equal(rc == 0, *refusals[i] > 0); /* not reached */
            *refusals[i] = 0;
            assert_int_equal(phx_backend_sync(b, &what), rc);
            if (rc != 0 && strstr(what, "measure") == NULL)
                fail_msg("%s", what);
            assert_int_equal(emu->n_graphs, 0);
            assert_int_equal(phx_device_measure(b, &small, &c), 0);
            phx_backend_close(b);
            assert_int_equal(emu->used_bytes, 0);
        }
}

static void stamps_tell_how_long_what_lies_between_them_took(void **state)
{
    struct phx_backend *b = open_device(), *cpu = phx_backend_open("cpu", NULL, NULL, 0);
    float              *x = phx_backend_alloc(b, 4096 * sizeof(float)), us[3] = {-1, -1, -1};

    (void)state;
    assert_int_equal(phx_device_stamps(b, 2, us), -1); /* there are none */
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    phx_device_stamp(b, 0);
    for (int i = 0; i < 50; i++)
        phx_add(b, phx_view(x, 4, 1024), phx_view(x, 4, 1024));
    phx_device_stamp(b, 1);
    phx_device_stamp(b, 2);
    phx_device_stamp(b, PHX_STAMPS_MAX); /* out of range: nothing */
    assert_int_equal(phx_device_stamps(b, 3, us), 0);
    assert_true(us[0] > us[1] && us[1] >= 0 && us[2] == -1);
    phx_device_stamp(cpu, 0);
    assert_int_equal(phx_device_stamps(cpu, 1, us), -1);
    phx_backend_free(b, x);
    phx_backend_close(cpu);
    phx_backend_close(b);
    assert_int_equal(emu->used_bytes, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_figure_is_there),
        cmocka_unit_test(what_is_missing_is_zero),
        cmocka_unit_test(stamps_tell_how_long_what_lies_between_them_took),
        cmocka_unit_test(a_refusal_is_told_and_nothing_stays),
    };

    return cmocka_run_group_tests(tests, find_emulator, NULL);
}
