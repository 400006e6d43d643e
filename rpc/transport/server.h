/* SPDX-License-Identifier: Apache-2.0
 * Private to rpc/transport/: the server's calls.
 *
 * Two threads touch a call.  The gRPC thread runs the completions, decodes what arrives and puts events
 * into the server's queue; the caller's thread takes them in phx_rpc_server_dispatch() and runs the
 * handlers.  Only the outbox (own lock), `n_unread` and `refs` (atomic) are shared; every other field is
 * written before the event that carries it across, or belongs to one side as noted. */
#ifndef PHX_RPC_TRANSPORT_SERVER_H
#define PHX_RPC_TRANSPORT_SERVER_H

#include <pthread.h>
#include <stdatomic.h>

#include "rpc/base/queue.h"
#include "rpc/transport/core.h"
#include "rpc/transport/outbox.h"

struct phx_event;

/* How a method is served. */
enum phx_method_kind {
    PHX_METHOD_UNSERVED = 0, /* declared, answered by UNIMPLEMENTED */
    PHX_METHOD_CALL,         /* unary or server stream: one request in */
    PHX_METHOD_LINK,         /* RankLink.Attach */
    PHX_METHOD_HEALTH_CHECK,
    PHX_METHOD_HEALTH_WATCH,
    PHX_METHOD_REFLECTION
};

struct phx_method {
    const char          *path; /* "/package.Service/Method" */
    enum phx_method_kind kind;
    enum phx_rpc_method  method; /* of PHX_METHOD_CALL */
};
const struct phx_method *phx_method_find(grpc_slice path); /* NULL = unknown */
const char *const       *phx_method_services(void);        /* NULL-terminated, for reflection */
const char              *phx_method_path(enum phx_rpc_method method);

enum phx_op_kind { PHX_OP_ACCEPT = 1, PHX_OP_CLOSE, PHX_OP_READ, PHX_OP_SEND, PHX_OP_SHUTDOWN };

/* The tag of a batch.  `is_armed` is set when the batch starts and taken back when it completes: it
 * publishes what the starting thread wrote, whatever gRPC does inside, and catches a double start. */
struct phx_op {
    atomic_bool          is_armed;
    struct phx_rpc_call *call; /* NULL for PHX_OP_SHUTDOWN */
    enum phx_op_kind     kind;
};

struct phx_rpc_link {
    struct phx_rpc_call *call;
};

struct phx_rpc_call {
    struct phx_rpc_server *server;
    atomic_int             refs; /* batches in flight, events in the queue, the handler's handle */
    struct phx_op          op_accept, op_close, op_read, op_send;

    /* gRPC thread */
    grpc_call           *call;
    grpc_call_details    details;
    grpc_metadata_array  metadata;
    grpc_byte_buffer    *received;
    bool                 is_read_done; /* the peer half-closed, or nothing more is wanted */
    int                  is_cancelled; /* filled by the close batch */
    bool                 has_hello;
    bool                 has_events; /* something was put into the queue */

    /* set on the gRPC thread before the first event */
    const struct phx_method *method;
    struct phx_arena        *arena;
    struct phx_rpc_peer      peer;
    int64_t                  deadline_mono_ns;
    bool                     is_counted;

    struct phx_outbox outbox;
    atomic_int        n_unread;  /* events not yet handled; reading pauses at the window */
    atomic_bool       is_paused;

    /* caller's thread */
    struct phx_rpc_link link;
    bool                is_open;    /* the handler holds the handle */
    bool                is_closed;  /* the call ended on the wire */
    int32_t             protocol;   /* of a link, once attached */
    bool                is_welcomed;
    struct phx_err      end_reason; /* of a link */
    void               *data;
    struct phx_rpc_call *prev, *next; /* list of open health watches */
    char                *watched;
    int                  watched_status; /* last one sent, -1 = none */
};

enum phx_event_kind {
    PHX_EVENT_MESSAGE = 1,
    PHX_EVENT_HALF_CLOSED, /* the peer has said all; what it said comes before this */
    PHX_EVENT_CLOSED
};

struct phx_event {
    struct phx_rpc_call *call;
    enum phx_event_kind  kind;
    struct phx_arena    *arena; /* owns the decoded message and this event */
    union {
        struct phx_rpc_request request;
        struct phx_link_msg    link;
        const char            *health_service;
        struct {
            uint8_t *data;
            size_t   size;
        } reflection;
    } u;
};

struct phx_health_entry {
    char *service;
    bool  is_serving;
};

enum { PHX_HEALTH_SERVICES_MAX = 32 };

struct phx_rpc_server {
    struct phx_rpc_handlers handlers;
    void                   *ctx;
    int                     max_calls;
    size_t                  max_send_bytes;
    int                     port;

    grpc_server           *server;
    grpc_completion_queue *cq;
    pthread_t              thread;
    struct phx_queue      *events;
    struct phx_op          op_shutdown;
    atomic_int             n_calls; /* accepted and not yet freed */
    atomic_bool            is_stopping;
    atomic_bool            is_shut; /* the shutdown notification came */

    /* caller's thread */
    struct phx_health_entry health[PHX_HEALTH_SERVICES_MAX];
    size_t                  n_health;
    struct phx_rpc_call    *watches;
};

void phx_op_arm(struct phx_op *op);    /* before each batch */
void phx_op_disarm(struct phx_op *op); /* first thing at its completion */

/* call.c: gRPC thread */
int  phx_call_accept(struct phx_rpc_server *server); /* asks for the next call; -1 when shutting down */
void phx_call_complete(struct phx_op *op, bool is_ok);
/* any thread */
void phx_call_hold(void *call);
void phx_call_release(struct phx_rpc_call *call);
void phx_call_handled(struct phx_rpc_call *call); /* one event was handled: goes on reading */
void phx_event_free(void *event);
/* identity.c: fills peer and deadline; an error text for what must be refused, else NULL */
const char *phx_call_identify(struct phx_rpc_call *call);

/* link.c, caller's thread */
void phx_link_event(struct phx_event *event);
/* health.c, caller's thread */
void phx_health_check(struct phx_rpc_call *call, const char *service);
void phx_health_watch(struct phx_rpc_call *call, const char *service);
void phx_health_unwatch(struct phx_rpc_call *call);
void phx_health_shutdown(struct phx_rpc_server *server);

#endif
