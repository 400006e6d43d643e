/* SPDX-License-Identifier: Apache-2.0
 * Creation, submission, cancellation and completion; the planning itself is in plan.c. */
#include "shard/sched/sched.h"

#include <string.h>

#include "rpc/base/mem.h"
#include "shard/sched/seq.h"

enum { SEQS_MAX = 4096, WAITING_MAX = 65536, ROWS_MAX = 65536, CONTEXT_MAX = 1 << 20, INFLIGHT_MAX = 512 };

static int check_options(const struct phx_sched_options *o, struct phx_err *err)
{
    if (o->max_seqs < 1 || o->max_seqs > SEQS_MAX)
        return phx_fail(err, PHX_E_INVALID, "max_seqs: %d is not 1 to %d", o->max_seqs, SEQS_MAX);
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
    if (o->n_inflight < 1 || o->n_inflight > INFLIGHT_MAX)
        return phx_fail(err, PHX_E_INVALID, "n_inflight: %d is not 1 to %d", o->n_inflight,
                        INFLIGHT_MAX);
    if (o->vocab_size < 1)
        return phx_fail(err, PHX_E_INVALID, "vocab_size: must be positive");
    return 0;
}

int phx_sched_create(const struct phx_sched_options *options, struct phx_sched **out,
                     struct phx_err *err)
{
    struct phx_sched   *s;
    struct phx_kv_pool *pool;
    size_t              n = (size_t)options->max_seqs;
    int                 rc = check_options(options, err);

    *out = NULL;
    if (rc == 0)
        rc = phx_kv_pool_create(options->n_blocks, options->block_tokens, &pool, err);
    if (rc != 0)
        return rc;
    s = phx_mem_calloc(1, sizeof(*s));
    s->options = *options;
    if (s->options.chunk_rows == 0)
        s->options.chunk_rows = options->max_rows;
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

static int check_submit(const struct phx_sched *s, const struct phx_submit *r, struct phx_err *err)
{
    int64_t total = (int64_t)r->n_tokens + r->max_new, room;

    if (r->n_tokens < 1 || r->n_prompt < 1 || r->n_prompt > r->n_tokens || r->max_new < 1)
        return phx_fail(err, PHX_E_INVALID, "sequence: n_tokens %d, n_prompt %d, max_new %d",
                        r->n_tokens, r->n_prompt, r->max_new);
    if (r->n_tokens >= s->options.max_context)
        return phx_fail(err, PHX_E_TOOBIG, "sequence: %d tokens fill the context of %d", r->n_tokens,
                        s->options.max_context);
    if (total > s->options.max_context)
        total = s->options.max_context;
    room = (int64_t)s->options.n_blocks * s->options.block_tokens;
    if (total > room)
        return phx_fail(err, PHX_E_TOOBIG,
                        "sequence: %lld tokens need more than the cache's %lld; lower max_tokens",
                        (long long)total, (long long)room);
    for (int32_t i = 0; i < r->n_tokens; i++)
        if (r->tokens[i] < 0 || r->tokens[i] >= s->options.vocab_size)
            return phx_fail(err, PHX_E_INVALID, "sequence: token %d is not an id below %d", i,
                            s->options.vocab_size);
    if (s->n_waiting >= s->options.max_waiting && s->n_running >= s->options.max_seqs)
        return phx_fail(err, PHX_E_BUSY, "the queue of %d sequences is full", s->options.max_waiting);
    if (s->n_waiting + s->n_running >= s->options.max_waiting + s->options.max_seqs)
        return phx_fail(err, PHX_E_BUSY, "the queue of %d sequences is full", s->options.max_waiting);
    return phx_sampling_check(&r->sampling, err);
}

int phx_sched_submit(struct phx_sched *s, const struct phx_submit *submit, struct phx_err *err)
{
    struct seq *seq;
    int         rc = check_submit(s, submit, err);

    if (rc != 0)
        return rc;
    seq = phx_seq_create(submit, &s->options);
    seq->order = ++s->order;
    phx_sched_enqueue(s, seq);
    return 0;
}

static void put_event(struct phx_sched_event *e, const struct seq *seq, int32_t slot, int32_t token,
                      enum phx_finish finish)
{
    *e = (struct phx_sched_event){
        .seq_id = seq->id,
        .slot = slot,
        .token = token,
        .index = seq->n_tokens - seq->n_prompt - (token >= 0),
        .cached_tokens = seq->cached_tokens,
        .finish = finish,
    };
}

static void finish_now(struct phx_sched *s, struct seq *seq, enum phx_finish finish)
{
    if (s->n_pending < s->pending_max)
        put_event(&s->pending[s->n_pending++], seq, seq->slot, -1, finish);
    if (seq->slot >= 0)
        phx_sched_vacate(s, seq);
    phx_seq_destroy(seq);
}

void phx_sched_cancel(struct phx_sched *s, uint64_t seq_id)
{
    for (int32_t i = 0; i < s->n_waiting; i++)
        if (s->waiting[i]->id == seq_id) {
            struct seq *seq = s->waiting[i];

            s->n_waiting--;
            memmove(&s->waiting[i], &s->waiting[i + 1],
                    (size_t)(s->n_waiting - i) * sizeof(*s->waiting));
            finish_now(s, seq, PHX_FINISH_CANCELLED);
            return;
        }
    for (int32_t i = 0; i < s->options.max_seqs; i++)
        if (s->slots[i] != NULL && s->slots[i]->id == seq_id) {
            if (s->slots[i]->is_planned)
                s->slots[i]->is_cancelled = true;
            else
                finish_now(s, s->slots[i], PHX_FINISH_CANCELLED);
            return;
        }
}

int32_t phx_sched_drain_events(struct phx_sched *s, struct phx_sched_event *events)
{
    int32_t n = s->n_pending;

    memcpy(events, s->pending, (size_t)n * sizeof(*events));
    s->n_pending = 0;
    return n;
}

static bool is_stop(const struct seq *seq, int32_t token)
{
    if (seq->sampling.ignore_eos)
        return false;
    for (int32_t i = 0; i < seq->sampling.n_stop_ids; i++)
        if (seq->sampling.stop_ids[i] == token)
            return true;
    return false;
}

static int32_t find_sampled(const struct phx_sampled *sampled, int32_t n, int32_t slot)
{
    for (int32_t i = 0; i < n; i++)
        if (sampled[i].slot == slot)
            return sampled[i].token;
    return -1;
}

/* What a completed step means for one of its sequences; 1 when an event was written. */
static int32_t advance(struct phx_sched *s, struct seq *seq, const struct phx_plan_seq *planned,
                       int32_t token, struct phx_sched_event *event)
{
    int32_t         slot = seq->slot;
    enum phx_finish finish = PHX_FINISH_NONE;

    seq->n_computed += planned->n_rows;
    seq->n_retries = 0;
    if (s->options.has_prefix_cache)
        phx_kv_seal(s->pool, &seq->kv, seq->tokens, seq->n_computed);
    if (seq->is_cancelled) {
        put_event(event, seq, slot, -1, PHX_FINISH_CANCELLED);
        phx_sched_vacate(s, seq);
        phx_seq_destroy(seq);
        return 1;
    }
    if (!planned->is_sampled)
        return 0;
    if (token < 0 || token >= s->options.vocab_size)
        finish = PHX_FINISH_ERROR;
    else {
        seq->tokens[seq->n_tokens++] = token;
        if (is_stop(seq, token))
            finish = PHX_FINISH_STOP;
        else if (seq->n_tokens >= seq->max_total)
            finish = PHX_FINISH_LENGTH;
    }
    put_event(event, seq, slot, finish == PHX_FINISH_ERROR ? -1 : token, finish);
    if (seq->has_output)
        event->cached_tokens = 0;
    seq->has_output = true;
    if (finish != PHX_FINISH_NONE) {
        phx_sched_vacate(s, seq);
        phx_seq_destroy(seq);
    }
    return 1;
}

/* The step was dropped: run it again, a few times. */
static int32_t retry(struct phx_sched *s, struct seq *seq, struct phx_sched_event *event)
{
    if (++seq->n_retries <= RETRIES_MAX && !seq->is_cancelled)
        return 0;
    put_event(event, seq, seq->slot, -1,
              seq->is_cancelled ? PHX_FINISH_CANCELLED : PHX_FINISH_ERROR);
    phx_sched_vacate(s, seq);
    phx_seq_destroy(seq);
    return 1;
}

int32_t phx_sched_complete(struct phx_sched *s, const struct phx_sampled *sampled, int32_t n_sampled,
                           int code, struct phx_sched_event *events)
{
    struct open_plan *open = &s->plans[s->plan_first];
    int32_t           n = 0;

    phx_assert(s->n_plans > 0);
    for (int32_t i = 0; i < open->plan.n_seqs; i++) {
        const struct phx_plan_seq *planned = &open->plan.seqs[i];
        struct seq                *seq = open->seqs[i];

        seq->is_planned = false;
        if (code != 0)
            n += retry(s, seq, &events[n]);
        else
            n += advance(s, seq, planned, find_sampled(sampled, n_sampled, planned->slot),
                         &events[n]);
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
        if (seq->slot != i || seq->n_computed >= seq->n_tokens || seq->n_tokens >= seq->max_total ||
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
