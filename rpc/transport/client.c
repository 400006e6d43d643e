/* SPDX-License-Identifier: Apache-2.0
 * Blocking calls for the command line: each call has its own completion queue, run by the caller. */
#include <string.h>

#include "rpc/transport/core.h"
#include "rpc/transport/server.h"

enum { DEFAULT_TIMEOUT_MS = 10000 };

struct phx_rpc_client {
    grpc_channel *channel;
    char         *bearer;
    struct phx_rpc_refusal refusal; /* of the last call that ended */
};

struct phx_rpc_stream {
    struct phx_rpc_client *client;
    enum phx_rpc_method    method;
    grpc_completion_queue *cq;
    grpc_call             *call;
    grpc_metadata_array    initial, trailing;
    grpc_status_code       status;
    grpc_slice             details;
    grpc_byte_buffer      *received;
    bool                   is_status_here;
    bool                   is_ended;
    char                   tag_send, tag_initial, tag_read, tag_status; /* tags: their addresses */
};

int phx_rpc_client_open(struct phx_rpc_client **client, const struct phx_rpc_client_options *options,
                        struct phx_err *err)
{
    struct phx_rpc_client *c = phx_mem_calloc(1, sizeof(*c));
    sigset_t               old;
    int                    rc;

    *client = NULL;
    phx_core_open();
    phx_core_mask_signals(&old);
    rc = phx_core_channel(options, &c->channel, err);
    phx_core_unmask_signals(&old);
    if (rc != 0) {
        phx_rpc_client_close(c);
        return rc;
    }
    if (options->bearer != NULL)
        c->bearer = phx_mem_strdup(options->bearer);
    c->refusal.retry_after_ms = -1;
    *client = c;
    return 0;
}

void phx_rpc_client_close(struct phx_rpc_client *client)
{
    if (client == NULL)
        return;
    if (client->channel != NULL)
        grpc_channel_destroy(client->channel);
    phx_mem_free(client->bearer);
    phx_core_close();
    phx_mem_free(client);
}

static struct phx_rpc_stream *open_stream(struct phx_rpc_client *client, const char *path,
                                          int timeout_ms)
{
    struct phx_rpc_stream *s = phx_mem_calloc(1, sizeof(*s));

    s->client = client;
    grpc_metadata_array_init(&s->initial);
    grpc_metadata_array_init(&s->trailing);
    s->details = grpc_empty_slice();
    s->cq = grpc_completion_queue_create_for_next(NULL);
    s->call = grpc_channel_create_call(client->channel, NULL, GRPC_PROPAGATE_DEFAULTS, s->cq,
                                       grpc_slice_from_static_string(path), NULL,
                                       phx_core_deadline(timeout_ms), NULL);
    return s;
}

static void start_stream(struct phx_rpc_stream *s, const struct phx_wire_out *request)
{
    grpc_byte_buffer *buffer = phx_core_pack(request);
    grpc_metadata     bearer;
    size_t            n_bearer = phx_core_bearer(s->client->bearer, &bearer);
    grpc_op           send[3], initial = {.op = GRPC_OP_RECV_INITIAL_METADATA},
                      status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};

    memset(send, 0, sizeof(send));
    send[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    send[0].data.send_initial_metadata.metadata = &bearer;
    send[0].data.send_initial_metadata.count = n_bearer;
    send[1].op = GRPC_OP_SEND_MESSAGE;
    send[1].data.send_message.send_message = buffer;
    send[2].op = GRPC_OP_SEND_CLOSE_FROM_CLIENT;
    initial.data.recv_initial_metadata.recv_initial_metadata = &s->initial;
    status.data.recv_status_on_client.trailing_metadata = &s->trailing;
    status.data.recv_status_on_client.status = &s->status;
    status.data.recv_status_on_client.status_details = &s->details;
    phx_assert(grpc_call_start_batch(s->call, send, 3, &s->tag_send, NULL) == GRPC_CALL_OK);
    phx_assert(grpc_call_start_batch(s->call, &initial, 1, &s->tag_initial, NULL) == GRPC_CALL_OK);
    phx_assert(grpc_call_start_batch(s->call, &status, 1, &s->tag_status, NULL) == GRPC_CALL_OK);
    grpc_byte_buffer_destroy(buffer);
    if (n_bearer > 0)
        grpc_slice_unref(bearer.value);
}

/* Runs completions until `tag` is done. */
static void await(struct phx_rpc_stream *s, const void *tag)
{
    for (;;) {
        grpc_event event = grpc_completion_queue_next(
            s->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);

        if (event.tag == &s->tag_status)
            s->is_status_here = true;
        if (event.tag == tag)
            return;
    }
}

/* 1 with *message to unref, 0 at the good end, or the code the call ended with. */
static int read_message(struct phx_rpc_stream *s, grpc_slice *message, struct phx_err *err)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

    if (!s->is_ended) {
        op.data.recv_message.recv_message = &s->received;
        phx_assert(grpc_call_start_batch(s->call, &op, 1, &s->tag_read, NULL) == GRPC_CALL_OK);
        await(s, &s->tag_read);
    }
    if (s->received != NULL) {
        bool is_read = phx_core_read(s->received, message);

        grpc_byte_buffer_destroy(s->received);
        s->received = NULL;
        return is_read ? 1 : phx_fail(err, PHX_E_FORMAT, "the answer cannot be decompressed");
    }
    s->is_ended = true;
    if (!s->is_status_here)
        await(s, &s->tag_status);
    phx_core_refusal(&s->trailing, &s->client->refusal);
    return phx_core_status(s->status, s->details, &s->trailing, err);
}

void phx_rpc_stream_close(struct phx_rpc_stream *s)
{
    if (s == NULL)
        return;
    (void)grpc_call_cancel(s->call, NULL); /* does nothing when it has ended */
    grpc_completion_queue_shutdown(s->cq);
    while (grpc_completion_queue_next(s->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL).type !=
           GRPC_QUEUE_SHUTDOWN)
        continue;
    grpc_call_unref(s->call);
    grpc_completion_queue_destroy(s->cq);
    if (s->received != NULL)
        grpc_byte_buffer_destroy(s->received);
    grpc_metadata_array_destroy(&s->initial);
    grpc_metadata_array_destroy(&s->trailing);
    grpc_slice_unref(s->details);
    phx_mem_free(s);
}

/* One request, one answer message. */
static int call_once(struct phx_rpc_client *client, const char *path, int timeout_ms,
                     const struct phx_wire_out *request, grpc_slice *answer, struct phx_err *err)
{
    struct phx_rpc_stream *s = open_stream(client, path,
                                           timeout_ms > 0 ? timeout_ms : DEFAULT_TIMEOUT_MS);
    grpc_slice more = grpc_empty_slice();
    int        rc, end;

    start_stream(s, request);
    rc = read_message(s, answer, err);
    if (rc == 0)
        rc = phx_fail(err, PHX_E_FORMAT, "the call ended without an answer");
    if (rc == 1) {
        end = read_message(s, &more, err); /* the status decides */
        grpc_slice_unref(more);
        rc = end == 1 ? phx_fail(err, PHX_E_FORMAT, "more than one answer came") : end;
        if (rc != 0)
            grpc_slice_unref(*answer);
    }
    phx_rpc_stream_close(s);
    return rc;
}

int phx_rpc_ask(struct phx_rpc_client *client, int timeout_ms, const struct phx_rpc_request *request,
                struct phx_arena *arena, struct phx_rpc_answer *answer, struct phx_err *err)
{
    struct phx_wire_out out;
    grpc_slice          slice;
    int                 rc = phx_wire_encode_request(request, arena, &out, err);

    if (rc == 0)
        rc = call_once(client, phx_method_path(request->method), timeout_ms, &out, &slice, err);
    if (rc != 0)
        return rc;
    rc = phx_wire_decode_answer(request->method, GRPC_SLICE_START_PTR(slice),
                                GRPC_SLICE_LENGTH(slice), arena, answer, err);
    grpc_slice_unref(slice);
    return rc;
}

int phx_rpc_cluster_get(struct phx_rpc_client *client, int timeout_ms, struct phx_arena *arena,
                        struct phx_cluster_state *state, struct phx_err *err)
{
    struct phx_rpc_request request = {.method = PHX_RPC_CLUSTER_GET};
    struct phx_rpc_answer  answer;
    int rc = phx_rpc_ask(client, timeout_ms, &request, arena, &answer, err);

    if (rc == 0)
        *state = answer.u.cluster;
    return rc;
}

static int command(struct phx_rpc_client *client, enum phx_rpc_method method, int timeout_ms,
                   const struct phx_cluster_target *target, struct phx_cluster_done *done,
                   struct phx_err *err)
{
    struct phx_rpc_request request = {.method = method, .u.target = *target};
    struct phx_rpc_answer  answer;
    struct phx_arena      *arena = phx_arena_create();
    int rc = phx_rpc_ask(client, timeout_ms, &request, arena, &answer, err);

    if (rc == 0)
        *done = answer.u.done;
    phx_arena_destroy(arena);
    return rc;
}

int phx_rpc_cluster_drain(struct phx_rpc_client *client, int timeout_ms,
                          const struct phx_cluster_target *target, struct phx_cluster_done *done,
                          struct phx_err *err)
{
    return command(client, PHX_RPC_CLUSTER_DRAIN, timeout_ms, target, done, err);
}

int phx_rpc_cluster_restart(struct phx_rpc_client *client, int timeout_ms,
                            const struct phx_cluster_target *target, struct phx_cluster_done *done,
                            struct phx_err *err)
{
    return command(client, PHX_RPC_CLUSTER_RESTART, timeout_ms, target, done, err);
}

int phx_rpc_health_check(struct phx_rpc_client *client, int timeout_ms, const char *service,
                         bool *is_serving, struct phx_err *err)
{
    struct phx_arena    *arena = phx_arena_create();
    enum phx_wire_health status;
    struct phx_wire_out  out;
    grpc_slice           slice;
    int                  rc = phx_wire_encode_health_request(service, arena, &out, err);

    *is_serving = false;
    if (rc == 0)
        rc = call_once(client, "/grpc.health.v1.Health/Check", timeout_ms, &out, &slice, err);
    if (rc == 0) {
        rc = phx_wire_decode_health_answer(GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice),
                                           arena, &status, err);
        *is_serving = rc == 0 && status == PHX_HEALTH_SERVING;
        grpc_slice_unref(slice);
    }
    phx_arena_destroy(arena);
    return rc;
}

void phx_rpc_client_refusal(const struct phx_rpc_client *client, struct phx_rpc_refusal *out)
{
    *out = client->refusal;
}

int phx_rpc_stream_open(struct phx_rpc_client *client, int timeout_ms,
                        const struct phx_rpc_request *request, struct phx_rpc_stream **stream,
                        struct phx_err *err)
{
    struct phx_arena   *arena = phx_arena_create();
    struct phx_wire_out out;
    int                 rc = phx_wire_encode_request(request, arena, &out, err);

    *stream = NULL;
    if (rc == 0) {
        *stream = open_stream(client, phx_method_path(request->method), timeout_ms);
        (*stream)->method = request->method;
        start_stream(*stream, &out);
    }
    phx_arena_destroy(arena);
    return rc;
}

int phx_rpc_cluster_watch(struct phx_rpc_client *client, int timeout_ms,
                          struct phx_rpc_stream **stream, struct phx_err *err)
{
    struct phx_rpc_request request = {.method = PHX_RPC_CLUSTER_WATCH};

    return phx_rpc_stream_open(client, timeout_ms, &request, stream, err);
}

int phx_rpc_generate(struct phx_rpc_client *client, int timeout_ms,
                     const struct phx_generate *generate, struct phx_rpc_stream **stream,
                     struct phx_err *err)
{
    struct phx_rpc_request request = {.method = PHX_RPC_INFERENCE_GENERATE, .u.generate = *generate};

    return phx_rpc_stream_open(client, timeout_ms, &request, stream, err);
}

int phx_rpc_stream_recv(struct phx_rpc_stream *stream, struct phx_arena *arena,
                        struct phx_rpc_answer *answer, struct phx_err *err)
{
    grpc_slice slice;
    int        rc = read_message(stream, &slice, err);

    if (rc != 1)
        return rc;
    rc = phx_wire_decode_answer(stream->method, GRPC_SLICE_START_PTR(slice),
                                GRPC_SLICE_LENGTH(slice), arena, answer, err);
    grpc_slice_unref(slice);
    return rc != 0 ? rc : 1;
}
