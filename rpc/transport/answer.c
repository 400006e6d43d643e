/* SPDX-License-Identifier: Apache-2.0
 * Answers to calls.  Everything here runs on the caller's thread. */
#include <string.h>

#include "rpc/base/log.h"
#include "rpc/transport/server.h"

static void let_go(struct phx_rpc_call *call)
{
    phx_assert(call->is_open); /* a handle is used once */
    call->is_open = false;
    phx_call_release(call);
}

static int encode(struct phx_rpc_call *call, const struct phx_rpc_answer *answer,
                  grpc_byte_buffer **buffer, struct phx_err *err)
{
    struct phx_arena   *arena = phx_arena_create();
    struct phx_wire_out out;
    int                 rc;

    rc = phx_wire_encode_answer(call->method->method, answer, arena, &out, err);
    if (rc == 0)
        *buffer = phx_core_pack(&out);
    phx_arena_destroy(arena);
    return rc;
}

void phx_rpc_reply(struct phx_rpc_call *call, const struct phx_rpc_answer *answer)
{
    grpc_byte_buffer *buffer;
    struct phx_err    err = {0};

    if (encode(call, answer, &buffer, &err) != 0) {
        phx_log(PHX_LOG_ERROR, "rpc.answer.invalid", "method=%s error=%s", call->method->path,
                err.text);
        phx_outbox_finish(&call->outbox, PHX_E_INTERNAL, err.text, -1);
    } else {
        (void)phx_outbox_push(&call->outbox, buffer); /* a client that is gone needs no answer */
        phx_outbox_finish(&call->outbox, 0, "", -1);
    }
    let_go(call);
}

void phx_rpc_fail(struct phx_rpc_call *call, const struct phx_err *err, int64_t retry_after_ms)
{
    phx_rpc_refuse(call, err, "", retry_after_ms);
}

void phx_rpc_refuse(struct phx_rpc_call *call, const struct phx_err *err, const char *rule,
                    int64_t retry_after_ms)
{
    phx_assert(err->code != 0);
    phx_assert(strlen(rule) < sizeof(((struct phx_rpc_refusal *)0)->rule));
    phx_assert(rule[strspn(rule, "abcdefghijklmnopqrstuvwxyz0123456789._-")] == '\0');
    phx_outbox_refuse(&call->outbox, err->code, err->text, rule, retry_after_ms);
    let_go(call);
}

int phx_rpc_stream_send(struct phx_rpc_call *call, const struct phx_rpc_answer *answer,
                        struct phx_err *err)
{
    grpc_byte_buffer *buffer;
    int               rc = encode(call, answer, &buffer, err);

    phx_assert(call->is_open);
    if (rc != 0)
        return rc;
    rc = phx_outbox_push(&call->outbox, buffer);
    if (rc == PHX_E_PEER)
        return phx_fail(err, rc, "the client is gone");
    if (rc == PHX_E_BUSY) {
        (void)grpc_call_cancel_with_status(call->call, GRPC_STATUS_RESOURCE_EXHAUSTED,
                                           "reads too slowly", NULL);
        return phx_fail(err, rc, "the client reads too slowly: %zu bytes wait",
                        phx_outbox_queued(&call->outbox));
    }
    return 0;
}

size_t phx_rpc_stream_queued(const struct phx_rpc_call *call)
{
    return phx_outbox_queued((struct phx_outbox *)&call->outbox); /* takes its lock only */
}

void phx_rpc_stream_end(struct phx_rpc_call *call)
{
    phx_outbox_finish(&call->outbox, 0, "", -1);
    let_go(call);
}

void phx_rpc_call_set_data(struct phx_rpc_call *call, void *data)
{
    call->data = data;
}

void *phx_rpc_call_data(const struct phx_rpc_call *call)
{
    return call->data;
}

const struct phx_rpc_peer *phx_rpc_call_peer(const struct phx_rpc_call *call)
{
    return &call->peer;
}
