/* SPDX-License-Identifier: Apache-2.0
 * Planning one step: first one row for every sequence that decodes, then chunks of prompts that run, then
 * new sequences from the queue. */
#include "shard/sched/seq.h"

#include "rpc/base/mem.h"

struct draft {
    struct phx_sched *s;
    struct open_plan *open;
    int32_t           rows_left;
};

static void add_to_plan(struct draft *d, struct seq *seq, int32_t n_rows)
{
    struct phx_plan     *plan = &d->open->plan;
    struct phx_plan_seq *p = &plan->seqs[plan->n_seqs];
    bool                 is_last = seq->n_computed + n_rows == seq->n_tokens;

    d->open->seqs[plan->n_seqs++] = seq;
    *p = (struct phx_plan_seq){
        .slot = seq->slot,
        .pos = seq->n_computed,
        .n_rows = n_rows,
        .first_row = plan->n_rows,
        .is_sampled = is_last,
        .tokens = seq->tokens + seq->n_computed,
        .blocks = seq->kv.blocks,
        .n_blocks = seq->kv.n_blocks,
        .is_new = seq->is_new,
    };
    seq->is_new = false;
    seq->is_planned = true;
    plan->n_rows += n_rows;
    d->rows_left -= n_rows;
    if (n_rows == 1 && is_last && seq->n_tokens > seq->n_prompt)
        plan->n_decode_rows++;
    else
        plan->n_prefill_rows += n_rows;
}

/* The running sequence that gives way first: lowest priority, then youngest; not one of an open plan. */
static struct seq *find_victim(const struct phx_sched *s)
{
    struct seq *victim = NULL;

    for (int32_t i = 0; i < s->options.max_seqs; i++) {
        struct seq *seq = s->slots[i];

        if (seq == NULL || seq->is_planned)
            continue;
        if (victim == NULL || seq->priority < victim->priority ||
            (seq->priority == victim->priority && seq->order > victim->order))
            victim = seq;
    }
    return victim;
}

static void preempt(struct phx_sched *s, struct seq *victim)
{
    phx_sched_vacate(s, victim);
    s->n_preempted++;
    phx_sched_enqueue(s, victim);
}

/* Room for the next row of a decoding sequence, at the cost of others that matter less; false when it has
 * to wait (or was itself the one that gave way). */
static bool make_room(struct phx_sched *s, struct seq *seq)
{
    while (phx_kv_extend(s->pool, &seq->kv, seq->n_tokens) != 0) {
        struct seq *victim = find_victim(s);

        if (victim == NULL)
            return false;
        if (victim == seq) {
            if (s->n_running > 1) /* alone it only has to wait for open plans to end */
                preempt(s, seq);
            return false;
        }
        preempt(s, victim);
    }
    return true;
}

/* With a pipeline the decoding sequences are spread over the open plans, so that every stage has work. */
static void plan_decodes(struct draft *d)
{
    struct phx_sched *s = d->s;
    int32_t           n_slots = s->options.max_seqs, left;

    left = (s->n_running + s->options.n_inflight - 1) / s->options.n_inflight;
    for (int32_t i = 0; i < n_slots && left > 0 && d->rows_left > 0; i++) {
        int32_t     slot = (s->cursor + i) % n_slots;
        struct seq *seq = s->slots[slot];

        if (seq == NULL || seq->is_planned || seq->n_computed != seq->n_tokens - 1)
            continue;
        if (!make_room(s, seq))
            continue;
        add_to_plan(d, seq, 1);
        left--;
        if (left == 0)
            s->cursor = (slot + 1) % n_slots;
    }
}

static int32_t chunk_of(const struct draft *d, const struct seq *seq)
{
    int32_t n = seq->n_tokens - seq->n_computed;

    n = n < d->s->options.chunk_rows ? n : d->s->options.chunk_rows;
    return n < d->rows_left ? n : d->rows_left;
}

/* Prompts under way go on, oldest first. */
static void plan_prefills(struct draft *d)
{
    struct phx_sched *s = d->s;

    while (d->rows_left > 0) {
        struct seq *oldest = NULL;

        for (int32_t i = 0; i < s->options.max_seqs; i++) {
            struct seq *seq = s->slots[i];

            if (seq != NULL && !seq->is_planned && seq->n_computed < seq->n_tokens - 1 &&
                (oldest == NULL || seq->order < oldest->order))
                oldest = seq;
        }
        if (oldest == NULL)
            return;
        add_to_plan(d, oldest, chunk_of(d, oldest));
    }
}

static int32_t find_slot(const struct phx_sched *s)
{
    for (int32_t i = 0; i < s->options.max_seqs; i++)
        if (s->slots[i] == NULL)
            return i;
    return -1;
}

/* Blocks for all of its known tokens, less what the prefix cache has. */
static bool reserve_prompt(struct phx_sched *s, struct seq *seq)
{
    if (s->options.has_prefix_cache)
        seq->n_computed = phx_kv_match(s->pool, &seq->kv, seq->tokens, seq->n_tokens);
    if (phx_kv_extend(s->pool, &seq->kv, seq->n_tokens) == 0) {
        if (!seq->has_output)
            seq->cached_tokens = seq->n_computed < seq->n_prompt ? seq->n_computed : seq->n_prompt;
        return true;
    }
    phx_kv_release(s->pool, &seq->kv);
    phx_kv_seq_init(&seq->kv, seq->kv.blocks, seq->kv.max_blocks, seq->salt);
    seq->n_computed = 0;
    return false;
}

static void admit_waiting(struct draft *d)
{
    struct phx_sched *s = d->s;

    while (d->rows_left > 0 && s->n_waiting > 0) {
        struct seq *seq = s->waiting[0];
        int32_t     slot = find_slot(s);

        if (slot < 0 || !reserve_prompt(s, seq)) {
            struct seq *victim = find_victim(s);

            /* only a higher priority displaces what runs; equals wait their turn */
            if (victim == NULL || victim->priority >= seq->priority)
                return;
            preempt(s, victim);
            continue;
        }
        s->n_waiting--;
        for (int32_t i = 0; i < s->n_waiting; i++)
            s->waiting[i] = s->waiting[i + 1];
        seq->slot = slot;
        seq->is_new = true;
        s->slots[slot] = seq;
        s->n_running++;
        add_to_plan(d, seq, chunk_of(d, seq));
    }
}

const struct phx_plan *phx_sched_plan(struct phx_sched *s)
{
    struct draft d = {s, NULL, s->options.max_rows};

    if (s->n_plans == s->options.n_inflight)
        return NULL;
    d.open = &s->plans[(s->plan_first + s->n_plans) % s->options.n_inflight];
    d.open->plan = (struct phx_plan){.seqs = d.open->plan.seqs};
    plan_decodes(&d);
    plan_prefills(&d);
    admit_waiting(&d);
    if (d.open->plan.n_seqs == 0)
        return NULL;
    d.open->plan.step = ++s->step;
    s->n_plans++;
    return &d.open->plan;
}
