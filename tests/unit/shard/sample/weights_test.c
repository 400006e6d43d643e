/* SPDX-License-Identifier: Apache-2.0
 * The arithmetic over a vocabulary, against libm and against sorting. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "shard/sample/loops.h"
#include "shard/sample/sample.h"
#include "shard/sample/weights.h"

enum { N_MAX = 3000 };

static uint64_t random_state = 42;

static uint32_t random_u32(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

static void exp_is_close_to_libm(void **state)
{
    (void)state;
    for (int i = 0; i < 70000; i++) {
        float  x = -(float)i * 0.01f;
        double w;

        phx_weigh(&x, 1, 0.0f, 1.0f, &w);
        if ((double)x > -700.0)
            assert_true(fabs(w / exp((double)x) - 1.0) < 1e-11);
    }
}

static void exp_of_the_largest_is_one_and_of_nothing_is_nothing(void **state)
{
    const float x[] = {5.0f, -INFINITY, -1e30f, -695.1f, 5.0f};
    double      w[5];

    (void)state;
    phx_weigh(x, 5, 5.0f, 1.0f, w);
    assert_true(w[0] == 1.0 && w[1] == 0.0 && w[2] == 0.0 && w[3] == 0.0 && w[4] == 1.0);
    phx_weigh(x, 5, 5.0f, 1e-40f, w); /* the smallest temperatures leave only the best */
    assert_true(w[0] == 1.0 && w[3] == 0.0 && w[4] == 1.0);
}

static void a_weight_does_not_depend_on_its_place(void **state)
{
    float  x[9];
    double alone, all[9];

    (void)state;
    for (int i = 0; i < 9; i++)
        x[i] = -(float)i * 1.37f;
    phx_weigh(x, 9, 0.0f, 0.7f, all);
    for (int i = 0; i < 9; i++) {
        phx_weigh(&x[i], 1, 0.0f, 0.7f, &alone);
        assert_memory_equal(&alone, &all[i], sizeof(alone));
    }
}

static void log_is_close_to_libm(void **state)
{
    (void)state;
    for (double x = 1.0; x < 1e7; x = x * 1.003 + 1e-4)
        assert_true(fabs(phx_weights_log(x) - log(x)) < 1e-11 * (1.0 + log(x)));
    assert_true(fabs(phx_weights_log(1.0)) < 1e-11);
}

static void largest_finds_what_is_odd(void **state)
{
    float x[100];

    (void)state;
    for (int at = 0; at < 100; at++) {
        for (int i = 0; i < 100; i++)
            x[i] = -(float)i;
        x[at] = 7.5f;
        assert_true(phx_largest(x, 100) == 7.5f);
        x[at] = NAN;
        assert_true(isnan(phx_largest(x, 100)));
        x[at] = INFINITY;
        assert_true(isnan(phx_largest(x, 100)));
        x[at] = -INFINITY;
        assert_true(phx_largest(x, 100) == (at == 0 ? -1.0f : 0.0f));
        assert_true(phx_largest(x + at, 1) == -INFINITY);
    }
}

struct item {
    int32_t id;
    float   logit;
};

static int compare(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

/* Logits of several kinds: spread out, full of ties, both zeros, holes of -infinity, far apart. */
static int32_t make_logits(float *x, int kind)
{
    int32_t n = 1 + (int32_t)(random_u32() % (kind == 0 ? 20 : N_MAX - 1));

    for (int32_t i = 0; i < n; i++) {
        float r = (float)random_u32() / 2147483648.0f;

        switch (kind) {
        case 0: x[i] = (float)(random_u32() % 3); break;
        case 1: x[i] = r * 20.0f - 10.0f; break;
        case 2: x[i] = random_u32() % 2 ? 0.0f : -0.0f; break;
        case 3: x[i] = random_u32() % 3 ? -INFINITY : -r * 5.0f; break;
        default: x[i] = (r - 0.5f) * powf(10.0f, (float)(random_u32() % 60) - 25.0f); break;
        }
    }
    x[random_u32() % (uint32_t)n] = kind == 2 ? 0.0f : 11.0f;
    return n;
}

static void top_k_keeps_what_sorting_would(void **state)
{
    static float       x[N_MAX], kept[N_MAX];
    static struct item sorted[N_MAX];
    static int32_t     list[N_MAX];

    (void)state;
    for (int round = 0; round < 1000; round++) {
        int32_t n = make_logits(x, round % 5), k = 1 + (int32_t)(random_u32() % (uint32_t)n);

        for (int32_t i = 0; i < n; i++)
            sorted[i] = (struct item){i, x[i]};
        qsort(sorted, (size_t)n, sizeof(*sorted), compare);
        memcpy(kept, x, sizeof(kept));
        phx_keep_top_k(kept, n, k, list);
        for (int32_t i = 0; i < n; i++) {
            int32_t id = sorted[i].id;

            assert_true(i < k ? kept[id] == x[id] : kept[id] == -INFINITY);
        }
    }
}

static void top_p_keeps_what_sorting_would(void **state)
{
    static float       x[N_MAX];
    static double      w[N_MAX], kept[N_MAX];
    static struct item sorted[N_MAX];
    static int32_t     list[N_MAX];

    (void)state;
    for (int round = 0; round < 1000; round++) {
        int32_t n = make_logits(x, round % 5);
        float   top_p = (float)(1 + random_u32() % 999) / 1000.0f;
        double  sum = 0, want;

        phx_weigh(x, n, phx_largest(x, n), 1.0f, w);
        for (int32_t i = 0; i < n; i++)
            sorted[i] = (struct item){i, x[i]};
        qsort(sorted, (size_t)n, sizeof(*sorted), compare);
        memcpy(kept, w, sizeof(kept));
        want = phx_weights_sum(w, n) * (double)top_p;
        phx_keep_top_p(x, kept, n, top_p, list);
        for (int32_t i = 0; i < n; i++) {
            int32_t id = sorted[i].id;

            /* where the running sum comes within rounding of the share, either answer is right */
            if (fabs(sum - want) > 1e-9)
                assert_true(sum < want ? kept[id] == w[id] : kept[id] == 0.0);
            sum += w[id];
        }
    }
}

static void picking_walks_the_shares_in_id_order(void **state)
{
    static double w[20000];

    (void)state;
    for (int i = 0; i < 20000; i++)
        w[i] = i % 2 ? 0.0 : 1.0;
    for (int i = 0; i < 10000; i++)
        assert_int_equal(phx_weights_pick(w, 20000, ((double)i + 0.5) / 10000.0), 2 * i);
    assert_int_equal(phx_weights_pick(w, 20000, 0.0), 0);
    assert_int_equal(phx_weights_pick(w, 20000, 1.0 - 0x1p-53), 19998);
    memset(w, 0, sizeof(w));
    w[9001] = 1e-300; /* u past the rounded end still finds the only one */
    assert_int_equal(phx_weights_pick(w, 20000, 1.0 - 0x1p-53), 9001);
    assert_int_equal(phx_weights_pick(w, 20000, 0.0), 9001);
}

/* Random123's known answers. */
static void philox_gives_the_known_answers(void **state)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        uint32_t out[4];

        phx_philox(cases[i].counter, cases[i].key, out);
        assert_memory_equal(out, cases[i].out, sizeof(out));
    }
}

/* Answers must not depend on the processor. */
static void every_width_of_vectors_gives_the_same_bits(void **state)
{
    static float  x[N_MAX];
    static double plain[N_MAX], other[N_MAX];

    (void)state;
    for (int32_t n = 1; n < N_MAX; n += n < 70 ? 1 : 97) {
        const struct phx_sample_loops *l;
        const double                   scale = 1.0 / (0.1 + 0.01 * n);
        double                         sum;
        float                          largest = -INFINITY;

        for (int32_t i = 0; i < n; i++) {
            x[i] = (float)(random_u32() % 100000) * 0.01f - 900.0f;
            x[i] = random_u32() % 10 == 0 ? -INFINITY : x[i];
            largest = x[i] > largest ? x[i] : largest;
        }
        if (!(largest > -INFINITY))
            x[0] = largest = 1.0f;
        phx_sample_loops_plain.weigh(x, n, (double)largest, scale, plain);
        sum = phx_sample_loops_plain.sum(plain, n);
        for (int i = 0; (l = phx_sample_loops_at(i)) != NULL; i++) {
            double of_l;

            assert_true(l->largest(x, n) == largest);
            l->weigh(x, n, (double)largest, scale, other);
            assert_memory_equal(other, plain, (size_t)n * sizeof(*plain));
            of_l = l->sum(plain, n);
            assert_memory_equal(&of_l, &sum, sizeof(sum));
        }
    }
}

static void the_plain_loops_run_everywhere(void **state)
{
    const struct phx_sample_loops *last = NULL;

    (void)state;
    for (int i = 0; phx_sample_loops_at(i) != NULL; i++)
        last = phx_sample_loops_at(i);
    assert_ptr_equal(last, &phx_sample_loops_plain);
}

static void the_lowest_of_equal_ids_is_found(void **state)
{
    enum { N = 10000 };
    static float x[N];

    (void)state;
    for (int32_t at = 0; at < N; at += 331) {
        for (int32_t i = 0; i < N; i++)
            x[i] = -1.0f;
        x[at] = 2.0f;
        x[N - 1] = 2.0f;
        assert_int_equal(phx_find_largest(x, N), at);
        x[at] = NAN;
        assert_int_equal(phx_find_largest(x, N), -1);
        x[at] = INFINITY;
        assert_int_equal(phx_find_largest(x, N), -1);
    }
    for (int32_t i = 0; i < N; i++)
        x[i] = -INFINITY;
    assert_int_equal(phx_find_largest(x, N), -1);
    x[0] = -0.0f;
    x[N / 2] = 0.0f; /* equal */
    assert_int_equal(phx_find_largest(x, N), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_width_of_vectors_gives_the_same_bits),
        cmocka_unit_test(the_plain_loops_run_everywhere),
        cmocka_unit_test(the_lowest_of_equal_ids_is_found),
        cmocka_unit_test(exp_is_close_to_libm),
        cmocka_unit_test(exp_of_the_largest_is_one_and_of_nothing_is_nothing),
        cmocka_unit_test(a_weight_does_not_depend_on_its_place),
        cmocka_unit_test(log_is_close_to_libm),
        cmocka_unit_test(largest_finds_what_is_odd),
        cmocka_unit_test(top_k_keeps_what_sorting_would),
        cmocka_unit_test(top_p_keeps_what_sorting_would),
        cmocka_unit_test(picking_walks_the_shares_in_id_order),
        cmocka_unit_test(philox_gives_the_known_answers),
    };

    return cmocka_run_group_tests_name("shard/sample/weights", tests, NULL, NULL);
}
