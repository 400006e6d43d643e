/* SPDX-License-Identifier: Apache-2.0
 * One rank's end of all its rings.  Private to shard/comm.
 *
 * The collectives are written once, over rings.  A world (self, local, mpi) only says where the rings
 * lie: in memory of this process, in a window shared by the ranks of a host, or behind a courier
 * thread that carries them between hosts. */
#ifndef PHX_SHARD_COMM_WORLD_H
#define PHX_SHARD_COMM_WORLD_H

#include "shard/comm/comm.h"
#include "shard/comm/nccl.h"
#include "shard/comm/ring.h"
#include "shard/partition/partition.h"

enum {
    PHX_FANOUT = 8,     /* children of a rank in the plan tree */
    PHX_LINKS_MAX = 2 * PHX_TP_MAX + PHX_FANOUT + 8
};

enum phx_link_kind {
    PHX_LINK_PLAN = 1, /* parent to child in the plan tree */
    PHX_LINK_FACTS,    /* child to parent in the plan tree */
    PHX_LINK_RESULT,   /* tp 0 of the last stage to rank 0 */
    PHX_LINK_STAGE,    /* stage to the next stage, same tp */
    PHX_LINK_TENSOR    /* between two ranks of a tensor group */
};

/* A ring that ends or starts at a rank. */
struct phx_link {
    enum phx_link_kind kind;
    int32_t            peer; /* rank at the other end */
    size_t             capacity;
    size_t             offset; /* incoming: of the ring in its reader's segment */
    struct phx_ring    ring;   /* attached by the world */
};

struct phx_comm_device;

struct phx_comm {
    struct phx_comm_shape  shape;
    struct phx_comm_limits limits;
    struct phx_link        in[PHX_LINKS_MAX], out[PHX_LINKS_MAX];
    int32_t                n_in, n_out;
    struct phx_ring       *tensor_in[PHX_TP_MAX], *tensor_out[PHX_TP_MAX]; /* by tp */
    struct phx_ring       *plan_in, *plan_out[PHX_FANOUT], *facts_out, *facts_in[PHX_FANOUT];
    struct phx_ring       *stage_in, *stage_out, *result_in, *result_out;
    struct phx_member     *member;  /* of this rank */
    struct phx_member    **members; /* of the ranks of this host, by rank; owned */
    int32_t               *member_rank; /* which they are; owned */
    int32_t                n_members;
    _Atomic uint64_t       moved_bytes;
    bool                   is_broken; /* a peer was gone: closing waits for nobody */
    struct phx_comm_device *device; /* carries device memory (nccl.c), or NULL */
    void                  *world; /* owned by close_world */
    void (*close_world)(struct phx_comm *c);
};

/* links.c: the rings that end (links_in) or start (links_out) at a rank, the same on every rank.
 * Offsets of incoming rings start behind the member at the front of the segment. */
int32_t phx_links_in(const struct phx_comm_shape *shape, const struct phx_comm_limits *limits,
                     struct phx_link links[PHX_LINKS_MAX]);
int32_t phx_links_out(const struct phx_comm_shape *shape, const struct phx_comm_limits *limits,
                      struct phx_link links[PHX_LINKS_MAX]);
/* Bytes of a rank's segment: its member and its incoming rings. */
size_t phx_segment_bytes(const struct phx_link *links, int32_t n);
/* The incoming link of `reader` that `writer` feeds; its offset says where the ring lies. */
struct phx_link phx_link_find(const struct phx_comm_shape *reader,
                              const struct phx_comm_limits *limits, enum phx_link_kind kind,
                              int32_t writer);
/* The shape of another rank of the same world. */
struct phx_comm_shape phx_shape_of(const struct phx_comm_shape *any, int32_t rank);
/* Children of a rank in the plan tree: ranks [first, end). */
void phx_plan_children(const struct phx_comm_shape *shape, int32_t *first, int32_t *end);

/* A comm with its links listed but not attached; PHX_E_INVALID when tp or pp are out of range. */
int phx_comm_prepare(int32_t rank, int32_t tp, int32_t pp, const struct phx_comm_limits *limits,
                     struct phx_comm **out, struct phx_err *err) PHX_CHECKED;
/* Sorts the attached rings into the named slots. */
void phx_comm_wire(struct phx_comm *c);
/* Counts a finished call; answers rc. */
int phx_comm_count(struct phx_comm *c, int rc);
/* How long a rank may spin on a link when that many ranks share the cores of its host. */
int64_t phx_spin_ns(enum phx_link_kind kind, int32_t n_cores, int32_t n_ranks_on_host);

/* phx_ring_put with the bytes counted. */
int phx_comm_put(struct phx_comm *c, struct phx_ring *r, const void *data, size_t size_bytes)
    PHX_CHECKED;

/* nccl.c: the calls of comm.h over device memory; queued.  0, PHX_E_PEER or PHX_E_INTERNAL. */
int  phx_comm_device_sum(struct phx_comm *c, struct phx_tensor x) PHX_CHECKED;
int  phx_comm_device_sum_add_norm(struct phx_comm *c, const struct phx_add_norm_args *args) PHX_CHECKED;
int  phx_comm_device_send(struct phx_comm *c, struct phx_tensor x) PHX_CHECKED;
int  phx_comm_device_recv(struct phx_comm *c, struct phx_tensor x) PHX_CHECKED;
int  phx_comm_device_gather(struct phx_comm *c, struct phx_tensor out, struct phx_tensor part, const int32_t *first,
                            const int32_t *n) PHX_CHECKED;
/* peer.c: gives the exchange of this rank's tensor group the memory of its peers, and tries it.  Collective over all ranks;
 * every rank answers the same: 0, PHX_E_UNSUPPORTED with the reason of the first rank that has one (the exchange goes
 * on without), or PHX_E_PEER. */
struct phx_exchange;
int phx_comm_open_peers(struct phx_comm *c, struct phx_backend *b, struct phx_exchange *group, struct phx_err *err)
    PHX_CHECKED;
/* True when the rank at the other end of some ring is gone, as far as can be seen from here. */
bool phx_comm_is_peer_gone(const struct phx_comm *c);

#endif
