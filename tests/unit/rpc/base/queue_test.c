/* SPDX-License-Identifier: Apache-2.0
 * queue and table. */
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/clock.h"
#include "rpc/base/id.h"
#include "rpc/base/mem.h"
#include "rpc/base/queue.h"
#include "rpc/base/table.h"

static bool is_readable(struct phx_queue *q)
{
    struct pollfd p = {.fd = phx_queue_fd(q), .events = POLLIN};

    return poll(&p, 1, 0) == 1;
}

static void the_fd_is_readable_exactly_while_something_waits(void **state)
{
    struct phx_queue *q;
    struct phx_err    err;
    int               items[3];

    (void)state;
    assert_int_equal(phx_queue_create(&q, 3, &err), 0);
    assert_false(is_readable(q));
    for (int i = 0; i < 3; i++)
        assert_int_equal(phx_queue_push(q, &items[i]), 0);
    assert_int_equal(phx_queue_push(q, &items[0]), PHX_E_BUSY);
    for (int i = 0; i < 3; i++) {
        assert_true(is_readable(q));
        assert_ptr_equal(phx_queue_try_pop(q), &items[i]);
    }
    assert_false(is_readable(q));
    assert_null(phx_queue_try_pop(q));
    phx_queue_destroy(q, NULL);
}

static void a_closed_queue_gives_what_it_has_and_then_nothing(void **state)
{
    struct phx_queue *q;
    struct phx_err    err;
    int               item;

    (void)state;
    assert_int_equal(phx_queue_create(&q, 3, &err), 0);
    assert_int_equal(phx_queue_push(q, &item), 0);
    phx_queue_close(q);
    assert_int_equal(phx_queue_push(q, &item), PHX_E_STATE);
    assert_ptr_equal(phx_queue_pop(q, -1), &item);
    assert_null(phx_queue_pop(q, -1)); /* does not wait */
    assert_true(is_readable(q));
    phx_queue_destroy(q, NULL);
}

static void waiting_ends_after_its_time(void **state)
{
    struct phx_queue *q;
    struct phx_err    err;
    int64_t           start = phx_clock_mono_ns();

    (void)state;
    assert_int_equal(phx_queue_create(&q, 1, &err), 0);
    assert_null(phx_queue_pop(q, 50));
    assert_in_range((phx_clock_mono_ns() - start) / 1000000, 50, 2000);
    phx_queue_destroy(q, NULL);
}

enum { N_ITEMS = 100000 };

static void *push_many(void *ctx)
{
    for (uintptr_t i = 1; i <= N_ITEMS; i++)
        while (phx_queue_push(ctx, (void *)i) != 0)
            (void)sched_yield();
    return NULL;
}

static void two_pushers_lose_nothing(void **state)
{
    struct phx_queue *q;
    struct phx_err    err;
    pthread_t         threads[2];
    uint64_t          sum = 0;

    (void)state;
    assert_int_equal(phx_queue_create(&q, 1000, &err), 0);
    for (int i = 0; i < 2; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, push_many, q), 0);
    for (int i = 0; i < 2 * N_ITEMS; i++) {
        void *item = phx_queue_pop(q, 10000);

        assert_non_null(item);
        sum += (uintptr_t)item;
    }
    for (int i = 0; i < 2; i++)
        (void)pthread_join(threads[i], NULL);
    assert_true(sum == (uint64_t)N_ITEMS * (N_ITEMS + 1));
    assert_false(is_readable(q));
    phx_queue_destroy(q, NULL);
}

static void what_is_left_inside_is_freed(void **state)
{
    struct phx_queue *q;
    struct phx_err    err;

    (void)state;
    assert_int_equal(phx_queue_create(&q, 40, &err), 0);
    for (int i = 0; i < 40; i++)
        assert_int_equal(phx_queue_push(q, phx_mem_calloc(1, 16)), 0);
    phx_mem_free(phx_queue_try_pop(q));
    assert_int_equal(phx_queue_push(q, phx_mem_calloc(1, 16)), 0); /* wraps around */
    phx_queue_destroy(q, phx_mem_free);
}

/* Against a plain array: random sets, gets and removes. */
static void a_number_table_behaves_like_an_array(void **state)
{
    enum { KEYS = 512 };
    struct phx_table *t = phx_table_create(KEYS);
    char             *model[KEYS] = {NULL};
    static char       values[KEYS];
    size_t            count = 0, cursor = 0, seen = 0;
    uint64_t          seed = 12345;

    (void)state;
    for (int i = 0; i < 200000; i++) {
        size_t k;

        seed = seed * 6364136223846793005u + 1442695040888963407u;
        k = (seed >> 33) % KEYS;
        if ((seed >> 60) < 8) {
            count += model[k] == NULL;
            model[k] = &values[(seed >> 40) % KEYS];
            assert_int_equal(phx_table_set_u64(t, k * 1000003, model[k]), 0);
        } else {
            assert_ptr_equal(phx_table_remove_u64(t, k * 1000003), model[k]);
            count -= model[k] != NULL;
            model[k] = NULL;
        }
        assert_int_equal(phx_table_count(t), count);
    }
    for (size_t k = 0; k < KEYS; k++)
        assert_ptr_equal(phx_table_get_u64(t, k * 1000003), model[k]);
    while (phx_table_next(t, &cursor) != NULL)
        seen++;
    assert_int_equal(seen, count);
    phx_table_destroy(t);
}

static void a_string_table_copies_keys_and_knows_its_limit(void **state)
{
    struct phx_table *t = phx_table_create(2);
    char              key[8] = "one";
    int               a, b;

    (void)state;
    assert_int_equal(phx_table_set_str(t, key, &a), 0);
    (void)snprintf(key, sizeof(key), "two");
    assert_int_equal(phx_table_set_str(t, key, &b), 0);
    assert_ptr_equal(phx_table_get_str(t, "one"), &a);
    assert_int_equal(phx_table_set_str(t, "three", &a), PHX_E_LIMIT);
    assert_int_equal(phx_table_set_str(t, "one", &b), 0); /* replacing is no new entry */
    assert_ptr_equal(phx_table_remove_str(t, "one"), &b);
    assert_null(phx_table_remove_str(t, "one"));
    assert_int_equal(phx_table_set_str(t, "three", &a), 0);
    assert_null(phx_table_get_str(t, ""));
    phx_table_destroy(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_fd_is_readable_exactly_while_something_waits),
        cmocka_unit_test(a_closed_queue_gives_what_it_has_and_then_nothing),
        cmocka_unit_test(waiting_ends_after_its_time),
        cmocka_unit_test(two_pushers_lose_nothing),
        cmocka_unit_test(what_is_left_inside_is_freed),
        cmocka_unit_test(a_number_table_behaves_like_an_array),
        cmocka_unit_test(a_string_table_copies_keys_and_knows_its_limit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
