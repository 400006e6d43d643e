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

enum { T = 5, D = 64, HEADS = 4, KV_HEADS = 2, DIM = 16, F = 32, E = 3, TOP = 2, V = 40, BLOCKS = 4, BEST = 4 };

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

struct model {
    struct phx_backend *b;
    struct phx_weight  *table, *q, *kv_proj, *router, *up, *down, *head;
    struct phx_kv      *kv;
    float              *memory;
    struct phx_tensor   x, norm, gain, query, key, value, attn, logits, gates, ids, mixed, scores, cos, sin, best, lse, best_ids;
};

static float next_float(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return (float)(int32_t)(*s >> 8 & 0xffffu) / 65536.0f - 0.5f;
}

static struct phx_weight *make_weight(struct phx_backend *b, enum phx_dtype dtype, int32_t n, int32_t k, int32_t n_experts,
                                      int32_t n_slices)
{
    struct phx_weight_desc   d = {dtype, n, k, n_experts, n_slices, {0}};
    static uint16_t          data[128 * 64];
    static uint8_t           scale[128 * 4];
    struct phx_weight_source s = {.data = data, .dtype = dtype, .k_stride = 2, .scale = scale, .n_rows = n,
                                  .row_stride = dtype == PHX_DTYPE_MXFP4 ? k / 2 : 2 * k, .scale_row_stride = k / 32};
    struct phx_weight       *w;
    uint32_t                 seed = (uint32_t)(n * 31 + k);

    for (int32_t i = 0; i < n_slices; i++)
        d.slice_end[i] = k / 32 * (i + 1) / n_slices * 32;
    for (size_t i = 0; i < sizeof(scale); i++)
        scale[i] = 124;
    w = phx_weight_create(b, &d);
    for (int32_t e = 0; e < n_experts && w != NULL; e++) {
        for (size_t i = 0; i < sizeof(data) / sizeof(data[0]); i++) {
            float    f = next_float(&seed);
            uint32_t bits;

            memcpy(&bits, &f, sizeof(bits));
            data[i] = (uint16_t)(bits >> 16);
        }
        s.expert = e;
        phx_weight_pack(b, w, &s);
    }
    return w;
}

static struct phx_tensor cut(float **at, int32_t rows, int32_t n)
{
    struct phx_tensor t = phx_view(*at, rows, n);

    *at += (size_t)rows * (size_t)n;
    return t;
}

static void place_tensors(struct model *m)
{
    float *at = m->memory;

    m->x = cut(&at, T, D);
    m->norm = cut(&at, T, D);
    m->gain = cut(&at, 1, D);
    m->query = cut(&at, T, HEADS * DIM);
    m->key = cut(&at, T, 2 * KV_HEADS * DIM);
    m->value = phx_columns(m->key, KV_HEADS * DIM, KV_HEADS * DIM);
    m->attn = cut(&at, T, HEADS * DIM);
    m->logits = cut(&at, T, E);
    m->gates = cut(&at, T, TOP);
    m->ids = cut(&at, T, TOP);
    m->mixed = cut(&at, T, D);
    m->scores = cut(&at, 2, V);
    m->cos = cut(&at, 16, DIM / 2);
    m->sin = cut(&at, 16, DIM / 2);
    m->best = cut(&at, 2, BEST);
    m->best_ids = cut(&at, 2, BEST);
    m->lse = cut(&at, 2, 1);
    m->ids.dtype = m->best_ids.dtype = PHX_DTYPE_I32;
}

/* False when something is short; close_model() either way. */
static bool open_model(struct model *m)
{
    const struct phx_backend_options options = {.compute = PHX_COMPUTE_BF16};
    const struct phx_kv_desc         kv = {1, BLOCKS, 16, KV_HEADS, DIM, PHX_DTYPE_BF16};
    float                            host[8192];
    char                             why[240] = "";
    uint32_t                         seed = 5;

    memset(m, 0, sizeof(*m));
    m->b = phx_backend_open("cuda", &options, why, sizeof(why));
    if (m->b == NULL)
        return false;
    m->table = make_weight(m->b, PHX_DTYPE_BF16, V, D, 1, 1);
    m->q = make_weight(m->b, PHX_DTYPE_BF16, HEADS * DIM, D, 1, 1);
    m->kv_proj = make_weight(m->b, PHX_DTYPE_F16, 2 * KV_HEADS * DIM, D, 1, 1);
    m->router = make_weight(m->b, PHX_DTYPE_F16, E, D, 1, 1);
    m->up = make_weight(m->b, PHX_DTYPE_MXFP4, 2 * F, D, E, 1);
    m->down = make_weight(m->b, PHX_DTYPE_MXFP4, D, F, E, 1);
    m->head = make_weight(m->b, PHX_DTYPE_BF16, V, D, 1, 2);
    m->kv = phx_kv_create(m->b, &kv);
    m->memory = phx_backend_alloc(m->b, sizeof(host));
    if (m->memory == NULL || m->kv == NULL || m->head == NULL || m->down == NULL || m->up == NULL)
        return false;
    phx_moe_reserve(m->b, T, TOP, m->up, m->down);
    for (size_t i = 0; i < sizeof(host) / sizeof(host[0]); i++)
        host[i] = next_float(&seed);
    phx_upload(m->b, m->memory, host, sizeof(host));
    place_tensors(m);
    return phx_backend_sync(m->b, NULL) == 0;
}

static void close_model(struct model *m)
{
    if (m->b == NULL)
        return;
    phx_weight_destroy(m->b, m->table);
    phx_weight_destroy(m->b, m->q);
    phx_weight_destroy(m->b, m->kv_proj);
    phx_weight_destroy(m->b, m->router);
    phx_weight_destroy(m->b, m->up);
    phx_weight_destroy(m->b, m->down);
    phx_weight_destroy(m->b, m->head);
    phx_kv_destroy(m->b, m->kv);
    phx_backend_free(m->b, m->memory);
    phx_backend_close(m->b);
}

/* A prompt of four tokens beside a decode; no result is fetched. */
static void run_step(struct model *m)
{
    static const int32_t row[2] = {0, 4}, n[2] = {4, 1}, pos[2] = {0, 9}, table[2] = {2, 1}, tokens[T] = {7, 3, 39, 12, 5};
    static const int32_t last[2] = {3, 4};
    const struct phx_spans spans = {2, row, n, pos, table, 1};
    struct phx_tensor      none = {0}, key = phx_columns(m->key, 0, KV_HEADS * DIM);
    struct phx_attention_args attention = {.out = m->attn, .q = m->query, .kv = m->kv, .n_heads = HEADS,
                                           .group = HEADS / KV_HEADS, .scale = 0.25f, .spans = &spans};
    struct phx_moe_args moe = {.out = m->mixed, .x = m->norm, .ids = m->ids, .gates = m->gates, .gate_up = m->up,
                               .down = m->down, .kind = PHX_GLU_OAI, .limit = 7};

    phx_embed(m->b, m->x, tokens, m->table, 0);
    phx_rmsnorm(m->b, m->norm, m->x, m->gain, 1e-5f);
    phx_matmul(m->b, m->query, m->norm, m->q, none);
    phx_matmul(m->b, m->key, m->norm, m->kv_proj, none);
    phx_rope(m->b, m->query, DIM, &spans, m->cos, m->sin);
    phx_rope(m->b, key, DIM, &spans, m->cos, m->sin);
    phx_kv_write(m->b, m->kv, 0, key, m->value, &spans);
    phx_attention(m->b, &attention);
    phx_add(m->b, m->x, m->attn);
    phx_matmul(m->b, m->logits, m->norm, m->router, none);
    phx_moe_route(m->b, m->ids, m->gates, m->logits);
    phx_moe_ffn(m->b, &moe);
    phx_moe_bias(m->b, m->mixed, m->ids, m->gates, phx_view(m->cos.data, E, D));
    phx_add(m->b, m->x, m->mixed);
    phx_add_row(m->b, m->x, m->gain);
    phx_gather_rows(m->b, phx_rows(m->norm, 2), m->x, last);
    phx_matmul(m->b, m->scores, phx_rows(m->norm, 2), m->head, none);
    phx_top(m->b, m->best_ids, m->best, m->lse, m->scores);
}

struct answer {
    float   scores[2 * V], best[2 * BEST], lse[2];
    int32_t ids[2 * BEST];
};

/* The step's sync; the answer when it went well. */
static int read_step(struct model *m, struct answer *a, const char **what)
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

static void expect_step(struct model *m, const struct answer *want)
{
    struct answer got;
    const char   *what = "";

    memset(&got, 0, sizeof(got));
    run_step(m);
    if (read_step(m, &got, &what) != 0)
        fail_msg("%s", what);
    assert_memory_equal(&got, want, sizeof(got));
}

static void first_step(struct model *m, struct answer *a)
{
    const char *what = "";

    memset(a, 0, sizeof(*a));
    assert_true(open_model(m));
    run_step(m);
    if (read_step(m, a, &what) != 0)
        fail_msg("%s", what);
    for (int i = 0; i < 2 * V; i++)
        assert_true(a->scores[i] == a->scores[i]); /* no NaN */
    assert_true(a->ids[0] >= 0 && a->ids[0] < V && a->best[0] >= a->best[1]);
}

static void a_second_step_neither_waits_nor_allocates(void **state)
{
    struct model  m;
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
    close_model(&m);
}

static void any_launch_may_be_refused(void **state)
{
    struct model  m;
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
    close_model(&m);
}

static void any_copy_may_fail(void **state)
{
    struct model  m;
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
    close_model(&m);
}

static void any_allocation_may_fail(void **state)
{
    struct model  m;
    struct answer a, again;
    int64_t       mallocs;

    (void)state;
    emu->n_mallocs = 0;
    first_step(&m, &a);
    mallocs = emu->n_mallocs;
    close_model(&m);
    for (int i = 1; i <= (int)mallocs; i++) {
        bool is_open;

        memset(&again, 0, sizeof(again));
        emu->fail_malloc = i;
        is_open = open_model(&m);
        if (is_open && emu->fail_malloc > 0) { /* it will be the step's */
            run_step(&m);
            assert_int_equal(emu->fail_malloc, 0);
            assert_int_equal(phx_backend_sync(m.b, NULL), -1);
        }
        if (is_open)
            expect_step(&m, &a);
        close_model(&m);
        emu->fail_malloc = 0;
        assert_int_equal(emu->used_bytes, 0);
    }
}

static void a_device_may_die_anywhere(void **state)
{
    struct model  m;
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
        close_model(&m);
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
