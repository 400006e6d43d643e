/* SPDX-License-Identifier: Apache-2.0
 * The replicas: start them through a launcher, watch process and link, restart with back-off.  The
 * fleet knows nothing about requests: it tells its listener which replica takes sequences, what its steps
 * made, and when it was lost.  Everything runs on the loop thread. */
#ifndef PHX_DAEMON_FLEET_H
#define PHX_DAEMON_FLEET_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/err.h"
#include "rpc/base/mem.h"
#include "rpc/rpc.h"

struct event_base;
struct phx_config;
struct phx_metrics;
struct phx_fleet;
struct phx_replica;

struct phx_fleet_options {
    struct event_base       *base;
    struct phx_metrics      *metrics;
    const struct phx_config *config;       /* shape, engine, timeouts, restart, launcher; borrowed */
    const char              *model_name;   /* borrowed */
    const char              *rank_program; /* borrowed; the default stands beside phalanxd */
};

struct phx_fleet_listener { /* any may be NULL */
    void *ctx;
    void (*on_ready)(void *ctx, struct phx_replica *r);
    /* It takes no more sequences and those it had will not be heard of again. */
    void (*on_lost)(void *ctx, struct phx_replica *r, const struct phx_err *reason);
    void (*on_step)(void *ctx, struct phx_replica *r, const struct phx_link_step *step);
};
/* The first replica that is ready says which model the cluster serves ("sha256:..." of its signed manifest and
 * of the model it was derived from, "" = none); a later one that says otherwise is given up. */
typedef void (*phx_fleet_model_fn)(void *ctx, const char *digest, const char *parent);

/* After each change of a replica's state.  reason: "fleet.replica.ready", ... (static). */
typedef void (*phx_fleet_watch_fn)(void *ctx, const char *reason);

/* Checks the launcher (PHX_E_NOTFOUND naming a missing mpirun or rank program) and that the backend can be used on
 * this host (PHX_E_UNSUPPORTED with what is missing); starts nothing yet. */
int phx_fleet_open(const struct phx_fleet_options *options, struct phx_fleet **out,
                   struct phx_err *err) PHX_CHECKED;
/* Starts all replicas; ranks will dial grpc_target ("127.0.0.1:4711"). */
int phx_fleet_start(struct phx_fleet *f, const char *grpc_target, struct phx_err *err) PHX_CHECKED;
/* Kills what still runs (waits for it), frees. NULL is allowed. */
void phx_fleet_close(struct phx_fleet *f);

void phx_fleet_listen(struct phx_fleet *f, const struct phx_fleet_listener *listener); /* copied */
void phx_fleet_watch(struct phx_fleet *f, phx_fleet_watch_fn fn, void *ctx);
void phx_fleet_on_model(struct phx_fleet *f, phx_fleet_model_fn fn, void *ctx);

/* From the RPC handlers (see rpc.h). */
void phx_fleet_attached(struct phx_fleet *f, struct phx_rpc_link *link,
                        const struct phx_link_hello *hello, const struct phx_rpc_peer *peer);
void phx_fleet_message(struct phx_fleet *f, struct phx_rpc_link *link, const struct phx_link_msg *msg);
void phx_fleet_detached(struct phx_fleet *f, struct phx_rpc_link *link, const struct phx_err *reason);

/* Sends to a replica that is ready.  A failure means that it is being given up: on_lost follows. */
int phx_replica_submit(struct phx_replica *r, const struct phx_submit *items, int32_t n,
                       struct phx_err *err) PHX_CHECKED;
void phx_replica_cancel(struct phx_replica *r, uint64_t seq_id);
/* It broke the protocol or is useless for another reason: kill and restart. */
void phx_replica_give_up(struct phx_replica *r, const struct phx_err *reason);

struct phx_replica_facts {
    int32_t index;
    enum phx_replica_state state;
    bool    is_taking; /* takes new sequences */
    int32_t max_seqs, max_context, vocab_size, kv_blocks, kv_blocks_used;
};
void phx_replica_facts(const struct phx_replica *r, struct phx_replica_facts *out);

struct phx_fleet_facts {
    int32_t n_replicas, n_ready, n_failed; /* failed: given up until an operator restarts it */
    int32_t n_hosts, n_gpus; /* that ready replicas run on */
    char    devices[240];    /* kinds of those GPUs, "; " between them */
    bool    is_settled;    /* every replica was ready once, or has failed */
    bool    is_hopeless;   /* none is ready, none will be without an operator */
    char    last_error[240];
};
void phx_fleet_facts(const struct phx_fleet *f, struct phx_fleet_facts *out);
/* The loop that everything runs on. */
struct event_base *phx_fleet_base(const struct phx_fleet *f);
int32_t phx_fleet_count(const struct phx_fleet *f);
struct phx_replica *phx_fleet_replica(const struct phx_fleet *f, int32_t index);
/* Rows for Cluster.Get; memory in the arena. */
void phx_fleet_state(const struct phx_fleet *f, struct phx_arena *arena,
                     struct phx_cluster_state *out);

/* replica_id "" = all; PHX_E_NOTFOUND else.  drain: running sequences end first, then the replica stays
 * stopped.  restart: ends it now and starts it again (also one that failed or was drained). */
int phx_fleet_drain(struct phx_fleet *f, const char *replica_id, int64_t timeout_ms,
                    struct phx_cluster_done *done, struct phx_err *err) PHX_CHECKED;
int phx_fleet_restart(struct phx_fleet *f, const char *replica_id, struct phx_cluster_done *done,
                      struct phx_err *err) PHX_CHECKED;
/* Stops all for good, in good order (STOP, then by force after grace_ms); is_stopped tells when. */
void phx_fleet_stop(struct phx_fleet *f, int64_t grace_ms);
bool phx_fleet_is_stopped(const struct phx_fleet *f);

#endif
