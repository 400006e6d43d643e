/* SPDX-License-Identifier: Apache-2.0
 * Row-wise ops on every kind of backend: against double precision, a row alone against the row in a batch, rows that
 * lie apart or unaligned, strange numbers, batches of unlike sequences. */
#include <math.h>

#include "tests/ops/rig.h"

static const int32_t counts[] = {1, 2, 7, 16, 17, 33};
static const int32_t widths[] = {1, 2, 7, 32, 33, 128, 130, 1028, 2880};

enum { N_COUNTS = sizeof(counts) / sizeof(counts[0]), N_WIDTHS = sizeof(widths) / sizeof(widths[0]) };

/* Rows of n that lie `pad` floats apart from each other, from float `pad` on. */
struct matrix {
    int32_t rows, n, pad;
    float  *host;
};

static size_t count_floats(const struct matrix *m)
{
    return (size_t)m->pad + (size_t)m->rows * (size_t)(m->n + m->pad);
}

static struct matrix make_matrix(int32_t rows, int32_t n, int32_t pad)
{
    struct matrix m = {rows, n, pad, NULL};

    m.host = take(count_floats(&m), sizeof(float));
    fill_random(m.host, count_floats(&m));
    return m;
}

static float at(const struct matrix *m, int32_t row, int32_t i)
{
    return m->host[m->pad + (int64_t)row * (m->n + m->pad) + i];
}

static struct phx_tensor put_matrix(struct rig *r, const struct matrix *m)
{
    float            *device = rig_floats(r, m->host, count_floats(m));
    struct phx_tensor t = phx_view(device + m->pad, m->rows, m->n);

    t.stride0 = m->n + m->pad;
    return t;
}

/* The rows of an op's output, and that nothing between them was written. */
static void get_rows(struct rig *r, struct phx_tensor t, float *out)
{
    for (int32_t i = 0; i < t.dim[0]; i++)
        rig_get(r, out + (size_t)i * (size_t)t.dim[1], (float *)t.data + i * t.stride0,
                (size_t)t.dim[1] * sizeof(float));
}

static struct phx_tensor blank_matrix(struct rig *r, int32_t rows, int32_t n, int32_t pad)
{
    struct phx_tensor t = phx_view((float *)rig_blank(r, (size_t)(rows + 1) * (size_t)(n + pad) * sizeof(float)) + pad,
                                   rows, n);

    t.stride0 = n + pad;
    return t;
}

static void expect_gaps_untouched(struct rig *r, struct phx_tensor t)
{
    int64_t pad = t.stride0 - t.dim[1];
    float   gap[8];

    for (int32_t i = 0; i < t.dim[0] && pad > 0; i++) {
        rig_get(r, gap, (float *)t.data + i * t.stride0 - pad, (size_t)pad * sizeof(float));
        for (int64_t j = 0; j < pad; j++)
            assert_true(isnan(gap[j]));
    }
}

/* ---- norm ------------------------------------------------------------------------------------ */

static void check_norm(struct rig *r, int32_t rows, int32_t n, int32_t pad)
{
    struct matrix     x = make_matrix(rows, n, pad), gain = make_matrix(1, n, pad);
    struct phx_tensor dx = put_matrix(r, &x), dgain = put_matrix(r, &gain), out = blank_matrix(r, rows, n, pad);
    size_t            size = (size_t)rows * (size_t)n;
    float            *got = take(size, sizeof(float)), *one = take((size_t)n, sizeof(float));
    double           *want = take(size, sizeof(double));

    for (int32_t t = 0; t < rows; t++) {
        double sum = 0;

        for (int32_t i = 0; i < n; i++)
            sum += (double)at(&x, t, i) * (double)at(&x, t, i);
        for (int32_t i = 0; i < n; i++)
            want[t * n + i] = (double)at(&x, t, i) / sqrt(sum / n + 1e-5) * (double)at(&gain, 0, i);
    }
    phx_rmsnorm(r->b, out, dx, dgain, 1e-5f);
    get_rows(r, out, got);
    expect_gaps_untouched(r, out);
    expect_near("rmsnorm", r, got, want, NULL, size, 1e-6);
    for (int32_t t = 0; t < rows; t++) { /* alone, and in place */
        struct phx_tensor row = phx_rows(dx, 1);

        row.data = (float *)dx.data + t * dx.stride0;
        phx_rmsnorm(r->b, row, row, dgain, 1e-5f);
        get_rows(r, row, one);
        assert_memory_equal(one, got + (size_t)t * (size_t)n, (size_t)n * sizeof(float));
    }
    drop(x.host);
    drop(gain.host);
    drop(got);
    drop(one);
    drop(want);
}

static void norms_are_exact_and_equal_alone(void **state)
{
    struct rig r;
    int        cursor = 0;

    (void)state;
    seed_random(51);
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        for (int c = 0; c < N_COUNTS; c++)
            for (int w = 0; w < N_WIDTHS; w++) {
                check_norm(&r, counts[c], widths[w], (c + w) % 3 == 0 ? 0 : (c + w) % 3 == 1 ? 3 : 4);
                rig_back(&r, 0);
            }
        close_rig(&r);
    }
}

/* ---- sums and choices ------------------------------------------------------------------------ */

static void check_sums(struct rig *r, int32_t rows, int32_t n, int32_t pad)
{
    struct matrix     x = make_matrix(rows, n, pad), y = make_matrix(rows, n, pad == 0 ? 0 : 1), row = make_matrix(1, n, 0);
    struct phx_tensor dx = put_matrix(r, &x);
    float            *got = take((size_t)rows * (size_t)n, sizeof(float));

    phx_add(r->b, dx, put_matrix(r, &y));
    phx_add_row(r->b, dx, put_matrix(r, &row));
    get_rows(r, dx, got);
    for (int32_t t = 0; t < rows; t++)
        for (int32_t i = 0; i < n; i++)
            assert_true(got[t * n + i] == at(&x, t, i) + at(&y, t, i) + at(&row, 0, i));
    drop(x.host);
    drop(y.host);
    drop(row.host);
    drop(got);
}

static void check_choice(struct rig *r, int32_t rows, int32_t n, int32_t pad)
{
    struct matrix     x = make_matrix(rows, n, pad);
    int32_t           n_out = rows + 3, choice[64];
    struct phx_tensor out = blank_matrix(r, n_out, n, pad);
    float            *got = take((size_t)n_out * (size_t)n, sizeof(float));

    for (int32_t i = 0; i < n_out; i++)
        choice[i] = (int32_t)(random_u32() % (uint32_t)rows);
    phx_gather_rows(r->b, out, put_matrix(r, &x), choice);
    for (int32_t i = 0; i < n_out; i++) /* the array is free again */
        choice[i] = -choice[i] - 1;
    get_rows(r, out, got);
    expect_gaps_untouched(r, out);
    for (int32_t t = 0; t < n_out; t++)
        for (int32_t i = 0; i < n; i++)
            assert_true(got[t * n + i] == at(&x, -choice[t] - 1, i));
    drop(x.host);
    drop(got);
}

static void sums_and_choices_are_exact(void **state)
{
    struct rig r;
    int        cursor = 0;

    (void)state;
    seed_random(52);
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        for (int c = 0; c < N_COUNTS; c++)
            for (int w = 0; w < N_WIDTHS; w++) {
                int32_t pad = (c + w) % 3 == 0 ? 0 : (c + w) % 3 == 1 ? 5 : 8;

                check_sums(&r, counts[c], widths[w], pad);
                check_choice(&r, counts[c], widths[w], pad);
                rig_back(&r, 0);
            }
        close_rig(&r);
    }
}

/* ---- gated units ----------------------------------------------------------------------------- */

static double exact_glu(enum phx_glu kind, double g, double u, double limit)
{
    if (kind == PHX_GLU_SILU)
        return g / (1 + exp(-g)) * u;
    g = g > limit ? limit : g;
    u = u > limit ? limit : u < -limit ? -limit : u;
    return g / (1 + exp(-1.702 * g)) * (u + 1);
}

static void check_glu(struct rig *r, int32_t rows, int32_t n, int32_t pad, enum phx_glu kind)
{
    struct matrix     x = make_matrix(rows, 2 * n, pad);
    struct phx_tensor out = blank_matrix(r, rows, n, pad);
    size_t            size = (size_t)rows * (size_t)n;
    float            *got = take(size, sizeof(float));
    double           *want = take(size, sizeof(double)), *scale = take(size, sizeof(double));

    for (int32_t t = 0; t < rows; t++)
        for (int32_t i = 0; i < n; i++) {
            want[t * n + i] = exact_glu(kind, (double)at(&x, t, i), (double)at(&x, t, n + i), 7);
            scale[t * n + i] = fabs(want[t * n + i]) + 1e-26;
        }
    phx_swiglu(r->b, out, put_matrix(r, &x), kind, 7.0f);
    get_rows(r, out, got);
    expect_gaps_untouched(r, out);
    expect_near("swiglu", r, got, want, scale, size, 5e-6);
    drop(x.host);
    drop(got);
    drop(want);
    drop(scale);
}

static void gated_units_are_exact(void **state)
{
    struct rig r;
    int        cursor = 0;

    (void)state;
    seed_random(53);
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        for (int c = 0; c < N_COUNTS; c++)
            for (int w = 0; w < N_WIDTHS; w++) {
                check_glu(&r, counts[c], widths[w], c % 2 == 0 ? 0 : 4, PHX_GLU_OAI);
                check_glu(&r, counts[c], widths[w], w % 2 == 0 ? 0 : 3, PHX_GLU_SILU);
                rig_back(&r, 0);
            }
        close_rig(&r);
    }
}

static void gated_units_of_strange_numbers(void **state)
{
    static const float strange[] = {0.0f, -0.0f, INFINITY, -INFINITY, NAN, 1e-40f, 3e38f, -3e38f, 90.0f, -90.0f, -110.0f};
    enum { N = sizeof(strange) / sizeof(strange[0]) };
    float      x[2 * N * N], got[2][N * N];
    struct rig r;
    int        cursor = 0;

    (void)state;
    for (int i = 0; i < N * N; i++) {
        x[i] = strange[i / N];
        x[N * N + i] = strange[i % N];
    }
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        struct phx_tensor in = phx_view(rig_floats(&r, x, 2 * N * N), 1, 2 * N * N);

        for (int kind = PHX_GLU_SILU; kind <= PHX_GLU_OAI; kind++) {
            struct phx_tensor out = blank_matrix(&r, 1, N * N, 0);

            phx_swiglu(r.b, out, in, (enum phx_glu)kind, 7.0f);
            get_rows(&r, out, got[kind - 1]);
            for (int i = 0; i < N * N; i++) {
                double want = exact_glu((enum phx_glu)kind, (double)x[i], (double)x[N * N + i], 7);

                if (x[i] < -80.0f || fabsf(x[i]) > 1e30f || isinf(x[N * N + i])) /* as the exponential's largest value has it */
                    continue;
                if (isnan(want) != isnan(got[kind - 1][i]) ||
                    (fabs(want) < 1e38 && !(fabs((double)got[kind - 1][i] - want) <= 1e-5 * fabs(want) + 3e-35)))
                    fail_msg("glu %d of %g, %g on %s: %g, exactly %g", kind, (double)x[i], (double)x[N * N + i],
                             phx_backend_name(r.b), (double)got[kind - 1][i], want);
            }
        }
        close_rig(&r);
    }
}

/* ---- rotation -------------------------------------------------------------------------------- */

enum { POSITIONS = 40, SEQS = 4 };

/* Four sequences of 9, 0, 1 and 4 rows with a row between that is nobody's. */
static const int32_t seq_row[SEQS] = {0, 9, 10, 11}, seq_rows[SEQS] = {9, 0, 1, 4}, seq_pos[SEQS] = {0, 7, 39, 20};

static void check_rope(struct rig *r, int32_t heads, int32_t head_dim, int32_t pad)
{
    enum { ROWS = 16 };
    int32_t           half = head_dim / 2, n = heads * head_dim;
    struct matrix     x = make_matrix(ROWS, n, pad), cos_table = make_matrix(POSITIONS, half, pad),
                  sin_table = make_matrix(POSITIONS, half, 0);
    struct phx_tensor dx = put_matrix(r, &x);
    struct phx_spans  spans = {SEQS, seq_row, seq_rows, seq_pos, NULL, 0};
    float            *got = take((size_t)ROWS * (size_t)n, sizeof(float));

    phx_rope(r->b, dx, head_dim, &spans, put_matrix(r, &cos_table), put_matrix(r, &sin_table));
    get_rows(r, dx, got);
    for (int32_t i = 0; i < ROWS; i++) {
        int32_t seq = -1;

        for (int32_t s = 0; s < SEQS; s++)
            seq = i >= seq_row[s] && i < seq_row[s] + seq_rows[s] ? s : seq;
        for (int32_t j = 0; j < n; j++) {
            int32_t k = j % half, pos = seq < 0 ? 0 : seq_pos[seq] + i - seq_row[seq];
            bool    is_low = j % head_dim < half;
            double  a = (double)at(&x, i, j), b = (double)at(&x, i, is_low ? j + half : j - half);
            double  c = (double)at(&cos_table, pos, k), s = (double)at(&sin_table, pos, k);
            double  want = seq < 0 ? a : is_low ? a * c - b * s : a * c + b * s;

            if (!(fabs((double)got[i * n + j] - want) <= 1e-6 * (fabs(a * c) + fabs(b * s)) + (seq < 0 ? 0 : 1e-30)))
                fail_msg("rope on %s: [%d, %d] is %g, exactly %g", phx_backend_name(r->b), i, j, (double)got[i * n + j], want);
        }
    }
    drop(x.host);
    drop(cos_table.host);
    drop(sin_table.host);
    drop(got);
}

static void rotations_are_exact(void **state)
{
    static const int32_t dims[] = {2, 22, 64, 80, 128};
    struct rig           r;
    int                  cursor = 0;

    (void)state;
    seed_random(54);
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        for (int i = 0; i < 5; i++) {
            check_rope(&r, 1 + i * 2, dims[i], i);
            rig_back(&r, 0);
        }
        close_rig(&r);
    }
}

/* ---- routing --------------------------------------------------------------------------------- */

static bool is_chosen(const int32_t *ids, int32_t n, int32_t e)
{
    for (int32_t i = 0; i < n; i++)
        if (ids[i] == e)
            return true;
    return false;
}

/* One row against the definition. */
static void check_row(const struct rig *r, const float *logits, int32_t n, const int32_t *ids, const float *gates,
                      int32_t top_k)
{
    double want[64], sum = 0;

    for (int32_t j = 0; j < top_k; j++) {
        int32_t best = -1;

        for (int32_t e = 0; e < n; e++)
            if (!is_chosen(ids, j, e) && (best < 0 || logits[e] > logits[best] || (isnan(logits[best]) && !isnan(logits[e]))))
                best = e;
        if (ids[j] != best)
            fail_msg("choice %d of %d on %s: %d, should be %d", j, n, phx_backend_name(r->b), ids[j], best);
        sum += want[j] = exp((double)logits[best] - (double)logits[ids[0]]);
    }
    for (int32_t j = 0; j < top_k; j++)
        assert_true((isnan(want[j] / sum) && isnan(gates[j])) || fabs((double)gates[j] - want[j] / sum) <= 1e-6);
}

static void check_route(struct rig *r, int32_t rows, int32_t n, int32_t top_k)
{
    struct matrix     m = make_matrix(rows, n, 3);
    struct phx_tensor logits, gates = blank_matrix(r, rows, top_k, 2);
    struct phx_tensor ids = {rig_blank(r, (size_t)rows * (size_t)(top_k + 1) * 4), PHX_DTYPE_I32, {rows, top_k}, top_k + 1};
    float            *got = take((size_t)rows * (size_t)top_k, sizeof(float)), one[64];
    int32_t           id[64], alone[64];

    for (size_t i = 0; i < count_floats(&m); i++) /* ties, and what is no number */
        m.host[i] = random_u32() % 4 == 0 ? (float)(random_u32() % 3) : random_u32() % 50 == 0 ? NAN : m.host[i];
    logits = put_matrix(r, &m);
    phx_moe_route(r->b, ids, gates, logits);
    get_rows(r, gates, got);
    for (int32_t t = 0; t < rows; t++) {
        struct phx_tensor one_logits = phx_rows(logits, 1), one_ids = phx_rows(ids, 1), one_gates = phx_rows(gates, 1);

        rig_get(r, id, (int32_t *)ids.data + t * ids.stride0, (size_t)top_k * 4);
        check_row(r, &m.host[3 + t * (n + 3)], n, id, got + t * top_k, top_k);
        one_logits.data = (float *)logits.data + t * logits.stride0;
        phx_moe_route(r->b, one_ids, one_gates, one_logits); /* over the results of row 0 */
        rig_get(r, alone, ids.data, (size_t)top_k * 4);
        get_rows(r, one_gates, one);
        assert_memory_equal(alone, id, (size_t)top_k * 4);
        assert_memory_equal(one, got + t * top_k, (size_t)top_k * sizeof(float));
    }
    drop(m.host);
    drop(got);
}

static void routes_are_exact_and_equal_alone(void **state)
{
    static const struct {
        int32_t n, top_k;
    } shapes[] = {{1, 1}, {3, 2}, {32, 4}, {128, 4}, {33, 33}, {256, 8}, {31, 7}};
    struct rig r;
    int        cursor = 0;

    (void)state;
    seed_random(55);
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        for (int i = 0; i < 7; i++)
            for (int c = 0; c < N_COUNTS; c++) {
                check_route(&r, counts[c], shapes[i].n, shapes[i].top_k);
                rig_back(&r, 0);
            }
        close_rig(&r);
    }
}

static void biases_are_weighted_and_wrong_experts_refused(void **state)
{
    enum { ROWS = 5, N = 70, TOP = 3, EXPERTS = 6 };
    struct rig r;
    int        cursor = 0;

    (void)state;
    seed_random(56);
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        struct matrix     x = make_matrix(ROWS, N, 1), bias = make_matrix(EXPERTS, N, 0), gates = make_matrix(ROWS, TOP, 0);
        int32_t           ids[ROWS * TOP];
        struct phx_tensor dx, id = {NULL, PHX_DTYPE_I32, {ROWS, TOP}, TOP};
        float             got[ROWS * N];
        const char       *what = "";

        for (int i = 0; i < ROWS * TOP; i++)
            ids[i] = (int32_t)(random_u32() % EXPERTS);
        dx = put_matrix(&r, &x);
        id.data = rig_put(&r, ids, sizeof(ids));
        phx_moe_bias(r.b, dx, id, put_matrix(&r, &gates), put_matrix(&r, &bias));
        get_rows(&r, dx, got);
        for (int t = 0; t < ROWS; t++)
            for (int i = 0; i < N; i++) {
                float want = at(&x, t, i);

                for (int j = 0; j < TOP; j++)
                    want = fmaf(at(&gates, t, j), at(&bias, ids[t * TOP + j], i), want);
                assert_true(got[t * N + i] == want);
            }
        ids[ROWS * TOP - 1] = EXPERTS;
        id.data = rig_put(&r, ids, sizeof(ids));
        phx_moe_bias(r.b, dx, id, put_matrix(&r, &gates), put_matrix(&r, &bias));
        assert_int_equal(phx_backend_sync(r.b, &what), -1);
        assert_non_null(strstr(what, "expert id is out of range"));
        drop(x.host);
        drop(bias.host);
        drop(gates.host);
        close_rig(&r);
    }
}

const struct CMUnitTest device_vector_tests[] = {
    cmocka_unit_test(norms_are_exact_and_equal_alone),
    cmocka_unit_test(sums_and_choices_are_exact),
    cmocka_unit_test(gated_units_are_exact),
    cmocka_unit_test(gated_units_of_strange_numbers),
    cmocka_unit_test(rotations_are_exact),
    cmocka_unit_test(routes_are_exact_and_equal_alone),
    cmocka_unit_test(biases_are_weighted_and_wrong_experts_refused),
};
const size_t n_device_vector_tests = sizeof(device_vector_tests) / sizeof(device_vector_tests[0]);
