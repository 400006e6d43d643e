/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/fleet: one replica. */
#ifndef PHX_DAEMON_FLEET_REPLICA_H
#define PHX_DAEMON_FLEET_REPLICA_H

#include <sys/types.h>

#include "daemon/fleet/fleet.h"

enum { PHX_JOIN_TOKEN_HEX = 65, PHX_ARGV_MAX = 160 };

struct phx_replica {
    struct phx_fleet      *fleet;
    int32_t                index;
    char                   id[16];
    char                  *dir; /* DIR/run/replica-N */
    enum phx_replica_state state;
    int64_t                since_wall_ns, since_ns;
    char                   last_error[240];
    int32_t                restarts, failures; /* failures: since it was last stable */
    bool                   was_ready;          /* in this life */
    bool                   was_ever_ready;
    bool                   is_fatal;           /* said why it cannot run */
    int64_t                retry_ns;

    pid_t         pid; /* of mpirun or of the one rank; 0 = none */
    struct event *exit_event;
    int           pid_fd;
    char          token[PHX_JOIN_TOKEN_HEX]; /* "" once used */
    int64_t       token_until_ns;

    struct phx_rpc_link *link;
    struct phx_arena    *hello_arena; /* of ranks and facts below */
    struct phx_rank_info  *ranks;
    struct phx_rank_facts *facts;
    int32_t               n_ranks;
    const char            *model_digest, *model_parent; /* in the same arena; NULL before it joined */
    struct phx_link_ready ready; /* without its arrays */
    double                load_fraction;
    int64_t               load_told_ns;
    int64_t               heard_ns, moved_ns;
    uint64_t              progress;
    bool                  is_busy;
    struct phx_step_stats stats;
    uint64_t              step, lookup_tokens;
    int64_t               window_ns; /* of the rates below */
    uint64_t              window_step, window_tokens, tokens_total;
    double                steps_per_s, tokens_per_s;
    uint64_t              hit_tokens, prefill_tokens;
    int64_t               stop_by_ns; /* when a stop or drain turns into force; 0 = none asked */
    int32_t               n_running_at_drain;
};

struct phx_fleet {
    struct phx_fleet_options  options;
    struct phx_fleet_listener listener;
    phx_fleet_watch_fn        watch;
    void                     *watch_ctx;
    phx_fleet_model_fn        on_model;
    void                     *model_ctx;
    char                     *model_digest; /* of the first replica that was ready; NULL before */
    char                     *grpc_target, *mpirun, *rank_program;
    struct phx_replica       *replicas;
    int32_t                   n_replicas;
    struct event             *tick;
    bool                      is_stopping;
};

/* launch.c: starts the processes of a replica (token and certificate made first), ends all of them. */
int  phx_replica_launch(struct phx_replica *r, struct phx_err *err) PHX_CHECKED;
void phx_replica_kill(struct phx_replica *r);
void phx_replica_wipe(const struct phx_replica *r); /* its run folder, while nothing of it runs */
int  phx_launch_find(const char *name, char **path, struct phx_err *err) PHX_CHECKED;

/* loading.c: one line without its end, with a bar; and the same to standard error, or to the log where that is
 * not a terminal. */
void phx_loading_format(const char *id, const struct phx_link_loading *l, char *text, size_t size);
void phx_loading_show(struct phx_replica *r, const struct phx_link_loading *l);

/* fleet.c */
void phx_replica_lost(struct phx_replica *r, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));
void phx_replica_set_state(struct phx_replica *r, enum phx_replica_state state, const char *reason);

#endif
