/* SPDX-License-Identifier: Apache-2.0
 * Where paths like to differ: NaN, infinities, denormals and signed zeros, odd sizes, empty slices, every
 * source dtype, many experts, and batches of unlike sequences. */
#include <math.h>
#include <stdio.h>

#include "tests/ops/support.h"

/* The same bits, or both NaN: which NaN comes out is the processor's choice. */
static void expect_same(const float *want, const float *got, size_t n, const char *what,
                        const struct phx_backend *b)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&want[i], &got[i], sizeof(float)) != 0 && !(isnan(want[i]) && isnan(got[i])))
            fail_msg("%s, %s: output %zu is %a, of the reference %a", what, backend_label(b), i,
                     (double)got[i], (double)want[i]);
}

static float strange_float(void)
{
    static const float strange[] = {0.0f,     -0.0f,    INFINITY, -INFINITY, NAN,     0x1p-149f,
                                    0x1p-127f, 0x1.8p-130f, 3e38f, -3e38f,    88.5f,   -87.5f,
                                    -104.0f,  1.0f,     0x1p-24f, 65504.0f};

    return random_u32() % 8 == 0 ? strange[random_u32() % 16] : random_float();
}

/* ---- products of strange numbers and sizes ---------------------------------------------------- */

static void fill_source(unsigned char *source, uint8_t *scale, enum phx_dtype dtype, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        float    f = strange_float();
        uint32_t bits;

        memcpy(&bits, &f, sizeof(bits));
        if (dtype == PHX_DTYPE_F32)
            memcpy(source + 4 * i, &f, 4);
        else { /* any bits are a number of a 16-bit or a 4-bit kind */
            uint16_t h = dtype == PHX_DTYPE_F16 ? (uint16_t)random_u32() : (uint16_t)(bits >> 16);

            memcpy(source + 2 * i, &h, 2);
        }
    }
    for (size_t i = 0; i < n / PHX_MX_BLOCK; i++)
        scale[i] = random_u32() % 6 == 0 ? (random_u32() % 2 == 0 ? 0 : 255) : (uint8_t)random_u32();
}

static void run_matmul(struct phx_backend *b, const struct phx_weight_desc *d,
                       const unsigned char *source, const uint8_t *scale, float *x, int32_t rows,
                       float *out)
{
    struct phx_weight_source s = {.data = source + 1, /* unaligned */
                                  .dtype = d->dtype, .n_rows = d->n, .scale = scale,
                                  .scale_row_stride = d->k / PHX_MX_BLOCK};
    struct phx_weight       *w = phx_weight_create(b, d);
    struct phx_tensor        none = {0};

    expect_ok(b);
    s.k_stride = d->dtype == PHX_DTYPE_F32 ? 4 : 2;
    s.row_stride = d->dtype == PHX_DTYPE_MXFP4 ? d->k / 2 : d->k * s.k_stride;
    phx_weight_pack(b, w, &s);
    phx_matmul(b, phx_view(out, rows, d->n), phx_view(x, rows, d->k), w, none);
    expect_ok(b);
    phx_weight_destroy(b, w);
}

static void strange_products_are_equal_on_every_path(void **state)
{
    /* odd k in every slice, empty slices at both ends and inside, one output, no k at all */
    static const struct phx_weight_desc shapes[] = {
        {PHX_DTYPE_BF16, 1, 7, 1, 3, {3, 3, 7}},
        {PHX_DTYPE_BF16, 150, 61, 1, 8, {0, 0, 5, 20, 20, 31, 61, 61}},
        {PHX_DTYPE_BF16, 33, 1, 1, 1, {1}},
        {PHX_DTYPE_BF16, 5, 0, 1, 1, {0}},
        {PHX_DTYPE_F32, 79, 45, 1, 5, {9, 18, 27, 36, 45}},
        {PHX_DTYPE_F32, 64, 3, 1, 7, {0, 1, 1, 2, 2, 3, 3}},
        {PHX_DTYPE_F16, 81, 37, 1, 6, {1, 8, 8, 15, 30, 37}},
        {PHX_DTYPE_F16, 16, 1, 1, 1, {1}},
        {PHX_DTYPE_MXFP4, 97, 160, 1, 8, {0, 32, 32, 64, 96, 128, 160, 160}},
        {PHX_DTYPE_MXFP4, 15, 32, 1, 2, {0, 32}},
    };
    static const int32_t rows[] = {1, 2, 3, 5, 6, 7, 8, 9, 10, 11, 12, 19};
    unsigned char       *source = take(1, 150 * 64 * 4 + 64);
    uint8_t             *scale = take(1, 97 * 5 + 8);
    float               *x = take(19 * 160, sizeof(float));
    float               *ref = take(19 * 150, sizeof(float)), *out = take(19 * 150, sizeof(float));

    (void)state;
    seed_random(21);
    for (size_t i = 0; i < 19 * 160; i++)
        x[i] = strange_float();
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        const struct phx_weight_desc *d = &shapes[i];
        size_t                        n = (size_t)d->n * (size_t)d->k;

        if (d->dtype == PHX_DTYPE_MXFP4)
            fill_source(source + 1, scale, PHX_DTYPE_F16, n / 4);
        else
            fill_source(source + 1, scale, d->dtype, n);
        for (size_t j = 0; d->dtype == PHX_DTYPE_MXFP4 && j < n / PHX_MX_BLOCK; j++)
            scale[j] = (uint8_t)(j % 5 == 0 ? 0 : j % 11 == 0 ? 255 : random_u32());
        for (size_t r = 0; r < sizeof(rows) / sizeof(rows[0]); r++) {
            int                 cursor = 0;
            struct phx_backend *b = next_backend(&cursor);

            run_matmul(b, d, source, scale, x, rows[r], ref);
            phx_backend_close(b);
            while ((b = next_backend(&cursor)) != NULL) {
                char what[40];

                (void)snprintf(what, sizeof(what), "shape %zu x %d", i, rows[r]);
                run_matmul(b, d, source, scale, x, rows[r], out);
                expect_same(ref, out, (size_t)rows[r] * (size_t)d->n, what, b);
                phx_backend_close(b);
            }
        }
    }
    drop(source);
    drop(scale);
    drop(x);
    drop(ref);
    drop(out);
}

/* ---- row-wise ops on strange numbers ----------------------------------------------------------- */

enum { OPS_T = 5, OPS_N = 67, OPS_KINDS = 6 };

static void run_row_ops(struct phx_backend *b, const float *x, const float *y,
                        float out[OPS_KINDS][OPS_T * OPS_N])
{
    const int32_t      row[2] = {0, 3}, n[2] = {3, 2}, pos[2] = {2, 0};
    struct phx_spans   spans = {2, row, n, pos, NULL, 0};
    float              copy[OPS_T * OPS_N];
    int32_t            ids[OPS_T * 3];
    struct phx_tensor  id_tensor = {ids, PHX_DTYPE_I32, {OPS_T, 3}, 3};

    memcpy(copy, x, sizeof(copy));
    phx_rmsnorm(b, phx_view(out[0], OPS_T, OPS_N), phx_view(copy, OPS_T, OPS_N), phx_view(copy, 1, OPS_N),
                0.0f);
    phx_swiglu(b, phx_view(out[1], OPS_T, 33), phx_columns(phx_view(copy, OPS_T, OPS_N), 1, 66),
               PHX_GLU_SILU, 0);
    phx_swiglu(b, phx_view(out[2], OPS_T, 33), phx_columns(phx_view(copy, OPS_T, OPS_N), 0, 66),
               PHX_GLU_OAI, 7.0f);
    memcpy(out[3], x, sizeof(copy));
    phx_rope(b, phx_columns(phx_view(out[3], OPS_T, OPS_N), 1, 66), 22, &spans,
             phx_view((float *)y, 5, 11), phx_view((float *)y + 60, 5, 11));
    memcpy(out[4], x, sizeof(copy));
    phx_add(b, phx_view(out[4], OPS_T, OPS_N), phx_view((float *)y, OPS_T, OPS_N));
    phx_moe_route(b, id_tensor, phx_view(out[5], OPS_T, 3), phx_view(copy, OPS_T, OPS_N));
    for (int i = 0; i < OPS_T * 3; i++)
        out[5][OPS_T * 3 + i] = (float)ids[i];
    phx_moe_bias(b, phx_view(out[5] + OPS_T * 6, OPS_T, 4), id_tensor, phx_view(out[5], OPS_T, 3),
                 phx_view(copy, OPS_N, 4));
    expect_ok(b);
}

static void strange_rows_are_equal_on_every_path(void **state)
{
    static float ref[OPS_KINDS][OPS_T * OPS_N], out[OPS_KINDS][OPS_T * OPS_N];
    float        x[OPS_T * OPS_N], y[OPS_T * OPS_N];

    (void)state;
    seed_random(22);
    for (int round = 0; round < 20; round++) {
        int                 cursor = 0;
        struct phx_backend *b = next_backend(&cursor);

        for (int i = 0; i < OPS_T * OPS_N; i++) {
            x[i] = round < 10 ? strange_float() : random_float() * 40.0f;
            y[i] = strange_float();
        }
        memset(ref, 0, sizeof(ref));
        run_row_ops(b, x, y, ref);
        phx_backend_close(b);
        while ((b = next_backend(&cursor)) != NULL) {
            memset(out, 0, sizeof(out));
            run_row_ops(b, x, y, out);
            for (int k = 0; k < OPS_KINDS; k++) {
                char what[20];

                (void)snprintf(what, sizeof(what), "op %d", k);
                expect_same(ref[k], out[k], OPS_T * OPS_N, what, b);
            }
            phx_backend_close(b);
        }
    }
}

/* e^x within 2e-7 over the range that counts, through the gate of one expert against another. */
static void the_exponential_is_accurate(void **state)
{
    int                 cursor = 0;
    struct phx_backend *b = next_backend(&cursor);
    double              worst = 0;

    (void)state;
    for (int i = 0; i <= 20000; i++) {
        float             logits[2] = {0.0f, -(float)i * 0.0042f}, gates[2];
        int32_t           ids[2];
        struct phx_tensor id_tensor = {ids, PHX_DTYPE_I32, {1, 2}, 2};
        double            want = exp((double)logits[1]), got;

        phx_moe_route(b, id_tensor, phx_view(gates, 1, 2), phx_view(logits, 1, 2));
        got = (double)gates[1] / (double)gates[0];
        worst = fabs(got / want - 1) > worst ? fabs(got / want - 1) : worst;
    }
    expect_ok(b);
    if (worst > 3e-7)
        fail_msg("relative error %g", worst);
    phx_backend_close(b);
}

/* ---- packing from every dtype ------------------------------------------------------------------ */

struct conversion {
    enum phx_dtype from, to;
    int32_t        bytes;
};

static double value_of(enum phx_dtype dtype, const unsigned char *at)
{
    uint16_t h;
    float    f;
    int      e, m, bits = dtype == PHX_DTYPE_F16 ? 10 : dtype == PHX_DTYPE_F8_E4M3 ? 3 : 2;
    int      bias = dtype == PHX_DTYPE_F8_E4M3 ? 7 : 15, top = dtype == PHX_DTYPE_F8_E4M3 ? 16 : 31;
    double   v;

    if (dtype == PHX_DTYPE_F32) {
        memcpy(&f, at, 4);
        return (double)f;
    }
    memcpy(&h, at, dtype == PHX_DTYPE_F8_E4M3 || dtype == PHX_DTYPE_F8_E5M2 ? 1 : 2);
    if (dtype == PHX_DTYPE_BF16)
        return (double)from_bf16(h);
    if (dtype != PHX_DTYPE_F16)
        h = (uint16_t)((h & 0x80u) << 8 | (h & 0x7fu)); /* the sign to the top */
    e = (h & 0x7fff) >> bits;
    m = h & ((1 << bits) - 1);
    if (dtype == PHX_DTYPE_F8_E4M3 && e == 15 && m == 7)
        return NAN;
    if (e == top)
        v = m != 0 ? NAN : INFINITY;
    else
        v = e == 0 ? ldexp(m, 1 - bias - bits) : ldexp(m + (1 << bits), e - bias - bits);
    return (h & 0x8000u) != 0 ? -v : v;
}

/* Rows of 3 x the dtype, in both orientations and with gaps between elements and rows. */
static void pack_and_read(struct phx_backend *b, const struct conversion *c, const unsigned char *data,
                          int32_t n, int32_t k, int64_t row_stride, int64_t k_stride, float *out)
{
    const struct phx_weight_desc   d = {c->to, n, k, 1, 2, {k / 3, k}};
    const struct phx_weight_source s = {.data = data, .dtype = c->from, .row_stride = row_stride,
                                        .k_stride = k_stride, .n_rows = n};
    struct phx_weight             *w = phx_weight_create(b, &d);
    int32_t                        ids[40];

    for (int32_t i = 0; i < n; i++)
        ids[i] = i;
    phx_weight_pack(b, w, &s);
    phx_embed(b, phx_view(out, n, k), ids, w, 0);
    expect_ok(b);
    phx_weight_destroy(b, w);
}

static void every_source_is_packed_exactly(void **state)
{
    static const struct conversion kinds[] = {
        {PHX_DTYPE_F32, PHX_DTYPE_F32, 4},      {PHX_DTYPE_BF16, PHX_DTYPE_F32, 2},
        {PHX_DTYPE_F16, PHX_DTYPE_F32, 2},      {PHX_DTYPE_F8_E4M3, PHX_DTYPE_F32, 1},
        {PHX_DTYPE_F8_E5M2, PHX_DTYPE_F32, 1},  {PHX_DTYPE_BF16, PHX_DTYPE_BF16, 2},
        {PHX_DTYPE_F8_E4M3, PHX_DTYPE_BF16, 1}, {PHX_DTYPE_F8_E5M2, PHX_DTYPE_BF16, 1},
        {PHX_DTYPE_F16, PHX_DTYPE_F16, 2}};
    enum { N = 37, K = 151 };
    unsigned char      *data = take(1, N * K * 8 + 8);
    float              *out = take(N * K, sizeof(float));
    int                 cursor = 0;
    struct phx_backend *b;

    (void)state;
    seed_random(23);
    for (size_t i = 0; i < N * K * 8; i++)
        data[i] = (unsigned char)random_u32();
    while ((b = next_backend(&cursor)) != NULL) {
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
            for (int way = 0; way < 3; way++) {
                int64_t size = kinds[i].bytes;
                int64_t row = way == 0 ? size * K : way == 1 ? size : size * K * 2;
                int64_t step = way == 0 ? size : way == 1 ? size * N : size * 2;

                pack_and_read(b, &kinds[i], data + 1, N, K, row, step, out);
                for (int32_t r = 0; r < N; r++)
                    for (int32_t k = 0; k < K; k++) {
                        double want = value_of(kinds[i].from, data + 1 + r * row + k * step);
                        double got = (double)out[r * K + k];

                        if (!(got == want) && !(isnan(got) && isnan(want)))
                            fail_msg("kind %zu way %d [%d, %d]: %g, source %g", i, way, r, k, got, want);
                    }
            }
        phx_backend_close(b);
    }
    drop(data);
    drop(out);
}

/* ---- many experts, in MXFP4 --------------------------------------------------------------------- */

enum { E = 256, MOE_T = 7, TOP = 8, D = 32, F = 64 };

struct experts {
    uint8_t up[E * 2 * F * D / 2], up_scale[E * 2 * F * D / 32];
    uint8_t down[E * D * F / 2], down_scale[E * D * F / 32];
    float   x[MOE_T * (D + 3)], logits[MOE_T * E];
};

static struct phx_weight *pack_experts(struct phx_backend *b, const uint8_t *data, const uint8_t *scale,
                                       int32_t n, int32_t k, int32_t n_slices)
{
    struct phx_weight_desc d = {PHX_DTYPE_MXFP4, n, k, E, n_slices, {0}};
    struct phx_weight     *w;

    for (int32_t i = 0; i < n_slices; i++)
        d.slice_end[i] = k / 32 * (i + 1) / n_slices * 32;
    w = phx_weight_create(b, &d);
    for (int32_t e = 0; e < E; e++) {
        struct phx_weight_source s = {.data = data + (size_t)e * (size_t)(n * k / 2),
                                      .dtype = PHX_DTYPE_MXFP4, .row_stride = k / 2, .expert = e,
                                      .scale = scale + (size_t)e * (size_t)(n * k / 32),
                                      .scale_row_stride = k / 32, .n_rows = n};

        phx_weight_pack(b, w, &s);
    }
    expect_ok(b);
    return w;
}

static void run_experts(struct phx_backend *b, struct experts *m, const struct phx_weight *up,
                        const struct phx_weight *down, int32_t first, int32_t n, float *out)
{
    int32_t             ids[MOE_T * TOP];
    float               gates[MOE_T * TOP];
    struct phx_tensor   id_tensor = {ids, PHX_DTYPE_I32, {n, TOP}, TOP};
    struct phx_tensor   x = phx_columns(phx_view(m->x + first * (D + 3), n, D + 3), 2, D);
    struct phx_moe_args args = {.out = phx_view(out, n, D), .x = x, .ids = id_tensor,
                                .gates = phx_view(gates, n, TOP), .gate_up = up, .down = down,
                                .kind = PHX_GLU_SILU};

    phx_moe_route(b, id_tensor, args.gates, phx_view(m->logits + first * E, n, E));
    phx_moe_ffn(b, &args);
    expect_ok(b);
}

static void many_experts_are_equal_alone_and_together(void **state)
{
    struct experts     *m = take(1, sizeof(*m));
    float               ref[MOE_T * D], out[MOE_T * D];
    bool                is_first = true;
    int                 cursor = 0;
    struct phx_backend *b;

    (void)state;
    seed_random(24);
    for (size_t i = 0; i < sizeof(m->up); i++)
        m->up[i] = (uint8_t)random_u32();
    for (size_t i = 0; i < sizeof(m->down); i++)
        m->down[i] = (uint8_t)random_u32();
    for (size_t i = 0; i < sizeof(m->up_scale); i++)
        m->up_scale[i] = (uint8_t)(122 + random_u32() % 4);
    for (size_t i = 0; i < sizeof(m->down_scale); i++)
        m->down_scale[i] = (uint8_t)(122 + random_u32() % 4);
    fill_random(m->x, MOE_T * (D + 3));
    fill_random(m->logits, MOE_T * E);
    while ((b = next_backend(&cursor)) != NULL) {
        struct phx_weight *up = pack_experts(b, m->up, m->up_scale, 2 * F, D, 1);
        struct phx_weight *down = pack_experts(b, m->down, m->down_scale, D, F, 8); /* six are empty */

        run_experts(b, m, up, down, 0, MOE_T, is_first ? ref : out);
        if (!is_first)
            assert_memory_equal(ref, out, sizeof(ref));
        is_first = false;
        for (int32_t t = 0; t < MOE_T; t++) {
            run_experts(b, m, up, down, t, 1, out);
            assert_memory_equal(ref + t * D, out, D * sizeof(float));
        }
        run_experts(b, m, up, down, 0, 0, out); /* a step without rows */
        phx_weight_destroy(b, up);
        phx_weight_destroy(b, down);
        phx_backend_close(b);
    }
    drop(m);
}

const struct CMUnitTest edge_tests[] = {
    cmocka_unit_test(strange_products_are_equal_on_every_path),
    cmocka_unit_test(strange_rows_are_equal_on_every_path),
    cmocka_unit_test(the_exponential_is_accurate),
    cmocka_unit_test(every_source_is_packed_exactly),
    cmocka_unit_test(many_experts_are_equal_alone_and_together),
};
const size_t n_edge_tests = sizeof(edge_tests) / sizeof(edge_tests[0]);
