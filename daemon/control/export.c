/* SPDX-License-Identifier: Apache-2.0
 * Metering.Export: the ledger in pieces, by id.  Each step reads a bounded piece and sends it; the next one
 * begins when the client has taken most of it, so a slow client holds up nobody.  FOCUS lines are sums over
 * the whole range: they are read at once and sent in pieces. */
#include <event2/event.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/control/job.h"
#include "daemon/ledger/ledger.h"
#include "daemon/store/store.h"
#include "daemon/usage/usage.h"

enum {
    STEP_IDS = 256,              /* ledger rows looked at before the size is */
    STEP_IDS_MAX = 1 << 20,      /* looked at in one step when few of them count */
    PIECE_BYTES = 256 << 10,     /* a message is about so large */
    WHOLE_MAX_BYTES = 64 << 20,  /* FOCUS */
    QUEUED_MAX_BYTES = 1 << 20,  /* unsent: above, it waits */
    WAIT_MS = 20
};

struct export {
    struct phx_control_job *job;
    struct phx_usage_report report;
    enum phx_usage_format   format;
    int64_t                 from, next, to; /* ids; to 0 = not known yet */
    struct phx_buf          text;
    size_t                  sent; /* of text */
    bool                    has_header;
    struct event           *timer;
};

static void on_destroyed(void *ctx)
{
    struct export *e = ctx;

    phx_buf_fini(&e->text);
    if (e->timer != NULL)
        event_free(e->timer);
}

/* ---- reading --------------------------------------------------------------------------------------- */

static int take_text(void *ctx, const void *data, size_t size)
{
    struct export *e = ctx;
    size_t         max = e->format == PHX_USAGE_FOCUS ? (size_t)WHOLE_MAX_BYTES : PHX_RPC_EXPORT_MAX_BYTES;

    if (size > max - e->text.size)
        return PHX_E_TOOBIG;
    phx_buf_put(&e->text, data, size);
    return 0;
}

static int write_ids(struct phx_tx *tx, struct export *e, int64_t below, struct phx_err *err)
{
    e->report.filter.from_id = e->next;
    e->report.filter.below_id = below;
    e->report.has_no_header = e->has_header;
    return phx_usage_write(tx, &e->report, e->format, take_text, e, err);
}

static int read_whole(struct phx_tx *tx, struct export *e, struct phx_err *err)
{
    int rc = write_ids(tx, e, e->to, err);

    if (rc == PHX_E_TOOBIG)
        return phx_fail(err, rc, "the range gives over %d MiB: ask for less", WHOLE_MAX_BYTES >> 20);
    e->next = e->to;
    return rc;
}

static int read_rows(struct phx_tx *tx, struct export *e, struct phx_err *err)
{
    int64_t step = STEP_IDS, first = e->next;

    while (e->next < e->to && e->text.size < PIECE_BYTES && e->next - first < STEP_IDS_MAX) {
        size_t  mark = e->text.size;
        int64_t below = e->to - e->next > step ? e->next + step : e->to;
        int     rc = write_ids(tx, e, below, err);

        if (rc == PHX_E_TOOBIG) { /* taken back */
            e->text.size = mark;
            if (mark > 0)
                return 0;
            if (step == 1)
                return phx_fail(err, rc, "row %" PRId64 " is longer than a message may be", e->next);
            step /= 2;
            continue;
        }
        if (rc != 0)
            return rc;
        e->has_header = true;
        e->next = below;
    }
    return 0;
}

static int read_step(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct export *e = ctx;
    int64_t        last_id = 0;
    int            rc = phx_ledger_last_id(tx, &last_id, err);

    if (rc != 0)
        return rc;
    if (e->to == 0 || e->to > last_id + 1)
        e->to = last_id + 1;
    if (e->next >= e->to) {
        e->to = e->next; /* nothing there: the cursor stays */
        return 0;
    }
    return e->format == PHX_USAGE_FOCUS ? read_whole(tx, e, err) : read_rows(tx, e, err);
}

static int work_step(struct phx_control_job *job, struct phx_err *err)
{
    struct export *e = job->state;

    phx_buf_clear(&e->text);
    e->sent = 0;
    return phx_store_read(job->d->store, read_step, e, err);
}

/* ---- sending --------------------------------------------------------------------------------------- */

static void go_on(struct export *e);

/* A line ends at a line feed outside quotes. */
static size_t find_piece(const struct phx_buf *text, size_t from)
{
    size_t end = text->size;
    bool   is_quoted = false;

    if (text->size - from <= PHX_RPC_EXPORT_MAX_BYTES)
        return end - from;
    for (size_t i = from; i < from + PHX_RPC_EXPORT_MAX_BYTES; i++) {
        if (text->data[i] == '"')
            is_quoted = !is_quoted;
        else if (text->data[i] == '\n' && !is_quoted)
            end = i + 1;
    }
    return end == text->size ? PHX_RPC_EXPORT_MAX_BYTES : end - from; /* no line is that long */
}

/* The client may go on at `next` only when it has all before it. */
static int send_piece(struct export *e, struct phx_err *err)
{
    size_t                size = find_piece(&e->text, e->sent);
    bool                  is_last = e->sent + size == e->text.size;
    struct phx_rpc_answer answer = {
        .u.usage_export = {{e->text.size > 0 ? e->text.data + e->sent : NULL, size},
                           (uint64_t)(is_last ? e->next : e->from)}};

    e->sent += size;
    return phx_rpc_stream_send(e->job->call, &answer, err);
}

static void on_step(struct phx_control_job *job, const struct phx_err *err)
{
    if (err != NULL)
        phx_control_fail(job, err, -1);
    else
        go_on(job->state);
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct export *e = ctx;

    (void)fd;
    (void)what;
    e->job->is_waiting = false;
    go_on(e);
}

static void wait_for_client(struct export *e)
{
    struct timeval tv = {0, WAIT_MS * 1000};

    e->job->is_waiting = true;
    if (e->timer == NULL)
        e->timer = event_new(e->job->d->base, -1, 0, on_timer, e);
    phx_assert(e->timer != NULL && event_add(e->timer, &tv) == 0);
}

/* Sends what was read, then reads on, until the end; an end without rows still tells the cursor. */
static void go_on(struct export *e)
{
    struct phx_control_job *job = e->job;
    struct phx_err          err = {0};

    while (job->call != NULL && (e->sent < e->text.size || (e->text.size == 0 && e->next == e->to))) {
        bool is_empty = e->text.size == 0;

        if (phx_rpc_stream_queued(job->call) > QUEUED_MAX_BYTES) {
            wait_for_client(e);
            return;
        }
        if (send_piece(e, &err) != 0) {
            job->call = NULL; /* it is gone, or told to go */
            break;
        }
        if (is_empty)
            break;
    }
    if (job->call == NULL) {
        phx_control_end(job);
    } else if (e->next == e->to) {
        phx_rpc_stream_end(job->call);
        phx_control_end(job);
    } else {
        phx_control_read(job, work_step, on_step);
    }
}

/* ---- beginning ------------------------------------------------------------------------------------- */

static int write_leaf(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct phx_control_job *job = ctx;
    const struct export          *e = job->state;
    char                          range[64];

    (void)snprintf(range, sizeof(range), "ledger %" PRId64 " to %" PRId64, e->next, e->to);
    return phx_audit_event(tx, "admin", "usage.stream", range, job->by, phx_usage_format_name(e->format),
                           job->now_ns, err);
}

static void on_leaf(void *ctx, const struct phx_err *err)
{
    struct phx_control_job *job = ctx;

    if (err != NULL)
        phx_control_finish(job, err);
    else
        phx_control_read(job, work_step, on_step);
}

void phx_control_export(struct phx_control_job *job, const struct phx_rpc_usage_export *request)
{
    static const enum phx_usage_format formats[] = {0, PHX_USAGE_CLOUDEVENTS, PHX_USAGE_CSV,
                                                    PHX_USAGE_FOCUS};
    struct export *e = phx_arena_calloc(job->arena, 1, sizeof(*e));
    struct phx_err err = {0};

    phx_arena_cleanup(job->arena, on_destroyed, e);
    phx_buf_init(&e->text, 0);
    job->state = e;
    e->job = job;
    e->format = formats[request->format];
    e->report.cluster_id = job->d->cluster_id;
    e->report.firm = job->d->cluster_id;
    if (phx_control_usage_filter(job, &request->filter, &e->report.filter, &err) == 0 &&
        (request->from_index > INT64_MAX / 2 || request->to_index > INT64_MAX / 2))
        (void)phx_fail(&err, PHX_E_INVALID, "from_index, to_index: the ledger has no such row"); /* told */
    if (err.code != 0) {
        phx_control_fail(job, &err, -1);
        return;
    }
    e->from = e->next = request->from_index > 0 ? (int64_t)request->from_index : 1;
    e->to = (int64_t)request->to_index;
    phx_store_submit(job->d->store, write_leaf, on_leaf, job);
}
