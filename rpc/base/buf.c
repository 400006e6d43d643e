/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/buf.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/mem.h"

static const size_t DEFAULT_MAX = (size_t)1 << 30;

void phx_buf_init(struct phx_buf *b, size_t max_bytes)
{
    memset(b, 0, sizeof(*b));
    b->max = max_bytes > 0 ? max_bytes : DEFAULT_MAX;
}

void phx_buf_fini(struct phx_buf *b)
{
    phx_mem_free(b->data);
    memset(b, 0, sizeof(*b));
}

void phx_buf_clear(struct phx_buf *b)
{
    b->size = 0;
    b->is_over = false;
    if (b->data != NULL)
        b->data[0] = '\0';
}

/* Room for `size` more bytes and the NUL; false (and over) past the maximum. */
static bool reserve(struct phx_buf *b, size_t size)
{
    size_t max = b->max > 0 ? b->max : DEFAULT_MAX;
    size_t want;

    if (size > max - b->size) {
        b->is_over = true;
        return false;
    }
    want = b->size + size + 1;
    if (want > b->capacity) {
        size_t capacity = b->capacity * 2 > 64 ? b->capacity * 2 : 64;

        if (capacity < want)
            capacity = want;
        b->data = phx_mem_realloc(b->data, capacity, 1);
        b->capacity = capacity;
    }
    return true;
}

void *phx_buf_extend(struct phx_buf *b, size_t size)
{
    char *at;

    if (!reserve(b, size))
        return NULL;
    at = b->data + b->size;
    b->size += size;
    b->data[b->size] = '\0';
    return at;
}

void phx_buf_put(struct phx_buf *b, const void *data, size_t size)
{
    void *at = phx_buf_extend(b, size);

    if (at != NULL && size > 0)
        memcpy(at, data, size);
}

void phx_buf_puts(struct phx_buf *b, const char *s)
{
    phx_buf_put(b, s, strlen(s));
}

void phx_buf_putc(struct phx_buf *b, char c)
{
    phx_buf_put(b, &c, 1);
}

void phx_buf_printf(struct phx_buf *b, const char *fmt, ...)
{
    va_list ap;
    int     n;

    va_start(ap, fmt);
    n = vsnprintf(NULL, 0, fmt, ap);
    va_end(ap);
    phx_assert(n >= 0);
    if (!reserve(b, (size_t)n))
        return;
    va_start(ap, fmt);
    (void)vsnprintf(b->data + b->size, (size_t)n + 1, fmt, ap); /* the size was measured above */
    va_end(ap);
    b->size += (size_t)n;
}

void phx_buf_consume(struct phx_buf *b, size_t size)
{
    phx_assert(size <= b->size);
    if (size == 0)
        return;
    memmove(b->data, b->data + size, b->size - size + 1);
    b->size -= size;
}

char *phx_buf_take(struct phx_buf *b)
{
    size_t max = b->max;
    char  *data;

    (void)reserve(b, 0); /* zero more bytes always fit */
    data = b->data;
    data[b->size] = '\0';
    phx_buf_init(b, max);
    return data;
}

int phx_buf_check(const struct phx_buf *b, const char *what, struct phx_err *err)
{
    if (b->is_over)
        return phx_fail(err, PHX_E_TOOBIG, "%s is over its limit of %zu bytes", what, b->max);
    return 0;
}

static int read_all(struct phx_buf *b, int fd, const char *path, struct phx_err *err)
{
    char    block[65536];
    ssize_t n;

    while ((n = read(fd, block, sizeof(block))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return phx_fail(err, PHX_E_IO, "read %s: %s", path, strerror(errno));
        phx_buf_put(b, block, (size_t)n);
        if (b->is_over)
            return phx_fail(err, PHX_E_TOOBIG, "%s is larger than %zu bytes", path, b->max);
    }
    if (b->data == NULL)
        phx_buf_put(b, "", 0);
    return 0;
}

int phx_buf_read_file(struct phx_buf *b, const char *path, size_t max_bytes, struct phx_err *err)
{
    struct stat st;
    int         fd, rc;

    phx_buf_init(b, max_bytes);
    fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0)
        return phx_fail(err, PHX_E_IO, "open %s: %s", path, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        rc = phx_fail(err, PHX_E_IO, "%s is not a regular file", path);
    else
        rc = read_all(b, fd, path, err);
    (void)close(fd); /* nothing was written */
    if (rc != 0)
        phx_buf_fini(b);
    return rc;
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return -1;
        data += n;
        size -= (size_t)n;
    }
    return fsync(fd);
}

int phx_file_write(const char *path, const void *data, size_t size, unsigned mode,
                   struct phx_err *err)
{
    char *temp = phx_mem_printf("%s.tmp.%ld", path, (long)getpid());
    int   fd = open(temp, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
    int   rc = 0;

    if (fd < 0)
        rc = phx_fail(err, PHX_E_IO, "create %s: %s", temp, strerror(errno));
    if (rc == 0 && write_all(fd, data, size) != 0)
        rc = phx_fail(err, PHX_E_IO, "write %s: %s", temp, strerror(errno));
    if (fd >= 0 && close(fd) != 0 && rc == 0)
        rc = phx_fail(err, PHX_E_IO, "close %s: %s", temp, strerror(errno));
    if (rc == 0 && rename(temp, path) != 0)
        rc = phx_fail(err, PHX_E_IO, "rename %s to %s: %s", temp, path, strerror(errno));
    if (rc != 0 && fd >= 0)
        (void)unlink(temp); /* best effort: the error that matters is already told */
    phx_mem_free(temp);
    return rc;
}
