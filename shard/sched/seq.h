/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/sched: one sequence and the scheduler's state. */
#ifndef PHX_SHARD_SCHED_SEQ_H
#define PHX_SHARD_SCHED_SEQ_H

#include "shard/sched/draft.h"
#include "shard/sched/sched.h"

enum { RETRIES_MAX = 3 };

struct seq {
    uint64_t            id;
    uint64_t            order;      /* of arrival */
    int32_t             slot;       /* -1 while waiting */
    int32_t             priority;
    int32_t            *tokens;     /* room for max_total */
    int32_t             n_tokens;   /* known */
    int32_t             n_prompt;
    int32_t             n_check;    /* the last so many tokens are checked, none is generated; 0 = ordinary */
    int32_t             n_checked;  /* of them, told */
    int32_t             max_total;
    int32_t             n_computed; /* positions whose keys and values are in the cache */
    int32_t             cached_tokens;
    int32_t             n_retries;
    uint64_t            tried_at;   /* n_vacated when admission last failed for want of blocks */
    bool                is_planned; /* in an open plan */
    bool                is_new;
    bool                is_cancelled;
    bool                was_admitted;
    bool                has_output; /* a token of this submit was delivered */
    struct phx_sampling sampling;   /* arrays copied */
    uint8_t             salt[PHX_KV_SALT_BYTES];
    struct phx_kv_seq   kv;
    struct phx_drafter  drafter;
};

/* One open plan. */
struct open_plan {
    struct phx_plan plan;
    struct seq    **seqs; /* [max_seqs], those of the plan */
};

struct phx_sched {
    struct phx_sched_options options;
    struct phx_kv_pool      *pool;
    struct seq             **slots;      /* [max_seqs] */
    struct seq             **waiting;    /* [max_waiting + max_seqs], best first */
    int32_t                  n_waiting, n_running;
    struct open_plan        *plans;      /* [n_inflight], a ring */
    int32_t                  plan_first, n_plans;
    struct phx_sched_event  *pending;    /* cancellations of waiting sequences */
    int32_t                  n_pending, pending_max;
    int32_t                  cursor;     /* slot where the next decode round starts */
    uint64_t                 order, step, n_preempted;
    uint64_t                 n_drafted, n_accepted; /* guesses run, and those that became output */
    uint64_t                 n_vacated;  /* sequences that gave blocks back, + 1 */
};

/* Copies a submit into owned memory. */
struct seq *phx_seq_create(const struct phx_submit *submit, const struct phx_sched_options *options);
void        phx_seq_destroy(struct seq *s);

/* Higher priority, then earlier arrival. */
bool phx_seq_is_before(const struct seq *a, const struct seq *b);
/* That it finished, without a token. */
void phx_seq_put_end(struct phx_sched_event *e, const struct seq *seq, enum phx_finish finish);
/* Position of the first row of a checked sequence that has something to tell yet. */
int32_t phx_seq_first_check(const struct seq *seq);

/* Whether a token ends it. */
bool phx_seq_is_stop(const struct seq *seq, int32_t token);
/* Guesses for the decoding sequences of a plan that is complete otherwise, as far as rows, results and blocks
 * are left that nobody else wants. */
void phx_sched_plan_drafts(struct phx_sched *s, struct open_plan *open, int32_t results_left);

/* Inserts by priority, then arrival. */
void phx_sched_enqueue(struct phx_sched *s, struct seq *seq);
/* Takes the i-th out of the queue. */
void phx_sched_unqueue(struct phx_sched *s, int32_t i);
/* Takes a running sequence out: frees slot and blocks. */
void phx_sched_vacate(struct phx_sched *s, struct seq *seq);

#endif
