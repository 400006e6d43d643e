/* SPDX-License-Identifier: Apache-2.0
 * Which launches begin before the one before has ended, on the emulated device: those of a device, a build and a driver
 * that bear it, and no others; recordings that fail with them are made without. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <dlfcn.h>

#include "tests/emu/control.h"
#include "tests/emu/cuda_runtime_api.h"
#include "tests/unit/kernels/small_model.h"

enum { SEQS = 3, STRIDE = 4 };

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
    assert_int_equal(emu->n_graphs, 0);
    return 0;
}

/* A decoding step at pos; whether it was replayed, and its scores. */
static bool run_step(struct small_model *m, int32_t pos, float scores[SEQS * SMALL_VOCAB])
{
    int32_t                row[SEQS], n_rows[SEQS], at[SEQS], table[SEQS * STRIDE], ids[SEQS];
    struct phx_spans       spans = {SEQS, row, n_rows, at, table, STRIDE};
    struct phx_step_inputs in = {.model = m, .n_rows = SEQS, .ids = ids, .n_picked = SEQS, .picked = row, .spans = &spans,
                                 .kv = m->kv, .is_recordable = true};
    const char            *what = "";
    bool                   is_replayed;

    for (int32_t i = 0; i < SEQS; i++) {
        row[i] = i;
        n_rows[i] = 1;
        at[i] = pos + i;
        ids[i] = (pos * 3 + i * 11) % SMALL_VOCAB;
        for (int32_t j = 0; j < STRIDE; j++)
            table[i * STRIDE + j] = i * STRIDE + j;
    }
    is_replayed = phx_step_begin(m->b, &in);
    if (!is_replayed)
        small_model_ops(m, &in);
    while (phx_step_end(m->b))
        small_model_ops(m, &in);
    phx_download(m->b, scores, m->scores.data, SEQS * SMALL_VOCAB * sizeof(float));
    if (phx_backend_sync(m->b, &what) != 0)
        fail_msg("%s", what);
    return is_replayed;
}

static void expect_launches(struct phx_backend *b, const char *text)
{
    struct phx_device_facts facts = {0};

    phx_backend_facts(b, &facts);
    assert_string_equal(facts.launches, text);
}

/* Steps on a device as it is set now: their scores, and whether all launches overlapped (else none did). */
static void run_device(const char *text, bool overlaps, float scores[4][SEQS * SMALL_VOCAB])
{
    struct small_model m;
    int64_t            launches, overlapped;

    assert_true(small_model_open(&m, true, false));
    expect_launches(m.b, text);
    launches = emu->n_launches;
    overlapped = emu->n_overlapped;
    for (int32_t pos = 0; pos < 4; pos++)
        assert_int_equal(run_step(&m, pos, scores[pos]), pos >= 2);
    launches = emu->n_launches - launches;
    assert_true(launches > 30);
    assert_int_equal(emu->n_overlapped - overlapped, overlaps ? launches : 0);
    expect_launches(m.b, text);
    small_model_close(&m);
}

static void who_bears_it_overlaps(void **state)
{
    static float overlapped[4][SEQS * SMALL_VOCAB], plain[4][SEQS * SMALL_VOCAB];

    (void)state;
    emu->arch = 90;
    run_device("overlapped", true, overlapped);
    for (int pos = 0; pos < 4; pos++)
        for (int i = 0; i < SEQS * SMALL_VOCAB; i++)
            assert_true(overlapped[pos][i] == overlapped[pos][i]); /* no NaN */
    emu->built_for = 80;
    run_device("one by one: the kernels were built for older devices", false, plain);
    assert_memory_equal(plain, overlapped, sizeof(plain));
    emu->built_for = 0;
    emu->refuses_overlap = 1;
    run_device("one by one: the driver refuses others", false, plain);
    assert_memory_equal(plain, overlapped, sizeof(plain));
    emu->reset();
    emu->arch = 80;
    run_device("one by one: compute capability below 9.0", false, plain);
    assert_memory_equal(plain, overlapped, sizeof(plain));
    emu->arch = 100;
    run_device("overlapped", true, plain);
    assert_memory_equal(plain, overlapped, sizeof(plain));
}

/* A launch of a backend whose device is the thread's: whether it overlapped. */
static bool launch_overlaps(struct phx_backend *b)
{
    int64_t launches = emu->n_launches, overlapped = emu->n_overlapped;
    float   host[64] = {0}, *x = phx_backend_alloc(b, sizeof(host));

    assert_non_null(x);
    phx_upload(b, x, host, sizeof(host));
    phx_add(b, phx_view(x, 1, 64), phx_view(x, 1, 64));
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    assert_int_equal(emu->n_launches, launches + 1);
    phx_backend_free(b, x);
    return emu->n_overlapped > overlapped;
}

/* Two backends of a process, of which one does not want to. */
static void each_backend_chooses(void **state)
{
    const struct phx_backend_options serial = {.is_serial = true};
    char                             why[240] = "";
    struct phx_backend              *a = phx_backend_open("cuda", NULL, why, sizeof(why));
    struct phx_backend              *b = phx_backend_open("cuda", &serial, why, sizeof(why));

    (void)state;
    assert_non_null(a);
    assert_non_null(b);
    expect_launches(a, "overlapped");
    expect_launches(b, "one by one: as asked for");
    assert_true(launch_overlaps(a));
    assert_false(launch_overlaps(b));
    phx_backend_close(b);
    assert_true(launch_overlaps(a));
    phx_backend_close(a);
}

static void recordings_that_fail_are_made_without(void **state)
{
    static float       got[SEQS * SMALL_VOCAB], want[SEQS * SMALL_VOCAB];
    struct small_model m, plain;

    (void)state;
    emu->refuses_overlap = 2;
    assert_true(small_model_open(&m, true, false));
    assert_true(small_model_open(&plain, true, true));
    for (int32_t pos = 0; pos < 8; pos++) {
        expect_launches(m.b, pos < 4 ? "overlapped" : "one by one: recordings of others failed");
        assert_int_equal(run_step(&m, pos, got), pos >= 5); /* three fail, one does not */
        assert_false(run_step(&plain, pos, want));
        assert_memory_equal(got, want, sizeof(got));
    }
    expect_launches(plain.b, "overlapped");
    small_model_close(&m);
    small_model_close(&plain);
}

enum { N = 40, K = 1000, TILES = 3, TILE_BYTES = 32 * 1024 /* 16 outputs of bf16, 1000 k in blocks of 32 */ };

/* Bytes that a product of n_rows rows asks for ahead of its turn. */
static int64_t ask(enum phx_dtype dtype, int32_t n_rows)
{
    const struct phx_backend_options options = {.compute = PHX_COMPUTE_BF16};
    const struct phx_weight_desc     desc = {.dtype = dtype, .n = N, .k = K, .n_experts = 1, .n_slices = 1, .slice_end = {K}};
    char                             why[240] = "";
    struct phx_backend              *b = phx_backend_open("cuda", &options, why, sizeof(why));
    struct phx_weight               *w;
    float                           *x;
    int64_t                          before = emu->prefetched_bytes;

    assert_non_null(b);
    w = phx_weight_create(b, &desc);
    x = phx_backend_alloc(b, (size_t)n_rows * (K + N) * sizeof(float));
    assert_non_null(x);
    phx_matmul(b, phx_view(x + n_rows * K, n_rows, N), phx_view(x, n_rows, K), w, (struct phx_tensor){0});
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    phx_weight_destroy(b, w);
    phx_backend_free(b, x);
    phx_backend_close(b);
    return emu->prefetched_bytes - before;
}

static void products_of_few_rows_ask_for_their_weights(void **state)
{
    (void)state;
    for (int32_t rows = 1; rows <= 32; rows += 5)
        assert_int_equal(ask(PHX_DTYPE_BF16, rows), TILES * TILE_BYTES); /* once, however many rows there are */
    assert_int_equal(ask(PHX_DTYPE_F32, 1), TILES * TILE_BYTES * 2);
    assert_int_equal(ask(PHX_DTYPE_F32, 9), TILES * TILE_BYTES * 2);
    assert_int_equal(ask(PHX_DTYPE_BF16, 33), 0);
    emu->l2_bytes = 8192;
    assert_int_equal(ask(PHX_DTYPE_BF16, 1), TILES * 1280);
    emu->reset();
    emu->arch = 80;
    assert_int_equal(ask(PHX_DTYPE_BF16, 1), 0);
}

static void a_device_may_die_while_it_is_asked(void **state)
{
    char why[240] = "";

    (void)state;
    emu->arch = 100; /* asks nothing else by a launch */
    for (int n = 1; n <= 2; n++) {
        emu->die_at_launch = n;
        emu->die_error = cudaErrorECCUncorrectable;
        assert_null(phx_backend_open("cuda", NULL, why, sizeof(why)));
        assert_non_null(strstr(why, "ECC"));
        emu->reset();
        emu->arch = 100;
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(who_bears_it_overlaps, start, finish),
        cmocka_unit_test_setup_teardown(each_backend_chooses, start, finish),
        cmocka_unit_test_setup_teardown(recordings_that_fail_are_made_without, start, finish),
        cmocka_unit_test_setup_teardown(products_of_few_rows_ask_for_their_weights, start, finish),
        cmocka_unit_test_setup_teardown(a_device_may_die_while_it_is_asked, start, finish),
    };

    return cmocka_run_group_tests(tests, find_emulator, NULL);
}
