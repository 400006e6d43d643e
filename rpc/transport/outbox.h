/* SPDX-License-Identifier: Apache-2.0
 * Private to rpc/transport/: the bounded send queue of one call.  gRPC allows one message in flight;
 * the rest waits here.  Any thread may push; completions come from the gRPC thread. */
#ifndef PHX_RPC_TRANSPORT_OUTBOX_H
#define PHX_RPC_TRANSPORT_OUTBOX_H

#include <pthread.h>

#include "rpc/transport/core.h"

struct phx_outbox_item;

struct phx_outbox {
    pthread_mutex_t lock;
    grpc_call      *call;
    void           *tag; /* of the batches started here */
    void (*hold)(void *owner); /* called before each batch: it keeps the owner alive */
    void           *owner;
    size_t          max_bytes;

    /* under the lock */
    struct phx_outbox_item *head, *tail;
    size_t                  queued_bytes; /* with the one in flight */
    size_t                  flight_bytes;
    grpc_byte_buffer       *flight;
    bool                    is_sending;
    bool                    is_server;
    bool                    is_metadata_sent;
    bool                    is_ending; /* finish was called: no more pushes */
    bool                    is_ended;  /* the final operation was started */
    bool                    is_dead;   /* the call is over: everything is dropped */
    grpc_status_code        status;
    grpc_slice              details;
    grpc_metadata           trailing[3];
    size_t                  n_trailing;
};

void phx_outbox_init(struct phx_outbox *o, bool is_server, size_t max_bytes);
void phx_outbox_fini(struct phx_outbox *o);
/* Takes the buffer in any case.  PHX_E_PEER when the call is over, PHX_E_BUSY over the limit. */
int phx_outbox_push(struct phx_outbox *o, grpc_byte_buffer *buffer);
/* After what is queued: the server's status (code 0 or PHX_E_*; retry_after_ms -1 = none), or with
 * `text` NULL and code 0 on a client: half-close.  Later calls change nothing. */
void phx_outbox_finish(struct phx_outbox *o, int code, const char *text, int64_t retry_after_ms);
/* As finish; rule "" = none. */
void phx_outbox_refuse(struct phx_outbox *o, int code, const char *text, const char *rule,
                       int64_t retry_after_ms);
/* As finish, with a gRPC status that no PHX_E_* code has. */
void phx_outbox_finish_status(struct phx_outbox *o, grpc_status_code status, const char *text);
/* A batch of this outbox completed. */
void phx_outbox_sent(struct phx_outbox *o, bool is_ok);
void phx_outbox_kill(struct phx_outbox *o); /* the call is over */
size_t phx_outbox_queued(struct phx_outbox *o);

#endif
