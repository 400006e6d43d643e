/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/queue: sequences and tenants of the engine. */
#ifndef PHX_DAEMON_QUEUE_ENGINE_H
#define PHX_DAEMON_QUEUE_ENGINE_H

#include "daemon/fleet/fleet.h"
#include "daemon/queue/queue.h"
#include "daemon/router/router.h"

struct tenant {
    struct tenant *next;
    char          *name;
    uint8_t        salt[32];
    uint64_t       served;    /* virtual token counter: what it was given, weighed */
    uint64_t       n_turns;   /* sequences of it that were sent */
    int32_t        n_waiting;
    int32_t        n_open;
};

enum seq_state { SEQ_WAITING = 1, SEQ_SENT, SEQ_ENDING };

struct phx_engine_seq {
    struct phx_engine_seq      *prev, *next; /* of the state's list */
    struct phx_engine          *e;
    struct tenant              *tenant;
    struct phx_replica         *replica;
    struct phx_engine_callbacks callbacks;
    void                       *ctx;
    uint64_t                    id, order;
    enum seq_state              state;
    int32_t                    *tokens; /* prompt + generated */
    int32_t                     n_tokens, n_prompt, max_total;
    int32_t                     n_check, n_checked; /* to be checked; of them, told */
    int32_t                     priority, n_resumes;
    struct phx_sampling         sampling;
    int64_t                     queued_ns;
    bool                        is_cancelled;
    bool                        has_error;
    enum phx_finish             finish;
    struct phx_err              error;
};

struct list {
    struct phx_engine_seq *first, *last;
    int32_t                n;
};

struct slot { /* what is known of a replica here */
    struct phx_affinity *affinity; /* prompt heads it has seen */
    int32_t              n_sent;
    int64_t              n_tokens; /* of those */
};

struct phx_engine {
    struct phx_fleet         *fleet;
    struct phx_engine_options options;
    struct tenant            *tenants;
    struct tenant            *last;    /* whose turn was last; NULL before the first */
    int32_t                   n_tenants;
    struct list               waiting, sent, ending;
    struct phx_table         *by_id; /* of sent ones */
    uint64_t                  next_id, order;
    struct event             *watch; /* looks for a fleet without hope while sequences wait */
    struct event             *later; /* ends and dispatches outside of callers' frames */
    struct slot              *slots; /* per replica */
    int32_t                   vocab_size, max_context, max_seqs;
    double                    step_seconds; /* smoothed: for Retry-After */
};

/* tenant.c */
struct tenant *phx_tenant_find(struct phx_engine *e, const char *name);
/* The waiting sequence whose turn it is: what lost its replica first, then of the tenant that was served least its
 * highest priority, then arrival; now and then a tenant's oldest instead.  NULL when none waits. */
struct phx_engine_seq *phx_queue_next(struct phx_engine *e);
/* Before a tenant's sequence waits: one that had none waiting does not get what it missed. */
void phx_tenant_lift(struct phx_engine *e, struct tenant *t);
/* A sequence of a tenant is sent; n_tokens are read for it. */
void phx_tenant_charge(struct phx_engine *e, struct tenant *t, int32_t n_tokens);

#endif
