/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/rpc/transport/loop.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>

static void attached(void *ctx, struct phx_rpc_link *link, const struct phx_link_hello *hello,
                     const struct phx_rpc_peer *peer)
{
    struct test_loop        *t = ctx;
    struct phx_link_settings settings = {200, 1000};
    struct phx_err           err;

    (void)snprintf(t->last_name, sizeof(t->last_name), "%s", peer->common_name);
    atomic_fetch_add(&t->attached, 1);
    if (strcmp(hello->join_token, "secret") != 0)
        phx_rpc_link_close(link, PHX_E_UNAUTH, "the join token is not valid");
    else if (phx_rpc_link_welcome(link, &settings, &err) != 0)
        phx_assert(err.code == PHX_E_PEER); /* it went away before its turn came */
}

static void message(void *ctx, struct phx_rpc_link *link, const struct phx_link_msg *msg)
{
    struct test_loop *t = ctx;

    if (msg->kind == PHX_LINK_STEP) {
        uint64_t            ids[1] = {msg->u.step.step};
        struct phx_link_msg answer = {.kind = PHX_LINK_CANCEL};

        for (int32_t i = 0; i < msg->u.step.n_tokens; i++)
            atomic_fetch_add(&t->token_sum, (unsigned long long)msg->u.step.tokens[i].token);
        answer.u.cancel.seq_ids = ids;
        answer.u.cancel.n_seq_ids = 1;
        for (int i = 0; i < atomic_load(&t->echo); i++) {
            struct phx_err err;

            if (phx_rpc_link_send(link, &answer, &err) == PHX_E_BUSY)
                atomic_fetch_add(&t->busy_seen, 1);
        }
    }
    atomic_fetch_add(&t->messages, 1);
}

static void detached(void *ctx, struct phx_rpc_link *link, const struct phx_err *reason)
{
    struct test_loop *t = ctx;

    (void)link;
    atomic_store(&t->detach_code, reason->code);
    atomic_fetch_add(&t->detached, 1);
}

static void answer_stream(struct test_loop *t, struct phx_rpc_call *call, int method)
{
    struct phx_err err;

    for (int i = 0; i < atomic_load(&t->n_events); i++) {
        struct phx_rpc_answer answer = {0};

        if (method == PHX_RPC_INFERENCE_GENERATE) {
            answer.u.generate.kind = PHX_GENERATE_TEXT;
            answer.u.generate.text = "piece";
        } else {
            answer.u.event.reason = "test.event";
        }
        if (phx_rpc_stream_send(call, &answer, &err) != 0) {
            if (err.code == PHX_E_BUSY)
                atomic_fetch_add(&t->busy_seen, 1);
            return; /* `cancelled` follows */
        }
    }
    phx_rpc_stream_end(call);
}

static void request(void *ctx, struct phx_rpc_call *call, const struct phx_rpc_request *r)
{
    struct test_loop     *t = ctx;
    struct phx_rpc_answer answer = {0};
    struct phx_err        err;

    (void)snprintf(t->last_name, sizeof(t->last_name), "%s", r->peer.common_name);
    (void)snprintf(t->last_bearer, sizeof(t->last_bearer), "%s",
                   r->peer.bearer != NULL ? r->peer.bearer : "(none)");
    (void)snprintf(t->last_behalf, sizeof(t->last_behalf), "%s",
                   r->peer.on_behalf_of != NULL ? r->peer.on_behalf_of : "(none)");
    atomic_fetch_add(&t->requests, 1);
    if (atomic_load(&t->is_holding))
        return;
    if (r->method == PHX_RPC_CLUSTER_GET) {
        answer.u.cluster.cluster_id = "test-cluster";
        answer.u.cluster.is_ready = true;
        phx_rpc_reply(call, &answer);
    } else if (r->method == PHX_RPC_CLUSTER_DRAIN) {
        answer.u.done = (struct phx_cluster_done){2, (int32_t)r->u.target.timeout_ms};
        phx_rpc_reply(call, &answer);
    } else if (r->method == PHX_RPC_CLUSTER_RESTART) {
        (void)phx_fail(&err, PHX_E_STATE, "no replica is called %s", r->u.target.replica_id);
        phx_rpc_fail(call, &err, 1500);
    } else if (r->method >= PHX_RPC_ADMIT) {
        test_control_answer(call, r);
    } else {
        answer_stream(t, call, (int)r->method);
    }
}

static void cancelled(void *ctx, struct phx_rpc_call *call)
{
    struct test_loop *t = ctx;

    (void)call;
    atomic_fetch_add(&t->cancelled, 1);
}

static void *run(void *ctx)
{
    struct test_loop *t = ctx;

    while (!atomic_load(&t->is_stopping)) {
        struct pollfd p = {.fd = phx_rpc_server_fd(t->server), .events = POLLIN};

        int           health;

        (void)poll(&p, 1, 20);
        health = atomic_exchange(&t->health, 0);
        if (health != 0)
            phx_rpc_server_set_serving(t->server, "", health == 1);
        if (!atomic_load(&t->is_deaf))
            phx_rpc_server_dispatch(t->server);
    }
    phx_rpc_server_close(t->server, t->grace_ms);
    return NULL;
}

void test_loop_start(struct test_loop *t, size_t max_send_queue_bytes)
{
    struct phx_rpc_server_options o = {.listen = "127.0.0.1:0"};
    struct phx_err                err;

    memset(t, 0, sizeof(*t));
    t->ca = test_ca_create("test CA");
    test_ca_issue(t->ca, "phalanxd", &t->server_tls);
    test_ca_issue(t->ca, "rank-0", &t->client_tls);
    o.tls = t->server_tls;
    o.handlers = (struct phx_rpc_handlers){attached, message, detached, request, cancelled};
    o.ctx = t;
    o.max_send_queue_bytes = max_send_queue_bytes;
    phx_assert(phx_rpc_server_open(&t->server, &o, &err) == 0);
    (void)snprintf(t->target, sizeof(t->target), "127.0.0.1:%d", phx_rpc_server_port(t->server));
    phx_rpc_server_set_serving(t->server, "", true);
    t->grace_ms = 200;
    phx_assert(pthread_create(&t->thread, NULL, run, t) == 0);
}

void test_loop_stop(struct test_loop *t)
{
    atomic_store(&t->is_stopping, true);
    (void)pthread_join(t->thread, NULL);
    test_tls_fini(&t->server_tls);
    test_tls_fini(&t->client_tls);
    test_ca_destroy(t->ca);
}

struct phx_rpc_client_options test_loop_options(struct test_loop *t)
{
    return (struct phx_rpc_client_options){
        .target = t->target, .tls = t->client_tls, .timeout_ms = 5000};
}

bool test_wait_for(atomic_int *value, int want)
{
    for (int i = 0; i < 5000; i++) {
        if (atomic_load(value) >= want)
            return true;
        (void)poll(NULL, 0, 1);
    }
    return false;
}
