/* SPDX-License-Identifier: Apache-2.0
 * The best logits of a row on every kind of backend: exactly those, in order, whatever the logits are; the sum near
 * double precision and the same alone. */
#include <math.h>

#include "tests/ops/rig.h"

static const int32_t widths[] = {1, 2, 7, 33, 256, 4096, 4097, 9000, 40000};
static const int32_t tops[] = {1, 2, 5, 16, 33, 255, 256};

enum { N_WIDTHS = sizeof(widths) / sizeof(widths[0]), N_TOPS = sizeof(tops) / sizeof(tops[0]), ROWS = 3, PAD = 5 };

enum kind { USUAL, TIES, EQUAL, RISING, STRANGE, N_KINDS };

static float make_logit(enum kind kind, int32_t i)
{
    static const float strange[] = {NAN, -INFINITY, -0.0f, 0.0f, -1e30f, 1e-40f, -1e-40f, 7.0f};

    switch (kind) {
    case TIES: return (float)(random_u32() % 5);
    case EQUAL: return -2.5f;
    case RISING: return (float)i * 0.001f; /* every one is better than all before it */
    case STRANGE: return strange[random_u32() % 8];
    default: return random_float() * 4;
    }
}

/* A later logit wins only when it is larger; NaN loses to all others. */
static bool is_better(float later, float earlier)
{
    return later > earlier || (isnan(earlier) && !isnan(later));
}

static void expect_best(const char *where, const float *logits, int32_t n, int32_t k, const int32_t *ids, const float *values)
{
    bool *is_taken = take((size_t)n, sizeof(bool));

    for (int32_t j = 0; j < k; j++) {
        int32_t best = -1;

        for (int32_t i = 0; i < n; i++)
            if (!is_taken[i] && (best < 0 || is_better(logits[i], logits[best])))
                best = i;
        if (ids[j] != best || memcmp(&values[j], &logits[best], sizeof(float)) != 0)
            fail_msg("%s: best %d of %d of %d is %d (%g), not %d (%g)", where, j, k, n, ids[j], (double)values[j], best,
                     (double)logits[best]);
        is_taken[best] = true;
    }
    drop(is_taken);
}

static double exact_lse(const float *logits, int32_t n)
{
    double m = -INFINITY, sum = 0;

    for (int32_t i = 0; i < n; i++)
        m = isnan(logits[i]) || (double)logits[i] > m ? (double)logits[i] : m;
    for (int32_t i = 0; i < n && m > -INFINITY; i++)
        sum += exp((double)logits[i] - m);
    return m == -INFINITY ? m : m + log(sum);
}

static void run_top(struct rig *r, const float *logits, int32_t rows, int32_t n, int32_t k, int32_t *ids, float *values,
                    float *lse)
{
    struct phx_tensor x = phx_view(rig_floats(r, logits, (size_t)(rows * (n + PAD))), rows, n);
    struct phx_tensor v = phx_view(rig_blank(r, (size_t)(rows * k) * sizeof(float)), rows, k), t = v;
    struct phx_tensor l = phx_view(rig_blank(r, (size_t)rows * sizeof(float)), rows, 1);

    x.stride0 = n + PAD;
    t.data = rig_blank(r, (size_t)(rows * k) * sizeof(int32_t));
    t.dtype = PHX_DTYPE_I32;
    phx_top(r->b, t, v, l, x);
    rig_get(r, ids, t.data, (size_t)(rows * k) * sizeof(int32_t));
    rig_get(r, values, v.data, (size_t)(rows * k) * sizeof(float));
    rig_get(r, lse, l.data, (size_t)rows * sizeof(float));
    rig_back(r, 0);
}

static void check_top(struct rig *r, enum kind kind, int32_t n, int32_t k)
{
    float   *logits = take((size_t)(ROWS * (n + PAD)), sizeof(float)), *values = take((size_t)(ROWS * k), sizeof(float));
    int32_t *ids = take((size_t)(ROWS * k), sizeof(int32_t));
    float    lse[ROWS], alone;

    for (int32_t i = 0; i < ROWS * (n + PAD); i++) /* what lies between the rows would win */
        logits[i] = i % (n + PAD) < n ? make_logit(kind, i) : 1e9f;
    run_top(r, logits, ROWS, n, k, ids, values, lse);
    for (int32_t t = 0; t < ROWS; t++) {
        const float *row = logits + t * (n + PAD);
        double       want = exact_lse(row, n);

        expect_best(phx_backend_name(r->b), row, n, k, ids + t * k, values + t * k);
        if (isnan(want) ? !isnan(lse[t]) : !((double)lse[t] == want || fabs((double)lse[t] - want) < 1e-5 * (1 + fabs(want))))
            fail_msg("%s: sum of %d is %.9g, exactly %.9g", phx_backend_name(r->b), n, (double)lse[t], want);
    }
    run_top(r, logits + 2 * (n + PAD), 1, n, k, ids, values, &alone);
    assert_memory_equal(&alone, &lse[2], sizeof(alone));
    drop(logits);
    drop(values);
    drop(ids);
}

static void the_best_are_exact(void **state)
{
    struct rig r;
    int        cursor = 0;

    (void)state;
    seed_random(71);
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        for (int i = 0; i < N_WIDTHS; i++)
            for (int j = 0; j < N_TOPS; j++)
                for (int kind = 0; kind < N_KINDS; kind++)
                    if (tops[j] <= widths[i] && (widths[i] < 5000 || (i + j + kind) % 3 == 0))
                        check_top(&r, (enum kind)kind, widths[i], tops[j]);
        close_rig(&r);
    }
}

static void sums_of_nothing_and_of_too_much_show(void **state)
{
    struct rig r;
    int        cursor = 0;

    (void)state;
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        float   logits[3 * (4 + PAD)], values[3], lse[3];
        int32_t ids[3];

        for (int i = 0; i < 3 * (4 + PAD); i++)
            logits[i] = -INFINITY;
        logits[(4 + PAD) + 2] = INFINITY;
        logits[2 * (4 + PAD) + 3] = -1e30f;
        run_top(&r, logits, 3, 4, 1, ids, values, lse);
        assert_true(ids[0] == 0 && values[0] == -INFINITY && lse[0] == -INFINITY);
        assert_true(ids[1] == 2 && values[1] == INFINITY && isnan(lse[1]));
        assert_true(ids[2] == 3 && values[2] == -1e30f && lse[2] == -1e30f);
        close_rig(&r);
    }
}

/* More rows than one batch of scratch takes. */
static void many_rows_go_in_batches(void **state)
{
    enum { N = 9000, K = 256, MANY = 20 };
    struct rig r;
    int        cursor = 0;
    float     *logits = take(MANY * (N + PAD), sizeof(float)), *values = take(MANY * K, sizeof(float));
    float      lse[MANY];
    int32_t   *ids = take(MANY * K, sizeof(int32_t));

    (void)state;
    seed_random(72);
    for (int32_t i = 0; i < MANY * (N + PAD); i++)
        logits[i] = make_logit(USUAL, i);
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        run_top(&r, logits, MANY, N, K, ids, values, lse);
        for (int32_t t = 0; t < MANY; t++) {
            expect_best(phx_backend_name(r.b), logits + t * (N + PAD), N, K, ids + t * K, values + t * K);
            assert_float_equal(lse[t], exact_lse(logits + t * (N + PAD), N), 1e-4);
        }
        close_rig(&r);
    }
    drop(logits);
    drop(values);
    drop(ids);
}

const struct CMUnitTest device_top_tests[] = {
    cmocka_unit_test(the_best_are_exact),
    cmocka_unit_test(sums_of_nothing_and_of_too_much_show),
    cmocka_unit_test(many_rows_go_in_batches),
};
const size_t n_device_top_tests = sizeof(device_top_tests) / sizeof(device_top_tests[0]);
