/* SPDX-License-Identifier: Apache-2.0
 * Files of an audit folder, read with limits and never followed out of sight: a pipe or device in a folder
 * from somebody else must not hang or feed the verifier. */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fts.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "daemon/verify/verify.h"
#include "rpc/base/mem.h"

int phx_vfolder_open(const char *path, struct phx_vfolder *out, struct phx_err *err)
{
    out->fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (out->fd < 0)
        return phx_fail(err, PHX_E_INVALID, "%.150s: %s", path, strerror(errno));
    return 0;
}

void phx_vfolder_close(struct phx_vfolder *f)
{
    if (f->fd >= 0)
        close(f->fd);
    f->fd = -1;
}

static int read_all(int fd, const char *name, size_t max_bytes, struct phx_buf *out, struct phx_err *err)
{
    static char chunk[64 << 10];
    ssize_t     n;

    phx_buf_clear(out);
    out->max = max_bytes + 1;
    while ((n = read(fd, chunk, sizeof(chunk))) != 0) {
        if (n < 0 && errno == EINTR)
            continue;
        if (n < 0)
            return phx_fail(err, PHX_E_IO, "%.150s: %s", name, strerror(errno));
        if (out->size + (size_t)n > max_bytes)
            return phx_fail(err, PHX_E_TOOBIG, "%.150s: larger than %zu bytes", name, max_bytes);
        phx_buf_put(out, chunk, (size_t)n);
    }
    if (out->data == NULL) /* an empty file has a text, too */
        phx_buf_puts(out, "");
    return 0;
}

int phx_vfolder_read(const struct phx_vfolder *f, const char *name, size_t max_bytes, struct phx_buf *out,
                    struct phx_err *err)
{
    struct stat st;
    int         rc, fd = openat(f->fd, name, O_RDONLY | O_NONBLOCK | O_CLOEXEC);

    if (fd < 0)
        return errno == ENOENT || errno == ENOTDIR
                   ? phx_fail(err, PHX_E_NOTFOUND, "%.150s: missing", name)
                   : phx_fail(err, PHX_E_IO, "%.150s: %s", name, strerror(errno));
    if (fstat(fd, &st) != 0 || !S_ISREG(st.st_mode))
        rc = phx_fail(err, PHX_E_FORMAT, "%.150s: not a regular file", name);
    else
        rc = read_all(fd, name, max_bytes, out, err);
    close(fd);
    return rc;
}

/* ---- epochs ----------------------------------------------------------------------------------------------- */

/* 0 when it is no plain decimal number from 1 on. */
static int64_t read_epoch(const char *text)
{
    size_t n = strspn(text, "0123456789");

    return text[n] != '\0' || n == 0 || n > 18 || text[0] == '0' ? 0 : strtoll(text, NULL, 10);
}

static int compare_epochs(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return x < y ? -1 : x > y;
}

int phx_vfolder_epochs(const struct phx_vfolder *f, const char *dir, int64_t **out, size_t *n, struct phx_err *err)
{
    int            fd = openat(f->fd, dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR           *d = fd < 0 ? NULL : fdopendir(fd);
    struct dirent *entry;
    size_t         capacity = 0;

    *out = NULL;
    *n = 0;
    if (d == NULL)
        return fd < 0 && errno == ENOENT ? 0 : phx_fail(err, PHX_E_IO, "%s: %s", dir, strerror(errno));
    while ((entry = readdir(d)) != NULL) {
        int64_t epoch = read_epoch(entry->d_name);

        if (epoch == 0 || *n == PHX_V_EPOCHS_MAX)
            continue;
        if (*n == capacity) {
            capacity = capacity == 0 ? 64 : capacity * 2;
            *out = phx_mem_realloc(*out, capacity, sizeof(**out));
        }
        (*out)[(*n)++] = epoch;
    }
    closedir(d);
    if (*n > 0)
        qsort(*out, *n, sizeof(**out), compare_epochs);
    return 0;
}

/* ---- tiles ------------------------------------------------------------------------------------------------ */

void phx_tile_base(int level, uint64_t index, char base[PHX_TLOG_PATH_BYTES])
{
    if (level < 0)
        phx_tlog_entries_path(index, PHX_TLOG_TILE_WIDTH, base);
    else
        phx_tlog_tile_path(level, index, PHX_TLOG_TILE_WIDTH, base);
}

int phx_vfolder_tile(const struct phx_vfolder *f, const char *base, int width, bool is_entries,
                    struct phx_buf *out, int *found_width, char name[PHX_V_NAME_MAX], struct phx_err *err)
{
    size_t         max = is_entries ? (size_t)PHX_V_BUNDLE_MAX : PHX_TLOG_TILE_WIDTH * PHX_TLOG_HASH_BYTES;
    struct phx_err ignored;
    int            rc = PHX_E_NOTFOUND;

    if (width < PHX_TLOG_TILE_WIDTH) {
        (void)snprintf(name, PHX_V_NAME_MAX, "%s.p/%d", base, width);
        rc = phx_vfolder_read(f, name, max, out, err);
        *found_width = width;
    }
    if (rc == PHX_E_NOTFOUND) {
        rc = phx_vfolder_read(f, base, max, out, &ignored);
        *found_width = PHX_TLOG_TILE_WIDTH;
        if (rc != PHX_E_NOTFOUND)
            (void)snprintf(name, PHX_V_NAME_MAX, "%s", base);
    }
    for (int w = width + 1; rc == PHX_E_NOTFOUND && w < PHX_TLOG_TILE_WIDTH; w++) {
        char wider[PHX_V_NAME_MAX];

        (void)snprintf(wider, sizeof(wider), "%s.p/%d", base, w);
        rc = phx_vfolder_read(f, wider, max, out, &ignored);
        *found_width = w;
        if (rc != PHX_E_NOTFOUND)
            memcpy(name, wider, sizeof(wider));
    }
    if (rc == PHX_E_NOTFOUND && width == PHX_TLOG_TILE_WIDTH)
        (void)snprintf(name, PHX_V_NAME_MAX, "%s", base);
    return rc == PHX_E_NOTFOUND ? phx_fail(err, rc, "%s: missing", name)
           : rc != 0            ? phx_fail(err, rc, "%s: cannot be read, or is too large", name)
                                : 0;
}

/* ---- what no current tree needs ----------------------------------------------------------------------------- */

struct tile_name {
    int      level; /* -1: entries */
    uint64_t index;
    int      width;
};

/* "x001/x002/003" and then the end or ".p/W". */
static bool parse_index(const char *p, struct tile_name *out)
{
    char digits[24] = "";
    int  n = 0, end = 0;

    for (; *p == 'x' && n < 15; p += 5, n += 3) {
        if (strspn(p + 1, "0123456789") != 3 || p[4] != '/')
            return false;
        memcpy(digits + n, p + 1, 3);
    }
    if (strspn(p, "0123456789") != 3)
        return false;
    memcpy(digits + n, p, 3);
    out->index = strtoull(digits, NULL, 10);
    out->width = PHX_TLOG_TILE_WIDTH;
    p += 3;
    if (*p == '\0')
        return true;
    return sscanf(p, ".p/%3d%n", &out->width, &end) == 1 && p[end] == '\0' && out->width > 0 &&
           out->width < PHX_TLOG_TILE_WIDTH;
}

static bool parse_tile(const char *name, struct tile_name *out)
{
    char again[PHX_TLOG_PATH_BYTES];

    if (strncmp(name, "tile/", 5) != 0)
        return false;
    if (strncmp(name + 5, "entries/", 8) == 0) {
        out->level = -1;
        if (!parse_index(name + 13, out))
            return false;
        phx_tlog_entries_path(out->index, out->width, again);
    } else {
        out->level = name[5] - '0';
        if (out->level < 0 || out->level > 7 || name[6] != '/' || !parse_index(name + 7, out))
            return false;
        phx_tlog_tile_path(out->level, out->index, out->width, again);
    }
    return strcmp(name, again) == 0; /* there is one spelling */
}

static int ignore_entry(void *ctx, int i, const void *entry, size_t size)
{
    (void)ctx, (void)i, (void)entry, (void)size;
    return 0;
}

/* An older partial file must be the beginning of the one that was checked. */
static int check_old(struct phx_walk *w, const char *name, const struct tile_name *t, int best,
                     struct phx_err *err)
{
    struct phx_buf found = {0}, whole = {0};
    char           base[PHX_TLOG_PATH_BYTES], best_name[PHX_V_NAME_MAX];
    int            width, rc;

    phx_tile_base(t->level, t->index, base);
    rc = phx_vfolder_read(w->folder, name, PHX_V_BUNDLE_MAX, &found, err);
    if (rc == 0)
        rc = phx_vfolder_tile(w->folder, base, best, t->level < 0, &whole, &width, best_name, err);
    if (rc == 0 && t->level < 0)
        rc = phx_tlog_entries_walk(found.data, found.size, t->width, ignore_entry, NULL, err);
    if (rc == 0 && (found.size > whole.size || memcmp(found.data, whole.data, found.size) != 0 ||
                    (t->level >= 0 && found.size != (size_t)t->width * PHX_TLOG_HASH_BYTES)))
        rc = phx_fail(err, PHX_E_FORMAT, "differs from the entries");
    if (rc != 0)
        phx_err_prefix(err, "%.100s: ", name);
    phx_buf_fini(&found);
    phx_buf_fini(&whole);
    return rc;
}

static bool is_other_file(const char *name)
{
    return strcmp(name, "checkpoint") == 0 || strcmp(name, "trust.json") == 0 ||
           (strncmp(name, "keys/", 5) == 0 && read_epoch(name + 5) != 0) ||
           (strncmp(name, "closing/", 8) == 0 && read_epoch(name + 8) != 0);
}

static void walk_file(struct phx_walk *w, const char *name)
{
    struct tile_name t;
    struct phx_err   err = {0};
    uint64_t         count, first;

    if (!parse_tile(name, &t)) {
        if (!is_other_file(name))
            phx_report_skip(w->report, "the file '%.100s': not of an audit folder", name);
        return;
    }
    count = t.level < 0 ? w->size : w->size >> (8 * t.level);
    if (__builtin_mul_overflow(t.index, (uint64_t)PHX_TLOG_TILE_WIDTH, &first) || first > count ||
        (uint64_t)t.width > count - first) {
        w->is_behind = true;
        return;
    }
    count -= first;
    if (count > PHX_TLOG_TILE_WIDTH)
        count = PHX_TLOG_TILE_WIDTH;
    if ((uint64_t)t.width < count && check_old(w, name, &t, (int)count, &err) != 0)
        phx_report_err(w->report, &err);
}

int phx_vfolder_walk(struct phx_walk *w, struct phx_err *err)
{
    char   *root = phx_mem_strdup(w->path);
    char   *paths[] = {root, NULL};
    FTS    *fts = fts_open(paths, FTS_PHYSICAL | FTS_NOCHDIR | FTS_NOSTAT, NULL);
    FTSENT *e;
    size_t  skip = strlen(root);

    while (skip > 1 && root[skip - 1] == '/') /* fts keeps one of them */
        root[--skip] = '\0';
    while (fts != NULL && (e = fts_read(fts)) != NULL)
        if (e->fts_info != FTS_D && e->fts_info != FTS_DP && e->fts_pathlen > skip + 1)
            walk_file(w, e->fts_path + skip + 1);
    if (fts != NULL)
        fts_close(fts);
    phx_mem_free(root);
    return fts != NULL ? 0 : phx_fail(err, PHX_E_IO, "%.150s: %s", w->path, strerror(errno));
}
