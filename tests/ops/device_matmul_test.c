/* SPDX-License-Identifier: Apache-2.0
 * Products on every kind of backend: against double precision; any number of rows, on whatever kernel, gives the same
 * bits; slices of ranks join to the same bits; int8 has the bits of the CPU. */
#include <math.h>

#include "tests/emu/control.h"
#include "tests/ops/rig.h"

struct shape {
    enum phx_dtype dtype;
    int32_t        rows, n, k, n_slices;
};

static const struct shape shapes[] = {
    {PHX_DTYPE_F32, 1, 1, 1, 1},       {PHX_DTYPE_F32, 3, 17, 33, 1},      {PHX_DTYPE_F32, 13, 70, 64, 8},
    {PHX_DTYPE_F32, 33, 32, 700, 3},   {PHX_DTYPE_F32, 1, 32, 2880, 1},    {PHX_DTYPE_F32, 0, 16, 16, 1},
    {PHX_DTYPE_F16, 3, 40, 50, 1},     {PHX_DTYPE_F16, 9, 64, 64, 2},      {PHX_DTYPE_BF16, 1, 64, 128, 1},
    {PHX_DTYPE_BF16, 1, 130, 127, 1},  {PHX_DTYPE_BF16, 7, 65, 63, 1},     {PHX_DTYPE_BF16, 12, 96, 256, 8},
    {PHX_DTYPE_BF16, 16, 48, 72, 8},   {PHX_DTYPE_BF16, 17, 33, 100, 4},   {PHX_DTYPE_BF16, 2, 33, 1100, 1},
    {PHX_DTYPE_BF16, 33, 40, 1100, 8}, {PHX_DTYPE_BF16, 70, 130, 544, 1},  {PHX_DTYPE_BF16, 65, 17, 4700, 1},
    {PHX_DTYPE_BF16, 2, 16, 5, 8},     {PHX_DTYPE_BF16, 5, 9, 4600, 1},    {PHX_DTYPE_BF16, 40, 20, 2000, 3},
    {PHX_DTYPE_BF16, 70, 16, 5, 8},    {PHX_DTYPE_BF16, 64, 18, 37, 3},
    {PHX_DTYPE_MXFP4, 1, 64, 64, 1},   {PHX_DTYPE_MXFP4, 5, 23, 96, 1},    {PHX_DTYPE_MXFP4, 11, 70, 128, 8},
    {PHX_DTYPE_MXFP4, 4, 16, 2880, 8}, {PHX_DTYPE_MXFP4, 49, 48, 1120, 5}, {PHX_DTYPE_MXFP4, 70, 16, 640, 1},
};

enum { N_SHAPES = sizeof(shapes) / sizeof(shapes[0]), SOURCE_PAD = 3 };

static const float mx[8] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6};

/* A matrix as a checkpoint has it, its bytes unaligned, and what it means. */
struct matrix {
    struct shape   s;
    unsigned char *source, *scale;
    double        *w; /* [n][k] */
};

static int64_t element_bytes(enum phx_dtype dtype)
{
    return dtype == PHX_DTYPE_F32 || dtype == PHX_DTYPE_I8 ? 4 : 2;
}

static double half_value(uint16_t h)
{
    double v = (h & 0x7c00) == 0 ? ldexp((h & 0x3ff) / 1024.0, -14) : ldexp(1.0 + (h & 0x3ff) / 1024.0, ((h >> 10) & 31) - 15);

    return (h & 0x8000) != 0 ? -v : v;
}

static double make_element(struct matrix *m, size_t i)
{
    unsigned char *at = m->source + SOURCE_PAD + i * (size_t)element_bytes(m->s.dtype);
    float          f = random_float();
    uint16_t       h = to_bf16(f);

    if (m->s.dtype == PHX_DTYPE_F32 || m->s.dtype == PHX_DTYPE_I8) {
        memcpy(at, &f, sizeof(f));
        return (double)f;
    }
    if (m->s.dtype == PHX_DTYPE_F16)
        h = (uint16_t)(random_u32() & 0x4fffu) | (uint16_t)(random_u32() & 0x8000u);
    memcpy(at, &h, sizeof(h));
    return m->s.dtype == PHX_DTYPE_F16 ? half_value(h) : (double)from_bf16(h);
}

static double mx_element(const struct matrix *m, size_t i)
{
    unsigned q = m->source[SOURCE_PAD + i / 2] >> (i % 2 * 4) & 15u;
    double   v = ldexp((double)mx[q & 7u], m->scale[i / PHX_MX_BLOCK] - 127);

    return (q & 8u) != 0 ? -v : v;
}

static struct matrix make_matrix(const struct shape *s)
{
    size_t        n = (size_t)s->n * (size_t)s->k;
    struct matrix m = {*s, take(n + 8, 4), take(n / PHX_MX_BLOCK + 1, 1), take(n, sizeof(double))};

    for (size_t i = 0; s->dtype == PHX_DTYPE_MXFP4 && i < n; i++) {
        m.source[SOURCE_PAD + i / 2] = (unsigned char)random_u32();
        m.scale[i / PHX_MX_BLOCK] = (uint8_t)(120 + random_u32() % 10);
    }
    for (size_t i = 0; i < n; i++)
        m.w[i] = s->dtype == PHX_DTYPE_MXFP4 ? mx_element(&m, i) : make_element(&m, i);
    return m;
}

static void drop_matrix(struct matrix *m)
{
    drop(m->source);
    drop(m->scale);
    drop(m->w);
}

static int32_t cut(const struct shape *s, int32_t i, int32_t total)
{
    if (s->dtype == PHX_DTYPE_MXFP4)
        return s->k / PHX_MX_BLOCK * i / total * PHX_MX_BLOCK;
    return s->k * i / total;
}

/* Slices [first, first + count) of `total`, as the rank that owns them packs them, in pieces with borders inside tiles. */
static struct phx_weight *pack_slices(struct rig *r, const struct matrix *m, int32_t first, int32_t count, int32_t total)
{
    int32_t                  k0 = cut(&m->s, first, total);
    struct phx_weight_desc   desc = {.dtype = m->s.dtype, .n = m->s.n, .n_experts = 1, .n_slices = count};
    struct phx_weight_source s = {.dtype = m->s.dtype == PHX_DTYPE_I8 ? PHX_DTYPE_F32 : m->s.dtype,
                                  .k_stride = element_bytes(m->s.dtype)};
    bool                     is_mx = m->s.dtype == PHX_DTYPE_MXFP4;
    struct phx_weight       *w;

    for (int32_t i = 0; i < count; i++)
        desc.slice_end[i] = cut(&m->s, first + i + 1, total) - k0;
    desc.k = desc.slice_end[count - 1];
    s.row_stride = is_mx ? m->s.k / 2 : m->s.k * s.k_stride;
    s.scale_row_stride = m->s.k / PHX_MX_BLOCK;
    w = phx_weight_create(r->b, &desc);
    assert_non_null(w);
    for (; s.first_row < m->s.n; s.first_row += s.n_rows) {
        s.n_rows = s.first_row == 0 ? (m->s.n + 2) / 3 : m->s.n - s.first_row;
        s.data = m->source + SOURCE_PAD + s.first_row * s.row_stride + (is_mx ? k0 / 2 : k0 * s.k_stride);
        s.scale = is_mx ? m->scale + s.first_row * s.scale_row_stride + k0 / PHX_MX_BLOCK : NULL;
        phx_weight_pack(r->b, w, &s);
    }
    expect_ok(r->b);
    return w;
}

/* Rows of k floats, `pad` floats apart from each other and from the start. */
static struct phx_tensor put_rows(struct rig *r, const float *x, int32_t rows, int32_t k, int32_t pad)
{
    float            *host = take((size_t)pad + (size_t)rows * (size_t)(k + pad), sizeof(float)), *device;
    struct phx_tensor t;

    memset(host, 0xff, ((size_t)pad + (size_t)rows * (size_t)(k + pad)) * sizeof(float));
    for (int32_t i = 0; i < rows; i++)
        memcpy(host + pad + (int64_t)i * (k + pad), x + (int64_t)i * k, (size_t)k * sizeof(float));
    device = rig_floats(r, host, (size_t)pad + (size_t)rows * (size_t)(k + pad));
    drop(host);
    t = phx_view(device + pad, rows, k);
    t.stride0 = k + pad;
    return t;
}

/* out [rows][n] = x w (+ bias), through memory with gaps that must stay as they are. */
static void multiply(struct rig *r, const struct phx_weight *w, const float *x, int32_t rows, const float *bias, int32_t pad,
                     float *out)
{
    const struct phx_weight_desc *d = phx_weight_describe(w);
    int                           before = r->n_memory;
    size_t                        size = (size_t)rows * (size_t)(d->n + pad);
    struct phx_tensor             to = phx_view(rig_blank(r, size * sizeof(float)), rows, d->n);
    struct phx_tensor             b = phx_view(bias != NULL ? rig_floats(r, bias, (size_t)d->n) : NULL, 1, d->n);
    float                        *all = take(size, sizeof(float));

    to.stride0 = d->n + pad;
    phx_matmul(r->b, to, put_rows(r, x, rows, d->k, pad), w, b);
    rig_get(r, all, to.data, size * sizeof(float));
    for (int32_t i = 0; i < rows; i++) {
        memcpy(out + (int64_t)i * d->n, all + (int64_t)i * to.stride0, (size_t)d->n * sizeof(float));
        for (int32_t j = d->n; j < to.stride0; j++)
            assert_true(isnan(all[i * to.stride0 + j]));
    }
    drop(all);
    rig_back(r, before);
}

/* ---- against double precision ---------------------------------------------------------------- */

static bool is_rounded(const struct shape *s, enum phx_compute compute)
{
    return compute == PHX_COMPUTE_BF16 && (s->dtype == PHX_DTYPE_BF16 || s->dtype == PHX_DTYPE_MXFP4);
}

static void check_exactly(struct rig *r, const struct matrix *m, enum phx_compute compute, int32_t pad)
{
    size_t  n = (size_t)m->s.rows * (size_t)m->s.n, x_floats = (size_t)m->s.rows * (size_t)m->s.k;
    float  *x = take(x_floats, sizeof(float)), *bias = take((size_t)m->s.n, sizeof(float)), *out = take(n, sizeof(float));
    double *want = take(n, sizeof(double)), *size = take(n, sizeof(double));
    struct phx_weight *w = pack_slices(r, m, 0, m->s.n_slices, m->s.n_slices);

    fill_random(x, x_floats);
    fill_random(bias, (size_t)m->s.n);
    for (size_t i = 0; i < n; i++) {
        size_t t = i / (size_t)m->s.n, row = i % (size_t)m->s.n;

        want[i] = pad > 0 ? (double)bias[row] : 0.0;
        size[i] = fabs(want[i]) + 1e-9;
        for (size_t k = 0; k < (size_t)m->s.k; k++) {
            float  v = x[t * (size_t)m->s.k + k];
            double p = m->w[row * (size_t)m->s.k + k] * (double)(is_rounded(&m->s, compute) ? from_bf16(to_bf16(v)) : v);

            want[i] += p;
            size[i] += fabs(p);
        }
    }
    multiply(r, w, x, m->s.rows, pad > 0 ? bias : NULL, pad, out);
    expect_near("matmul", r, out, want, size, n, is_rounded(&m->s, compute) ? 1e-5 : 5e-6);
    phx_weight_destroy(r->b, w);
    drop(x);
    drop(bias);
    drop(out);
    drop(want);
    drop(size);
}

static void products_are_exact(void **state)
{
    (void)state;
    seed_random(71);
    for (int compute = PHX_COMPUTE_F32; compute <= PHX_COMPUTE_BF16; compute++) {
        struct rig r;
        int        cursor = 0;

        while (next_rig(&r, &cursor, (enum phx_compute)compute)) {
            for (int i = 0; i < N_SHAPES; i++) {
                struct matrix m = make_matrix(&shapes[i]);

                check_exactly(&r, &m, (enum phx_compute)compute, i % 2 * 3);
                drop_matrix(&m);
            }
            close_rig(&r);
        }
    }
}

/* ---- the same bits, however many rows --------------------------------------------------------- */

/* Every number of rows against all rows at once; one row is NaN, which no neighbour may feel. */
static void check_rows(struct rig *r, const struct shape *s, int32_t step)
{
    struct matrix      m = make_matrix(s);
    struct phx_weight *w = pack_slices(r, &m, 0, s->n_slices, s->n_slices);
    size_t             row_bytes = (size_t)s->n * sizeof(float);
    float             *x = take((size_t)s->rows * (size_t)s->k, sizeof(float));
    float             *all = take((size_t)s->rows, row_bytes), *some = take((size_t)s->rows, row_bytes);

    fill_random(x, (size_t)s->rows * (size_t)s->k);
    multiply(r, w, x, s->rows, NULL, 0, all);
    for (int32_t n = 1; n < s->rows; n += n < 36 ? 1 : step) {
        int32_t first = (int32_t)(random_u32() % (uint32_t)(s->rows - n + 1));

        multiply(r, w, x + (int64_t)first * s->k, n, NULL, n % 2, some);
        if (memcmp(some, all + (int64_t)first * s->n, (size_t)n * row_bytes) != 0)
            fail_msg("%s, dtype %d, k %d: %d rows differ from %d", phx_backend_name(r->b), (int)s->dtype, s->k, n, s->rows);
    }
    for (int32_t k = 0; k < s->k; k++)
        x[k] = k % 2 == 0 ? NAN : INFINITY;
    multiply(r, w, x, s->rows, NULL, 0, some);
    for (int32_t i = 0; i < s->n; i++)
        assert_true(isnan(some[i]));
    assert_memory_equal(some + s->n, all + s->n, (size_t)(s->rows - 1) * row_bytes);
    phx_weight_destroy(r->b, w);
    drop_matrix(&m);
    drop(x);
    drop(all);
    drop(some);
}

static void any_number_of_rows_gives_the_same_bits(void **state)
{
    static const struct shape kinds[] = {
        {PHX_DTYPE_BF16, 70, 40, 1100, 1}, {PHX_DTYPE_BF16, 70, 33, 720, 8},  {PHX_DTYPE_MXFP4, 70, 40, 1120, 1},
        {PHX_DTYPE_MXFP4, 70, 17, 960, 8}, {PHX_DTYPE_I8, 70, 40, 600, 1},    {PHX_DTYPE_I8, 70, 17, 900, 5},
        {PHX_DTYPE_F32, 40, 33, 700, 1},   {PHX_DTYPE_F16, 40, 17, 300, 3},
    };

    (void)state;
    seed_random(72);
    for (int compute = PHX_COMPUTE_F32; compute <= PHX_COMPUTE_BF16; compute++) {
        struct rig r;
        int        cursor = 0;

        while (next_rig(&r, &cursor, (enum phx_compute)compute)) {
            for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
                check_rows(&r, &kinds[i], 7);
            close_rig(&r);
        }
    }
}

/* The largest tiles are for products that fill the device: a small device here, a large product on a real one. */
static void large_tiles_give_the_same_bits(void **state)
{
    static const enum phx_dtype dtypes[] = {PHX_DTYPE_BF16, PHX_DTYPE_MXFP4, PHX_DTYPE_I8};
    struct phx_emu             *emu = rig_find_emulator();
    struct shape                s = {.rows = 135, .n = 145, .k = 1056, .n_slices = 1};
    struct rig                  r;
    int                         cursor = 0;

    (void)state;
    seed_random(73);
    if (emu != NULL) {
        emu->sm_count = 1;
        emu->arch = 80;
    } else {
        s.rows = 1100;
        s.n = 4000;
    }
    while (next_rig(&r, &cursor, PHX_COMPUTE_BF16)) {
        for (size_t i = 0; r.is_cuda && i < sizeof(dtypes) / sizeof(dtypes[0]); i++) {
            s.dtype = dtypes[i];
            check_rows(&r, &s, 40);
        }
        close_rig(&r);
    }
    if (emu != NULL)
        emu->reset();
}

/* What tp ranks compute and add by recursive doubling is what one rank computes. */
static void check_ranks(struct rig *r, const struct shape *s, int32_t tp)
{
    struct matrix      m = make_matrix(s);
    struct phx_weight *w = pack_slices(r, &m, 0, 8, 8);
    size_t             n = (size_t)s->rows * (size_t)s->n;
    float             *x = take((size_t)s->rows * (size_t)s->k, sizeof(float)), *mine = take((size_t)s->rows * (size_t)s->k, 4);
    float             *whole = take(n, sizeof(float)), *part = take(8 * n, sizeof(float));

    fill_random(x, (size_t)s->rows * (size_t)s->k);
    multiply(r, w, x, s->rows, NULL, 0, whole);
    phx_weight_destroy(r->b, w);
    for (int32_t rank = 0; rank < tp; rank++) {
        int32_t first = cut(s, rank * 8 / tp, 8), k;

        w = pack_slices(r, &m, rank * 8 / tp, 8 / tp, 8);
        k = phx_weight_describe(w)->k;
        for (int32_t t = 0; t < s->rows; t++)
            memcpy(mine + (int64_t)t * k, x + (int64_t)t * s->k + first, (size_t)k * sizeof(float));
        multiply(r, w, mine, s->rows, NULL, 0, part + (size_t)rank * n);
        phx_weight_destroy(r->b, w);
    }
    for (int32_t step = 1; step < tp; step *= 2)
        for (int32_t rank = 0; rank < tp; rank += 2 * step)
            for (size_t i = 0; i < n; i++)
                part[(size_t)rank * n + i] += part[(size_t)(rank + step) * n + i];
    assert_memory_equal(whole, part, n * sizeof(float));
    drop_matrix(&m);
    drop(x);
    drop(mine);
    drop(whole);
    drop(part);
}

static void slices_of_ranks_sum_to_the_same_bits(void **state)
{
    static const struct shape kinds[] = {
        {PHX_DTYPE_BF16, 3, 40, 144, 8},   {PHX_DTYPE_BF16, 35, 20, 4640, 8}, {PHX_DTYPE_MXFP4, 3, 40, 2880, 8},
        {PHX_DTYPE_MXFP4, 40, 16, 960, 8}, {PHX_DTYPE_F32, 3, 40, 1100, 8},   {PHX_DTYPE_I8, 9, 24, 2880, 8},
        {PHX_DTYPE_I8, 40, 17, 600, 8},
    };
    struct rig r;
    int        cursor = 0;

    (void)state;
    seed_random(74);
    while (next_rig(&r, &cursor, PHX_COMPUTE_BF16)) {
        for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++)
            for (int32_t tp = 2; tp <= 8; tp *= 2)
                check_ranks(&r, &kinds[i], tp);
        close_rig(&r);
    }
}

/* A group's sum is an exact integer and everything else one rounding after the other, so all backends agree. */
static void int8_has_the_same_bits_on_every_backend(void **state)
{
    static const struct shape kinds[] = {
        {PHX_DTYPE_I8, 1, 1, 1, 1},     {PHX_DTYPE_I8, 1, 16, 64, 1},   {PHX_DTYPE_I8, 3, 17, 33, 1},
        {PHX_DTYPE_I8, 5, 40, 300, 1},  {PHX_DTYPE_I8, 33, 70, 256, 1}, {PHX_DTYPE_I8, 4, 35, 1100, 8},
        {PHX_DTYPE_I8, 40, 48, 700, 3}, {PHX_DTYPE_I8, 2, 16, 5, 8},    {PHX_DTYPE_I8, 70, 33, 72, 2},
        {PHX_DTYPE_I8, 18, 31, 2048, 8},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(kinds) / sizeof(kinds[0]); i++) {
        const struct shape *s = &kinds[i];
        size_t              n = (size_t)s->rows * (size_t)s->n, x_floats = (size_t)s->rows * (size_t)s->k;
        float              *x = take(x_floats, sizeof(float)), *out[2] = {take(n, sizeof(float)), take(n, sizeof(float))};
        float              *bias = take((size_t)s->n, sizeof(float));
        struct matrix       m;
        struct rig          r;
        int                 cursor = 0;

        seed_random(75 + i);
        m = make_matrix(s);
        fill_random(x, x_floats);
        fill_random(bias, (size_t)s->n);
        for (int32_t k = 0; i == 4 && k < s->k; k++)
            x[5 * s->k + k] *= 1e-33f; /* too small for a scale */
        while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
            struct phx_weight *w = pack_slices(&r, &m, 0, s->n_slices, s->n_slices);

            multiply(&r, w, x, s->rows, bias, 1, out[cursor - 1]);
            if (cursor == 2 && memcmp(out[0], out[1], n * sizeof(float)) != 0)
                fail_msg("int8 product %zu of %s differs from the first backend's", i, phx_backend_name(r.b));
            phx_weight_destroy(r.b, w);
            close_rig(&r);
        }
        drop_matrix(&m);
        drop(x);
        drop(bias);
        drop(out[0]);
        drop(out[1]);
    }
}

/* int8 that was quantised elsewhere is taken as it is: the bits of quantising here. */
static void int8_sources_are_taken_as_they_are(void **state)
{
    static const struct shape s = {PHX_DTYPE_I8, 11, 37, 700, 3};
    int8_t                   *values = take((size_t)s.n * (size_t)(s.k + 5) + 1, 1), *dense = take((size_t)s.n * (size_t)s.k, 1);
    struct phx_weight_desc    desc = {PHX_DTYPE_I8, s.n, s.k, 1, 3, {233, 466, 700}};
    int32_t                   groups = phx_i8_groups(&desc);
    float                    *scales = take((size_t)s.n * (size_t)groups, sizeof(float));
    unsigned char            *apart = take((size_t)s.n * (size_t)(groups * 4 + 3) + 1, 1);
    float                    *x = take((size_t)s.rows * (size_t)s.k, sizeof(float)), out[2][11 * 37];
    struct matrix             m;
    struct rig                r;
    int                       cursor = 0;

    (void)state;
    seed_random(76);
    m = make_matrix(&s);
    fill_random(x, (size_t)s.rows * (size_t)s.k);
    phx_i8_quantise(&desc, &(struct phx_weight_source){.data = m.source + SOURCE_PAD, .dtype = PHX_DTYPE_F32,
                                                       .row_stride = s.k * 4, .k_stride = 4, .n_rows = s.n},
                    dense, scales);
    for (int32_t row = 0; row < s.n; row++) { /* rows apart, nothing aligned */
        memcpy(values + 1 + row * (s.k + 5), dense + row * s.k, (size_t)s.k);
        memcpy(apart + 1 + row * (groups * 4 + 3), scales + row * groups, (size_t)groups * 4);
    }
    while (next_rig(&r, &cursor, PHX_COMPUTE_BF16)) {
        struct phx_weight_source source = {.data = values + 1, .dtype = PHX_DTYPE_I8, .row_stride = s.k + 5, .scale = apart + 1,
                                           .scale_row_stride = groups * 4 + 3, .n_rows = s.n};
        struct phx_weight       *w = phx_weight_create(r.b, &desc), *same = pack_slices(&r, &m, 0, 3, 3);

        phx_weight_pack(r.b, w, &source);
        multiply(&r, w, x, s.rows, NULL, 0, out[0]);
        multiply(&r, same, x, s.rows, NULL, 0, out[1]);
        assert_memory_equal(out[0], out[1], sizeof(out[0]));
        phx_weight_destroy(r.b, w);
        phx_weight_destroy(r.b, same);
        close_rig(&r);
    }
    drop_matrix(&m);
    drop(values);
    drop(dense);
    drop(scales);
    drop(apart);
    drop(x);
}

/* ---- class B --------------------------------------------------------------------------------- */

/* A product on a backend of class B or A. */
static void multiply_as(bool is_fast, const struct matrix *m, const float *x, const float *bias, float *out)
{
    struct rig         r = rig_open_class(is_fast);
    struct phx_weight *w;

    w = pack_slices(&r, m, 0, m->s.n_slices, m->s.n_slices);
    multiply(&r, w, x, m->s.rows, bias, 3, out);
    phx_weight_destroy(r.b, w);
    close_rig(&r);
}

static void class_b_may_use_the_library(void **state)
{
    static const struct shape s = {PHX_DTYPE_BF16, 520, 37, 90, 4};
    size_t                    n = (size_t)s.rows * (size_t)s.n;
    float                    *x = take((size_t)s.rows * (size_t)s.k, sizeof(float)), *bias = take((size_t)s.n, sizeof(float));
    float                    *own = take(n, sizeof(float)), *fast = take(n, sizeof(float));
    struct phx_emu           *emu = rig_find_emulator();
    struct matrix             m;

    (void)state;
    seed_random(77);
    m = make_matrix(&s);
    fill_random(x, (size_t)s.rows * (size_t)s.k);
    fill_random(bias, (size_t)s.n);
    multiply_as(false, &m, x, bias, own);
    for (int i = 0; i < (emu != NULL ? 4 : 1); i++) { /* there, without a bias, missing, not for such shapes */
        if (emu != NULL) {
            emu->reset();
            emu->lacks_blas = i == 2;
            emu->blas_refuses = i == 3;
        }
        if (i == 1)
            multiply_as(false, &m, x, NULL, own);
        else if (i == 2)
            multiply_as(false, &m, x, bias, own);
        multiply_as(true, &m, x, i == 1 ? NULL : bias, fast);
        for (size_t j = 0; j < n; j++)
            if (!(fabsf(own[j] - fast[j]) <= 1e-4f * (fabsf(own[j]) + 100.0f)))
                fail_msg("case %d: output %zu is %g, of class A %g", i, j, (double)fast[j], (double)own[j]);
        if (i >= 2)
            assert_memory_equal(own, fast, n * sizeof(float));
        if (emu != NULL)
            assert_int_equal(emu->n_blas, i < 2 ? 1 : 0);
    }
    if (emu != NULL)
        emu->reset();
    drop_matrix(&m);
    drop(x);
    drop(bias);
    drop(own);
    drop(fast);
}

/* ---- warpgroups ------------------------------------------------------------------------------ */

/* The bits of an older device; where the device rounds otherwise, class A goes without, and class B is near. */
static void check_hopper(struct phx_emu *emu, const struct shape *s)
{
    size_t        n = (size_t)s->rows * (size_t)s->n, n_other = 0;
    float        *x = take((size_t)s->rows * (size_t)s->k, sizeof(float)), *bias = take((size_t)s->n, sizeof(float));
    float        *older = take(n, sizeof(float)), *hopper = take(n, sizeof(float));
    struct matrix m = make_matrix(s);

    fill_random(x, (size_t)s->rows * (size_t)s->k);
    fill_random(bias, (size_t)s->n);
    for (int way = 0; way < 4; way++) {
        emu->reset();
        emu->sm_count = s->rows % 5 + 1; /* several pieces for a block of the grid */
        emu->arch = way == 0 ? 80 : 90;
        emu->truncates = way >= 2;
        emu->lacks_blas = 1;
        multiply_as(way == 3, &m, x, bias, way == 0 ? older : hopper);
        if (way == 3)
            for (size_t i = 0; i < n; i++) {
                n_other += older[i] != hopper[i];
                assert_true(fabsf(older[i] - hopper[i]) <= 1e-4f * (fabsf(older[i]) + 100.0f));
            }
        else if (way > 0 && memcmp(older, hopper, n * sizeof(float)) != 0)
            fail_msg("way %d: %d rows, n %d, k %d, %d slices differ", way, s->rows, s->n, s->k, s->n_slices);
    }
    assert_true(s->rows < 64 ? n_other == 0 : n_other > 0);
    emu->reset();
    drop_matrix(&m);
    drop(x);
    drop(bias);
    drop(older);
    drop(hopper);
}

static void warpgroups_give_the_same_bits_or_stay_away(void **state)
{
    static const struct shape kinds[] = {
        {PHX_DTYPE_BF16, 64, 40, 1100, 1},   {PHX_DTYPE_BF16, 129, 130, 600, 1},  {PHX_DTYPE_BF16, 300, 257, 96, 1},
        {PHX_DTYPE_BF16, 101, 145, 1000, 8}, {PHX_DTYPE_BF16, 199, 16, 1300, 5},  {PHX_DTYPE_BF16, 65, 33, 90, 2},
        {PHX_DTYPE_BF16, 257, 20, 37, 3},    {PHX_DTYPE_MXFP4, 66, 70, 1120, 1},  {PHX_DTYPE_MXFP4, 131, 300, 96, 1},
        {PHX_DTYPE_MXFP4, 97, 140, 992, 8},  {PHX_DTYPE_MXFP4, 260, 17, 544, 3},  {PHX_DTYPE_BF16, 63, 40, 600, 1},
        {PHX_DTYPE_BF16, 520, 24, 330, 1},
    };
    struct phx_emu *emu = rig_find_emulator();

    (void)state;
    seed_random(78);
    for (size_t i = 0; emu != NULL && i < sizeof(kinds) / sizeof(kinds[0]); i++)
        check_hopper(emu, &kinds[i]);
}

const struct CMUnitTest device_matmul_tests[] = {
    cmocka_unit_test(products_are_exact),
    cmocka_unit_test(any_number_of_rows_gives_the_same_bits),
    cmocka_unit_test(large_tiles_give_the_same_bits),
    cmocka_unit_test(slices_of_ranks_sum_to_the_same_bits),
    cmocka_unit_test(int8_has_the_same_bits_on_every_backend),
    cmocka_unit_test(int8_sources_are_taken_as_they_are),
    cmocka_unit_test(class_b_may_use_the_library),
    cmocka_unit_test(warpgroups_give_the_same_bits_or_stay_away),
};
const size_t n_device_matmul_tests = sizeof(device_matmul_tests) / sizeof(device_matmul_tests[0]);
