/* SPDX-License-Identifier: Apache-2.0
 * Leaves get numbers without gaps from many writers, some of which fail; each hash is that of its record. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "log.h"

enum { N_THREADS = 8, N_JOBS = 100 };

struct writer {
    struct phx_store *store;
    int               number;
    int               job;
    int64_t           n_expected;
};

static int write_some(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct writer *w = ctx;

    for (int i = 0; i <= w->job % 3; i++) {
        char subject[64];
        int  rc;

        (void)snprintf(subject, sizeof(subject), "writer %d job %d leaf %d", w->number, w->job, i);
        rc = phx_audit_event(tx, "admin", "test.write", subject, "test", "", w->job, err);
        if (rc != 0)
            return rc;
    }
    return w->job % 4 == 1 ? phx_fail(err, PHX_E_STATE, "this one rolls back") : 0;
}

static void *run_writer(void *ctx)
{
    struct writer *w = ctx;
    struct phx_err err = {0};

    for (w->job = 0; w->job < N_JOBS; w->job++)
        if (phx_store_run(w->store, write_some, w, &err) == 0)
            w->n_expected += w->job % 3 + 1;
    return NULL;
}

struct seen {
    int64_t n;
};

static int check_row(void *ctx, const struct phx_value *c, int n_columns)
{
    struct seen         *s = ctx;
    struct phx_tlog_hash leaf;

    assert_int_equal(n_columns, 5);
    assert_int_equal(c[0].number, s->n);
    phx_tlog_leaf(c[1].data, c[1].size, &leaf);
    assert_int_equal(c[2].size, sizeof(leaf));
    assert_memory_equal(c[2].data, &leaf, sizeof(leaf));
    assert_non_null(strstr(c[1].data, c[3].data)); /* the receipt of the column is that of the record */
    assert_in_range(c[4].number, 0, N_JOBS - 1);
    s->n++;
    return 0;
}

static int walk(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_tx_exec(tx, "SELECT leaf, record, leaf_hash, receipt, at_ns FROM audit ORDER BY leaf", NULL, 0,
                       check_row, ctx, err);
}

static void test_numbers_have_no_gaps(void **state)
{
    struct log     l;
    struct writer  writers[N_THREADS];
    pthread_t      threads[N_THREADS];
    struct seen    seen = {0};
    struct phx_err err = {0};
    int64_t        n_expected = 0;

    (void)state;
    log_make(&l);
    for (int i = 0; i < N_THREADS; i++) {
        writers[i] = (struct writer){.store = l.store, .number = i};
        assert_int_equal(pthread_create(&threads[i], NULL, run_writer, &writers[i]), 0);
    }
    for (int i = 0; i < N_THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        n_expected += writers[i].n_expected;
    }
    assert_int_equal(phx_store_run(l.store, walk, &seen, &err), 0);
    assert_int_equal(seen.n, n_expected);
    assert_int_equal(n_expected, N_THREADS * 149); /* of 199 leaves of a writer's 100 jobs */
    log_remove(&l);
}

static int write_event(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    (void)ctx;
    return phx_audit_event(tx, "licence", "licence.install", "serial \"7\"", "ops", "", 42, err);
}

static int read_event(void *ctx, const struct phx_value *c, int n_columns)
{
    char expected[256];

    (void)n_columns;
    (void)snprintf(expected, sizeof(expected),
                   "{\"at_ns\":42,\"by\":\"ops\",\"detail\":\"\",\"event\":\"licence.install\","
                   "\"kind\":\"licence\",\"receipt\":\"%s\",\"subject\":\"serial \\\"7\\\"\",\"v\":1}",
                   (const char *)c[0].data);
    assert_string_equal(c[1].data, expected);
    (*(int *)ctx)++;
    return 0;
}

static int find_event(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_tx_exec(tx, "SELECT receipt, record FROM audit WHERE kind = 'licence' AND at_ns = 42", NULL, 0,
                       read_event, ctx, err);
}

static void test_event(void **state)
{
    struct log     l;
    struct phx_err err = {0};
    int            n = 0;

    (void)state;
    log_make(&l);
    assert_int_equal(phx_store_run(l.store, write_event, NULL, &err), 0);
    assert_int_equal(phx_store_run(l.store, find_event, &n, &err), 0);
    assert_int_equal(n, 1);
    log_remove(&l);
}

static int write_long(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    static char       text[PHX_RECORD_MAX_BYTES];
    struct phx_record r;

    (void)ctx;
    memset(text, 'x', sizeof(text) - 1);
    phx_record_init(&r);
    phx_record_int(&r, "at_ns", 1);
    phx_record_str(&r, "s", text);
    return phx_audit_append(tx, "admin", "rcpt_long", "", &r, err);
}

static void test_long_record_is_refused(void **state)
{
    struct log     l;
    struct phx_err err = {0};
    struct seen    seen = {0};

    (void)state;
    log_make(&l);
    assert_int_equal(phx_store_run(l.store, write_long, NULL, &err), PHX_E_TOOBIG);
    assert_int_equal(phx_store_run(l.store, walk, &seen, &err), 0);
    assert_int_equal(seen.n, 0);
    log_remove(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_numbers_have_no_gaps),
        cmocka_unit_test(test_event),
        cmocka_unit_test(test_long_record_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
