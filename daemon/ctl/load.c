/* SPDX-License-Identifier: Apache-2.0
 * The loop of a load: who sends when, by a rate (open loop, timed from when a request was due) or by what is free
 * (closed loop). */
#include "daemon/ctl/load.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"

enum { EVENTS = 256, PROGRESS_MS = 500, SUB_BITS = 6, RECONNECTS_MAX = 1000, LAST_ANSWERS_S = 60 };

/* ---- histogram ------------------------------------------------------------------------------------------- */

void phx_histogram_add(struct phx_histogram *h, int64_t ns)
{
    uint64_t v = ns > 0 ? (uint64_t)ns : 0;
    int      shift = v >> SUB_BITS > 0 ? 63 - SUB_BITS - __builtin_clzll(v) + 1 : 0;
    uint64_t bucket = ((uint64_t)shift << SUB_BITS) + (v >> shift);

    if (bucket >= PHX_HISTOGRAM_BUCKETS)
        bucket = PHX_HISTOGRAM_BUCKETS - 1;
    h->count[bucket]++;
    h->n++;
    h->sum_ns += (double)v;
    if (ns > h->max_ns)
        h->max_ns = ns;
}

double phx_histogram_ms(const struct phx_histogram *h, double quantile)
{
    uint64_t want = (uint64_t)(quantile * (double)h->n), sum = 0;

    for (uint64_t i = 0; i < PHX_HISTOGRAM_BUCKETS && h->n > 0; i++) {
        sum += h->count[i];
        if (sum > want || sum == h->n) {
            uint64_t shift = i >> SUB_BITS, low = (i & ((1u << SUB_BITS) - 1));
            double   ns = (double)(low << shift) + (double)(UINT64_C(1) << shift) / 2;

            return (ns < (double)h->max_ns ? ns : (double)h->max_ns) / 1e6;
        }
    }
    return 0;
}

/* ---- the run --------------------------------------------------------------------------------------------- */

struct run {
    const struct phx_load_options *o;
    struct phx_load_result        *result;
    phx_load_progress_fn           fn;
    void                          *ctx;
    SSL_CTX                       *tls;
    struct phx_load_conn          *conns;
    int32_t                       *idle;
    int32_t                        n_idle, n_open, n_reconnects;
    int                            epoll;
    int64_t                        began_ns, stop_ns, told_ns;
    int64_t                        number;
};

static int open_conn(struct run *r, int32_t i, struct phx_err *err)
{
    struct phx_load_conn *c = &r->conns[i];
    struct epoll_event    event = {.events = EPOLLIN, .data.u32 = (uint32_t)i};
    int                   rc;

    c->options = r->o;
    c->result = r->result;
    rc = phx_load_conn_open(c, r->tls, err);
    if (rc == 0 && epoll_ctl(r->epoll, EPOLL_CTL_ADD, c->fd, &event) != 0) {
        rc = phx_fail(err, PHX_E_IO, "epoll_ctl: %s", strerror(errno));
        phx_load_conn_close(c);
    }
    return rc;
}

static int reopen(struct run *r, int32_t i, struct phx_err *err)
{
    phx_load_conn_close(&r->conns[i]); /* which takes it out of the epoll set */
    if (++r->n_reconnects > RECONNECTS_MAX && r->n_reconnects > r->result->n_answered)
        return phx_fail(err, PHX_E_IO, "the server closes most connections: %.200s", r->result->first_failure);
    return open_conn(r, i, err);
}

static int send_again(struct run *r, int32_t i, struct phx_err *err)
{
    int64_t number = r->conns[i].number, due = r->conns[i].due_ns;
    int     rc = reopen(r, i, err);

    return rc == 0 ? phx_load_conn_send(&r->conns[i], number, due, err) : rc;
}

static int64_t due_of(const struct run *r, int64_t now)
{
    return r->o->rate > 0 ? r->began_ns + (int64_t)((double)r->number / r->o->rate * 1e9) : now;
}

static bool may_send(const struct run *r, int64_t due)
{
    return due < r->stop_ns && (r->o->requests_max == 0 || r->number < r->o->requests_max);
}

static int take_idle(struct run *r, int32_t *i, struct phx_err *err)
{
    int rc;

    if (r->n_idle > 0) {
        *i = r->idle[--r->n_idle];
        return 0;
    }
    rc = open_conn(r, r->n_open, err);
    if (rc == 0)
        *i = r->n_open++;
    return rc;
}

/* Everything that is due and has a connection. */
static int send_due(struct run *r, struct phx_err *err)
{
    int64_t now = phx_clock_mono_ns(), due = due_of(r, now);
    int     rc = 0;

    while (rc == 0 && due <= now && may_send(r, due) && (r->n_idle > 0 || r->n_open < r->o->connections)) {
        int32_t i = 0;

        rc = take_idle(r, &i, err);
        if (rc == 0 && phx_load_conn_send(&r->conns[i], r->number, due, err) != 0) {
            rc = reopen(r, i, err); /* an idle one that was closed meanwhile: once more */
            if (rc == 0)
                rc = phx_load_conn_send(&r->conns[i], r->number, due, err);
        }
        r->number++;
        r->result->n_sent++;
        now = phx_clock_mono_ns();
        r->result->n_late += r->o->rate > 0 && now - due > 1000000;
        due = due_of(r, now);
    }
    return rc;
}

static int take_event(struct run *r, int32_t i, struct phx_err *err)
{
    bool                may_reuse = true, was_busy = r->conns[i].is_busy;
    enum phx_load_state state = phx_load_conn_read(&r->conns[i], &may_reuse);

    if (!was_busy && state == PHX_LOAD_CLOSED) { /* an idle one was closed: it failed nobody */
        r->result->n_failed--;
        return reopen(r, i, err);
    }
    if (state == PHX_LOAD_MORE)
        return 0;
    if (state == PHX_LOAD_AGAIN)
        return send_again(r, i, err);
    r->idle[r->n_idle++] = i;
    return may_reuse && state == PHX_LOAD_DONE ? 0 : reopen(r, i, err);
}

static void tell(struct run *r, int64_t now)
{
    r->result->seconds = (double)(now - r->began_ns) / 1e9;
    if (r->fn != NULL && now - r->told_ns > (int64_t)PROGRESS_MS * 1000000) {
        r->told_ns = now;
        r->fn(r->ctx, r->result);
    }
}

static int loop(struct run *r, struct phx_err *err)
{
    int rc = 0;

    while (rc == 0) {
        struct epoll_event events[EVENTS];
        int64_t            now, due;
        struct timespec    wait = {0, 100000000};
        int                n;

        rc = send_due(r, err);
        now = phx_clock_mono_ns();
        due = due_of(r, now);
        if ((!may_send(r, due) && r->n_idle == r->n_open) || now > r->stop_ns + (int64_t)LAST_ANSWERS_S * 1000000000)
            break;
        if (may_send(r, due) && (r->n_idle > 0 || r->n_open < r->o->connections))
            wait.tv_nsec = due <= now ? 0 : due - now < wait.tv_nsec ? due - now : wait.tv_nsec;
        n = epoll_pwait2(r->epoll, events, EVENTS, &wait, NULL); /* to the nanosecond, so that it need not spin */
        for (int i = 0; i < n && rc == 0; i++)
            rc = take_event(r, (int32_t)events[i].data.u32, err);
        tell(r, phx_clock_mono_ns());
    }
    r->result->seconds = (double)(phx_clock_mono_ns() - r->began_ns) / 1e9;
    return rc;
}

static int open_tls(struct run *r, struct phx_err *err)
{
    if (!r->o->is_tls)
        return 0;
    r->tls = SSL_CTX_new(TLS_client_method());
    phx_assert(r->tls != NULL);
    SSL_CTX_set_verify(r->tls, SSL_VERIFY_PEER, NULL);
    if (r->o->ca_file != NULL ? SSL_CTX_load_verify_locations(r->tls, r->o->ca_file, NULL) != 1
                              : SSL_CTX_set_default_verify_paths(r->tls) != 1)
        return phx_fail(err, PHX_E_IO, "the CA certificates cannot be read");
    return 0;
}

static int run(struct run *r, struct phx_err *err)
{
    int rc = open_tls(r, err);

    while (rc == 0 && r->o->rate <= 0 && r->n_open < r->o->connections) {
        rc = open_conn(r, r->n_open, err);
        if (rc == 0) {
            r->idle[r->n_idle++] = r->n_open;
            r->n_open++;
        }
    }
    r->began_ns = r->told_ns = phx_clock_mono_ns();
    r->stop_ns = r->began_ns + (int64_t)(r->o->duration_s * 1e9);
    if (rc == 0)
        rc = loop(r, err);
    for (int32_t i = 0; i < r->n_open; i++) {
        r->result->n_failed += r->conns[i].is_busy; /* no answer within the time */
        phx_load_conn_close(&r->conns[i]);
    }
    SSL_CTX_free(r->tls);
    return rc;
}

int phx_load_run(const struct phx_load_options *options, phx_load_progress_fn fn, void *ctx, struct phx_load_result *out,
                 struct phx_err *err)
{
    struct run r = {.o = options, .result = out, .fn = fn, .ctx = ctx};
    int        rc;

    memset(out, 0, sizeof(*out));
    if (options->connections < 1 || options->connections > PHX_LOAD_CONNECTIONS_MAX)
        return phx_fail(err, PHX_E_INVALID, "connections: %d; 1 to %d are possible", options->connections,
                        PHX_LOAD_CONNECTIONS_MAX);
    r.epoll = epoll_create1(EPOLL_CLOEXEC);
    if (r.epoll < 0)
        return phx_fail(err, PHX_E_IO, "epoll: %s", strerror(errno));
    r.conns = phx_mem_calloc((size_t)options->connections, sizeof(*r.conns));
    r.idle = phx_mem_calloc((size_t)options->connections, sizeof(*r.idle));
    rc = run(&r, err);
    phx_mem_free(r.conns);
    phx_mem_free(r.idle);
    (void)close(r.epoll);
    return rc;
}
