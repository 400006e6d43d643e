/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/transport/server.h"

#include <poll.h>
#include <string.h>

#include "rpc/base/clock.h"
#include "rpc/base/log.h"

enum { DEFAULT_CALLS = 1024, ACCEPTS = 4 };

static void *run(void *ctx)
{
    struct phx_rpc_server *server = ctx;

    for (;;) {
        grpc_event event = grpc_completion_queue_next(
            server->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        struct phx_op *op = event.tag;

        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        phx_op_disarm(op);
        if (op->kind == PHX_OP_SHUTDOWN)
            atomic_store(&server->is_shut, true);
        else
            phx_call_complete(op, event.success != 0);
    }
}

static void destroy(struct phx_rpc_server *server)
{
    if (server->server != NULL)
        grpc_server_destroy(server->server);
    if (server->cq != NULL)
        grpc_completion_queue_destroy(server->cq);
    phx_queue_destroy(server->events, phx_event_free);
    for (size_t i = 0; i < server->n_health; i++)
        phx_mem_free(server->health[i].service);
    phx_core_close();
    phx_mem_free(server);
}

static int listen_on(struct phx_rpc_server *server, const struct phx_rpc_server_options *options,
                     struct phx_err *err)
{
    grpc_channel_args        args = phx_core_server_args();
    grpc_server_credentials *credentials;
    int                      rc = phx_core_server_credentials(&options->tls, &credentials, err);

    if (rc != 0)
        return rc;
    server->cq = grpc_completion_queue_create_for_next(NULL);
    server->server = grpc_server_create(&args, NULL);
    grpc_server_register_completion_queue(server->server, server->cq, NULL);
    server->port = grpc_server_add_http2_port(server->server, options->listen, credentials);
    grpc_server_credentials_release(credentials);
    if (server->port == 0)
        return phx_fail(err, PHX_E_IO, "cannot listen on %.120s: in use, or not an address of this host",
                        options->listen);
    return 0;
}

/* Nothing was accepted yet: the server can be torn down without a thread. */
static void abandon(struct phx_rpc_server *server)
{
    if (server->server != NULL) {
        grpc_server_shutdown_and_notify(server->server, server->cq, &server->op_shutdown);
        (void)grpc_completion_queue_next(server->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        grpc_completion_queue_shutdown(server->cq);
        (void)grpc_completion_queue_next(server->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
    }
    destroy(server);
}

static int open_server(struct phx_rpc_server *server, const struct phx_rpc_server_options *options,
                       struct phx_err *err)
{
    int rc = phx_queue_create(&server->events,
                              ((size_t)server->max_calls + 1) * (PHX_RPC_READ_WINDOW + 4), err);

    if (rc == 0)
        rc = listen_on(server, options, err);
    if (rc != 0)
        return rc;
    grpc_server_start(server->server);
    for (int i = 0; i < ACCEPTS; i++)
        phx_assert(phx_call_accept(server) == 0);
    phx_assert(pthread_create(&server->thread, NULL, run, server) == 0); /* as memory: or not at all */
    return 0;
}

int phx_rpc_server_open(struct phx_rpc_server **out, const struct phx_rpc_server_options *options,
                        struct phx_err *err)
{
    struct phx_rpc_server *server = phx_mem_calloc(1, sizeof(*server));
    sigset_t               old;
    int                    rc;

    *out = NULL;
    phx_core_open();
    server->handlers = options->handlers;
    server->ctx = options->ctx;
    server->max_calls = options->max_calls > 0 ? options->max_calls : DEFAULT_CALLS;
    server->max_send_bytes = options->max_send_queue_bytes > 0 ? options->max_send_queue_bytes
                                                               : PHX_RPC_DEFAULT_QUEUE_BYTES;
    server->op_shutdown.kind = PHX_OP_SHUTDOWN;
    phx_core_mask_signals(&old);
    rc = open_server(server, options, err);
    phx_core_unmask_signals(&old);
    if (rc != 0) {
        abandon(server);
        return rc;
    }
    phx_rpc_server_set_serving(server, "", false);
    *out = server;
    return 0;
}

int phx_rpc_server_port(const struct phx_rpc_server *server)
{
    return server->port;
}

int phx_rpc_server_fd(const struct phx_rpc_server *server)
{
    return phx_queue_fd(server->events);
}

static void answer_reflection(struct phx_event *event)
{
    struct phx_rpc_call *call = event->call;
    struct phx_wire_out  out;
    struct phx_err       err = {0};
    int                  rc;

    rc = phx_wire_answer_reflection(event->u.reflection.data, event->u.reflection.size,
                                    phx_method_services(), event->arena, &out, &err);
    if (rc == 0)
        rc = phx_outbox_push(&call->outbox, phx_core_pack(&out));
    if (rc != 0)
        phx_outbox_finish(&call->outbox, rc, err.text, -1);
}

/* Unary calls and server streams. */
static void call_event(struct phx_event *event)
{
    struct phx_rpc_call   *call = event->call;
    struct phx_rpc_server *server = call->server;

    if (event->kind == PHX_EVENT_MESSAGE) {
        if (call->is_closed)
            return; /* gone before its turn came */
        call->is_open = true;
        phx_call_hold(call);
        server->handlers.request(server->ctx, call, &event->u.request);
        return;
    }
    call->is_closed = true;
    if (!call->is_open)
        return;
    server->handlers.cancelled(server->ctx, call);
    call->is_open = false;
    phx_call_release(call);
}

static void handle(struct phx_event *event)
{
    struct phx_rpc_call *call = event->call;
    bool                 is_message = event->kind == PHX_EVENT_MESSAGE;

    switch (call->method->kind) {
    case PHX_METHOD_LINK:
        phx_link_event(event);
        break;
    case PHX_METHOD_REFLECTION:
        if (is_message)
            answer_reflection(event);
        else
            phx_outbox_finish(&call->outbox, 0, "", -1);
        break;
    case PHX_METHOD_HEALTH_CHECK:
        if (is_message)
            phx_health_check(call, event->u.health_service);
        break;
    case PHX_METHOD_HEALTH_WATCH:
        if (!is_message)
            phx_health_unwatch(call);
        else if (!call->is_closed)
            phx_health_watch(call, event->u.health_service);
        call->is_closed = call->is_closed || !is_message;
        break;
    default:
        call_event(event);
        break;
    }
    if (is_message)
        phx_call_handled(call);
    phx_event_free(event);
}

void phx_rpc_server_dispatch(struct phx_rpc_server *server)
{
    size_t n = phx_queue_count(server->events); /* not what comes meanwhile: the loop has other work */

    for (size_t i = 0; i < n; i++) {
        struct phx_event *event = phx_queue_try_pop(server->events);

        if (event == NULL)
            return;
        handle(event);
    }
}

/* Runs handlers until no call is left, or until the time is over (-1 = no limit). */
static bool drain(struct phx_rpc_server *server, int timeout_ms)
{
    int64_t end_ns = phx_clock_mono_ns() + (int64_t)timeout_ms * 1000000;

    while (atomic_load(&server->n_calls) > 0 || !atomic_load(&server->is_shut)) {
        struct pollfd p = {.fd = phx_rpc_server_fd(server), .events = POLLIN};

        if (timeout_ms >= 0 && phx_clock_mono_ns() >= end_ns)
            return false;
        (void)poll(&p, 1, 10); /* also looks at n_calls again now and then */
        phx_rpc_server_dispatch(server);
    }
    return true;
}

void phx_rpc_server_close(struct phx_rpc_server *server, int grace_ms)
{
    if (server == NULL)
        return;
    atomic_store(&server->is_stopping, true);
    phx_health_shutdown(server);
    phx_op_arm(&server->op_shutdown);
    grpc_server_shutdown_and_notify(server->server, server->cq, &server->op_shutdown);
    if (!drain(server, grace_ms)) {
        grpc_server_cancel_all_calls(server->server);
        (void)drain(server, -1);
    }
    grpc_completion_queue_shutdown(server->cq);
    (void)pthread_join(server->thread, NULL); /* it ends when the queue is empty */
    destroy(server);
}
