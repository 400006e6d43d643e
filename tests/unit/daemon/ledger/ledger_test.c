/* SPDX-License-Identifier: Apache-2.0
 * Rows: the life of a lease, what is refused, what a crash finds, idempotency keys, periods. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "book.h"
#include "rpc/base/mem.h"

static int find(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_ledger_row *rows = ctx; /* begin with its lease set, end */
    struct phx_arena      *arena = phx_arena_create();
    char                   lease[PHX_LEASE_BYTES];
    int                    rc;

    (void)snprintf(lease, sizeof(lease), "%s", rows[0].lease);
    rc = phx_ledger_find(tx, lease, arena, &rows[0], &rows[1], err);
    if (rc == 0)
        assert_string_equal(rows[0].tenant, "acme");
    phx_arena_destroy(arena); /* numbers stay */
    return rc;
}

static int count(void *ctx, const struct phx_ledger_row *row)
{
    int64_t *sums = ctx; /* rows, ids in order, tokens */

    assert_true(row->id > sums[1]);
    assert_true(row->kind != PHX_LEDGER_NONE);
    sums[0]++;
    sums[1] = row->id;
    sums[2] += row->prompt + row->output;
    return 0;
}

static int walk(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_ledger_walk(tx, 0, 0, count, ctx, err);
}

static void keeps_every_row_of_a_lease(void **state)
{
    struct book           b;
    struct phx_ledger_row rows[2] = {{.lease = "a"}, {0}}, row;
    int64_t               sums[3] = {0};

    (void)state;
    book_open(&b);
    assert_int_equal(book_reserve(&b, "a", MONDAY_NS, 10, 100), 0);
    for (int i = 1; i <= 3; i++) {
        row = row_end(PHX_LEDGER_PROGRESS, "a", MONDAY_NS + i, 10, 7 * i);
        row.reasoning = i;
        assert_int_equal(book_put(&b, &row), 0);
        assert_int_equal(row.id, 1 + i);
    }
    assert_int_equal(phx_store_run(b.store, find, rows, &b.err), 0);
    assert_int_equal(rows[0].output, 21);
    assert_int_equal(rows[0].reasoning, 3);
    assert_int_equal(rows[0].prompt, 10);
    assert_int_equal(rows[1].kind, PHX_LEDGER_NONE);
    assert_int_equal(book_commit(&b, "a", MONDAY_NS + 9, 10, 30), 0);
    row = row_end(PHX_LEDGER_CORRECT, "a", MONDAY_NS + 10, 0, -5);
    assert_int_equal(book_put(&b, &row), 0);
    assert_int_equal(row.ref, 5);
    rows[0] = (struct phx_ledger_row){.lease = "a"};
    assert_int_equal(phx_store_run(b.store, find, rows, &b.err), 0);
    assert_int_equal(rows[1].kind, PHX_LEDGER_COMMIT);
    assert_int_equal(rows[1].output, 30); /* the commit itself stays */
    assert_int_equal(phx_store_run(b.store, walk, sums, &b.err), 0);
    assert_int_equal(sums[0], 6);
    book_close(&b);
}

static void refuses_what_is_out_of_order(void **state)
{
    struct book           b;
    struct phx_ledger_row row;

    (void)state;
    book_open(&b);
    assert_int_equal(book_commit(&b, "a", MONDAY_NS, 1, 1), PHX_E_STATE);
    assert_non_null(strstr(b.err.text, "never reserved"));
    assert_int_equal(book_reserve(&b, "a", MONDAY_NS, 1, 10), 0);
    assert_int_equal(book_reserve(&b, "a", MONDAY_NS, 1, 10), PHX_E_STATE);
    row = row_end(PHX_LEDGER_CORRECT, "a", MONDAY_NS, -1, 0);
    assert_int_equal(book_put(&b, &row), PHX_E_STATE);
    assert_int_equal(book_commit(&b, "a", MONDAY_NS, 1, 2), 0);
    assert_int_equal(book_commit(&b, "a", MONDAY_NS, 1, 2), PHX_E_STATE);
    assert_int_equal(book_void(&b, "a", MONDAY_NS), PHX_E_STATE);
    row = row_end(PHX_LEDGER_PROGRESS, "a", MONDAY_NS, 1, 3);
    assert_int_equal(book_put(&b, &row), PHX_E_STATE);
    assert_int_equal(book_reserve(&b, "v", MONDAY_NS, 1, 10), 0);
    assert_int_equal(book_void(&b, "v", MONDAY_NS), 0);
    row = row_end(PHX_LEDGER_CORRECT, "v", MONDAY_NS, 1, 0);
    assert_int_equal(book_put(&b, &row), PHX_E_STATE);
    assert_int_equal(scratch_int(&b.scratch, "SELECT COUNT(*) FROM ledger"), 4);
    book_close(&b);
}

static void check_refused(struct book *b, struct phx_ledger_row row, const char *field)
{
    assert_int_equal(book_put(b, &row), PHX_E_INVALID);
    if (strncmp(b->err.text, field, strlen(field)) != 0)
        fail_msg("'%s' does not name %s", b->err.text, field);
}

static void refuses_impossible_numbers(void **state)
{
    struct book           b;
    struct phx_ledger_row row;

    (void)state;
    book_open(&b);
    check_refused(&b, row_reserve("x", 0, 11, 10), "reserved");
    check_refused(&b, row_reserve("x", 0, -1, 10), "prompt");
    check_refused(&b, row_reserve("x", 0, 0, PHX_LEDGER_COUNT_MAX + 1), "reserved");
    check_refused(&b, row_reserve("", 0, 0, 1), "lease");
    row = row_reserve("x", 0, 0, 1);
    row.tenant = "a/b";
    check_refused(&b, row, "tenant");
    char name[PHX_USAGE_GROUP_BYTES + 1] = "";

    memset(name, 'n', PHX_USAGE_GROUP_BYTES);
    row = row_reserve("x", 0, 0, 1);
    row.model = name;
    check_refused(&b, row, "model");
    row.model = NULL;
    check_refused(&b, row, "model");
    assert_int_equal(book_reserve(&b, "a", MONDAY_NS, 10, 20), 0);
    check_refused(&b, row_end(PHX_LEDGER_COMMIT, "a", 0, 10, 11), "usage");
    check_refused(&b, row_end(PHX_LEDGER_PROGRESS, "a", 0, 10, 11), "usage");
    check_refused(&b, row_end(PHX_LEDGER_VOID, "a", 0, 1, 0), "void");
    row = row_end(PHX_LEDGER_COMMIT, "a", 0, 10, 5);
    row.cached = 11;
    check_refused(&b, row, "cached");
    row.cached = 0;
    row.reasoning = 6;
    check_refused(&b, row, "reasoning");
    row.reasoning = 0;
    row.upper = 4;
    check_refused(&b, row, "upper");
    row.upper = 5;
    row.user = "bob";
    check_refused(&b, row, "user");
    row.user = NULL;
    row.queue_ms = -1;
    check_refused(&b, row, "queue_ms");
    assert_int_equal(book_commit(&b, "a", MONDAY_NS, 10, 5), 0);
    check_refused(&b, row_end(PHX_LEDGER_CORRECT, "a", 0, 0, -6), "output");
    row = row_end(PHX_LEDGER_CORRECT, "a", 0, 0, -1);
    row.note = "";
    check_refused(&b, row, "note");
    row.note = "CHG-2";
    row.ref = 1;
    check_refused(&b, row, "ref");
    book_close(&b);
}

/* ---- crashes ---------------------------------------------------------------------------------------------- */

static int settle(void *ctx, const struct phx_ledger_row *open)
{
    struct phx_ledger_row row = *open;

    row.kind = PHX_LEDGER_COMMIT;
    row.upper = open->reserved - open->prompt;
    row.reserved = 0;
    row.outcome = "crash";
    return phx_ledger_put(ctx, &row, NULL);
}

static int settle_old(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_ledger_open_rows(tx, *(int64_t *)ctx, settle, tx, err);
}

static void settles_open_rows_of_old_epochs_at_what_is_proven(void **state)
{
    struct book           b;
    struct phx_ledger_row row;
    int64_t               epoch = 2;

    (void)state;
    book_open(&b);
    for (int i = 0; i < 100; i++) {
        char lease[16];

        (void)snprintf(lease, sizeof(lease), "l%d", i);
        row = row_reserve(lease, MONDAY_NS, 3, 110);
        row.epoch = i < 50 ? 1 : 2;
        assert_int_equal(book_put(&b, &row), 0);
        row = row_end(PHX_LEDGER_PROGRESS, lease, MONDAY_NS, 3, i);
        assert_int_equal(book_put(&b, &row), 0);
    }
    assert_int_equal(phx_store_run(b.store, settle_old, &epoch, &b.err), 0);
    assert_int_equal(scratch_int(&b.scratch, "SELECT COUNT(*) FROM ledger WHERE kind = 'commit' AND"
                                             " outcome = 'crash' AND epoch = 1 AND upper = 107 AND prompt = 3"),
                     50);
    assert_int_equal(scratch_int(&b.scratch, "SELECT SUM(output) FROM ledger WHERE kind = 'commit'"), 49 * 25);
    epoch = INT64_MAX;
    assert_int_equal(phx_store_run(b.store, settle_old, &epoch, &b.err), 0);
    assert_int_equal(scratch_int(&b.scratch, "SELECT SUM(output) FROM ledger WHERE kind = 'commit'"), 99 * 50);
    assert_int_equal(scratch_int(&b.scratch, "SELECT COUNT(*) FROM ledger_open"), 0);
    assert_int_equal(book_audit(&b), 0);
    book_close(&b);
}

/* ---- idempotency ------------------------------------------------------------------------------------------ */

struct take {
    const char *tenant, *key, *lease;
    uint8_t     digest[32];
    char        found[PHX_LEASE_BYTES];
    int         answer;
};

static int take(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct take *t = ctx;

    t->answer = phx_idem_take(tx, t->tenant, t->key, t->digest, t->lease, MONDAY_NS, t->found, err);
    return t->answer < 0 ? t->answer : 0;
}

static int try_take(struct book *b, const char *tenant, const char *key, uint8_t request, const char *lease,
                    char found[PHX_LEASE_BYTES])
{
    struct take t = {tenant, key, lease, {request}, "", 0};
    int         rc = phx_store_run(b->store, take, &t, &b->err);

    (void)snprintf(found, PHX_LEASE_BYTES, "%s", t.found);
    return rc != 0 ? rc : t.answer;
}

static void an_idempotency_key_belongs_to_one_request_of_a_tenant(void **state)
{
    struct book b;
    char        found[PHX_LEASE_BYTES], key[PHX_IDEM_KEY_MAX + 2];

    (void)state;
    book_open(&b);
    assert_int_equal(try_take(&b, "acme", "k", 1, "first", found), PHX_IDEM_NEW);
    assert_int_equal(try_take(&b, "acme", "k", 1, "second", found), PHX_IDEM_SAME);
    assert_string_equal(found, "first");
    assert_int_equal(try_take(&b, "acme", "k", 2, "third", found), PHX_IDEM_OTHER);
    assert_string_equal(found, "first");
    assert_int_equal(try_take(&b, "other", "k", 2, "fourth", found), PHX_IDEM_NEW);
    phx_store_close(b.store); /* kept as long as the ledger */
    assert_int_equal(phx_store_open(b.scratch.db, NULL, &b.store, &b.err), 0);
    assert_int_equal(try_take(&b, "acme", "k", 1, "fifth", found), PHX_IDEM_SAME);
    memset(key, 'x', sizeof(key));
    key[PHX_IDEM_KEY_MAX + 1] = '\0';
    assert_int_equal(try_take(&b, "acme", key, 1, "l", found), PHX_E_INVALID);
    key[PHX_IDEM_KEY_MAX] = '\0';
    assert_int_equal(try_take(&b, "acme", key, 1, "l", found), PHX_IDEM_NEW);
    assert_int_equal(try_take(&b, "acme", "", 1, "l", found), PHX_E_INVALID);
    book_close(&b);
}

/* ---- periods ----------------------------------------------------------------------------------------------- */

static void a_period_is_a_month_in_utc(void **state)
{
    static const char *const bad[] = {"",        "2026",    "2026-1",  "2026-13", "2026-00",
                                      "26-01-1", "2026/01", "2026-01-", "-026-01", "2026-0x"};
    int64_t                  from_ns, to_ns;
    char                     period[8];

    (void)state;
    assert_int_equal(phx_period_parse("2026-11", &from_ns, &to_ns, NULL), 0);
    assert_int_equal(to_ns - from_ns, 30 * DAY_NS);
    assert_int_equal(MONDAY_NS - from_ns, 22 * DAY_NS);
    phx_period_format(to_ns - 1, period);
    assert_string_equal(period, "2026-11");
    phx_period_format(to_ns, period);
    assert_string_equal(period, "2026-12");
    assert_int_equal(phx_period_parse("2028-02", &from_ns, &to_ns, NULL), 0);
    assert_int_equal(to_ns - from_ns, 29 * DAY_NS);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(phx_period_parse(bad[i], &from_ns, &to_ns, NULL), PHX_E_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keeps_every_row_of_a_lease),
        cmocka_unit_test(refuses_what_is_out_of_order),
        cmocka_unit_test(refuses_impossible_numbers),
        cmocka_unit_test(settles_open_rows_of_old_epochs_at_what_is_proven),
        cmocka_unit_test(an_idempotency_key_belongs_to_one_request_of_a_tenant),
        cmocka_unit_test(a_period_is_a_month_in_utc),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
