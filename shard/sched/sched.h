/* SPDX-License-Identifier: Apache-2.0
 * The scheduler of a replica: state + events -> step plans.  Pure: no I/O, no clock, no threads; the same
 * code runs in the head rank, in the planner and in tests.
 *
 * Continuous batching with chunked prefill: each step takes every running sequence's next token first,
 * then fills the row budget with prompt chunks in arrival order (priority first).  KV blocks are reserved
 * as sequences grow; when they run short the youngest, lowest-priority sequence is preempted and later
 * recomputed.  A sequence to be checked (phx_submit.n_check) is read like a prompt, but gives a result for each
 * row whose next token is checked; a step has at most max_results results.  Nothing of one priority starves: the queue has no overtaking and decoding takes turns.  With a pipeline, up to n_inflight plans are open at once; a sequence is in at most one.
 *
 * Guesses (draft_rows > 0): a decoding sequence whose last tokens stood in its text before gets further rows for
 * the tokens that followed there.  Each row gives a result as if the guesses before it were output; the result
 * behind the last right guess is the next token, so the output is the one without guesses, in fewer steps. */
#ifndef PHX_SHARD_SCHED_H
#define PHX_SHARD_SCHED_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/rpc.h"
#include "shard/kv/kv.h"

/* Sequences admitted in one plan have at most so many tokens together (a single longer one is fine):
 * their tokens travel with the plan, whose size this bounds. */
enum { PHX_PLAN_NEW_TOKENS = 65536, PHX_SCHED_SEQS_MAX = 4096 };

struct phx_sched_options {
    int32_t max_seqs;       /* running at once: slots 0 .. max_seqs-1 */
    int32_t max_waiting;    /* queued; more are refused with PHX_E_BUSY */
    int32_t max_rows;       /* rows of a step */
    int32_t chunk_rows;     /* prompt rows of one sequence in a step; 0 = max_rows */
    int32_t max_context;    /* tokens of a sequence, prompt + output */
    int32_t block_tokens;
    int32_t n_blocks;
    int32_t n_inflight;     /* plans open at once: the number of pipeline stages */
    int32_t vocab_size;
    int32_t max_results;    /* of a step, max_seqs or more; 0 = max_seqs */
    int32_t draft_rows;     /* a step with fewer rows, all decoding, is filled up to so many with guesses; 0 = off */
    bool    has_prefix_cache;
};

/* One sequence's share of a step. */
struct phx_plan_seq {
    int32_t        slot;
    int32_t        pos;        /* position of its first row */
    int32_t        n_rows;
    int32_t        first_row;  /* in the step */
    bool           is_sampled; /* its last row's logits are sampled */
    int32_t        n_checked;  /* of its last rows: the next token is known and checked; 0 when is_sampled */
    int32_t        n_drafts;   /* of its last rows: their tokens are guesses; n_rows is 1 + n_drafts then */
    const int32_t *tokens;     /* [n_rows] borrowed until the next phx_sched_* call */
    const int32_t *blocks;     /* block table, borrowed likewise */
    int32_t        n_blocks;
    bool           is_new;     /* first plan since (re)admission: followers (re)create the slot */
};

struct phx_plan {
    uint64_t             step;
    int32_t              n_rows;
    int32_t              n_seqs;
    struct phx_plan_seq *seqs; /* [max_seqs] owned by the scheduler, one set per inflight plan */
    int32_t              n_prefill_rows, n_decode_rows, n_draft_rows;
};

/* What a sequence asked for, for the sampler and the followers; borrowed until it finishes. */
struct phx_sched_seq_info {
    uint64_t                   seq_id;
    const int32_t             *tokens;   /* all known: prompt + generated */
    int32_t                    n_tokens;
    int32_t                    n_prompt; /* of the original prompt */
    const struct phx_sampling *sampling;
};

/* One result; those of one sequence follow each other in the order of its rows. */
struct phx_sampled {
    int32_t slot;
    int32_t token;
};

struct phx_sched_event { /* what became of a sequence when a step completed */
    uint64_t        seq_id;
    int32_t         slot;
    int32_t         token;  /* -1 when only finished */
    int32_t         result; /* its entry in the step's results; -1 when token is */
    int32_t         index;  /* generated tokens before this one, since the original prompt */
    int32_t         cached_tokens;
    enum phx_finish finish;
};

struct phx_sched;

int  phx_sched_create(const struct phx_sched_options *options, struct phx_sched **out,
                      struct phx_err *err) PHX_CHECKED;
void phx_sched_destroy(struct phx_sched *s);

/* Copies the request.  Refused with a reason when it can never run (too long, bad ids, an id in use) or the
 * queue is full (PHX_E_BUSY; sequences whose end has not been fetched by drain_events count too). */
int phx_sched_submit(struct phx_sched *s, const struct phx_submit *submit, struct phx_err *err) PHX_CHECKED;
/* Takes effect at once for waiting sequences, at completion of the open step for running ones; answers
 * through the events.  Unknown ids are ignored (it may have just finished). */
void phx_sched_cancel(struct phx_sched *s, uint64_t seq_id);

/* The next plan, or NULL when nothing can run now (nothing to do, or n_inflight plans are open). */
const struct phx_plan *phx_sched_plan(struct phx_sched *s);

/* The oldest open plan is done.  sampled: one entry per is_sampled sequence and checked row, and
 * behind that of a row with guesses after it further ones, at least as far as the guesses are right.  code != 0: the step was
 * dropped by every rank; its sequences run it again (at most 3 times, then they finish with ERROR).
 * Fills events (room for max_results + max_waiting); returns their number. */
int32_t phx_sched_complete(struct phx_sched *s, const struct phx_sampled *sampled, int32_t n_sampled,
                           int code, struct phx_sched_event *events);
/* Events of cancellations that needed no step. */
int32_t phx_sched_drain_events(struct phx_sched *s, struct phx_sched_event *events);

bool phx_sched_info(const struct phx_sched *s, int32_t slot, struct phx_sched_seq_info *info);

struct phx_sched_stats {
    int32_t             n_running, n_waiting, n_open_plans;
    uint64_t            n_preempted, n_steps;
    uint64_t            n_drafted, n_accepted; /* guesses that were run, and those that became output */
    struct phx_kv_stats kv;
};
void phx_sched_stats(const struct phx_sched *s, struct phx_sched_stats *stats);
bool phx_sched_is_consistent(const struct phx_sched *s); /* every invariant, for tests */

#endif
