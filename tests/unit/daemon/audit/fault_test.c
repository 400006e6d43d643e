/* SPDX-License-Identifier: Apache-2.0
 * Each call that writes to the folder fails once, at each place: what the checkpoint points to is there all the
 * same, a name that was not synced is never relied on, and the next run ends complete. */
#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "log.h"

/* ---- the calls (the linker puts these in their place in our code; the database's library keeps its own) -- */

enum kind { FSYNC = 1, WRITE = 2, SHORT = 4, RENAME = 8, MKDIR = 16 };

static struct {
    unsigned kinds;
    int      at, n; /* the at-th call of these kinds fails; n so far */
    char     failed[256];          /* file of an fsync that failed */
    char     unsynced[32][256];    /* folders whose entries have changed since their last sync */
    int      n_unsynced;
} fault;

static bool is_due(enum kind kind)
{
    return (fault.kinds & kind) != 0 && ++fault.n == fault.at;
}

int     __real_fsync(int fd);
int     __wrap_fsync(int fd);
ssize_t __real_write(int fd, const void *data, size_t size);
ssize_t __wrap_write(int fd, const void *data, size_t size);
int     __real_rename(const char *from, const char *to);
int     __wrap_rename(const char *from, const char *to);
int     __real_mkdir(const char *path, mode_t mode);
int     __wrap_mkdir(const char *path, mode_t mode);

static void name_fd(int fd, char *path, size_t size)
{
    char    link[64];
    ssize_t n;

    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, size - 1);
    path[n > 0 ? n : 0] = '\0';
}

static void note_sync(const char *dir)
{
    for (int i = 0; i < fault.n_unsynced; i++)
        if (strcmp(fault.unsynced[i], dir) == 0)
            memmove(fault.unsynced[i], fault.unsynced[--fault.n_unsynced], sizeof(fault.unsynced[i]));
}

static void note_change(const char *path)
{
    char dir[256];

    (void)snprintf(dir, sizeof(dir), "%.*s", (int)(strrchr(path, '/') - path), path);
    note_sync(dir); /* once is enough */
    assert_in_range(fault.n_unsynced, 0, 31);
    memcpy(fault.unsynced[fault.n_unsynced++], dir, sizeof(dir));
}

int __wrap_fsync(int fd)
{
    char        path[256];
    struct stat st;

    name_fd(fd, path, sizeof(path));
    assert_int_equal(fstat(fd, &st), 0);
    if (fault.failed[0] != '\0' && !S_ISDIR(st.st_mode))
        assert_string_not_equal(path, fault.failed); /* never the same file again */
    if (!is_due(FSYNC)) {
        note_sync(path);
        return __real_fsync(fd);
    }
    if (!S_ISDIR(st.st_mode))
        (void)snprintf(fault.failed, sizeof(fault.failed), "%s", path);
    errno = EIO;
    return -1;
}

ssize_t __wrap_write(int fd, const void *data, size_t size)
{
    if (is_due(WRITE)) {
        errno = ENOSPC;
        return -1;
    }
    if (size > 1 && is_due(SHORT))
        return __real_write(fd, data, size / 2);
    return __real_write(fd, data, size);
}

int __wrap_rename(const char *from, const char *to)
{
    if (fault.failed[0] != '\0')
        assert_string_not_equal(from, fault.failed);
    if (strcmp(strrchr(to, '/'), "/checkpoint") == 0) /* all that it leads to is on disk */
        assert_int_equal(fault.n_unsynced, 0);
    if (is_due(RENAME)) {
        errno = EIO;
        return -1;
    }
    note_change(to);
    return __real_rename(from, to);
}

int __wrap_mkdir(const char *path, mode_t mode)
{
    if (is_due(MKDIR)) {
        errno = EROFS;
        return -1;
    }
    if (__real_mkdir(path, mode) != 0)
        return -1;
    note_change(path);
    return 0;
}

/* ---- the cases ------------------------------------------------------------------------------------------- */

/* Until the first run has published all or has failed: closing then tries again in the same process. */
static void wait_end(const struct log *l)
{
    const struct timespec nap = {0, 200000};
    char                  problem[240] = "";

    for (int i = 0; i < 20000 && problem[0] == '\0' && phx_publisher_size(l->publisher) < l->frontier.size; i++) {
        (void)nanosleep(&nap, NULL);
        phx_publisher_problem(l->publisher, problem, sizeof(problem));
    }
}

/* One start of a log that may exist already, its publication, and its end, with one call failing. */
static void run_with_fault(struct log *l, unsigned kinds, int at)
{
    struct phx_err err = {0};

    fault.kinds = kinds;
    fault.at = at;
    fault.n = 0;
    fault.failed[0] = '\0';
    fault.n_unsynced = 0;
    if (log_try_open(l, &err) != 0) {
        assert_int_equal(err.code, PHX_E_IO);
        assert_int_not_equal(err.text[0], '\0');
    } else {
        wait_end(l);
    }
    log_close(l);
    fault.kinds = 0;
    fault.failed[0] = '\0'; /* the next process begins its names anew */
    fault.n_unsynced = 0;
    if (log_has(l, "checkpoint"))
        log_check_folder(l);
}

/* Returns how many calls there were. */
static int run_case(unsigned kinds, int at, bool is_new)
{
    struct log l;
    int        n;

    log_make(&l);
    log_append(&l, 300);
    if (!is_new) {
        log_open(&l);
        log_close(&l);
        log_append(&l, 300);
    }
    run_with_fault(&l, kinds, at);
    n = fault.n;
    log_append(&l, 1);
    log_open(&l);
    log_close(&l);
    log_check(&l);
    log_remove(&l);
    return n;
}

static void test_each_call_fails_once(void **state)
{
    static const unsigned kinds[] = {FSYNC, WRITE, SHORT, RENAME, MKDIR};
    int                   n_cases = 0;

    (void)state;
    for (int is_new = 0; is_new < 2; is_new++)
        for (size_t k = 0; k < sizeof(kinds) / sizeof(kinds[0]); k++) {
            int n_calls = run_case(kinds[k], 0, is_new);

            assert_in_range(n_calls, 4, 100);
            for (int at = 1; at <= n_calls; at++)
                (void)run_case(kinds[k], at, is_new);
            n_cases += n_calls;
        }
    print_message("%d calls failed\n", n_cases);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_each_call_fails_once)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
