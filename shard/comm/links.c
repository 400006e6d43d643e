/* SPDX-License-Identifier: Apache-2.0
 * Which rings a world has.  A pure function of the shape, so that every rank agrees without talking. */
#include "rpc/base/mem.h"
#include "shard/comm/world.h"

enum { TENSOR_RING_BYTES = 256 << 10, RESULTS_IN_FLIGHT = 4, FACTS_RING_BYTES = 4096 };

/* A rank of the group is inside the same layer: it comes within a moment, and to be woken costs more than
 * that.  The next plan comes when the head has drawn the tokens.  The rest waits for whole stages. */
enum { TENSOR_SPIN_NS = 2000000, PLAN_SPIN_NS = 500000, OTHER_SPIN_NS = 50000 };

/* A ring for `count` messages of that size, their length words included. */
static size_t capacity_for(size_t size_bytes, size_t count)
{
    size_t n = (size_bytes + 2 * PHX_RING_LINE) * count;

    return (n + PHX_RING_LINE - 1) / PHX_RING_LINE * PHX_RING_LINE;
}

struct phx_comm_shape phx_shape_of(const struct phx_comm_shape *any, int32_t rank)
{
    struct phx_comm_shape s = *any;

    s.rank = rank;
    s.tp = rank % s.tp_size;
    s.pp = rank / s.tp_size;
    return s;
}

void phx_plan_children(const struct phx_comm_shape *shape, int32_t *first, int32_t *end)
{
    int64_t f = (int64_t)shape->rank * PHX_FANOUT + 1;

    *first = (int32_t)(f < shape->n_ranks ? f : shape->n_ranks);
    *end = (int32_t)(f + PHX_FANOUT < shape->n_ranks ? f + PHX_FANOUT : shape->n_ranks);
}

static void add(struct phx_link *links, int32_t *n, enum phx_link_kind kind, int32_t peer,
                size_t capacity)
{
    phx_assert(*n < PHX_LINKS_MAX);
    links[(*n)++] = (struct phx_link){.kind = kind, .peer = peer, .capacity = capacity};
}

static int32_t plan_parent(const struct phx_comm_shape *s)
{
    return (s->rank - 1) / PHX_FANOUT;
}

/* Rings of the plan tree: down to the children or up to the parent. */
static void add_tree(const struct phx_comm_shape *s, const struct phx_comm_limits *limits,
                     struct phx_link *links, int32_t *n, enum phx_link_kind down,
                     enum phx_link_kind up)
{
    int32_t first, end;
    size_t  plan = capacity_for(limits->max_plan_bytes, 2);

    phx_plan_children(s, &first, &end);
    for (int32_t child = first; child < end; child++)
        add(links, n, down, child, down == PHX_LINK_PLAN ? plan : FACTS_RING_BYTES);
    if (s->rank != 0)
        add(links, n, up, plan_parent(s), up == PHX_LINK_PLAN ? plan : FACTS_RING_BYTES);
}

static void add_group(const struct phx_comm_shape *s, struct phx_link *links, int32_t *n)
{
    for (int32_t tp = 0; tp < s->tp_size; tp++)
        if (tp != s->tp)
            add(links, n, PHX_LINK_TENSOR, s->pp * s->tp_size + tp, TENSOR_RING_BYTES);
}

int32_t phx_links_in(const struct phx_comm_shape *s, const struct phx_comm_limits *limits,
                     struct phx_link links[PHX_LINKS_MAX])
{
    int32_t n = 0;
    size_t  offset = sizeof(struct phx_member);

    add_tree(s, limits, links, &n, PHX_LINK_FACTS, PHX_LINK_PLAN);
    if (s->rank == 0)
        add(links, &n, PHX_LINK_RESULT, (s->pp_size - 1) * s->tp_size,
            capacity_for(limits->max_result_bytes, RESULTS_IN_FLIGHT));
    if (s->pp > 0)
        add(links, &n, PHX_LINK_STAGE, s->rank - s->tp_size,
            capacity_for(limits->max_activation_bytes, 2));
    add_group(s, links, &n);
    for (int32_t i = 0; i < n; i++) {
        links[i].offset = offset;
        offset += phx_ring_bytes(links[i].capacity);
    }
    return n;
}

int32_t phx_links_out(const struct phx_comm_shape *s, const struct phx_comm_limits *limits,
                      struct phx_link links[PHX_LINKS_MAX])
{
    int32_t n = 0;

    add_tree(s, limits, links, &n, PHX_LINK_PLAN, PHX_LINK_FACTS);
    if (s->rank == (s->pp_size - 1) * s->tp_size)
        add(links, &n, PHX_LINK_RESULT, 0,
            capacity_for(limits->max_result_bytes, RESULTS_IN_FLIGHT));
    if (s->pp < s->pp_size - 1)
        add(links, &n, PHX_LINK_STAGE, s->rank + s->tp_size,
            capacity_for(limits->max_activation_bytes, 2));
    add_group(s, links, &n);
    return n;
}

size_t phx_segment_bytes(const struct phx_link *links, int32_t n)
{
    size_t size = sizeof(struct phx_member);

    for (int32_t i = 0; i < n; i++)
        size += phx_ring_bytes(links[i].capacity);
    return size;
}

struct phx_link phx_link_find(const struct phx_comm_shape *reader,
                              const struct phx_comm_limits *limits, enum phx_link_kind kind,
                              int32_t writer)
{
    struct phx_link links[PHX_LINKS_MAX];
    int32_t         n = phx_links_in(reader, limits, links), i = 0;

    while (i < n && (links[i].kind != kind || links[i].peer != writer))
        i++;
    phx_assert(i < n); /* every outgoing link is an incoming link of its peer */
    return links[i];
}

int64_t phx_spin_ns(enum phx_link_kind kind, int32_t n_cores, int32_t n_ranks_on_host)
{
    if (n_cores < n_ranks_on_host)
        return 0;
    if (kind == PHX_LINK_TENSOR)
        return TENSOR_SPIN_NS;
    return kind == PHX_LINK_PLAN ? PLAN_SPIN_NS : OTHER_SPIN_NS;
}

int phx_comm_prepare(int32_t rank, int32_t tp, int32_t pp, const struct phx_comm_limits *limits,
                     struct phx_comm **out, struct phx_err *err)
{
    struct phx_comm *c;

    *out = NULL;
    if (tp < 1 || tp > PHX_TP_MAX || pp < 1 || pp > PHX_PP_MAX || tp * pp > PHX_RANKS_MAX)
        return phx_fail(err, PHX_E_INVALID, "tp %d (limit %d) x pp %d (limit %d): at most %d ranks",
                        tp, PHX_TP_MAX, pp, PHX_PP_MAX, PHX_RANKS_MAX);
    c = phx_mem_calloc(1, sizeof(*c));
    c->shape = phx_shape_of(&(struct phx_comm_shape){.n_ranks = tp * pp, .tp_size = tp, .pp_size = pp},
                            rank);
    c->limits = *limits;
    c->n_in = phx_links_in(&c->shape, limits, c->in);
    c->n_out = phx_links_out(&c->shape, limits, c->out);
    *out = c;
    return 0;
}

void phx_comm_wire(struct phx_comm *c)
{
    int32_t first, end, tp_size = c->shape.tp_size;

    phx_plan_children(&c->shape, &first, &end);
    for (int32_t i = 0; i < c->n_in; i++) {
        struct phx_link *l = &c->in[i];

        if (l->kind == PHX_LINK_PLAN)
            c->plan_in = &l->ring;
        else if (l->kind == PHX_LINK_FACTS)
            c->facts_in[l->peer - first] = &l->ring;
        else if (l->kind == PHX_LINK_RESULT)
            c->result_in = &l->ring;
        else if (l->kind == PHX_LINK_STAGE)
            c->stage_in = &l->ring;
        else
            c->tensor_in[l->peer % tp_size] = &l->ring;
    }
    for (int32_t i = 0; i < c->n_out; i++) {
        struct phx_link *l = &c->out[i];

        if (l->kind == PHX_LINK_PLAN)
            c->plan_out[l->peer - first] = &l->ring;
        else if (l->kind == PHX_LINK_FACTS)
            c->facts_out = &l->ring;
        else if (l->kind == PHX_LINK_RESULT)
            c->result_out = &l->ring;
        else if (l->kind == PHX_LINK_STAGE)
            c->stage_out = &l->ring;
        else
            c->tensor_out[l->peer % tp_size] = &l->ring;
    }
}
