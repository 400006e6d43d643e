/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/transport/outbox.h"

#include <stdio.h>
#include <string.h>

struct phx_outbox_item {
    struct phx_outbox_item *next;
    grpc_byte_buffer       *buffer;
    size_t                  size;
};

void phx_outbox_init(struct phx_outbox *o, bool is_server, size_t max_bytes)
{
    memset(o, 0, sizeof(*o));
    phx_assert(pthread_mutex_init(&o->lock, NULL) == 0);
    o->is_server = is_server;
    o->is_metadata_sent = !is_server; /* clients send theirs when the call starts */
    o->max_bytes = max_bytes;
    o->details = grpc_empty_slice();
}

static void drop_all(struct phx_outbox *o)
{
    while (o->head != NULL) {
        struct phx_outbox_item *item = o->head;

        o->head = item->next;
        o->queued_bytes -= item->size;
        grpc_byte_buffer_destroy(item->buffer);
        phx_mem_free(item);
    }
    o->tail = NULL;
}

void phx_outbox_fini(struct phx_outbox *o)
{
    drop_all(o);
    if (o->flight != NULL)
        grpc_byte_buffer_destroy(o->flight);
    for (size_t i = 0; i < o->n_trailing; i++)
        grpc_slice_unref(o->trailing[i].value);
    grpc_slice_unref(o->details);
    (void)pthread_mutex_destroy(&o->lock); /* nobody holds it any more */
}

static void take_head(struct phx_outbox *o)
{
    struct phx_outbox_item *item = o->head;

    o->head = item->next;
    if (o->head == NULL)
        o->tail = NULL;
    o->flight = item->buffer;
    o->flight_bytes = item->size;
    phx_mem_free(item);
}

/* Starts the next batch when none is in flight: a message, or the end, or both at once. */
static void pump(struct phx_outbox *o)
{
    grpc_op ops[3];
    size_t  n = 0;

    if (o->is_sending || o->is_dead || o->is_ended || (o->head == NULL && !o->is_ending))
        return;
    memset(ops, 0, sizeof(ops));
    if (!o->is_metadata_sent) {
        ops[n++].op = GRPC_OP_SEND_INITIAL_METADATA;
        o->is_metadata_sent = true;
    }
    if (o->head != NULL) {
        take_head(o);
        ops[n].op = GRPC_OP_SEND_MESSAGE;
        ops[n++].data.send_message.send_message = o->flight;
    }
    if (o->head == NULL && o->is_ending) {
        o->is_ended = true;
        ops[n].op = o->is_server ? GRPC_OP_SEND_STATUS_FROM_SERVER : GRPC_OP_SEND_CLOSE_FROM_CLIENT;
        if (o->is_server) {
            ops[n].data.send_status_from_server.status = o->status;
            ops[n].data.send_status_from_server.status_details = &o->details;
            ops[n].data.send_status_from_server.trailing_metadata = o->trailing;
            ops[n].data.send_status_from_server.trailing_metadata_count = o->n_trailing;
        }
        n++;
    }
    o->is_sending = true;
    o->hold(o->owner);
    phx_assert(grpc_call_start_batch(o->call, ops, n, o->tag, NULL) == GRPC_CALL_OK);
}

int phx_outbox_push(struct phx_outbox *o, grpc_byte_buffer *buffer)
{
    size_t size = grpc_byte_buffer_length(buffer) + 64; /* with what gRPC adds */
    int    rc = 0;

    (void)pthread_mutex_lock(&o->lock);
    if (o->is_dead || o->is_ending) {
        rc = PHX_E_PEER;
    } else if (o->queued_bytes + size > o->max_bytes && o->queued_bytes > 0) {
        rc = PHX_E_BUSY;
    } else {
        struct phx_outbox_item *item = phx_mem_calloc(1, sizeof(*item));

        item->buffer = buffer;
        item->size = size;
        if (o->tail != NULL)
            o->tail->next = item;
        else
            o->head = item;
        o->tail = item;
        o->queued_bytes += size;
        pump(o);
    }
    (void)pthread_mutex_unlock(&o->lock);
    if (rc != 0)
        grpc_byte_buffer_destroy(buffer);
    return rc;
}

static void add_trailing(struct phx_outbox *o, const char *key, const char *value)
{
    grpc_metadata *m = &o->trailing[o->n_trailing++];

    m->key = grpc_slice_from_static_string(key);
    m->value = grpc_slice_from_copied_string(value);
}

void phx_outbox_finish(struct phx_outbox *o, int code, const char *text, int64_t retry_after_ms)
{
    phx_outbox_refuse(o, code, text, "", retry_after_ms);
}

void phx_outbox_refuse(struct phx_outbox *o, int code, const char *text, const char *rule,
                       int64_t retry_after_ms)
{
    (void)pthread_mutex_lock(&o->lock);
    if (!o->is_dead && !o->is_ending) {
        char number[32];

        o->is_ending = true;
        o->status = (grpc_status_code)phx_err_grpc(code);
        o->details = grpc_slice_from_copied_string(text != NULL ? text : "");
        if (code != 0)
            add_trailing(o, PHX_META_ERROR, phx_err_name(code));
        if (*rule != '\0')
            add_trailing(o, PHX_META_RULE, rule);
        if (retry_after_ms >= 0) {
            (void)snprintf(number, sizeof(number), "%lld", (long long)retry_after_ms);
            add_trailing(o, PHX_META_RETRY, number);
        }
        pump(o);
    }
    (void)pthread_mutex_unlock(&o->lock);
}

void phx_outbox_finish_status(struct phx_outbox *o, grpc_status_code status, const char *text)
{
    (void)pthread_mutex_lock(&o->lock);
    if (!o->is_dead && !o->is_ending) {
        o->is_ending = true;
        o->status = status;
        o->details = grpc_slice_from_copied_string(text);
        pump(o);
    }
    (void)pthread_mutex_unlock(&o->lock);
}

void phx_outbox_sent(struct phx_outbox *o, bool is_ok)
{
    (void)pthread_mutex_lock(&o->lock);
    o->is_sending = false;
    if (o->flight != NULL)
        grpc_byte_buffer_destroy(o->flight);
    o->flight = NULL;
    o->queued_bytes -= o->flight_bytes;
    o->flight_bytes = 0;
    if (is_ok) {
        pump(o);
    } else { /* the call is broken; its end is told elsewhere */
        o->is_dead = true;
        drop_all(o);
    }
    (void)pthread_mutex_unlock(&o->lock);
}

void phx_outbox_kill(struct phx_outbox *o)
{
    (void)pthread_mutex_lock(&o->lock);
    o->is_dead = true;
    drop_all(o);
    (void)pthread_mutex_unlock(&o->lock);
}

size_t phx_outbox_queued(struct phx_outbox *o)
{
    size_t bytes;

    (void)pthread_mutex_lock(&o->lock);
    bytes = o->queued_bytes;
    (void)pthread_mutex_unlock(&o->lock);
    return bytes;
}
