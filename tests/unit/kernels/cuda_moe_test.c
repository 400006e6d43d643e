/* SPDX-License-Identifier: Apache-2.0
 * The experts of a mixture on the emulated CUDA device: what steps may not do, what is refused, and class B. */
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

enum { ROWS = 40, E = 4, TOP = 2, D = 64, F = 128, N_SLICES = 4 };

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
    return 0;
}

static float make_number(size_t i) /* of about 1 */
{
    return (float)((i * 2654435761u >> 8) % 2001) / 1000.0f - 1.0f;
}

/* A mixture with its activations on the device; the host arrays are read by uploads and packing only. */
struct setting {
    struct phx_backend *b;
    struct phx_moe_args args;
    void               *memory[5];
};

static struct phx_weight *pack(struct phx_backend *b, struct phx_weight_desc desc)
{
    static uint16_t    data[2 * F * D];
    struct phx_weight *w = phx_weight_create(b, &desc);

    assert_non_null(w);
    for (int32_t e = 0; e < desc.n_experts; e++) {
        struct phx_weight_source source = {.data = data, .dtype = PHX_DTYPE_BF16, .row_stride = desc.k * 2,
                                           .k_stride = 2, .expert = e, .n_rows = desc.n};

        for (size_t i = 0; i < (size_t)desc.n * (size_t)desc.k; i++) {
            float    f = make_number(i * 7 + (size_t)e + (size_t)desc.n) * 0.25f;
            uint32_t bits;

            memcpy(&bits, &f, sizeof(bits));
            data[i] = (uint16_t)(bits >> 16);
        }
        phx_weight_pack(b, w, &source);
    }
    return w;
}

static void *put(struct setting *s, int at, const void *host, size_t size_bytes)
{
    s->memory[at] = phx_backend_alloc(s->b, size_bytes);
    assert_non_null(s->memory[at]);
    phx_upload(s->b, s->memory[at], host, size_bytes);
    return s->memory[at];
}

static struct setting open_setting(bool is_fast)
{
    struct phx_backend_options options = {.compute = PHX_COMPUTE_BF16, .is_fast = is_fast};
    struct phx_weight_desc     up = {PHX_DTYPE_BF16, 2 * F, D, E, 1, {D}}, down = {PHX_DTYPE_BF16, D, F, E, N_SLICES, {0}};
    struct setting             s = {0};
    char                       why[240] = "";
    float                      x[ROWS * D], gates[ROWS * TOP];
    int32_t                    ids[ROWS * TOP];

    for (int32_t i = 0; i < N_SLICES; i++)
        down.slice_end[i] = F / N_SLICES * (i + 1);
    for (size_t i = 0; i < ROWS * D; i++)
        x[i] = make_number(i);
    for (int32_t i = 0; i < ROWS * TOP; i++) {
        ids[i] = (i / TOP + i % TOP) % E;
        gates[i] = i % 2 == 0 ? 0.7f : 0.3f;
    }
    s.b = phx_backend_open("cuda", &options, why, sizeof(why));
    if (s.b == NULL)
        fail_msg("%s", why);
    s.args = (struct phx_moe_args){.out = phx_view(put(&s, 0, x, sizeof(x)), ROWS, D),
                                   .x = phx_view(put(&s, 1, x, sizeof(x)), ROWS, D),
                                   .ids = {put(&s, 2, ids, sizeof(ids)), PHX_DTYPE_I32, {ROWS, TOP}, TOP},
                                   .gates = phx_view(put(&s, 3, gates, sizeof(gates)), ROWS, TOP),
                                   .gate_up = pack(s.b, up), .down = pack(s.b, down), .kind = PHX_GLU_OAI,
                                   .limit = 7.0f};
    assert_int_equal(phx_backend_sync(s.b, NULL), 0);
    return s;
}

static void close_setting(struct setting *s)
{
    phx_weight_destroy(s->b, (struct phx_weight *)(uintptr_t)s->args.gate_up);
    phx_weight_destroy(s->b, (struct phx_weight *)(uintptr_t)s->args.down);
    for (int i = 0; i < 5; i++)
        phx_backend_free(s->b, s->memory[i]);
    phx_backend_close(s->b);
}

/* The first n rows. */
static void run(const struct setting *s, int32_t n)
{
    struct phx_moe_args args = s->args;

    args.out = phx_rows(args.out, n);
    args.x = phx_rows(args.x, n);
    args.ids = phx_rows(args.ids, n);
    args.gates = phx_rows(args.gates, n);
    phx_moe_ffn(s->b, &args);
}

static void expect_failure(struct phx_backend *b, const char *word, const char *other)
{
    const char *what = "";

    assert_int_equal(phx_backend_sync(b, &what), -1);
    if (strstr(what, word) == NULL || strstr(what, other) == NULL)
        fail_msg("expected %s ... %s, got %s", word, other, what);
}

static void reserved_steps_take_no_memory(void **state)
{
    struct setting s = open_setting(false);
    int64_t        before;

    (void)state;
    phx_moe_reserve(s.b, ROWS, TOP, s.args.gate_up, s.args.down);
    before = emu->n_mallocs;
    for (int32_t n = 0; n <= ROWS; n++)
        run(&s, n);
    assert_int_equal(phx_backend_sync(s.b, NULL), 0);
    assert_int_equal(emu->n_mallocs, before);
    close_setting(&s);
}

static void scratch_that_does_not_fit_is_told(void **state)
{
    struct setting s = open_setting(false);

    (void)state;
    emu->memory_bytes = emu->used_bytes + (1 << 20);
    phx_moe_reserve(s.b, 1 << 20, TOP, s.args.gate_up, s.args.down);
    expect_failure(s.b, "scratch", "memory");
    run(&s, 3);
    assert_int_equal(phx_backend_sync(s.b, NULL), 0);
    close_setting(&s);
}

static void refused_launches_fail_the_step_alone(void **state)
{
    struct setting s = open_setting(false);
    int64_t        before = emu->n_launches;
    int            n;

    (void)state;
    run(&s, ROWS);
    assert_int_equal(phx_backend_sync(s.b, NULL), 0);
    n = (int)(emu->n_launches - before);
    assert_in_range(n, 4, 6);
    for (int i = 1; i <= n; i++) {
        emu->fail_launch = i;
        run(&s, ROWS);
        expect_failure(s.b, "moe_ffn", "");
        assert_int_equal(emu->fail_launch, 0);
        run(&s, ROWS);
        assert_int_equal(phx_backend_sync(s.b, NULL), 0);
    }
    close_setting(&s);
}

/* Joining slices before they are weighted moves roundings, nothing else. */
static void class_b_is_near_class_a(void **state)
{
    static float   out[2][ROWS * D];
    int64_t        n_equal = 0;

    (void)state;
    for (int i = 0; i < 2; i++) {
        struct setting s = open_setting(i == 1);

        run(&s, ROWS);
        phx_download(s.b, out[i], s.args.out.data, sizeof(out[i]));
        assert_int_equal(phx_backend_sync(s.b, NULL), 0);
        close_setting(&s);
    }
    for (int i = 0; i < ROWS * D; i++) {
        assert_true(fabsf(out[0][i] - out[1][i]) <= 1e-5f * (1 + fabsf(out[0][i])));
        n_equal += out[0][i] == out[1][i] ? 1 : 0;
    }
    assert_true(n_equal < ROWS * D);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(reserved_steps_take_no_memory, start, finish),
        cmocka_unit_test_setup_teardown(scratch_that_does_not_fit_is_told, start, finish),
        cmocka_unit_test_setup_teardown(refused_launches_fail_the_step_alone, start, finish),
        cmocka_unit_test_setup_teardown(class_b_is_near_class_a, start, finish),
    };

    return cmocka_run_group_tests_name("moe on the emulated device", tests, find_emulator, NULL);
}
