/* SPDX-License-Identifier: Apache-2.0
 * Budgets: windows, refusals, and the failures that budgets kept in several mutable sums are known for.
 * Those cases carry the number of the public report they come from (BerriAI/litellm). */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "book.h"

static void a_request_fits_to_the_last_token_and_not_one_more(void **state)
{
    struct book        b;
    struct book_answer a;

    (void)state;
    book_open(&b);
    assert_int_equal(book_budget(&b, PHX_BUDGET_TENANT, "acme", PHX_PERIOD_DAY, 100, MONDAY_NS), 0);
    assert_int_equal(book_admit(&b, "a", MONDAY_NS, 60, &a), 0);
    assert_int_equal(a.left, 40);
    assert_int_equal(book_admit(&b, "b", MONDAY_NS + 5, 41, &a), PHX_E_LIMIT);
    assert_int_equal(a.broken.scope, PHX_BUDGET_TENANT);
    assert_string_equal(a.broken.window, "2026-11-23");
    assert_int_equal(a.broken.pending, 60);
    assert_int_equal(a.retry_ns, MONDAY_NS + DAY_NS);
    assert_int_equal(book_admit(&b, "b", MONDAY_NS, 40, &a), 0);
    assert_int_equal(a.left, 0);
    assert_int_equal(book_commit(&b, "a", MONDAY_NS, 0, 25), 0); /* 35 come back */
    assert_int_equal(book_admit(&b, "c", MONDAY_NS, 36, &a), PHX_E_LIMIT);
    assert_int_equal(a.broken.posted, 25);
    assert_int_equal(book_admit(&b, "c", MONDAY_NS, 35, &a), 0);
    assert_int_equal(book_admit(&b, "d", MONDAY_NS, 101, &a), PHX_E_LIMIT);
    assert_int_equal(a.retry_ns, 0); /* above the limit itself: no use to wait */
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

static void a_commit_counts_in_the_window_of_its_reserve(void **state)
{
    struct book        b;
    struct book_answer a;
    int64_t            late = MONDAY_NS + DAY_NS - 1, next = MONDAY_NS + DAY_NS;

    (void)state;
    book_open(&b);
    assert_int_equal(book_budget(&b, PHX_BUDGET_USER, "acme/ann", PHX_PERIOD_DAY, 100, late), 0);
    assert_int_equal(book_budget(&b, PHX_BUDGET_KEY, "k1", PHX_PERIOD_MONTH, 150, late), 0);
    assert_int_equal(book_admit(&b, "a", late, 90, &a), 0);
    assert_int_equal(a.left, 10);
    assert_int_equal(book_admit(&b, "b", late, 20, &a), PHX_E_LIMIT);
    assert_int_equal(book_admit(&b, "b", next, 60, &a), 0); /* a new day */
    assert_int_equal(a.left, 0);                           /* but the same month */
    assert_int_equal(book_commit(&b, "a", next, 0, 50), 0);
    assert_int_equal(book_sum(&b, PHX_BUDGET_USER, "acme/ann", PHX_PERIOD_DAY, next).posted, 0);
    assert_int_equal(book_sum(&b, PHX_BUDGET_USER, "acme/ann", PHX_PERIOD_DAY, late).posted, 50);
    assert_int_equal(book_sum(&b, PHX_BUDGET_KEY, "k1", PHX_PERIOD_MONTH, next).posted, 50);
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

static void of_several_that_refuse_the_longest_wait_is_told(void **state)
{
    struct book           b;
    struct book_answer    a;
    struct phx_ledger_row row = row_reserve("a", MONDAY_NS, 0, 50);

    (void)state;
    book_open(&b);
    assert_int_equal(book_budget(&b, PHX_BUDGET_KEY, "k1", PHX_PERIOD_DAY, 60, MONDAY_NS), 0);
    assert_int_equal(book_budget(&b, PHX_BUDGET_USER, "acme/ann", PHX_PERIOD_MONTH, 70, MONDAY_NS), 0);
    assert_int_equal(book_admit_on(&b, b.store, &row, 80, &a), 0);
    assert_int_equal(a.left, 10);
    row = row_reserve("b", MONDAY_NS, 0, 20);
    assert_int_equal(book_admit_on(&b, b.store, &row, 80, &a), PHX_E_LIMIT);
    assert_int_equal(a.broken.scope, PHX_BUDGET_KEY); /* 50 + 20 <= 70: the key alone refuses */
    row = row_reserve("b", MONDAY_NS, 0, 25);
    assert_int_equal(book_admit_on(&b, b.store, &row, 80, &a), PHX_E_LIMIT);
    assert_int_equal(a.broken.scope, PHX_BUDGET_USER);
    assert_int_equal(a.retry_ns, MONDAY_NS + 8 * DAY_NS); /* 1 December */
    row = row_reserve("b", MONDAY_NS + 8 * DAY_NS, 0, 25);
    assert_int_equal(book_admit_on(&b, b.store, &row, 80, &a), 0);
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

static void the_licence_counts_what_all_tenants_use_in_a_month(void **state)
{
    struct book           b;
    struct book_answer    a;
    struct phx_ledger_row row = row_reserve("a", MONDAY_NS, 0, 50);

    (void)state;
    book_open(&b);
    assert_int_equal(book_put(&b, &row), 0); /* before there was a limit */
    row = row_reserve("b", MONDAY_NS, 0, 50);
    row.tenant = "other";
    assert_int_equal(book_admit_on(&b, b.store, &row, 99, &a), PHX_E_LIMIT);
    assert_int_equal(a.broken.scope, PHX_BUDGET_LICENSE);
    assert_int_equal(book_admit_on(&b, b.store, &row, 100, &a), 0);
    row = row_reserve("c", MONDAY_NS, 0, 1);
    assert_int_equal(book_admit_on(&b, b.store, &row, 100, &a), PHX_E_LIMIT);
    assert_int_equal(book_admit_on(&b, b.store, &row, -1, &a), 0);
    assert_int_equal(a.left, -1);
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

static void a_sum_that_would_overflow_is_an_error(void **state)
{
    struct book        b;
    struct book_answer a;

    (void)state;
    book_open(&b);
    assert_int_equal(book_budget(&b, PHX_BUDGET_TENANT, "acme", PHX_PERIOD_TOTAL, INT64_MAX, MONDAY_NS), 0);
    scratch_sql(&b.scratch, "UPDATE budget_sum SET posted = 9223372036854775800");
    assert_int_equal(book_admit(&b, "a", MONDAY_NS, 8, &a), PHX_E_LIMIT);
    assert_int_equal(book_reserve(&b, "a", MONDAY_NS, 0, 8), PHX_E_INVALID);
    assert_non_null(strstr(b.err.text, "overflow"));
    assert_int_equal(scratch_int(&b.scratch, "SELECT COUNT(*) FROM ledger"), 0);
    assert_int_equal(book_audit(&b), PHX_E_STATE); /* and the audit finds the damage */
    book_close(&b);
}

static void refuses_budgets_that_name_nothing(void **state)
{
    struct book b;

    (void)state;
    book_open(&b);
    assert_int_equal(book_budget(&b, PHX_BUDGET_LICENSE, "", PHX_PERIOD_MONTH, 1, 0), PHX_E_INVALID);
    assert_int_equal(book_budget(&b, PHX_BUDGET_TENANT, "", PHX_PERIOD_MONTH, 1, 0), PHX_E_INVALID);
    assert_int_equal(book_budget(&b, PHX_BUDGET_TENANT, "a/b", PHX_PERIOD_MONTH, 1, 0), PHX_E_INVALID);
    assert_int_equal(book_budget(&b, PHX_BUDGET_USER, "ann", PHX_PERIOD_MONTH, 1, 0), PHX_E_INVALID);
    assert_int_equal(book_budget(&b, PHX_BUDGET_USER, "acme/", PHX_PERIOD_MONTH, 1, 0), PHX_E_INVALID);
    assert_int_equal(book_budget(&b, PHX_BUDGET_KEY, "k", 0, 1, 0), PHX_E_INVALID);
    assert_int_equal(book_budget(&b, PHX_BUDGET_KEY, "k", PHX_PERIOD_DAY, -1, 0), PHX_E_INVALID);
    book_close(&b);
}

/* ---- known failures of others ------------------------------------------------------------------------------ */

enum { N_THREADS = 4, N_TRIES = 40, TOKENS = 7 };

struct racer {
    struct book      *b;
    struct phx_store *store; /* a handle of its own, as another process has */
    int64_t           at_ns;
    int               number, n_admitted, n_refused;
    pthread_t         thread;
};

static void *race(void *ctx)
{
    struct racer      *r = ctx;
    struct book        mine = *r->b; /* errors of its own */
    struct book_answer a;

    for (int i = 0; i < N_TRIES; i++) {
        char                  lease[32];
        struct phx_ledger_row row = row_reserve(lease, r->at_ns, 0, TOKENS);
        int                   rc;

        (void)snprintf(lease, sizeof(lease), "%lld-%d-%d", (long long)r->at_ns, r->number, i);
        rc = book_admit_on(&mine, r->store, &row, -1, &a);
        r->n_admitted += rc == 0;
        r->n_refused += rc == PHX_E_LIMIT;
    }
    return NULL;
}

/* Returns how many were admitted by all together. */
static int race_all(struct book *b, int64_t at_ns)
{
    struct racer racers[N_THREADS];
    int          n_admitted = 0;

    for (int i = 0; i < N_THREADS; i++) {
        racers[i] = (struct racer){.b = b, .at_ns = at_ns, .number = i};
        assert_int_equal(phx_store_open(b->scratch.db, NULL, &racers[i].store, &b->err), 0);
    }
    for (int i = 0; i < N_THREADS; i++)
        assert_int_equal(pthread_create(&racers[i].thread, NULL, race, &racers[i]), 0);
    for (int i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(racers[i].thread, NULL), 0);
        assert_int_equal(racers[i].n_admitted + racers[i].n_refused, N_TRIES);
        n_admitted += racers[i].n_admitted;
        phx_store_close(racers[i].store);
    }
    return n_admitted;
}

/* Several processes find no sum and each adds the history to it: refusals at a fraction of the budget. */
static void litellm_28247_a_cold_sum_is_folded_not_added(void **state)
{
    struct book       b;
    struct phx_budget sum;

    (void)state;
    book_open(&b);
    assert_int_equal(book_reserve(&b, "past", MONDAY_NS, 0, 300), 0);
    assert_int_equal(book_commit(&b, "past", MONDAY_NS, 0, 300), 0);
    assert_int_equal(book_budget(&b, PHX_BUDGET_TENANT, "acme", PHX_PERIOD_DAY, 1000, MONDAY_NS), 0);
    scratch_sql(&b.scratch, "DELETE FROM budget_sum");
    assert_int_equal(race_all(&b, MONDAY_NS), 700 / TOKENS);
    sum = book_sum(&b, PHX_BUDGET_TENANT, "acme", PHX_PERIOD_DAY, MONDAY_NS);
    assert_int_equal(sum.posted, 300);
    assert_int_equal(sum.pending, 700);
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

static int void_open(void *ctx, const struct phx_ledger_row *open)
{
    struct phx_ledger_row row = {
        .kind = PHX_LEDGER_VOID, .lease = open->lease, .at_ns = open->at_ns, .outcome = "expired"};

    return phx_ledger_put(ctx, &row, NULL);
}

static int void_all(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    (void)ctx;
    return phx_ledger_open_rows(tx, INT64_MAX, void_open, tx, err);
}

/* A reservation whose request died is never given back: the budget is exhausted by nothing. */
static void litellm_27639_a_dead_reservation_is_found_and_given_back(void **state)
{
    struct book        b;
    struct book_answer a;
    char               lease[16];

    (void)state;
    book_open(&b);
    assert_int_equal(book_budget(&b, PHX_BUDGET_KEY, "k1", PHX_PERIOD_TOTAL, 100, MONDAY_NS), 0);
    for (int i = 0; i < 10; i++) {
        (void)snprintf(lease, sizeof(lease), "l%d", i);
        assert_int_equal(book_admit(&b, lease, MONDAY_NS, 10, &a), 0);
    }
    assert_int_equal(book_admit(&b, "more", MONDAY_NS, 1, &a), PHX_E_LIMIT);
    phx_store_close(b.store); /* the daemon dies; the next one settles what it left */
    assert_int_equal(phx_store_open(b.scratch.db, NULL, &b.store, &b.err), 0);
    assert_int_equal(phx_store_run(b.store, void_all, NULL, &b.err), 0);
    assert_int_equal(book_admit(&b, "more", MONDAY_NS, 100, &a), 0);
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

static int put_then_fail(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    int rc = phx_ledger_put(tx, ctx, err);

    return rc != 0 ? rc : phx_fail(err, PHX_E_TIMEOUT, "the caller gave up");
}

/* An increment that timed out had been made, and is made again. */
static void litellm_30460_a_failed_step_leaves_no_trace_in_a_sum(void **state)
{
    struct book           b;
    struct phx_ledger_row row = row_reserve("a", MONDAY_NS, 0, 10);

    (void)state;
    book_open(&b);
    assert_int_equal(book_budget(&b, PHX_BUDGET_TENANT, "acme", PHX_PERIOD_MONTH, 50, MONDAY_NS), 0);
    for (int i = 0; i < 20; i++)
        assert_int_equal(phx_store_run(b.store, put_then_fail, &row, &b.err), PHX_E_TIMEOUT);
    assert_int_equal(book_put(&b, &row), 0);
    assert_int_equal(book_put(&b, &row), PHX_E_STATE); /* sent again: counted once */
    assert_int_equal(book_sum(&b, PHX_BUDGET_TENANT, "acme", PHX_PERIOD_MONTH, MONDAY_NS).pending, 10);
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

/* A counter that expired lets everything through, or falls back to an old value. */
static void litellm_34238_a_sum_that_is_gone_is_computed_again(void **state)
{
    struct book        b;
    struct book_answer a;

    (void)state;
    book_open(&b);
    assert_int_equal(book_budget(&b, PHX_BUDGET_USER, "acme/ann", PHX_PERIOD_MONTH, 100, MONDAY_NS), 0);
    assert_int_equal(book_admit(&b, "a", MONDAY_NS, 60, &a), 0);
    assert_int_equal(book_commit(&b, "a", MONDAY_NS, 0, 60), 0);
    assert_int_equal(book_admit(&b, "b", MONDAY_NS, 30, &a), 0);
    scratch_sql(&b.scratch, "DELETE FROM budget_sum");
    assert_int_equal(book_admit(&b, "c", MONDAY_NS, 11, &a), PHX_E_LIMIT);
    assert_int_equal(a.broken.posted, 60);
    assert_int_equal(a.broken.pending, 30);
    assert_int_equal(book_admit(&b, "c", MONDAY_NS, 10, &a), 0);
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

/* Each replica asks its own cache: the cap is exceeded by their number. */
static void litellm_33325_handles_on_one_ledger_share_one_sum(void **state)
{
    struct book           b;
    struct book_answer    a;
    struct phx_store     *other;
    struct phx_ledger_row row = row_reserve("b", MONDAY_NS, 0, 41);

    (void)state;
    book_open(&b);
    assert_int_equal(book_budget(&b, PHX_BUDGET_KEY, "k1", PHX_PERIOD_DAY, 100, MONDAY_NS), 0);
    assert_int_equal(phx_store_open(b.scratch.db, NULL, &other, &b.err), 0);
    assert_int_equal(book_admit(&b, "a", MONDAY_NS, 60, &a), 0);
    assert_int_equal(book_admit_on(&b, other, &row, -1, &a), PHX_E_LIMIT);
    row.reserved = 40;
    assert_int_equal(book_admit_on(&b, other, &row, -1, &a), 0);
    assert_int_equal(book_admit(&b, "c", MONDAY_NS, 1, &a), PHX_E_LIMIT);
    phx_store_close(other);
    assert_int_equal(race_all(&b, MONDAY_NS + DAY_NS), 100 / TOKENS);
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

/* Usage is charged when the answer is done: whatever is in flight goes over the budget. */
static void litellm_26672_what_is_in_flight_is_charged_before_it_starts(void **state)
{
    struct book        b;
    struct book_answer a;
    char               lease[16];
    int                n = 0;

    (void)state;
    book_open(&b);
    assert_int_equal(book_budget(&b, PHX_BUDGET_KEY, "k1", PHX_PERIOD_TOTAL, 1000, MONDAY_NS), 0);
    for (int i = 0; i < 200; i++) { /* all at once, none done */
        (void)snprintf(lease, sizeof(lease), "l%d", i);
        n += book_admit(&b, lease, MONDAY_NS, 30, &a) == 0;
    }
    assert_int_equal(n, 33);
    for (int i = 0; i < n; i++) { /* every one of them produces all that it may */
        (void)snprintf(lease, sizeof(lease), "l%d", i);
        assert_int_equal(book_commit(&b, lease, MONDAY_NS, 0, 30), 0);
    }
    assert_int_equal(book_sum(&b, PHX_BUDGET_KEY, "k1", PHX_PERIOD_TOTAL, MONDAY_NS).posted, 990);
    assert_int_equal(book_admit(&b, "more", MONDAY_NS, 11, &a), PHX_E_LIMIT);
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

/* The reset reaches one replica; the others go on refusing. */
static void litellm_40940_a_new_window_is_new_for_every_handle(void **state)
{
    struct book           b;
    struct book_answer    a;
    struct phx_store     *other;
    struct phx_ledger_row row = row_reserve("x", MONDAY_NS, 0, 1);

    (void)state;
    book_open(&b);
    assert_int_equal(book_budget(&b, PHX_BUDGET_TENANT, "acme", PHX_PERIOD_DAY, 10, MONDAY_NS), 0);
    assert_int_equal(phx_store_open(b.scratch.db, NULL, &other, &b.err), 0);
    assert_int_equal(book_admit(&b, "a", MONDAY_NS, 10, &a), 0);
    assert_int_equal(book_admit_on(&b, other, &row, -1, &a), PHX_E_LIMIT);
    row.at_ns = MONDAY_NS + DAY_NS;
    assert_int_equal(book_admit(&b, "b", MONDAY_NS + DAY_NS, 9, &a), 0);
    assert_int_equal(book_admit_on(&b, other, &row, -1, &a), 0);
    row.lease = "y";
    assert_int_equal(book_admit_on(&b, other, &row, -1, &a), PHX_E_LIMIT);
    phx_store_close(other);
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_fits_to_the_last_token_and_not_one_more),
        cmocka_unit_test(a_commit_counts_in_the_window_of_its_reserve),
        cmocka_unit_test(of_several_that_refuse_the_longest_wait_is_told),
        cmocka_unit_test(the_licence_counts_what_all_tenants_use_in_a_month),
        cmocka_unit_test(a_sum_that_would_overflow_is_an_error),
        cmocka_unit_test(refuses_budgets_that_name_nothing),
        cmocka_unit_test(litellm_28247_a_cold_sum_is_folded_not_added),
        cmocka_unit_test(litellm_27639_a_dead_reservation_is_found_and_given_back),
        cmocka_unit_test(litellm_30460_a_failed_step_leaves_no_trace_in_a_sum),
        cmocka_unit_test(litellm_34238_a_sum_that_is_gone_is_computed_again),
        cmocka_unit_test(litellm_33325_handles_on_one_ledger_share_one_sum),
        cmocka_unit_test(litellm_26672_what_is_in_flight_is_charged_before_it_starts),
        cmocka_unit_test(litellm_40940_a_new_window_is_new_for_every_handle),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
