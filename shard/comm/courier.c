/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/comm/courier.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"

enum { PIECE_BYTES = 64 << 10, N_BUFFERS = 2, YIELDS = 50, FLUSH_MS = 1000 };

struct outgoing {
    struct phx_ring ring; /* reader's side */
    void           *memory;
    int32_t         peer, tag;
    uint8_t        *buffer[N_BUFFERS];
    MPI_Request     request[N_BUFFERS];
};

struct incoming {
    struct phx_ring ring; /* writer's side */
    int32_t         peer, tag;
    uint8_t        *buffer;
    MPI_Request     request;
    size_t          have, done; /* bytes received and already in the ring */
};

struct phx_courier {
    MPI_Comm          comm;
    struct outgoing   out[PHX_LINKS_MAX];
    struct incoming   in[PHX_LINKS_MAX];
    int32_t           n_out, n_in;
    struct phx_member remote; /* stands for all ranks elsewhere */
    _Atomic uint32_t  bell;
    _Atomic int32_t   is_stopping;
    pthread_t         thread;
    bool              is_running;
};

struct phx_courier *phx_courier_create(MPI_Comm comm)
{
    struct phx_courier *p = phx_mem_calloc(1, sizeof(*p));

    p->comm = comm;
    return p;
}

void phx_courier_add_out(struct phx_courier *p, struct phx_link *link)
{
    struct outgoing *o = &p->out[p->n_out++];

    o->memory = phx_mem_calloc(1, phx_ring_bytes(link->capacity));
    o->peer = link->peer;
    o->tag = (int32_t)link->kind;
    for (int32_t i = 0; i < N_BUFFERS; i++) {
        o->buffer[i] = phx_mem_calloc(1, PIECE_BYTES);
        o->request[i] = MPI_REQUEST_NULL;
    }
    phx_ring_attach(&o->ring, o->memory, link->capacity);
    link->ring = o->ring;
    link->ring.bell = &p->bell;
    link->ring.peer = &p->remote;
}

void phx_courier_add_in(struct phx_courier *p, struct phx_link *link)
{
    struct incoming *in = &p->in[p->n_in++];

    in->ring = link->ring;
    in->peer = link->peer;
    in->tag = (int32_t)link->kind;
    in->buffer = phx_mem_calloc(1, PIECE_BYTES);
    in->request = MPI_REQUEST_NULL;
    link->ring.peer = &p->remote;
}

/* An MPI error means that the other host is lost: every waiting call then answers PHX_E_PEER. */
static bool check(struct phx_courier *p, int mpi_rc)
{
    if (mpi_rc != MPI_SUCCESS)
        atomic_store(&p->remote.is_gone, 1);
    return mpi_rc == MPI_SUCCESS;
}

/* Sends pieces while buffers are free; true when something moved. */
static bool serve_out(struct phx_courier *p, struct outgoing *o)
{
    bool is_moving = false;

    for (int32_t i = 0; i < N_BUFFERS; i++) {
        int    is_free = 1;
        size_t n;

        if (o->request[i] != MPI_REQUEST_NULL &&
            !check(p, MPI_Test(&o->request[i], &is_free, MPI_STATUS_IGNORE)))
            return false;
        n = is_free ? phx_ring_take_some(&o->ring, o->buffer[i], PIECE_BYTES) : 0;
        if (n > 0 && !check(p, MPI_Isend(o->buffer[i], (int)n, MPI_BYTE, o->peer, o->tag, p->comm,
                                         &o->request[i])))
            return false;
        is_moving = is_moving || n > 0 || !is_free;
    }
    return is_moving;
}

static bool serve_in(struct phx_courier *p, struct incoming *in)
{
    MPI_Status status;
    int        is_there = 0, n = 0;

    if (in->have == in->done) {
        if (in->request == MPI_REQUEST_NULL) {
            in->have = in->done = 0;
            (void)check(p, MPI_Irecv(in->buffer, PIECE_BYTES, MPI_BYTE, in->peer, in->tag, p->comm,
                                     &in->request)); /* a failure shows in remote.is_gone */
        }
        if (!check(p, MPI_Test(&in->request, &is_there, &status)) || !is_there ||
            !check(p, MPI_Get_count(&status, MPI_BYTE, &n)))
            return false;
        in->have = (size_t)n;
        in->done = 0;
    }
    in->done += phx_ring_put_some(&in->ring, in->buffer + in->done, in->have - in->done);
    return true;
}

/* How long to sleep after so long without work: short waits find the answer of a step, long ones cost an
 * idle cluster nothing. */
static int64_t pause_ns(int64_t idle_ns)
{
    if (idle_ns < 20000000)
        return 50000;
    if (idle_ns < 200000000)
        return 200000;
    return idle_ns < 2000000000 ? 1000000 : 4000000;
}

static bool is_flushed(const struct phx_courier *p)
{
    for (int32_t i = 0; i < p->n_out; i++) {
        if (phx_ring_readable(&p->out[i].ring) > 0)
            return false;
        for (int32_t b = 0; b < N_BUFFERS; b++)
            if (p->out[i].request[b] != MPI_REQUEST_NULL)
                return false;
    }
    return true;
}

static void cancel(MPI_Request *request)
{
    if (*request == MPI_REQUEST_NULL)
        return;
    /* the world is closing: whether the message still came does not matter any more */
    (void)MPI_Cancel(request);
    (void)MPI_Request_free(request);
}

static void *run(void *arg)
{
    struct phx_courier *p = arg;
    int64_t             busy_ns = phx_clock_mono_ns(), stop_ns = 0;
    int32_t             n_yields = 0;

    for (;;) {
        uint32_t seen = atomic_load(&p->bell);
        bool     is_moving = false;
        int64_t  now;

        for (int32_t i = 0; i < p->n_out; i++)
            is_moving = serve_out(p, &p->out[i]) || is_moving;
        for (int32_t i = 0; i < p->n_in; i++)
            is_moving = serve_in(p, &p->in[i]) || is_moving;
        now = phx_clock_mono_ns();
        if (atomic_load(&p->is_stopping) != 0) {
            stop_ns = stop_ns == 0 ? now : stop_ns;
            if (is_flushed(p) || now - stop_ns > (int64_t)FLUSH_MS * 1000000 ||
                atomic_load(&p->remote.is_gone) != 0)
                break;
        }
        if (is_moving) {
            busy_ns = now;
            n_yields = 0;
        } else if (n_yields < YIELDS) {
            n_yields++;
            (void)sched_yield();
        } else {
            phx_futex_wait(&p->bell, seen, pause_ns(now - busy_ns));
        }
    }
    for (int32_t i = 0; i < p->n_in; i++)
        cancel(&p->in[i].request);
    for (int32_t i = 0; i < p->n_out; i++)
        for (int32_t b = 0; b < N_BUFFERS; b++)
            cancel(&p->out[i].request[b]);
    return NULL;
}

int phx_courier_start(struct phx_courier *p)
{
    sigset_t all, before;
    int      rc;

    /* signals stay with the thread that expects them */
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    rc = pthread_create(&p->thread, NULL, run, p);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    p->is_running = rc == 0;
    return rc == 0 ? 0 : PHX_E_INTERNAL;
}

void phx_courier_stop(struct phx_courier *p)
{
    if (p == NULL)
        return;
    atomic_store(&p->is_stopping, 1);
    atomic_fetch_add(&p->bell, 1);
    phx_futex_wake(&p->bell);
    if (p->is_running)
        (void)pthread_join(p->thread, NULL); /* our own thread, joined once */
    for (int32_t i = 0; i < p->n_out; i++) {
        phx_mem_free(p->out[i].memory);
        for (int32_t b = 0; b < N_BUFFERS; b++)
            phx_mem_free(p->out[i].buffer[b]);
    }
    for (int32_t i = 0; i < p->n_in; i++)
        phx_mem_free(p->in[i].buffer);
    phx_mem_free(p);
}
