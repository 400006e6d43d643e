/* SPDX-License-Identifier: Apache-2.0
 * Packing on every kind of backend: sources of every kind, order and alignment arrive element by element; rectangles of
 * several sources share tiles; stacks of experts; the ends of the MXFP4 scale.  Read back by products with unit rows. */
#include <math.h>

#include "tests/ops/rig.h"

/* w[row][k] of a matrix as float32 products see it: row t of the answer is column t of the matrix. */
static void read_matrix(struct rig *r, const struct phx_weight *w, float *out)
{
    const struct phx_weight_desc *d = phx_weight_describe(w);
    size_t                        k = (size_t)d->k, n = (size_t)d->n;
    int                           before = r->n_memory;
    float                        *unit = take(k * k, sizeof(float)), *columns = take(k * n, sizeof(float));
    struct phx_tensor             to = phx_view(rig_blank(r, k * n * sizeof(float)), d->k, d->n);

    for (size_t i = 0; i < k; i++)
        unit[i * k + i] = 1;
    phx_matmul(r->b, to, phx_view(rig_floats(r, unit, k * k), d->k, d->k), w, phx_view(NULL, 1, d->n));
    rig_get(r, columns, to.data, k * n * sizeof(float));
    for (size_t row = 0; row < n; row++)
        for (size_t i = 0; i < k; i++)
            out[row * k + i] = columns[i * n + row];
    rig_back(r, before);
    drop(unit);
    drop(columns);
}

/* ---- floats ---------------------------------------------------------------------------------- */

static int64_t size_of(enum phx_dtype dtype)
{
    return dtype == PHX_DTYPE_F32 ? 4 : dtype == PHX_DTYPE_BF16 || dtype == PHX_DTYPE_F16 ? 2 : 1;
}

static float f8_value(uint8_t b, bool is_e5m2)
{
    int   bits = is_e5m2 ? 2 : 3, bias = is_e5m2 ? 15 : 7, e = (b & 0x7f) >> bits, m = b & ((1 << bits) - 1);
    float v = e == 0 ? ldexpf((float)m, 1 - bias - bits) : ldexpf((float)(m + (1 << bits)), e - bias - bits);

    return (b & 0x80) != 0 ? -v : v;
}

static float half_value(uint16_t h)
{
    float v = (h & 0x7c00) == 0 ? ldexpf((float)(h & 0x3ff), -24)
                                : ldexpf((float)((h & 0x3ff) | 0x400), ((h >> 10) & 31) - 25);

    return (h & 0x8000) != 0 ? -v : v;
}

/* Writes an element (finite) and says what it is. */
static float write_element(unsigned char *at, enum phx_dtype dtype)
{
    float    f = random_float();
    uint16_t h = dtype == PHX_DTYPE_BF16 ? to_bf16(f) : (uint16_t)(random_u32() & 0xbbffu);
    uint8_t  b = (uint8_t)random_u32() & (dtype == PHX_DTYPE_F8_E5M2 ? 0xfbu : 0xf7u);

    switch (dtype) {
    case PHX_DTYPE_F32: memcpy(at, &f, sizeof(f)); return f;
    case PHX_DTYPE_BF16: memcpy(at, &h, sizeof(h)); return from_bf16(h);
    case PHX_DTYPE_F16: memcpy(at, &h, sizeof(h)); return half_value(h);
    default: *at = b; return f8_value(b, dtype == PHX_DTYPE_F8_E5M2);
    }
}

/* How the elements of a source lie. */
enum order { BY_ROWS, APART, TRANSPOSED, INTERLEAVED, BACKWARDS, N_ORDERS };

struct source_case {
    enum phx_dtype from, to;
    enum order     order;
    int32_t        n, k;
};

static void place(const struct source_case *c, int64_t size, int64_t *row_stride, int64_t *k_stride, int64_t *first)
{
    *first = 1;
    *k_stride = size;
    *row_stride = c->k * size + (c->order == APART ? 5 : 0);
    if (c->order == TRANSPOSED || c->order == INTERLEAVED) {
        *row_stride = size * (c->order == INTERLEAVED ? 2 : 1);
        *k_stride = *row_stride * c->n + 1;
    }
    if (c->order == BACKWARDS) {
        *first += (c->n - 1) * *row_stride;
        *row_stride = -*row_stride;
    }
}

static void check_source(struct rig *r, const struct source_case *c)
{
    int64_t        size = size_of(c->from), row_stride, k_stride, first;
    size_t         n = (size_t)c->n * (size_t)c->k;
    unsigned char *source = take(n * 8 + (size_t)c->n * 8 + (size_t)c->k + 64, 1);
    float         *want = take(n, sizeof(float)), *got = take(n, sizeof(float));
    struct phx_weight_desc   desc = {c->to, c->n, c->k, 1, 2, {c->k / 3, c->k}};
    struct phx_weight_source s = {.dtype = c->from};
    struct phx_weight       *w = phx_weight_create(r->b, &desc);
    static const int32_t     borders[] = {0, 3, 3, 17, 40, INT32_MAX};

    place(c, size, &row_stride, &k_stride, &first);
    for (int32_t row = 0; row < c->n; row++)
        for (int32_t k = 0; k < c->k; k++)
            want[(size_t)row * (size_t)c->k + (size_t)k] =
                write_element(source + first + row * row_stride + k * k_stride, c->from);
    s.row_stride = row_stride;
    s.k_stride = k_stride;
    for (int i = 4; i >= 0; i--) { /* the last rows first: rows of a tile come in any order */
        int32_t begin = borders[i] < c->n ? borders[i] : c->n, end = borders[i + 1] < c->n ? borders[i + 1] : c->n;

        s.first_row = begin;
        s.n_rows = end - begin;
        s.data = source + first + begin * row_stride;
        phx_weight_pack(r->b, w, &s);
    }
    memset(source, 0xee, n); /* packing has read it */
    read_matrix(r, w, got);
    for (size_t i = 0; i < n; i++)
        if (got[i] != want[i])
            fail_msg("%s: dtype %d as %d in order %d: element %zu is %g, not %g", phx_backend_name(r->b), (int)c->from,
                     (int)c->to, (int)c->order, i, (double)got[i], (double)want[i]);
    phx_weight_destroy(r->b, w);
    drop(source);
    drop(want);
    drop(got);
}

static void sources_of_every_kind_arrive(void **state)
{
    static const enum phx_dtype pairs[][2] = {
        {PHX_DTYPE_F32, PHX_DTYPE_F32},      {PHX_DTYPE_BF16, PHX_DTYPE_F32},     {PHX_DTYPE_F16, PHX_DTYPE_F32},
        {PHX_DTYPE_F8_E4M3, PHX_DTYPE_F32},  {PHX_DTYPE_F8_E5M2, PHX_DTYPE_F32},  {PHX_DTYPE_BF16, PHX_DTYPE_BF16},
        {PHX_DTYPE_F8_E4M3, PHX_DTYPE_BF16}, {PHX_DTYPE_F8_E5M2, PHX_DTYPE_BF16}, {PHX_DTYPE_F16, PHX_DTYPE_F16},
    };
    struct rig r;
    int        cursor = 0;

    (void)state;
    seed_random(81);
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        for (size_t i = 0; i < sizeof(pairs) / sizeof(pairs[0]); i++)
            for (int order = 0; order < N_ORDERS; order++) {
                struct source_case c = {pairs[i][0], pairs[i][1], (enum order)order, 45 + order, 70};

                check_source(&r, &c);
                c.k = 1;
                check_source(&r, &c);
                c.n = 1;
                c.k = 33;
                check_source(&r, &c);
            }
        close_rig(&r);
    }
}

static void f8_specials_are_widened(void **state)
{
    static const uint8_t     bytes[8] = {0x7f, 0xff, 0x7e, 0x80, 0x7c, 0xfc, 0x01, 0x7d};
    struct phx_weight_desc   desc = {PHX_DTYPE_BF16, 8, 1, 1, 1, {1}};
    struct phx_weight_source s = {.data = bytes, .row_stride = 1, .k_stride = 1, .n_rows = 8};
    struct rig               r;
    int                      cursor = 0;

    (void)state;
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        struct phx_weight *w = phx_weight_create(r.b, &desc);
        float              v[8];

        s.dtype = PHX_DTYPE_F8_E4M3;
        phx_weight_pack(r.b, w, &s);
        read_matrix(&r, w, v);
        assert_true(isnan(v[0]) && isnan(v[1]) && v[2] == 448 && v[3] == 0 && v[4] == 384 && v[6] == 0x1p-9f);
        s.dtype = PHX_DTYPE_F8_E5M2;
        phx_weight_pack(r.b, w, &s);
        read_matrix(&r, w, v);
        assert_true(isnan(v[0]) && isnan(v[2]) && isinf(v[4]) && v[4] > 0 && isinf(v[5]) && v[5] < 0 &&
                    v[6] == 0x1p-16f && isnan(v[7]));
        phx_weight_destroy(r.b, w);
        close_rig(&r);
    }
}

/* ---- MXFP4 ----------------------------------------------------------------------------------- */

static double mx_value(const uint8_t *row, const uint8_t *scale, int32_t k)
{
    static const double sizes[8] = {0, 0.5, 1, 1.5, 2, 3, 4, 6};
    unsigned            q = (unsigned)(row[k / 2] >> (k % 2 * 4)) & 15u;

    return ldexp((q & 8u) != 0 ? -sizes[q & 7u] : sizes[q & 7u], scale[k / 32] - 127);
}

/* Even rows of the source are the first half of the matrix, odd rows the second, as gate and up of gpt-oss. */
static void interleaved_halves_of_mxfp4_arrive(void **state)
{
    enum { N = 46, K = 96, PAD = 3 };
    static uint8_t blocks[N * (K / 2 + PAD) + 1], scales[N * (K / 32 + 1)];
    struct rig     r;
    int            cursor = 0;

    (void)state;
    seed_random(82);
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        struct phx_weight_desc   desc = {PHX_DTYPE_MXFP4, N, K, 1, 3, {32, 32, 96}};
        struct phx_weight_source s = {.dtype = PHX_DTYPE_MXFP4, .row_stride = 2 * (K / 2 + PAD),
                                      .scale_row_stride = 2 * (K / 32 + 1), .n_rows = N / 2};
        struct phx_weight       *w = phx_weight_create(r.b, &desc);
        float                    got[N * K];

        for (size_t i = 0; i < sizeof(blocks); i++)
            blocks[i] = (uint8_t)random_u32();
        for (size_t i = 0; i < sizeof(scales); i++)
            scales[i] = (uint8_t)(random_u32() % 250); /* no infinities: they meet the zeros of the unit rows */
        for (int half = 0; half < 2; half++) {
            s.first_row = half * N / 2;
            s.data = blocks + 1 + half * (K / 2 + PAD);
            s.scale = scales + half * (K / 32 + 1);
            phx_weight_pack(r.b, w, &s);
        }
        read_matrix(&r, w, got);
        for (int32_t i = 0; i < N * K; i++) {
            int32_t row = i / K < N / 2 ? 2 * (i / K) : 2 * (i / K - N / 2) + 1;
            float   want = (float)mx_value(blocks + 1 + row * (K / 2 + PAD), scales + row * (K / 32 + 1), i % K);

            if (got[i] != want)
                fail_msg("%s: element %d is %a, not %a", phx_backend_name(r.b), i, (double)got[i], (double)want);
        }
        phx_weight_destroy(r.b, w);
        close_rig(&r);
    }
}

/* One unit row against every scale: what enters a rounded product is exact as well. */
static void every_scale_of_mxfp4_is_exact(void **state)
{
    static const uint8_t block[16] = {0x10, 0x32, 0x54, 0x76, 0x98, 0xba, 0xdc, 0xfe, 0x01, 0x23, 0x45, 0x67, 0x89, 0xab,
                                      0xcd, 0xef};
    struct rig           r;
    int                  cursor = 0;

    (void)state;
    while (next_rig(&r, &cursor, PHX_COMPUTE_BF16)) {
        for (int scale = 0; r.is_cuda && scale < 255; scale++) { /* the CPU takes what is tiny for 0 */
            struct phx_weight_desc   desc = {PHX_DTYPE_MXFP4, 1, 32, 1, 1, {32}};
            uint8_t                  byte = (uint8_t)scale;
            struct phx_weight_source s = {.data = block, .dtype = PHX_DTYPE_MXFP4, .row_stride = 16, .scale = &byte,
                                          .scale_row_stride = 1, .n_rows = 1};
            struct phx_weight       *w = phx_weight_create(r.b, &desc);
            float                    got[32];

            phx_weight_pack(r.b, w, &s);
            read_matrix(&r, w, got);
            for (int k = 0; k < 32 && scale < 253; k++) /* beyond, infinities meet the zeros of the unit rows */
                if (got[k] != (float)mx_value(block, &byte, k))
                    fail_msg("scale %d, element %d is %a", scale, k, (double)got[k]);
            phx_weight_destroy(r.b, w);
        }
        close_rig(&r);
    }
}

/* ---- sizes ----------------------------------------------------------------------------------- */

static void sizes_are_those_of_the_layout(void **state)
{
    static const struct {
        struct phx_weight_desc desc;
        size_t                 bytes;
    } table[] = {
        {{PHX_DTYPE_MXFP4, 5760, 2880, 32, 1, {2880}}, (size_t)32 * 5760 * 90 * 17}, /* 4.25 bits: nothing is lost */
        {{PHX_DTYPE_BF16, 5120, 2880, 1, 1, {2880}}, (size_t)5120 * 2880 * 2},
        {{PHX_DTYPE_BF16, 17, 33, 1, 2, {1, 33}}, (size_t)32 * 64 * 2},
        {{PHX_DTYPE_F32, 1, 1, 3, 1, {1}}, (size_t)3 * 16 * 32 * 4},
        {{PHX_DTYPE_I8, 16, 300, 1, 1, {300}}, (size_t)16 * 320 + 16 * 2 * 4},
        {{PHX_DTYPE_BF16, 5, 0, 1, 1, {0}}, 0},
    };
    struct rig r;
    int        cursor = 0;

    (void)state;
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        for (size_t i = 0; r.is_cuda && i < sizeof(table) / sizeof(table[0]); i++)
            assert_int_equal(phx_weight_bytes(r.b, &table[i].desc), table[i].bytes);
        close_rig(&r);
    }
}

static void a_product_over_nothing_is_the_bias(void **state)
{
    struct phx_weight_desc desc = {PHX_DTYPE_BF16, 21, 0, 1, 2, {0, 0}};
    float                  bias[21], got[3 * 21];
    struct rig             r;
    int                    cursor = 0;

    (void)state;
    seed_random(83);
    fill_random(bias, 21);
    for (int compute = 0; compute < 2; compute++, cursor = 0)
        while (next_rig(&r, &cursor, (enum phx_compute)compute)) {
            struct phx_weight *w = phx_weight_create(r.b, &desc);
            struct phx_tensor  out = phx_view(rig_blank(&r, sizeof(got)), 3, 21);

            phx_matmul(r.b, out, phx_view(rig_blank(&r, 4), 3, 0), w, phx_view(rig_floats(&r, bias, 21), 1, 21));
            rig_get(&r, got, out.data, sizeof(got));
            for (int i = 0; i < 3 * 21; i++)
                assert_true(got[i] == bias[i % 21]);
            phx_weight_destroy(r.b, w);
            close_rig(&r);
        }
}

const struct CMUnitTest device_weight_tests[] = {
    cmocka_unit_test(sources_of_every_kind_arrive),
    cmocka_unit_test(f8_specials_are_widened),
    cmocka_unit_test(interleaved_halves_of_mxfp4_arrive),
    cmocka_unit_test(every_scale_of_mxfp4_is_exact),
    cmocka_unit_test(sizes_are_those_of_the_layout),
    cmocka_unit_test(a_product_over_nothing_is_the_bias),
};
const size_t n_device_weight_tests = sizeof(device_weight_tests) / sizeof(device_weight_tests[0]);
