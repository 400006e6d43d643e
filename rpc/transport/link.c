/* SPDX-License-Identifier: Apache-2.0
 * Links on the daemon's side.  Everything here runs on the caller's thread. */
#include <string.h>

#include "rpc/transport/server.h"

static void attach(struct phx_rpc_call *call, const struct phx_link_hello *hello)
{
    struct phx_rpc_server *server = call->server;

    call->protocol = hello->protocol_max < PHX_RPC_PROTOCOL_MAX ? hello->protocol_max
                                                                : PHX_RPC_PROTOCOL_MAX;
    call->is_open = true;
    phx_call_hold(call);
    server->handlers.attached(server->ctx, &call->link, hello, &call->peer);
}

static void detach(struct phx_rpc_call *call)
{
    struct phx_rpc_server *server = call->server;

    if (!call->is_open)
        return;
    if (call->end_reason.text[0] == '\0')
        (void)phx_fail(&call->end_reason, PHX_E_PEER, "the connection to the rank was lost");
    server->handlers.detached(server->ctx, &call->link, &call->end_reason);
    call->is_open = false;
    phx_call_release(call);
}

static void take_message(struct phx_rpc_call *call, const struct phx_link_msg *msg)
{
    struct phx_rpc_server *server = call->server;

    if (msg->kind == PHX_LINK_HELLO) {
        if (!call->is_closed)
            attach(call, &msg->u.hello);
        return;
    }
    if (!call->is_open)
        return; /* it ended before it was attached */
    if (msg->kind == PHX_LINK_BYE) {
        (void)phx_fail(&call->end_reason, PHX_OK, "the rank left in good order");
        call->end_reason.code = PHX_OK;
    }
    server->handlers.message(server->ctx, &call->link, msg);
}

void phx_link_event(struct phx_event *event)
{
    struct phx_rpc_call *call = event->call;

    if (event->kind == PHX_EVENT_MESSAGE) {
        take_message(call, &event->u.link);
        return;
    }
    if (event->kind == PHX_EVENT_HALF_CLOSED) {
        phx_outbox_finish(&call->outbox, 0, "", -1);
        return;
    }
    call->is_closed = true;
    detach(call);
}

int phx_rpc_link_send(struct phx_rpc_link *link, const struct phx_link_msg *msg, struct phx_err *err)
{
    struct phx_rpc_call *call = link->call;
    struct phx_arena    *arena;
    struct phx_wire_out  out;
    int                  rc;

    if (!call->is_open || call->is_closed)
        return phx_fail(err, PHX_E_PEER, "the link is gone");
    arena = phx_arena_create();
    rc = phx_wire_encode_link(msg, arena, &out, err);
    if (rc == 0) {
        rc = phx_outbox_push(&call->outbox, phx_core_pack(&out));
        if (rc == PHX_E_PEER)
            (void)phx_fail(err, rc, "the link is gone");
        if (rc == PHX_E_BUSY) {
            (void)phx_fail(err, rc, "the rank reads too slowly: %zu bytes wait",
                           phx_outbox_queued(&call->outbox));
            (void)phx_fail(&call->end_reason, rc, "the rank reads too slowly: dropped");
            (void)grpc_call_cancel_with_status(call->call, GRPC_STATUS_RESOURCE_EXHAUSTED,
                                               "reads too slowly", NULL);
        }
    }
    phx_arena_destroy(arena);
    return rc;
}

int phx_rpc_link_welcome(struct phx_rpc_link *link, const struct phx_link_settings *settings,
                         struct phx_err *err)
{
    struct phx_link_msg msg = {.kind = PHX_LINK_WELCOME};

    phx_assert(!link->call->is_welcomed);
    msg.u.welcome.protocol = link->call->protocol;
    msg.u.welcome.build = PHX_VERSION;
    msg.u.welcome.settings = *settings;
    link->call->is_welcomed = true;
    return phx_rpc_link_send(link, &msg, err);
}

void phx_rpc_link_close(struct phx_rpc_link *link, int code, const char *text)
{
    struct phx_rpc_call *call = link->call;

    (void)phx_fail(&call->end_reason, code, "%s", *text != '\0' ? text : phx_err_text(code));
    phx_outbox_finish(&call->outbox, code, text, -1);
}

void phx_rpc_link_set_data(struct phx_rpc_link *link, void *data)
{
    link->call->data = data;
}

void *phx_rpc_link_data(const struct phx_rpc_link *link)
{
    return link->call->data;
}
