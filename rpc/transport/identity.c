/* SPDX-License-Identifier: Apache-2.0
 * Who is at the other end: the verified certificate, the bearer token, the deadline. */
#include <grpc/support/alloc.h>
#include <string.h>
#include <strings.h>

#include "rpc/base/clock.h"
#include "rpc/transport/server.h"

enum { ALT_NAMES_MAX = 64, BEARER_MAX_BYTES = 4096 };

static const char *copy_property(struct phx_rpc_call *call, const grpc_auth_property *p)
{
    if (memchr(p->value, '\0', p->value_length) != NULL)
        return NULL; /* a name with a NUL inside is meant to deceive */
    return phx_arena_strndup(call->arena, p->value, p->value_length);
}

static const char *read_certificate(struct phx_rpc_call *call)
{
    grpc_auth_context          *auth = grpc_call_auth_context(call->call);
    const char                **names = phx_arena_calloc(call->arena, ALT_NAMES_MAX, sizeof(*names));
    const char                 *problem = NULL;
    const grpc_auth_property   *p;
    grpc_auth_property_iterator it;
    int32_t                     n = 0;

    if (!grpc_auth_context_peer_is_authenticated(auth))
        problem = "no client certificate";
    it = grpc_auth_context_find_properties_by_name(auth, GRPC_X509_CN_PROPERTY_NAME);
    p = grpc_auth_property_iterator_next(&it);
    call->peer.common_name = p != NULL ? copy_property(call, p) : "";
    it = grpc_auth_context_find_properties_by_name(auth, GRPC_X509_SAN_PROPERTY_NAME);
    while ((p = grpc_auth_property_iterator_next(&it)) != NULL && n < ALT_NAMES_MAX)
        if ((names[n] = copy_property(call, p)) != NULL)
            n++;
    grpc_auth_context_release(auth);
    if (call->peer.common_name == NULL)
        problem = "the client certificate's common name has a NUL byte inside";
    call->peer.alt_names = names;
    call->peer.n_alt_names = n;
    return problem;
}

/* A token of the caller or of whom it asks for. */
static const char *read_token(struct phx_rpc_call *call, grpc_slice slice, const char **out)
{
    const char *value = (const char *)GRPC_SLICE_START_PTR(slice);
    size_t      size = GRPC_SLICE_LENGTH(slice);

    if (*out != NULL)
        return "authorization metadata is given twice";
    if (size > BEARER_MAX_BYTES)
        return "authorization metadata is longer than 4096 bytes";
    if (out == &call->peer.bearer) {
        if (size < 8 || strncasecmp(value, "Bearer ", 7) != 0)
            return "authorization metadata must be \"Bearer <token>\"";
        value += 7;
        size -= 7;
    }
    *out = phx_arena_strndup(call->arena, value, size);
    return NULL;
}

static const char *read_tokens(struct phx_rpc_call *call)
{
    const char *problem = NULL;

    for (size_t i = 0; problem == NULL && i < call->metadata.count; i++) {
        const grpc_metadata *m = &call->metadata.metadata[i];

        if (grpc_slice_str_cmp(m->key, "authorization") == 0)
            problem = read_token(call, m->value, &call->peer.bearer);
        else if (grpc_slice_str_cmp(m->key, "x-phalanx-on-behalf-of") == 0)
            problem = read_token(call, m->value, &call->peer.on_behalf_of);
    }
    return problem;
}

static int64_t to_mono_ns(gpr_timespec deadline)
{
    gpr_timespec left = gpr_time_sub(gpr_convert_clock_type(deadline, GPR_CLOCK_MONOTONIC),
                                     gpr_now(GPR_CLOCK_MONOTONIC));

    if (left.tv_sec > 10LL * 365 * 86400)
        return 0;
    return phx_clock_mono_ns() + left.tv_sec * INT64_C(1000000000) + left.tv_nsec;
}

const char *phx_call_identify(struct phx_rpc_call *call)
{
    char       *address = grpc_call_get_peer(call->call);
    const char *problem;

    call->peer.address = phx_arena_strdup(call->arena, address);
    gpr_free(address);
    call->deadline_mono_ns = to_mono_ns(call->details.deadline);
    problem = read_certificate(call);
    return problem != NULL ? problem : read_tokens(call);
}
