/* SPDX-License-Identifier: Apache-2.0
 * Creation and completion; submit.c has what comes in, plan.c the planning. */
#include "shard/sched/sched.h"

#include <string.h>

#include "rpc/base/mem.h"
#include "shard/sched/seq.h"

enum { WAITING_MAX = 65536, ROWS_MAX = 65536, CONTEXT_MAX = 1 << 20, INFLIGHT_MAX = 512 };

static int check_options(const struct phx_sched_options *o, struct phx_err *err)
{
    if (o->max_seqs < 1 || o->max_seqs > PHX_SCHED_SEQS_MAX)
        return phx_fail(err, PHX_E_INVALID, "max_seqs: %d is not 1 to %d", o->max_seqs,
                        PHX_SCHED_SEQS_MAX);
    if (o->max_waiting < 0 || o->max_waiting > WAITING_MAX)
        return phx_fail(err, PHX_E_INVALID, "max_waiting: %d is not 0 to %d", o->max_waiting,
                        WAITING_MAX);
    if (o->max_rows < 1 || o->max_rows > ROWS_MAX)
        return phx_fail(err, PHX_E_INVALID, "max_rows: %d is not 1 to %d", o->max_rows, ROWS_MAX);
    if (o->chunk_rows < 0 || o->chunk_rows > o->max_rows)
        return phx_fail(err, PHX_E_INVALID, "chunk_rows: %d is not 0 to max_rows", o->chunk_rows);
    if (o->max_context < 2 || o->max_context > CONTEXT_MAX)
        return phx_fail(err, PHX_E_INVALID, "max_context: %d is not 2 to %d", o->max_context,
                        CONTEXT_MAX);
    if (o->n_blocks < 1 || o->block_tokens < 1)
        return phx_fail(err, PHX_E_INVALID, "cache: %d blocks of %d tokens", o->n_blocks,
                        o->block_tokens);
    if (o->n_inflight < 1 || o->n_inflight > INFLIGHT_MAX)
        return phx_fail(err, PHX_E_INVALID, "n_inflight: %d is not 1 to %d", o->n_inflight,
                        INFLIGHT_MAX);
    if (o->max_results != 0 && (o->max_results < o->max_seqs || o->max_results > PHX_SCHED_SEQS_MAX))
        return phx_fail(err, PHX_E_INVALID, "max_results: %d is not max_seqs to %d", o->max_results,
                        PHX_SCHED_SEQS_MAX);
    if (o->draft_rows < 0 || o->draft_rows > ROWS_MAX)
        return phx_fail(err, PHX_E_INVALID, "draft_rows: %d is not 0 to %d", o->draft_rows, ROWS_MAX);
    if (o->vocab_size < 1)
        return phx_fail(err, PHX_E_INVALID, "vocab_size: must be positive");
    return 0;
}

int phx_sched_create(const struct phx_sched_options *options, struct phx_sched **out,
                     struct phx_err *err)
{
    struct phx_sched   *s;
    struct phx_kv_pool *pool;
    int                 rc = check_options(options, err);
    size_t              n = (size_t)options->max_seqs;

    *out = NULL;
    if (rc == 0)
        rc = phx_kv_pool_create(options->n_blocks, options->block_tokens, &pool, err);
    if (rc != 0)
        return rc;
    s = phx_mem_calloc(1, sizeof(*s));
    s->options = *options;
    s->n_vacated = 1;
    if (s->options.chunk_rows == 0)
        s->options.chunk_rows = options->max_rows;
    if (s->options.max_results == 0)
        s->options.max_results = options->max_seqs;
    s->pool = pool;
    s->slots = phx_mem_calloc(n, sizeof(*s->slots));
    s->waiting = phx_mem_calloc((size_t)options->max_waiting + n, sizeof(*s->waiting));
    s->pending_max = options->max_waiting + options->max_seqs;
    s->pending = phx_mem_calloc((size_t)s->pending_max, sizeof(*s->pending));
    s->plans = phx_mem_calloc((size_t)options->n_inflight, sizeof(*s->plans));
    for (int32_t i = 0; i < options->n_inflight; i++) {
        s->plans[i].plan.seqs = phx_mem_calloc(n, sizeof(*s->plans[i].plan.seqs));
        s->plans[i].seqs = phx_mem_calloc(n, sizeof(*s->plans[i].seqs));
    }
    *out = s;
    return 0;
}

void phx_sched_destroy(struct phx_sched *s)
{
    if (s == NULL)
        return;
    for (int32_t i = 0; i < s->options.max_seqs; i++)
        phx_seq_destroy(s->slots[i]);
    for (int32_t i = 0; i < s->n_waiting; i++)
        phx_seq_destroy(s->waiting[i]);
    for (int32_t i = 0; i < s->options.n_inflight; i++) {
        phx_mem_free(s->plans[i].plan.seqs);
        phx_mem_free(s->plans[i].seqs);
    }
    phx_mem_free(s->plans);
    phx_mem_free(s->pending);
    phx_mem_free(s->waiting);
    phx_mem_free(s->slots);
    phx_kv_pool_destroy(s->pool);
    phx_mem_free(s);
}

/* What came of a step. */
struct results {
    const struct phx_sampled *sampled;
    int32_t                   n, next;
};

/* The first result of a slot, -1 when there is none.  They usually come in the plan's order, so the search
 * goes on behind the last one found. */
static int32_t find_result(struct results *r, int32_t slot)
{
    for (int32_t i = 0, at = r->next; i < r->n; i++, at++) {
        if (at >= r->n)
            at = 0;
        if (r->sampled[at].slot == slot) {
            r->next = at + 1;
            return at;
        }
    }
    return -1;
}

/* It is over: that is its last event. */
static void leave(struct phx_sched *s, struct seq *seq)
{
    phx_sched_vacate(s, seq);
    phx_seq_destroy(seq);
}

static bool is_token(const struct phx_sched *s, const struct results *r, int32_t at, int32_t slot)
{
    return at >= 0 && at < r->n && r->sampled[at].slot == slot && r->sampled[at].token >= 0 &&
           r->sampled[at].token < s->options.vocab_size;
}

static void tell(struct seq *seq, int32_t token, int32_t result, enum phx_finish finish,
                 struct phx_sched_event *event)
{
    phx_seq_put_end(event, seq, finish);
    event->index--;
    event->token = token;
    event->result = result;
    if (seq->has_output)
        event->cached_tokens = 0;
    seq->has_output = true;
}

/* One event for each checked row, or an end where a result is missing; their number. */
static int32_t take_checks(struct phx_sched *s, struct seq *seq, const struct phx_plan_seq *planned,
                           struct results *r, struct phx_sched_event *events)
{
    int32_t first = find_result(r, planned->slot);

    for (int32_t i = 0; i < planned->n_checked; i++) {
        if (first < 0 || !is_token(s, r, first + i, planned->slot)) {
            phx_seq_put_end(&events[i], seq, PHX_FINISH_ERROR);
            leave(s, seq);
            return i + 1;
        }
        seq->n_checked++;
        tell(seq, r->sampled[first + i].token, first + i,
             seq->n_checked == seq->n_check ? PHX_FINISH_LENGTH : PHX_FINISH_NONE, &events[i]);
    }
    if (planned->n_checked > 0)
        r->next = first + planned->n_checked;
    if (seq->n_checked == seq->n_check)
        leave(s, seq);
    return planned->n_checked;
}

/* Keys and values of further positions are in the cache. */
static void add_computed(struct phx_sched *s, struct seq *seq, int32_t n)
{
    seq->n_computed += n;
    if (s->options.has_prefix_cache)
        phx_kv_seal(s->pool, &seq->kv, seq->tokens, seq->n_computed);
}

static enum phx_finish finish_of(const struct seq *seq)
{
    if (phx_seq_is_stop(seq, seq->tokens[seq->n_tokens - 1]))
        return PHX_FINISH_STOP;
    return seq->n_tokens >= seq->max_total ? PHX_FINISH_LENGTH : PHX_FINISH_NONE;
}

/* The next token, and while the tokens are those that were guessed, the ones behind it; the number of events. */
static int32_t take_tokens(struct phx_sched *s, struct seq *seq, const struct phx_plan_seq *planned,
                           struct results *r, struct phx_sched_event *events)
{
    int32_t         at = find_result(r, planned->slot), n = 0;
    bool            is_right = true;
    enum phx_finish finish = PHX_FINISH_NONE;

    for (; is_right && finish == PHX_FINISH_NONE; n++, at++) {
        if (!is_token(s, r, at, planned->slot)) {
            phx_seq_put_end(&events[n], seq, finish = PHX_FINISH_ERROR);
            continue;
        }
        is_right = n < planned->n_drafts && seq->tokens[seq->n_tokens] == r->sampled[at].token;
        s->n_accepted += is_right;
        seq->tokens[seq->n_tokens++] = r->sampled[at].token;
        if (is_right)
            add_computed(s, seq, 1);
        finish = finish_of(seq);
        tell(seq, r->sampled[at].token, at, finish, &events[n]);
    }
    r->next = at;
    s->n_drafted += (uint64_t)planned->n_drafts;
    phx_drafter_learn(&seq->drafter, planned->n_drafts, n - !is_right, n);
    if (finish != PHX_FINISH_NONE)
        leave(s, seq);
    return n;
}

/* What a completed step means for one of its sequences; the number of events written. */
static int32_t advance(struct phx_sched *s, struct seq *seq, const struct phx_plan_seq *planned,
                       struct results *r, struct phx_sched_event *events)
{
    add_computed(s, seq, planned->n_rows - planned->n_drafts);
    seq->n_retries = 0;
    if (seq->is_cancelled) {
        phx_seq_put_end(events, seq, PHX_FINISH_CANCELLED);
        leave(s, seq);
        return 1;
    }
    if (planned->n_checked > 0)
        return take_checks(s, seq, planned, r, events);
    return planned->is_sampled ? take_tokens(s, seq, planned, r, events) : 0;
}

/* The step was dropped: run it again, a few times. */
static int32_t retry(struct phx_sched *s, struct seq *seq, struct phx_sched_event *event)
{
    if (++seq->n_retries <= RETRIES_MAX && !seq->is_cancelled)
        return 0;
    phx_seq_put_end(event, seq, seq->is_cancelled ? PHX_FINISH_CANCELLED : PHX_FINISH_ERROR);
    leave(s, seq);
    return 1;
}

int32_t phx_sched_complete(struct phx_sched *s, const struct phx_sampled *sampled, int32_t n_sampled,
                           int code, struct phx_sched_event *events)
{
    struct open_plan *open = &s->plans[s->plan_first];
    struct results    results = {sampled, n_sampled, 0};
    int32_t           n = 0;

    phx_assert(s->n_plans > 0);
    for (int32_t i = 0; i < open->plan.n_seqs; i++) {
        const struct phx_plan_seq *planned = &open->plan.seqs[i];
        struct seq                *seq = open->seqs[i];

        seq->is_planned = false;
        n += code != 0 ? retry(s, seq, &events[n]) : advance(s, seq, planned, &results, &events[n]);
    }
    s->plan_first = (s->plan_first + 1) % s->options.n_inflight;
    s->n_plans--;
    return n;
}

bool phx_sched_info(const struct phx_sched *s, int32_t slot, struct phx_sched_seq_info *info)
{
    const struct seq *seq;

    if (slot < 0 || slot >= s->options.max_seqs || s->slots[slot] == NULL)
        return false;
    seq = s->slots[slot];
    *info = (struct phx_sched_seq_info){
        .seq_id = seq->id,
        .tokens = seq->tokens,
        .n_tokens = seq->n_tokens,
        .n_prompt = seq->n_prompt,
        .sampling = &seq->sampling,
    };
    return true;
}

void phx_sched_stats(const struct phx_sched *s, struct phx_sched_stats *stats)
{
    *stats = (struct phx_sched_stats){
        .n_running = s->n_running,
        .n_waiting = s->n_waiting,
        .n_open_plans = s->n_plans,
        .n_preempted = s->n_preempted,
        .n_steps = s->step,
        .n_drafted = s->n_drafted,
        .n_accepted = s->n_accepted,
    };
    phx_kv_stats(s->pool, &stats->kv);
}

bool phx_sched_is_consistent(const struct phx_sched *s)
{
    int32_t n_running = 0, n_planned = 0, n_in_plans = 0;

    for (int32_t i = 0; i < s->options.max_seqs; i++) {
        const struct seq *seq = s->slots[i];

        if (seq == NULL)
            continue;
        n_running++;
        n_planned += seq->is_planned;
        if (seq->slot != i || seq->n_computed >= seq->n_tokens || seq->n_checked > seq->n_check ||
            (seq->n_check == 0 ? seq->n_tokens >= seq->max_total
                               : !seq->is_planned && seq->n_computed > phx_seq_first_check(seq)) ||
            seq->kv.n_blocks * s->options.block_tokens < seq->n_computed)
            return false;
    }
    for (int32_t i = 0; i < s->n_plans; i++)
        n_in_plans += s->plans[(s->plan_first + i) % s->options.n_inflight].plan.n_seqs;
    for (int32_t i = 0; i < s->n_waiting; i++)
        if (s->waiting[i]->slot != -1 || s->waiting[i]->kv.n_blocks != 0)
            return false;
    return n_running == s->n_running && n_planned == n_in_plans && phx_kv_is_consistent(s->pool);
}
