/* SPDX-License-Identifier: Apache-2.0
 * Attention, rotation, norms: every path against the reference bit for bit, the reference against plain
 * double-precision loops; chunks, neighbours and shuffled blocks change no bit. */
#include <math.h>

#include "kernels/f8.h"
#include "tests/ops/support.h"

enum { LENGTH = 70, HEADS = 6, KV_HEADS = 2, DIM = 24, BLOCK = 16, N_BLOCKS = 16 };

struct layer {
    float q[LENGTH * HEADS * DIM], k[LENGTH * KV_HEADS * DIM], v[LENGTH * KV_HEADS * DIM];
    float sinks[HEADS];
};

/* Runs positions 0 .. LENGTH-1 in chunks of `chunk` rows, blocks in the order of `table`. */
static void run(struct phx_backend *b, const struct layer *l, int32_t chunk, const int32_t *table,
                int32_t window, bool has_sinks, enum phx_dtype dtype, float *out)
{
    struct phx_kv_desc desc = {2, N_BLOCKS, BLOCK, KV_HEADS, DIM, dtype};
    struct phx_kv     *kv = phx_kv_create(b, &desc);

    for (int32_t pos = 0; pos < LENGTH; pos += chunk) {
        int32_t          n = LENGTH - pos < chunk ? LENGTH - pos : chunk, row = 0;
        struct phx_spans spans = {1, &row, &n, &pos, table, N_BLOCKS};
        struct phx_attention_args args = {
            .out = phx_view(out + pos * HEADS * DIM, n, HEADS * DIM),
            .q = phx_view((float *)l->q + pos * HEADS * DIM, n, HEADS * DIM),
            .kv = kv,
            .layer = 1,
            .n_heads = HEADS,
            .group = HEADS / KV_HEADS,
            .window = window,
            .scale = 0.2f,
            .sinks = phx_view(has_sinks ? (float *)l->sinks : NULL, 1, HEADS),
            .spans = &spans,
        };

        phx_kv_write(b, kv, 1, phx_view((float *)l->k + pos * KV_HEADS * DIM, n, KV_HEADS * DIM),
                     phx_view((float *)l->v + pos * KV_HEADS * DIM, n, KV_HEADS * DIM), &spans);
        phx_attention(b, &args);
        expect_ok(b);
    }
    phx_kv_destroy(b, kv);
}

static void exact_attention(const struct layer *l, int32_t window, bool has_sinks, double *out)
{
    for (int t = 0; t < LENGTH; t++)
        for (int h = 0; h < HEADS; h++) {
            int    first = window > 0 && t - window + 1 > 0 ? t - window + 1 : 0, g = h / 3;
            double s[LENGTH], m = has_sinks ? (double)l->sinks[h] : -INFINITY, z;

            for (int j = first; j <= t; j++) {
                s[j] = 0;
                for (int d = 0; d < DIM; d++)
                    s[j] += (double)l->q[(t * HEADS + h) * DIM + d] *
                            (double)l->k[(j * KV_HEADS + g) * DIM + d];
                s[j] *= (double)0.2f;
                m = s[j] > m ? s[j] : m;
            }
            z = has_sinks ? exp((double)l->sinks[h] - m) : 0;
            for (int j = first; j <= t; j++)
                z += exp(s[j] - m);
            for (int d = 0; d < DIM; d++) {
                double sum = 0;

                for (int j = first; j <= t; j++)
                    sum += exp(s[j] - m) / z * (double)l->v[(j * KV_HEADS + g) * DIM + d];
                out[(t * HEADS + h) * DIM + d] = sum;
            }
        }
}

static void make_layer(struct layer *l)
{
    fill_random(l->q, LENGTH * HEADS * DIM);
    fill_random(l->k, LENGTH * KV_HEADS * DIM);
    fill_random(l->v, LENGTH * KV_HEADS * DIM);
    for (int h = 0; h < HEADS; h++)
        l->sinks[h] = random_float();
}

/* What a bf16 cache keeps. */
static void round_cache(struct layer *l)
{
    for (int i = 0; i < LENGTH * KV_HEADS * DIM; i++) {
        l->k[i] = from_bf16(to_bf16(l->k[i]));
        l->v[i] = from_bf16(to_bf16(l->v[i]));
    }
}

static void round_token(float *x, enum phx_dtype dtype)
{
    float top = 0, scale;

    for (int d = 0; d < DIM; d++)
        top = fabsf(x[d]) > top ? fabsf(x[d]) : top;
    scale = top / (dtype == PHX_DTYPE_I8 ? 127.0f : PHX_F8_MAX);
    for (int d = 0; d < DIM; d++) {
        float q = x[d] * (1.0f / scale);

        x[d] = scale * (dtype == PHX_DTYPE_I8 ? rintf(q) : phx_f8_float(phx_f8_bits(q)));
    }
}

/* What a cache of bytes keeps. */
static void quantise_cache(struct layer *l, enum phx_dtype dtype)
{
    for (int i = 0; i < LENGTH * KV_HEADS; i++) {
        round_token(l->k + i * DIM, dtype);
        round_token(l->v + i * DIM, dtype);
    }
}

static void attention_is_exact_and_equal_on_every_path(void **state)
{
    static const int32_t plain[N_BLOCKS] = {0, 1, 2, 3, 4};
    static const int32_t shuffled[N_BLOCKS] = {9, 3, 15, 0, 7};
    const struct {
        int32_t        window;
        bool           has_sinks;
        enum phx_dtype dtype;
    } cases[] = {{0, false, PHX_DTYPE_F32}, {0, true, PHX_DTYPE_F32},  {8, true, PHX_DTYPE_F32},
                 {33, false, PHX_DTYPE_F32}, {200, true, PHX_DTYPE_F32}, {0, false, PHX_DTYPE_I8},
                 {21, true, PHX_DTYPE_I8},   {0, false, PHX_DTYPE_F8_E4M3}, {21, true, PHX_DTYPE_F8_E4M3},
                 {20, true, PHX_DTYPE_BF16}};
    const size_t  bytes = sizeof(float) * LENGTH * HEADS * DIM;
    struct layer *l = take(1, sizeof(*l)), *kept = take(1, sizeof(*kept));
    float        *ref = take(1, bytes), *out = take(1, bytes);
    double       *exact = take(LENGTH * HEADS * DIM, sizeof(double));

    (void)state;
    seed_random(5);
    make_layer(l);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        int                 cursor = 0;
        struct phx_backend *b = next_backend(&cursor);

        if (cases[i].dtype == PHX_DTYPE_BF16 && get_compute() == PHX_COMPUTE_BF16) {
            phx_backend_close(b); /* rounded_attention_test.c has its bounds */
            break;
        }
        *kept = *l;
        if (cases[i].dtype == PHX_DTYPE_BF16)
            round_cache(kept);
        else if (phx_kv_has_scales(cases[i].dtype))
            quantise_cache(kept, cases[i].dtype);
        run(b, l, LENGTH, plain, cases[i].window, cases[i].has_sinks, cases[i].dtype, ref);
        exact_attention(kept, cases[i].window, cases[i].has_sinks, exact);
        for (int j = 0; j < LENGTH * HEADS * DIM; j++)
            if (!(fabs((double)ref[j] - exact[j]) < 2e-5 * (1 + fabs(exact[j]))))
                fail_msg("case %zu output %d: %g, exactly %g", i, j, (double)ref[j], exact[j]);
        do {
            const int32_t chunks[] = {LENGTH, 1, 3, 7, 16};

            for (size_t c = 0; c < 5; c++) {
                run(b, l, chunks[c], c % 2 == 0 ? shuffled : plain, cases[i].window,
                    cases[i].has_sinks, cases[i].dtype, out);
                if (memcmp(ref, out, bytes) != 0)
                    fail_msg("case %zu: %s in chunks of %d differs", i, backend_label(b), chunks[c]);
            }
            phx_backend_close(b);
        } while ((b = next_backend(&cursor)) != NULL);
    }
    drop(l);
    drop(kept);
    drop(ref);
    drop(out);
    drop(exact);
}

/* scores (1, 2, 0.5) and sink 3: weights 0.0853689, 0.2320567, 0.0517789 */
static void a_sink_takes_its_share(void **state)
{
    int                 cursor = 0;
    struct phx_backend *b;

    (void)state;
    while ((b = next_backend(&cursor)) != NULL) {
        struct phx_kv_desc desc = {1, 1, 16, 1, 4, PHX_DTYPE_F32};
        struct phx_kv     *kv = phx_kv_create(b, &desc);
        float   k[12] = {1, 0, 0, 0, 2, 0, 0, 0, 0.5f, 0, 0, 0};
        float   v[12] = {1, 0, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0}, q[12] = {1, 0, 0, 0, 1, 0, 0, 0, 1, 0, 0, 0};
        float   out[12], sink = 3;
        int32_t row = 0, n = 3, pos = 0, block = 0;
        struct phx_spans spans = {1, &row, &n, &pos, &block, 1};
        struct phx_attention_args args = {.out = phx_view(out, 3, 4), .q = phx_view(q, 3, 4), .kv = kv,
                                          .n_heads = 1, .group = 1, .scale = 1,
                                          .sinks = phx_view(&sink, 1, 1), .spans = &spans};

        phx_kv_write(b, kv, 0, phx_view(k, 3, 4), phx_view(v, 3, 4), &spans);
        phx_attention(b, &args);
        expect_ok(b);
        assert_float_equal(out[8], 0.0853689f, 1e-6);
        assert_float_equal(out[9], 0.2320567f, 1e-6);
        assert_float_equal(out[10], 0.0517789f, 1e-6);
        sink = -INFINITY; /* equals plain softmax */
        phx_attention(b, &args);
        expect_ok(b);
        assert_float_equal(out[8] + out[9] + out[10], 1.0f, 1e-6);
        sink = 1000; /* drowns everything */
        phx_attention(b, &args);
        expect_ok(b);
        assert_true(out[8] == 0 && out[9] == 0 && out[10] == 0);
        phx_kv_destroy(b, kv);
        phx_backend_close(b);
    }
}

/* Heads of a rank that start inside a group read the right kv heads. */
static void local_heads_read_their_kv_heads(void **state)
{
    static const int32_t table[N_BLOCKS] = {0, 1, 2, 3, 4};
    struct layer        *l = take(1, sizeof(*l));
    float               *whole = take(LENGTH * HEADS * DIM, sizeof(float));
    int                  cursor = 0;
    struct phx_backend  *b;

    (void)state;
    seed_random(6);
    make_layer(l);
    while ((b = next_backend(&cursor)) != NULL) {
        run(b, l, LENGTH, table, 0, true, PHX_DTYPE_F32, whole);
        for (int32_t first = 0; first < HEADS; first += 2) {
            int32_t            kv_first = first / 3, n_kv = (first + 1) / 3 - kv_first + 1;
            struct phx_kv_desc desc = {1, N_BLOCKS, BLOCK, n_kv, DIM, PHX_DTYPE_F32};
            struct phx_kv     *kv = phx_kv_create(b, &desc);
            int32_t            row = 0, n = LENGTH, pos = 0;
            struct phx_spans   spans = {1, &row, &n, &pos, table, N_BLOCKS};
            struct phx_tensor  q = phx_columns(phx_view(l->q, LENGTH, HEADS * DIM), first * DIM, 2 * DIM);
            float              out[LENGTH * 2 * DIM];
            struct phx_attention_args args = {.out = phx_view(out, LENGTH, 2 * DIM), .q = q, .kv = kv,
                                              .n_heads = 2, .group = 3, .head_first = first,
                                              .kv_first = kv_first, .scale = 0.2f,
                                              .sinks = phx_view(l->sinks + first, 1, 2), .spans = &spans};

            phx_kv_write(b, kv, 0,
                         phx_columns(phx_view(l->k, LENGTH, KV_HEADS * DIM), kv_first * DIM, n_kv * DIM),
                         phx_columns(phx_view(l->v, LENGTH, KV_HEADS * DIM), kv_first * DIM, n_kv * DIM),
                         &spans);
            phx_attention(b, &args);
            expect_ok(b);
            for (int t = 0; t < LENGTH; t++)
                assert_memory_equal(out + t * 2 * DIM, whole + (t * HEADS + first) * DIM,
                                    2 * DIM * sizeof(float));
            phx_kv_destroy(b, kv);
        }
        phx_backend_close(b);
    }
    drop(l);
    drop(whole);
}

static struct phx_tensor ids_view(int32_t *ids, int32_t rows, int32_t n)
{
    struct phx_tensor t = phx_view(ids, rows, n);

    t.dtype = PHX_DTYPE_I32;
    return t;
}

static void vector_ops_are_exact_and_equal_on_every_path(void **state)
{
    enum { T = 3, N = 75, HALF = 37 };
    float               x[T * N], y[T * N], gain[N], cos_table[8 * HALF], sin_table[8 * HALF];
    float               ref[5][T * N], ref_lse[T];
    int                 cursor = 0;
    struct phx_backend *b;
    bool                is_first = true;

    (void)state;
    seed_random(7);
    fill_random(x, T * N);
    fill_random(y, T * N);
    fill_random(gain, N);
    for (int i = 0; i < 8 * HALF; i++) {
        cos_table[i] = cosf((float)i);
        sin_table[i] = sinf((float)i);
    }
    while ((b = next_backend(&cursor)) != NULL) {
        float            out[5][T * N] = {{0}}, values[T], lse[T];
        int32_t          best[T];
        int32_t          row = 0, n = T, pos = 4;
        struct phx_spans spans = {1, &row, &n, &pos, NULL, 0};

        phx_rmsnorm(b, phx_view(out[0], T, N), phx_view(x, T, N), phx_view(gain, 1, N), 1e-5f);
        memcpy(out[1], x, sizeof(x));
        phx_add(b, phx_view(out[1], T, N), phx_view(y, T, N));
        phx_add_row(b, phx_view(out[1], T, N), phx_view(gain, 1, N));
        phx_swiglu(b, phx_view(out[2], T, HALF), phx_view(x, T, 2 * HALF), PHX_GLU_SILU, 0);
        phx_swiglu(b, phx_view(out[3], T, HALF), phx_view(x, T, 2 * HALF), PHX_GLU_OAI, 7.0f);
        memcpy(out[4], x, sizeof(x));
        phx_rope(b, phx_view(out[4], T, 2 * HALF), 2 * HALF, &spans, phx_view(cos_table, 8, HALF),
                 phx_view(sin_table, 8, HALF));
        phx_top(b, ids_view(best, T, 1), phx_view(values, T, 1), phx_view(lse, T, 1), phx_view(x, T, N));
        expect_ok(b);
        if (is_first) {
            memcpy(ref, out, sizeof(ref));
            memcpy(ref_lse, lse, sizeof(ref_lse));
            for (int t = 0; t < T; t++) {
                double sum = 0;

                for (int i = 0; i < N; i++)
                    sum += (double)x[t * N + i] * (double)x[t * N + i];
                for (int i = 0; i < N; i++)
                    assert_float_equal(out[0][t * N + i],
                                       (double)x[t * N + i] / sqrt(sum / N + 1e-5) * (double)gain[i], 1e-4);
                for (int i = 0; i < HALF; i++) {
                    double g = (double)x[t * 2 * HALF + i], u = (double)x[t * 2 * HALF + HALF + i];

                    assert_float_equal(out[2][t * HALF + i], g / (1 + exp(-g)) * u,
                                       1e-5 * (1 + fabs(g * u)));
                }
            }
        }
        assert_memory_equal(ref, out, sizeof(ref));
        assert_memory_equal(ref_lse, lse, sizeof(ref_lse));
        is_first = false;
        phx_backend_close(b);
    }
}

/* The clamped unit's golden values. */
static void the_clamped_unit_has_its_golden_values(void **state)
{
    static const struct {
        float gate, up;
        double want;
    } cases[] = {{1, 2, 2.5373873},      {-3, 0.5f, -0.0271069646},     {9, -9, -41.9997188},
                 {0.25f, -1, 0},         {-20, 3, -1.3173641e-13},      {7, 7, 55.999625}};
    int                 cursor = 0;
    struct phx_backend *b;

    (void)state;
    while ((b = next_backend(&cursor)) != NULL) {
        for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
            float x[2] = {cases[i].gate, cases[i].up}, out;

            phx_swiglu(b, phx_view(&out, 1, 1), phx_view(x, 1, 2), PHX_GLU_OAI, 7.0f);
            expect_ok(b);
            if (!(fabs((double)out - cases[i].want) <= 2e-6 * fabs(cases[i].want)))
                fail_msg("f(%g, %g) = %.9g", (double)cases[i].gate, (double)cases[i].up, (double)out);
        }
        phx_backend_close(b);
    }
}

const struct CMUnitTest attention_tests[] = {
    cmocka_unit_test(attention_is_exact_and_equal_on_every_path),
    cmocka_unit_test(a_sink_takes_its_share),
    cmocka_unit_test(local_heads_read_their_kv_heads),
    cmocka_unit_test(vector_ops_are_exact_and_equal_on_every_path),
    cmocka_unit_test(the_clamped_unit_has_its_golden_values),
};
const size_t n_attention_tests = sizeof(attention_tests) / sizeof(attention_tests[0]);
