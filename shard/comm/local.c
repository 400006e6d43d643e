/* SPDX-License-Identifier: Apache-2.0
 * Worlds inside one process: a single rank, or one rank per thread. */
#include <errno.h>
#include <sched.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rpc/base/mem.h"
#include "shard/comm/world.h"

/* The memory of all ranks; the last rank to close gives it back. */
struct local {
    uint8_t        *map;
    size_t          size_bytes;
    size_t         *segment; /* per rank, offset into map */
    _Atomic int32_t n_open;
};

static void close_local(struct phx_comm *c)
{
    struct local *l = c->world;

    if (atomic_fetch_sub(&l->n_open, 1) != 1)
        return;
    (void)munmap(l->map, l->size_bytes); /* cannot fail: own map */
    phx_mem_free(l->segment);
    phx_mem_free(l);
}

static struct phx_member *member_of(const struct local *l, int32_t rank)
{
    return (struct phx_member *)(void *)(l->map + l->segment[rank]);
}

static int32_t allowed_cores(void)
{
    cpu_set_t set;

    return sched_getaffinity(0, sizeof(set), &set) == 0 ? CPU_COUNT(&set) : 1;
}

static void attach(struct phx_comm *c, struct local *l)
{
    int32_t rank = c->shape.rank;
    int32_t n_cores = allowed_cores();

    for (int32_t i = 0; i < c->n_in; i++) {
        struct phx_link *k = &c->in[i];

        phx_ring_attach(&k->ring, l->map + l->segment[rank] + k->offset, k->capacity);
        k->ring.peer = k->peer != rank ? member_of(l, k->peer) : NULL;
        k->ring.spin_ns = phx_spin_ns(k->kind, n_cores, c->shape.n_ranks);
    }
    for (int32_t i = 0; i < c->n_out; i++) {
        struct phx_link      *k = &c->out[i];
        struct phx_comm_shape reader = phx_shape_of(&c->shape, k->peer);
        struct phx_link       there = phx_link_find(&reader, &c->limits, k->kind, rank);

        phx_ring_attach(&k->ring, l->map + l->segment[k->peer] + there.offset, there.capacity);
        k->ring.peer = k->peer != rank ? member_of(l, k->peer) : NULL;
        k->ring.spin_ns = phx_spin_ns(k->kind, n_cores, c->shape.n_ranks);
    }
    c->member = member_of(l, rank);
    atomic_store(&c->member->pid, (int32_t)getpid());
    c->members = phx_mem_calloc((size_t)c->shape.n_ranks, sizeof(struct phx_member *));
    c->n_members = c->shape.n_ranks;
    c->member_rank = phx_mem_calloc((size_t)c->n_members, sizeof(*c->member_rank));
    for (int32_t i = 0; i < c->n_members; i++) {
        c->members[i] = member_of(l, i);
        c->member_rank[i] = i;
    }
    c->world = l;
    c->close_world = close_local;
    phx_comm_wire(c);
}

static size_t round_to_page(size_t n)
{
    return (n + 4095) & ~(size_t)4095;
}

int phx_comm_local(int32_t tp, int32_t pp, const struct phx_comm_limits *limits, struct phx_comm **out,
                   struct phx_err *err)
{
    struct local *l = phx_mem_calloc(1, sizeof(*l));
    int32_t       n = 0;
    int           rc;

    l->segment = phx_mem_calloc(PHX_RANKS_MAX, sizeof(*l->segment));
    do {
        rc = phx_comm_prepare(n, tp, pp, limits, &out[n], err);
        if (rc != 0)
            break;
        l->segment[n] = l->size_bytes;
        l->size_bytes += round_to_page(phx_segment_bytes(out[n]->in, out[n]->n_in));
        n++;
    } while (n < tp * pp);
    if (rc == 0) {
        /* untouched pages of the rings cost nothing */
        l->map = mmap(NULL, l->size_bytes, PROT_READ | PROT_WRITE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
        if (l->map == MAP_FAILED)
            rc = phx_fail(err, PHX_E_NOMEM, "map %zu bytes for %d ranks: %s", l->size_bytes, n,
                          strerror(errno));
    }
    if (rc != 0) {
        while (n > 0) {
            phx_mem_free(out[--n]);
            out[n] = NULL;
        }
        phx_mem_free(l->segment);
        phx_mem_free(l);
        return rc;
    }
    atomic_store(&l->n_open, n);
    for (int32_t i = 0; i < n; i++)
        attach(out[i], l);
    return 0;
}

int phx_comm_self(const struct phx_comm_limits *limits, struct phx_comm **out, struct phx_err *err)
{
    return phx_comm_local(1, 1, limits, out, err);
}
