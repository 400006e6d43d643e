/* SPDX-License-Identifier: Apache-2.0
 * Products: every path against the reference bit for bit, the reference against double precision. */
#include <math.h>
#include <stdio.h>

#include "tests/ops/support.h"

struct shape {
    enum phx_dtype dtype;
    int32_t        rows, n, k, n_slices;
};

static const struct shape shapes[] = {
    {PHX_DTYPE_F32, 1, 1, 1, 1},       {PHX_DTYPE_F32, 3, 17, 33, 1},
    {PHX_DTYPE_F32, 13, 70, 64, 8},    {PHX_DTYPE_BF16, 1, 64, 128, 1},
    {PHX_DTYPE_BF16, 1, 130, 127, 1},  {PHX_DTYPE_BF16, 7, 65, 63, 1},
    {PHX_DTYPE_BF16, 12, 96, 256, 8},  {PHX_DTYPE_BF16, 5, 48, 72, 8},
    {PHX_DTYPE_BF16, 2, 33, 100, 4},   {PHX_DTYPE_F16, 3, 40, 50, 1},
    {PHX_DTYPE_F16, 9, 64, 64, 2},     {PHX_DTYPE_MXFP4, 1, 64, 64, 1},
    {PHX_DTYPE_MXFP4, 5, 23, 96, 1},   {PHX_DTYPE_MXFP4, 11, 70, 128, 8},
    {PHX_DTYPE_MXFP4, 4, 16, 2880, 8}, {PHX_DTYPE_F32, 0, 16, 16, 1},
    {PHX_DTYPE_BF16, 33, 40, 1100, 8}, {PHX_DTYPE_BF16, 16, 32, 544, 1},
    {PHX_DTYPE_BF16, 530, 17, 70, 3},  {PHX_DTYPE_MXFP4, 49, 48, 1120, 5},
    {PHX_DTYPE_MXFP4, 21, 16, 640, 1}, {PHX_DTYPE_BF16, 2, 16, 5, 8},
};

enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

struct data {
    struct shape s;
    float       *x, *bias;
    void        *source;
    uint8_t     *scale;
    double      *exact; /* [rows][n] */
    double      *size;  /* sum of |w x|: the scale of rounding errors */
};

static const float mx[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

static double weight_of(const struct data *d, int32_t row, int32_t k)
{
    size_t at = (size_t)row * (size_t)d->s.k + (size_t)k;

    if (d->s.dtype == PHX_DTYPE_F32)
        return (double)((float *)d->source)[at];
    if (d->s.dtype == PHX_DTYPE_BF16)
        return (double)from_bf16(((uint16_t *)d->source)[at]);
    if (d->s.dtype == PHX_DTYPE_F16) { /* the test writes normal halves only */
        uint16_t h = ((uint16_t *)d->source)[at];
        double   v = ldexp(1.0 + (h & 0x3ff) / 1024.0, ((h >> 10) & 31) - 15);

        return (h & 0x8000) != 0 ? -v : v;
    }
    uint8_t  byte = ((uint8_t *)d->source)[at / 2];
    unsigned nibble = (k & 1) != 0 ? byte >> 4 : byte & 15u;
    double   v = ldexp((double)mx[nibble & 7u], d->scale[at / PHX_MX_BLOCK] - 127);

    return (nibble & 8u) != 0 ? -v : v;
}

static void make_data(struct data *d, const struct shape *s)
{
    size_t n = (size_t)s->n * (size_t)s->k;
    bool   is_rounded = get_compute() == PHX_COMPUTE_BF16 &&
                      (s->dtype == PHX_DTYPE_BF16 || s->dtype == PHX_DTYPE_MXFP4);

    *d = (struct data){.s = *s};
    d->x = take((size_t)s->rows * (size_t)s->k, sizeof(float));
    fill_random(d->x, (size_t)s->rows * (size_t)s->k);
    d->bias = take((size_t)s->n, sizeof(float));
    fill_random(d->bias, (size_t)s->n);
    d->source = take(n, 4);
    d->scale = take(n / PHX_MX_BLOCK + 1, 1);
    for (size_t i = 0; i < n; i++)
        if (s->dtype == PHX_DTYPE_F32)
            ((float *)d->source)[i] = random_float();
        else if (s->dtype == PHX_DTYPE_BF16)
            ((uint16_t *)d->source)[i] = to_bf16(random_float());
        else if (s->dtype == PHX_DTYPE_F16)
            ((uint16_t *)d->source)[i] =
                (uint16_t)((random_u32() & 0x83ffu) | ((10 + random_u32() % 8) << 10));
        else
            ((uint8_t *)d->source)[i / 2] = (uint8_t)random_u32();
    for (size_t i = 0; i < n / PHX_MX_BLOCK; i++)
        d->scale[i] = (uint8_t)(120 + random_u32() % 10);
    d->exact = take((size_t)s->rows * (size_t)s->n, sizeof(double));
    d->size = take((size_t)s->rows * (size_t)s->n, sizeof(double));
    for (int32_t t = 0; t < s->rows; t++)
        for (int32_t row = 0; row < s->n; row++) {
            double sum = (double)d->bias[row], size = fabs(sum);

            for (int32_t k = 0; k < s->k; k++) {
                float  x = d->x[(size_t)t * (size_t)s->k + (size_t)k];
                double p = weight_of(d, row, k) * (double)(is_rounded ? from_bf16(to_bf16(x)) : x);

                sum += p;
                size += fabs(p);
            }
            d->exact[(size_t)t * (size_t)s->n + (size_t)row] = sum;
            d->size[(size_t)t * (size_t)s->n + (size_t)row] = size;
        }
}

static void free_data(struct data *d)
{
    drop(d->x);
    drop(d->bias);
    drop(d->source);
    drop(d->scale);
    drop(d->exact);
    drop(d->size);
}

static int32_t cut(const struct shape *s, int32_t i, int32_t n)
{
    if (s->dtype == PHX_DTYPE_MXFP4)
        return s->k / PHX_MX_BLOCK * i / n * PHX_MX_BLOCK;
    return s->k * i / n;
}

/* The slices [first, first + count) of `total`, as a rank that owns them would pack them. */
static struct phx_weight *make_weight(struct phx_backend *b, const struct data *d, int32_t first,
                                      int32_t count, int32_t total, int32_t *k_first)
{
    struct phx_weight_desc desc = {.dtype = d->s.dtype, .n = d->s.n, .n_experts = 1, .n_slices = count};
    struct phx_weight_source source = {.dtype = d->s.dtype, .n_rows = d->s.n};
    struct phx_weight       *w;
    int32_t                  k0 = cut(&d->s, first, total);
    int64_t bytes = d->s.dtype == PHX_DTYPE_F32 ? 4 : 2;

    for (int32_t i = 0; i < count; i++)
        desc.slice_end[i] = cut(&d->s, first + i + 1, total) - k0;
    desc.k = desc.slice_end[count - 1];
    if (d->s.dtype == PHX_DTYPE_MXFP4) {
        source.data = (uint8_t *)d->source + k0 / 2;
        source.row_stride = d->s.k / 2;
        source.scale = d->scale + k0 / PHX_MX_BLOCK;
        source.scale_row_stride = d->s.k / PHX_MX_BLOCK;
    } else {
        source.data = (char *)d->source + (size_t)k0 * (size_t)bytes;
        source.k_stride = bytes;
        source.row_stride = (int64_t)d->s.k * bytes;
    }
    w = phx_weight_create(b, &desc);
    assert_non_null(w);
    /* two calls with a border inside a panel: rows may come from several tensors */
    source.n_rows = d->s.n / 3;
    phx_weight_pack(b, w, &source);
    source.first_row = source.n_rows;
    source.data = (const char *)source.data + source.n_rows * source.row_stride;
    if (source.scale != NULL)
        source.scale += source.n_rows * source.scale_row_stride;
    source.n_rows = d->s.n - source.first_row;
    phx_weight_pack(b, w, &source);
    expect_ok(b);
    *k_first = k0;
    return w;
}

static void multiply(struct phx_backend *b, const struct data *d, float *out)
{
    int32_t            k0;
    struct phx_weight *w = make_weight(b, d, 0, d->s.n_slices, d->s.n_slices, &k0);

    phx_matmul(b, phx_view(out, d->s.rows, d->s.n), phx_view(d->x, d->s.rows, d->s.k), w,
               phx_view(d->bias, 1, d->s.n));
    expect_ok(b);
    phx_weight_destroy(b, w);
}

static void every_path_gives_the_bits_of_the_reference(void **state)
{
    (void)state;
    seed_random(1);
    for (int i = 0; i < N_SHAPES; i++) {
        struct data         d;
        size_t              n = (size_t)shapes[i].rows * (size_t)shapes[i].n;
        int                 cursor = 0;
        struct phx_backend *b = next_backend(&cursor);
        float              *ref, *out;

        make_data(&d, &shapes[i]);
        ref = take(n, sizeof(float));
        out = take(n, sizeof(float));
        multiply(b, &d, ref);
        for (size_t j = 0; j < n; j++)
            if (!(fabs((double)ref[j] - d.exact[j]) <= 1e-6 * d.size[j] + 1e-12))
                fail_msg("shape %d output %zu: %g, exactly %g", i, j, (double)ref[j], d.exact[j]);
        phx_backend_close(b);
        while ((b = next_backend(&cursor)) != NULL) {
            memset(out, 0xff, n * sizeof(float));
            multiply(b, &d, out);
            if (memcmp(ref, out, n * sizeof(float)) != 0)
                fail_msg("shape %d: %s differs from ref", i, backend_label(b));
            phx_backend_close(b);
        }
        free_data(&d);
        drop(ref);
        drop(out);
    }
}

static void a_row_alone_equals_the_row_in_a_batch(void **state)
{
    const struct shape  s = {PHX_DTYPE_BF16, 13, 80, 96, 8};
    struct data         d;
    int                 cursor = 0;
    struct phx_backend *b;

    (void)state;
    seed_random(2);
    make_data(&d, &s);
    while ((b = next_backend(&cursor)) != NULL) {
        int32_t            k0;
        struct phx_weight *w = make_weight(b, &d, 0, 8, 8, &k0);
        float              all[13 * 80], one[80];

        phx_matmul(b, phx_view(all, 13, 80), phx_view(d.x, 13, 96), w, phx_view(NULL, 1, 80));
        for (int32_t t = 0; t < 13; t++) {
            phx_matmul(b, phx_view(one, 1, 80), phx_view(d.x + t * 96, 1, 96), w,
                       phx_view(NULL, 1, 80));
            expect_ok(b);
            assert_memory_equal(one, all + t * 80, sizeof(one));
        }
        phx_weight_destroy(b, w);
        phx_backend_close(b);
    }
    free_data(&d);
}

/* What tp ranks compute and add by recursive doubling is what one rank computes. */
static void slices_of_ranks_sum_to_the_same_bits(void **state)
{
    const struct shape kinds[] = {{PHX_DTYPE_BF16, 3, 40, 144, 8}, {PHX_DTYPE_MXFP4, 3, 40, 2880, 8},
                                  {PHX_DTYPE_F32, 3, 40, 64, 8}};

    (void)state;
    seed_random(3);
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
        for (int32_t tp = 2; tp <= 8; tp *= 2) {
            int                 cursor = 2; /* any path will do: they are equal */
            struct phx_backend *b = next_backend(&cursor);
            struct data         d;
            float               whole[3 * 40], part[8][3 * 40];
            int32_t             k0;
            struct phx_weight  *w;

            make_data(&d, &kinds[i]);
            w = make_weight(b, &d, 0, 8, 8, &k0);
            phx_matmul(b, phx_view(whole, 3, 40), phx_view(d.x, 3, d.s.k), w, phx_view(NULL, 1, 40));
            phx_weight_destroy(b, w);
            for (int32_t r = 0; r < tp; r++) {
                struct phx_tensor x = phx_view(d.x, 3, d.s.k);

                w = make_weight(b, &d, r * 8 / tp, 8 / tp, 8, &k0);
                phx_matmul(b, phx_view(part[r], 3, 40),
                           phx_columns(x, k0, phx_weight_describe(w)->k), w, phx_view(NULL, 1, 40));
                expect_ok(b);
                phx_weight_destroy(b, w);
            }
            for (int32_t step = 1; step < tp; step *= 2)
                for (int32_t r = 0; r < tp; r += 2 * step)
                    for (int j = 0; j < 3 * 40; j++)
                        part[r][j] += part[r + step][j];
            assert_memory_equal(whole, part[0], sizeof(whole));
            free_data(&d);
            phx_backend_close(b);
        }
}

static void embedding_reads_the_rows_it_holds(void **state)
{
    const struct shape  s = {PHX_DTYPE_BF16, 1, 20, 33, 1};
    const int32_t       ids[] = {100, 119, 99, 120, 107};
    struct data         d;
    int                 cursor = 0;
    struct phx_backend *b;

    (void)state;
    seed_random(4);
    make_data(&d, &s);
    while ((b = next_backend(&cursor)) != NULL) {
        float              out[5 * 33];
        int32_t            k0;
        struct phx_weight *w = make_weight(b, &d, 0, 1, 1, &k0);

        phx_embed(b, phx_view(out, 5, 33), ids, w, 100);
        expect_ok(b);
        for (int i = 0; i < 5; i++)
            for (int k = 0; k < 33; k++) {
                bool  is_held = ids[i] >= 100 && ids[i] < 120;
                float want = is_held ? (float)weight_of(&d, ids[i] - 100, k) : 0.0f;

                assert_true(out[i * 33 + k] == want);
            }
        phx_weight_destroy(b, w);
        phx_backend_close(b);
    }
    free_data(&d);
}

/* The golden block of the format's description, and the two ends of the scale. */
static void mxfp4_values_are_exact(void **state)
{
    static const uint8_t block[16] = {0x10, 0x32, 0x54, 0x76, 0x98, 0xBA, 0xDC, 0xFE,
                                      0x1A, 0x1A, 0x1A, 0x1A, 0x1A, 0x1A, 0x1A, 0x1A};
    static const float   want[16] = {0,  4,  8,   12,  16,  24,  32,  48,
                                     -0.0f, -4, -8, -12, -16, -24, -32, -48};
    const uint8_t       scales[] = {130, 1, 254};
    int                 cursor = 0;
    struct phx_backend *b;

    (void)state;
    while ((b = next_backend(&cursor)) != NULL) {
        for (int i = 0; i < 3; i++) {
            struct phx_weight_desc desc = {PHX_DTYPE_MXFP4, 1, 32, 1, 1, {32}};
            struct phx_weight_source source = {.data = block, .dtype = PHX_DTYPE_MXFP4, .row_stride = 16,
                                               .scale = &scales[i], .scale_row_stride = 1, .n_rows = 1};
            struct phx_weight       *w = phx_weight_create(b, &desc);
            const int32_t            id = 0;
            float                    out[32];

            phx_weight_pack(b, w, &source);
            phx_embed(b, phx_view(out, 1, 32), &id, w, 0);
            expect_ok(b);
            for (int k = 0; k < 32; k++) {
                float v = k < 16 ? want[k] : (k & 1) != 0 ? 4.0f : -8.0f;

                assert_true(out[k] == ldexpf(v, scales[i] - 130));
            }
            phx_weight_destroy(b, w);
        }
        phx_backend_close(b);
    }
}

static void transposed_and_8_bit_sources_are_packed(void **state)
{
    int                 cursor = 0;
    struct phx_backend *b;

    (void)state;
    while ((b = next_backend(&cursor)) != NULL) {
        /* [in, out] of 3 x 2: w[row][k] = 10 row + k lies at k * 2 + row */
        uint16_t transposed[6];
        uint8_t  f8[3] = {0x38, 0x01, 0x7e}; /* 1, 2^-9, 448 */
        struct phx_weight_desc   desc = {PHX_DTYPE_BF16, 3, 3, 1, 1, {3}};
        struct phx_weight_source source = {.data = transposed, .dtype = PHX_DTYPE_BF16, .row_stride = 2,
                                           .k_stride = 4, .n_rows = 2};
        struct phx_weight       *w = phx_weight_create(b, &desc);
        const int32_t            ids[3] = {0, 1, 2};
        float                    out[9];

        for (int row = 0; row < 2; row++)
            for (int k = 0; k < 3; k++)
                transposed[k * 2 + row] = to_bf16((float)(10 * row + k));
        phx_weight_pack(b, w, &source);
        source = (struct phx_weight_source){.data = f8, .dtype = PHX_DTYPE_F8_E4M3, .row_stride = 3,
                                            .k_stride = 1, .first_row = 2, .n_rows = 1};
        phx_weight_pack(b, w, &source);
        phx_embed(b, phx_view(out, 3, 3), ids, w, 0);
        expect_ok(b);
        assert_true(out[1] == 1 && out[3] == 10 && out[5] == 12);
        assert_true(out[6] == 1 && out[7] == 0.001953125f && out[8] == 448);
        phx_weight_destroy(b, w);
        phx_backend_close(b);
    }
}

static void wrong_arguments_stick_until_they_are_read(void **state)
{
    struct phx_backend_options options = {.n_threads = 1};
    char                       why[200];
    struct phx_backend        *b = phx_backend_open("cpu", &options, why, sizeof(why));
    struct phx_weight_desc     desc = {PHX_DTYPE_MXFP4, 4, 33, 1, 1, {33}};
    const char                *what = NULL;
    float                      x[8] = {1, 2, 3, 4}, y[8] = {0};

    (void)state;
    assert_null(phx_weight_create(b, &desc));
    assert_int_equal(phx_backend_sync(b, &what), -1);
    assert_non_null(strstr(what, "weight_create"));
    phx_add(b, phx_view(y, 1, 4), phx_view(x, 1, 5));
    phx_add(b, phx_view(y, 1, 4), phx_view(x, 1, 4)); /* skipped: the backend has failed */
    assert_int_equal(phx_backend_sync(b, &what), -1);
    assert_non_null(strstr(what, "add"));
    assert_true(y[0] == 0);
    phx_add(b, phx_view(y, 1, 4), phx_view(x, 1, 4));
    assert_int_equal(phx_backend_sync(b, NULL), 0);
    assert_true(y[3] == 4);
    phx_backend_close(b);
}

static void unknown_names_are_refused_with_a_reason(void **state)
{
    struct phx_backend_options options = {.isa = "mmx"};
    char                       why[200] = "";

    (void)state;
    assert_null(phx_backend_open("cpu", &options, why, sizeof(why)));
    assert_non_null(strstr(why, "mmx"));
    assert_null(phx_backend_open("abacus", NULL, why, sizeof(why)));
    assert_non_null(strstr(why, "abacus"));
}

const struct CMUnitTest matmul_tests[] = {
    cmocka_unit_test(every_path_gives_the_bits_of_the_reference),
    cmocka_unit_test(a_row_alone_equals_the_row_in_a_batch),
    cmocka_unit_test(slices_of_ranks_sum_to_the_same_bits),
    cmocka_unit_test(embedding_reads_the_rows_it_holds),
    cmocka_unit_test(mxfp4_values_are_exact),
    cmocka_unit_test(transposed_and_8_bit_sources_are_packed),
    cmocka_unit_test(wrong_arguments_stick_until_they_are_read),
    cmocka_unit_test(unknown_names_are_refused_with_a_reason),
};
const size_t n_matmul_tests = sizeof(matmul_tests) / sizeof(matmul_tests[0]);
