/* SPDX-License-Identifier: Apache-2.0 */
#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <fnmatch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/hex.h"
#include "rpc/base/mem.h"
#include "shard/manifest/entry.h"

enum { READ_BYTES = 1 << 20, DEPTH_MAX = 8 };

int phx_manifest_check_name(const char *name, struct phx_err *err)
{
    const char *part = name;

    if (name[0] == '\0' || strlen(name) > PHX_MANIFEST_NAME_MAX)
        return phx_fail(err, PHX_E_FORMAT, "manifest: a file name must have 1 to %d bytes",
                        PHX_MANIFEST_NAME_MAX);
    for (;;) {
        size_t n = strcspn(part, "/");

        if (n == 0 || (n == 1 && part[0] == '.') || (n == 2 && part[0] == '.' && part[1] == '.'))
            return phx_fail(err, PHX_E_FORMAT, "manifest: '%.100s' is not a plain relative name", name);
        if (part[n] == '\0')
            return 0;
        part += n + 1;
    }
}

bool phx_manifest_is_ignored(const char *name)
{
    static const char *const names[] = {PHX_MANIFEST_FILE, ".git", ".gitattributes", ".github", ".gitignore"};
    size_t                   n = strcspn(name, "/");

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        if (strlen(names[i]) == n && strncmp(names[i], name, n) == 0)
            return true;
    return false;
}

bool phx_manifest_is_part(const char *name)
{
    static const char *const patterns[] = {"*.safetensors", "*.json", "*.jinja", "*.tiktoken", "*.model"};

    for (size_t i = 0; i < sizeof(patterns) / sizeof(patterns[0]); i++)
        if (fnmatch(patterns[i], name, 0) == 0)
            return true;
    return false;
}

/* ---- listing ---------------------------------------------------------------------------------------- */

struct list {
    struct phx_arena          *arena;
    const char                *dir;
    struct phx_manifest_entry *entries; /* PHX_MANIFEST_FILES_MAX */
    int32_t                    n;
};

static int list_folder(struct list *l, const char *below, int depth, struct phx_err *err);

static int list_entry(struct list *l, const char *name, int depth, struct phx_err *err)
{
    char       *path = phx_mem_printf("%s/%s", l->dir, name);
    struct stat st;
    int         rc = 0;

    if (lstat(path, &st) != 0)
        rc = phx_fail(err, PHX_E_IO, "%s: %s", path, strerror(errno));
    else if (S_ISDIR(st.st_mode))
        rc = list_folder(l, name, depth + 1, err);
    else if (!S_ISREG(st.st_mode))
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "%s: not a regular file; a signed model has no links", path);
    else if (l->n == PHX_MANIFEST_FILES_MAX)
        rc = phx_fail(err, PHX_E_TOOBIG, "%s: more than %d files", l->dir, PHX_MANIFEST_FILES_MAX);
    else
        l->entries[l->n++] = (struct phx_manifest_entry){.name = phx_arena_strdup(l->arena, name),
                                                         .size_bytes = (uint64_t)st.st_size,
                                                         .has_size = true};
    phx_mem_free(path);
    return rc;
}

static int list_folder(struct list *l, const char *below, int depth, struct phx_err *err)
{
    char          *path = below[0] == '\0' ? phx_mem_strdup(l->dir) : phx_mem_printf("%s/%s", l->dir, below);
    DIR           *folder = opendir(path);
    struct dirent *e;
    int            rc = 0;

    if (folder == NULL)
        rc = phx_fail(err, PHX_E_IO, "%s: %s", path, strerror(errno));
    else if (depth > DEPTH_MAX)
        rc = phx_fail(err, PHX_E_TOOBIG, "%s: folders are more than %d deep", path, DEPTH_MAX);
    while (rc == 0 && (e = readdir(folder)) != NULL) {
        char *name;

        if (strcmp(e->d_name, ".") == 0 || strcmp(e->d_name, "..") == 0)
            continue;
        name = below[0] == '\0' ? phx_mem_strdup(e->d_name) : phx_mem_printf("%s/%s", below, e->d_name);
        if (!phx_manifest_is_ignored(name))
            rc = list_entry(l, name, depth, err);
        phx_mem_free(name);
    }
    if (folder != NULL)
        (void)closedir(folder); /* was only read */
    phx_mem_free(path);
    return rc;
}

static int by_name(const void *a, const void *b)
{
    return strcmp(((const struct phx_manifest_entry *)a)->name, ((const struct phx_manifest_entry *)b)->name);
}

int phx_manifest_list(const char *dir, struct phx_arena *arena, struct phx_manifest_entry **out, int32_t *n,
                      struct phx_err *err)
{
    struct list l = {arena, dir, phx_arena_calloc(arena, PHX_MANIFEST_FILES_MAX, sizeof(*l.entries)), 0};
    int         rc = list_folder(&l, "", 0, err);

    if (l.n > 1)
        qsort(l.entries, (size_t)l.n, sizeof(*l.entries), by_name);
    *out = l.entries;
    *n = l.n;
    return rc;
}

/* ---- hashing ------------------------------------------------------------------------------------------ */

int phx_manifest_hash(int fd, const char *name, uint64_t from, uint64_t to, uint8_t digest[PHX_SHA256_BYTES],
                      struct phx_sha256 *whole, struct phx_err *err)
{
    uint8_t          *block = phx_mem_calloc(1, READ_BYTES);
    struct phx_sha256 h;
    int               rc = 0;

    phx_sha256_init(&h);
    while (from < to && rc == 0) {
        size_t  want = to - from < READ_BYTES ? (size_t)(to - from) : READ_BYTES;
        ssize_t n = pread(fd, block, want, (off_t)from);

        if (n < 0 && errno == EINTR)
            continue;
        if (n <= 0) {
            rc = phx_fail(err, PHX_E_IO, "%s: %s at byte %llu", name,
                          n < 0 ? strerror(errno) : "the file ends", (unsigned long long)from);
            break;
        }
        phx_sha256_update(&h, block, (size_t)n);
        if (whole != NULL)
            phx_sha256_update(whole, block, (size_t)n);
        from += (uint64_t)n;
    }
    if (rc == 0)
        phx_sha256_final(&h, digest);
    else
        phx_sha256_fini(&h);
    phx_mem_free(block);
    return rc;
}

void phx_manifest_root(const struct phx_manifest_entry *entries, int32_t n, char root[PHX_MANIFEST_ROOT_BYTES])
{
    struct phx_sha256 h;
    uint8_t           digest[PHX_SHA256_BYTES];

    phx_sha256_init(&h);
    for (int32_t i = 0; i < n; i++)
        phx_sha256_update(&h, entries[i].digest, PHX_SHA256_BYTES);
    phx_sha256_final(&h, digest);
    memcpy(root, "sha256:", 7);
    phx_hex_encode(root + 7, PHX_SHA256_HEX, digest, sizeof(digest));
}
