/* SPDX-License-Identifier: Apache-2.0
 * The store: shared commits, a failing job among good ones, callbacks once, a full database. */
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/store/store.h"
#include "scratch.h"

enum { N_JOBS = 200 };

struct fixture {
    struct scratch     scratch;
    struct event_base *base;
    struct phx_store  *store;
    int                n_done;
};

struct job {
    struct fixture *f;
    int             number;
    int             n_done, code;
};

static void setup(struct fixture *f)
{
    struct phx_err err = {0};

    memset(f, 0, sizeof(*f));
    scratch_make(&f->scratch);
    f->base = event_base_new();
    assert_int_equal(phx_store_open(f->scratch.db, f->base, &f->store, &err), 0);
    scratch_sql(&f->scratch, "CREATE TABLE t(n INTEGER PRIMARY KEY)");
}

static void teardown(struct fixture *f)
{
    phx_store_close(f->store);
    event_base_free(f->base);
    scratch_remove(&f->scratch);
}

static int insert(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct job *job = ctx;
    struct phx_value  v = phx_value_int(job->number);
    int               rc = phx_tx_exec(tx, "INSERT INTO t(n) VALUES(?)", &v, 1, NULL, NULL, err);

    if (rc == 0 && job->number % 10 == 3)
        rc = phx_fail(err, PHX_E_STATE, "number %d fails after its insert", job->number);
    return rc;
}

static void on_done(void *ctx, const struct phx_err *err)
{
    struct job *job = ctx;

    job->n_done++;
    job->code = err != NULL ? err->code : 0;
    if (++job->f->n_done == N_JOBS)
        assert_int_equal(event_base_loopbreak(job->f->base), 0);
}

static void test_failing_jobs_roll_back_alone(void **state)
{
    static struct job jobs[N_JOBS];
    struct fixture    f;
    struct timeval    late = {10, 0};

    (void)state;
    setup(&f);
    for (int i = 0; i < N_JOBS; i++) {
        jobs[i] = (struct job){.f = &f, .number = i};
        phx_store_submit(f.store, insert, on_done, &jobs[i]);
    }
    assert_int_equal(f.n_done, 0); /* callbacks come on the loop, never from submit */
    assert_int_equal(event_base_loopexit(f.base, &late), 0);
    assert_true(event_base_dispatch(f.base) >= 0);
    assert_int_equal(f.n_done, N_JOBS);
    for (int i = 0; i < N_JOBS; i++) {
        assert_int_equal(jobs[i].n_done, 1);
        assert_int_equal(jobs[i].code, i % 10 == 3 ? PHX_E_STATE : 0);
    }
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM t"), N_JOBS - N_JOBS / 10);
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM t WHERE n % 10 = 3"), 0);
    teardown(&f);
}

static void test_jobs_share_a_commit(void **state)
{
    static struct job jobs[N_JOBS];
    struct fixture    f;
    int64_t           before, after;

    (void)state;
    setup(&f);
    /* A WAL of one commit has one commit record; its count of frames tells shared commits apart: 200
     * commits of their own would write at least 200 frames. */
    scratch_sql(&f.scratch, "PRAGMA wal_checkpoint(TRUNCATE)");
    before = scratch_int(&f.scratch, "SELECT COUNT(*) FROM t");
    for (int i = 0; i < N_JOBS; i++) {
        jobs[i] = (struct job){.f = &f, .number = i * 10};
        phx_store_submit(f.store, insert, on_done, &jobs[i]);
    }
    assert_true(event_base_dispatch(f.base) >= 0);
    after = scratch_int(&f.scratch, "SELECT COUNT(*) FROM t");
    assert_int_equal(after - before, N_JOBS);
    {
        char  wal[128];
        FILE *file;

        (void)snprintf(wal, sizeof(wal), "%s-wal", f.scratch.db);
        file = fopen(wal, "rb");
        assert_non_null(file);
        assert_int_equal(fseek(file, 0, SEEK_END), 0);
        assert_true(ftell(file) < 50 * 4096L); /* bytes; a frame holds a page of 4096 */
        assert_int_equal(fclose(file), 0);
    }
    teardown(&f);
}

static void test_close_finishes_what_was_submitted(void **state)
{
    struct fixture f;
    struct job     job;

    (void)state;
    setup(&f);
    job = (struct job){.f = &f, .number = 1};
    phx_store_submit(f.store, insert, on_done, &job);
    phx_store_close(f.store);
    f.store = NULL;
    assert_int_equal(job.n_done, 1);
    assert_int_equal(job.code, 0);
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM t"), 1);
    teardown(&f);
}

static int limit_pages(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    (void)ctx;
    return phx_tx_exec(tx, "PRAGMA max_page_count = 1", NULL, 0, NULL, NULL, err);
}

static int unlimit_pages(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    (void)ctx;
    return phx_tx_exec(tx, "PRAGMA max_page_count = 1000000", NULL, 0, NULL, NULL, err);
}

static int insert_large(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    (void)ctx;
    return phx_tx_exec(tx, "CREATE TABLE large AS SELECT zeroblob(1000000) AS b", NULL, 0, NULL, NULL,
                       err);
}

static void test_a_full_disk_is_an_error_and_passes(void **state)
{
    struct fixture f;
    struct phx_err err = {0};
    struct job     job;

    (void)state;
    setup(&f);
    job = (struct job){.f = &f, .number = 1};
    assert_int_equal(phx_store_run(f.store, limit_pages, NULL, &err), 0);
    assert_int_equal(phx_store_run(f.store, insert_large, NULL, &err), PHX_E_IO);
    assert_int_equal(phx_store_run(f.store, unlimit_pages, NULL, &err), 0);
    assert_int_equal(phx_store_run(f.store, insert, &job, &err), 0);
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM t"), 1);
    teardown(&f);
}

static void test_a_newer_schema_is_refused(void **state)
{
    struct fixture    f;
    struct phx_store *other = NULL;
    struct phx_err    err = {0};

    (void)state;
    setup(&f);
    scratch_sql(&f.scratch, "PRAGMA user_version = 9999");
    assert_int_equal(phx_store_open(f.scratch.db, NULL, &other, &err), PHX_E_UNSUPPORTED);
    assert_null(other);
    assert_non_null(strstr(err.text, "9999"));
    assert_int_equal(phx_store_open("/nonexistent/phalanx.db", NULL, &other, &err), PHX_E_IO);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_failing_jobs_roll_back_alone),
        cmocka_unit_test(test_jobs_share_a_commit),
        cmocka_unit_test(test_close_finishes_what_was_submitted),
        cmocka_unit_test(test_a_full_disk_is_an_error_and_passes),
        cmocka_unit_test(test_a_newer_schema_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
