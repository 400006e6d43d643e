/* SPDX-License-Identifier: Apache-2.0
 * Requests and answers of the served calls: one switch per direction over the method. */
#include <string.h>

#include "rpc/wire/cluster.h"
#include "rpc/wire/map.h"

static int encode_target(enum phx_rpc_method method, const struct phx_cluster_target *in,
                         struct phx_arena *arena, struct phx_wire_out *out, struct phx_err *err)
{
    if (method == PHX_RPC_CLUSTER_DRAIN) {
        Phalanx__V1__DrainRequest *m = phx_arena_calloc(arena, 1, sizeof(*m));

        phalanx__v1__drain_request__init(m);
        m->replica_id = phx_wire_str(in->replica_id);
        m->timeout_ms = in->timeout_ms;
        m->reason = phx_wire_str(in->reason);
        return phx_wire_finish(&m->base, out, err);
    } else {
        Phalanx__V1__RestartRequest *m = phx_arena_calloc(arena, 1, sizeof(*m));

        phalanx__v1__restart_request__init(m);
        m->replica_id = phx_wire_str(in->replica_id);
        m->timeout_ms = in->timeout_ms;
        m->reason = phx_wire_str(in->reason);
        return phx_wire_finish(&m->base, out, err);
    }
}

/* A method of the control plane: its tables tell all. */
static int encode_mapped(enum phx_rpc_method method, bool is_answer, const void *plain,
                         struct phx_arena *arena, struct phx_wire_out *out, struct phx_err *err)
{
    const struct phx_map_pair *pair = phx_map_find(method);

    if (pair == NULL)
        return phx_fail(err, PHX_E_INTERNAL, "no such method: %d", (int)method);
    return phx_map_encode(is_answer ? pair->answer : pair->request, plain, arena, out, err);
}

static int decode_mapped(enum phx_rpc_method method, bool is_answer, const uint8_t *data, size_t size,
                         struct phx_arena *arena, void *plain, struct phx_err *err)
{
    const struct phx_map_pair *pair = phx_map_find(method);

    if (pair == NULL)
        return phx_fail(err, PHX_E_INTERNAL, "no such method: %d", (int)method);
    return phx_map_decode(is_answer ? pair->answer : pair->request, data, size, arena, plain, err);
}

int phx_wire_encode_request(const struct phx_rpc_request *request, struct phx_arena *arena,
                            struct phx_wire_out *out, struct phx_err *err)
{
    switch (request->method) {
    case PHX_RPC_CLUSTER_GET: {
        Phalanx__V1__GetClusterRequest *m = phx_arena_calloc(arena, 1, sizeof(*m));

        phalanx__v1__get_cluster_request__init(m);
        return phx_wire_finish(&m->base, out, err);
    }
    case PHX_RPC_CLUSTER_WATCH: {
        Phalanx__V1__WatchClusterRequest *m = phx_arena_calloc(arena, 1, sizeof(*m));

        phalanx__v1__watch_cluster_request__init(m);
        return phx_wire_finish(&m->base, out, err);
    }
    case PHX_RPC_CLUSTER_DRAIN:
    case PHX_RPC_CLUSTER_RESTART:
        return encode_target(request->method, &request->u.target, arena, out, err);
    case PHX_RPC_INFERENCE_GENERATE:
        return phx_wire_generate_encode(&request->u.generate, arena, out, err);
    default:
        return encode_mapped(request->method, false, &request->u, arena, out, err);
    }
}

static int decode_target(enum phx_rpc_method method, const uint8_t *data, size_t size,
                         struct phx_arena *arena, struct phx_cluster_target *out,
                         struct phx_err *err)
{
    if (method == PHX_RPC_CLUSTER_DRAIN) {
        Phalanx__V1__DrainRequest *m =
            phx_wire_unpack(&phalanx__v1__drain_request__descriptor, data, size, arena, err);

        if (m == NULL)
            return err->code;
        *out = (struct phx_cluster_target){m->replica_id, m->timeout_ms, m->reason};
        return phx_wire_range("DrainRequest.timeout_ms", m->timeout_ms, 0, INT32_MAX, err);
    } else {
        Phalanx__V1__RestartRequest *m =
            phx_wire_unpack(&phalanx__v1__restart_request__descriptor, data, size, arena, err);

        if (m == NULL)
            return err->code;
        *out = (struct phx_cluster_target){m->replica_id, m->timeout_ms, m->reason};
        return phx_wire_range("RestartRequest.timeout_ms", m->timeout_ms, 0, INT32_MAX, err);
    }
}

static int decode_empty(const ProtobufCMessageDescriptor *type, const uint8_t *data, size_t size,
                        struct phx_arena *arena, struct phx_err *err)
{
    return phx_wire_unpack(type, data, size, arena, err) != NULL ? 0 : err->code;
}

int phx_wire_decode_request(enum phx_rpc_method method, const uint8_t *data, size_t size,
                            struct phx_arena *arena, struct phx_rpc_request *request,
                            struct phx_err *err)
{
    struct phx_err local = {0};
    int            rc;

    request->method = method;
    switch (method) {
    case PHX_RPC_CLUSTER_GET:
        rc = decode_empty(&phalanx__v1__get_cluster_request__descriptor, data, size, arena, &local);
        break;
    case PHX_RPC_CLUSTER_WATCH:
        rc = decode_empty(&phalanx__v1__watch_cluster_request__descriptor, data, size, arena,
                          &local);
        break;
    case PHX_RPC_CLUSTER_DRAIN:
    case PHX_RPC_CLUSTER_RESTART:
        rc = decode_target(method, data, size, arena, &request->u.target, &local);
        break;
    case PHX_RPC_INFERENCE_GENERATE:
        rc = phx_wire_generate_decode(data, size, arena, &request->u.generate, &local);
        break;
    default:
        rc = decode_mapped(method, false, data, size, arena, &request->u, &local);
    }
    return rc == 0 ? 0 : phx_fail(err, rc, "%s", local.text);
}

static int encode_done(enum phx_rpc_method method, const struct phx_cluster_done *in,
                       struct phx_arena *arena, struct phx_wire_out *out, struct phx_err *err)
{
    if (method == PHX_RPC_CLUSTER_DRAIN) {
        Phalanx__V1__DrainResponse *m = phx_arena_calloc(arena, 1, sizeof(*m));

        phalanx__v1__drain_response__init(m);
        m->n_replicas = in->n_replicas;
        m->n_running = in->n_running;
        return phx_wire_finish(&m->base, out, err);
    } else {
        Phalanx__V1__RestartResponse *m = phx_arena_calloc(arena, 1, sizeof(*m));

        phalanx__v1__restart_response__init(m);
        m->n_replicas = in->n_replicas;
        m->n_running = in->n_running;
        return phx_wire_finish(&m->base, out, err);
    }
}

int phx_wire_encode_answer(enum phx_rpc_method method, const struct phx_rpc_answer *answer,
                           struct phx_arena *arena, struct phx_wire_out *out, struct phx_err *err)
{
    int rc;

    switch (method) {
    case PHX_RPC_CLUSTER_GET: {
        Phalanx__V1__GetClusterResponse *m = phx_arena_calloc(arena, 1, sizeof(*m));

        phalanx__v1__get_cluster_response__init(m);
        rc = phx_wire_cluster_encode(&answer->u.cluster, arena, &m->state, err);
        return rc != 0 ? rc : phx_wire_finish(&m->base, out, err);
    }
    case PHX_RPC_CLUSTER_WATCH: {
        Phalanx__V1__WatchClusterResponse *m = phx_arena_calloc(arena, 1, sizeof(*m));

        phalanx__v1__watch_cluster_response__init(m);
        m->reason = phx_wire_str(answer->u.event.reason);
        rc = phx_wire_cluster_encode(&answer->u.event.state, arena, &m->state, err);
        return rc != 0 ? rc : phx_wire_finish(&m->base, out, err);
    }
    case PHX_RPC_CLUSTER_DRAIN:
    case PHX_RPC_CLUSTER_RESTART:
        return encode_done(method, &answer->u.done, arena, out, err);
    case PHX_RPC_INFERENCE_GENERATE:
        return phx_wire_event_encode(&answer->u.generate, arena, out, err);
    default:
        return encode_mapped(method, true, &answer->u, arena, out, err);
    }
}

static int decode_cluster(enum phx_rpc_method method, const uint8_t *data, size_t size,
                          struct phx_arena *arena, struct phx_rpc_answer *answer,
                          struct phx_err *err)
{
    if (method == PHX_RPC_CLUSTER_GET) {
        Phalanx__V1__GetClusterResponse *m =
            phx_wire_unpack(&phalanx__v1__get_cluster_response__descriptor, data, size, arena, err);

        return m == NULL ? err->code
                         : phx_wire_cluster_decode(m->state, arena, &answer->u.cluster, err);
    } else {
        Phalanx__V1__WatchClusterResponse *m = phx_wire_unpack(
            &phalanx__v1__watch_cluster_response__descriptor, data, size, arena, err);

        if (m == NULL)
            return err->code;
        answer->u.event.reason = m->reason;
        return phx_wire_cluster_decode(m->state, arena, &answer->u.event.state, err);
    }
}

static int decode_done(enum phx_rpc_method method, const uint8_t *data, size_t size,
                       struct phx_arena *arena, struct phx_cluster_done *out, struct phx_err *err)
{
    if (method == PHX_RPC_CLUSTER_DRAIN) {
        Phalanx__V1__DrainResponse *m =
            phx_wire_unpack(&phalanx__v1__drain_response__descriptor, data, size, arena, err);

        if (m == NULL)
            return err->code;
        *out = (struct phx_cluster_done){m->n_replicas, m->n_running};
    } else {
        Phalanx__V1__RestartResponse *m =
            phx_wire_unpack(&phalanx__v1__restart_response__descriptor, data, size, arena, err);

        if (m == NULL)
            return err->code;
        *out = (struct phx_cluster_done){m->n_replicas, m->n_running};
    }
    return 0;
}

int phx_wire_decode_answer(enum phx_rpc_method method, const uint8_t *data, size_t size,
                           struct phx_arena *arena, struct phx_rpc_answer *answer,
                           struct phx_err *err)
{
    struct phx_err local = {0};
    int            rc;

    memset(answer, 0, sizeof(*answer));
    switch (method) {
    case PHX_RPC_CLUSTER_GET:
    case PHX_RPC_CLUSTER_WATCH:
        rc = decode_cluster(method, data, size, arena, answer, &local);
        break;
    case PHX_RPC_CLUSTER_DRAIN:
    case PHX_RPC_CLUSTER_RESTART:
        rc = decode_done(method, data, size, arena, &answer->u.done, &local);
        break;
    case PHX_RPC_INFERENCE_GENERATE:
        rc = phx_wire_event_decode(data, size, arena, &answer->u.generate, &local);
        break;
    default:
        rc = decode_mapped(method, true, data, size, arena, &answer->u, &local);
    }
    return rc == 0 ? 0 : phx_fail(err, rc, "%s", local.text);
}
