/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/audit/folder.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/mem.h"

static const char temp_prefix[] = ".tmp-";

static int make_dir(const char *path, unsigned mode, bool *is_new, struct phx_err *err)
{
    struct stat st;

    *is_new = mkdir(path, (mode_t)mode) == 0;
    if (*is_new)
        return 0;
    if (errno == EEXIST && stat(path, &st) == 0 && S_ISDIR(st.st_mode))
        return 0;
    return phx_fail(err, PHX_E_IO, "make folder %s: %s", path, strerror(errno));
}

static void remove_temps(const struct phx_folder *f)
{
    DIR           *dir = opendir(f->dir);
    struct dirent *e;

    if (dir == NULL)
        return;
    while ((e = readdir(dir)) != NULL)
        if (strncmp(e->d_name, temp_prefix, sizeof(temp_prefix) - 1) == 0)
            (void)unlinkat(dirfd(dir), e->d_name, 0); /* best effort: it only takes space */
    (void)closedir(dir);
}

static void forget_dirty(struct phx_folder *f)
{
    for (int i = 0; i < f->n_dirty; i++)
        phx_mem_free(f->dirty[i]);
    f->n_dirty = 0;
}

void phx_folder_close(struct phx_folder *f)
{
    forget_dirty(f);
    phx_mem_free(f->dir);
    f->dir = NULL;
}

static int sync_dir(const char *path, struct phx_err *err)
{
    int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    int rc = 0;

    if (fd < 0 || fsync(fd) != 0)
        rc = phx_fail(err, PHX_E_IO, "sync folder %s: %s", path, strerror(errno));
    if (fd >= 0)
        (void)close(fd); /* nothing was written through it */
    return rc;
}

static int sync_parent(const char *path, struct phx_err *err)
{
    const char *slash = strrchr(path, '/');
    char       *parent = slash == NULL ? phx_mem_strdup(".")
                         : slash == path ? phx_mem_strdup("/")
                                         : phx_mem_strndup(path, (size_t)(slash - path));
    int         rc = sync_dir(parent, err);

    phx_mem_free(parent);
    return rc;
}

int phx_folder_open(struct phx_folder *f, const char *dir, unsigned file_mode, unsigned dir_mode,
                    struct phx_err *err)
{
    bool is_new = false;
    int  rc;

    memset(f, 0, sizeof(*f));
    f->dir = phx_mem_strdup(dir);
    f->file_mode = file_mode;
    f->dir_mode = dir_mode;
    remove_temps(f);
    rc = make_dir(dir, dir_mode, &is_new, err);
    return rc == 0 && is_new ? sync_parent(dir, err) : rc;
}

int phx_folder_sync(struct phx_folder *f, struct phx_err *err)
{
    int rc = 0;

    for (int i = 0; i < f->n_dirty && rc == 0; i++)
        rc = sync_dir(f->dirty[i], err);
    forget_dirty(f);
    f->has_failed = rc != 0;
    return rc;
}

/* The folder that holds the first `size` bytes of path. */
static int mark_dirty(struct phx_folder *f, const char *path, size_t size, struct phx_err *err)
{
    int rc = 0;

    for (int i = f->n_dirty - 1; i >= 0; i--)
        if (strlen(f->dirty[i]) == size && memcmp(f->dirty[i], path, size) == 0)
            return 0;
    if (f->n_dirty == PHX_FOLDER_DIRTY_MAX)
        rc = phx_folder_sync(f, err);
    f->dirty[f->n_dirty++] = phx_mem_strndup(path, size);
    return rc;
}

/* Makes the folders of a file; those whose entries change are marked. */
static int make_parents(struct phx_folder *f, char *path, struct phx_err *err)
{
    size_t from = strlen(f->dir);
    int    rc = 0;

    for (char *slash = strchr(path + from + 1, '/'); slash != NULL && rc == 0;
         slash = strchr(slash + 1, '/')) {
        bool is_new = false;

        *slash = '\0';
        rc = make_dir(path, f->dir_mode, &is_new, err);
        if (rc == 0 && (is_new || f->has_failed))
            rc = mark_dirty(f, path, (size_t)(strrchr(path, '/') - path), err);
        *slash = '/';
    }
    return rc == 0 ? mark_dirty(f, path, (size_t)(strrchr(path, '/') - path), err) : rc;
}

static int write_all(int fd, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = write(fd, data, size);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0)
            return -1;
        data += n;
        size -= (size_t)n;
    }
    return fsync(fd);
}

static int write_temp(const char *temp, unsigned mode, const void *data, size_t size, struct phx_err *err)
{
    int fd = open(temp, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, (mode_t)mode);
    int rc = 0;

    if (fd < 0)
        return phx_fail(err, PHX_E_IO, "create %s: %s", temp, strerror(errno));
    if (write_all(fd, data, size) != 0)
        rc = phx_fail(err, PHX_E_IO, "write %s: %s", temp, strerror(errno));
    if (close(fd) != 0 && rc == 0)
        rc = phx_fail(err, PHX_E_IO, "close %s: %s", temp, strerror(errno));
    return rc;
}

int phx_folder_write(struct phx_folder *f, const char *name, const void *data, size_t size,
                     struct phx_err *err)
{
    char *path = phx_mem_printf("%s/%s", f->dir, name);
    char *temp = phx_mem_printf("%s/%s%ld-%u", f->dir, temp_prefix, (long)getpid(), f->n_temp++);
    int   rc = make_parents(f, path, err);

    if (rc == 0) {
        rc = write_temp(temp, f->file_mode, data, size, err);
        if (rc == 0 && rename(temp, path) != 0)
            rc = phx_fail(err, PHX_E_IO, "rename to %s: %s", path, strerror(errno));
        if (rc != 0)
            (void)unlink(temp); /* best effort: the error that matters is already told */
    }
    phx_mem_free(temp);
    phx_mem_free(path);
    return rc;
}

int phx_folder_read(const char *dir, const char *name, size_t max_bytes, struct phx_buf *out,
                    struct phx_err *err)
{
    char *path = phx_mem_printf("%s/%s", dir, name);
    int   rc;

    if (access(path, F_OK) != 0 && errno == ENOENT)
        rc = phx_fail(err, PHX_E_NOTFOUND, "%s: no such file", path);
    else
        rc = phx_buf_read_file(out, path, max_bytes, err);
    phx_mem_free(path);
    return rc;
}

bool phx_folder_has(const struct phx_folder *f, const char *name)
{
    char *path = phx_mem_printf("%s/%s", f->dir, name);
    bool  has = access(path, F_OK) == 0;

    phx_mem_free(path);
    return has;
}

bool phx_folder_equals(const struct phx_folder *f, const char *name, const void *data, size_t size)
{
    struct phx_buf found;
    bool           is_equal;

    if (phx_folder_read(f->dir, name, size, &found, NULL) != 0)
        return false;
    is_equal = found.size == size && (size == 0 || memcmp(found.data, data, size) == 0);
    phx_buf_fini(&found);
    return is_equal;
}

void phx_folder_clear(const struct phx_folder *f, const char *name, const char *keep)
{
    char          *path = phx_mem_printf("%s/%s", f->dir, name);
    DIR           *dir = opendir(path);
    struct dirent *e;

    if (dir != NULL) {
        while ((e = readdir(dir)) != NULL)
            if (e->d_name[0] != '.' && strcmp(e->d_name, keep) != 0)
                (void)unlinkat(dirfd(dir), e->d_name, 0);
        (void)closedir(dir);
        if (keep[0] == '\0')
            (void)rmdir(path);
    }
    phx_mem_free(path);
}
