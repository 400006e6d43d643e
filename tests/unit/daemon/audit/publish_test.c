/* SPDX-License-Identifier: Apache-2.0
 * What is published is what is in the database: sizes around a tile, growth, restarts, lost files, a database
 * that was put back, a disk that does not take files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"
#include "rpc/base/mem.h"

static void test_sizes(void **state)
{
    static const uint64_t sizes[] = {0, 1, 255, 256, 257, 70000};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct log l;

        log_make(&l);
        log_append(&l, sizes[i]);
        log_open(&l);
        log_close(&l);
        log_check(&l);
        log_remove(&l);
    }
}

static void test_growth_and_restarts(void **state)
{
    static const uint64_t steps[] = {1, 3, 251, 1, 1, 255, 300, 0, 66000};
    struct log            l;

    (void)state;
    log_make(&l);
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]); i++) {
        log_append(&l, steps[i]);
        log_open(&l);
        log_append(&l, i); /* while it runs */
        log_wait(&l);
        log_wait_problem(&l, "");
        log_close(&l);
        log_check(&l);
    }
    log_remove(&l);
}

static void test_partial_tiles_follow_the_checkpoint(void **state)
{
    struct log l;

    (void)state;
    log_make(&l);
    log_open(&l);
    log_append(&l, 10);
    log_wait(&l);
    assert_true(log_has(&l, "tile/0/000.p/10") && log_has(&l, "tile/entries/000.p/10"));
    log_append(&l, 20);
    log_wait(&l);
    log_append(&l, 226);
    log_wait(&l);
    log_append(&l, 1);
    log_wait(&l);
    log_close(&l);
    assert_true(log_has(&l, "tile/0/000") && log_has(&l, "tile/entries/000"));
    assert_true(log_has(&l, "tile/0/001.p/1") && log_has(&l, "tile/1/000.p/1"));
    assert_false(log_has(&l, "tile/0/000.p") || log_has(&l, "tile/entries/000.p"));
    log_check(&l);
    log_append(&l, 1);
    log_open(&l);
    log_close(&l);
    assert_true(log_has(&l, "tile/0/001.p/2"));
    assert_false(log_has(&l, "tile/0/001.p/1"));
    log_check(&l);
    log_append(&l, 1000); /* several tiles at once */
    log_open(&l);
    log_close(&l);
    assert_true(log_has(&l, "tile/0/004.p/234"));
    assert_false(log_has(&l, "tile/0/001.p") || log_has(&l, "tile/entries/001.p"));
    assert_false(log_has(&l, "tile/1/000.p/1"));
    log_check(&l);
    log_remove(&l);
}

/* keys/ and closing/ cannot be signed again: those are the cases of rotation_test.c. */
static void test_any_lost_file_is_made_again(void **state)
{
    struct log l;
    char      *names[64];
    int        n, n_deleted = 0;

    (void)state;
    log_make(&l);
    log_append(&l, 700);
    log_open(&l);
    log_close(&l);
    n = log_files(&l, names, 64);
    for (int i = 0; i < n; i++) {
        if (strncmp(names[i], "keys/", 5) != 0) {
            if (log_has(&l, names[i]))
                log_delete(&l, names[i]);
            log_open(&l);
            log_close(&l);
            log_check(&l);
            n_deleted++;
        }
        phx_mem_free(names[i]);
    }
    assert_int_equal(n_deleted, 9); /* 3 tiles + 1 above, 3 bundles, checkpoint, trust.json */
    log_remove(&l);
}

static void test_damaged_tile_is_made_again(void **state)
{
    struct log l;

    (void)state;
    log_make(&l);
    log_append(&l, 600);
    log_open(&l);
    log_close(&l);
    log_copy(&l, "audit/tile/0/001", "audit/tile/0/000");
    log_open(&l);
    log_close(&l);
    log_check(&l);
    log_remove(&l);
}

/* The answer of opening, and that nothing in the folder has moved. */
static void check_refused(struct log *l, const char *word)
{
    struct phx_err err = {0};
    struct phx_buf before, after;
    char          *path = phx_mem_printf("%s/checkpoint", l->dir);

    assert_int_equal(phx_buf_read_file(&before, path, 4096, &err), 0);
    assert_int_equal(log_try_open(l, &err), PHX_E_STATE);
    assert_null(l->publisher);
    if (strstr(err.text, word) == NULL)
        fail_msg("%s", err.text);
    assert_int_equal(phx_buf_read_file(&after, path, 4096, &err), 0);
    assert_string_equal(before.data, after.data);
    phx_buf_fini(&before);
    phx_buf_fini(&after);
    phx_mem_free(path);
}

static void test_smaller_database_is_refused(void **state)
{
    struct log l;

    (void)state;
    log_make(&l);
    log_append(&l, 300);
    log_open(&l);
    log_close(&l);
    log_sql(&l, "DELETE FROM audit WHERE leaf >= 290");
    check_refused(&l, "has 300 leaves, the database 290");
    log_delete(&l, "checkpoint"); /* the log must not forget with it, once a key has closed */
    log_sql(&l, "DELETE FROM audit");
    log_remove(&l);
}

static void test_database_without_checkpoint_is_held_to_the_closing(void **state)
{
    struct log     l;
    struct phx_err err = {0};

    (void)state;
    log_make(&l);
    log_append(&l, 300);
    log_open(&l);
    log_close(&l);
    log_open(&l);
    log_close(&l);
    log_delete(&l, "checkpoint");
    log_sql(&l, "DELETE FROM audit WHERE leaf >= 290");
    assert_int_equal(log_try_open(&l, &err), PHX_E_STATE);
    assert_non_null(strstr(err.text, "has 300 leaves, the database 290"));
    log_remove(&l);
}

static void test_changed_database_is_refused(void **state)
{
    static const char *const changes[] = {
        "UPDATE audit SET leaf_hash = zeroblob(32) WHERE leaf = 0",
        "UPDATE audit SET leaf_hash = zeroblob(32) WHERE leaf = 299",
        "UPDATE audit SET leaf = -5 WHERE leaf = 5",
        "DELETE FROM audit WHERE leaf = 100",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(changes) / sizeof(changes[0]); i++) {
        struct log l;

        log_make(&l);
        log_append(&l, 300);
        log_open(&l);
        log_close(&l);
        log_sql(&l, changes[i]);
        check_refused(&l, i < 2 ? "differs" : "missing");
        log_remove(&l);
    }
}

static void test_changed_record_is_not_published(void **state)
{
    struct log l;

    (void)state;
    log_make(&l);
    log_append(&l, 10);
    log_open(&l);
    log_append(&l, 10);
    log_wait(&l);
    log_close(&l);
    log_append(&l, 10);
    log_sql(&l, "UPDATE audit SET record = '{}' WHERE leaf = 25");
    l.frontier.size = 20;
    log_open(&l);
    log_wait_problem(&l, "leaf 25 is not the record of its hash");
    log_close(&l);
    log_sql(&l, "UPDATE audit SET record = '{\"at_ns\":25,\"kind\":\"admin\",\"v\":1}' WHERE leaf = 25");
    l.frontier.size = 30;
    log_open(&l);
    log_close(&l);
    log_check(&l);
    log_remove(&l);
}

/* A file where a folder must be: every write below it fails, as on a disk that is full. */
static void test_publishing_goes_on_after_a_failure(void **state)
{
    struct log l;
    char      *tiles, *aside;
    FILE      *f;

    (void)state;
    log_make(&l);
    log_append(&l, 500);
    log_open(&l);
    tiles = phx_mem_printf("%s/tile", l.dir);
    aside = phx_mem_printf("%s/aside", l.root);
    assert_int_equal(rename(tiles, aside), 0);
    f = fopen(tiles, "w");
    assert_non_null(f);
    assert_int_equal(fclose(f), 0);
    log_append(&l, 500);
    phx_publisher_wake(l.publisher);
    log_wait_problem(&l, "make folder");
    assert_int_equal(phx_publisher_size(l.publisher), 500);
    assert_int_equal(remove(tiles), 0);
    assert_int_equal(rename(aside, tiles), 0);
    log_wait(&l);
    log_wait_problem(&l, "");
    log_close(&l);
    log_check(&l);
    phx_mem_free(tiles);
    phx_mem_free(aside);
    log_remove(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sizes),
        cmocka_unit_test(test_growth_and_restarts),
        cmocka_unit_test(test_partial_tiles_follow_the_checkpoint),
        cmocka_unit_test(test_any_lost_file_is_made_again),
        cmocka_unit_test(test_damaged_tile_is_made_again),
        cmocka_unit_test(test_smaller_database_is_refused),
        cmocka_unit_test(test_database_without_checkpoint_is_held_to_the_closing),
        cmocka_unit_test(test_changed_database_is_refused),
        cmocka_unit_test(test_changed_record_is_not_published),
        cmocka_unit_test(test_publishing_goes_on_after_a_failure),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
