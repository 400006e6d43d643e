/* SPDX-License-Identifier: Apache-2.0
 * The set of seats: adding twice changes nothing, counts equal the fold, months and tenants do not mix. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/seat/seat.h"
#include "daemon/store/store.h"
#include "rpc/base/hash.h"

struct fixture {
    char              dir[64], path[96];
    struct phx_store *store;
};

static int setup(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));
    struct phx_err  err = {0};

    assert_non_null(f);
    (void)snprintf(f->dir, sizeof(f->dir), "/tmp/phx-seat-XXXXXX");
    assert_non_null(mkdtemp(f->dir));
    (void)snprintf(f->path, sizeof(f->path), "%s/s.db", f->dir);
    assert_int_equal(phx_store_open(f->path, NULL, &f->store, &err), 0);
    *state = f;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *f = *state;

    phx_store_close(f->store);
    assert_int_equal(unlink(f->path), 0);
    assert_int_equal(rmdir(f->dir), 0); /* the database left nothing else behind */
    free(f);
    return 0;
}

static const uint8_t SALT[32] = {1, 2, 3};

static struct phx_seat make_seat(const char *period, int person, const char *tenant)
{
    struct phx_seat seat = {.tenant = tenant, .first_ns = person};
    char            subject[32];

    (void)snprintf(seat.period, sizeof(seat.period), "%s", period);
    (void)snprintf(subject, sizeof(subject), "person-%d", person);
    phx_seat_id(SALT, "https://idp.example", subject, seat.seat_id);
    return seat;
}

/* ---- ids ------------------------------------------------------------------------------------------ */

static void ids_are_the_published_formula(void **state)
{
    uint8_t       salt[32], id[32], other[32], expected[32];
    const uint8_t text[] = "https://idp.example\0" "00u1";

    (void)state;
    memset(salt, 0x5a, sizeof(salt));
    phx_seat_id(salt, "https://idp.example", "00u1", id);
    phx_hmac_sha256(salt, 32, text, sizeof(text) - 1, expected);
    assert_memory_equal(id, expected, 32);
    phx_seat_id(salt, "https://idp.example0", "0u1", other); /* the parts do not run into each other */
    assert_memory_not_equal(id, other, 32);
    phx_seat_id(salt, "https://idp.exampl", "e00u1", other);
    assert_memory_not_equal(id, other, 32);
    salt[0] ^= 1; /* another licence, another id */
    phx_seat_id(salt, "https://idp.example", "00u1", other);
    assert_memory_not_equal(id, other, 32);
}

/* ---- the set ------------------------------------------------------------------------------------------ */

static int add_all(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_seat_counts n;
    int                    rounds = *(int *)ctx;

    for (int round = 0; round < rounds; round++)
        for (int i = 0; i < 300; i++) {
            struct phx_seat seat = make_seat(i % 2 == 0 ? "2026-11" : "2026-12", i, i % 3 == 0 ? "a" : "b");

            seat.is_indirect = i % 10 == 4;
            seat.is_overdraft = i % 10 == 8;
            seat.is_exempt = i % 50 == 6;
            assert_int_equal(phx_seat_add(tx, &seat, err), 0);
            assert_int_equal(phx_seat_has(tx, seat.period, seat.seat_id, err), 1);
            assert_int_equal(phx_seat_has(tx, "2027-01", seat.seat_id, err), 0);
            if (i % 7 == 0) /* the cached sum is written at odd moments */
                assert_int_equal(phx_seat_count(tx, seat.period, &n, err), 0);
        }
    return 0;
}

static int check_counts(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_seat_counts n;

    (void)ctx;
    assert_int_equal(phx_seat_count(tx, "2026-11", &n, err), 0);
    assert_int_equal(n.people, 150 - 30 - 6);
    assert_int_equal(n.indirect, 30);
    assert_int_equal(n.overdraft, 30);
    assert_int_equal(n.exempt, 6);
    assert_int_equal(phx_seat_count(tx, "2026-12", &n, err), 0);
    assert_int_equal(n.people, 150);
    assert_int_equal(phx_seat_count(tx, "2027-01", &n, err), 0);
    assert_int_equal(n.people + n.indirect + n.exempt, 0);
    return 0;
}

static void adding_twice_changes_nothing(void **state)
{
    struct fixture *f = *state;
    int             rounds = 1;

    assert_int_equal(phx_store_run(f->store, add_all, &rounds, NULL), 0);
    assert_int_equal(phx_store_run(f->store, check_counts, NULL, NULL), 0);
    rounds = 3;
    assert_int_equal(phx_store_run(f->store, add_all, &rounds, NULL), 0);
    assert_int_equal(phx_store_run(f->store, check_counts, NULL, NULL), 0);
}

/* ---- a transaction that is lost -------------------------------------------------------------------------- */

static int add_many(struct phx_tx *tx, int from, int to, struct phx_err *err)
{
    struct phx_seat_counts n;

    for (int i = from; i < to; i++) {
        struct phx_seat seat = make_seat("2026-11", i, "a");

        assert_int_equal(phx_seat_add(tx, &seat, err), 0);
    }
    return phx_seat_count(tx, "2026-11", &n, err); /* so many that it writes its cache */
}

static int add_and_fail(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    (void)ctx;
    assert_int_equal(add_many(tx, 0, 200, err), 0);
    return phx_fail(err, PHX_E_STATE, "refused after all");
}

static int add_some(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    (void)ctx;
    return add_many(tx, 150, 250, err);
}

static int check_lost(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_seat_counts n;

    (void)ctx;
    assert_int_equal(phx_seat_count(tx, "2026-11", &n, err), 0);
    assert_int_equal(n.people, 100);
    return 0;
}

static void a_lost_transaction_takes_its_count_along(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(phx_store_run(f->store, add_and_fail, NULL, NULL), PHX_E_STATE);
    assert_int_equal(phx_store_run(f->store, add_some, NULL, NULL), 0);
    assert_int_equal(phx_store_run(f->store, check_lost, NULL, NULL), 0);
}

/* ---- listing ------------------------------------------------------------------------------------------------- */

static int count_seat(void *ctx, const struct phx_seat *seat)
{
    int *n = ctx;

    assert_string_equal(seat->period, "2026-11");
    assert_true(strcmp(seat->tenant, "a") == 0 || strcmp(seat->tenant, "b") == 0);
    return ++*n == 40 ? PHX_E_CANCELLED : 0;
}

static int list_seats(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    int n = 0, rounds = 1;

    (void)ctx;
    assert_int_equal(add_all(tx, &rounds, err), 0);
    assert_int_equal(phx_seat_list(tx, "2026-11", NULL, count_seat, &n, err), PHX_E_CANCELLED);
    assert_int_equal(n, 40); /* a walk can be ended */
    n = 50;
    assert_int_equal(phx_seat_list(tx, "2026-11", "a", count_seat, &n, err), 0);
    assert_int_equal(n, 100); /* 50 even numbers below 300 that three divides */
    n = 50;
    assert_int_equal(phx_seat_list(tx, "2026-11", NULL, count_seat, &n, err), 0);
    assert_int_equal(n, 200);
    n = 0;
    assert_int_equal(phx_seat_list(tx, "2026-11", "nobody", count_seat, &n, err), 0);
    assert_int_equal(n, 0);
    return 0;
}

static void lists_are_of_one_month_and_tenant(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(phx_store_run(f->store, list_seats, NULL, NULL), 0);
}

/* ---- bad input -------------------------------------------------------------------------------------------------- */

static int add_bad(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    static const char *const periods[] = {"", "2026", "2026-1", "2026/11", "26-11-1", "2026-1x", "x026-11"};
    struct phx_seat          seat;

    (void)ctx;
    for (size_t i = 0; i < sizeof(periods) / sizeof(periods[0]); i++) {
        seat = make_seat(periods[i], 1, "a");
        assert_int_equal(phx_seat_add(tx, &seat, err), PHX_E_INVALID);
    }
    seat = make_seat("2026-11", 1, "");
    assert_int_equal(phx_seat_add(tx, &seat, err), PHX_E_INVALID);
    return 0;
}

static void periods_and_tenants_are_checked(void **state)
{
    struct fixture *f = *state;

    assert_int_equal(phx_store_run(f->store, add_bad, NULL, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ids_are_the_published_formula),
        cmocka_unit_test_setup_teardown(adding_twice_changes_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(a_lost_transaction_takes_its_count_along, setup, teardown),
        cmocka_unit_test_setup_teardown(lists_are_of_one_month_and_tenant, setup, teardown),
        cmocka_unit_test_setup_teardown(periods_and_tenants_are_checked, setup, teardown),
    };

    return cmocka_run_group_tests_name("daemon/seat", tests, NULL, NULL);
}
