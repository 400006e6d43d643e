/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/wire/map.h"

#include <string.h>

struct place { /* one field, on both sides */
    const struct phx_map            *map;
    const struct phx_map_row        *row;
    const ProtobufCFieldDescriptor  *field;
};

static struct place find_place(const struct phx_map *map, const struct phx_map_row *row)
{
    struct place p = {map, row, protobuf_c_message_descriptor_get_field(map->type, row->id)};

    phx_assert(p.field != NULL); /* a table without its field: a mistake of ours */
    return p;
}

static bool is_oneof(const struct place *p)
{
    return (p->field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) != 0;
}

static int check_range(const struct place *p, int64_t value, struct phx_err *err)
{
    if (value >= p->row->min && value <= p->row->max)
        return 0;
    return phx_fail(err, PHX_E_INVALID, "%s.%s is %lld (allowed %lld to %lld)",
                    p->map->type->short_name, p->field->name, (long long)value,
                    (long long)p->row->min, (long long)p->row->max);
}

static int check_size(const struct place *p, size_t size, struct phx_err *err)
{
    bool is_item = p->row->kind == PHX_MAP_DIGESTS;

    if ((p->row->rules & PHX_MAP_NEEDED) != 0 && size == 0)
        return phx_fail(err, PHX_E_INVALID, "%s.%s is missing", p->map->type->short_name,
                        p->field->name);
    if ((is_item || ((p->row->rules & PHX_MAP_DIGEST) != 0 && size > 0)) &&
        size != PHX_RPC_DIGEST_BYTES)
        return phx_fail(err, PHX_E_INVALID, "%s.%s has %zu bytes (a digest has %d)",
                        p->map->type->short_name, p->field->name, size, PHX_RPC_DIGEST_BYTES);
    return 0;
}

/* Without a choice there is no question. */
static int check_one(const struct phx_map *map, uint32_t chosen, struct phx_err *err)
{
    for (size_t i = 0; i < map->n_rows; i++) {
        struct place p = find_place(map, &map->rows[i]);

        if (is_oneof(&p) && map->rows[i].id == chosen)
            return 0;
    }
    return phx_fail(err, PHX_E_INVALID, "%s does not say which one is asked for",
                    map->type->short_name);
}

/* ---- encoding ---------------------------------------------------------------------------------- */

static int fill(const struct phx_map *map, const char *plain, struct phx_arena *arena,
                ProtobufCMessage **out, struct phx_err *err);

static int fill_bytes(const struct place *p, const struct phx_rpc_bytes *in,
                      ProtobufCBinaryData *out, struct phx_err *err)
{
    out->len = in->size;
    out->data = (uint8_t *)in->data; /* packing only reads it */
    return check_size(p, in->size, err);
}

static int fill_item(const struct place *p, const char *items, size_t i, struct phx_arena *arena,
                     void *out, struct phx_err *err)
{
    switch (p->row->kind) {
    case PHX_MAP_STRINGS:
        ((char **)out)[i] = phx_wire_str(((const char *const *)(const void *)items)[i]);
        return 0;
    case PHX_MAP_DIGESTS:
        return fill_bytes(p, &((const struct phx_rpc_bytes *)(const void *)items)[i],
                          &((ProtobufCBinaryData *)out)[i], err);
    default:
        return fill(p->row->sub, items + i * p->row->sub->size, arena,
                    &((ProtobufCMessage **)out)[i], err);
    }
}

static int fill_list(const struct place *p, const char *plain, struct phx_arena *arena,
                     char *message, struct phx_err *err)
{
    int64_t     count = *(const int32_t *)(const void *)(plain + p->row->n_at);
    size_t      max = phx_wire_limit(p->map->type, p->field), item = sizeof(void *), n;
    const char *items = *(const char *const *)(const void *)(plain + p->row->at);
    void       *out;
    int         rc = 0;

    if (count < 0 || (size_t)count > max)
        return phx_fail(err, PHX_E_TOOBIG, "%s.%s has %lld items (limit %zu)",
                        p->map->type->short_name, p->field->name, (long long)count, max);
    if (p->row->kind == PHX_MAP_DIGESTS)
        item = sizeof(ProtobufCBinaryData);
    n = (size_t)count;
    out = phx_arena_calloc(arena, n, item);
    for (size_t i = 0; rc == 0 && i < n; i++)
        rc = fill_item(p, items, i, arena, out, err);
    *(size_t *)(void *)(message + p->field->quantifier_offset) = n;
    *(void **)(void *)(message + p->field->offset) = out;
    return rc;
}

static int fill_message(const struct place *p, const char *plain, struct phx_arena *arena,
                        char *message, struct phx_err *err)
{
    if (p->row->n_at != 0 && !*(const bool *)(plain + p->row->n_at))
        return check_size(p, 0, err);
    return fill(p->row->sub, plain + p->row->at, arena,
                (ProtobufCMessage **)(void *)(message + p->field->offset), err);
}

static int fill_field(const struct place *p, const char *plain, struct phx_arena *arena,
                      char *message, struct phx_err *err)
{
    const void *in = plain + p->row->at;
    void       *out = message + p->field->offset;

    switch (p->row->kind) {
    case PHX_MAP_STRING:
        *(char **)out = phx_wire_str(*(const char *const *)in);
        return check_size(p, strlen(*(char **)out), err);
    case PHX_MAP_I64:
        *(int64_t *)out = *(const int64_t *)in;
        return check_range(p, *(const int64_t *)in, err);
    case PHX_MAP_U64:
        *(uint64_t *)out = *(const uint64_t *)in;
        return 0;
    case PHX_MAP_I32:
    case PHX_MAP_ENUM:
        *(int32_t *)out = *(const int32_t *)in;
        return check_range(p, *(const int32_t *)in, err);
    case PHX_MAP_BOOL:
        *(protobuf_c_boolean *)out = *(const bool *)in;
        return 0;
    case PHX_MAP_BYTES:
        return fill_bytes(p, in, out, err);
    case PHX_MAP_MESSAGE:
        return fill_message(p, plain, arena, message, err);
    default:
        return fill_list(p, plain, arena, message, err);
    }
}

static int fill(const struct phx_map *map, const char *plain, struct phx_arena *arena,
                ProtobufCMessage **out, struct phx_err *err)
{
    char    *message = phx_arena_calloc(arena, 1, map->type->sizeof_message);
    uint32_t chosen = map->is_one ? *(const uint32_t *)(const void *)(plain + map->one_at) : 0;
    int      rc = map->is_one ? check_one(map, chosen, err) : 0;

    map->type->message_init((ProtobufCMessage *)(void *)message);
    *out = (ProtobufCMessage *)(void *)message;
    for (size_t i = 0; rc == 0 && i < map->n_rows; i++) {
        struct place p = find_place(map, &map->rows[i]);

        if (is_oneof(&p) && p.row->id != chosen)
            continue;
        if (is_oneof(&p))
            *(uint32_t *)(void *)(message + p.field->quantifier_offset) = chosen;
        rc = fill_field(&p, plain, arena, message, err);
    }
    if (rc == 0 && map->check != NULL)
        rc = map->check(plain, err);
    return rc;
}

int phx_map_encode(const struct phx_map *map, const void *plain, struct phx_arena *arena,
                   struct phx_wire_out *out, struct phx_err *err)
{
    ProtobufCMessage *message;
    int               rc = fill(map, plain, arena, &message, err);

    return rc != 0 ? rc : phx_wire_finish(message, out, err);
}

/* ---- decoding ---------------------------------------------------------------------------------- */

static int take(const struct phx_map *map, const char *message, struct phx_arena *arena, char *plain,
                struct phx_err *err);

static int take_bytes(const struct place *p, const ProtobufCBinaryData *in,
                      struct phx_rpc_bytes *out, struct phx_err *err)
{
    *out = (struct phx_rpc_bytes){in->data, in->len};
    return check_size(p, in->len, err);
}

/* What phx_wire_check() let through is within the limit of the list. */
static int take_list(const struct place *p, const char *message, struct phx_arena *arena, char *plain,
                     struct phx_err *err)
{
    size_t            n = *(const size_t *)(const void *)(message + p->field->quantifier_offset);
    const void *const in = *(const void *const *)(const void *)(message + p->field->offset);
    char             *items = NULL;
    int               rc = 0;

    *(int32_t *)(void *)(plain + p->row->n_at) = (int32_t)n;
    if (p->row->kind == PHX_MAP_STRINGS) {
        *(const void **)(void *)(plain + p->row->at) = in;
        return 0;
    }
    if (p->row->kind == PHX_MAP_DIGESTS) {
        struct phx_rpc_bytes *out = phx_arena_calloc(arena, n, sizeof(*out));

        for (size_t i = 0; rc == 0 && i < n; i++)
            rc = take_bytes(p, &((const ProtobufCBinaryData *)in)[i], &out[i], err);
        items = (char *)out;
    } else {
        items = phx_arena_calloc(arena, n, p->row->sub->size);
        for (size_t i = 0; rc == 0 && i < n; i++)
            rc = take(p->row->sub, ((const char *const *)in)[i], arena,
                      items + i * p->row->sub->size, err);
    }
    *(const void **)(void *)(plain + p->row->at) = items;
    return rc;
}

static int take_message(const struct place *p, const char *message, struct phx_arena *arena,
                        char *plain, struct phx_err *err)
{
    const char *in = *(const char *const *)(const void *)(message + p->field->offset);
    char       *empty;

    if (p->row->n_at != 0)
        *(bool *)(plain + p->row->n_at) = in != NULL;
    if (in != NULL)
        return take(p->row->sub, in, arena, plain + p->row->at, err);
    if ((p->row->rules & PHX_MAP_NEEDED) != 0)
        return check_size(p, 0, err);
    empty = phx_arena_calloc(arena, 1, p->row->sub->type->sizeof_message);
    p->row->sub->type->message_init((ProtobufCMessage *)(void *)empty);
    return take(p->row->sub, empty, arena, plain + p->row->at, err);
}

static int take_field(const struct place *p, const char *message, struct phx_arena *arena, char *plain,
                      struct phx_err *err)
{
    const void *in = message + p->field->offset;
    void       *out = plain + p->row->at;

    switch (p->row->kind) {
    case PHX_MAP_STRING:
        *(const char **)out = *(const char *const *)in;
        return check_size(p, strlen(*(const char *const *)in), err);
    case PHX_MAP_I64:
        *(int64_t *)out = *(const int64_t *)in;
        return check_range(p, *(const int64_t *)in, err);
    case PHX_MAP_U64:
        *(uint64_t *)out = *(const uint64_t *)in;
        return 0;
    case PHX_MAP_I32:
    case PHX_MAP_ENUM:
        *(int32_t *)out = *(const int32_t *)in;
        return check_range(p, *(const int32_t *)in, err);
    case PHX_MAP_BOOL:
        *(bool *)out = *(const protobuf_c_boolean *)in != 0;
        return 0;
    case PHX_MAP_BYTES:
        return take_bytes(p, in, out, err);
    case PHX_MAP_MESSAGE:
        return take_message(p, message, arena, plain, err);
    default:
        return take_list(p, message, arena, plain, err);
    }
}

static int take(const struct phx_map *map, const char *message, struct phx_arena *arena, char *plain,
                struct phx_err *err)
{
    int rc = 0;

    for (size_t i = 0; rc == 0 && i < map->n_rows; i++) {
        struct place p = find_place(map, &map->rows[i]);

        if (is_oneof(&p)) {
            uint32_t chosen = *(const uint32_t *)(const void *)(message + p.field->quantifier_offset);

            *(uint32_t *)(void *)(plain + map->one_at) = chosen;
            if (chosen != p.row->id && p.row->kind == PHX_MAP_STRING)
                *(const char **)(void *)(plain + p.row->at) = "";
            if (chosen != p.row->id)
                continue;
        }
        rc = take_field(&p, message, arena, plain, err);
    }
    if (rc == 0 && map->is_one)
        rc = check_one(map, *(const uint32_t *)(const void *)(plain + map->one_at), err);
    if (rc == 0 && map->check != NULL)
        rc = map->check(plain, err);
    return rc;
}

int phx_map_decode(const struct phx_map *map, const uint8_t *data, size_t size,
                   struct phx_arena *arena, void *plain, struct phx_err *err)
{
    const void *message = phx_wire_unpack(map->type, data, size, arena, err);

    memset(plain, 0, map->size);
    return message == NULL ? err->code : take(map, message, arena, plain, err);
}

int phx_map_span(const char *what, uint64_t from, uint64_t to, struct phx_err *err)
{
    if (to == 0 || from <= to)
        return 0;
    return phx_fail(err, PHX_E_INVALID, "%s: the end lies before the beginning", what);
}
