/* SPDX-License-Identifier: Apache-2.0
 * The world of an MPI job.  Ranks of a host share a window that holds everybody's incoming rings; ranks
 * on other hosts are reached through the courier. */
#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/mem.h"
#include "shard/comm/courier.h"
#include "shard/comm/world.h"

struct mpi_world {
    MPI_Comm            all, host; /* owned duplicates */
    MPI_Win             window;
    uint8_t           **segment; /* per world rank; NULL on other hosts; owned array */
    struct phx_courier *courier; /* NULL when all ranks share this host */
};

static void close_mpi(struct phx_comm *c)
{
    struct mpi_world *w = c->world;

    phx_courier_stop(w->courier);
    /* these wait for the other ranks; after a death the process is about to end anyway */
    if (!c->is_broken) {
        if (w->window != MPI_WIN_NULL)
            (void)MPI_Win_free(&w->window);
        if (w->host != MPI_COMM_NULL)
            (void)MPI_Comm_free(&w->host);
        if (w->all != MPI_COMM_NULL)
            (void)MPI_Comm_free(&w->all);
    }
    phx_mem_free(w->segment);
    phx_mem_free(w);
}

static int fail_mpi(struct phx_err *err, const char *what, int mpi_rc)
{
    char text[MPI_MAX_ERROR_STRING];
    int  n = 0;

    (void)MPI_Error_string(mpi_rc, text, &n); /* an unknown code leaves the text empty */
    return phx_fail(err, PHX_E_PEER, "%s: %.*s", what, n, text);
}

/* The ranks that share memory with this one; in tests fewer than really do. */
static int split_hosts(struct phx_comm *c, struct mpi_world *w, struct phx_err *err)
{
    int rc = MPI_Comm_dup(MPI_COMM_WORLD, &w->all), place = 0;

    if (rc == MPI_SUCCESS)
        rc = MPI_Comm_set_errhandler(w->all, MPI_ERRORS_RETURN);
    if (rc == MPI_SUCCESS)
        rc = MPI_Comm_split_type(w->all, MPI_COMM_TYPE_SHARED, c->shape.rank, MPI_INFO_NULL, &w->host);
    if (rc == MPI_SUCCESS && c->limits.ranks_per_host > 0) {
        MPI_Comm whole = w->host;

        rc = MPI_Comm_rank(whole, &place);
        if (rc == MPI_SUCCESS)
            rc = MPI_Comm_split(whole, place / c->limits.ranks_per_host, place, &w->host);
        (void)MPI_Comm_free(&whole);
    }
    if (rc == MPI_SUCCESS)
        rc = MPI_Comm_set_errhandler(w->host, MPI_ERRORS_RETURN);
    return rc == MPI_SUCCESS ? 0 : fail_mpi(err, "split the ranks by host", rc);
}

/* A window may start at any address; its maps start on pages, so all ranks round to the same byte. */
static uint8_t *round_to_line(uint8_t *p)
{
    return p + (PHX_RING_LINE - (uintptr_t)p % PHX_RING_LINE) % PHX_RING_LINE;
}

/* Makes this rank's segment; heads of rings start at zero before anybody looks. */
static int make_segment(struct phx_comm *c, struct mpi_world *w, struct phx_err *err)
{
    MPI_Info info = MPI_INFO_NULL;
    size_t   size = (phx_segment_bytes(c->in, c->n_in) + PHX_RING_LINE + 4095) & ~(size_t)4095;
    uint8_t *mine = NULL;
    int      rc = MPI_Info_create(&info);

    /* each segment begins on a page of its own */
    if (rc == MPI_SUCCESS)
        rc = MPI_Info_set(info, "alloc_shared_noncontig", "true");
    if (rc == MPI_SUCCESS)
        rc = MPI_Win_allocate_shared((MPI_Aint)size, 1, info, w->host, &mine, &w->window);
    if (info != MPI_INFO_NULL)
        (void)MPI_Info_free(&info);
    if (rc != MPI_SUCCESS)
        return fail_mpi(err, "make the shared window (is /dev/shm large enough?)", rc);
    mine = round_to_line(mine);
    c->member = (struct phx_member *)(void *)mine;
    memset(c->member, 0, sizeof(*c->member));
    atomic_store(&c->member->pid, (int32_t)getpid());
    for (int32_t i = 0; i < c->n_in; i++)
        memset(mine + c->in[i].offset, 0, sizeof(struct phx_ring_head));
    rc = MPI_Barrier(w->host);
    return rc == MPI_SUCCESS ? 0 : fail_mpi(err, "meet the ranks of this host", rc);
}

/* Where everybody's segment lies in this process. */
static int find_segments(struct phx_comm *c, struct mpi_world *w, struct phx_err *err)
{
    int32_t n_ranks = c->shape.n_ranks;
    int     n = 0, rc = MPI_Comm_size(w->host, &n);

    w->segment = phx_mem_calloc((size_t)n_ranks, sizeof(*w->segment));
    c->members = phx_mem_calloc((size_t)n_ranks, sizeof(struct phx_member *));
    c->member_rank = phx_mem_calloc((size_t)n_ranks, sizeof(*c->member_rank));
    if (rc == MPI_SUCCESS)
        rc = MPI_Allgather(&c->shape.rank, 1, MPI_INT32_T, c->member_rank, 1, MPI_INT32_T, w->host);
    for (int i = 0; i < n && rc == MPI_SUCCESS; i++) {
        MPI_Aint size;
        int      unit;
        uint8_t *start = NULL;

        rc = MPI_Win_shared_query(w->window, i, &size, &unit, &start);
        w->segment[c->member_rank[i]] = round_to_line(start);
        c->members[c->n_members++] = (struct phx_member *)(void *)w->segment[c->member_rank[i]];
    }
    return rc == MPI_SUCCESS ? 0 : fail_mpi(err, "find the shared windows", rc);
}

/* Whose death this rank can see for itself (same host, same pid namespace). */
static void watch(struct phx_ring *r, const uint8_t *segment, int64_t spin_ns)
{
    int32_t pid;

    r->peer = (const struct phx_member *)(const void *)segment;
    pid = atomic_load(&r->peer->pid);
    r->is_pid_watched = pid > 0 && pid != getpid() && (kill(pid, 0) == 0 || errno == EPERM);
    r->spin_ns = spin_ns;
}

static int check_threads(struct phx_err *err)
{
    int level = MPI_THREAD_SINGLE;

    if (MPI_Query_thread(&level) != MPI_SUCCESS || level < MPI_THREAD_SERIALIZED)
        return phx_fail(err, PHX_E_STATE, "the ranks span hosts: start MPI with MPI_THREAD_SERIALIZED");
    return 0;
}

/* Cores of the ranks of this host together: each of them may be bound to cores of its own. */
static int count_cores(struct mpi_world *w, int32_t *n_cores, struct phx_err *err)
{
    cpu_set_t mine, all;
    int       rc;

    CPU_ZERO(&mine);
    CPU_ZERO(&all);
    if (sched_getaffinity(0, sizeof(mine), &mine) != 0)
        CPU_ZERO(&mine); /* not known: this rank adds none */
    rc = MPI_Allreduce(&mine, &all, (int)sizeof(all), MPI_BYTE, MPI_BOR, w->host);
    *n_cores = CPU_COUNT(&all);
    return rc == MPI_SUCCESS ? 0 : fail_mpi(err, "count the cores of this host", rc);
}

static int attach(struct phx_comm *c, struct mpi_world *w, struct phx_err *err)
{
    int32_t n_cores;
    int     rc = count_cores(w, &n_cores, err);

    if (rc == 0 && c->n_members < c->shape.n_ranks) {
        rc = check_threads(err);
        w->courier = phx_courier_create(w->all);
    }
    if (rc != 0)
        return rc;
    for (int32_t i = 0; i < c->n_in; i++) {
        struct phx_link *k = &c->in[i];

        phx_ring_attach(&k->ring, w->segment[c->shape.rank] + k->offset, k->capacity);
        if (w->segment[k->peer] != NULL)
            watch(&k->ring, w->segment[k->peer], phx_spin_ns(k->kind, n_cores, c->n_members));
        else
            phx_courier_add_in(w->courier, k);
    }
    for (int32_t i = 0; i < c->n_out; i++) {
        struct phx_link      *k = &c->out[i];
        struct phx_comm_shape reader = phx_shape_of(&c->shape, k->peer);
        struct phx_link       there =
            phx_link_find(&reader, &c->limits, k->kind, c->shape.rank);

        if (w->segment[k->peer] == NULL) {
            phx_courier_add_out(w->courier, k);
            continue;
        }
        phx_ring_attach(&k->ring, w->segment[k->peer] + there.offset, there.capacity);
        watch(&k->ring, w->segment[k->peer], phx_spin_ns(k->kind, n_cores, c->n_members));
    }
    phx_comm_wire(c);
    if (w->courier != NULL && phx_courier_start(w->courier) != 0)
        rc = phx_fail(err, PHX_E_INTERNAL, "cannot start the thread that talks to other hosts");
    return rc;
}

int phx_comm_mpi(int32_t tp, int32_t pp, const struct phx_comm_limits *limits, struct phx_comm **out,
                 struct phx_err *err)
{
    struct phx_comm  *c;
    struct mpi_world *w;
    int               is_started = 0, size = 0, rank = 0, rc;

    *out = NULL;
    if (MPI_Initialized(&is_started) != MPI_SUCCESS || !is_started)
        return phx_fail(err, PHX_E_STATE, "MPI is not started");
    if (MPI_Comm_size(MPI_COMM_WORLD, &size) != MPI_SUCCESS ||
        MPI_Comm_rank(MPI_COMM_WORLD, &rank) != MPI_SUCCESS)
        return phx_fail(err, PHX_E_STATE, "MPI does not say how many ranks there are");
    if ((int64_t)tp * pp != size)
        return phx_fail(err, PHX_E_INVALID, "tp %d x pp %d needs %lld ranks, MPI started %d", tp, pp,
                        (long long)tp * pp, size);
    rc = phx_comm_prepare(rank, tp, pp, limits, &c, err);
    if (rc != 0)
        return rc;
    w = phx_mem_calloc(1, sizeof(*w));
    w->all = w->host = MPI_COMM_NULL;
    w->window = MPI_WIN_NULL;
    c->world = w;
    c->close_world = close_mpi;
    rc = split_hosts(c, w, err);
    if (rc == 0)
        rc = make_segment(c, w, err);
    if (rc == 0)
        rc = find_segments(c, w, err);
    if (rc == 0)
        rc = attach(c, w, err);
    if (rc != 0) {
        c->is_broken = true; /* the others may have succeeded: wait for nobody */
        phx_comm_close(c);
        return rc;
    }
    *out = c;
    return 0;
}
