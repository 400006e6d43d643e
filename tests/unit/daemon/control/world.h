/* SPDX-License-Identifier: Apache-2.0
 * A daemon's records and its gRPC server with License, Metering and Audit behind it; the loop runs in a thread of
 * its own.  Fill the store before world_start(). */
#ifndef PHX_TESTS_CONTROL_WORLD_H
#define PHX_TESTS_CONTROL_WORLD_H

#include <pthread.h>
#include <stdatomic.h>

#include "daemon/control/control.h"
#include "daemon/daemon.h"
#include "daemon/ledger/ledger.h"
#include "daemon/store/store.h"
#include "tests/unit/daemon/license/forge.h"
#include "tests/unit/rpc/transport/certs.h"

/* The clients there are. */
enum world_who {
    WORLD_CONSOLE = 0, /* the operator's certificate, no key */
    WORLD_RANK,        /* a rank's certificate and the admin's key */
    WORLD_NOBODY,      /* some certificate, no key */
    WORLD_USER,        /* some certificate and a key of that role; so are the rest */
    WORLD_OPERATOR,
    WORLD_AUDITOR,
    WORLD_ADMIN,
    WORLD_CLIENTS
};

struct world {
    char                   dir[64], target[64];
    struct phx_daemon      d;
    struct phx_control    *control;
    struct test_ca        *ca;
    struct phx_rpc_tls     server_tls, console_tls, rank_tls, other_tls;
    char                   keys[WORLD_CLIENTS][PHX_KEY_TEXT_BYTES];
    struct event          *rpc_event, *stop_event;
    pthread_t              thread;
    atomic_bool            is_stopping;
    bool                   is_started;
    struct phx_rpc_client *clients[WORLD_CLIENTS];
    struct phx_arena      *arena; /* of answers */
    struct phx_err         err;   /* of the last call */
    int64_t                now_ns; /* T when it was opened */
};

/* has_license: a valid one of 500 seats, else none. */
void world_open(struct world *w, struct forge *forge, bool has_license);
void world_start(struct world *w);
void world_close(struct world *w);
/* A unary call as that client; answer may be NULL.  0 or the code, with w->err. */
int world_ask(struct world *w, enum world_who who, const struct phx_rpc_request *q,
              struct phx_rpc_answer *answer);
/* A request that only lacks a reason to be refused for its form. */
struct phx_rpc_request world_request(enum phx_rpc_method method);
/* Runs a job on the store and expects that it is durable. */
void world_write(struct world *w, phx_store_fn fn, void *ctx);
/* Requests of one user, an hour apart: 10 prompt tokens and 5 more each time; ids rcpt_<n>. */
void world_use(struct world *w, const char *tenant, const char *user, int n);

#endif
