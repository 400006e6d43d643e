/* SPDX-License-Identifier: Apache-2.0
 * The safetensors format: u64 header size, JSON header, data.  Every number in the header is checked
 * against the file before anything points at it. */
#include "shard/load/header.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/utf8.h"

struct dtype_row {
    const char *name;
    int32_t     bits;
};

static const struct dtype_row dtypes[] = {
    [PHX_CKPT_NONE] = {"none", 0},
    [PHX_CKPT_BOOL] = {"BOOL", 8},
    [PHX_CKPT_F4] = {"F4", 4},
    [PHX_CKPT_F6_E2M3] = {"F6_E2M3", 6},
    [PHX_CKPT_F6_E3M2] = {"F6_E3M2", 6},
    [PHX_CKPT_U8] = {"U8", 8},
    [PHX_CKPT_I8] = {"I8", 8},
    [PHX_CKPT_F8_E5M2] = {"F8_E5M2", 8},
    [PHX_CKPT_F8_E4M3] = {"F8_E4M3", 8},
    [PHX_CKPT_F8_E8M0] = {"F8_E8M0", 8},
    [PHX_CKPT_F8_E4M3FNUZ] = {"F8_E4M3FNUZ", 8},
    [PHX_CKPT_F8_E5M2FNUZ] = {"F8_E5M2FNUZ", 8},
    [PHX_CKPT_I16] = {"I16", 16},
    [PHX_CKPT_U16] = {"U16", 16},
    [PHX_CKPT_F16] = {"F16", 16},
    [PHX_CKPT_BF16] = {"BF16", 16},
    [PHX_CKPT_I32] = {"I32", 32},
    [PHX_CKPT_U32] = {"U32", 32},
    [PHX_CKPT_F32] = {"F32", 32},
    [PHX_CKPT_C64] = {"C64", 64},
    [PHX_CKPT_F64] = {"F64", 64},
    [PHX_CKPT_I64] = {"I64", 64},
    [PHX_CKPT_U64] = {"U64", 64},
};

enum { N_DTYPES = sizeof(dtypes) / sizeof(dtypes[0]) };

const char *phx_ckpt_dtype_name(enum phx_ckpt_dtype dtype)
{
    return (unsigned)dtype < N_DTYPES ? dtypes[dtype].name : "unknown";
}

int32_t phx_ckpt_dtype_bits(enum phx_ckpt_dtype dtype)
{
    return (unsigned)dtype < N_DTYPES ? dtypes[dtype].bits : 0;
}

/* Entry being read: which of its three fields were seen. */
struct entry {
    struct phx_ckpt_tensor tensor;
    int64_t                begin, end;
    bool                   has_dtype, has_shape, has_offsets;
};

static int read_dtype(struct phx_st_reader *r, struct entry *e)
{
    int rc = phx_st_string(r);

    if (rc != 0)
        return rc;
    for (int i = 1; i < N_DTYPES; i++)
        if (strcmp(r->text, dtypes[i].name) == 0)
            e->tensor.dtype = (enum phx_ckpt_dtype)i;
    if (e->tensor.dtype == PHX_CKPT_NONE)
        return phx_fail(r->err, PHX_E_UNSUPPORTED, "%s: tensor %.100s has the unknown dtype \"%.20s\"",
                        r->file, e->tensor.name, r->text);
    return 0;
}

static int read_shape(struct phx_st_reader *r, struct entry *e)
{
    int rc = phx_st_expect(r, '[');

    if (rc != 0 || phx_st_accept(r, ']'))
        return rc;
    do {
        if (e->tensor.n_dims == PHX_CKPT_DIMS_MAX)
            return phx_fail(r->err, PHX_E_UNSUPPORTED, "%s: tensor %.100s has more than %d dimensions",
                            r->file, e->tensor.name, PHX_CKPT_DIMS_MAX);
        rc = phx_st_integer(r, &e->tensor.dim[e->tensor.n_dims++]);
    } while (rc == 0 && phx_st_accept(r, ','));
    return rc != 0 ? rc : phx_st_expect(r, ']');
}

static int read_offsets(struct phx_st_reader *r, struct entry *e)
{
    int rc = phx_st_expect(r, '[');

    if (rc == 0)
        rc = phx_st_integer(r, &e->begin);
    if (rc == 0)
        rc = phx_st_expect(r, ',');
    if (rc == 0)
        rc = phx_st_integer(r, &e->end);
    return rc != 0 ? rc : phx_st_expect(r, ']');
}

static int read_field(struct phx_st_reader *r, struct entry *e)
{
    bool *seen = NULL;
    int (*read)(struct phx_st_reader *, struct entry *) = NULL;
    int rc = phx_st_string(r);

    if (rc != 0)
        return rc;
    if (strcmp(r->text, "dtype") == 0) {
        seen = &e->has_dtype;
        read = read_dtype;
    } else if (strcmp(r->text, "shape") == 0) {
        seen = &e->has_shape;
        read = read_shape;
    } else if (strcmp(r->text, "data_offsets") == 0) {
        seen = &e->has_offsets;
        read = read_offsets;
    }
    if (seen != NULL && *seen)
        return phx_fail(r->err, PHX_E_FORMAT, "%s: tensor %.100s has its %s twice", r->file,
                        e->tensor.name, r->text);
    rc = phx_st_expect(r, ':');
    if (rc != 0)
        return rc;
    if (seen == NULL)
        return phx_st_skip_value(r); /* further keys mean nothing in this format */
    *seen = true;
    return read(r, e);
}

/* The tensor's bytes must be those of its shape, inside the data. */
static int check_entry(struct phx_st_reader *r, struct entry *e, uint64_t data_size)
{
    struct phx_ckpt_tensor *t = &e->tensor;
    uint64_t                n = 1, bits;

    if (!e->has_dtype || !e->has_shape || !e->has_offsets)
        return phx_fail(r->err, PHX_E_FORMAT, "%s: tensor %.100s has no %s", r->file, t->name,
                        !e->has_dtype ? "dtype" : !e->has_shape ? "shape" : "data_offsets");
    for (int32_t i = 0; i < t->n_dims; i++)
        if (__builtin_mul_overflow(n, (uint64_t)t->dim[i], &n))
            return phx_fail(r->err, PHX_E_FORMAT, "%s: tensor %.100s: its shape overflows", r->file,
                            t->name);
    if (__builtin_mul_overflow(n, (uint64_t)phx_ckpt_dtype_bits(t->dtype), &bits))
        return phx_fail(r->err, PHX_E_FORMAT, "%s: tensor %.100s: its size overflows", r->file,
                        t->name);
    if (bits % 8 != 0)
        return phx_fail(r->err, PHX_E_FORMAT, "%s: tensor %.100s does not fill whole bytes", r->file,
                        t->name);
    if (e->begin > e->end || (uint64_t)e->end > data_size)
        return phx_fail(r->err, PHX_E_FORMAT,
                        "%s: tensor %.100s: data_offsets %lld to %lld lie outside the %llu bytes of data",
                        r->file, t->name, (long long)e->begin, (long long)e->end,
                        (unsigned long long)data_size);
    t->size_bytes = (uint64_t)(e->end - e->begin);
    if (t->size_bytes != bits / 8)
        return phx_fail(r->err, PHX_E_FORMAT, "%s: tensor %.100s has %llu bytes, its shape needs %llu",
                        r->file, t->name, (unsigned long long)t->size_bytes,
                        (unsigned long long)(bits / 8));
    return 0;
}

static void append(struct phx_st_list *list, const struct phx_ckpt_tensor *t)
{
    if (list->n == list->capacity) {
        list->capacity = list->capacity > 0 ? 2 * list->capacity : 256;
        list->items = phx_mem_realloc(list->items, (size_t)list->capacity, sizeof(*list->items));
    }
    list->items[list->n++] = *t;
}

static int read_entry(struct phx_st_reader *r, int32_t file, const uint8_t *data, uint64_t data_size,
                      struct phx_st_list *list)
{
    struct entry e = {.tensor.name = phx_arena_strndup(r->arena, r->text, r->text_size),
                      .tensor.file = file};
    int          rc = phx_st_expect(r, ':');

    if (rc == 0)
        rc = phx_st_expect(r, '{');
    if (rc == 0 && !phx_st_accept(r, '}')) {
        do
            rc = read_field(r, &e);
        while (rc == 0 && phx_st_accept(r, ','));
        if (rc == 0)
            rc = phx_st_expect(r, '}');
    }
    if (rc == 0)
        rc = check_entry(r, &e, data_size);
    if (rc != 0)
        return rc;
    if (list->n == PHX_ST_TENSORS_MAX)
        return phx_fail(r->err, PHX_E_TOOBIG, "%s: more than %d tensors", r->file, PHX_ST_TENSORS_MAX);
    e.tensor.data = data + e.begin;
    append(list, &e.tensor);
    return 0;
}

/* {string: string}; nothing in it is needed. */
static int skip_metadata(struct phx_st_reader *r)
{
    int rc = phx_st_expect(r, ':');

    phx_st_skip_space(r);
    if (rc == 0 && (r->at == r->end || *r->at != '{'))
        return phx_st_bad(r, "__metadata__ must be an object");
    return rc != 0 ? rc : phx_st_skip_value(r);
}

static int read_header(struct phx_st_reader *r, int32_t file, const uint8_t *data, uint64_t data_size,
                       struct phx_st_list *list)
{
    bool has_metadata = false;
    int  rc;

    if (r->at == r->end || *r->at != '{')
        return phx_st_bad(r, "must start with '{'");
    r->at++;
    if (phx_st_accept(r, '}'))
        return 0;
    do {
        rc = phx_st_string(r);
        if (rc != 0)
            return rc;
        if (strcmp(r->text, "__metadata__") == 0) {
            if (has_metadata)
                return phx_st_bad(r, "a second __metadata__");
            has_metadata = true;
            rc = skip_metadata(r);
        } else {
            rc = read_entry(r, file, data, data_size, list);
        }
    } while (rc == 0 && phx_st_accept(r, ','));
    return rc != 0 ? rc : phx_st_expect(r, '}');
}

static int compare_place(const void *left, const void *right)
{
    const struct phx_ckpt_tensor *a = left, *b = right;

    if (a->data != b->data)
        return a->data < b->data ? -1 : 1;
    return a->size_bytes < b->size_bytes ? -1 : a->size_bytes > b->size_bytes;
}

/* In order of place each tensor must start where the last one ended, and the last at the file's end. */
static int check_places(struct phx_ckpt_tensor *items, int32_t n, const uint8_t *data,
                        const uint8_t *end, const char *file, struct phx_err *err)
{
    const uint8_t *at = data;

    if (n > 0)
        qsort(items, (size_t)n, sizeof(*items), compare_place);
    for (int32_t i = 0; i < n; i++) {
        if (items[i].data != at)
            return phx_fail(err, PHX_E_FORMAT, "%s: tensor %.80s %s at data byte %llu", file,
                            items[i].name,
                            items[i].data < at ? "overlaps the one before it"
                                               : "leaves a hole before it",
                            (unsigned long long)(items[i].data - data));
        at += items[i].size_bytes;
    }
    if (at != end)
        return phx_fail(err, PHX_E_FORMAT, "%s: %llu bytes at the end belong to no tensor", file,
                        (unsigned long long)(end - at));
    return 0;
}

int phx_st_parse(const uint8_t *base, uint64_t size, const char *name, int32_t file,
                 struct phx_arena *arena, struct phx_st_list *list, struct phx_err *err)
{
    char                 text[PHX_CKPT_NAME_MAX];
    struct phx_st_reader r = {.file = name, .text = text, .arena = arena, .err = err};
    uint64_t             header;
    int32_t              first = list->n;
    int                  rc;

    if (size < sizeof(header))
        return phx_fail(err, PHX_E_FORMAT, "%s: %llu bytes are no safetensors file", name,
                        (unsigned long long)size);
    memcpy(&header, base, sizeof(header));
    header = le64toh(header);
    if (header > PHX_ST_HEADER_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "%s: a header of %llu bytes (limit %d)", name,
                        (unsigned long long)header, PHX_ST_HEADER_MAX);
    if (header > size - sizeof(header))
        return phx_fail(err, PHX_E_FORMAT, "%s: truncated: a header of %llu bytes in a file of %llu",
                        name, (unsigned long long)header, (unsigned long long)size);
    r.start = r.at = (const char *)base + sizeof(header);
    r.end = r.start + header;
    if (!phx_utf8_is_valid(r.start, (size_t)header))
        return phx_fail(err, PHX_E_FORMAT, "%s: header is not valid UTF-8", name);
    base += sizeof(header) + header;
    size -= sizeof(header) + header;
    rc = read_header(&r, file, base, size, list);
    phx_st_skip_space(&r);
    if (rc == 0 && r.at != r.end)
        rc = phx_st_bad(&r, "something behind the closing '}'");
    if (rc == 0 && list->n > first)
        rc = check_places(list->items + first, list->n - first, base, base + size, name, err);
    else if (rc == 0 && size > 0)
        rc = phx_fail(err, PHX_E_FORMAT, "%s: data without tensors", name);
    return rc;
}
