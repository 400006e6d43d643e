/* SPDX-License-Identifier: Apache-2.0
 * Ops that are others in one, on every kind of backend: the bits of those one after the other. */
#include "tests/ops/rig.h"

/* ---- the end of a branch ---------------------------------------------------------------------- */

enum { EXPERTS = 5, TOP = 3, WITH_BIAS = 1, WITH_EXPERTS = 2, WITH_NORM = 4, KINDS = 8 };

static struct phx_add_norm_args make_end(struct rig *r, int32_t rows, int32_t n, int32_t gap, int kind, int32_t wrong)
{
    struct phx_add_norm_args a = {.x = rig_rows(r, 1, rows, n, gap), .y = rig_rows(r, 2, rows, n, gap), .eps = 1e-5f};
    int32_t                 *ids = take((size_t)rows * TOP, sizeof(int32_t));

    for (int32_t i = 0; i < rows * TOP; i++)
        ids[i] = (i * 7 + i / TOP) % EXPERTS;
    ids[rows * TOP - 1] += wrong;
    if (kind & WITH_BIAS)
        a.bias = rig_rows(r, 3, 1, n, gap);
    if (kind & WITH_EXPERTS) {
        a.ids = phx_view(rig_put(r, ids, (size_t)rows * TOP * sizeof(int32_t)), rows, TOP);
        a.ids.dtype = PHX_DTYPE_I32;
        a.gates = rig_rows(r, 4, rows, TOP, gap);
        a.expert_bias = rig_rows(r, 5, EXPERTS, n, gap);
    }
    if (kind & WITH_NORM) {
        a.norm = rig_rows(r, 6, rows, n, gap);
        a.gain = rig_rows(r, 7, 1, n, gap);
    }
    drop(ids);
    return a;
}

static void check_end(struct rig *r, int32_t rows, int32_t n, int32_t gap, int kind)
{
    struct phx_add_norm_args a = make_end(r, rows, n, gap, kind, 0), b = make_end(r, rows, n, gap, kind, 0);

    phx_add_norm(r->b, &a);
    if (kind & WITH_EXPERTS)
        phx_moe_bias(r->b, b.y, b.ids, b.gates, b.expert_bias);
    if (kind & WITH_BIAS)
        phx_add_row(r->b, b.y, b.bias);
    phx_add(r->b, b.x, b.y);
    if (kind & WITH_NORM) {
        phx_rmsnorm(r->b, b.norm, b.x, b.gain, b.eps);
        rig_expect_same(r, a.norm, b.norm, "norm");
    }
    rig_expect_same(r, a.x, b.x, "sum");
}

static void the_end_of_a_branch_is_its_parts(void **state)
{
    static const int32_t counts[] = {1, 2, 17}, widths[] = {1, 7, 33, 128, 1030, 2880};
    struct rig           r;
    int                  cursor = 0;

    (void)state;
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        for (int kind = 0; kind < KINDS; kind++)
            for (int i = 0; i < 18; i++) {
                check_end(&r, counts[i % 3], widths[i / 3], (i + kind) % 3 == 0 ? 0 : (i + kind) % 3 == 1 ? 3 : 4, kind);
                rig_back(&r, 0);
            }
        close_rig(&r);
    }
}

static void wrong_experts_and_shapes_are_refused(void **state)
{
    struct rig r;
    int        cursor = 0;

    (void)state;
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        struct phx_add_norm_args a = make_end(&r, 3, 33, 0, KINDS - 1, EXPERTS);
        const char              *what = "";

        phx_add_norm(r.b, &a);
        assert_int_equal(phx_backend_sync(r.b, &what), -1);
        assert_non_null(strstr(what, "expert id is out of range"));
        a = make_end(&r, 3, 33, 0, KINDS - 1, 0);
        a.gain = phx_columns(a.gain, 0, 32);
        phx_add_norm(r.b, &a);
        assert_int_equal(phx_backend_sync(r.b, &what), -1);
        assert_non_null(strstr(what, "add_norm: gain"));
        close_rig(&r);
    }
}

/* ---- experts that are chosen where they are used ----------------------------------------------- */

enum { E = 40, D = 64, F = 48, BEST = 4 };

static struct phx_weight *make_experts(struct rig *r, uint64_t seed, int32_t n, int32_t k)
{
    const struct phx_weight_desc desc = {PHX_DTYPE_BF16, n, k, E, 1, {k}};
    struct phx_weight           *w = phx_weight_create(r->b, &desc);
    size_t                       each = (size_t)n * (size_t)k;
    float                       *host = take(E * each, sizeof(float));
    uint16_t                    *bits = take(E * each, sizeof(*bits));

    seed_random(seed);
    fill_random(host, E * each);
    for (size_t i = 0; i < E * each; i++) { /* cut off: exact in bf16 */
        uint32_t word;

        memcpy(&word, &host[i], sizeof(word));
        bits[i] = (uint16_t)(word >> 16);
    }
    for (int32_t e = 0; e < E; e++) {
        struct phx_weight_source source = {.data = bits + (size_t)e * each, .dtype = PHX_DTYPE_BF16,
                                           .row_stride = k * (int64_t)sizeof(*bits), .k_stride = sizeof(*bits), .expert = e,
                                           .n_rows = n};

        phx_weight_pack(r->b, w, &source); /* has read the source when it returns */
    }
    drop(host);
    drop(bits);
    return w;
}

static struct phx_moe_args make_choice(struct rig *r, int32_t rows, const struct phx_weight *up, const struct phx_weight *down)
{
    struct phx_moe_args a = {.out = rig_rows(r, 1, rows, D, 3), .x = rig_rows(r, 2, rows, D, 1),
                             .ids = rig_rows(r, 3, rows, BEST, 2), .gates = rig_rows(r, 4, rows, BEST, 1),
                             .gate_up = up, .gate_up_bias = rig_rows(r, 5, E, 2 * F, 0), .down = down,
                             .kind = PHX_GLU_OAI, .limit = 7.0f};

    a.ids.dtype = PHX_DTYPE_I32;
    return a;
}

static void check_choice(struct rig *r, int32_t rows, const struct phx_weight *up, const struct phx_weight *down)
{
    struct phx_moe_args a = make_choice(r, rows, up, down), b = make_choice(r, rows, up, down);
    struct phx_tensor   logits = rig_rows(r, 6, rows, E, 1);

    phx_moe_reserve(r->b, rows, BEST, up, down);
    phx_moe_route_ffn(r->b, &a, logits);
    phx_moe_route(r->b, b.ids, b.gates, logits);
    phx_moe_ffn(r->b, &b);
    a.ids.dtype = b.ids.dtype = PHX_DTYPE_F32; /* equal bits are equal numbers, denormal ones too */
    rig_expect_same(r, a.ids, b.ids, "ids");
    rig_expect_same(r, a.gates, b.gates, "gates");
    rig_expect_same(r, a.out, b.out, "mixture");
}

/* As streamed products, few rows and too many to choose for in one block; and as others. */
static void experts_are_chosen_where_they_are_used(void **state)
{
    static const int32_t counts[] = {1, 2, 7, 33, 64, 65, 130};
    struct rig           r;
    int                  cursor = 0;

    (void)state;
    for (int compute = PHX_COMPUTE_F32; compute <= PHX_COMPUTE_BF16; compute++) {
        cursor = 0;
        while (next_rig(&r, &cursor, (enum phx_compute)compute)) {
            struct phx_weight *up = make_experts(&r, 8, 2 * F, D), *down = make_experts(&r, 9, D, F);
            int                mark = r.n_memory;

            for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
                check_choice(&r, counts[i], up, down);
                rig_back(&r, mark);
            }
            phx_weight_destroy(r.b, up);
            phx_weight_destroy(r.b, down);
            close_rig(&r);
        }
    }
}

/* ---- rotated keys to the cache ---------------------------------------------------------------- */

enum { SEQS = 3, ROWS = 14, POSITIONS = 40, BLOCK = 16, STRIDE = 3, LAYERS = 2 };

static const int32_t seq_row[SEQS] = {0, 9, 10}, seq_rows[SEQS] = {9, 1, 4}, seq_pos[SEQS] = {0, 0, 0};
static const int32_t table[SEQS * STRIDE] = {5, 0, 0, 2, 0, 0, 7, 0, 0};

static struct phx_tensor attend(struct rig *r, const struct phx_kv *kv, struct phx_tensor q, int32_t heads, int32_t kv_heads,
                                const struct phx_spans *spans)
{
    struct phx_attention_args a = {.out = rig_rows(r, 9, ROWS, q.dim[1], 0), .q = q, .kv = kv, .layer = 1, .n_heads = heads,
                                   .group = heads / kv_heads, .scale = 0.2f, .spans = spans};

    phx_attention(r->b, &a);
    return a.out;
}

/* Keys and values are read by attention, each row its own position last. */
static void check_write(struct rig *r, int32_t heads, int32_t kv_heads, int32_t dim, enum phx_dtype dtype)
{
    const struct phx_kv_desc desc = {LAYERS, 8, BLOCK, kv_heads, dim, dtype};
    const struct phx_spans   spans = {SEQS, seq_row, seq_rows, seq_pos, table, STRIDE};
    int32_t                  q = heads * dim, k = kv_heads * dim;
    struct phx_kv           *one = phx_kv_create(r->b, &desc), *two = phx_kv_create(r->b, &desc);
    struct phx_tensor        a = rig_rows(r, 1, ROWS, q + 2 * k, 0), b = rig_rows(r, 1, ROWS, q + 2 * k, 0);
    struct phx_tensor        cos = rig_rows(r, 2, POSITIONS, dim / 2, 0), sin = rig_rows(r, 3, POSITIONS, dim / 2, 1);

    phx_rope_write(r->b, phx_columns(a, 0, q + k), one, 1, phx_columns(a, q + k, k), &spans, cos, sin);
    phx_rope(r->b, phx_columns(b, 0, q + k), dim, &spans, cos, sin);
    phx_kv_write(r->b, two, 1, phx_columns(b, q, k), phx_columns(b, q + k, k), &spans);
    rig_expect_same(r, phx_columns(a, 0, q), phx_columns(b, 0, q), "queries");
    rig_expect_same(r, attend(r, one, phx_columns(a, 0, q), heads, kv_heads, &spans),
                     attend(r, two, phx_columns(b, 0, q), heads, kv_heads, &spans), "attention");
    phx_kv_destroy(r->b, one);
    phx_kv_destroy(r->b, two);
}

static void keys_are_rotated_on_their_way_to_the_cache(void **state)
{
    struct rig r;
    int        cursor = 0;

    (void)state;
    while (next_rig(&r, &cursor, PHX_COMPUTE_BF16)) {
        check_write(&r, 8, 1, 64, PHX_DTYPE_BF16);
        check_write(&r, 4, 2, 128, PHX_DTYPE_BF16);
        check_write(&r, 6, 3, 22, PHX_DTYPE_BF16);
        check_write(&r, 4, 4, 64, PHX_DTYPE_F32);
        check_write(&r, 8, 2, 64, PHX_DTYPE_I8);
        check_write(&r, 4, 2, 128, PHX_DTYPE_I8);
        check_write(&r, 3, 1, 300, PHX_DTYPE_I8);
        check_write(&r, 8, 2, 64, PHX_DTYPE_F8_E4M3);
        check_write(&r, 3, 1, 300, PHX_DTYPE_F8_E4M3);
        close_rig(&r);
    }
}

static void wrong_writes_are_refused(void **state)
{
    struct rig r;
    int        cursor = 0;

    (void)state;
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        const struct phx_kv_desc desc = {LAYERS, 8, BLOCK, 2, 8, PHX_DTYPE_F32};
        const struct phx_spans   spans = {SEQS, seq_row, seq_rows, seq_pos, table, STRIDE};
        struct phx_kv           *kv = phx_kv_create(r.b, &desc);
        struct phx_tensor        x = rig_rows(&r, 1, ROWS, 32, 0), v = rig_rows(&r, 1, ROWS, 16, 0);
        struct phx_tensor        cos = rig_rows(&r, 2, POSITIONS, 4, 0), few = rig_rows(&r, 2, 5, 4, 0);
        const char              *words[] = {"rope_write: layer 2", "rope_write: 8 columns", "rope_write: position"};
        const char              *what = "";

        for (int i = 0; i < 3; i++) {
            phx_rope_write(r.b, i == 1 ? phx_columns(x, 0, 8) : x, kv, i == 0 ? LAYERS : 0, v, &spans, i == 2 ? few : cos,
                           i == 2 ? few : cos);
            assert_int_equal(phx_backend_sync(r.b, &what), -1);
            if (r.is_cuda || i == 1) /* where it is its parts, they say it */
                assert_non_null(strstr(what, words[i]));
        }
        phx_kv_destroy(r.b, kv);
        close_rig(&r);
    }
}

const struct CMUnitTest device_fused_tests[] = {
    cmocka_unit_test(the_end_of_a_branch_is_its_parts),
    cmocka_unit_test(wrong_experts_and_shapes_are_refused),
    cmocka_unit_test(experts_are_chosen_where_they_are_used),
    cmocka_unit_test(keys_are_rotated_on_their_way_to_the_cache),
    cmocka_unit_test(wrong_writes_are_refused),
};
const size_t n_device_fused_tests = sizeof(device_fused_tests) / sizeof(device_fused_tests[0]);
