/* SPDX-License-Identifier: Apache-2.0
 * A server for tests whose loop runs in its own thread and which writes down what it sees. */
#ifndef PHX_TESTS_LOOP_H
#define PHX_TESTS_LOOP_H

#include <pthread.h>
#include <stdatomic.h>

#include "rpc/rpc.h"
#include "tests/unit/rpc/transport/certs.h"

struct test_loop {
    struct test_ca        *ca;
    struct phx_rpc_tls     server_tls, client_tls;
    struct phx_rpc_server *server;
    char                   target[64];
    pthread_t              thread;
    atomic_bool            is_stopping;
    int                    grace_ms;

    /* what the handlers saw */
    atomic_int attached, detached, messages, requests, cancelled;
    atomic_int detach_code;
    atomic_ullong token_sum;
    char       last_name[128]; /* written before the counter that the test waits for */
    char       last_bearer[128];
    char       last_behalf[128];

    /* what they do */
    atomic_int echo;       /* every STEP is answered with that many CANCEL messages */
    atomic_bool is_holding; /* requests are left open */
    atomic_bool is_deaf;    /* the loop does not dispatch */
    atomic_int  n_events;   /* messages of each stream */
    atomic_int  health;     /* 1 serving, 2 not serving; 0 = leave it */
    atomic_int  busy_seen;  /* a send answered PHX_E_BUSY */
};

void test_loop_start(struct test_loop *t, size_t max_send_queue_bytes);
void test_loop_stop(struct test_loop *t);
struct phx_rpc_client_options test_loop_options(struct test_loop *t);
/* control.c: answers a request of Admission, License, Metering or Audit. */
void test_control_answer(struct phx_rpc_call *call, const struct phx_rpc_request *r);
/* Waits up to 5 s until *value >= want; false after that. */
bool test_wait_for(atomic_int *value, int want);

#endif
