/* SPDX-License-Identifier: Apache-2.0
 * Preloaded into one program: lets one call on a file below a folder fail, as a dying or full disk does.
 *
 *   IOFAIL_PROGRAM  only in the program of this name        IOFAIL_DIR   only files below this folder
 *   IOFAIL_AT       the call that fails, counted from 1     IOFAIL_FOR   how many in a row (default 1)
 *   IOFAIL_HOW      EIO, ENOSPC or short (half of a write)  IOFAIL_LOG   file that gets the number of calls
 *   IOFAIL_SWITCH   while this file exists, every call fails
 *
 * Counted: open for writing, write, pwrite, fsync, fdatasync, rename, ftruncate. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { PATH_BYTES = 4096 };

static struct {
    char        dir[PATH_BYTES];
    size_t      n_dir;
    long        at, n_fail;
    const char *how, *log, *switch_file;
    bool        is_on;
} settings;
static _Atomic long n_calls;

__attribute__((constructor)) static void read_settings(void)
{
    const char *program = getenv("IOFAIL_PROGRAM"), *dir = getenv("IOFAIL_DIR"), *at = getenv("IOFAIL_AT");
    const char *n_fail = getenv("IOFAIL_FOR");

    if (program == NULL || dir == NULL || strcmp(program_invocation_short_name, program) != 0)
        return;
    (void)snprintf(settings.dir, sizeof(settings.dir), "%s/", dir);
    settings.n_dir = strlen(settings.dir);
    settings.at = at != NULL ? atol(at) : 0;
    settings.n_fail = n_fail != NULL ? atol(n_fail) : 1;
    settings.how = getenv("IOFAIL_HOW") != NULL ? getenv("IOFAIL_HOW") : "EIO";
    settings.log = getenv("IOFAIL_LOG");
    settings.switch_file = getenv("IOFAIL_SWITCH");
    settings.is_on = true;
}

/* POSIX's own way around ISO C, which has no conversion of data to function pointers. */
#define FIND(pointer, name) (*(void **)&(pointer) = dlsym(RTLD_NEXT, name))
#define REAL(type, name, ...)                                                                      \
    type (*real)(__VA_ARGS__);                                                                     \
    FIND(real, #name)

static ssize_t (*real_write)(int, const void *, size_t);

/* What was done, for whoever looks why a number failed. */
static void note(long number, const char *call, const char *path)
{
    static int fd = -1;
    char       line[PATH_BYTES + 64];
    int        n;

    if (settings.log == NULL)
        return;
    if (fd < 0) {
        int (*real_open)(const char *, int, ...);

        FIND(real_open, "open");
        fd = real_open(settings.log, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    }
    n = snprintf(line, sizeof(line), "%ld %s %s\n", number, call, path + settings.n_dir - 1);
    if (real_write == NULL)
        FIND(real_write, "write");
    if (fd >= 0 && n > 0 && real_write(fd, line, (size_t)n) < 0)
        return; /* the log is for people only */
}

/* Counts a call on a path; true when it is its turn to fail. */
static bool must_fail(const char *call, const char *path)
{
    long number;

    if (!settings.is_on || strncmp(path, settings.dir, settings.n_dir) != 0)
        return false;
    number = atomic_fetch_add(&n_calls, 1) + 1;
    note(number, call, path);
    if (settings.switch_file != NULL && access(settings.switch_file, F_OK) == 0)
        return true;
    return settings.at > 0 && number >= settings.at && number < settings.at + settings.n_fail;
}

static bool must_fail_fd(const char *call, int fd)
{
    char    link[64], path[PATH_BYTES];
    ssize_t n;

    if (!settings.is_on)
        return false;
    (void)snprintf(link, sizeof(link), "/proc/self/fd/%d", fd);
    n = readlink(link, path, sizeof(path) - 1);
    if (n <= 0)
        return false;
    path[n] = '\0';
    return must_fail(call, path);
}

static int fail(void)
{
    errno = strcmp(settings.how, "ENOSPC") == 0 ? ENOSPC : EIO;
    return -1;
}

ssize_t write(int fd, const void *data, size_t size)
{
    if (real_write == NULL)
        FIND(real_write, "write");
    if (fd > 2 && must_fail_fd("write", fd)) {
        if (strcmp(settings.how, "short") != 0)
            return fail();
        size /= 2;
    }
    return real_write(fd, data, size);
}

ssize_t pwrite64(int fd, const void *data, size_t size, off64_t offset)
{
    REAL(ssize_t, pwrite64, int, const void *, size_t, off64_t);

    if (must_fail_fd("pwrite", fd)) {
        if (strcmp(settings.how, "short") != 0)
            return fail();
        size /= 2;
    }
    return real(fd, data, size, offset);
}

ssize_t pwrite(int fd, const void *data, size_t size, off_t offset)
{
    return pwrite64(fd, data, size, offset);
}

int fsync(int fd)
{
    REAL(int, fsync, int);

    return must_fail_fd("fsync", fd) ? fail() : real(fd);
}

int fdatasync(int fd)
{
    REAL(int, fdatasync, int);

    return must_fail_fd("fdatasync", fd) ? fail() : real(fd);
}

int ftruncate64(int fd, off64_t size)
{
    REAL(int, ftruncate64, int, off64_t);

    return must_fail_fd("ftruncate", fd) ? fail() : real(fd, size);
}

int ftruncate(int fd, off_t size)
{
    return ftruncate64(fd, size);
}

int rename(const char *from, const char *to)
{
    REAL(int, rename, const char *, const char *);

    return must_fail("rename", to) ? fail() : real(from, to);
}

static int open_with(const char *name, const char *path, int flags, mode_t mode)
{
    int (*real)(const char *, int, ...);

    FIND(real, name);
    if ((flags & (O_WRONLY | O_RDWR)) != 0 && must_fail("open", path))
        return fail();
    return real(path, flags, mode);
}

int open64(const char *path, int flags, ...)
{
    va_list ap;
    mode_t  mode;

    va_start(ap, flags);
    mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return open_with("open64", path, flags, mode);
}

int open(const char *path, int flags, ...)
{
    va_list ap;
    mode_t  mode;

    va_start(ap, flags);
    mode = (flags & (O_CREAT | O_TMPFILE)) != 0 ? va_arg(ap, mode_t) : 0;
    va_end(ap);
    return open_with("open", path, flags, mode);
}
