/* SPDX-License-Identifier: Apache-2.0
 * The key moves on: a crash between any two steps is finished at the next start; a seed that is missing, older
 * or foreign is refused; the seed before is gone. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"
#include "rpc/base/mem.h"

static long long read_epoch(const struct log *l)
{
    struct phx_buf text;
    struct phx_err err = {0};
    char          *path = phx_mem_printf("%s/log.seed", l->keys);
    long long      epoch = 0;

    assert_int_equal(phx_buf_read_file(&text, path, 256, &err), 0);
    assert_int_equal(sscanf(text.data, "phalanx-log-seed:%lld:", &epoch), 1);
    phx_buf_fini(&text);
    phx_mem_free(path);
    return epoch;
}

/* As after a first run (epoch 1, 300 leaves) and a start that moved on to epoch 2; seed.1 is the seed of the
 * first. */
static void make_two_epochs(struct log *l)
{
    log_make(l);
    log_append(l, 300);
    log_open(l);
    log_close(l);
    assert_int_equal(read_epoch(l), 1);
    log_copy(l, "keys/log.seed", "seed.1");
    log_open(l);
    log_close(l);
    assert_int_equal(read_epoch(l), 2);
}

/* Opens, adds, and finds everything in order at the epoch. */
static void check_goes_on(struct log *l, long long epoch)
{
    log_append(l, 7);
    log_open(l);
    log_close(l);
    assert_int_equal(read_epoch(l), epoch);
    log_check(l);
    log_remove(l);
}

static void test_crash_before_the_closing(void **state)
{
    struct log l;

    (void)state;
    make_two_epochs(&l);
    log_copy(&l, "seed.1", "keys/log.seed");
    log_copy(&l, "audit/closing/1", "audit/checkpoint");
    log_delete(&l, "closing/1");
    log_delete(&l, "keys/2");
    check_goes_on(&l, 2);
}

static void test_crash_after_the_closing(void **state)
{
    struct log l;

    (void)state;
    make_two_epochs(&l);
    log_copy(&l, "seed.1", "keys/log.seed");
    log_copy(&l, "audit/closing/1", "audit/checkpoint");
    log_delete(&l, "keys/2");
    check_goes_on(&l, 2);
}

static void test_crash_after_the_handover(void **state)
{
    struct log l;

    (void)state;
    make_two_epochs(&l);
    log_copy(&l, "seed.1", "keys/log.seed");
    log_copy(&l, "audit/closing/1", "audit/checkpoint");
    check_goes_on(&l, 2);
}

static void test_crash_after_the_seed(void **state)
{
    struct log l;

    (void)state;
    make_two_epochs(&l);
    log_copy(&l, "audit/closing/1", "audit/checkpoint"); /* epoch 2 has signed nothing */
    check_goes_on(&l, 3);
}

static void test_crash_at_creation(void **state)
{
    static const char *const lost[] = {"checkpoint", "trust.json", "keys/1"};

    (void)state;
    for (int n = 1; n <= 3; n++) { /* the seed came first, then the others in the order from the end */
        struct log l;

        log_make(&l);
        log_open(&l);
        log_close(&l);
        for (int i = 0; i < n; i++)
            log_delete(&l, lost[i]);
        check_goes_on(&l, 1);
    }
}

static void check_refused(struct log *l, const char *word)
{
    struct phx_err err = {0};

    assert_int_equal(log_try_open(l, &err), PHX_E_STATE);
    if (strstr(err.text, word) == NULL)
        fail_msg("%s", err.text);
    log_remove(l);
}

static void test_missing_seed(void **state)
{
    struct log l;

    (void)state;
    make_two_epochs(&l);
    log_delete(&l, "../keys/log.seed");
    check_refused(&l, "log.seed is missing");
}

static void test_older_seed(void **state)
{
    struct log l;

    (void)state;
    make_two_epochs(&l);
    log_copy(&l, "seed.1", "keys/log.seed");
    check_refused(&l, "key epoch 2 but log.seed is of 1"); /* what epoch 2 signed gives it away */
    make_two_epochs(&l);
    log_open(&l);
    log_close(&l);
    log_delete(&l, "checkpoint");
    log_copy(&l, "seed.1", "keys/log.seed");
    check_refused(&l, "the log has gone on");
}

static void test_foreign_seed(void **state)
{
    struct log l, other;

    (void)state;
    make_two_epochs(&l);
    make_two_epochs(&other);
    log_append(&other, 1);
    {
        char *path = phx_mem_printf("../%s/keys/log.seed", strrchr(other.root, '/') + 1);

        log_copy(&l, path, "keys/log.seed");
        phx_mem_free(path);
    }
    log_remove(&other);
    check_refused(&l, "does not belong");
}

static void test_lost_evidence(void **state)
{
    static const char *const names[] = {"keys/1", "keys/2", "closing/1"};

    (void)state;
    for (int i = 0; i < 3; i++) {
        struct log l;

        make_two_epochs(&l);
        log_delete(&l, names[i]);
        check_refused(&l, names[i]);
    }
}

static void test_forged_checkpoint(void **state)
{
    struct log     l;
    struct phx_err err = {0};
    struct phx_buf note;
    char          *path;
    char          *digit;

    (void)state;
    make_two_epochs(&l);
    path = phx_mem_printf("%s/checkpoint", l.dir);
    assert_int_equal(phx_buf_read_file(&note, path, 4096, &err), 0);
    digit = strstr(note.data, "\n300\n");
    assert_non_null(digit);
    digit[1] = '2';
    assert_int_equal(phx_file_write(path, note.data, note.size, 0600, &err), 0);
    assert_int_equal(log_try_open(&l, &err), PHX_E_LICENSE);
    phx_buf_fini(&note);
    phx_mem_free(path);
    log_remove(&l);
}

static void test_foreign_handover(void **state)
{
    struct log     l;
    struct phx_err err = {0};

    (void)state;
    make_two_epochs(&l);
    log_copy(&l, "audit/keys/1", "audit/keys/3");
    assert_int_equal(log_try_open(&l, &err), 0); /* serving goes on, signing does not */
    log_wait_problem(&l, "hands over to another key");
    log_close(&l);
    assert_int_equal(read_epoch(&l), 2);
    log_delete(&l, "keys/3");
    check_goes_on(&l, 3);
}

static void test_a_move_is_no_problem(void **state)
{
    const struct timespec nap = {0, 1000000};
    struct log            l;
    struct phx_err        err = {0};
    char                 *note = NULL;
    char                  problem[240];

    (void)state;
    make_two_epochs(&l);
    assert_int_equal(log_try_open(&l, &err), 0); /* and nobody wakes it */
    for (int i = 0; i < 5000; i++) {
        note = phx_publisher_checkpoint(l.publisher);
        if (strstr(note, "\nepoch 3\n") != NULL)
            break;
        phx_mem_free(note);
        note = NULL;
        (void)nanosleep(&nap, NULL);
    }
    assert_non_null(note);
    phx_mem_free(note);
    phx_publisher_problem(l.publisher, problem, sizeof(problem));
    assert_string_equal(problem, "");
    log_remove(&l);
}

static void test_seed_before_is_erased(void **state)
{
    struct log     l;
    struct phx_buf data;
    struct phx_err err = {0};
    char          *seed, *still;

    (void)state;
    log_make(&l);
    log_open(&l);
    log_close(&l);
    seed = phx_mem_printf("%s/log.seed", l.keys);
    still = phx_mem_printf("%s/hard-link", l.root);
    assert_int_equal(link(seed, still), 0); /* the blocks of epoch 1, by another name */
    log_open(&l);
    log_close(&l);
    assert_int_equal(phx_buf_read_file(&data, still, 256, &err), 0);
    for (size_t i = 0; i < data.size; i++)
        assert_int_equal(data.data[i], 0);
    phx_buf_fini(&data);
    phx_mem_free(seed);
    phx_mem_free(still);
    log_remove(&l);
}

static void test_moves_on_while_running(void **state)
{
    const struct timespec nap = {0, 20000000};
    struct log            l;

    (void)state;
    log_make(&l);
    l.key_life_s = 1;
    log_open(&l);
    for (int i = 0; i < 130; i++) { /* 2.6 s */
        log_append(&l, 3);
        log_wait(&l);
        (void)nanosleep(&nap, NULL);
    }
    log_close(&l);
    assert_in_range(read_epoch(&l), 3, 5);
    log_check(&l);
    log_remove(&l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_crash_before_the_closing),
        cmocka_unit_test(test_crash_after_the_closing),
        cmocka_unit_test(test_crash_after_the_handover),
        cmocka_unit_test(test_crash_after_the_seed),
        cmocka_unit_test(test_crash_at_creation),
        cmocka_unit_test(test_missing_seed),
        cmocka_unit_test(test_older_seed),
        cmocka_unit_test(test_foreign_seed),
        cmocka_unit_test(test_lost_evidence),
        cmocka_unit_test(test_forged_checkpoint),
        cmocka_unit_test(test_foreign_handover),
        cmocka_unit_test(test_a_move_is_no_problem),
        cmocka_unit_test(test_seed_before_is_erased),
        cmocka_unit_test(test_moves_on_while_running),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
