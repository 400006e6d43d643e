/* SPDX-License-Identifier: Apache-2.0
 * The files of a checkpoint, mapped, and one sorted table of their tensors. */
#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/load/header.h"

enum { WISH_BYTES = 128 << 10, INDEX_MAX_BYTES = 64 << 20, INDEX_DEPTH = 8, FILES_MAX = 4096 };

struct file {
    char    *name;
    uint8_t *map;
    uint64_t size_bytes;
};

struct phx_checkpoint {
    char              *dir;
    struct phx_arena  *arena; /* names */
    struct file       *files;
    int32_t            n_files;
    struct phx_st_list tensors; /* sorted by name */
    uint64_t           payload_bytes;
};

static int map_file(const char *dir, struct file *f, struct phx_err *err)
{
    char       *path = phx_mem_printf("%s/%s", dir, f->name);
    int         fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), rc = 0;
    struct stat st;

    if (fd < 0 || fstat(fd, &st) != 0) {
        rc = phx_fail(err, errno == ENOENT ? PHX_E_NOTFOUND : PHX_E_IO, "open %s: %s", path,
                      strerror(errno));
    } else if (!S_ISREG(st.st_mode)) {
        rc = phx_fail(err, PHX_E_IO, "%s is not a regular file", path);
    } else if (st.st_size == 0) {
        rc = phx_fail(err, PHX_E_FORMAT, "%s is empty", path);
    } else {
        void *map = mmap(NULL, (size_t)st.st_size, PROT_READ, MAP_SHARED, fd, 0);

        if (map == MAP_FAILED) {
            rc = phx_fail(err, PHX_E_IO, "map %s: %s", path, strerror(errno));
        } else {
            f->map = map;
            f->size_bytes = (uint64_t)st.st_size;
        }
    }
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
    phx_mem_free(path);
    return rc;
}

static int compare_name(const void *left, const void *right)
{
    return strcmp(((const struct phx_ckpt_tensor *)left)->name,
                  ((const struct phx_ckpt_tensor *)right)->name);
}

/* Maps and reads all files, then sorts the tensors by name and refuses duplicates. */
static int read_files(struct phx_checkpoint *c, struct phx_err *err)
{
    struct phx_ckpt_tensor *t;
    int                     rc = 0;

    for (int32_t i = 0; i < c->n_files && rc == 0; i++) {
        struct file *f = &c->files[i];

        rc = map_file(c->dir, f, err);
        if (rc == 0)
            rc = phx_st_parse(f->map, f->size_bytes, f->name, i, c->arena, &c->tensors, err);
    }
    if (rc != 0 || c->tensors.n == 0)
        return rc != 0 ? rc : phx_fail(err, PHX_E_FORMAT, "%s holds no tensors", c->dir);
    t = c->tensors.items;
    qsort(t, (size_t)c->tensors.n, sizeof(*t), compare_name);
    for (int32_t i = 0; i < c->tensors.n; i++) {
        c->payload_bytes += t[i].size_bytes; /* each lies in a mapped file: no overflow */
        if (i > 0 && strcmp(t[i - 1].name, t[i].name) == 0)
            return phx_fail(err, PHX_E_FORMAT, "tensor %.100s is there twice, in %.50s and %.50s",
                            t[i].name, c->files[t[i - 1].file].name, c->files[t[i].file].name);
    }
    return 0;
}

/* A plain file name beside the index: nothing that leaves the folder. */
static bool is_file_name(const char *name)
{
    return name[0] != '\0' && name[0] != '.' && strchr(name, '/') == NULL && strlen(name) <= 255;
}

static int compare_text(const void *left, const void *right)
{
    return strcmp(*(char *const *)left, *(char *const *)right);
}

/* The distinct file names of the weight map, sorted. */
static int list_files(struct phx_checkpoint *c, const json_t *weight_map, struct phx_err *err)
{
    size_t       n = json_object_size(weight_map), i = 0;
    const char **names = phx_mem_calloc(n + 1, sizeof(*names));
    const char  *tensor;
    json_t      *value;
    int          rc = 0;

    json_object_foreach((json_t *)weight_map, tensor, value) {
        names[i] = json_string_value(value);
        if (names[i] == NULL || !is_file_name(names[i])) {
            rc = phx_fail(err, PHX_E_FORMAT, "model.safetensors.index.json: weight_map: the file of "
                          "%.80s is not a plain file name", tensor);
            break;
        }
        i++;
    }
    if (rc == 0 && n > 0)
        qsort(names, n, sizeof(*names), compare_text);
    c->files = phx_mem_calloc(FILES_MAX, sizeof(*c->files));
    for (i = 0; i < n && rc == 0; i++) {
        if (i > 0 && strcmp(names[i - 1], names[i]) == 0)
            continue;
        if (c->n_files == FILES_MAX)
            rc = phx_fail(err, PHX_E_TOOBIG, "model.safetensors.index.json: more than %d files",
                          FILES_MAX);
        else
            c->files[c->n_files++].name = phx_mem_strdup(names[i]);
    }
    phx_mem_free(names);
    return rc;
}

/* The index and the files must name the same tensors in the same places. */
static int check_index(const struct phx_checkpoint *c, const json_t *weight_map, struct phx_err *err)
{
    const char *name;
    json_t     *value;

    json_object_foreach((json_t *)weight_map, name, value) {
        const struct phx_ckpt_tensor *t = phx_checkpoint_find(c, name);

        if (t == NULL || strcmp(c->files[t->file].name, json_string_value(value)) != 0)
            return phx_fail(err, PHX_E_FORMAT,
                            "model.safetensors.index.json: tensor %.80s is not in %.80s", name,
                            json_string_value(value));
    }
    for (int32_t i = 0; i < c->tensors.n; i++)
        if (json_object_get(weight_map, c->tensors.items[i].name) == NULL)
            return phx_fail(err, PHX_E_FORMAT,
                            "model.safetensors.index.json does not name tensor %.80s of %.80s",
                            c->tensors.items[i].name, c->files[c->tensors.items[i].file].name);
    return 0;
}

static int check_total(const struct phx_checkpoint *c, const json_t *root, struct phx_err *err)
{
    const json_t *metadata = NULL;
    int64_t       total = -1;
    int           rc = phx_json_opt_object(root, "", "metadata", &metadata, err);

    if (rc == 0 && metadata != NULL)
        rc = phx_json_opt_int(metadata, "metadata", "total_size", 0, INT64_MAX, &total, err);
    if (rc != 0)
        phx_err_prefix(err, "model.safetensors.index.json: ");
    else if (total >= 0 && (uint64_t)total != c->payload_bytes)
        rc = phx_fail(err, PHX_E_FORMAT, "model.safetensors.index.json: metadata.total_size is %lld, "
                      "the tensors have %llu bytes", (long long)total,
                      (unsigned long long)c->payload_bytes);
    return rc;
}

static int open_sharded(struct phx_checkpoint *c, const char *path, struct phx_err *err)
{
    const json_t *weight_map;
    json_t       *root;
    int           rc = phx_json_load(&root, path, INDEX_MAX_BYTES, INDEX_DEPTH, err);

    if (rc != 0)
        return rc;
    rc = phx_json_get_object(root, "", "weight_map", &weight_map, err);
    if (rc != 0)
        phx_err_prefix(err, "model.safetensors.index.json: ");
    if (rc == 0)
        rc = list_files(c, weight_map, err);
    if (rc == 0)
        rc = read_files(c, err);
    if (rc == 0)
        rc = check_index(c, weight_map, err);
    if (rc == 0)
        rc = check_total(c, root, err);
    json_decref(root);
    return rc;
}

static int open_single(struct phx_checkpoint *c, struct phx_err *err)
{
    c->files = phx_mem_calloc(1, sizeof(*c->files));
    c->files[0].name = phx_mem_strdup("model.safetensors");
    c->n_files = 1;
    return read_files(c, err);
}

int phx_checkpoint_open(const char *dir, struct phx_checkpoint **out, struct phx_err *err)
{
    struct phx_checkpoint *c = phx_mem_calloc(1, sizeof(*c));
    char                  *path = phx_mem_printf("%s/model.safetensors.index.json", dir);
    int                    rc;

    *out = NULL;
    c->arena = phx_arena_create();
    c->dir = phx_mem_strdup(dir);
    rc = access(path, F_OK) == 0 ? open_sharded(c, path, err) : open_single(c, err);
    phx_mem_free(path);
    if (rc != 0)
        phx_checkpoint_close(c);
    else
        *out = c;
    return rc;
}

void phx_checkpoint_close(struct phx_checkpoint *c)
{
    if (c == NULL)
        return;
    for (int32_t i = 0; i < c->n_files; i++) {
        if (c->files[i].map != NULL)
            (void)munmap(c->files[i].map, (size_t)c->files[i].size_bytes); /* cannot fail: own map */
        phx_mem_free(c->files[i].name);
    }
    phx_mem_free(c->files);
    phx_mem_free(c->tensors.items);
    phx_arena_destroy(c->arena);
    phx_mem_free(c->dir);
    phx_mem_free(c);
}

struct phx_checkpoint *phx_checkpoint_lend(const struct phx_ckpt_tensor *tensors, int32_t n)
{
    struct phx_checkpoint *c = phx_mem_calloc(1, sizeof(*c));

    c->arena = phx_arena_create();
    c->tensors.items = phx_mem_calloc((size_t)n, sizeof(*c->tensors.items));
    c->tensors.n = c->tensors.capacity = n;
    for (int32_t i = 0; i < n; i++) {
        c->tensors.items[i] = tensors[i];
        c->tensors.items[i].name = phx_arena_strdup(c->arena, tensors[i].name);
        c->payload_bytes += tensors[i].size_bytes;
    }
    qsort(c->tensors.items, (size_t)n, sizeof(*c->tensors.items), compare_name);
    return c;
}

int32_t phx_checkpoint_count(const struct phx_checkpoint *c)
{
    return c->tensors.n;
}

const struct phx_ckpt_tensor *phx_checkpoint_at(const struct phx_checkpoint *c, int32_t i)
{
    phx_assert(i >= 0 && i < c->tensors.n);
    return &c->tensors.items[i];
}

const struct phx_ckpt_tensor *phx_checkpoint_find(const struct phx_checkpoint *c, const char *name)
{
    struct phx_ckpt_tensor key = {.name = name};

    if (c->tensors.n == 0)
        return NULL;
    return bsearch(&key, c->tensors.items, (size_t)c->tensors.n, sizeof(key), compare_name);
}

int32_t phx_checkpoint_files(const struct phx_checkpoint *c)
{
    return c->n_files;
}

const char *phx_checkpoint_file(const struct phx_checkpoint *c, int32_t i)
{
    phx_assert(i >= 0 && i < c->n_files);
    return c->files[i].name;
}

uint64_t phx_checkpoint_bytes(const struct phx_checkpoint *c)
{
    return c->payload_bytes;
}

static void advise(const struct phx_ckpt_tensor *t, uint64_t offset, uint64_t size_bytes, int advice)
{
    uintptr_t page = (uintptr_t)sysconf(_SC_PAGESIZE);
    uintptr_t first = (uintptr_t)t->data + offset, end = first + size_bytes;

    phx_assert(offset <= t->size_bytes && size_bytes <= t->size_bytes - offset);
    first &= ~(page - 1);
    /* advice only: a kernel that cannot follow it changes speed, not results.  Dropping the pages at
     * the borders, shared with a neighbour, costs that one a minor fault. */
    if (first < end)
        (void)madvise((void *)first, end - first, advice);
}

/* The kernel answers one wish with one window of read-ahead, so there are many of them; then the pages are
 * waited for and mapped in one go (Linux 5.14; before that the reader of the bytes waits). */
void phx_checkpoint_read(const struct phx_ckpt_tensor *t, uint64_t offset, uint64_t size_bytes)
{
    for (uint64_t at = 0; at < size_bytes; at += WISH_BYTES)
        advise(t, offset + at, size_bytes - at < WISH_BYTES ? size_bytes - at : WISH_BYTES, MADV_WILLNEED);
    advise(t, offset, size_bytes, MADV_POPULATE_READ);
}

void phx_checkpoint_drop(const struct phx_ckpt_tensor *t, uint64_t offset, uint64_t size_bytes)
{
    advise(t, offset, size_bytes, MADV_DONTNEED);
}
