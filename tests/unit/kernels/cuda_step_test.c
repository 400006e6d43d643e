/* SPDX-License-Identifier: Apache-2.0
 * One small step with every op, on the emulated device: it neither waits nor allocates once it has run (so it can be
 * captured), and whichever of its launches, copies or allocations fails, the step fails alone and the next one gives
 * the same bits. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <dlfcn.h>

#include "kernels/backend.h"
#include "tests/emu/control.h"
#include "tests/unit/kernels/small_model.h"

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
    emu->reset();
    assert_int_equal(emu->used_bytes, 0);
    assert_int_equal(emu->pinned_bytes, 0);
    return 0;
}

/* A prompt of four tokens beside a decode; no result is fetched. */
static void run_step(struct small_model *m)
{
    static const int32_t row[2] = {0, 4}, n[2] = {4, 1}, pos[2] = {0, 9}, table[2] = {2, 1}, tokens[5] = {7, 3, 39, 12, 5};
    static const int32_t last[2] = {3, 4};
    const struct phx_spans       spans = {2, row, n, pos, table, 1};
    const struct phx_step_inputs in = {.model = m, .n_rows = 5, .ids = tokens, .n_picked = 2, .picked = last,
                                       .spans = &spans, .kv = m->kv};

    small_model_ops(m, &in);
}

struct answer {
    float   scores[2 * SMALL_VOCAB], best[2 * SMALL_BEST], lse[2];
    int32_t ids[2 * SMALL_BEST];
};

/* The step's sync; the answer when it went well. */
static int read_step(struct small_model *m, struct answer *a, const char **what)
{
    int rc = phx_backend_sync(m->b, what);

    if (rc != 0)
        return rc;
    phx_download(m->b, a->scores, m->scores.data, sizeof(a->scores));
    phx_download(m->b, a->best, m->best.data, sizeof(a->best));
    phx_download(m->b, a->lse, m->lse.data, sizeof(a->lse));
    phx_download(m->b, a->ids, m->best_ids.data, sizeof(a->ids));
    return phx_backend_sync(m->b, what);
}

static void expect_step(struct small_model *m, const struct answer *want)
{
    struct answer got;
    const char   *what = "";

    memset(&got, 0, sizeof(got));
    run_step(m);
    if (read_step(m, &got, &what) != 0)
        fail_msg("%s", what);
    assert_memory_equal(&got, want, sizeof(got));
}

static void first_step(struct small_model *m, struct answer *a)
{
    const char *what = "";

    memset(a, 0, sizeof(*a));
    assert_true(small_model_open(m, false, false));
    run_step(m);
    if (read_step(m, a, &what) != 0)
        fail_msg("%s", what);
    for (int i = 0; i < 2 * SMALL_VOCAB; i++)
        assert_true(a->scores[i] == a->scores[i]); /* no NaN */
    assert_true(a->ids[0] >= 0 && a->ids[0] < SMALL_VOCAB && a->best[0] >= a->best[1]);
}

static void a_second_step_neither_waits_nor_allocates(void **state)
{
    struct small_model  m;
    struct answer a;
    int64_t       syncs, mallocs, launches;

    (void)state;
    first_step(&m, &a);
    syncs = emu->n_syncs;
    mallocs = emu->n_mallocs;
    launches = emu->n_launches;
    run_step(&m);
    assert_int_equal(emu->n_syncs, syncs);
    assert_int_equal(emu->n_mallocs, mallocs);
    assert_true(emu->n_launches > launches + 15);
    assert_int_equal(phx_backend_sync(m.b, NULL), 0);
    expect_step(&m, &a);
    small_model_close(&m);
}

static void any_launch_may_be_refused(void **state)
{
    struct small_model  m;
    struct answer a;
    int64_t       launches;
    const char   *what;

    (void)state;
    first_step(&m, &a);
    launches = emu->n_launches;
    run_step(&m);
    assert_int_equal(phx_backend_sync(m.b, NULL), 0);
    launches = emu->n_launches - launches;
    for (int i = 1; i <= (int)launches; i++) {
        emu->fail_launch = i;
        run_step(&m);
        assert_int_equal(emu->fail_launch, 0); /* it struck */
        assert_int_equal(phx_backend_sync(m.b, &what), -1);
        assert_non_null(strstr(what, "resources"));
        expect_step(&m, &a);
    }
    small_model_close(&m);
}

static void any_copy_may_fail(void **state)
{
    struct small_model  m;
    struct answer a;
    int64_t       copies;

    (void)state;
    first_step(&m, &a);
    copies = emu->n_copies;
    run_step(&m);
    assert_int_equal(phx_backend_sync(m.b, NULL), 0);
    copies = emu->n_copies - copies;
    assert_true(copies >= 3); /* tokens, rows, choices */
    for (int i = 1; i <= (int)copies; i++) {
        emu->fail_copy = i;
        run_step(&m);
        assert_int_equal(phx_backend_sync(m.b, NULL), -1);
        expect_step(&m, &a);
    }
    small_model_close(&m);
}

static void any_allocation_may_fail(void **state)
{
    struct small_model  m;
    struct answer a, again;
    int64_t       mallocs;

    (void)state;
    emu->n_mallocs = 0;
    first_step(&m, &a);
    mallocs = emu->n_mallocs;
    small_model_close(&m);
    for (int i = 1; i <= (int)mallocs; i++) {
        bool is_open;

        memset(&again, 0, sizeof(again));
        emu->fail_malloc = i;
        is_open = small_model_open(&m, false, false);
        if (is_open && emu->fail_malloc > 0) { /* it will be the step's */
            run_step(&m);
            assert_int_equal(emu->fail_malloc, 0);
            assert_int_equal(phx_backend_sync(m.b, NULL), -1);
        }
        if (is_open)
            expect_step(&m, &a);
        small_model_close(&m);
        emu->fail_malloc = 0;
        assert_int_equal(emu->used_bytes, 0);
    }
}

static void a_device_may_die_anywhere(void **state)
{
    struct small_model  m;
    struct answer a;

    (void)state;
    for (int i = 1; i <= 12; i += 3) {
        first_step(&m, &a);
        emu->die_error = 214; /* uncorrectable ECC */
        emu->die_at_launch = i;
        run_step(&m);
        assert_int_equal(phx_backend_sync(m.b, NULL), PHX_SYNC_LOST);
        run_step(&m);
        assert_int_equal(phx_backend_sync(m.b, NULL), PHX_SYNC_LOST);
        small_model_close(&m);
        emu->reset();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_second_step_neither_waits_nor_allocates, start, finish),
        cmocka_unit_test_setup_teardown(any_launch_may_be_refused, start, finish),
        cmocka_unit_test_setup_teardown(any_copy_may_fail, start, finish),
        cmocka_unit_test_setup_teardown(any_allocation_may_fail, start, finish),
        cmocka_unit_test_setup_teardown(a_device_may_die_anywhere, start, finish),
    };

    return cmocka_run_group_tests(tests, find_emulator, NULL);
}
