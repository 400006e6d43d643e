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
    assert_int_equal(book_admit_on(&b, b.store, &row, 80, &a), 0 + PHX_E_LIMIT);
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_request_fits_to_the_last_token_and_not_one_more),
        cmocka_unit_test(a_commit_counts_in_the_window_of_its_reserve),
        cmocka_unit_test(of_several_that_refuse_the_longest_wait_is_told),
        cmocka_unit_test(the_licence_counts_what_all_tenants_use_in_a_month),
        cmocka_unit_test(a_sum_that_would_overflow_is_an_error),
        cmocka_unit_test(refuses_budgets_that_name_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
