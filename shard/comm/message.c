/* SPDX-License-Identifier: Apache-2.0
 * Messages with a length: plans down the tree, facts up the tree, results to rank 0, activations to the
 * next stage. */
#include <string.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "shard/comm/world.h"

int32_t phx_comm_host(const struct phx_comm *c, int32_t *ranks)
{
    memcpy(ranks, c->member_rank, (size_t)c->n_members * sizeof(*ranks));
    return c->n_members;
}

int phx_comm_count(struct phx_comm *c, int rc)
{
    atomic_fetch_add_explicit(&c->member->progress, 1, memory_order_relaxed);
    if (rc == PHX_E_PEER)
        c->is_broken = true;
    return rc;
}

int phx_comm_put(struct phx_comm *c, struct phx_ring *r, const void *data, size_t size_bytes)
{
    atomic_fetch_add_explicit(&c->moved_bytes, size_bytes, memory_order_relaxed);
    return phx_ring_put(r, data, size_bytes);
}

/* Rings carry multiples of 4 bytes: a message is its length, its bytes, and up to 3 more. */
static size_t padding(size_t size_bytes)
{
    return (4 - size_bytes % 4) % 4;
}

static int put_message(struct phx_comm *c, struct phx_ring *r, const void *data, size_t size_bytes)
{
    uint64_t length = size_bytes;
    int      rc = phx_comm_put(c, r, &length, sizeof(length));

    if (rc == 0)
        rc = phx_comm_put(c, r, data, size_bytes);
    return rc == 0 ? phx_comm_put(c, r, "\0\0\0", padding(size_bytes)) : rc;
}

static int take_message(struct phx_ring *r, void *data, size_t capacity, size_t *size_bytes)
{
    uint64_t length;
    uint8_t  pad[4];
    int      rc = phx_ring_take(r, &length, sizeof(length));

    if (rc == 0 && length > capacity)
        return PHX_E_TOOBIG; /* the stream is lost: the caller gives up */
    if (rc == 0)
        rc = phx_ring_take(r, data, (size_t)length);
    if (rc == 0)
        rc = phx_ring_take(r, pad, padding((size_t)length));
    if (rc == 0)
        *size_bytes = (size_t)length;
    return rc;
}

int phx_comm_bcast(struct phx_comm *c, void *data, size_t capacity, size_t *size_bytes)
{
    int rc = 0;

    if (c->shape.rank == 0 && *size_bytes > c->limits.max_plan_bytes)
        return PHX_E_TOOBIG;
    if (c->plan_in != NULL)
        rc = take_message(c->plan_in, data, capacity, size_bytes);
    for (int32_t i = 0; i < PHX_FANOUT && rc == 0 && c->plan_out[i] != NULL; i++)
        rc = put_message(c, c->plan_out[i], data, *size_bytes);
    return phx_comm_count(c, rc);
}

int phx_comm_result_send(struct phx_comm *c, const void *data, size_t size_bytes)
{
    if (c->result_out == NULL)
        return PHX_E_STATE;
    if (size_bytes > c->limits.max_result_bytes)
        return PHX_E_TOOBIG;
    /* to itself nobody would make room: refuse instead of waiting for ever */
    if (c->shape.rank == 0 && c->result_out->capacity - phx_ring_readable(c->result_out) <
                                  size_bytes + 2 * sizeof(uint64_t))
        return PHX_E_LIMIT;
    return phx_comm_count(c, put_message(c, c->result_out, data, size_bytes));
}

int phx_comm_result_recv(struct phx_comm *c, void *data, size_t capacity, size_t *size_bytes,
                         int32_t timeout_ms)
{
    int64_t deadline = INT64_MAX;
    int     rc;

    if (c->result_in == NULL)
        return PHX_E_STATE;
    if (timeout_ms >= 0)
        deadline = phx_clock_mono_ns() + (int64_t)timeout_ms * 1000000;
    rc = phx_ring_wait_data(c->result_in, deadline);
    if (rc == 0)
        rc = phx_comm_count(c, take_message(c->result_in, data, capacity, size_bytes));
    return rc;
}

/* Ranks below a rank in the plan tree, itself included. */
static int32_t subtree_size(const struct phx_comm_shape *any, int32_t rank)
{
    struct phx_comm_shape s = phx_shape_of(any, rank);
    int32_t               first, end, n = 1;

    phx_plan_children(&s, &first, &end); /* depth log8(1024): at most 4 */
    for (int32_t child = first; child < end; child++)
        n += subtree_size(any, child);
    return n;
}

static int put_fact(struct phx_comm *c, int32_t rank, const void *fact, size_t size_bytes)
{
    int rc = phx_comm_put(c, c->facts_out, &rank, sizeof(rank));

    return rc == 0 ? put_message(c, c->facts_out, fact, size_bytes) : rc;
}

/* All facts of one child's subtree: kept on rank 0, passed on elsewhere. */
static int take_facts(struct phx_comm *c, struct phx_ring *from, int32_t n, size_t size_bytes,
                      void *fact, void *out)
{
    int rc = 0;

    for (int32_t i = 0; i < n && rc == 0; i++) {
        int32_t rank;
        size_t  got = 0;

        rc = phx_ring_take(from, &rank, sizeof(rank));
        if (rc == 0)
            rc = take_message(from, fact, size_bytes, &got);
        if (rc == 0 && (got != size_bytes || rank < 0 || rank >= c->shape.n_ranks))
            rc = PHX_E_INTERNAL;
        if (rc == 0 && c->shape.rank == 0)
            memcpy((char *)out + (size_t)rank * size_bytes, fact, size_bytes);
        else if (rc == 0)
            rc = put_fact(c, rank, fact, size_bytes);
    }
    return rc;
}

int phx_comm_collect(struct phx_comm *c, const void *mine, size_t size_bytes, void *out)
{
    void   *fact = phx_mem_calloc(1, size_bytes + 1);
    int32_t first, end;
    int     rc = 0;

    phx_plan_children(&c->shape, &first, &end);
    if (c->shape.rank == 0)
        memcpy(out, mine, size_bytes);
    else
        rc = put_fact(c, c->shape.rank, mine, size_bytes);
    for (int32_t child = first; child < end && rc == 0; child++)
        rc = take_facts(c, c->facts_in[child - first], subtree_size(&c->shape, child), size_bytes,
                        fact, out);
    phx_mem_free(fact);
    return phx_comm_count(c, rc);
}

/* Each row of a view, or all of it at once when the rows touch. */
static int32_t row_bytes(struct phx_tensor x, size_t *size_bytes)
{
    bool is_dense = x.stride0 == x.dim[1] || x.dim[0] <= 1;

    *size_bytes = (size_t)x.dim[1] * sizeof(float) * (size_t)(is_dense ? x.dim[0] : 1);
    return is_dense ? 1 : x.dim[0];
}

int phx_comm_send(struct phx_comm *c, struct phx_tensor x)
{
    size_t  size_bytes;
    int32_t n = row_bytes(x, &size_bytes);
    int     rc = c->stage_out != NULL ? 0 : PHX_E_STATE;

    for (int32_t t = 0; t < n && rc == 0; t++)
        rc = phx_comm_put(c, c->stage_out, (float *)x.data + t * x.stride0, size_bytes);
    return phx_comm_count(c, rc);
}

int phx_comm_recv(struct phx_comm *c, struct phx_tensor x)
{
    size_t  size_bytes;
    int32_t n = row_bytes(x, &size_bytes);
    int     rc = c->stage_in != NULL ? 0 : PHX_E_STATE;

    for (int32_t t = 0; t < n && rc == 0; t++)
        rc = phx_ring_take(c->stage_in, (float *)x.data + t * x.stride0, size_bytes);
    return phx_comm_count(c, rc);
}

const struct phx_comm_shape *phx_comm_shape(const struct phx_comm *c)
{
    return &c->shape;
}

uint64_t phx_comm_progress(const struct phx_comm *c)
{
    uint64_t sum = 0;

    for (int32_t i = 0; i < c->n_members; i++)
        sum += atomic_load_explicit(&c->members[i]->progress, memory_order_relaxed);
    return sum;
}

uint64_t phx_comm_bytes(const struct phx_comm *c)
{
    return atomic_load_explicit(&c->moved_bytes, memory_order_relaxed);
}

void phx_comm_close(struct phx_comm *c)
{
    if (c == NULL)
        return;
    if (c->member != NULL)
        atomic_store(&c->member->is_gone, 1);
    if (c->close_world != NULL)
        c->close_world(c);
    phx_mem_free(c->members);
    phx_mem_free(c->member_rank);
    phx_mem_free(c);
}
