/* SPDX-License-Identifier: Apache-2.0
 * What goes wrong with a CUDA device, on the emulated one: nothing to run on, no memory, refused launches, a device
 * that dies.  Each time the reason is told, and what can live on does. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include <dlfcn.h>
#include <math.h>

#include "kernels/backend.h"
#include "tests/emu/control.h"
#include "tests/emu/cuda_runtime_api.h"

enum { MIB = 1 << 20, N = 300 };

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

/* Every test gives back what it took, of a dead device too. */
static int finish(void **state)
{
    (void)state;
    emu->reset();
    assert_int_equal(emu->used_bytes, 0);
    assert_int_equal(emu->pinned_bytes, 0);
    return 0;
}

static struct phx_backend *open_device(void)
{
    char                why[240] = "";
    struct phx_backend *b = phx_backend_open("cuda", NULL, why, sizeof(why));

    if (b == NULL)
        fail_msg("%s", why);
    return b;
}

static void refuse_to_open(const struct phx_backend_options *options, const char *word, const char *other)
{
    char why[240] = "";

    assert_null(phx_backend_open("cuda", options, why, sizeof(why)));
    if (strstr(why, word) == NULL || strstr(why, other) == NULL)
        fail_msg("expected %s ... %s, got %s", word, other, why);
}

/* The sync's answer and its words. */
static void expect_failure(struct phx_backend *b, int rc, const char *word, const char *other)
{
    const char *what = "";

    assert_int_equal(phx_backend_sync(b, &what), rc);
    if (strstr(what, word) == NULL || strstr(what, other) == NULL)
        fail_msg("expected %s ... %s, got %s", word, other, what);
}

/* A step with several ops gives what it should. */
static void expect_alive(struct phx_backend *b)
{
    float *x = phx_backend_alloc(b, N * sizeof(float)), host[N];

    assert_non_null(x);
    for (int i = 0; i < N; i++)
        host[i] = (float)i;
    phx_upload(b, x, host, sizeof(host));
    phx_add(b, phx_view(x, 1, N), phx_view(x, 1, N));
    phx_add_row(b, phx_view(x, 1, N), phx_view(x, 1, N));
    phx_download(b, host, x, sizeof(host));
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    for (int i = 0; i < N; i++)
        assert_true(host[i] == 4.0f * (float)i);
    phx_backend_free(b, x);
}

/* ---- nothing to run on ------------------------------------------------------------------------ */

static void missing_and_old_drivers_are_told(void **state)
{
    (void)state;
    emu->driver_version = 0;
    refuse_to_open(NULL, "no NVIDIA driver", "580");
    emu->driver_version = 12040;
    refuse_to_open(NULL, "too old: it knows CUDA 12.4", "CUDA 13.0 (driver 580)");
    emu->driver_version = 13010; /* newer than this build */
    phx_backend_close(open_device());
}

static void missing_and_old_devices_are_told(void **state)
{
    const struct phx_backend_options third = {.device = 2}, negative = {.device = -1};
    struct phx_backend              *b;

    (void)state;
    emu->n_devices = 0;
    refuse_to_open(NULL, "no CUDA device", "detected");
    emu->n_devices = 2;
    emu->arch = 75;
    refuse_to_open(NULL, "8.0 or newer", "7.5");
    emu->arch = 80;
    refuse_to_open(&third, "device 2", "2 visible");
    refuse_to_open(&negative, "device -1", "2 visible");
    emu->arch = 120;
    b = open_device();
    assert_string_equal(phx_backend_isa(b), "sm_120");
    assert_string_equal(phx_backend_name(b), "cuda");
    phx_backend_close(b);
}

static void a_device_that_cannot_be_set_up_is_told_and_left(void **state)
{
    (void)state;
    for (int i = 1; i <= 2; i++) {
        emu->fail_pinned = i;
        refuse_to_open(NULL, "out of memory", "");
    }
    emu->fail_malloc = 1;
    refuse_to_open(NULL, "out of device memory: staging needs 16 MiB", "free");
    assert_int_equal(emu->used_bytes, 0);
}

/* ---- memory ----------------------------------------------------------------------------------- */

static void too_large_a_plan_is_refused_with_the_numbers(void **state)
{
    /* 2 * 1024 blocks * 16 * 16 heads * 64 * 4 bytes = 128 MiB a layer */
    const struct phx_kv_desc desc = {2, 1024, 16, 16, 64, PHX_DTYPE_F32};
    struct phx_backend      *b;

    (void)state;
    emu->memory_bytes = (size_t)64 * MIB;
    b = open_device();
    assert_int_equal(phx_kv_bytes(b, &desc), 2 * 128 * MIB);
    assert_null(phx_kv_create(b, &desc));
    expect_failure(b, -1, "kv_create: 268435456 bytes", "needs 256 MiB, 48 MiB of 64 MiB are free");
    assert_null(phx_backend_alloc(b, (size_t)49 * MIB));
    expect_failure(b, -1, "alloc needs 49 MiB", "48 MiB of 64 MiB");
    expect_alive(b);
    phx_backend_close(b);
}

/* What the CPU's takes: a byte a number, and a float per token and head. */
static void a_cache_of_bytes_is_as_large_as_the_cpus(void **state)
{
    static const enum phx_dtype kinds[] = {PHX_DTYPE_I8, PHX_DTYPE_F8_E4M3};
    struct phx_backend         *b = open_device();

    (void)state;
    for (int i = 0; i < 2; i++) {
        const struct phx_kv_desc desc = {3, 7, 32, 5, 64, kinds[i]};

        assert_int_equal(phx_kv_bytes(b, &desc), 2 * 3 * 7 * 32 * 5 * (64 + 4));
        assert_int_equal(phx_kv_bytes(b, &desc), phx_kv_bytes(NULL, &desc));
    }
    phx_backend_close(b);
}

static void memory_that_runs_out_in_a_step_fails_the_step_alone(void **state)
{
    struct phx_backend *b = open_device();

    (void)state;
    emu->fail_malloc = 1;
    assert_null(phx_backend_alloc(b, 5 * MIB));
    expect_failure(b, -1, "out of device memory", "5 MiB");
    emu->fail_pinned = 1; /* the first upload wants pinned memory */
    phx_upload(b, b, b, 1);
    expect_failure(b, -1, "upload", "out of memory");
    expect_alive(b);
    phx_backend_close(b);
}

static void too_many_rows_for_the_ring_are_refused(void **state)
{
    enum { ROWS = 16 * MIB / 4 + 1 };
    struct phx_backend *b = open_device();
    float              *x = phx_backend_alloc(b, ROWS * sizeof(float));
    int32_t            *rows = test_calloc(ROWS, sizeof(*rows));

    (void)state;
    phx_gather_rows(b, phx_view(x, ROWS, 1), phx_view(x, 1, 1), rows);
    expect_failure(b, -1, "16777220 bytes of a step's arrays", "limit");
    expect_alive(b);
    test_free(rows);
    phx_backend_free(b, x);
    phx_backend_close(b);
}

struct piece {
    unsigned char *device;
    size_t         size_bytes;
    unsigned char  value;
};

static uint32_t next_random(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return *s >> 8;
}

static void expect_filled(struct phx_backend *b, const unsigned char *device, size_t n, unsigned char value)
{
    static unsigned char host[64 << 10];

    phx_download(b, host, device, n);
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(host[i], value);
}

static void pieces_of_memory_do_not_overlap_and_begin_as_zeros(void **state)
{
    static unsigned char host[64 << 10];
    struct piece         pieces[40] = {{0}};
    struct phx_backend  *b = open_device();
    uint32_t             seed = 7;

    (void)state;
    for (int round = 0; round < 2000; round++) {
        struct piece *p = &pieces[next_random(&seed) % 40];

        if (p->device != NULL) {
            expect_filled(b, p->device, p->size_bytes, p->value);
            phx_backend_free(b, p->device);
            p->device = NULL;
            continue;
        }
        p->size_bytes = 1 + next_random(&seed) % (round % 9 == 0 ? sizeof(host) : 2000);
        p->value = (unsigned char)(1 + round % 250);
        p->device = phx_backend_alloc(b, p->size_bytes);
        assert_non_null(p->device);
        assert_int_equal((uintptr_t)p->device % 256, 0);
        expect_filled(b, p->device, p->size_bytes, 0);
        memset(host, p->value, p->size_bytes);
        phx_upload(b, p->device, host, p->size_bytes);
    }
    for (int i = 0; i < 40; i++)
        phx_backend_free(b, pieces[i].device);
    assert_int_equal(emu->used_bytes, 16 * MIB); /* the ring alone */
    phx_backend_free(b, host);
    expect_failure(b, -1, "free", "not taken");
    phx_backend_close(b);
}

static void bulk_data_arrives_whole(int copy_threads, size_t copy_bytes)
{
    enum { BYTES = 23 * MIB + 5 };
    struct phx_backend *b = open_device();
    unsigned char      *host = test_calloc(BYTES, 1), *back = test_calloc(BYTES, 1), *device = phx_backend_alloc(b, BYTES);

    emu->copy_threads = copy_threads;
    emu->copy_bytes = copy_bytes;
    for (size_t i = 0; i < BYTES; i++)
        host[i] = (unsigned char)(i * 2654435761u >> 24);
    memcpy(back, host, BYTES);
    phx_upload(b, device, host, BYTES);
    memset(host, 0, BYTES); /* the host's memory is its own again */
    phx_download(b, host, device, BYTES);
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    assert_memory_equal(host, back, BYTES);
    phx_backend_free(b, device);
    test_free(host);
    test_free(back);
    phx_backend_close(b);
}

static void bulk_data_arrives_whole_by_one_thread(void **state)
{
    (void)state;
    bulk_data_arrives_whole(1, 65536);
}

static void bulk_data_arrives_whole_by_many_threads(void **state)
{
    (void)state;
    bulk_data_arrives_whole(2, 65536);
    bulk_data_arrives_whole(4, 100003);
    bulk_data_arrives_whole(3, (size_t)4 * MIB);
}

/* ---- a step's arrays -------------------------------------------------------------------------- */

static void rows_of_a_step_go_up_once(void **state)
{
    struct phx_backend *b = open_device();
    int32_t             row[2] = {0, 2}, n[2] = {2, 1}, pos[2] = {0, 3};
    struct phx_spans    spans = {2, row, n, pos, NULL, 0};
    float              *x = phx_backend_alloc(b, 64 * sizeof(float));
    struct phx_tensor   t = phx_view(x, 3, 8), table = phx_view(x, 8, 4);
    int64_t             copies;

    (void)state;
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    copies = emu->n_copies;
    phx_rope(b, t, 8, &spans, table, table);
    phx_rope(b, t, 8, &spans, table, table);
    assert_int_equal(emu->n_copies, copies + 1);
    pos[1] = 2; /* the same arrays, another step's content */
    phx_rope(b, t, 8, &spans, table, table);
    assert_int_equal(emu->n_copies, copies + 2);
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    phx_rope(b, t, 8, &spans, table, table); /* what was there before a sync is gone */
    assert_int_equal(emu->n_copies, copies + 3);
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    phx_backend_free(b, x);
    phx_backend_close(b);
}

/* What can be captured into a graph neither waits nor asks for memory. */
static void ops_neither_wait_nor_allocate(void **state)
{
    struct phx_backend      *b = open_device();
    const struct phx_kv_desc desc = {1, 2, 16, 1, 8, PHX_DTYPE_BF16};
    struct phx_kv           *kv = phx_kv_create(b, &desc);
    int32_t                  row = 0, n = 3, pos = 0, block = 1, rows[3] = {2, 1, 0};
    struct phx_spans         spans = {1, &row, &n, &pos, &block, 1};
    float                   *x = phx_backend_alloc(b, 256 * sizeof(float)), *y = x + 128;
    struct phx_tensor        t = phx_view(x, 3, 8), u = phx_view(y, 3, 8), ids = {y, PHX_DTYPE_I32, {3, 2}, 2};
    int64_t                  syncs, mallocs;

    (void)state;
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    syncs = emu->n_syncs;
    mallocs = emu->n_mallocs;
    phx_rmsnorm(b, t, t, phx_view(y, 1, 8), 1e-5f);
    phx_rope(b, t, 8, &spans, phx_view(y, 4, 4), phx_view(y, 4, 4));
    phx_kv_write(b, kv, 0, t, u, &spans);
    phx_moe_route(b, ids, phx_view(y + 16, 3, 2), t);
    phx_moe_bias(b, t, ids, phx_view(y + 16, 3, 2), phx_view(x + 64, 8, 8));
    phx_swiglu(b, phx_view(y, 3, 4), t, PHX_GLU_OAI, 7.0f);
    phx_add(b, t, u);
    phx_add_row(b, t, phx_view(y, 1, 8));
    phx_gather_rows(b, u, t, rows);
    assert_int_equal(emu->n_syncs, syncs);
    assert_int_equal(emu->n_mallocs, mallocs);
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    phx_kv_destroy(b, kv);
    phx_backend_free(b, x);
    phx_backend_close(b);
}

/* ---- launches and copies that fail ------------------------------------------------------------ */

static void a_refused_launch_fails_the_step_alone(void **state)
{
    struct phx_backend *b = open_device();
    float              *x = phx_backend_alloc(b, N * sizeof(float));

    (void)state;
    for (int i = 1; i <= 3; i++) {
        emu->fail_launch = i;
        phx_add(b, phx_view(x, 1, N), phx_view(x, 1, N));
        phx_rmsnorm(b, phx_view(x, 1, N), phx_view(x, 1, N), phx_view(x, 1, N), 1e-5f);
        phx_swiglu(b, phx_view(x, 1, 8), phx_view(x, 1, 16), PHX_GLU_SILU, 0);
        expect_failure(b, -1, i == 1 ? "add:" : i == 2 ? "rmsnorm:" : "swiglu:", "resources");
        expect_alive(b);
    }
    phx_backend_free(b, x);
    phx_backend_close(b);
}

static void a_failed_copy_fails_the_step_alone(void **state)
{
    struct phx_backend *b = open_device();
    float              *x = phx_backend_alloc(b, N * sizeof(float)), host[N] = {0};
    int32_t             rows[1] = {0};

    (void)state;
    emu->fail_copy = 1;
    phx_upload(b, x, host, sizeof(host));
    expect_failure(b, -1, "upload", "invalid argument");
    emu->fail_copy = 1;
    phx_download(b, host, x, sizeof(host));
    expect_failure(b, -1, "download", "invalid argument");
    emu->fail_copy = 1;
    phx_gather_rows(b, phx_view(x, 1, 2), phx_view(x, 1, 2), rows);
    expect_failure(b, -1, "staging", "invalid argument");
    expect_alive(b);
    phx_backend_free(b, x);
    phx_backend_close(b);
}

static void a_dead_device_is_told_as_lost(void **state)
{
    static const struct {
        int         error;
        const char *word;
    } deaths[] = {{cudaErrorECCUncorrectable, "ECC"}, {cudaErrorIllegalAddress, "illegal memory access"},
                  {cudaErrorLaunchFailure, "launch failure"}};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct phx_backend *b = open_device();
        float              *x = phx_backend_alloc(b, N * sizeof(float));

        emu->die_error = deaths[i].error;
        emu->die_at_launch = 2;
        phx_add(b, phx_view(x, 1, N), phx_view(x, 1, N));
        phx_add(b, phx_view(x, 1, N), phx_view(x, 1, N));
        expect_failure(b, PHX_SYNC_LOST, "device 0 is lost", deaths[i].word);
        phx_add(b, phx_view(x, 1, N), phx_view(x, 1, N)); /* it stays so */
        expect_failure(b, PHX_SYNC_LOST, "is lost", deaths[i].word);
        assert_null(phx_backend_alloc(b, 5 * MIB));
        expect_failure(b, PHX_SYNC_LOST, "is lost", deaths[i].word);
        phx_backend_free(b, x);
        phx_backend_close(b);
        emu->reset(); /* a new process on a repaired device */
        b = open_device();
        expect_alive(b);
        phx_backend_close(b);
    }
}

/* Two ranks of one process have devices of their own. */
static void two_backends_do_not_disturb_each_other(void **state)
{
    struct phx_backend *a = open_device(), *b = open_device();
    float              *x = phx_backend_alloc(a, N * sizeof(float));

    (void)state;
    emu->fail_launch = 1;
    phx_add(a, phx_view(x, 1, N), phx_view(x, 1, N));
    expect_alive(b);
    expect_failure(a, -1, "add", "resources");
    phx_backend_free(a, x);
    phx_backend_close(a);
    expect_alive(b);
    phx_backend_close(b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(missing_and_old_drivers_are_told, start, finish),
        cmocka_unit_test_setup_teardown(missing_and_old_devices_are_told, start, finish),
        cmocka_unit_test_setup_teardown(a_device_that_cannot_be_set_up_is_told_and_left, start, finish),
        cmocka_unit_test_setup_teardown(too_large_a_plan_is_refused_with_the_numbers, start, finish),
        cmocka_unit_test_setup_teardown(a_cache_of_bytes_is_as_large_as_the_cpus, start, finish),
        cmocka_unit_test_setup_teardown(memory_that_runs_out_in_a_step_fails_the_step_alone, start, finish),
        cmocka_unit_test_setup_teardown(too_many_rows_for_the_ring_are_refused, start, finish),
        cmocka_unit_test_setup_teardown(pieces_of_memory_do_not_overlap_and_begin_as_zeros, start, finish),
        cmocka_unit_test_setup_teardown(bulk_data_arrives_whole_by_one_thread, start, finish),
        cmocka_unit_test_setup_teardown(bulk_data_arrives_whole_by_many_threads, start, finish),
        cmocka_unit_test_setup_teardown(rows_of_a_step_go_up_once, start, finish),
        cmocka_unit_test_setup_teardown(ops_neither_wait_nor_allocate, start, finish),
        cmocka_unit_test_setup_teardown(a_refused_launch_fails_the_step_alone, start, finish),
        cmocka_unit_test_setup_teardown(a_failed_copy_fails_the_step_alone, start, finish),
        cmocka_unit_test_setup_teardown(a_dead_device_is_told_as_lost, start, finish),
        cmocka_unit_test_setup_teardown(two_backends_do_not_disturb_each_other, start, finish),
    };

    return cmocka_run_group_tests(tests, find_emulator, NULL);
}
