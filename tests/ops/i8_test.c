/* SPDX-License-Identifier: Apache-2.0
 * Products of int8 weights: the reference against the definition in double precision, every path against the
 * reference bit for bit, rows alone and together, ranks' slices, rows that hold no numbers. */
#include <math.h>

#include "tests/ops/support.h"

enum { GROUP = PHX_I8_GROUP };

struct shape {
    int32_t rows, n, k, n_slices;
};

static const struct shape shapes[] = {
    {1, 1, 1, 1},    {1, 16, 64, 1},  {3, 17, 33, 1},  {5, 40, 300, 1},   {33, 70, 256, 1}, {4, 35, 1100, 8},
    {40, 48, 700, 3}, {2, 16, 5, 8},  {530, 33, 72, 2}, {18, 31, 2048, 8}, {7, 64, 513, 1},
};

enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

static int32_t cut(const struct shape *s, int32_t i)
{
    return s->k * i / s->n_slices;
}

/* The slices [first, first + count) of w [n][k] float32. */
static struct phx_weight *make_weight(struct phx_backend *b, const float *w, const struct shape *s, int32_t first,
                                      int32_t count)
{
    int32_t                  k0 = cut(s, first);
    struct phx_weight_desc   desc = {.dtype = PHX_DTYPE_I8, .n = s->n, .n_experts = 1, .n_slices = count};
    struct phx_weight_source source = {.data = w + k0, .dtype = PHX_DTYPE_F32, .row_stride = (int64_t)s->k * 4,
                                       .k_stride = 4};
    struct phx_weight       *packed;

    for (int32_t i = 0; i < count; i++)
        desc.slice_end[i] = cut(s, first + i + 1) - k0;
    desc.k = desc.slice_end[count - 1];
    packed = phx_weight_create(b, &desc);
    assert_non_null(packed);
    for (int half = 0; half < 2; half++) { /* with a border inside a panel */
        source.first_row = half == 0 ? 0 : s->n / 3;
        source.n_rows = half == 0 ? s->n / 3 : s->n - s->n / 3;
        source.data = w + k0 + (size_t)source.first_row * (size_t)s->k;
        phx_weight_pack(b, packed, &source);
    }
    expect_ok(b);
    return packed;
}

/* Values of one row as the definition makes them: integers, and a scale per group. */
static void quantise_exactly(const float *x, const struct shape *s, double *q, double *scale)
{
    for (int32_t i = 0, k = 0; i < s->n_slices; i++)
        for (int32_t n; k < cut(s, i + 1); k += n) {
            float top = 0, inverse;

            n = cut(s, i + 1) - k < GROUP ? cut(s, i + 1) - k : GROUP;
            for (int32_t j = k; j < k + n; j++)
                top = fmaxf(top, fabsf(x[j]));
            inverse = top > 0 ? 1.0f / (top / 127.0f) : 0;
            for (int32_t j = k; j < k + n; j++) {
                q[j] = (double)nearbyintf(x[j] * inverse);
                scale[j] = (double)(top / 127.0f);
            }
        }
}

static void check_exactly(const struct shape *s, const float *x, const float *w, const float *bias, const float *out)
{
    double *qx = take((size_t)s->k, 8), *sx = take((size_t)s->k, 8), *qw = take((size_t)s->k, 8),
           *sw = take((size_t)s->k, 8);

    for (int32_t t = 0; t < s->rows; t++) {
        quantise_exactly(x + (size_t)t * (size_t)s->k, s, qx, sx);
        for (int32_t row = 0; row < s->n; row++) {
            double sum = (double)bias[row], size = fabs(sum), got = (double)out[t * s->n + row];

            quantise_exactly(w + (size_t)row * (size_t)s->k, s, qw, sw);
            for (int32_t k = 0; k < s->k; k++) {
                double p = qx[k] * sx[k] * qw[k] * sw[k];

                sum += p;
                size += fabs(p);
            }
            if (!(fabs(got - sum) <= 2e-6 * size + 1e-12))
                fail_msg("rows %d n %d k %d: [%d][%d] is %g, by definition %g", s->rows, s->n, s->k, t, row, got, sum);
        }
    }
    drop(qx);
    drop(sx);
    drop(qw);
    drop(sw);
}

static void multiply(struct phx_backend *b, const struct shape *s, float *x, const float *w, float *bias, float *out)
{
    struct phx_weight *packed = make_weight(b, w, s, 0, s->n_slices);

    phx_matmul(b, phx_view(out, s->rows, s->n), phx_view(x, s->rows, s->k), packed, phx_view(bias, 1, s->n));
    expect_ok(b);
    phx_weight_destroy(b, packed);
}

static void every_path_gives_what_is_defined(void **state)
{
    (void)state;
    seed_random(31);
    for (int i = 0; i < N_SHAPES; i++) {
        const struct shape *s = &shapes[i];
        size_t              n = (size_t)s->rows * (size_t)s->n;
        float *x = take((size_t)s->rows * (size_t)s->k, 4), *w = take((size_t)s->n * (size_t)s->k, 4);
        float *bias = take((size_t)s->n, 4), *ref = take(n, 4), *out = take(n, 4);
        int                 cursor = 0;
        struct phx_backend *b;

        fill_random(x, (size_t)s->rows * (size_t)s->k);
        fill_random(w, (size_t)s->n * (size_t)s->k);
        fill_random(bias, (size_t)s->n);
        while ((b = next_backend(&cursor)) != NULL) {
            float *to = cursor == 1 ? ref : out;

            memset(to, 0xff, n * 4);
            multiply(b, s, x, w, bias, to);
            if (to == ref)
                check_exactly(s, x, w, bias, ref);
            else if (memcmp(ref, out, n * 4) != 0)
                fail_msg("shape %d: %s differs from ref", i, backend_label(b));
            phx_backend_close(b);
        }
        drop(x);
        drop(w);
        drop(bias);
        drop(ref);
        drop(out);
    }
}

static void a_row_alone_equals_the_row_in_a_batch(void **state)
{
    static const struct shape s = {21, 40, 600, 4};
    float                     x[21 * 600], w[40 * 600], all[21 * 40], one[40];
    int                       cursor = 0;
    struct phx_backend       *b;

    (void)state;
    seed_random(32);
    fill_random(x, 21 * 600);
    fill_random(w, 40 * 600);
    while ((b = next_backend(&cursor)) != NULL) {
        struct phx_weight *packed = make_weight(b, w, &s, 0, 4);

        phx_matmul(b, phx_view(all, 21, 40), phx_view(x, 21, 600), packed, phx_view(NULL, 1, 40));
        for (int32_t t = 0; t < 21; t++) {
            phx_matmul(b, phx_view(one, 1, 40), phx_view(x + t * 600, 1, 600), packed, phx_view(NULL, 1, 40));
            expect_ok(b);
            assert_memory_equal(one, all + t * 40, sizeof(one));
        }
        phx_weight_destroy(b, packed);
        phx_backend_close(b);
    }
}

static void slices_of_ranks_sum_to_the_same_bits(void **state)
{
    static const struct shape s = {5, 24, 2600, 8};
    float *x = take(5 * 2600, 4), *w = take(24 * 2600, 4);
    float  whole[5 * 24], part[8][5 * 24];
    int    cursor = 0;
    struct phx_backend *b;

    (void)state;
    seed_random(33);
    fill_random(x, 5 * 2600);
    fill_random(w, 24 * 2600);
    while ((b = next_backend(&cursor)) != NULL) {
        struct phx_weight *packed = make_weight(b, w, &s, 0, 8);

        phx_matmul(b, phx_view(whole, 5, 24), phx_view(x, 5, 2600), packed, phx_view(NULL, 1, 24));
        phx_weight_destroy(b, packed);
        for (int32_t tp = 2; tp <= 8; tp *= 2) {
            for (int32_t r = 0; r < tp; r++) {
                int32_t k0 = cut(&s, r * 8 / tp);

                packed = make_weight(b, w, &s, r * 8 / tp, 8 / tp);
                phx_matmul(b, phx_view(part[r], 5, 24),
                           phx_columns(phx_view(x, 5, 2600), k0, phx_weight_describe(packed)->k), packed,
                           phx_view(NULL, 1, 24));
                expect_ok(b);
                phx_weight_destroy(b, packed);
            }
            for (int32_t step = 1; step < tp; step *= 2)
                for (int32_t r = 0; r < tp; r += 2 * step)
                    for (int j = 0; j < 5 * 24; j++)
                        part[r][j] += part[r + step][j];
            assert_memory_equal(whole, part[0], sizeof(whole));
        }
        phx_backend_close(b);
    }
    drop(x);
    drop(w);
}

/* A row that has no numbers gives none, and does not touch its neighbours; a row of zeros gives zeros. */
static void strange_rows_stay_by_themselves(void **state)
{
    static const struct shape s = {6, 20, 300, 1};
    float                     x[6 * 300], w[20 * 300], out[6 * 20], clean[6 * 20];
    int                       cursor = 0;
    struct phx_backend       *b;

    (void)state;
    seed_random(34);
    fill_random(w, 20 * 300);
    while ((b = next_backend(&cursor)) != NULL) {
        struct phx_weight *packed = make_weight(b, w, &s, 0, 1);

        fill_random(x, 6 * 300);
        memset(x + 2 * 300, 0, 300 * 4);
        phx_matmul(b, phx_view(clean, 6, 20), phx_view(x, 6, 300), packed, phx_view(NULL, 1, 20));
        x[1 * 300 + 7] = NAN;
        x[3 * 300 + 299] = INFINITY;
        x[4 * 300] = 1e-44f; /* too small beside the rest to matter */
        phx_matmul(b, phx_view(out, 6, 20), phx_view(x, 6, 300), packed, phx_view(NULL, 1, 20));
        expect_ok(b);
        for (int i = 0; i < 20; i++) {
            assert_true(isnan(out[1 * 20 + i]) && isnan(out[3 * 20 + i]));
            assert_true(out[2 * 20 + i] == 0.0f && isfinite(out[4 * 20 + i]));
        }
        assert_memory_equal(out, clean, 20 * 4);
        assert_memory_equal(out + 5 * 20, clean + 5 * 20, 20 * 4);
        phx_weight_destroy(b, packed);
        phx_backend_close(b);
    }
}

static void rows_read_back_are_close(void **state)
{
    static const struct shape s = {1, 20, 700, 3};
    const int32_t             ids[] = {0, 19, 7};
    float                     w[20 * 700], out[3 * 700];
    int                       cursor = 0;
    struct phx_backend       *b;

    (void)state;
    seed_random(35);
    fill_random(w, 20 * 700);
    while ((b = next_backend(&cursor)) != NULL) {
        struct phx_weight *packed = make_weight(b, w, &s, 0, 3);
        double             q[700], scale[700];

        phx_embed(b, phx_view(out, 3, 700), ids, packed, 0);
        expect_ok(b);
        for (int i = 0; i < 3; i++) {
            quantise_exactly(w + ids[i] * 700, &s, q, scale);
            for (int k = 0; k < 700; k++)
                assert_true(out[i * 700 + k] == (float)q[k] * (float)scale[k]);
        }
        phx_weight_destroy(b, packed);
        phx_backend_close(b);
    }
}

/* What phx_i8_quantise() makes, packed as it is, gives the bits of packing floats. */
static void quantised_rows_pack_to_the_same_bits(void **state)
{
    static const struct shape s = {5, 37, 1500, 3};
    struct phx_weight_desc    desc = {.dtype = PHX_DTYPE_I8, .n = 37, .k = 1500, .n_experts = 1, .n_slices = 3};
    float  *x = take(5 * 1500, 4), *w = take(37 * 1500, 4), *scales;
    float   plain[5 * 37], again[5 * 37];
    int8_t *values = take(37 * 1500, 1);
    int32_t groups;
    int     cursor = 0;
    struct phx_backend      *b;
    struct phx_weight_source floats = {.data = w, .dtype = PHX_DTYPE_F32, .row_stride = 1500 * 4, .k_stride = 4,
                                       .n_rows = 37};

    (void)state;
    seed_random(36);
    fill_random(x, 5 * 1500);
    fill_random(w, 37 * 1500);
    for (int32_t i = 0; i < 3; i++)
        desc.slice_end[i] = cut(&s, i + 1);
    groups = phx_i8_groups(&desc);
    assert_int_equal(groups, 6); /* two of each 500 */
    scales = take(37 * (size_t)groups + 1, 4);
    phx_i8_quantise(&desc, &floats, values, scales);
    while ((b = next_backend(&cursor)) != NULL) {
        struct phx_weight       *packed = phx_weight_create(b, &desc);
        struct phx_weight_source ready = {.data = values, .dtype = PHX_DTYPE_I8, .row_stride = 1500,
                                          .scale = (const uint8_t *)scales, .scale_row_stride = groups * 4};

        for (int32_t first = 0; first < 37; first += ready.n_rows) {
            ready.first_row = first;
            ready.n_rows = first == 0 ? 9 : 28;
            ready.data = values + first * 1500;
            ready.scale = (const uint8_t *)(scales + first * groups);
            phx_weight_pack(b, packed, &ready);
        }
        phx_matmul(b, phx_view(again, 5, 37), phx_view(x, 5, 1500), packed, phx_view(NULL, 1, 37));
        expect_ok(b);
        phx_weight_destroy(b, packed);
        packed = make_weight(b, w, &s, 0, 3);
        phx_matmul(b, phx_view(plain, 5, 37), phx_view(x, 5, 1500), packed, phx_view(NULL, 1, 37));
        expect_ok(b);
        assert_memory_equal(plain, again, sizeof(plain));
        ready.scale = NULL;
        phx_weight_pack(b, packed, &ready);
        assert_int_equal(phx_backend_sync(b, NULL), -1);
        phx_weight_destroy(b, packed);
        phx_backend_close(b);
    }
    drop(x);
    drop(w);
    drop(scales);
    drop(values);
}

const struct CMUnitTest i8_tests[] = {
    cmocka_unit_test(every_path_gives_what_is_defined),
    cmocka_unit_test(a_row_alone_equals_the_row_in_a_batch),
    cmocka_unit_test(slices_of_ranks_sum_to_the_same_bits),
    cmocka_unit_test(strange_rows_stay_by_themselves),
    cmocka_unit_test(rows_read_back_are_close),
    cmocka_unit_test(quantised_rows_pack_to_the_same_bits),
};
const size_t n_i8_tests = sizeof(i8_tests) / sizeof(i8_tests[0]);
