/* SPDX-License-Identifier: Apache-2.0
 * Collectives of a tensor group.
 *
 * The sum follows one fixed tree whatever the size: rank r adds with r^1, then the pairs with r^2, then
 * r^4.  Small tensors go whole in each round (recursive doubling); large ones are halved on the way
 * down and put together again on the way up, which moves the same operands through the same additions
 * with less traffic.  Other group sizes add in rank order, each rank a part of the columns. */
#include <string.h>

#include "shard/comm/world.h"

enum { HALVING_MIN_BYTES = 32768 };

/* A tensor as one run of floats, or as rows with gaps. */
struct flat {
    float  *data;
    int64_t columns, stride;
};

static struct flat flatten(struct phx_tensor x)
{
    struct flat f = {x.data, x.dim[1], x.stride0};

    if (x.stride0 == x.dim[1] || x.dim[0] <= 1)
        f.columns = (int64_t)x.dim[0] * x.dim[1];
    return f;
}

/* Where element i lies and how many follow it without a gap. */
static float *at(const struct flat *f, int64_t i, size_t *n_bytes)
{
    int64_t row = i / f->columns, column = i % f->columns;

    *n_bytes = (size_t)(f->columns - column) * sizeof(float);
    return f->data + row * f->stride + column;
}

static size_t least(size_t a, size_t b)
{
    return a < b ? a : b;
}

static size_t send_some(struct phx_comm *c, struct phx_ring *to, const struct flat *f, int64_t first,
                        int64_t n)
{
    size_t run, moved;
    float *from;

    if (n <= 0)
        return 0;
    from = at(f, first, &run);
    moved = phx_ring_put_some(to, from, least(run, (size_t)n * sizeof(float)));
    atomic_fetch_add_explicit(&c->moved_bytes, moved, memory_order_relaxed);
    return moved / sizeof(float);
}

enum how { STORE, ADD_BEHIND /* mine + theirs */, ADD_BEFORE /* theirs + mine */ };

static void combine(float *restrict mine, const float *restrict theirs, size_t n, enum how how)
{
    if (how == STORE)
        memcpy(mine, theirs, n * sizeof(float));
    else if (how == ADD_BEHIND)
        for (size_t i = 0; i < n; i++)
            mine[i] = mine[i] + theirs[i];
    else
        for (size_t i = 0; i < n; i++)
            mine[i] = theirs[i] + mine[i];
}

static size_t recv_some(struct phx_ring *from, const struct flat *f, int64_t first, int64_t n,
                        enum how how)
{
    size_t         run, moved;
    float         *to;
    const uint8_t *bytes;

    if (n <= 0)
        return 0;
    to = at(f, first, &run);
    bytes = phx_ring_peek(from, least(least(run, (size_t)n * sizeof(float)), 32768), &moved);
    if (moved == 0)
        return 0;
    combine(to, (const float *)(const void *)bytes, moved / sizeof(float), how);
    phx_ring_release(from, moved);
    return moved / sizeof(float);
}

struct range {
    int64_t first, n;
};

/* Sends range `out` and takes range `in` from the same peer, both at once, so that neither side waits
 * for the other to finish.  When both ranges are the same one, nothing is overwritten before it is sent. */
static int exchange(struct phx_comm *c, int32_t peer, const struct flat *f, struct range out,
                    struct range in, enum how how)
{
    struct phx_ring *to = c->tensor_out[peer], *from = c->tensor_in[peer];
    bool             is_same = out.first == in.first;
    int64_t          sent = 0, got = 0;

    while (sent < out.n || got < in.n) {
        int64_t ready = is_same && sent < out.n ? sent : in.n;
        size_t  n_sent = send_some(c, to, f, out.first + sent, out.n - sent);
        size_t  n_got;
        int     rc = 0;

        sent += (int64_t)n_sent;
        n_got = recv_some(from, f, in.first + got, ready - got, how);
        got += (int64_t)n_got;
        if (n_sent > 0 || n_got > 0)
            continue;
        rc = got < ready ? phx_ring_wait_data(from, INT64_MAX)
             : sent < out.n ? phx_ring_wait_space(to) : 0;
        if (rc != 0)
            return rc;
    }
    return 0;
}

/* Rounds of pairs at distance 1, 2, 4 ...: the tree. */
static int sum_doubling(struct phx_comm *c, const struct flat *f, int64_t n)
{
    struct range all = {0, n};
    int          rc = 0;

    for (int32_t d = 1; d < c->shape.tp_size && rc == 0; d *= 2) {
        int32_t peer = c->shape.tp ^ d;

        rc = exchange(c, peer, f, all, all, peer < c->shape.tp ? ADD_BEFORE : ADD_BEHIND);
    }
    return rc;
}

static int sum_halving(struct phx_comm *c, const struct flat *f, int64_t n)
{
    struct range kept[8], given[8];
    struct range mine = {0, n};
    int32_t      rounds = 0;
    int          rc = 0;

    for (int32_t d = 1; d < c->shape.tp_size && rc == 0; d *= 2, rounds++) {
        int32_t      peer = c->shape.tp ^ d;
        struct range low = {mine.first, mine.n / 2};
        struct range high = {mine.first + low.n, mine.n - low.n};
        bool         is_low = c->shape.tp < peer;

        kept[rounds] = is_low ? low : high;
        given[rounds] = is_low ? high : low;
        rc = exchange(c, peer, f, given[rounds], kept[rounds], is_low ? ADD_BEHIND : ADD_BEFORE);
        mine = kept[rounds];
    }
    while (rounds-- > 0 && rc == 0)
        rc = exchange(c, c->shape.tp ^ (1 << rounds), f, kept[rounds], given[rounds], STORE);
    return rc;
}

static struct range part_of(int64_t n, int32_t i, int32_t count)
{
    int64_t first = n * i / count;

    return (struct range){first, n * (i + 1) / count - first};
}

/* One part's bytes of each rank lie in the rings to its owner; it adds them from rank 0 up.  Its own
 * values must wait their turn, so the running sum starts in `sum`, a piece at a time. */
static int add_in_order(struct phx_comm *c, const struct flat *f, struct range part)
{
    float   sum[1024];
    int64_t done = 0;
    int     rc = 0;

    while (done < part.n && rc == 0) {
        size_t run;
        float *own = at(f, part.first + done, &run);
        size_t n = least(least(run / sizeof(float), (size_t)(part.n - done)), 1024);

        for (int32_t tp = 0; tp < c->shape.tp_size && rc == 0; tp++) {
            float        theirs[1024];
            const float *from = own;

            if (tp != c->shape.tp) {
                rc = phx_ring_take(c->tensor_in[tp], theirs, n * sizeof(float));
                from = theirs;
            }
            if (rc == 0)
                combine(sum, from, n, tp == 0 ? STORE : ADD_BEHIND);
        }
        if (rc == 0)
            memcpy(own, sum, n * sizeof(float));
        done += (int64_t)n;
    }
    return rc;
}

static int put_range(struct phx_comm *c, int32_t peer, const struct flat *f, struct range r)
{
    int rc = 0;

    while (r.n > 0 && rc == 0) {
        size_t run;
        float *from = at(f, r.first, &run);

        run = least(run, (size_t)r.n * sizeof(float));
        rc = phx_comm_put(c, c->tensor_out[peer], from, run);
        r.first += (int64_t)(run / sizeof(float));
        r.n -= (int64_t)(run / sizeof(float));
    }
    return rc;
}

static int take_range(struct phx_comm *c, int32_t peer, const struct flat *f, struct range r)
{
    int rc = 0;

    while (r.n > 0 && rc == 0) {
        size_t run;
        float *to = at(f, r.first, &run);

        run = least(run, (size_t)r.n * sizeof(float));
        rc = phx_ring_take(c->tensor_in[peer], to, run);
        r.first += (int64_t)(run / sizeof(float));
        r.n -= (int64_t)(run / sizeof(float));
    }
    return rc;
}

/* Every rank sums its part.  A round moves at most what the rings hold, so that all may write first. */
static int sum_in_order(struct phx_comm *c, const struct flat *f, int64_t n)
{
    int32_t me = c->shape.tp, size = c->shape.tp_size;
    int64_t piece = (int64_t)size * 16384;
    int     rc = 0;

    for (int64_t first = 0; first < n && rc == 0; first += piece) {
        int64_t      here = n - first < piece ? n - first : piece;
        struct range own = part_of(here, me, size);

        own.first += first;
        for (int32_t tp = 0; tp < size && rc == 0; tp++) {
            struct range r = part_of(here, tp, size);

            r.first += first;
            if (tp != me)
                rc = put_range(c, tp, f, r);
        }
        if (rc == 0)
            rc = add_in_order(c, f, own);
        for (int32_t tp = 0; tp < size && rc == 0; tp++)
            if (tp != me)
                rc = put_range(c, tp, f, own);
        for (int32_t tp = 0; tp < size && rc == 0; tp++) {
            struct range r = part_of(here, tp, size);

            r.first += first;
            if (tp != me)
                rc = take_range(c, tp, f, r);
        }
    }
    return rc;
}

int phx_comm_sum_add_norm(struct phx_comm *c, const struct phx_add_norm_args *args)
{
    int rc;

    if (c->device == NULL || c->shape.tp_size == 1 || args->y.dim[0] == 0)
        return 1;
    rc = phx_comm_device_sum_add_norm(c, args);
    return rc == 1 ? 1 : phx_comm_count(c, rc);
}

void phx_comm_count_moved(struct phx_comm *c, size_t size_bytes)
{
    atomic_fetch_add_explicit(&c->moved_bytes, size_bytes, memory_order_relaxed);
}

int phx_comm_sum(struct phx_comm *c, struct phx_tensor x)
{
    struct flat f = flatten(x);
    int64_t     n = (int64_t)x.dim[0] * x.dim[1];
    int32_t     size = c->shape.tp_size;
    int         rc = 0;

    if (size > 1 && n > 0) {
        if (c->device != NULL)
            rc = phx_comm_device_sum(c, x);
        else if ((size & (size - 1)) != 0)
            rc = sum_in_order(c, &f, n);
        else if (size >= 4 && n * (int64_t)sizeof(float) >= HALVING_MIN_BYTES)
            rc = sum_halving(c, &f, n);
        else
            rc = sum_doubling(c, &f, n);
    }
    return phx_comm_count(c, rc);
}

int phx_comm_gather(struct phx_comm *c, struct phx_tensor out, struct phx_tensor part,
                    const int32_t *first, const int32_t *n)
{
    int rc = 0;

    if (c->device != NULL)
        return phx_comm_count(c, phx_comm_device_gather(c, out, part, first, n));
    for (int32_t t = 0; t < part.dim[0] && rc == 0; t++) {
        const float *mine = (const float *)part.data + t * part.stride0;
        float       *to = c->shape.tp == 0 ? (float *)out.data + t * out.stride0 : NULL;

        if (to == NULL) {
            rc = phx_comm_put(c, c->tensor_out[0], mine, (size_t)part.dim[1] * sizeof(float));
            continue;
        }
        if (to + first[0] != mine)
            memcpy(to + first[0], mine, (size_t)n[0] * sizeof(float));
        for (int32_t tp = 1; tp < c->shape.tp_size && rc == 0; tp++)
            rc = phx_ring_take(c->tensor_in[tp], to + first[tp], (size_t)n[tp] * sizeof(float));
    }
    return phx_comm_count(c, rc);
}

int phx_comm_status(struct phx_comm *c, int32_t mine, int32_t *worst)
{
    int32_t me = c->shape.tp, size = c->shape.tp_size;
    int     rc = 0;

    *worst = mine;
    if ((size & (size - 1)) == 0) {
        for (int32_t d = 1; d < size && rc == 0; d *= 2) {
            int32_t theirs = 0;

            rc = phx_comm_put(c, c->tensor_out[me ^ d], worst, sizeof(*worst));
            if (rc == 0)
                rc = phx_ring_take(c->tensor_in[me ^ d], &theirs, sizeof(theirs));
            *worst = theirs < *worst ? theirs : *worst;
        }
        return phx_comm_count(c, rc);
    }
    for (int32_t tp = 0; tp < size && rc == 0; tp++)
        if (tp != me)
            rc = phx_comm_put(c, c->tensor_out[tp], &mine, sizeof(mine));
    for (int32_t tp = 0; tp < size && rc == 0; tp++) {
        int32_t theirs = 0;

        if (tp != me)
            rc = phx_ring_take(c->tensor_in[tp], &theirs, sizeof(theirs));
        *worst = theirs < *worst ? theirs : *worst;
    }
    return phx_comm_count(c, rc);
}
