/* SPDX-License-Identifier: Apache-2.0
 * Server reflection, v1 and v1alpha (their messages have the same bytes).  The embedded descriptor set
 * is a list of FileDescriptorProto; a file is found by its name (field 1) or by a symbol it declares:
 * package (2), messages (4), enums (5), services (6) with methods (2), nested types of messages (3, 4). */
#include <string.h>

#include "grpc/reflection/v1/reflection.pb-c.h"
#include "rpc/wire/convert.h"
#include "rpc/wire/descriptor_set.h"

enum { STATUS_INVALID = 3, STATUS_NOT_FOUND = 5, STATUS_UNIMPLEMENTED = 12, FILES_MAX = 64 };

struct span {
    const uint8_t *p;
    size_t         size;
};

/* The next length-delimited or varint field; false at the end.  The set is our own: trusted. */
static bool next_field(struct span *in, unsigned *number, struct span *value)
{
    uint64_t v[2] = {0, 0};

    if (in->size == 0)
        return false;
    for (int i = 0; i < 2; i++) { /* tag, then length or number */
        int shift = 0;

        do {
            v[i] |= (uint64_t)(*in->p & 0x7f) << shift;
            shift += 7;
            in->size--;
        } while ((*in->p++ & 0x80) != 0);
    }
    *number = (unsigned)(v[0] >> 3);
    *value = (struct span){in->p, 0};
    if ((v[0] & 7) == 2) {
        value->size = (size_t)v[1];
        in->p += v[1];
        in->size -= v[1];
    }
    return true;
}

static bool find_field(struct span in, unsigned number, struct span *value)
{
    unsigned found;

    while (next_field(&in, &found, value))
        if (found == number)
            return true;
    return false;
}

static bool equals(struct span a, const char *s, size_t size)
{
    return a.size == size && memcmp(a.p, s, size) == 0;
}

/* Does the declaration `d` (name in field 1) or something inside it declare `symbol`? */
static bool declares(struct span d, const char *symbol, size_t size, bool is_service)
{
    struct span name, inner;
    unsigned    number;

    if (!find_field(d, 1, &name) || size < name.size || memcmp(symbol, name.p, name.size) != 0)
        return false;
    if (size == name.size)
        return true;
    if (symbol[name.size] != '.')
        return false;
    symbol += name.size + 1;
    size -= name.size + 1;
    while (next_field(&d, &number, &inner)) {
        if (is_service && number == 2 && find_field(inner, 1, &name) && equals(name, symbol, size))
            return true;
        if (!is_service && (number == 3 || number == 4) && declares(inner, symbol, size, false))
            return true;
    }
    return false;
}

static bool file_declares(struct span file, const char *symbol)
{
    struct span package = {NULL, 0}, inner;
    size_t      size = strlen(symbol);
    unsigned    number;

    if (!find_field(file, 2, &package) || size <= package.size + 1 ||
        memcmp(symbol, package.p, package.size) != 0 || symbol[package.size] != '.')
        return false;
    symbol += package.size + 1;
    size -= package.size + 1;
    while (next_field(&file, &number, &inner))
        if (number >= 4 && number <= 6 && declares(inner, symbol, size, number == 6))
            return true;
    return false;
}

static bool find_file(const char *name, const char *symbol, struct span *file)
{
    struct span set = {phx_descriptor_set, phx_descriptor_set_size}, own;
    unsigned    number;

    while (next_field(&set, &number, file)) {
        if (name != NULL && find_field(*file, 1, &own) && equals(own, name, strlen(name)))
            return true;
        if (symbol != NULL && file_declares(*file, symbol))
            return true;
    }
    return false;
}

static bool is_listed(const struct span *files, size_t n, struct span file)
{
    for (size_t i = 0; i < n; i++)
        if (files[i].p == file.p)
            return true;
    return false;
}

/* The file and all it imports, each once: clients need the whole closure. */
static Grpc__Reflection__V1__FileDescriptorResponse *make_files(struct span first,
                                                                struct phx_arena *arena)
{
    Grpc__Reflection__V1__FileDescriptorResponse *m = phx_arena_calloc(arena, 1, sizeof(*m));
    struct span files[FILES_MAX] = {first};
    size_t      n = 1;

    for (size_t i = 0; i < n; i++) {
        struct span in = files[i], value, file;
        unsigned    number;

        while (next_field(&in, &number, &value)) {
            char name[PHX_RPC_NAME_MAX];

            if (number != 3 || value.size >= sizeof(name)) /* 3 = dependency */
                continue;
            memcpy(name, value.p, value.size);
            name[value.size] = '\0';
            if (find_file(name, NULL, &file) && !is_listed(files, n, file) && n < FILES_MAX)
                files[n++] = file;
        }
    }
    grpc__reflection__v1__file_descriptor_response__init(m);
    m->n_file_descriptor_proto = n;
    m->file_descriptor_proto = phx_arena_calloc(arena, n, sizeof(*m->file_descriptor_proto));
    for (size_t i = 0; i < n; i++) {
        m->file_descriptor_proto[i].data = (uint8_t *)files[i].p; /* packing only reads */
        m->file_descriptor_proto[i].len = files[i].size;
    }
    return m;
}

static Grpc__Reflection__V1__ListServiceResponse *make_list(const char *const *services,
                                                            struct phx_arena *arena)
{
    Grpc__Reflection__V1__ListServiceResponse *m = phx_arena_calloc(arena, 1, sizeof(*m));
    size_t                                     n = 0;

    while (services[n] != NULL)
        n++;
    grpc__reflection__v1__list_service_response__init(m);
    m->n_service = n;
    m->service = phx_arena_calloc(arena, n, sizeof(*m->service));
    for (size_t i = 0; i < n; i++) {
        m->service[i] = phx_arena_calloc(arena, 1, sizeof(**m->service));
        grpc__reflection__v1__service_response__init(m->service[i]);
        m->service[i]->name = phx_wire_str(services[i]);
    }
    return m;
}

static void set_error(Grpc__Reflection__V1__ServerReflectionResponse *out, int code,
                      const char *text, struct phx_arena *arena)
{
    out->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_ERROR_RESPONSE;
    out->error_response = phx_arena_calloc(arena, 1, sizeof(*out->error_response));
    grpc__reflection__v1__error_response__init(out->error_response);
    out->error_response->error_code = code;
    out->error_response->error_message = phx_wire_str(text);
}

static void answer_file(const char *name, const char *symbol, struct phx_arena *arena,
                        Grpc__Reflection__V1__ServerReflectionResponse *out)
{
    struct span file;

    if (!find_file(name, symbol, &file)) {
        set_error(out, STATUS_NOT_FOUND, "no such file or symbol", arena);
        return;
    }
    out->message_response_case =
        GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_FILE_DESCRIPTOR_RESPONSE;
    out->file_descriptor_response = make_files(file, arena);
}

int phx_wire_answer_reflection(const uint8_t *data, size_t size, const char *const *services,
                               struct phx_arena *arena, struct phx_wire_out *out,
                               struct phx_err *err)
{
    struct phx_err                                  local = {0};
    Grpc__Reflection__V1__ServerReflectionResponse *m = phx_arena_calloc(arena, 1, sizeof(*m));
    Grpc__Reflection__V1__ServerReflectionRequest  *in = phx_wire_unpack(
        &grpc__reflection__v1__server_reflection_request__descriptor, data, size, arena, &local);

    if (in == NULL)
        return phx_fail(err, local.code, "%s", local.text);
    grpc__reflection__v1__server_reflection_response__init(m);
    m->valid_host = in->host;
    m->original_request = in;
    switch (in->message_request_case) {
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_LIST_SERVICES:
        m->message_response_case =
            GRPC__REFLECTION__V1__SERVER_REFLECTION_RESPONSE__MESSAGE_RESPONSE_LIST_SERVICES_RESPONSE;
        m->list_services_response = make_list(services, arena);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_BY_FILENAME:
        answer_file(in->file_by_filename, NULL, arena, m);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST_FILE_CONTAINING_SYMBOL:
        answer_file(NULL, in->file_containing_symbol, arena, m);
        break;
    case GRPC__REFLECTION__V1__SERVER_REFLECTION_REQUEST__MESSAGE_REQUEST__NOT_SET:
        set_error(m, STATUS_INVALID, "message_request is not set", arena);
        break;
    default:
        set_error(m, STATUS_UNIMPLEMENTED, "proto3 has no extensions", arena);
        break;
    }
    return phx_wire_finish(&m->base, out, err);
}
