/* SPDX-License-Identifier: Apache-2.0
 * Attention with rounded activations over a bf16 cache: near the exact one, the same bits on every path, in any
 * chunks, beside any neighbour, and whatever memory nobody wrote holds. */
#include <math.h>

#include "tests/ops/support.h"

enum { N_BLOCKS = 24, TABLE = 16 };

struct shape {
    int32_t length, heads, kv_heads, dim, block_tokens, window;
    bool    has_sinks;
    float   scale;
};

static const struct shape shapes[] = {
    {150, 4, 2, 64, 16, 0, false, 0.125f},  {150, 8, 2, 64, 32, 0, true, 0.125f},  {97, 2, 2, 128, 32, 0, false, 0.09f},
    {130, 6, 2, 24, 16, 37, true, 0.2f},    {130, 6, 2, 80, 32, 64, false, 0.11f}, {70, 5, 1, 2, 32, 1, true, 1},
    {80, 18, 1, 40, 16, 50, false, 0.16f},  {66, 34, 1, 16, 32, 0, true, 0.25f},   {40, 1, 1, 512, 16, 0, false, 0.04f},
    {140, 4, 4, 6, 32, 33, true, 0.4f},     {131, 8, 1, 64, 32, 128, true, 0.125f}};
enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

/* Two sequences of one layer: inputs [sequence][length][heads * dim]. */
struct input {
    float *q[2], *k[2], *v[2];
    float  sinks[128];
};

static float tame_float(void)
{
    float x = random_float();

    return fabsf(x) > 4 ? x / 50 : x;
}

static float *make_rows(const struct shape *s, int32_t heads)
{
    size_t n = (size_t)s->length * (size_t)heads * (size_t)s->dim;
    float *x = take(n, sizeof(float));

    for (size_t i = 0; i < n; i++)
        x[i] = tame_float();
    return x;
}

static void make_input(struct input *in, const struct shape *s)
{
    for (int i = 0; i < 2; i++) {
        in->q[i] = make_rows(s, s->heads);
        in->k[i] = make_rows(s, s->kv_heads);
        in->v[i] = make_rows(s, s->kv_heads);
    }
    for (int i = 0; i < s->heads; i++)
        in->sinks[i] = i == 1 ? -INFINITY : tame_float();
}

static void drop_input(struct input *in)
{
    for (int i = 0; i < 2; i++) {
        drop(in->q[i]);
        drop(in->k[i]);
        drop(in->v[i]);
    }
}

static size_t count_out(const struct shape *s)
{
    return (size_t)s->length * (size_t)s->heads * (size_t)s->dim;
}

/* A block's earlier owner left nothing but NaN. */
static void poison(struct phx_backend *b, struct phx_kv *kv, const struct shape *s)
{
    int32_t columns = s->kv_heads * s->dim, row = 0, pos = 0, n = s->block_tokens;
    float  *x = take((size_t)n * (size_t)columns, sizeof(float));

    for (int32_t i = 0; i < n * columns; i++)
        x[i] = NAN;
    for (int32_t block = 0; block < N_BLOCKS; block++) {
        struct phx_spans spans = {1, &row, &n, &pos, &block, 1};

        phx_kv_write(b, kv, 1, phx_view(x, n, columns), phx_view(x, n, columns), &spans);
    }
    drop(x);
}

/* Positions before the first window of the step are nowhere. */
static void fill_table(const struct shape *s, int32_t seq, int32_t pos, int32_t *table)
{
    int32_t first = s->window > 0 && pos - s->window + 1 > 0 ? pos - s->window + 1 : 0;

    for (int32_t i = 0; i < TABLE; i++)
        table[i] = i < first / s->block_tokens ? -1 : (i * 7 + 5) % (N_BLOCKS / 2) * 2 + seq;
}

/* The step of rows pos .. pos + n of both sequences, or of one, into out[sequence]. */
static void step(struct phx_backend *b, struct phx_kv *kv, const struct shape *s, const struct input *in, int32_t n_seqs,
                 int32_t pos, int32_t n, float *const *out)
{
    int32_t          q_columns = s->heads * s->dim, k_columns = s->kv_heads * s->dim, rows = n * n_seqs;
    int32_t          row[2] = {0, n}, counts[2] = {n, n}, at[2] = {pos, pos}, table[2 * TABLE];
    struct phx_spans spans = {n_seqs, row, counts, at, table, TABLE};
    float           *q = take((size_t)(rows * q_columns), sizeof(float)), *o = take((size_t)(rows * q_columns), sizeof(float));
    float           *k = take((size_t)(rows * k_columns), sizeof(float)), *v = take((size_t)(rows * k_columns), sizeof(float));
    struct phx_attention_args args = {.out = phx_view(o, rows, q_columns), .q = phx_view(q, rows, q_columns), .kv = kv,
                                      .layer = 1, .n_heads = s->heads, .group = s->heads / s->kv_heads,
                                      .window = s->window, .scale = s->scale, .spans = &spans,
                                      .sinks = phx_view(s->has_sinks ? (float *)in->sinks : NULL, 1, s->heads)};

    for (int32_t i = 0; i < n_seqs; i++) {
        fill_table(s, i, pos, table + i * TABLE);
        memcpy(q + i * n * q_columns, in->q[i] + pos * q_columns, sizeof(float) * (size_t)(n * q_columns));
        memcpy(k + i * n * k_columns, in->k[i] + pos * k_columns, sizeof(float) * (size_t)(n * k_columns));
        memcpy(v + i * n * k_columns, in->v[i] + pos * k_columns, sizeof(float) * (size_t)(n * k_columns));
    }
    phx_kv_write(b, kv, 1, phx_view(k, rows, k_columns), phx_view(v, rows, k_columns), &spans);
    phx_attention(b, &args);
    expect_ok(b);
    for (int32_t i = 0; i < n_seqs; i++)
        memcpy(out[i] + pos * q_columns, o + i * n * q_columns, sizeof(float) * (size_t)(n * q_columns));
    drop(q);
    drop(o);
    drop(k);
    drop(v);
}

/* All positions in chunks; after `grow` positions one by one. */
static void run(struct phx_backend *b, const struct shape *s, const struct input *in, int32_t n_seqs, int32_t chunk,
                int32_t grow, float *const *out)
{
    struct phx_kv_desc desc = {2, N_BLOCKS, s->block_tokens, s->kv_heads, s->dim, PHX_DTYPE_BF16};
    struct phx_kv     *kv = phx_kv_create(b, &desc);

    assert_non_null(kv);
    poison(b, kv, s);
    for (int32_t pos = 0, n; pos < s->length; pos += n) {
        n = pos < grow ? chunk : 1;
        n = s->length - pos < n ? s->length - pos : n;
        step(b, kv, s, in, n_seqs, pos, n, out);
    }
    phx_kv_destroy(b, kv);
}

static double rounded(float x)
{
    return (double)from_bf16(to_bf16(x));
}

/* One query of sequence 0 exactly, from rounded inputs; *largest: of the values it sees. */
static void exact_query(const struct shape *s, const struct input *in, int32_t t, int32_t h, double *out, double *largest)
{
    int32_t first = s->window > 0 && t - s->window + 1 > 0 ? t - s->window + 1 : 0, g = h / (s->heads / s->kv_heads);
    double  score[256], m = s->has_sinks ? (double)in->sinks[h] : -INFINITY, z;

    for (int32_t j = first; j <= t; j++) {
        score[j] = 0;
        for (int32_t d = 0; d < s->dim; d++)
            score[j] += rounded(in->q[0][(t * s->heads + h) * s->dim + d] * s->scale) *
                        rounded(in->k[0][(j * s->kv_heads + g) * s->dim + d]);
        m = score[j] > m ? score[j] : m;
    }
    z = s->has_sinks ? exp((double)in->sinks[h] - m) : 0;
    for (int32_t j = first; j <= t; j++)
        z += exp(score[j] - m);
    *largest = 0;
    for (int32_t d = 0; d < s->dim; d++) {
        out[d] = 0;
        for (int32_t j = first; j <= t; j++) {
            double v = rounded(in->v[0][(j * s->kv_heads + g) * s->dim + d]);

            out[d] += exp(score[j] - m) / z * v;
            *largest = fabs(v) > *largest ? fabs(v) : *largest;
        }
    }
}

/* Weights are rounded by at most 2^-9 of themselves, and so is their sum: 2^-8 of the largest value. */
static void expect_near(const struct shape *s, const struct input *in, const float *out)
{
    double exact[512], largest;

    for (int32_t t = 0; t < s->length; t++)
        for (int32_t h = 0; h < s->heads; h++) {
            exact_query(s, in, t, h, exact, &largest);
            for (int32_t d = 0; d < s->dim; d++) {
                double got = (double)out[(t * s->heads + h) * s->dim + d];

                if (!(fabs(got - exact[d]) <= largest / 256 + 1e-4))
                    fail_msg("row %d head %d dim %d: %g, exactly %g", t, h, d, got, exact[d]);
            }
        }
}

static void expect_equal(const struct phx_backend *b, const struct shape *s, const float *want, const float *got,
                         const char *what)
{
    for (size_t i = 0; i < count_out(s); i++)
        if (memcmp(want + i, got + i, sizeof(float)) != 0)
            fail_msg("%s, heads %d/%d of %d, blocks of %d, window %d: %s: row %d differs at %d: %a, not %a",
                     backend_label(b), s->heads, s->kv_heads, s->dim, s->block_tokens, s->window, what,
                     (int)(i / (size_t)(s->heads * s->dim)), (int)(i % (size_t)(s->heads * s->dim)), (double)got[i],
                     (double)want[i]);
}

static void rounded_attention_is_near_and_equal_on_every_path(void **state)
{
    (void)state;
    seed_random(15);
    for (size_t i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        struct input        in;
        float *want[2] = {take(count_out(s), sizeof(float)), take(count_out(s), sizeof(float))};
        float *got[2] = {take(count_out(s), sizeof(float)), take(count_out(s), sizeof(float))};
        int    cursor = 0;
        struct phx_backend *b = next_backend(&cursor);

        make_input(&in, s);
        run(b, s, &in, 2, s->length, s->length, want);
        expect_near(s, &in, want[0]);
        do {
            run(b, s, &in, 2, s->length, s->length, got);
            expect_equal(b, s, want[0], got[0], "whole");
            expect_equal(b, s, want[1], got[1], "whole, second");
            run(b, s, &in, 1, 19, s->length - 12, got);
            expect_equal(b, s, want[0], got[0], "alone, chunks of 19, then one by one");
            run(b, s, &in, 2, 33, s->length, got);
            expect_equal(b, s, want[1], got[1], "chunks of 33");
            phx_backend_close(b);
        } while ((b = next_backend(&cursor)) != NULL);
        drop_input(&in);
        for (int j = 0; j < 2; j++) {
            drop(want[j]);
            drop(got[j]);
        }
    }
}

/* Values that are no numbers reach those who see them, and nobody else. */
static void wild_values_stay_where_they_are_seen(void **state)
{
    static const float wild[] = {NAN, INFINITY, -INFINITY};

    (void)state;
    seed_random(16);
    for (size_t i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        int32_t             at = s->length - 30, columns = s->heads * s->dim, cursor = 0;
        struct input        in;
        float *tame[1] = {take(count_out(s), sizeof(float))}, *want[1] = {take(count_out(s), sizeof(float))};
        float *got[1] = {take(count_out(s), sizeof(float))};
        struct phx_backend *b = next_backend(&cursor);

        make_input(&in, s);
        run(b, s, &in, 1, s->length, s->length, tame);
        for (int32_t d = 0; d < s->kv_heads * s->dim; d++)
            in.v[0][at * s->kv_heads * s->dim + d] = wild[i % 3];
        run(b, s, &in, 1, 1, s->length, want);
        assert_memory_equal(tame[0], want[0], (size_t)(at * columns) * sizeof(float));
        assert_false(isfinite(want[0][at * columns]));
        for (int32_t t = at + s->window; s->window > 0 && t < s->length; t++)
            assert_memory_equal(tame[0] + t * columns, want[0] + t * columns, (size_t)columns * sizeof(float));
        do {
            run(b, s, &in, 1, s->length, s->length, got);
            expect_equal(b, s, want[0], got[0], "wild, whole");
            run(b, s, &in, 1, 11, s->length, got);
            expect_equal(b, s, want[0], got[0], "wild, chunks of 11");
            phx_backend_close(b);
        } while ((b = next_backend(&cursor)) != NULL);
        drop_input(&in);
        drop(tame[0]);
        drop(want[0]);
        drop(got[0]);
    }
}

const struct CMUnitTest rounded_attention_tests[] = {
    cmocka_unit_test(rounded_attention_is_near_and_equal_on_every_path),
    cmocka_unit_test(wild_values_stay_where_they_are_seen),
};
const size_t n_rounded_attention_tests = sizeof(rounded_attention_tests) / sizeof(rounded_attention_tests[0]);
