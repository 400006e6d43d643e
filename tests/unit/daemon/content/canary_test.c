/* SPDX-License-Identifier: Apache-2.0
 * A text that must be nowhere: every byte of the database, its log and its index is searched. */
#include <event2/event.h>
#include <setjmp.h>
#include <sqlite3.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "vault_world.h"

enum { ROWS = 40 };

/* Long enough for pages of their own, with the canary at the start, in the middle and at the end. */
static char *make_text(const char *canary)
{
    char  *text = phx_mem_calloc(1, 40000);
    size_t n = strlen(canary);

    memset(text, '.', 39000);
    memcpy(text, canary, n);
    memcpy(text + 20000, canary, n);
    memcpy(text + 39000 - n, canary, n);
    return text;
}

static void keep_rows(struct world *w, enum phx_privacy mode, const char *canary)
{
    char *text = make_text(canary);

    for (int i = 0; i < ROWS; i++) {
        char        receipt[16];
        struct kept k = {receipt, "acme", "u-1", mode, NOV, 0, i % 2 == 0 ? text : canary,
                         i % 2 == 0 ? canary : text, "", ""};

        (void)snprintf(receipt, sizeof(receipt), "rcpt_%d", i);
        assert_int_equal(put(w, &k), 0);
    }
    phx_mem_free(text);
}

static void test_kept_out(void **state)
{
    static const enum phx_privacy modes[] = {PHX_PRIVACY_COMMIT_ONLY, PHX_PRIVACY_ENCRYPTED};
    static const char             canary[] = "canary-5f2e9c-never-on-disk";

    (void)state;
    for (int m = 0; m < 2; m++) {
        struct world            w;
        struct phx_content_text t;

        world_make(&w);
        keep_rows(&w, modes[m], canary);
        assert_int_equal(get(&w, "rcpt_3", &t), 0); /* reading leaves no trace of it either */
        phx_content_text_fini(&t);
        assert_int_equal(count_in_files(&w, canary), 0);
        assert_int_equal(count_in_files(&w, canary + 7), 0);
        assert_true(count_in_files(&w, "rcpt_3") > 0); /* the search does find what is there */
        phx_store_close(w.store);
        w.store = NULL;
        assert_int_equal(count_in_files(&w, canary), 0);
        world_remove(&w);
    }
}

static void test_clear_is_found(void **state)
{
    static const char canary[] = "canary-77aa-clear-and-then-gone";
    struct world      w;

    (void)state;
    world_make(&w);
    keep_rows(&w, PHX_PRIVACY_CLEAR, canary);
    assert_true(count_in_files(&w, canary) >= 4 * ROWS);
    for (int i = 0; i < ROWS; i++) {
        char receipt[16];

        (void)snprintf(receipt, sizeof(receipt), "rcpt_%d", i);
        assert_int_equal(shred(&w, receipt, NOV), 0);
    }
    assert_int_equal(count_in_files(&w, canary), 0);
    assert_int_equal(scratch_int(&w.s, "SELECT count(*) FROM content"), ROWS);
    world_remove(&w);
}

static void test_clear_month(void **state)
{
    static const char canary[] = "canary-a month of clear text";
    struct world      w;

    (void)state;
    world_make(&w);
    keep_rows(&w, PHX_PRIVACY_CLEAR, canary);
    assert_int_equal(shred_month(&w, "acme", "2026-11", NOV), 0);
    while (sweep(&w, 7) > 0)
        ;
    assert_int_equal(count_in_files(&w, canary), 0);
    world_remove(&w);
}

/* The keys of a shredded answer and month are no longer anywhere, so that a copied disk does not help. */
static void test_wrapped_keys_go(void **state)
{
    static const char  *const sql[] = {"SELECT wrapped_dek FROM content WHERE receipt = 'rcpt_5'",
                                       "SELECT salt FROM content WHERE receipt = 'rcpt_5'",
                                       "SELECT wrapped FROM tenant_kek WHERE period = '2026-11'"};
    unsigned char keys[3][24]; /* the nonces name them */
    struct world  w;
    sqlite3      *db = NULL;

    (void)state;
    world_make(&w);
    keep_rows(&w, PHX_PRIVACY_ENCRYPTED, "text");
    assert_int_equal(sqlite3_open(w.s.db, &db), SQLITE_OK);
    for (int i = 0; i < 3; i++) {
        sqlite3_stmt *stmt = NULL;

        assert_int_equal(sqlite3_prepare_v2(db, sql[i], -1, &stmt, NULL), SQLITE_OK);
        assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
        memcpy(keys[i], sqlite3_column_blob(stmt, 0), sizeof(keys[i]));
        assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    }
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(shred(&w, "rcpt_5", NOV), 0);
    for (int i = 0; i < 3; i++) {
        char path[2][128];
        bool is_there = false;

        if (i == 2)
            assert_int_equal(shred_month(&w, "acme", "2026-11", NOV), 0);
        (void)snprintf(path[0], sizeof(path[0]), "%s", w.s.db);
        (void)snprintf(path[1], sizeof(path[1]), "%s-wal", w.s.db);
        for (int f = 0; f < 2; f++) {
            struct phx_buf b;

            assert_int_equal(phx_buf_read_file(&b, path[f], 1 << 28, NULL), 0);
            is_there = is_there || (b.size > 0 && memmem(b.data, b.size, keys[i], 24) != NULL);
            phx_buf_fini(&b);
        }
        assert_false(is_there);
    }
    world_remove(&w);
}

/* What lies in them is for this user alone. */
static void test_modes(void **state)
{
    static const char *const ends[] = {"", "-wal", "-shm"};
    struct world             w;

    (void)state;
    world_make(&w);
    for (int i = 0; i < 3; i++) {
        struct stat st;
        char        path[128];

        (void)snprintf(path, sizeof(path), "%s%s", w.s.db, ends[i]);
        assert_int_equal(stat(path, &st), 0);
        assert_int_equal(st.st_mode & 0777, 0600);
    }
    world_remove(&w);
}

/* Another process that reads keeps the log from being emptied; a later commit does it. */
static void test_reader_in_the_way(void **state)
{
    static const char  canary[] = "canary-behind a slow reader";
    struct world       w;
    struct kept        k = {"rcpt_x", "acme", "u", PHX_PRIVACY_COMMIT_ONLY, NOV, 0, "", NULL, "", ""};
    sqlite3           *db = NULL;
    sqlite3_stmt      *stmt = NULL;
    struct event_base *base = event_base_new();

    (void)state;
    world_make(&w);
    phx_store_close(w.store); /* a daemon's store does not wait for readers, a command's does */
    assert_int_equal(phx_store_open(w.s.db, base, &w.store, &w.err), 0);
    keep_rows(&w, PHX_PRIVACY_CLEAR, canary);
    assert_int_equal(sqlite3_open(w.s.db, &db), SQLITE_OK);
    assert_int_equal(sqlite3_prepare_v2(db, "SELECT receipt FROM content", -1, &stmt, NULL), SQLITE_OK);
    assert_int_equal(sqlite3_step(stmt), SQLITE_ROW);
    assert_int_equal(shred_month(&w, "acme", "2026-11", NOV), 0);
    assert_int_equal(sweep(&w, 1000), ROWS);
    assert_true(count_in_files(&w, canary) > 0);
    assert_int_equal(sqlite3_finalize(stmt), SQLITE_OK);
    assert_int_equal(sqlite3_close(db), SQLITE_OK);
    assert_int_equal(put(&w, &k), 0);
    assert_int_equal(count_in_files(&w, canary), 0);
    world_remove(&w);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_kept_out),        cmocka_unit_test(test_clear_is_found),
        cmocka_unit_test(test_clear_month),     cmocka_unit_test(test_wrapped_keys_go),
        cmocka_unit_test(test_reader_in_the_way), cmocka_unit_test(test_modes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
