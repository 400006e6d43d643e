/* SPDX-License-Identifier: Apache-2.0
 * The rank's end of RankLink.  One thread runs the completions and fills the inbound queue; the
 * caller's threads send through the outbox and take from the queue. */
#include <poll.h>
#include <stdatomic.h>
#include <string.h>

#include "rpc/base/clock.h"
#include "rpc/base/queue.h"
#include "rpc/transport/core.h"
#include "rpc/transport/outbox.h"

enum { DEFAULT_TIMEOUT_MS = 10000 };

struct phx_link {
    grpc_channel          *channel;
    grpc_completion_queue *cq;
    grpc_call             *call;
    pthread_t              thread;
    struct phx_outbox      outbox;
    struct phx_queue      *inbox;
    struct phx_link_msg   *welcome; /* owned: its texts are borrowed by the caller */

    /* tags: their addresses */
    char tag_start, tag_read, tag_send, tag_status;

    /* gRPC thread */
    grpc_metadata_array initial, trailing;
    grpc_byte_buffer   *received;
    grpc_status_code    status;
    grpc_slice          details;

    atomic_int  n_unread;
    atomic_bool is_paused;
    atomic_bool is_discarding; /* closing: nobody takes messages any more */
    atomic_bool is_over;

    struct phx_err end; /* written before the inbox is closed, read after */
};

static void hold_nothing(void *owner)
{
    (void)owner; /* the link outlives all batches: close drains the completion queue */
}

static void start_read(struct phx_link *link)
{
    grpc_op op = {.op = GRPC_OP_RECV_MESSAGE};

    op.data.recv_message.recv_message = &link->received;
    phx_assert(grpc_call_start_batch(link->call, &op, 1, &link->tag_read, NULL) == GRPC_CALL_OK);
}

static void free_message(void *msg)
{
    phx_link_msg_free(msg);
}

/* A message this build cannot read ends the link: the daemon would think it arrived. */
static struct phx_link_msg *decode(struct phx_link *link)
{
    struct phx_arena    *arena = phx_arena_create();
    struct phx_link_msg *msg = phx_arena_calloc(arena, 1, sizeof(*msg));
    grpc_slice           slice = grpc_empty_slice();
    struct phx_err       err = {0};
    int                  rc;

    if (!phx_core_read(link->received, &slice))
        rc = phx_fail(&err, PHX_E_FORMAT, "the message cannot be decompressed");
    else
        rc = phx_wire_decode_link(GRPC_SLICE_START_PTR(slice), GRPC_SLICE_LENGTH(slice),
                                  PHX_WIRE_FROM_DAEMON, arena, msg, &err);
    grpc_slice_unref(slice);
    msg->arena = arena;
    if (rc == 0)
        return msg;
    if (link->end.code == 0)
        link->end = err;
    (void)grpc_call_cancel(link->call, NULL);
    phx_arena_destroy(arena);
    return NULL;
}

static void finish(struct phx_link *link)
{
    if (link->end.code == 0 &&
        phx_core_status(link->status, link->details, &link->trailing, &link->end) == 0)
        (void)phx_fail(&link->end, PHX_E_PEER, "the daemon ended the link");
    atomic_store(&link->is_over, true);
    phx_outbox_kill(&link->outbox);
    phx_queue_close(link->inbox);
}

/* After a message: the next one, unless the caller is behind (then recv starts it again). */
static void read_on(struct phx_link *link)
{
    if (atomic_load(&link->n_unread) < PHX_RPC_READ_WINDOW || atomic_load(&link->is_discarding)) {
        start_read(link);
        return;
    }
    atomic_store(&link->is_paused, true);
    if ((atomic_load(&link->n_unread) < PHX_RPC_READ_WINDOW ||
         atomic_load(&link->is_discarding)) &&
        atomic_exchange(&link->is_paused, false))
        start_read(link);
}

static void complete_read(struct phx_link *link, bool is_ok)
{
    struct phx_link_msg *msg;

    if (!is_ok || link->received == NULL)
        return; /* no more messages: the status tells why */
    msg = decode(link);
    grpc_byte_buffer_destroy(link->received);
    link->received = NULL;
    if (msg == NULL)
        return;
    if (atomic_load(&link->is_discarding)) {
        phx_link_msg_free(msg);
    } else {
        (void)atomic_fetch_add(&link->n_unread, 1);
        if (phx_queue_push(link->inbox, msg) != 0) /* closed: the link ended in between */
            phx_link_msg_free(msg);
    }
    read_on(link);
}

static void *run(void *ctx)
{
    struct phx_link *link = ctx;
    bool             is_status_here = false;

    for (;;) {
        grpc_event event = grpc_completion_queue_next(
            link->cq, gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);

        if (event.type == GRPC_QUEUE_SHUTDOWN)
            return NULL;
        if (event.tag == &link->tag_send)
            phx_outbox_sent(&link->outbox, event.success != 0);
        else if (event.tag == &link->tag_read)
            complete_read(link, event.success != 0);
        else if (event.tag == &link->tag_status)
            is_status_here = true;
        if (is_status_here && !atomic_load(&link->is_over))
            finish(link);
    }
}

static void start_call(struct phx_link *link, const struct phx_rpc_client_options *options)
{
    grpc_metadata bearer;
    size_t        n_bearer = phx_core_bearer(options->bearer, &bearer);
    grpc_op       ops[2], status = {.op = GRPC_OP_RECV_STATUS_ON_CLIENT};

    memset(ops, 0, sizeof(ops));
    ops[0].op = GRPC_OP_SEND_INITIAL_METADATA;
    ops[0].data.send_initial_metadata.metadata = &bearer;
    ops[0].data.send_initial_metadata.count = n_bearer;
    ops[1].op = GRPC_OP_RECV_INITIAL_METADATA;
    ops[1].data.recv_initial_metadata.recv_initial_metadata = &link->initial;
    status.data.recv_status_on_client.trailing_metadata = &link->trailing;
    status.data.recv_status_on_client.status = &link->status;
    status.data.recv_status_on_client.status_details = &link->details;
    phx_assert(grpc_call_start_batch(link->call, ops, 2, &link->tag_start, NULL) == GRPC_CALL_OK);
    phx_assert(grpc_call_start_batch(link->call, &status, 1, &link->tag_status, NULL) ==
               GRPC_CALL_OK);
    if (n_bearer > 0)
        grpc_slice_unref(bearer.value);
    start_read(link);
}

static int send_hello(struct phx_link *link, const struct phx_link_hello *hello, struct phx_err *err)
{
    struct phx_link_msg msg = {.kind = PHX_LINK_HELLO};

    msg.u.hello = *hello;
    if (msg.u.hello.protocol_min == 0) {
        msg.u.hello.protocol_min = PHX_RPC_PROTOCOL_MIN;
        msg.u.hello.protocol_max = PHX_RPC_PROTOCOL_MAX;
    }
    if (msg.u.hello.build == NULL)
        msg.u.hello.build = PHX_VERSION;
    return phx_link_send(link, &msg, err);
}

static int await_welcome(struct phx_link *link, const struct phx_rpc_client_options *options,
                         struct phx_err *err)
{
    int timeout_ms = options->timeout_ms > 0 ? options->timeout_ms : DEFAULT_TIMEOUT_MS;
    int rc = phx_link_recv(link, timeout_ms, &link->welcome, err);

    if (rc == PHX_E_TIMEOUT)
        return phx_fail(err, rc, "%s did not welcome this rank within %d ms", options->target,
                        timeout_ms);
    if (rc != 0) {
        phx_err_prefix(err, "joining %.60s: ", options->target);
        return rc;
    }
    if (link->welcome->kind != PHX_LINK_WELCOME)
        return phx_fail(err, PHX_E_FORMAT, "joining %s: %s came before welcome", options->target,
                        phx_link_kind_name(link->welcome->kind));
    return 0;
}

int phx_link_connect(struct phx_link **out, const struct phx_rpc_client_options *options,
                     const struct phx_link_hello *hello, struct phx_link_welcome *welcome,
                     struct phx_err *err)
{
    struct phx_link *link = phx_mem_calloc(1, sizeof(*link));
    sigset_t         old;
    int              rc;

    *out = NULL;
    phx_core_open();
    phx_core_mask_signals(&old);
    grpc_metadata_array_init(&link->initial);
    grpc_metadata_array_init(&link->trailing);
    link->details = grpc_empty_slice();
    phx_outbox_init(&link->outbox, false, PHX_RPC_DEFAULT_QUEUE_BYTES);
    rc = phx_queue_create(&link->inbox, PHX_RPC_READ_WINDOW + 2, err);
    if (rc == 0)
        rc = phx_core_channel(options, &link->channel, err);
    if (rc == 0) {
        link->cq = grpc_completion_queue_create_for_next(NULL);
        link->call = grpc_channel_create_call(
            link->channel, NULL, GRPC_PROPAGATE_DEFAULTS, link->cq,
            grpc_slice_from_static_string("/phalanx.v1.RankLink/Attach"), NULL,
            gpr_inf_future(GPR_CLOCK_MONOTONIC), NULL);
        link->outbox.call = link->call;
        link->outbox.tag = &link->tag_send;
        link->outbox.hold = hold_nothing;
        phx_assert(pthread_create(&link->thread, NULL, run, link) == 0);
        start_call(link, options);
        rc = send_hello(link, hello, err);
    }
    phx_core_unmask_signals(&old);
    if (rc == 0)
        rc = await_welcome(link, options, err);
    if (rc != 0) {
        phx_link_close(link, 0);
        return rc;
    }
    if (welcome != NULL)
        *welcome = link->welcome->u.welcome;
    *out = link;
    return 0;
}

int phx_link_send(struct phx_link *link, const struct phx_link_msg *msg, struct phx_err *err)
{
    struct phx_arena   *arena = phx_arena_create();
    struct phx_wire_out out;
    int                 rc = phx_wire_encode_link(msg, arena, &out, err);

    if (rc == 0) {
        rc = phx_outbox_push(&link->outbox, phx_core_pack(&out));
        if (rc == PHX_E_PEER)
            (void)phx_fail(err, rc, "the daemon is gone");
        if (rc == PHX_E_BUSY)
            (void)phx_fail(err, rc, "the daemon reads too slowly: %zu bytes wait",
                           phx_outbox_queued(&link->outbox));
    }
    phx_arena_destroy(arena);
    return rc;
}

int phx_link_recv(struct phx_link *link, int timeout_ms, struct phx_link_msg **msg,
                  struct phx_err *err)
{
    *msg = phx_queue_pop(link->inbox, timeout_ms);
    if (*msg != NULL) {
        if (atomic_fetch_sub(&link->n_unread, 1) <= PHX_RPC_READ_WINDOW / 2 &&
            atomic_exchange(&link->is_paused, false))
            start_read(link);
        return 0;
    }
    if (phx_queue_is_closed(link->inbox))
        return phx_fail(err, link->end.code, "%s", link->end.text);
    return phx_fail(err, PHX_E_TIMEOUT, "no message within %d ms", timeout_ms);
}

bool phx_link_is_connected(const struct phx_link *link)
{
    return !atomic_load(&link->is_over);
}

int phx_link_fd(const struct phx_link *link)
{
    return phx_queue_fd(link->inbox);
}

/* What was sent leaves first (half-close), then the daemon's status comes; else the call is cut. */
static void end_call(struct phx_link *link, int flush_ms)
{
    int64_t end_ns = phx_clock_mono_ns() + (int64_t)flush_ms * 1000000;

    atomic_store(&link->is_discarding, true);
    if (atomic_exchange(&link->is_paused, false))
        start_read(link);
    if (flush_ms > 0)
        phx_outbox_finish(&link->outbox, 0, NULL, -1);
    while (!atomic_load(&link->is_over) && phx_clock_mono_ns() < end_ns)
        (void)poll(NULL, 0, 1);
    (void)grpc_call_cancel(link->call, NULL);
    while (!atomic_load(&link->is_over))
        (void)poll(NULL, 0, 1); /* a cancelled call ends at once */
}

void phx_link_close(struct phx_link *link, int flush_ms)
{
    if (link == NULL)
        return;
    if (link->call != NULL) {
        end_call(link, flush_ms);
        grpc_completion_queue_shutdown(link->cq);
        (void)pthread_join(link->thread, NULL); /* it ends when the queue is empty */
        grpc_call_unref(link->call);
        grpc_completion_queue_destroy(link->cq);
    }
    if (link->channel != NULL)
        grpc_channel_destroy(link->channel);
    if (link->received != NULL)
        grpc_byte_buffer_destroy(link->received);
    phx_outbox_fini(&link->outbox);
    grpc_metadata_array_destroy(&link->initial);
    grpc_metadata_array_destroy(&link->trailing);
    grpc_slice_unref(link->details);
    phx_link_msg_free(link->welcome);
    phx_queue_destroy(link->inbox, free_message);
    phx_core_close();
    phx_mem_free(link);
}
