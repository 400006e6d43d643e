/* SPDX-License-Identifier: Apache-2.0
 * The standard health service.  It is answered on the caller's thread on purpose: a daemon whose loop
 * hangs does not answer. */
#include <string.h>

#include "rpc/transport/server.h"

static enum phx_wire_health status_of(const struct phx_rpc_server *server, const char *service)
{
    for (size_t i = 0; i < server->n_health; i++)
        if (strcmp(server->health[i].service, service) == 0)
            return server->health[i].is_serving ? PHX_HEALTH_SERVING : PHX_HEALTH_NOT_SERVING;
    return PHX_HEALTH_SERVICE_UNKNOWN;
}

static void send_status(struct phx_rpc_call *call, enum phx_wire_health status)
{
    struct phx_arena   *arena = phx_arena_create();
    struct phx_wire_out out;
    int                 rc = phx_wire_encode_health_answer(status, arena, &out, NULL);

    phx_assert(rc == 0); /* an enum always encodes */
    (void)phx_outbox_push(&call->outbox, phx_core_pack(&out)); /* a call that is over: its end comes */
    phx_arena_destroy(arena);
}

void phx_health_check(struct phx_rpc_call *call, const char *service)
{
    enum phx_wire_health status = status_of(call->server, service);

    if (status == PHX_HEALTH_SERVICE_UNKNOWN) {
        phx_outbox_finish(&call->outbox, PHX_E_NOTFOUND, "unknown service", -1);
        return;
    }
    send_status(call, status);
    phx_outbox_finish(&call->outbox, 0, "", -1);
}

static void update_watch(struct phx_rpc_call *call)
{
    enum phx_wire_health status = status_of(call->server, call->watched);

    if ((int)status != call->watched_status)
        send_status(call, status);
    call->watched_status = (int)status;
}

void phx_health_watch(struct phx_rpc_call *call, const char *service)
{
    struct phx_rpc_server *server = call->server;

    phx_call_hold(call);
    call->watched = phx_mem_strdup(service);
    call->next = server->watches;
    if (call->next != NULL)
        call->next->prev = call;
    server->watches = call;
    update_watch(call);
}

void phx_health_unwatch(struct phx_rpc_call *call)
{
    struct phx_rpc_server *server = call->server;

    if (call->watched == NULL)
        return;
    if (call->prev != NULL)
        call->prev->next = call->next;
    else
        server->watches = call->next;
    if (call->next != NULL)
        call->next->prev = call->prev;
    phx_mem_free(call->watched);
    call->watched = NULL;
    phx_call_release(call);
}

void phx_rpc_server_set_serving(struct phx_rpc_server *server, const char *service, bool is_serving)
{
    size_t i = 0;

    while (i < server->n_health && strcmp(server->health[i].service, service) != 0)
        i++;
    phx_assert(i < PHX_HEALTH_SERVICES_MAX);
    if (i == server->n_health)
        server->health[server->n_health++].service = phx_mem_strdup(service);
    server->health[i].is_serving = is_serving;
    for (struct phx_rpc_call *call = server->watches; call != NULL; call = call->next)
        update_watch(call);
}

void phx_health_shutdown(struct phx_rpc_server *server)
{
    for (size_t i = 0; i < server->n_health; i++)
        server->health[i].is_serving = false;
    while (server->watches != NULL) {
        struct phx_rpc_call *call = server->watches;

        update_watch(call);
        phx_outbox_finish(&call->outbox, PHX_E_BUSY, "the daemon is stopping", -1);
        phx_health_unwatch(call);
    }
}
