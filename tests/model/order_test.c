/* SPDX-License-Identifier: Apache-2.0
 * The order of a step's rows of logits, and the best of several ranks. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "shard/model/order.h"

enum { N = 9, V = 1000 };

static const int32_t whole_vocabulary[] = {V}, halves[] = {480, 520};

static const struct phx_logits_want wants[N] = {
    {.n_best = 5}, {.is_whole = true}, {.n_best = 1}, {.n_draws = 1}, {.n_best = 1, .n_draws = 1},
    {.n_best = 200, .n_draws = 2}, {.is_whole = true}, {.n_best = 7}, {.n_best = 1},
};

struct fixture {
    int32_t                 rows[N], place[N], ordered[N];
    struct phx_logits_order order;
    struct phx_batch        batch;
};

static struct fixture *order_of(struct fixture *f, int32_t tp, bool is_in_place, bool is_queued)
{
    const struct phx_logits_shape shape = {V, tp, tp == 1 ? whole_vocabulary : halves, is_in_place, is_queued};

    *f = (struct fixture){.batch = {.n_logits = N, .logit_rows = f->rows, .wants = wants},
                          .order = {.place = f->place, .rows = f->ordered}};
    for (int32_t i = 0; i < N; i++)
        f->rows[i] = 10 * i;
    phx_logits_order(&f->batch, &shape, &f->order);
    for (int32_t i = 0; i < N; i++) /* no two at one place */
        assert_int_equal(f->ordered[f->place[i]], f->rows[i]);
    assert_int_equal(f->order.first[PHX_LOGITS_CLASSES], N);
    return f;
}

static void assert_first(const struct fixture *f, const int32_t first[PHX_LOGITS_CLASSES])
{
    for (int c = 0; c < PHX_LOGITS_CLASSES; c++)
        assert_int_equal(f->order.first[c], first[c]);
}

static void rows_of_a_kind_lie_side_by_side(void **state)
{
    const int32_t  first[] = {0, 2, 3, 6, 9, 9}, order[] = {10, 60, 30, 20, 40, 80, 0, 50, 70};
    struct fixture f;

    (void)state;
    order_of(&f, 1, false, false);
    assert_first(&f, first);
    assert_memory_equal(f.ordered, order, sizeof(order));
    assert_int_equal(f.order.n_draws, 4);
    assert_int_equal(f.order.n_best[PHX_LOGITS_BEST], 1);
    assert_int_equal(f.order.n_best[PHX_LOGITS_BESTS], 200);
}

static void split_rows_send_their_best_when_that_is_little(void **state)
{
    /* draws need the sum of all: gathered; 200 best of both ranks would be as much as their columns */
    const int32_t  gathered[] = {0, 5, 5, 5, 5, 7}, queued[] = {0, 2, 3, 4, 5, 7};
    struct fixture f;

    (void)state;
    assert_first(order_of(&f, 2, false, false), gathered);
    assert_int_equal(f.order.n_draws, 0);
    assert_int_equal(f.order.n_best[PHX_LOGITS_SPLIT_BESTS], 7);
    assert_first(order_of(&f, 2, false, true), queued);
    assert_int_equal(f.order.n_draws, 4);
}

static void in_place_and_without_wants_nothing_moves(void **state)
{
    const int32_t  all[] = {0, N, N, N, N, N};
    struct fixture f;

    (void)state;
    assert_first(order_of(&f, 2, true, false), all);
    for (int32_t i = 0; i < N; i++)
        assert_int_equal(f.place[i], i);
    f.batch.wants = NULL;
    phx_logits_order(&f.batch, &(struct phx_logits_shape){V, 1, whole_vocabulary, false, false}, &f.order);
    assert_first(&f, all);
    assert_memory_equal(f.ordered, f.rows, sizeof(f.rows));
}

/* ids, logits and sum of one rank's best. */
static int32_t put(float *at, const int32_t *ids, const float *logits, int32_t n, float sum)
{
    memcpy(at, ids, (size_t)n * sizeof(*ids));
    memcpy(at + n, logits, (size_t)n * sizeof(*logits));
    at[2 * n] = sum;
    return 2 * n + 1;
}

static void the_best_of_ranks_are_the_best(void **state)
{
    static const int32_t          vocab_first[] = {0, 100, 102}, vocab_n[] = {100, 2, 100};
    const struct phx_logits_shape shape = {202, 3, vocab_n, false, false};
    float                         parts[32], out[9];
    int32_t                       n = 0, ids[4];

    (void)state;
    n += put(parts + n, (const int32_t[]){9, 3, 50, 2}, (const float[]){5, 4, 4, -INFINITY}, 4, 1.0f);
    n += put(parts + n, (const int32_t[]){1, 0}, (const float[]){5, 1}, 2, -INFINITY); /* it has no more */
    n += put(parts + n, (const int32_t[]){0, 7, 8, 9}, (const float[]){4, 3, 2, 1}, 4, 2.0f);
    phx_logits_merge(parts, &shape, vocab_first, 4, out);
    memcpy(ids, out, sizeof(ids));
    assert_true(ids[0] == 9 && ids[1] == 101 && ids[2] == 3 && ids[3] == 50); /* the lowest id on ties */
    assert_true(out[4] == 5 && out[5] == 5 && out[6] == 4 && out[7] == 4 && out[8] == 2.0f);
    parts[8] = NAN;
    phx_logits_merge(parts, &shape, vocab_first, 4, out);
    assert_true(isnan(out[8]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_of_a_kind_lie_side_by_side),
        cmocka_unit_test(split_rows_send_their_best_when_that_is_little),
        cmocka_unit_test(in_place_and_without_wants_nothing_moves),
        cmocka_unit_test(the_best_of_ranks_are_the_best),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
