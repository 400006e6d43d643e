/* SPDX-License-Identifier: Apache-2.0
 * The daemon's clock over its store: the mark survives, a jump over a restart is held, two people accept it
 * and a running daemon follows. */
#include <event2/event.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/clock.h"
#include "scratch.h"

#define S INT64_C(1000000000)
#define DAY (86400 * S)

struct fixture {
    struct scratch     scratch;
    struct event_base *base;
    struct phx_store  *store;
    struct phx_time   *time;
};

static void open_all(struct fixture *f)
{
    struct phx_err err = {0};

    f->base = event_base_new();
    assert_int_equal(phx_store_open(f->scratch.db, f->base, &f->store, &err), 0);
    assert_int_equal(phx_time_open(f->store, &f->time, &err), 0);
}

static void close_all(struct fixture *f)
{
    phx_time_close(f->time);
    phx_store_close(f->store);
    event_base_free(f->base);
}

static void setup(struct fixture *f)
{
    memset(f, 0, sizeof(*f));
    scratch_make(&f->scratch);
    open_all(f);
}

static void teardown(struct fixture *f)
{
    close_all(f);
    scratch_remove(&f->scratch);
}

/* Asks for the time now and then, as a busy daemon does. */
static void live(struct fixture *f, int64_t ns)
{
    int64_t end = phx_clock_mono_ns() + ns;

    while (phx_clock_mono_ns() < end) {
        struct timeval moment = {0, 50000};

        (void)phx_time_now(f->time);
        assert_int_equal(event_base_loopexit(f->base, &moment), 0);
        assert_true(event_base_dispatch(f->base) >= 0);
    }
}

/* As if the machine had been off since `ago`, under another boot. */
static void put_mark(const struct fixture *f, int64_t ago_ns)
{
    char sql[512];

    (void)snprintf(sql, sizeof(sql),
                   "UPDATE meta SET value = CASE name WHEN 'clock_hwm_ns' THEN %" PRId64
                   " WHEN 'clock_boot_ns' THEN 0 ELSE 77 END"
                   " WHERE name IN ('clock_hwm_ns', 'clock_boot_ns', 'clock_boot_high', 'clock_boot_low')",
                   phx_clock_wall_ns() - ago_ns);
    scratch_sql(&f->scratch, sql);
}

static int64_t meta(const struct fixture *f, const char *name)
{
    char sql[128];

    (void)snprintf(sql, sizeof(sql), "SELECT value FROM meta WHERE name = '%s'", name);
    return scratch_int(&f->scratch, sql);
}

static void test_a_good_clock_is_the_wall(void **state)
{
    struct fixture f;
    int64_t        before, t, after;

    (void)state;
    setup(&f);
    before = phx_clock_wall_ns();
    t = phx_time_now(f.time);
    after = phx_clock_wall_ns();
    assert_true(before <= t && t <= after);
    assert_int_equal(phx_time_state(f.time), PHX_CLOCK_OK);
    assert_in_range(meta(&f, "clock_hwm_ns"), before - 60 * S, after);
    assert_true(meta(&f, "clock_boot_ns") > 0 && meta(&f, "clock_boot_high") != 0);
    teardown(&f);
}

/* A mark of the future: the clock was turned back while the daemon was down. */
static void test_a_clock_turned_back_stays_at_the_mark(void **state)
{
    struct fixture f;
    int64_t        mark, first;

    (void)state;
    setup(&f);
    close_all(&f);
    put_mark(&f, -5 * DAY);
    mark = meta(&f, "clock_hwm_ns");
    open_all(&f);
    first = phx_time_now(f.time);
    assert_true(first >= mark);
    assert_int_equal(phx_time_state(f.time), PHX_CLOCK_BACK);
    usleep(20000);
    assert_true(phx_time_now(f.time) >= first + 20000000); /* and it moves */
    live(&f, 1500 * S / 1000);
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM audit WHERE kind = 'clock' AND"
                                             " instr(record, 'clock.back') > 0"),
                     1);
    teardown(&f);
}

struct command {
    const char *by, *approved_by;
};

static int accept_now(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct command   *c = ctx;
    struct phx_time_reading now;

    phx_time_read(&now);
    return phx_time_accept_in(tx, &now, c->by, c->approved_by, err);
}

static int run_accept(const struct fixture *f, const char *by, const char *approved_by)
{
    struct phx_store *other = NULL; /* another process */
    struct command    c = {by, approved_by};
    struct phx_err    err = {0};
    int               rc;

    assert_int_equal(phx_store_open(f->scratch.db, NULL, &other, &err), 0);
    rc = phx_store_run(other, accept_now, &c, &err);
    phx_store_close(other);
    return rc;
}

static void test_two_people_end_the_suspicion(void **state)
{
    struct fixture f;
    int64_t        t;

    (void)state;
    setup(&f);
    assert_int_equal(run_accept(&f, "ann", "bob"), PHX_E_STATE); /* nothing to accept */
    close_all(&f);
    put_mark(&f, 31 * DAY + 400 * DAY); /* boot clocks of long-running test machines count as well */
    open_all(&f);
    t = phx_time_now(f.time);
    assert_int_equal(phx_time_state(f.time), PHX_CLOCK_SUSPECT);
    assert_true(t < phx_clock_wall_ns() - DAY);
    live(&f, 1500 * S / 1000);
    assert_int_equal(phx_time_state(f.time), PHX_CLOCK_SUSPECT);
    assert_true(meta(&f, "clock_suspect_ns") > 0);
    assert_int_equal(run_accept(&f, "ann", "ann"), PHX_E_INVALID);
    assert_int_equal(run_accept(&f, "", "bob"), PHX_E_INVALID);
    assert_int_equal(run_accept(&f, "ann", ""), PHX_E_INVALID);
    assert_int_equal(run_accept(&f, "ann", "bob"), 0);
    live(&f, 2200 * S / 1000);
    assert_int_equal(phx_time_state(f.time), PHX_CLOCK_OK);
    assert_true(phx_clock_wall_ns() - phx_time_now(f.time) < S);
    live(&f, 1200 * S / 1000);
    assert_int_equal(meta(&f, "clock_suspect_ns"), 0);
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM audit WHERE kind = 'clock' AND"
                                             " instr(record, 'clock.accept') > 0 AND"
                                             " instr(record, 'approved by bob') > 0"),
                     1);
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM audit WHERE kind = 'clock'"), 3);
    assert_int_equal(run_accept(&f, "ann", "bob"), PHX_E_STATE);
    /* the acceptance is not taken a second time by the next start */
    close_all(&f);
    put_mark(&f, 431 * DAY);
    open_all(&f);
    live(&f, 1500 * S / 1000);
    assert_int_equal(phx_time_state(f.time), PHX_CLOCK_SUSPECT);
    teardown(&f);
}

static int save_past_and_future(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    int64_t t = *(int64_t *)ctx, found;
    int     rc = phx_time_save(tx, t - DAY, err);

    if (rc == 0)
        rc = phx_time_save(tx, t + 600 * S, err);
    if (rc == 0)
        rc = phx_time_save(tx, t, err);
    if (rc == 0)
        rc = phx_time_in(tx, &found, err);
    assert_true(found >= t + 600 * S && found < t + 660 * S);
    return rc;
}

static void test_a_saved_mark_only_rises(void **state)
{
    struct fixture f;
    int64_t        t, boot;

    (void)state;
    setup(&f);
    t = phx_time_now(f.time);
    boot = meta(&f, "clock_boot_ns");
    assert_int_equal(phx_store_run(f.store, save_past_and_future, &t, NULL), 0);
    assert_int_equal(meta(&f, "clock_hwm_ns"), t + 600 * S);
    assert_true(meta(&f, "clock_boot_ns") >= boot);
    close_all(&f);
    open_all(&f);
    assert_true(phx_time_now(f.time) >= t + 600 * S);
    teardown(&f);
}

static void test_closing_with_a_visit_under_way(void **state)
{
    struct fixture f;

    (void)state;
    setup(&f);
    usleep(1100000);
    (void)phx_time_now(f.time); /* submits; nobody has run the loop since */
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_good_clock_is_the_wall),
        cmocka_unit_test(test_a_clock_turned_back_stays_at_the_mark),
        cmocka_unit_test(test_two_people_end_the_suspicion),
        cmocka_unit_test(test_a_saved_mark_only_rises),
        cmocka_unit_test(test_closing_with_a_visit_under_way),
    };

    return cmocka_run_group_tests_name("daemon/time", tests, NULL, NULL);
}
