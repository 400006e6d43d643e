/* SPDX-License-Identifier: Apache-2.0
 * Bytes to generated structs.  A first pass over the bytes finds what protobuf-c would let through
 * (NUL inside strings cuts them silently) or would pay for dearly (many tiny sub-messages), before
 * anything is allocated. */
#include <float.h>
#include <string.h>

#include "rpc/wire/convert.h"

enum { DEPTH_MAX = 8, FIELD_COST = 96, POINTER_COST = 16 };

struct scan {
    const uint8_t *p;
    const uint8_t *end;
};

static bool read_varint(struct scan *s, uint64_t *value)
{
    *value = 0;
    for (int shift = 0; shift < 64 && s->p < s->end; shift += 7) {
        uint8_t byte = *s->p++;

        *value |= (uint64_t)(byte & 0x7f) << shift;
        if ((byte & 0x80) == 0)
            return true;
    }
    return false;
}

static int scan_message(const ProtobufCMessageDescriptor *type, struct scan s, int depth,
                        size_t *cost, struct phx_err *err);

static int scan_bytes(const ProtobufCMessageDescriptor *type,
                      const ProtobufCFieldDescriptor *field, struct scan body, int depth,
                      size_t *cost, struct phx_err *err)
{
    size_t size = (size_t)(body.end - body.p);

    if (field == NULL || field->type == PROTOBUF_C_TYPE_BYTES) {
        *cost += size;
        return 0;
    }
    switch (field->type) {
    case PROTOBUF_C_TYPE_MESSAGE:
        return scan_message(field->descriptor, body, depth + 1, cost, err);
    case PROTOBUF_C_TYPE_STRING:
        *cost += size;
        if (size > 0 && memchr(body.p, '\0', size) != NULL)
            return phx_fail(err, PHX_E_INVALID, "%s.%s has a NUL byte inside", type->short_name,
                            field->name);
        return 0;
    default: /* a packed list: at worst one byte becomes one 8-byte number */
        if (field->label != PROTOBUF_C_LABEL_REPEATED)
            return phx_fail(err, PHX_E_FORMAT, "%s.%s has the wrong wire type", type->short_name,
                            field->name);
        *cost += size * 8;
        return 0;
    }
}

static int scan_field(const ProtobufCMessageDescriptor *type, struct scan *s, int depth,
                      size_t *cost, struct phx_err *err)
{
    const ProtobufCFieldDescriptor *field;
    struct scan                     body;
    uint64_t                        tag, value;

    if (!read_varint(s, &tag) || tag >> 3 == 0 || tag >> 3 > 0x1fffffff)
        return phx_fail(err, PHX_E_FORMAT, "%s: broken field tag", type->short_name);
    field = protobuf_c_message_descriptor_get_field(type, (unsigned)(tag >> 3));
    *cost += FIELD_COST;
    switch (tag & 7) {
    case 0:
        if (!read_varint(s, &value))
            return phx_fail(err, PHX_E_FORMAT, "%s: cut short", type->short_name);
        return 0;
    case 1:
    case 5:
        value = (tag & 7) == 1 ? 8 : 4;
        break;
    case 2:
        if (!read_varint(s, &value))
            return phx_fail(err, PHX_E_FORMAT, "%s: cut short", type->short_name);
        break;
    default:
        return phx_fail(err, PHX_E_FORMAT, "%s: unknown wire type %u", type->short_name,
                        (unsigned)(tag & 7));
    }
    if (value > (size_t)(s->end - s->p))
        return phx_fail(err, PHX_E_FORMAT, "%s: field %u is longer than the message",
                        type->short_name, (unsigned)(tag >> 3));
    body = (struct scan){s->p, s->p + value};
    s->p += value;
    return (tag & 7) == 2 ? scan_bytes(type, field, body, depth, cost, err) : 0;
}

static int scan_message(const ProtobufCMessageDescriptor *type, struct scan s, int depth,
                        size_t *cost, struct phx_err *err)
{
    int rc = 0;

    if (depth > DEPTH_MAX)
        return phx_fail(err, PHX_E_FORMAT, "%s: nested too deeply", type->short_name);
    *cost += type->sizeof_message + POINTER_COST;
    while (rc == 0 && s.p < s.end) {
        rc = scan_field(type, &s, depth, cost, err);
        if (rc == 0 && *cost > PHX_WIRE_MEMORY_MAX)
            rc = phx_fail(err, PHX_E_TOOBIG, "%s: decoded it would need over %d MiB",
                          type->short_name, PHX_WIRE_MEMORY_MAX >> 20);
    }
    return rc;
}

static void *arena_alloc(void *arena, size_t size)
{
    return phx_arena_calloc(arena, 1, size);
}

static void arena_free(void *arena, void *p)
{
    (void)arena; /* all goes at once with the arena */
    (void)p;
}

void *phx_wire_unpack(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size,
                      struct phx_arena *arena, struct phx_err *err)
{
    ProtobufCAllocator allocator = {arena_alloc, arena_free, arena};
    ProtobufCMessage  *message;
    size_t             cost = 0;

    if (size > PHX_RPC_MESSAGE_MAX_BYTES) {
        (void)phx_fail(err, PHX_E_TOOBIG, "%s has %zu bytes (limit %d)", type->short_name, size,
                       PHX_RPC_MESSAGE_MAX_BYTES);
        return NULL;
    }
    if (scan_message(type, (struct scan){data, data + size}, 0, &cost, err) != 0)
        return NULL;
    message = protobuf_c_message_unpack(type, &allocator, size, data);
    if (message == NULL) {
        (void)phx_fail(err, PHX_E_FORMAT, "%s: not a valid message", type->short_name);
        return NULL;
    }
    return phx_wire_check(message, err) == 0 ? message : NULL;
}

int phx_wire_finish(const ProtobufCMessage *message, struct phx_wire_out *out, struct phx_err *err)
{
    int rc = phx_wire_check(message, err);

    if (rc != 0)
        return rc;
    out->message = message;
    out->size = protobuf_c_message_get_packed_size(message);
    if (out->size > PHX_RPC_MESSAGE_MAX_BYTES)
        return phx_fail(err, PHX_E_TOOBIG, "%s has %zu bytes (limit %d)",
                        message->descriptor->short_name, out->size, PHX_RPC_MESSAGE_MAX_BYTES);
    return 0;
}

void phx_wire_pack(const struct phx_wire_out *out, uint8_t *data)
{
    size_t n = protobuf_c_message_pack(out->message, data);

    phx_assert(n == out->size);
}

char *phx_wire_str(const char *s)
{
    return (char *)(s != NULL ? s : "");
}

int phx_wire_range(const char *field, int64_t value, int64_t min, int64_t max, struct phx_err *err)
{
    if (value >= min && value <= max)
        return 0;
    return phx_fail(err, PHX_E_INVALID, "%s is %lld (allowed %lld to %lld)", field,
                    (long long)value, (long long)min, (long long)max);
}

int phx_wire_gap(float gap, struct phx_err *err)
{
    if (gap >= 0.0f && gap <= FLT_MAX)
        return 0;
    return phx_fail(err, PHX_E_INVALID, "TokenOut.gap is %g (must be finite, 0 or more)", (double)gap);
}
