/* SPDX-License-Identifier: Apache-2.0
 * A safetensors file with its dense matrices as int8, beside their scales; everything else byte for byte. */
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/buf.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/tool/quantize.h"

enum { CHUNK_BYTES = 16 << 20 };

enum kind { COPY = 1, VALUES, SCALES };

/* A tensor of the new file. */
struct item {
    const struct phx_ckpt_tensor *source;
    enum kind                     kind;
    struct phx_weight_desc        desc; /* of a matrix */
    int32_t                       width; /* bytes of an element */
    uint64_t                      begin, size_bytes;
};

struct file {
    struct phx_quantize *q;
    const char          *name;
    struct item         *items;
    int32_t              n;
    int                  fd;
    uint64_t             data_begin;
};

/* A tied head that the file has once more is the embedding: the inventory has no place for a copy of it. */
static bool is_left_out(const struct phx_quantize *q, const struct phx_ckpt_tensor *t)
{
    return q->config->is_tied && strcmp(t->name, "lm_head.weight") == 0;
}

static int check_tied_head(const struct phx_quantize *q, struct phx_err *err)
{
    const struct phx_ckpt_tensor *head = phx_checkpoint_find(q->checkpoint, "lm_head.weight");
    const struct phx_ckpt_tensor *table = phx_checkpoint_find(q->checkpoint, "model.embed_tokens.weight");

    if (head == NULL || !q->config->is_tied)
        return 0;
    if (head->dtype == table->dtype && head->size_bytes == table->size_bytes &&
        memcmp(head->data, table->data, (size_t)head->size_bytes) == 0)
        return 0;
    return phx_fail(err, PHX_E_UNSUPPORTED, "tensor lm_head.weight differs from model.embed_tokens.weight although "
                    "config.json says tie_word_embeddings");
}

static void add_item(struct file *f, const struct phx_ckpt_tensor *t, enum kind kind,
                     const struct phx_weight_desc *desc)
{
    struct item *i = &f->items[f->n++];
    int32_t      bits = phx_ckpt_dtype_bits(t->dtype);

    *i = (struct item){.source = t, .kind = kind, .desc = *desc};
    i->width = kind == VALUES ? 1 : kind == SCALES ? (int32_t)sizeof(float) : bits >= 8 ? bits / 8 : 1;
    i->size_bytes = kind == COPY     ? t->size_bytes
                    : kind == VALUES ? (uint64_t)desc->n * (uint64_t)desc->k
                                     : (uint64_t)desc->n * (uint64_t)phx_i8_groups(desc) * sizeof(float);
}

/* Wide elements first, so that all of them are aligned. */
static int by_width(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int                by_name = strcmp(x->source->name, y->source->name);

    if (x->width != y->width)
        return x->width > y->width ? -1 : 1;
    return by_name != 0 ? by_name : (int)x->kind - (int)y->kind;
}

static void list_items(struct file *f, int32_t index)
{
    const struct phx_checkpoint *k = f->q->checkpoint;
    int32_t                      n = phx_checkpoint_count(k);
    uint64_t                     at = 0;

    f->items = phx_mem_calloc(2 * (size_t)n + 1, sizeof(*f->items));
    for (int32_t i = 0; i < n; i++) {
        const struct phx_ckpt_tensor *t = phx_checkpoint_at(k, i);
        struct phx_weight_desc        desc = {0};

        if (t->file != index || is_left_out(f->q, t))
            continue;
        if (phx_inventory_quantised(f->q->config, t->name, &desc)) {
            add_item(f, t, VALUES, &desc);
            add_item(f, t, SCALES, &desc);
        } else
            add_item(f, t, COPY, &desc);
    }
    qsort(f->items, (size_t)f->n, sizeof(*f->items), by_width);
    for (int32_t i = 0; i < f->n; at += f->items[i++].size_bytes)
        f->items[i].begin = at;
}

static void put_name(struct phx_buf *b, const struct item *i)
{
    char *name = phx_mem_printf("%s%s", i->source->name, i->kind == SCALES ? "_scales" : "");

    phx_json_put_str(b, name, strlen(name));
    phx_mem_free(name);
}

static void put_shape(struct phx_buf *b, const struct item *i)
{
    const struct phx_ckpt_tensor *t = i->source;

    if (i->kind == SCALES) {
        phx_buf_printf(b, "%d,%d", i->desc.n, phx_i8_groups(&i->desc));
        return;
    }
    for (int32_t d = 0; d < t->n_dims; d++)
        phx_buf_printf(b, "%s%lld", d > 0 ? "," : "", (long long)t->dim[d]);
}

/* u64 size, header, padded with spaces to a multiple of 8. */
static void make_header(const struct file *f, struct phx_buf *b)
{
    uint64_t size = 0;

    phx_buf_put(b, &size, sizeof(size));
    phx_buf_puts(b, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (int32_t j = 0; j < f->n; j++) {
        const struct item *i = &f->items[j];

        phx_buf_putc(b, ',');
        put_name(b, i);
        phx_buf_printf(b, ":{\"dtype\":\"%s\",\"shape\":[",
                       i->kind == VALUES   ? "I8"
                       : i->kind == SCALES ? "F32"
                                           : phx_ckpt_dtype_name(i->source->dtype));
        put_shape(b, i);
        phx_buf_printf(b, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)i->begin,
                       (unsigned long long)(i->begin + i->size_bytes));
    }
    phx_buf_putc(b, '}');
    while (b->size % 8 != 0)
        phx_buf_putc(b, ' ');
    size = b->size - sizeof(size);
    memcpy(b->data, &size, sizeof(size));
}

static int write_piece(struct file *f, const struct item *i, uint64_t offset, const void *data, size_t size,
                       struct phx_err *err)
{
    if (phx_tool_write_at(f->fd, data, size, f->data_begin + i->begin + offset) != 0)
        return phx_fail(err, PHX_E_IO, "write %s/%s: %s", f->q->to, f->name, strerror(errno));
    f->q->written_bytes += size;
    return 0;
}

static void advance(struct file *f, const struct phx_ckpt_tensor *t, uint64_t offset, uint64_t size)
{
    phx_checkpoint_drop(t, offset, size);
    f->q->done_bytes += size;
    phx_tool_progress_show(&f->q->progress, f->q->done_bytes, phx_checkpoint_bytes(f->q->checkpoint));
}

static int copy_tensor(struct file *f, const struct item *i, struct phx_err *err)
{
    const struct phx_ckpt_tensor *t = i->source;
    int                           rc = 0;

    for (uint64_t at = 0; at < t->size_bytes && rc == 0; at += CHUNK_BYTES) {
        size_t size = t->size_bytes - at < CHUNK_BYTES ? (size_t)(t->size_bytes - at) : CHUNK_BYTES;

        rc = write_piece(f, i, at, t->data + at, size, err);
        advance(f, t, at, size);
    }
    return rc;
}

/* A NaN or an infinity among the values becomes a scale that loading refuses. */
static int check_scales(const struct phx_ckpt_tensor *t, const float *scales, size_t n, struct phx_err *err)
{
    for (size_t i = 0; i < n; i++)
        if (!(scales[i] >= 0))
            return phx_fail(err, PHX_E_UNSUPPORTED, "tensor %s holds a NaN or an infinity: it cannot be quantised",
                            t->name);
    return 0;
}

/* Both parts of a matrix, some rows at a time. */
static int quantise_matrix(struct file *f, const struct item *values, const struct item *scales, struct phx_err *err)
{
    const struct phx_ckpt_tensor *t = values->source;
    size_t  k = (size_t)values->desc.k, groups = (size_t)phx_i8_groups(&values->desc);
    size_t  width = (size_t)phx_ckpt_dtype_bits(t->dtype) / 8, row_bytes = k * width;
    int32_t step = (int32_t)(CHUNK_BYTES / row_bytes) + 1, rc = 0;
    int8_t *q = phx_mem_calloc((size_t)step, k);
    float  *s = phx_mem_calloc((size_t)step * groups, sizeof(*s));

    for (int32_t row = 0; row < values->desc.n && rc == 0; row += step) {
        int32_t                  n = values->desc.n - row < step ? values->desc.n - row : step;
        size_t                   n_scales = (size_t)n * groups;
        struct phx_weight_source source = {.data = t->data + (size_t)row * row_bytes,
                                           .dtype = t->dtype == PHX_CKPT_F32    ? PHX_DTYPE_F32
                                                    : t->dtype == PHX_CKPT_BF16 ? PHX_DTYPE_BF16
                                                                                : PHX_DTYPE_F16,
                                           .row_stride = (int64_t)row_bytes, .k_stride = (int64_t)width,
                                           .n_rows = n};

        phx_i8_quantise(&values->desc, &source, q, s);
        rc = check_scales(t, s, n_scales, err);
        if (rc == 0)
            rc = write_piece(f, values, (size_t)row * k, q, (size_t)n * k, err);
        if (rc == 0)
            rc = write_piece(f, scales, (size_t)row * groups * sizeof(*s), s, n_scales * sizeof(*s), err);
        advance(f, t, (size_t)row * row_bytes, (size_t)n * row_bytes);
    }
    f->q->n_matrices++;
    phx_mem_free(q);
    phx_mem_free(s);
    return rc;
}

static const struct item *find_scales(const struct file *f, const struct item *values)
{
    for (int32_t j = 0; j < f->n; j++)
        if (f->items[j].kind == SCALES && f->items[j].source == values->source)
            return &f->items[j];
    phx_assert(false); /* they are listed together */
    return NULL;
}

static int write_file(struct file *f, struct phx_err *err)
{
    struct phx_buf header;
    char          *path = phx_mem_printf("%s/%s", f->q->to, f->name);
    int            rc = 0;

    phx_buf_init(&header, 0);
    make_header(f, &header);
    f->data_begin = header.size;
    f->fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
    if (f->fd < 0)
        rc = phx_fail(err, PHX_E_IO, "create %s: %s", path, strerror(errno));
    else if (phx_tool_write_at(f->fd, header.data, header.size, 0) != 0)
        rc = phx_fail(err, PHX_E_IO, "write %s: %s", path, strerror(errno));
    f->q->written_bytes += header.size;
    for (int32_t j = 0; j < f->n && rc == 0; j++)
        if (f->items[j].kind == COPY)
            rc = copy_tensor(f, &f->items[j], err);
        else if (f->items[j].kind == VALUES)
            rc = quantise_matrix(f, &f->items[j], find_scales(f, &f->items[j]), err);
    if (f->fd >= 0 && close(f->fd) != 0 && rc == 0)
        rc = phx_fail(err, PHX_E_IO, "close %s: %s", path, strerror(errno));
    phx_buf_fini(&header);
    phx_mem_free(path);
    return rc;
}

static int write_index(const struct phx_quantize *q, const struct file *files, int32_t n_files, struct phx_err *err)
{
    struct phx_buf b;
    uint64_t       total = 0;
    const char    *comma = "";
    char          *path = phx_mem_printf("%s/model.safetensors.index.json", q->to);
    int            rc;

    for (int32_t i = 0; i < n_files; i++)
        for (int32_t j = 0; j < files[i].n; j++)
            total += files[i].items[j].size_bytes;
    phx_buf_init(&b, 0);
    phx_buf_printf(&b, "{\n  \"metadata\": {\n    \"total_size\": %llu\n  },\n  \"weight_map\": {",
                   (unsigned long long)total);
    for (int32_t i = 0; i < n_files; i++)
        for (int32_t j = 0; j < files[i].n; j++, comma = ",") {
            phx_buf_printf(&b, "%s\n    ", comma);
            put_name(&b, &files[i].items[j]);
            phx_buf_puts(&b, ": ");
            phx_json_put_str(&b, files[i].name, strlen(files[i].name));
        }
    phx_buf_puts(&b, "\n  }\n}\n");
    rc = phx_file_write(path, b.data, b.size, 0644, err);
    phx_buf_fini(&b);
    phx_mem_free(path);
    return rc;
}

int phx_quantize_files(struct phx_quantize *q, struct phx_err *err)
{
    int32_t      n = phx_checkpoint_files(q->checkpoint);
    struct file *files = phx_mem_calloc((size_t)n, sizeof(*files));
    int          rc = check_tied_head(q, err);

    for (int32_t i = 0; i < n && rc == 0; i++) {
        files[i] = (struct file){.q = q, .name = phx_checkpoint_file(q->checkpoint, i)};
        list_items(&files[i], i);
        rc = write_file(&files[i], err);
    }
    if (rc == 0 && (n > 1 || strcmp(files[0].name, "model.safetensors") != 0))
        rc = write_index(q, files, n, err);
    for (int32_t i = 0; i < n; i++)
        phx_mem_free(files[i].items);
    phx_mem_free(files);
    return rc;
}
