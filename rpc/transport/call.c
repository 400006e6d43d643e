/* SPDX-License-Identifier: Apache-2.0
 * A call on the server: from the accept to the last reference.  Runs on the gRPC thread unless said. */
#include <string.h>

#include "rpc/base/hash.h"
#include "rpc/base/log.h"
#include "rpc/transport/server.h"

enum { CLIENT_QUEUE_BYTES = 4 << 20 }; /* there may be a thousand clients, but few links */

void phx_op_arm(struct phx_op *op)
{
    phx_assert(!atomic_exchange(&op->is_armed, true));
}

void phx_op_disarm(struct phx_op *op)
{
    phx_assert(atomic_exchange(&op->is_armed, false));
}

void phx_call_hold(void *ctx)
{
    struct phx_rpc_call *call = ctx;

    (void)atomic_fetch_add(&call->refs, 1);
}

void phx_call_release(struct phx_rpc_call *call)
{
    if (atomic_fetch_sub(&call->refs, 1) != 1)
        return;
    phx_outbox_fini(&call->outbox);
    if (call->call != NULL)
        grpc_call_unref(call->call);
    if (call->received != NULL)
        grpc_byte_buffer_destroy(call->received);
    grpc_call_details_destroy(&call->details);
    grpc_metadata_array_destroy(&call->metadata);
    if (call->peer.bearer != NULL)
        phx_secret_wipe((char *)call->peer.bearer, strlen(call->peer.bearer));
    if (call->peer.on_behalf_of != NULL)
        phx_secret_wipe((char *)call->peer.on_behalf_of, strlen(call->peer.on_behalf_of));
    phx_arena_destroy(call->arena);
    phx_mem_free(call->watched);
    if (call->is_counted)
        (void)atomic_fetch_sub(&call->server->n_calls, 1); /* last: the server may go now */
    phx_mem_free(call);
}

void phx_event_free(void *ctx)
{
    struct phx_event    *event = ctx;
    struct phx_rpc_call *call = event->call;

    phx_arena_destroy(event->arena);
    phx_call_release(call);
}

static void init_op(struct phx_op *op, struct phx_rpc_call *call, enum phx_op_kind kind)
{
    op->call = call;
    op->kind = kind;
}

int phx_call_accept(struct phx_rpc_server *server)
{
    struct phx_rpc_call *call = phx_mem_calloc(1, sizeof(*call));

    call->server = server;
    atomic_init(&call->refs, 1);
    init_op(&call->op_accept, call, PHX_OP_ACCEPT);
    init_op(&call->op_close, call, PHX_OP_CLOSE);
    init_op(&call->op_read, call, PHX_OP_READ);
    init_op(&call->op_send, call, PHX_OP_SEND);
    call->arena = phx_arena_create();
    call->link.call = call;
    call->watched_status = -1;
    grpc_call_details_init(&call->details);
    grpc_metadata_array_init(&call->metadata);
    phx_outbox_init(&call->outbox, true, server->max_send_bytes);
    phx_op_arm(&call->op_accept);
    if (grpc_server_request_call(server->server, &call->call, &call->details, &call->metadata,
                                 server->cq, server->cq, &call->op_accept) != GRPC_CALL_OK) {
        phx_call_release(call);
        return -1;
    }
    return 0;
}

static struct phx_event *make_event(struct phx_rpc_call *call, enum phx_event_kind kind)
{
    struct phx_arena *arena = phx_arena_create();
    struct phx_event *event = phx_arena_calloc(arena, 1, sizeof(*event));

    phx_call_hold(call);
    event->call = call;
    event->kind = kind;
    event->arena = arena;
    return event;
}

/* The queue holds what all admitted calls together may have unread, so it cannot be full. */
static void push_event(struct phx_event *event)
{
    phx_assert(phx_queue_push(event->call->server->events, event) == 0);
}

static void start_read(struct phx_rpc_call *call)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

    op.data.recv_message.recv_message = &call->received;
    phx_call_hold(call);
    phx_op_arm(&call->op_read);
    phx_assert(grpc_call_start_batch(call->call, &op, 1, &call->op_read, NULL) == GRPC_CALL_OK);
}

static void start_close(struct phx_rpc_call *call)
{
    grpc_op op = {.op = GRPC_OP_RECV_CLOSE_ON_SERVER};

    op.data.recv_close_on_server.cancelled = &call->is_cancelled;
    phx_call_hold(call);
    phx_op_arm(&call->op_close);
    phx_assert(grpc_call_start_batch(call->call, &op, 1, &call->op_close, NULL) == GRPC_CALL_OK);
}

static void refuse_unserved(struct phx_rpc_call *call)
{
    char *path = phx_core_text(call->details.method);
    char *text = phx_mem_printf("%.200s is %s", path,
                                call->method != NULL ? "not served by this daemon yet"
                                                     : "not a method of this daemon");

    phx_outbox_finish_status(&call->outbox, GRPC_STATUS_UNIMPLEMENTED, text);
    phx_mem_free(text);
    phx_mem_free(path);
}

/* The outbox starts a batch. */
static void hold_for_send(void *ctx)
{
    struct phx_rpc_call *call = ctx;

    phx_call_hold(call);
    phx_op_arm(&call->op_send);
}

static void complete_accept(struct phx_rpc_call *call, bool is_ok)
{
    struct phx_rpc_server *server = call->server;
    const char            *problem;

    if (!is_ok) { /* the server shuts down */
        phx_call_release(call);
        return;
    }
    call->is_counted = true;
    (void)atomic_fetch_add(&server->n_calls, 1);
    (void)phx_call_accept(server); /* fails only in shutdown, when no more calls are wanted */
    call->outbox.call = call->call;
    call->outbox.tag = &call->op_send;
    call->outbox.hold = hold_for_send;
    call->outbox.owner = call;
    call->method = phx_method_find(call->details.method);
    if (call->method != NULL && call->method->kind != PHX_METHOD_LINK &&
        call->outbox.max_bytes > CLIENT_QUEUE_BYTES)
        call->outbox.max_bytes = CLIENT_QUEUE_BYTES;
    start_close(call);
    problem = phx_call_identify(call);
    if (problem != NULL)
        phx_outbox_finish(&call->outbox, PHX_E_UNAUTH, problem, -1);
    else if (call->method == NULL || call->method->kind == PHX_METHOD_UNSERVED)
        refuse_unserved(call);
    else if (atomic_load(&server->is_stopping))
        phx_outbox_finish(&call->outbox, PHX_E_BUSY, "the daemon is stopping", 1000);
    else if (atomic_load(&server->n_calls) > server->max_calls)
        phx_outbox_finish(&call->outbox, PHX_E_LIMIT, "too many calls are open", 1000);
    else
        start_read(call);
    phx_call_release(call);
}

/* The first message of a link is HELLO; protocol ranges must overlap. */
static int check_hello(struct phx_rpc_call *call, const struct phx_link_msg *msg,
                       struct phx_err *err)
{
    const struct phx_link_hello *hello = &msg->u.hello;

    if (call->has_hello == (msg->kind == PHX_LINK_HELLO))
        return phx_fail(err, PHX_E_INVALID, "AttachRequest: %s in the wrong place (hello comes first, "
                                            "and once)", phx_link_kind_name(msg->kind));
    if (call->has_hello)
        return 0;
    call->has_hello = true;
    if (hello->protocol_min > hello->protocol_max ||
        hello->protocol_min > PHX_RPC_PROTOCOL_MAX || hello->protocol_max < PHX_RPC_PROTOCOL_MIN)
        return phx_fail(err, PHX_E_STATE,
                        "the daemon (%s) speaks RankLink %d to %d, the rank (%.40s) %d to %d: install "
                        "the same release on both", PHX_VERSION, PHX_RPC_PROTOCOL_MIN,
                        PHX_RPC_PROTOCOL_MAX, hello->build, hello->protocol_min,
                        hello->protocol_max);
    return 0;
}

static int decode(struct phx_rpc_call *call, const uint8_t *data, size_t size,
                  struct phx_event *event, struct phx_err *err)
{
    int rc;

    switch (call->method->kind) {
    case PHX_METHOD_LINK:
        rc = phx_wire_decode_link(data, size, PHX_WIRE_FROM_RANK, event->arena, &event->u.link, err);
        return rc != 0 ? rc : check_hello(call, &event->u.link, err);
    case PHX_METHOD_CALL:
        event->u.request.peer = call->peer;
        event->u.request.deadline_mono_ns = call->deadline_mono_ns;
        return phx_wire_decode_request(call->method->method, data, size, event->arena,
                                       &event->u.request, err);
    case PHX_METHOD_REFLECTION: /* answered from the bytes */
        event->u.reflection.data = phx_arena_calloc(event->arena, 1, size);
        event->u.reflection.size = size;
        if (size > 0)
            memcpy(event->u.reflection.data, data, size);
        return 0;
    default:
        return phx_wire_decode_health_request(data, size, event->arena, &event->u.health_service,
                                              err);
    }
}

static bool is_many(const struct phx_rpc_call *call)
{
    return call->method->kind == PHX_METHOD_LINK || call->method->kind == PHX_METHOD_REFLECTION;
}

/* Goes on reading, or pauses while the handlers are behind: the peer then feels back-pressure. */
static void read_on(struct phx_rpc_call *call)
{
    if (!is_many(call)) {
        call->is_read_done = true;
        return;
    }
    if (atomic_load(&call->n_unread) < PHX_RPC_READ_WINDOW) {
        start_read(call);
        return;
    }
    atomic_store(&call->is_paused, true);
    /* the last event may have been handled just before the flag was set */
    if (atomic_load(&call->n_unread) < PHX_RPC_READ_WINDOW && atomic_exchange(&call->is_paused, false))
        start_read(call);
}

void phx_call_handled(struct phx_rpc_call *call)
{
    if (atomic_fetch_sub(&call->n_unread, 1) <= PHX_RPC_READ_WINDOW / 2 &&
        atomic_exchange(&call->is_paused, false))
        start_read(call);
}

static void take_message(struct phx_rpc_call *call)
{
    struct phx_event *event = make_event(call, PHX_EVENT_MESSAGE);
    struct phx_err    err = {0};
    grpc_slice        slice = grpc_empty_slice();
    int               rc;

    if (!phx_core_read(call->received, &slice))
        rc = phx_fail(&err, PHX_E_FORMAT, "the message cannot be decompressed");
    else
        rc = decode(call, GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice), event, &err);
    grpc_slice_unref(slice);
    grpc_byte_buffer_destroy(call->received);
    call->received = NULL;
    if (rc != 0) {
        phx_log(PHX_LOG_WARN, "rpc.request.refused", "method=%s peer=%s error=%s",
                call->method->path, call->peer.address, err.text);
        phx_outbox_finish(&call->outbox, rc, err.text, -1);
        phx_event_free(event);
        return;
    }
    (void)atomic_fetch_add(&call->n_unread, 1);
    call->has_events = true;
    push_event(event);
    read_on(call);
}

static void complete_read(struct phx_rpc_call *call, bool is_ok)
{
    if (is_ok && call->received != NULL)
        take_message(call);
    else if (is_many(call) && call->has_events)
        push_event(make_event(call, PHX_EVENT_HALF_CLOSED));
    else
        phx_outbox_finish(&call->outbox, PHX_E_INVALID, "the call carries no message", -1);
    phx_call_release(call);
}

static void complete_close(struct phx_rpc_call *call)
{
    phx_outbox_kill(&call->outbox);
    if (call->has_events) /* a call that was refused here is nobody's concern */
        push_event(make_event(call, PHX_EVENT_CLOSED));
    phx_call_release(call);
}

void phx_call_complete(struct phx_op *op, bool is_ok)
{
    switch (op->kind) {
    case PHX_OP_ACCEPT:
        complete_accept(op->call, is_ok);
        break;
    case PHX_OP_READ:
        complete_read(op->call, is_ok);
        break;
    case PHX_OP_SEND:
        phx_outbox_sent(&op->call->outbox, is_ok);
        phx_call_release(op->call);
        break;
    default:
        complete_close(op->call);
        break;
    }
}
