/* SPDX-License-Identifier: Apache-2.0
 * Draws on every kind of backend: what shard/sample draws from the same logits, to the last bit of the sum, and each id as
 * often as its share says. */
#include <math.h>

#include "shard/sample/weights.h"
#include "tests/ops/rig.h"

static const int32_t widths[] = {1, 2, 7, 63, 64, 65, 256, 4095, 4096, 4097, 9000, 20111};
static const float   temperatures[] = {1.0f, 0.7f, 0.01f, 1e-40f, 2.0f, 100.0f};

enum { N_WIDTHS = sizeof(widths) / sizeof(widths[0]), N_TEMPERATURES = sizeof(temperatures) / sizeof(temperatures[0]),
       ROWS = 3, PAD = 5, DRAWS = 11 };
enum kind { USUAL, TIES, EQUAL, HOLES, PEAK, FAR, N_KINDS };

static float make_logit(enum kind kind, int32_t i)
{
    switch (kind) {
    case TIES: return (float)(random_u32() % 5);
    case EQUAL: return -2.5f;
    case HOLES: return random_u32() % 3 != 0 ? -INFINITY : random_float() * 5;
    case PEAK: return i % 977 == 5 ? 60.0f : random_float();
    case FAR: return random_float() * 1e30f;
    default: return random_float() * 4;
    }
}

static double make_share(int32_t i)
{
    return i == 0 ? 0.0 : i == 1 ? 0x1.fffffffffffffp-1 : (double)random_u32() * 0x1p-32;
}

static void run_draws(struct rig *r, const float *logits, int32_t rows, int32_t n, const struct phx_draw_row *draws,
                      int32_t n_draws, double *out)
{
    struct phx_tensor x = phx_view(rig_floats(r, logits, (size_t)(rows * (n + PAD))), rows, n);
    size_t            bytes = (size_t)n_draws * PHX_DRAW_WIDTH * sizeof(double);
    struct phx_tensor y = {rig_blank(r, bytes), PHX_DTYPE_F64, {n_draws, PHX_DRAW_WIDTH}, PHX_DRAW_WIDTH};

    x.stride0 = n + PAD;
    phx_draw(r->b, y, x, draws);
    rig_get(r, out, y.data, bytes);
    rig_back(r, 0);
}

/* By the host's sampler. */
static void expect_draw(const struct rig *r, const float *logits, int32_t n, const struct phx_draw_row *d, const double *got)
{
    double *weight = take((size_t)n, sizeof(double)), sum;
    int32_t id;

    phx_weigh(logits, n, phx_largest(logits, n), d->temperature, weight);
    sum = phx_weights_sum(weight, n);
    id = phx_weights_pick(weight, n, d->share);
    if (got[PHX_DRAW_ID] != (double)id || memcmp(&got[PHX_DRAW_SUM], &sum, sizeof(sum)) != 0 ||
        got[PHX_DRAW_LOGIT] != (double)logits[id] || got[PHX_DRAW_LARGEST] != (double)phx_largest(logits, n))
        fail_msg("%s: %d logits at %g, share %a: drew %g (%g) of %a, not %d (%g) of %a", phx_backend_name(r->b), n,
                 (double)d->temperature, d->share, got[PHX_DRAW_ID], got[PHX_DRAW_LOGIT], got[PHX_DRAW_SUM], id,
                 (double)logits[id], sum);
    drop(weight);
}

static void check_draws(struct rig *r, enum kind kind, int32_t n)
{
    float          *logits = take((size_t)(ROWS * (n + PAD)), sizeof(float));
    struct phx_draw_row draws[DRAWS];
    double          out[DRAWS][PHX_DRAW_WIDTH];

    for (int32_t i = 0; i < ROWS * (n + PAD); i++) /* what lies between the rows would be odd */
        logits[i] = i % (n + PAD) < n ? make_logit(kind, i) : NAN;
    for (int32_t t = 0; t < ROWS; t++)
        logits[t * (n + PAD) + (int32_t)(random_u32() % (uint32_t)n)] = 3.0f;
    for (int32_t i = 0; i < DRAWS; i++)
        draws[i] = (struct phx_draw_row){(int32_t)(random_u32() % ROWS), temperatures[random_u32() % N_TEMPERATURES],
                                     make_share(i)};
    run_draws(r, logits, ROWS, n, draws, DRAWS, out[0]);
    for (int32_t i = 0; i < DRAWS; i++)
        expect_draw(r, logits + draws[i].row * (n + PAD), n, &draws[i], out[i]);
    drop(logits);
}

static void a_draw_is_the_samplers(void **state)
{
    struct rig r;
    int        cursor = 0;

    (void)state;
    seed_random(81);
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        for (int i = 0; i < N_WIDTHS; i++)
            for (int kind = 0; kind < N_KINDS; kind++)
                check_draws(&r, (enum kind)kind, widths[i]);
        close_rig(&r);
    }
}

/* The exact share of every id, in the order of ids: the number drawn falls to the id whose interval it is in. */
static void a_share_is_that_of_the_probabilities(void **state)
{
    enum { N = 5000, MANY = 400 };
    struct rig      r;
    int             cursor = 0;
    float          *logits = take(N + PAD, sizeof(float));
    double         *end = take(N, sizeof(double)), sum = 0;
    static double   out[MANY][PHX_DRAW_WIDTH];
    struct phx_draw_row draws[MANY];

    (void)state;
    seed_random(82);
    for (int32_t i = 0; i < N; i++) {
        logits[i] = fmodf(random_float(), 5.0f) * 3; /* of which no exponential is infinite */
        sum += exp((double)logits[i] / 0.8f);
        end[i] = sum;
    }
    for (int32_t i = 0; i < MANY; i++)
        draws[i] = (struct phx_draw_row){0, 0.8f, make_share(i)};
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        run_draws(&r, logits, 1, N, draws, MANY, out[0]);
        for (int32_t i = 0; i < MANY; i++) {
            int32_t id = (int32_t)out[i][PHX_DRAW_ID];

            assert_true(id >= 0 && id < N);
            assert_true(draws[i].share * sum < end[id] * (1 + 1e-9));
            assert_true(draws[i].share * sum > (id > 0 ? end[id - 1] : 0) * (1 - 1e-9) - 1e-9);
        }
        close_rig(&r);
    }
    drop(logits);
    drop(end);
}

static void what_is_no_number_draws_nothing(void **state)
{
    enum { N = 5000 };
    static const float odd[] = {NAN, INFINITY};
    struct rig         r;
    int                cursor = 0;
    float             *logits = take(3 * (N + PAD), sizeof(float));
    double             out[3][PHX_DRAW_WIDTH];
    struct phx_draw_row    draws[3] = {{0, 1.0f, 0.5}, {1, 1.0f, 0.5}, {2, 1.0f, 0.5}};

    (void)state;
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        for (int32_t at = 0; at < 4; at++) {
            for (int32_t i = 0; i < 3 * (N + PAD); i++)
                logits[i] = i < N + PAD ? -INFINITY : (float)(i % 10);
            logits[(N + PAD) + (at < 2 ? 17 : 4500)] = odd[at % 2];
            run_draws(&r, logits, 3, N, draws, 3, out[0]);
            assert_true(out[0][PHX_DRAW_ID] == -1.0 && out[0][PHX_DRAW_LARGEST] == (double)-INFINITY);
            assert_true(out[1][PHX_DRAW_ID] == -1.0 && isnan(out[1][PHX_DRAW_LARGEST]) && isnan(out[1][PHX_DRAW_SUM]));
            assert_true(out[2][PHX_DRAW_ID] >= 0.0);
        }
        close_rig(&r);
    }
    drop(logits);
}

/* More than one pass of scratch takes. */
static void many_draws_go_in_batches(void **state)
{
    enum { N = 9000, MANY = 3000 };
    struct rig              r;
    int                     cursor = 0;
    float                  *logits = take(2 * (N + PAD), sizeof(float));
    static double           out[MANY][PHX_DRAW_WIDTH];
    static struct phx_draw_row  draws[MANY];

    (void)state;
    seed_random(83);
    for (int32_t i = 0; i < 2 * (N + PAD); i++)
        logits[i] = make_logit(USUAL, i);
    for (int32_t i = 0; i < MANY; i++)
        draws[i] = (struct phx_draw_row){i % 2, 1.0f, make_share(i)};
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        run_draws(&r, logits, 2, N, draws, MANY, out[0]);
        for (int32_t i = 0; i < MANY; i += 13)
            expect_draw(&r, logits + (i % 2) * (N + PAD), N, &draws[i], out[i]);
        close_rig(&r);
    }
    drop(logits);
}

static void wrong_draws_are_refused(void **state)
{
    static const struct phx_draw_row bad[] = {{1, 1.0f, 0.5}, {-1, 1.0f, 0.5}, {0, 0.0f, 0.5}, {0, INFINITY, 0.5},
                                          {0, NAN, 0.5}, {0, 1.0f, 1.0}, {0, 1.0f, -0.1}, {0, 1.0f, NAN}};
    struct rig r;
    int        cursor = 0;

    (void)state;
    while (next_rig(&r, &cursor, PHX_COMPUTE_F32)) {
        struct phx_tensor y = {rig_blank(&r, PHX_DRAW_WIDTH * sizeof(double)), PHX_DTYPE_F64, {1, PHX_DRAW_WIDTH},
                               PHX_DRAW_WIDTH};
        float             logits[4] = {1, 2, 3, 4};
        struct phx_tensor x = phx_view(rig_floats(&r, logits, 4), 1, 4);
        const char       *why = NULL;

        for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
            phx_draw(r.b, y, x, &bad[i]);
            assert_int_equal(phx_backend_sync(r.b, &why), -1);
            assert_non_null(strstr(why, "draw: row"));
        }
        close_rig(&r);
    }
}

const struct CMUnitTest device_draw_tests[] = {
    cmocka_unit_test(a_draw_is_the_samplers),
    cmocka_unit_test(a_share_is_that_of_the_probabilities),
    cmocka_unit_test(what_is_no_number_draws_nothing),
    cmocka_unit_test(many_draws_go_in_batches),
    cmocka_unit_test(wrong_draws_are_refused),
};
const size_t n_device_draw_tests = sizeof(device_draw_tests) / sizeof(device_draw_tests[0]);
