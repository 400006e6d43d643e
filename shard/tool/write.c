/* SPDX-License-Identifier: Apache-2.0
 * Random safetensors files, written by a few threads.  Every value is a hash of (seed, tensor, place), so
 * that any part can be made alone. */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "rpc/base/buf.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/tool/synth.h"
#include "shard/tool/tool.h"

enum { CHUNK_BYTES = 4 << 20, THREADS_MAX = 64 };

/* splitmix64's finisher over a counter: every word alone, and fast. */
static inline uint64_t draw(uint64_t key, uint64_t counter)
{
    uint64_t x = key + counter * 0x9E3779B97F4A7C15ULL;

    x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ULL;
    x = (x ^ (x >> 27)) * 0x94D049BB133111EBULL;
    return x ^ (x >> 31);
}

/* Half-width of the uniform values and their middle. */
static void range_of(enum phx_synth_fill fill, float *middle, float *width)
{
    *middle = fill == PHX_FILL_NORM ? 1.0F : 0.0F;
    *width = fill == PHX_FILL_SINK ? 1.0F : fill == PHX_FILL_NORM ? 0.1F : 0.03464F;
}

static void fill_bf16(uint16_t *out, size_t n, uint64_t key, uint64_t first, float middle, float width)
{
    float scale = width / 32768.0F;

    for (size_t i = 0; i < n; i += 4) {
        uint64_t word = draw(key, (first + i) / 4);

        for (size_t j = 0; j < 4 && i + j < n; j++) {
            float    value = middle + scale * (float)(int16_t)(word >> (16 * j));
            uint32_t bits;

            memcpy(&bits, &value, sizeof(bits));
            out[i + j] = (uint16_t)(bits >> 16);
        }
    }
}

static void fill_f32(float *out, size_t n, uint64_t key, uint64_t first, float middle, float width)
{
    float scale = width / 32768.0F;

    for (size_t i = 0; i < n; i++) {
        uint64_t word = draw(key, (first + i) / 4);

        out[i] = middle + scale * (float)(int16_t)(word >> (16 * ((first + i) % 4)));
    }
}

/* Rounds to the nearest half of the same sign; tiny values become zero, large ones do not occur. */
static uint16_t to_half(float value)
{
    uint32_t bits, sign, rest;

    memcpy(&bits, &value, sizeof(bits));
    sign = bits >> 16 & 0x8000;
    rest = bits & 0x7FFFFFFF;
    if (rest < 0x38800000) /* below the smallest normal half */
        return (uint16_t)sign;
    return (uint16_t)(sign | (rest - 0x38000000 + 0x1000) >> 13);
}

static void fill_f16(uint16_t *out, size_t n, uint64_t key, uint64_t first, float middle, float width)
{
    for (size_t i = 0; i < n; i++) {
        float value;

        fill_f32(&value, 1, key, first + i, middle, width);
        out[i] = to_half(value);
    }
}

static void fill_bytes(uint8_t *out, size_t n, uint64_t key, uint64_t first, bool is_scale)
{
    for (size_t i = 0; i < n; i += 8) {
        uint64_t word = draw(key, (first + i) / 8);

        if (is_scale) /* 119, 120 or 121: a block's deviation is about 2.9 * 2^(s - 127) */
            for (size_t j = 0; j < 8; j++) {
                uint64_t byte = word >> (8 * j) & 255;

                word ^= (byte ^ (119 + byte % 3)) << (8 * j);
            }
        memcpy(out + i, &word, n - i < 8 ? n - i : 8);
    }
}

void phx_synth_fill(const struct phx_synth_tensor *t, uint64_t key, uint64_t offset, void *out, size_t size)
{
    float middle, width;

    range_of(t->fill, &middle, &width);
    if (t->type == PHX_SYNTH_BF16)
        fill_bf16(out, size / 2, key, offset / 2, middle, width);
    else if (t->type == PHX_SYNTH_F16)
        fill_f16(out, size / 2, key, offset / 2, middle, width);
    else if (t->type == PHX_SYNTH_F32)
        fill_f32(out, size / 4, key, offset / 4, middle, width);
    else
        fill_bytes(out, size, key, offset, t->fill == PHX_FILL_SCALES);
}

struct file {
    int      fd;
    uint64_t data_begin;
};

struct writer {
    const struct phx_synth_layout *layout;
    struct file                   *files;
    uint64_t                       seed;
    pthread_mutex_t                mutex; /* guards the next piece and the error */
    int32_t                        tensor;
    uint64_t                       offset;
    struct phx_err                 err;
    _Atomic uint64_t               done_bytes;
    _Atomic int32_t                n_running;
};

/* The next piece of work; false at the end or after an error. */
static bool take_piece(struct writer *w, int32_t *tensor, uint64_t *offset, size_t *size)
{
    const struct phx_synth_layout *l = w->layout;
    bool                           has_piece;

    (void)pthread_mutex_lock(&w->mutex);
    has_piece = w->err.code == 0 && w->tensor < l->n;
    if (has_piece) {
        uint64_t left = l->tensors[w->tensor].size_bytes - w->offset;

        *tensor = w->tensor;
        *offset = w->offset;
        *size = left < CHUNK_BYTES ? (size_t)left : CHUNK_BYTES;
        w->offset += *size;
        if (w->offset == l->tensors[w->tensor].size_bytes) {
            w->tensor++;
            w->offset = 0;
        }
    }
    (void)pthread_mutex_unlock(&w->mutex);
    return has_piece;
}

static void *run(void *arg)
{
    struct writer *w = arg;
    uint8_t       *piece = phx_mem_calloc(1, CHUNK_BYTES);
    int32_t        tensor;
    uint64_t       offset;
    size_t         size;

    while (take_piece(w, &tensor, &offset, &size)) {
        const struct phx_synth_tensor *t = &w->layout->tensors[tensor];
        const struct file             *f = &w->files[t->file];

        phx_synth_fill(t, draw(w->seed, (uint64_t)tensor), offset, piece, size);
        if (phx_tool_write_at(f->fd, piece, size, f->data_begin + t->begin + offset) != 0) {
            int reason = errno;

            (void)pthread_mutex_lock(&w->mutex);
            (void)phx_fail(&w->err, PHX_E_IO, "write %.100s: %s", t->name, strerror(reason));
            (void)pthread_mutex_unlock(&w->mutex);
        }
        atomic_fetch_add(&w->done_bytes, size);
    }
    phx_mem_free(piece);
    atomic_fetch_sub(&w->n_running, 1);
    return NULL;
}

static const char *type_name(enum phx_synth_type type)
{
    return type == PHX_SYNTH_U8     ? "U8"
           : type == PHX_SYNTH_BF16 ? "BF16"
           : type == PHX_SYNTH_F16  ? "F16"
                                    : "F32";
}

/* u64 size, header, padded with spaces to a multiple of 8. */
static void make_header(const struct phx_synth_layout *l, int32_t file, struct phx_buf *b)
{
    uint64_t size = 0;

    phx_buf_put(b, &size, sizeof(size));
    phx_buf_puts(b, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int32_t i = 0; i < l->n; i++) {
        const struct phx_synth_tensor *t = &l->tensors[i];

        if (t->file != file)
            continue;
        phx_buf_printf(b, ",\"%s\":{\"dtype\":\"%s\",\"shape\":[", t->name, type_name(t->type));
        for (int32_t d = 0; d < t->n_dims; d++)
            phx_buf_printf(b, "%s%lld", d > 0 ? "," : "", (long long)t->dim[d]);
        phx_buf_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)t->begin,
                       (unsigned long long)(t->begin + t->size_bytes));
    }
    phx_buf_putc(b, '}');
    while (b->size % 8 != 0)
        phx_buf_putc(b, ' ');
    size = b->size - sizeof(size);
    memcpy(b->data, &size, sizeof(size));
}

static int make_file(const char *dir, const json_t *config, const struct phx_synth_layout *l, int32_t i,
                     struct file *f, struct phx_err *err)
{
    struct phx_buf header;
    char           name[64], *path;
    int            rc = 0;

    phx_synth_file_name(config, l, i, name);
    path = phx_mem_printf("%s/%s", dir, name);
    phx_buf_init(&header, 0);
    make_header(l, i, &header);
    f->data_begin = header.size;
    f->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (f->fd < 0)
        rc = phx_fail(err, PHX_E_IO, "create %s: %s", path, strerror(errno));
    else if (phx_tool_write_at(f->fd, header.data, header.size, 0) != 0)
        rc = phx_fail(err, PHX_E_IO, "write %s: %s", path, strerror(errno));
    phx_buf_fini(&header);
    phx_mem_free(path);
    return rc;
}

static int write_index(const char *dir, const json_t *config, const struct phx_synth_layout *l,
                       struct phx_err *err)
{
    struct phx_buf b;
    char           name[64], *path = phx_mem_printf("%s/model.safetensors.index.json", dir);
    int            rc;

    phx_buf_init(&b, 0);
    phx_buf_printf(&b, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {",
                   (unsigned long long)l->total_bytes);
    for (int32_t i = 0; i < l->n; i++) {
        phx_synth_file_name(config, l, l->tensors[i].file, name);
        phx_buf_printf(&b, "%s\n    \"%s\": \"%s\"", i > 0 ? "," : "", l->tensors[i].name, name);
    }
    phx_buf_puts(&b, "\n  }\n}\n");
    rc = phx_file_write(path, b.data, b.size, 0644, err);
    phx_buf_fini(&b);
    phx_mem_free(path);
    return rc;
}

static void run_threads(struct writer *w, int32_t n_threads)
{
    pthread_t                thread[THREADS_MAX];
    int32_t                  n = 0;
    struct phx_tool_progress progress;
    struct timespec          pause = {0, 50000000};

    atomic_store(&w->n_running, n_threads);
    phx_tool_progress_start(&progress, "synth");
    while (n < n_threads && pthread_create(&thread[n], NULL, run, w) == 0)
        n++;
    if (n < n_threads)
        atomic_fetch_sub(&w->n_running, n_threads - n);
    if (n == 0) {
        atomic_store(&w->n_running, 1);
        (void)run(w); /* no thread to be had: this one does it */
    }
    while (atomic_load(&w->n_running) > 0) {
        (void)nanosleep(&pause, NULL);
        phx_tool_progress_show(&progress, atomic_load(&w->done_bytes), w->layout->total_bytes);
    }
    for (int32_t i = 0; i < n; i++)
        (void)pthread_join(thread[i], NULL); /* our own threads, joined once */
    phx_tool_progress_end(&progress);
}

int phx_synth_write(const char *dir, const json_t *config, struct phx_synth_layout *l, uint64_t seed,
                    int32_t n_threads, struct phx_err *err)
{
    struct writer w = {.layout = l, .seed = seed, .mutex = PTHREAD_MUTEX_INITIALIZER};
    int           rc = 0;

    w.files = phx_mem_calloc((size_t)l->n_files, sizeof(*w.files));
    for (int32_t i = 0; i < l->n_files; i++)
        w.files[i].fd = -1;
    for (int32_t i = 0; i < l->n_files && rc == 0; i++)
        rc = make_file(dir, config, l, i, &w.files[i], err);
    if (rc == 0) {
        run_threads(&w, n_threads < THREADS_MAX ? n_threads : THREADS_MAX);
        rc = w.err.code;
        if (rc != 0)
            *err = w.err;
    }
    for (int32_t i = 0; i < l->n_files; i++)
        if (w.files[i].fd >= 0 && close(w.files[i].fd) != 0 && rc == 0)
            rc = phx_fail(err, PHX_E_IO, "close file %d of %s: %s", i, dir, strerror(errno));
    phx_mem_free(w.files);
    if (rc == 0 && l->n_files > 1)
        rc = write_index(dir, config, l, err);
    return rc;
}
