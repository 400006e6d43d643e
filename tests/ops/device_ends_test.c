/* SPDX-License-Identifier: Apache-2.0
 * Products that go on with their outputs, on every kind of backend: the bits of the ops that they are, one after the other. */
#include "tests/ops/rig.h"

static const int32_t counts[] = {1, 2, 3, 5, 8, 9};

enum { N_COUNTS = sizeof(counts) / sizeof(counts[0]) };

/* A stack of n_experts matrices in bf16; slices of as equal whole blocks of 32 k as there can be. */
static struct phx_weight *make_weight(struct rig *r, uint64_t seed, int32_t n, int32_t k, int32_t n_experts, int32_t n_slices)
{
    struct phx_weight_desc desc = {PHX_DTYPE_BF16, n, k, n_experts, n_slices, {0}};
    size_t                 each = (size_t)n * (size_t)k, all = each * (size_t)n_experts;
    float                 *host = take(all, sizeof(float));
    uint16_t              *bits = take(all, sizeof(*bits));
    struct phx_weight     *w;

    for (int32_t i = 0; i < n_slices; i++)
        desc.slice_end[i] = i + 1 == n_slices ? k : (i + 1) * (k / 32) / n_slices * 32;
    w = phx_weight_create(r->b, &desc);
    seed_random(seed);
    fill_random(host, all);
    for (size_t i = 0; i < all; i++) { /* cut off: exact in bf16 */
        uint32_t word;

        memcpy(&word, &host[i], sizeof(word));
        bits[i] = (uint16_t)(word >> 16);
    }
    for (int32_t e = 0; e < n_experts; e++) {
        struct phx_weight_source source = {.data = bits + (size_t)e * each, .dtype = PHX_DTYPE_BF16,
                                           .row_stride = k * (int64_t)sizeof(*bits), .k_stride = sizeof(*bits), .expert = e,
                                           .n_rows = n};

        phx_weight_pack(r->b, w, &source); /* has read the source when it returns */
    }
    drop(host);
    drop(bits);
    return w;
}

/* Every test on every backend in both arithmetics. */
static void on_all(void (*check)(struct rig *r))
{
    for (int compute = PHX_COMPUTE_F32; compute <= PHX_COMPUTE_BF16; compute++) {
        struct rig r;
        int        cursor = 0;

        while (next_rig(&r, &cursor, (enum phx_compute)compute)) {
            check(&r);
            close_rig(&r);
        }
    }
}

/* ---- rotation and cache ------------------------------------------------------------------------ */

enum { BLOCK = 16, LAYERS = 2, POSITIONS = 20 };

struct heads {
    int32_t        q, kv, dim, k;
    enum phx_dtype dtype;
};

static struct phx_tensor attend(struct rig *r, const struct phx_kv *kv, struct phx_tensor q, const struct heads *h,
                                const struct phx_spans *spans)
{
    struct phx_attention_args a = {.out = rig_rows(r, 9, q.dim[0], q.dim[1], 0), .q = q, .kv = kv, .layer = 1, .n_heads = h->q,
                                   .group = h->q / h->kv, .scale = 0.2f, .spans = spans};

    phx_attention(r->b, &a);
    return a.out;
}

/* The first rows are of one sequence, the next of another, the last one of none. */
static void check_rotation(struct rig *r, const struct heads *h, const struct phx_weight *w, int32_t rows, bool has_bias)
{
    const struct phx_kv_desc    desc = {LAYERS, 4, BLOCK, h->kv, h->dim, h->dtype};
    const int32_t               row[2] = {0, rows / 2}, n[2] = {rows / 2, rows > 2 ? rows - rows / 2 - 1 : rows - rows / 2};
    const int32_t               pos[2] = {0, 0}, table[2] = {3, 1};
    const struct phx_spans      spans = {2, row, n, pos, table, 1};
    int32_t                     q = h->q * h->dim, keys = h->kv * h->dim;
    struct phx_kv              *one = phx_kv_create(r->b, &desc), *two = phx_kv_create(r->b, &desc);
    struct phx_tensor           other = rig_rows(r, 2, rows, q + 2 * keys, 3);
    struct phx_matmul_rope_args a = {.x = rig_rows(r, 1, rows, h->k, 1), .w = w, .out = rig_rows(r, 2, rows, q + 2 * keys, 3),
                                     .kv = one, .layer = 1, .spans = &spans, .cos = rig_rows(r, 3, POSITIONS, h->dim / 2, 0),
                                     .sin = rig_rows(r, 4, POSITIONS, h->dim / 2, 1)};

    if (has_bias)
        a.bias = rig_rows(r, 5, 1, q + 2 * keys, 0);
    phx_matmul_rope_write(r->b, &a);
    phx_matmul(r->b, other, a.x, w, a.bias);
    phx_rope(r->b, phx_columns(other, 0, q + keys), h->dim, &spans, a.cos, a.sin);
    phx_kv_write(r->b, two, 1, phx_columns(other, q, keys), phx_columns(other, q + keys, keys), &spans);
    rig_expect_same(r, phx_columns(a.out, 0, q), phx_columns(other, 0, q), "queries");
    rig_expect_same(r, phx_rows(attend(r, one, phx_columns(a.out, 0, q), h, &spans), n[0] + n[1]),
                    phx_rows(attend(r, two, phx_columns(other, 0, q), h, &spans), n[0] + n[1]), "attention");
    phx_kv_destroy(r->b, one);
    phx_kv_destroy(r->b, two);
}

static void check_rotations(struct rig *r)
{
    static const struct heads all[] = {{8, 1, 64, 40, PHX_DTYPE_BF16}, {4, 2, 128, 70, PHX_DTYPE_BF16}, {6, 3, 22, 40, PHX_DTYPE_BF16},
                                       {3, 3, 8, 1100, PHX_DTYPE_F32}, {4, 2, 16, 33, PHX_DTYPE_BF16}, {5, 1, 32, 40, PHX_DTYPE_F32},
                                       {2, 1, 96, 40, PHX_DTYPE_BF16}, {8, 2, 64, 40, PHX_DTYPE_I8},
                                       {8, 2, 64, 40, PHX_DTYPE_F8_E4M3}};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++) {
        struct phx_weight *w = make_weight(r, 8, (all[i].q + 2 * all[i].kv) * all[i].dim, all[i].k, 1, 1);
        int                mark = r->n_memory;

        for (int j = 0; j < N_COUNTS; j++) {
            check_rotation(r, &all[i], w, counts[j], (i + (size_t)j) % 2 == 0);
            rig_back(r, mark);
        }
        phx_weight_destroy(r->b, w);
    }
}

static void products_rotate_and_write(void **state)
{
    (void)state;
    on_all(check_rotations);
}

/* ---- gated units ------------------------------------------------------------------------------- */

static void check_glu(struct rig *r, const struct phx_weight *w, int32_t rows, int kind)
{
    const struct phx_weight_desc *desc = phx_weight_describe(w);
    struct phx_matmul_glu_args    a = {.x = rig_rows(r, 1, rows, desc->k, 1), .w = w, .gate_up = rig_rows(r, 2, rows, desc->n, 0),
                                       .out = rig_rows(r, 3, rows, desc->n / 2, kind % 2), .limit = 2.0f,
                                       .kind = kind < 2 ? PHX_GLU_SILU : PHX_GLU_OAI};
    struct phx_tensor             other = rig_rows(r, 4, rows, desc->n / 2, 0), between = rig_rows(r, 5, rows, desc->n, 0);

    if (kind % 2 == 0)
        a.bias = rig_rows(r, 6, 1, desc->n, 0);
    phx_matmul_glu(r->b, &a);
    phx_matmul(r->b, between, a.x, w, a.bias);
    phx_swiglu(r->b, other, between, a.kind, a.limit);
    rig_expect_same(r, a.out, other, "gated units");
}

static void check_glus(struct rig *r)
{
    static const int32_t f[] = {16, 24, 48, 160}, k[] = {33, 1100, 64, 31};

    for (int i = 0; i < 4; i++) {
        struct phx_weight *w = make_weight(r, 8, 2 * f[i], k[i], 1, 1);
        int                mark = r->n_memory;

        for (int j = 0; j < N_COUNTS * 4; j++) {
            check_glu(r, w, counts[j / 4], j % 4);
            rig_back(r, mark);
        }
        phx_weight_destroy(r->b, w);
    }
}

static void products_gate(void **state)
{
    (void)state;
    on_all(check_glus);
}

/* ---- the end of a branch ----------------------------------------------------------------------- */

enum { WITH_BIAS = 1, WITH_NORM = 2, KINDS = 4 };

static struct phx_add_norm_args make_end(struct rig *r, int32_t rows, int32_t n, int kind)
{
    struct phx_add_norm_args a = {.x = rig_rows(r, 1, rows, n, kind == 0 ? 3 : 4), .y = rig_rows(r, 2, rows, n, 0), .eps = 1e-5f};

    if (kind & WITH_BIAS)
        a.bias = rig_rows(r, 3, 1, n, 0);
    if (kind & WITH_NORM) {
        a.norm = rig_rows(r, 6, rows, n, 4);
        a.gain = rig_rows(r, 7, 1, n, 0);
    }
    return a;
}

/* Twice: the second finds what the first left. */
static void check_end(struct rig *r, const struct phx_weight *w, int32_t rows, int kind)
{
    const struct phx_weight_desc *desc = phx_weight_describe(w);
    struct phx_add_norm_args      a = make_end(r, rows, desc->n, kind), b = make_end(r, rows, desc->n, kind);
    struct phx_tensor             x = rig_rows(r, 8, rows, desc->k, 1);

    for (int i = 0; i < 2; i++) {
        phx_matmul_add_norm(r->b, x, w, &a);
        phx_matmul(r->b, b.y, x, w, (struct phx_tensor){0});
        if (kind & WITH_BIAS)
            phx_add_row(r->b, b.y, b.bias);
        phx_add(r->b, b.x, b.y);
        if (kind & WITH_NORM) {
            phx_rmsnorm(r->b, b.norm, b.x, b.gain, b.eps);
            rig_expect_same(r, a.norm, b.norm, "norm");
        }
        rig_expect_same(r, a.x, b.x, "sum");
    }
}

static void check_ends(struct rig *r)
{
    static const int32_t n[] = {16, 33, 48, 1044, 2880, 4096, 4100}, k[] = {40, 64, 1100, 256, 33, 31, 64}, slices[] = {1, 1, 8, 8, 1, 1, 2};

    for (int i = 0; i < 7; i++) {
        struct phx_weight *w = make_weight(r, 8, n[i], k[i], 1, slices[i]);
        int                mark = r->n_memory;

        for (int j = 0; j < N_COUNTS * KINDS; j++)
            if (i < 3 || j % 5 == 0) {
                check_end(r, w, counts[j / KINDS], j % KINDS);
                rig_back(r, mark);
            }
        phx_weight_destroy(r->b, w);
    }
}

static void products_end_branches(void **state)
{
    (void)state;
    on_all(check_ends);
}

/* ---- mixtures ---------------------------------------------------------------------------------- */

enum { E = 40, TOP = 3, AS_END = 1, WITH_EXPERTS = 2, MIXTURES = 8 }; /* and WITH_NORM << 1 */

struct mixture {
    struct phx_weight *router, *up, *down;
};

static struct phx_weight *make_router(struct rig *r, int32_t k)
{
    const struct phx_weight_desc desc = {PHX_DTYPE_F32, E, k, 1, 1, {k}};
    struct phx_weight           *w = phx_weight_create(r->b, &desc);
    float                       *host = take((size_t)E * (size_t)k, sizeof(float));
    struct phx_weight_source     source = {.data = host, .dtype = PHX_DTYPE_F32, .row_stride = k * (int64_t)sizeof(float),
                                           .k_stride = sizeof(float), .n_rows = E};

    seed_random(8);
    fill_random(host, (size_t)E * (size_t)k);
    phx_weight_pack(r->b, w, &source);
    drop(host);
    return w;
}

static struct phx_moe_args make_experts(struct rig *r, const struct mixture *m, int32_t rows)
{
    int32_t             D = phx_weight_describe(m->down)->n, F = phx_weight_describe(m->down)->k;
    struct phx_moe_args a = {.out = rig_rows(r, 1, rows, D, 4), .x = rig_rows(r, 2, rows, D, 1), .ids = rig_rows(r, 3, rows, TOP, 2),
                             .gates = rig_rows(r, 4, rows, TOP, 1), .gate_up = m->up, .gate_up_bias = rig_rows(r, 5, E, 2 * F, 0),
                             .down = m->down, .kind = PHX_GLU_OAI, .limit = 7.0f};

    a.ids.dtype = PHX_DTYPE_I32;
    return a;
}

static struct phx_add_norm_args make_mixture_end(struct rig *r, const struct phx_moe_args *a, int kind)
{
    int32_t                  D = a->out.dim[1], rows = a->out.dim[0];
    struct phx_add_norm_args end = {.x = rig_rows(r, 11, rows, D, 4), .y = a->out, .eps = 1e-5f};

    if (kind & WITH_EXPERTS) {
        end.ids = a->ids;
        end.gates = a->gates;
        end.expert_bias = rig_rows(r, 12, E, D, 0);
    } else
        end.bias = rig_rows(r, 15, 1, D, 0);
    if (kind & WITH_NORM << 1) {
        end.norm = rig_rows(r, 13, rows, D, 4);
        end.gain = rig_rows(r, 14, 1, D, 0);
    }
    return end;
}

static void check_mixture(struct rig *r, const struct mixture *m, int32_t rows, int kind)
{
    struct phx_moe_args      a = make_experts(r, m, rows), b = make_experts(r, m, rows);
    struct phx_add_norm_args one = make_mixture_end(r, &a, kind), two = make_mixture_end(r, &b, kind);
    struct phx_tensor        logits = rig_rows(r, 6, rows, E, 1);
    struct phx_mixture_args  all = {.experts = &a, .router = m->router, .router_bias = rig_rows(r, 7, 1, E, 0),
                                    .logits = rig_rows(r, 6, rows, E, 1), .end = kind & AS_END ? &one : NULL};

    phx_moe_reserve(r->b, rows, TOP, m->up, m->down);
    for (int i = 0; i < 2; i++) { /* the second finds what the first left */
        phx_mixture(r->b, &all);
        phx_matmul(r->b, logits, b.x, m->router, all.router_bias);
        phx_moe_route(r->b, b.ids, b.gates, logits);
        phx_moe_ffn(r->b, &b);
        if (kind & AS_END)
            phx_add_norm(r->b, &two);
        rig_expect_same(r, kind & AS_END ? one.x : a.out, kind & AS_END ? two.x : b.out, "mixture");
        if (kind & AS_END && kind & WITH_NORM << 1)
            rig_expect_same(r, one.norm, two.norm, "norm");
        a.ids.dtype = b.ids.dtype = PHX_DTYPE_F32; /* equal bits are equal numbers, denormal ones too */
        rig_expect_same(r, a.ids, b.ids, "ids");
        a.ids.dtype = b.ids.dtype = PHX_DTYPE_I32;
        rig_expect_same(r, a.gates, b.gates, "gates");
    }
}

static void check_mixtures(struct rig *r)
{
    static const int32_t rows[] = {1, 2, 7, 8, 9, 16, 17, 65}, d[] = {64, 48, 72}, f[] = {48, 256, 40}, slices[] = {1, 8, 1};

    for (int i = 0; i < 3; i++) {
        struct mixture m = {make_router(r, d[i]), make_weight(r, 9, 2 * f[i], d[i], E, 1), make_weight(r, 10, d[i], f[i], E, slices[i])};
        int            mark = r->n_memory;

        for (int j = 0; j < 8 * MIXTURES; j++)
            if ((j + i) % 3 == 0) { /* each once, of one shape or another */
                check_mixture(r, &m, rows[j / MIXTURES], j % MIXTURES);
                rig_back(r, mark);
            }
        phx_weight_destroy(r->b, m.router);
        phx_weight_destroy(r->b, m.up);
        phx_weight_destroy(r->b, m.down);
    }
}

static void mixtures_are_their_parts(void **state)
{
    (void)state;
    on_all(check_mixtures);
}

const struct CMUnitTest device_ends_tests[] = {
    cmocka_unit_test(products_rotate_and_write),
    cmocka_unit_test(products_gate),
    cmocka_unit_test(products_end_branches),
    cmocka_unit_test(mixtures_are_their_parts),
};
const size_t n_device_ends_tests = sizeof(device_ends_tests) / sizeof(device_ends_tests[0]);
