/* SPDX-License-Identifier: Apache-2.0
 * The experts of a mixture for every kind of weight: against double precision, and bit for bit alone, in a batch,
 * under skewed routing and cut in two ranks. */
#include <math.h>
#include <stdlib.h>

#include "tests/emu/control.h"
#include "tests/ops/rig.h"

/* One mixture in host memory; weights as sources and as the values they mean. */
struct mixture {
    int32_t        T, E, top, D, F, n_slices;
    enum phx_dtype up_dtype, down_dtype;
    enum phx_glu   kind;
    bool           has_bias;
    enum phx_compute compute;
    float         *x, *gates, *bias;
    int32_t       *ids;
    unsigned char *up, *up_scale, *down, *down_scale;
    float         *up_value, *down_value;
};

static const float E2M1[16] = {0, 0.5f, 1, 1.5f, 2, 3, 4, 6, -0.0f, -0.5f, -1, -1.5f, -2, -3, -4, -6};

static uint16_t to_f16(float f) /* of a value that a half can hold */
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    return f == 0 ? 0 : (uint16_t)((bits >> 16 & 0x8000u) | ((bits >> 13 & 0x3ffffu) - (112u << 10)));
}

static size_t source_bytes(enum phx_dtype dtype)
{
    return dtype == PHX_DTYPE_F32 ? 4 : 2;
}

/* n weights in the source's form and as floats; of many sizes, so that no sum is exact and its order shows. */
static void make_weights(enum phx_dtype dtype, size_t n, unsigned char **data, unsigned char **scale, float **value)
{
    *data = take(n, 4);
    *scale = take(n / PHX_MX_BLOCK + 1, 1);
    *value = take(n, sizeof(float));
    if (dtype == PHX_DTYPE_MXFP4)
        for (size_t i = 0; i < n; i++) {
            uint32_t q = random_u32() & 15;

            if (i % PHX_MX_BLOCK == 0)
                (*scale)[i / PHX_MX_BLOCK] = (unsigned char)(110 + random_u32() % 15);
            (*data)[i / 2] = (unsigned char)((*data)[i / 2] | q << (i % 2 * 4));
            (*value)[i] = ldexpf(E2M1[q], (*scale)[i / PHX_MX_BLOCK] - 127);
        }
    else
        for (size_t i = 0; i < n; i++) {
            uint16_t h = to_bf16(ldexpf(fminf(fmaxf(random_float(), -4), 4) * 0.2f + 1e-3f, -(int)(random_u32() % 8)));
            float    f = dtype == PHX_DTYPE_BF16 ? from_bf16(h) : roundf(from_bf16(h) * 256) / 256;

            h = dtype == PHX_DTYPE_F16 ? to_f16(f) : h;
            (*value)[i] = f;
            if (dtype == PHX_DTYPE_F32)
                memcpy(*data + i * 4, &f, 4);
            else
                memcpy(*data + i * 2, &h, 2);
        }
}

static void pick_experts(struct mixture *m, int32_t t)
{
    float sum = 0;

    for (int32_t j = 0; j < m->top; j++) {
        bool is_new;

        do {
            m->ids[t * m->top + j] = (int32_t)(random_u32() % (uint32_t)m->E);
            is_new = true;
            for (int32_t i = 0; i < j; i++)
                is_new = is_new && m->ids[t * m->top + i] != m->ids[t * m->top + j];
        } while (!is_new);
        sum += m->gates[t * m->top + j] = (float)(1 + random_u32() % 1000);
    }
    for (int32_t j = 0; j < m->top; j++)
        m->gates[t * m->top + j] /= sum;
}

static void make_mixture(struct mixture *m)
{
    size_t up = (size_t)m->E * 2 * (size_t)m->F * (size_t)m->D, down = up / 2;

    make_weights(m->up_dtype, up, &m->up, &m->up_scale, &m->up_value);
    make_weights(m->down_dtype, down, &m->down, &m->down_scale, &m->down_value);
    m->x = take((size_t)m->T * (size_t)m->D, sizeof(float));
    m->bias = take((size_t)m->E * 2 * (size_t)m->F, sizeof(float));
    m->ids = take((size_t)m->T * (size_t)m->top, sizeof(int32_t));
    m->gates = take((size_t)m->T * (size_t)m->top, sizeof(float));
    fill_random(m->x, (size_t)m->T * (size_t)m->D);
    fill_random(m->bias, (size_t)m->E * 2 * (size_t)m->F);
    for (int32_t t = 0; t < m->T; t++)
        pick_experts(m, t);
}

static void drop_mixture(struct mixture *m)
{
    void *all[] = {m->x, m->gates, m->bias, m->ids, m->up, m->up_scale, m->down, m->down_scale, m->up_value,
                   m->down_value};

    for (size_t i = 0; i < sizeof(all) / sizeof(all[0]); i++)
        drop(all[i]);
}

/* ---- on a backend -------------------------------------------------------------------------------- */

/* The part of the K-slices that a rank has: f first .. first + n - 1. */
struct part {
    int32_t slice, n_slices, first, n;
};

static int32_t slice_cut(const struct mixture *m, int32_t s)
{
    return m->F / 32 * s / m->n_slices * 32 + (s == m->n_slices ? m->F % 32 : 0);
}

static struct part cut_part(const struct mixture *m, int rank, int n_ranks)
{
    int32_t n = m->n_slices / n_ranks, first = slice_cut(m, n * rank);

    return (struct part){n * rank, n, first, slice_cut(m, n * rank + n) - first};
}

/* Rows first_row .. of expert e of the packed weight are rows `from` .. of the source, k from first_k on. */
static void pack_rows(struct phx_backend *b, struct phx_weight *w, enum phx_dtype dtype, const unsigned char *data,
                      const unsigned char *scale, const int32_t where[6])
{
    int32_t e = where[0], first_row = where[1], from = where[2], n_rows = where[3], first_k = where[4];
    int64_t k = where[5];
    size_t  at = (size_t)from * (size_t)k + (size_t)first_k;
    struct phx_weight_source source = {.data = data + at * source_bytes(dtype), .dtype = dtype,
                                       .row_stride = k * (int64_t)source_bytes(dtype),
                                       .k_stride = (int64_t)source_bytes(dtype), .expert = e,
                                       .first_row = first_row, .n_rows = n_rows};

    if (dtype == PHX_DTYPE_MXFP4) {
        source.data = data + at / 2;
        source.row_stride = k / 2;
        source.scale = scale + at / PHX_MX_BLOCK;
        source.scale_row_stride = k / PHX_MX_BLOCK;
    }
    phx_weight_pack(b, w, &source);
}

static struct phx_weight *pack_up(struct phx_backend *b, const struct mixture *m, const struct part *p)
{
    struct phx_weight_desc desc = {m->up_dtype, 2 * p->n, m->D, m->E, 1, {m->D}};
    struct phx_weight     *w = phx_weight_create(b, &desc);

    for (int32_t e = 0; e < m->E; e++)
        for (int32_t half = 0; half < 2; half++)
            pack_rows(b, w, m->up_dtype, m->up, m->up_scale,
                      (int32_t[]){e, half * p->n, (e * 2 + half) * m->F + p->first, p->n, 0, m->D});
    return w;
}

static struct phx_weight *pack_down(struct phx_backend *b, const struct mixture *m, const struct part *p)
{
    struct phx_weight_desc desc = {m->down_dtype, m->D, p->n, m->E, p->n_slices, {0}};
    struct phx_weight     *w;

    for (int32_t s = 0; s < p->n_slices; s++)
        desc.slice_end[s] = slice_cut(m, p->slice + s + 1) - p->first;
    w = phx_weight_create(b, &desc);
    for (int32_t e = 0; e < m->E; e++)
        pack_rows(b, w, m->down_dtype, m->down, m->down_scale,
                  (int32_t[]){e, 0, e * m->D, m->D, p->first, m->F});
    return w;
}

/* Rows of n 4-byte numbers that lie `pad` apart. */
static struct phx_tensor put_rows(struct rig *r, enum phx_dtype dtype, const void *host, int32_t rows, int32_t n,
                                  int32_t pad)
{
    size_t            stride = (size_t)(n + pad) * 4;
    unsigned char    *apart = take((size_t)rows, stride);
    struct phx_tensor t = {NULL, dtype, {rows, n}, n + pad};

    memset(apart, 0xff, (size_t)rows * stride);
    for (int32_t i = 0; i < rows; i++)
        memcpy(apart + (size_t)i * stride, (const unsigned char *)host + (size_t)i * (size_t)n * 4, (size_t)n * 4);
    t.data = rig_put(r, apart, (size_t)rows * stride);
    drop(apart);
    return t;
}

/* The rows, and that nothing between them was written. */
static void get_rows(struct rig *r, struct phx_tensor t, float *out)
{
    size_t pad = (size_t)(t.stride0 - t.dim[1]), n = (size_t)t.dim[1];
    float *all = take((size_t)t.dim[0] * (n + pad), sizeof(float));

    rig_get(r, all, t.data, (size_t)t.dim[0] * (n + pad) * sizeof(float));
    for (size_t i = 0; i < (size_t)t.dim[0]; i++) {
        memcpy(out + i * n, all + i * (n + pad), n * sizeof(float));
        for (size_t j = n; j < n + pad; j++)
            assert_true(isnan(all[i * (n + pad) + j]));
    }
    drop(all);
}

/* Rows first .. first + n - 1 through one rank's part; out [n, D]. */
static void run_part(struct rig *r, const struct mixture *m, const struct part *p, int32_t first, int32_t n,
                     float *out)
{
    struct phx_weight *up = pack_up(r->b, m, p), *down = pack_down(r->b, m, p);
    size_t             first_row = (size_t)first, D = (size_t)m->D;
    float             *bias = take((size_t)m->E * 2 * (size_t)p->n, sizeof(float));
    int                mark = r->n_memory;
    struct phx_moe_args args = {
        .out = phx_view(rig_blank(r, (size_t)n * (D + 5) * sizeof(float)), n, m->D),
        .x = put_rows(r, PHX_DTYPE_F32, m->x + first_row * D, n, m->D, 1),
        .ids = put_rows(r, PHX_DTYPE_I32, m->ids + first * m->top, n, m->top, 2),
        .gates = put_rows(r, PHX_DTYPE_F32, m->gates + first * m->top, n, m->top, 3),
        .gate_up = up, .down = down, .kind = m->kind, .limit = 7.0f};

    args.out.stride0 = m->D + 5;
    for (int32_t i = 0; i < m->E * 2; i++)
        memcpy(bias + i * p->n, m->bias + i * m->F + p->first, (size_t)p->n * sizeof(float));
    if (m->has_bias)
        args.gate_up_bias = put_rows(r, PHX_DTYPE_F32, bias, m->E, 2 * p->n, 1);
    phx_moe_reserve(r->b, n, m->top, up, down);
    phx_moe_ffn(r->b, &args);
    get_rows(r, args.out, out);
    rig_back(r, mark);
    phx_weight_destroy(r->b, up);
    phx_weight_destroy(r->b, down);
    drop(bias);
}

static void run_rows(struct rig *r, const struct mixture *m, int32_t first, int32_t n, float *out)
{
    struct part all = cut_part(m, 0, 1);

    run_part(r, m, &all, first, n, out);
}

/* ---- in double precision ------------------------------------------------------------------------- */

/* Activations are rounded when both kinds of weight want it. */
static bool is_rounded(const struct mixture *m)
{
    return m->compute == PHX_COMPUTE_BF16 && (m->up_dtype == PHX_DTYPE_BF16 || m->up_dtype == PHX_DTYPE_MXFP4) &&
           (m->down_dtype == PHX_DTYPE_BF16 || m->down_dtype == PHX_DTYPE_MXFP4);
}

static double entering(double v, const struct mixture *m)
{
    return is_rounded(m) ? (double)from_bf16(to_bf16((float)v)) : v;
}

static double exact_glu(double g, double u, enum phx_glu kind)
{
    if (kind == PHX_GLU_SILU)
        return g / (1 + exp(-g)) * u;
    g = g > 7 ? 7 : g;
    u = u > 7 ? 7 : u < -7 ? -7 : u;
    return g / (1 + exp(-1.702 * g)) * (u + 1);
}

static double dot(const float *w, const double *x, int32_t n)
{
    double sum = 0;

    for (int32_t i = 0; i < n; i++)
        sum += (double)w[i] * x[i];
    return sum;
}

static void exact_row(const struct mixture *m, int32_t t, double *out)
{
    double *x = take((size_t)m->D, sizeof(double)), *act = take((size_t)m->F, sizeof(double));

    for (int32_t i = 0; i < m->D; i++) {
        x[i] = entering((double)m->x[t * m->D + i], m);
        out[i] = 0;
    }
    for (int32_t j = 0; j < m->top; j++) {
        size_t       e = (size_t)m->ids[t * m->top + j], F = (size_t)m->F, D = (size_t)m->D;
        const float *bias = m->bias + e * 2 * F;

        for (size_t f = 0; f < F; f++) {
            double g = dot(m->up_value + (e * 2 * F + f) * D, x, m->D) + (m->has_bias ? (double)bias[f] : 0);
            double u = dot(m->up_value + (e * 2 * F + F + f) * D, x, m->D) + (m->has_bias ? (double)bias[F + f] : 0);

            act[f] = entering(exact_glu(g, u, m->kind), m);
        }
        for (size_t i = 0; i < D; i++)
            out[i] += (double)m->gates[t * m->top + j] * dot(m->down_value + (e * D + i) * F, act, m->F);
    }
    drop(x);
    drop(act);
}

static void expect_exact(const struct rig *r, const struct mixture *m, const float *out)
{
    double *exact = take((size_t)m->D, sizeof(double)), largest, worst, bound;

    bound = is_rounded(m) ? 2e-3 : 1e-5;
    for (int32_t t = 0; t < m->T; t++) {
        exact_row(m, t, exact);
        largest = worst = 0;
        for (int32_t i = 0; i < m->D; i++) {
            double error = fabs((double)out[t * m->D + i] - exact[i]);

            largest = fmax(largest, fabs(exact[i]));
            worst = error > worst || isnan(error) ? error : worst;
        }
        if (!(worst <= bound * largest))
            fail_msg("%s: row %d of T %d E %d top %d D %d F %d, %d slices, dtypes %d %d: off by %g of %g",
                     phx_backend_name(r->b), t, m->T, m->E, m->top, m->D, m->F, m->n_slices, (int)m->up_dtype,
                     (int)m->down_dtype, worst, largest);
    }
    drop(exact);
}

/* ---- tests --------------------------------------------------------------------------------------- */

static const struct mixture SHAPES[] = {
    {1, 4, 2, 64, 64, 8, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true},
    {7, 4, 4, 96, 160, 8, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true},
    {33, 3, 2, 64, 96, 4, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_SILU, false},
    {17, 2, 1, 544, 1056, 2, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true},
    {70, 2, 2, 32, 64, 1, PHX_DTYPE_MXFP4, PHX_DTYPE_BF16, PHX_GLU_OAI, true},
    {16, 5, 3, 33, 17, 1, PHX_DTYPE_BF16, PHX_DTYPE_BF16, PHX_GLU_SILU, true},
    {65, 3, 2, 48, 80, 2, PHX_DTYPE_BF16, PHX_DTYPE_BF16, PHX_GLU_OAI, false},
    {9, 8, 2, 40, 72, 8, PHX_DTYPE_F16, PHX_DTYPE_F16, PHX_GLU_SILU, true},
    {18, 3, 1, 37, 41, 2, PHX_DTYPE_F32, PHX_DTYPE_F32, PHX_GLU_OAI, true},
    {19, 3, 2, 64, 96, 8, PHX_DTYPE_MXFP4, PHX_DTYPE_F32, PHX_GLU_OAI, true},
    {21, 3, 2, 64, 96, 8, PHX_DTYPE_F16, PHX_DTYPE_MXFP4, PHX_GLU_SILU, true},
};

/* In both arithmetics on every backend. */
static void check_everywhere(const struct mixture *shape, void (*check)(struct rig *r, const struct mixture *m))
{
    for (int c = 0; c < 2; c++) {
        struct mixture m = *shape;
        struct rig     r;
        int            cursor = 0;

        m.compute = c == 0 ? PHX_COMPUTE_F32 : PHX_COMPUTE_BF16;
        while (next_rig(&r, &cursor, m.compute)) {
            check(&r, &m);
            close_rig(&r);
        }
    }
}

static void check_exact(struct rig *r, const struct mixture *m)
{
    float *out = take((size_t)m->T * (size_t)m->D, sizeof(float));

    run_rows(r, m, 0, m->T, out);
    expect_exact(r, m, out);
    drop(out);
}

static void mixtures_are_exact(void **state)
{
    (void)state;
    seed_random(77);
    for (size_t i = 0; i < sizeof(SHAPES) / sizeof(SHAPES[0]); i++) {
        struct mixture m = SHAPES[i];

        make_mixture(&m);
        check_everywhere(&m, check_exact);
        drop_mixture(&m);
    }
}

/* Few, several and many rows of a batch have the bits that they have in the batch. */
static void check_alone(struct rig *r, const struct mixture *m)
{
    static const int32_t counts[] = {1, 3, 12, 30};
    size_t               row = (size_t)m->D;
    float               *all = take((size_t)m->T * row, sizeof(float)), *some = take((size_t)m->T * row, sizeof(float));

    run_rows(r, m, 0, m->T, all);
    for (size_t i = 0; i < sizeof(counts) / sizeof(counts[0]); i++) {
        int32_t first = (int32_t)(random_u32() % (uint32_t)(m->T - counts[i]));

        run_rows(r, m, first, counts[i], some);
        if (memcmp(all + (size_t)first * row, some, (size_t)counts[i] * row * sizeof(float)) != 0)
            fail_msg("%s: rows %d + %d of %d differ alone, E %d, dtype %d", phx_backend_name(r->b), first, counts[i],
                     m->T, m->E, (int)m->up_dtype);
    }
    drop(all);
    drop(some);
}

/* The first slot of all rows on one expert, most experts without a row. */
static void skew(struct mixture *m)
{
    for (int32_t t = 0; t < m->T; t++)
        for (int32_t j = 0; j < m->top; j++)
            m->ids[t * m->top + j] = j == 0 ? 1 : j == 1 ? 0 : j;
}

static void rows_do_not_see_their_neighbours(void **state)
{
    static const struct mixture shapes[] = {
        {71, 4, 2, 544, 256, 8, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true},
        {41, 2, 1, 32, 4128, 1, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true}, /* nine segments */
        {71, 4, 2, 32, 1088, 2, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_SILU, true},
        {71, 3, 2, 80, 88, 2, PHX_DTYPE_BF16, PHX_DTYPE_BF16, PHX_GLU_SILU, true},
        {71, 7, 2, 64, 96, 2, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true},
        {71, 3, 2, 64, 96, 2, PHX_DTYPE_F16, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true},
        {71, 6, 3, 45, 70, 4, PHX_DTYPE_F32, PHX_DTYPE_F32, PHX_GLU_SILU, false},
    };

    (void)state;
    seed_random(78);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct mixture m = shapes[i];

        make_mixture(&m);
        check_everywhere(&m, check_alone);
        skew(&m);
        if (m.D < 100 && m.F < 1000) /* the others take long */
            check_everywhere(&m, check_alone);
        drop_mixture(&m);
    }
}

/* More pairs than the CUDA backend takes in one pass. */
static void check_passes(struct rig *r, const struct mixture *m)
{
    static const int32_t firsts[] = {0, 8180, 8191, 8192};
    float               *all = take((size_t)m->T * (size_t)m->D, sizeof(float)), some[20 * 32];

    run_rows(r, m, 0, m->T, all);
    for (size_t i = 0; i < sizeof(firsts) / sizeof(firsts[0]); i++) {
        int32_t n = m->T - firsts[i] < 20 ? m->T - firsts[i] : 20;

        run_rows(r, m, firsts[i], n, some);
        assert_memory_equal(all + firsts[i] * m->D, some, (size_t)(n * m->D) * sizeof(float));
    }
    drop(all);
}

static void large_steps_go_in_passes(void **state)
{
    struct mixture m = {8197, 4, 4, 32, 32, 1, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true};

    (void)state;
    seed_random(81);
    make_mixture(&m);
    check_everywhere(&m, check_passes);
    drop_mixture(&m);
}

static void check_two_ranks(struct rig *r, const struct mixture *m)
{
    size_t n = (size_t)m->T * (size_t)m->D;
    float *whole = take(n, sizeof(float)), *sum = take(n, sizeof(float)), *half = take(n, sizeof(float));

    run_rows(r, m, 0, m->T, whole);
    for (int rank = 0; rank < 2; rank++) {
        struct part p = cut_part(m, rank, 2);

        run_part(r, m, &p, 0, m->T, half);
        for (size_t i = 0; i < n; i++)
            sum[i] = rank == 0 ? half[i] : sum[i] + half[i];
    }
    if (memcmp(whole, sum, n * sizeof(float)) != 0)
        fail_msg("%s: two ranks differ from one, dtype %d", phx_backend_name(r->b), (int)m->up_dtype);
    drop(whole);
    drop(sum);
    drop(half);
}

static void two_ranks_make_one(void **state)
{
    static const struct mixture shapes[] = {
        {20, 4, 2, 64, 512, 8, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true},
        {5, 3, 2, 80, 288, 4, PHX_DTYPE_BF16, PHX_DTYPE_BF16, PHX_GLU_SILU, true},
        {6, 3, 2, 40, 128, 2, PHX_DTYPE_F32, PHX_DTYPE_F32, PHX_GLU_OAI, true},
    };

    (void)state;
    seed_random(79);
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct mixture m = shapes[i];

        make_mixture(&m);
        check_everywhere(&m, check_two_ranks);
        drop_mixture(&m);
    }
}

/* The step fails and says why; the next one is well. */
static void check_unknown_experts(struct rig *r, const struct mixture *m)
{
    static const int32_t wrong[] = {-1, 4, INT32_MAX, INT32_MIN};
    struct part          p = cut_part(m, 0, 1);
    struct phx_weight   *up = pack_up(r->b, m, &p), *down = pack_down(r->b, m, &p);
    int32_t             *ids = rig_put(r, m->ids, 6 * sizeof(int32_t));
    struct phx_moe_args  args = {.out = phx_view(rig_blank(r, 3 * 32 * sizeof(float)), 3, 32),
                                 .x = phx_view(rig_floats(r, m->x, 3 * 32), 3, 32),
                                 .ids = {ids, PHX_DTYPE_I32, {3, 2}, 2},
                                 .gates = phx_view(rig_floats(r, m->gates, 6), 3, 2),
                                 .gate_up = up, .down = down, .kind = PHX_GLU_SILU};

    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        const char *what = "";

        phx_upload(r->b, ids + i, wrong + i, sizeof(int32_t));
        phx_moe_ffn(r->b, &args);
        assert_int_equal(phx_backend_sync(r->b, &what), -1);
        assert_non_null(strstr(what, "expert id"));
        phx_upload(r->b, ids, m->ids, 6 * sizeof(int32_t));
        phx_moe_ffn(r->b, &args);
        expect_ok(r->b);
    }
    phx_weight_destroy(r->b, up);
    phx_weight_destroy(r->b, down);
}

static void unknown_experts_are_an_error(void **state)
{
    struct mixture m = {3, 4, 2, 32, 32, 1, PHX_DTYPE_BF16, PHX_DTYPE_BF16, PHX_GLU_SILU, false};

    (void)state;
    seed_random(80);
    make_mixture(&m);
    check_everywhere(&m, check_unknown_experts);
    drop_mixture(&m);
}

/* The bits of an older device; where the device rounds otherwise, class A goes without, and class B is near. */
static void check_hopper(struct phx_emu *emu, const struct mixture *m)
{
    size_t n = (size_t)m->T * (size_t)m->D, n_other = 0;
    float *older = take(n, sizeof(float)), *hopper = take(n, sizeof(float));

    for (int way = 0; way < 4; way++) {
        struct rig r;

        emu->reset();
        emu->sm_count = m->T % 5 + 1; /* several pieces for a block of the grid */
        emu->arch = way == 0 ? 80 : 90;
        emu->truncates = way >= 2;
        r = rig_open_class(way == 3);
        run_rows(&r, m, 0, m->T, way == 0 ? older : hopper);
        if (way == 3) {
            expect_exact(&r, m, hopper);
            for (size_t i = 0; i < n; i++)
                n_other += older[i] != hopper[i];
        } else if (way > 0 && memcmp(older, hopper, n * sizeof(float)) != 0)
            fail_msg("way %d: T %d, E %d, D %d, F %d, %d slices differ", way, m->T, m->E, m->D, m->F, m->n_slices);
        close_rig(&r);
    }
    assert_true(n_other > 0);
    emu->reset();
    drop(older);
    drop(hopper);
}

static void warpgroups_give_the_same_bits_or_stay_away(void **state)
{
    static const struct mixture shapes[] = {
        {33, 3, 2, 64, 96, 1, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true},
        {90, 4, 4, 96, 160, 1, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true}, /* 90 pairs each */
        {70, 8, 2, 544, 288, 8, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, PHX_GLU_OAI, false},
        {130, 3, 2, 288, 1088, 2, PHX_DTYPE_MXFP4, PHX_DTYPE_BF16, PHX_GLU_SILU, true},
        {65, 2, 1, 80, 96, 1, PHX_DTYPE_BF16, PHX_DTYPE_BF16, PHX_GLU_SILU, true},
        {300, 5, 1, 33, 32, 1, PHX_DTYPE_BF16, PHX_DTYPE_MXFP4, PHX_GLU_OAI, true},
    };
    struct phx_emu *emu = rig_find_emulator();

    (void)state;
    seed_random(82);
    for (size_t i = 0; emu != NULL && i < sizeof(shapes) / sizeof(shapes[0]); i++) {
        struct mixture m = shapes[i];

        m.compute = PHX_COMPUTE_BF16;
        make_mixture(&m);
        check_hopper(emu, &m);
        skew(&m); /* experts without a pair */
        check_hopper(emu, &m);
        drop_mixture(&m);
    }
}

const struct CMUnitTest device_moe_tests[] = {
    cmocka_unit_test(mixtures_are_exact),
    cmocka_unit_test(rows_do_not_see_their_neighbours),
    cmocka_unit_test(large_steps_go_in_passes),
    cmocka_unit_test(two_ranks_make_one),
    cmocka_unit_test(unknown_experts_are_an_error),
    cmocka_unit_test(warpgroups_give_the_same_bits_or_stay_away),
};
const size_t n_device_moe_tests = sizeof(device_moe_tests) / sizeof(device_moe_tests[0]);
