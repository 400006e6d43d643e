/* SPDX-License-Identifier: Apache-2.0
 * Planning one step: first what must not wait, then one row for every sequence that decodes, then chunks
 * of prompts that run, then new sequences from the queue. */
#include "shard/sched/seq.h"

#include "rpc/base/mem.h"

struct draft {
    struct phx_sched *s;
    struct open_plan *open;
    int32_t           rows_left;
    int32_t           results_left;
    int32_t           tokens_left; /* that newly admitted sequences may have together */
};

/* Of the rows before position `end`, those whose next token is still to be checked. */
static int32_t count_checked(const struct seq *seq, int32_t end)
{
    int32_t n = seq->n_check > 0 ? end - phx_seq_first_check(seq) : 0;

    return n > 0 ? n : 0;
}

static void add_to_plan(struct draft *d, struct seq *seq, int32_t n_rows)
{
    struct phx_plan     *plan = &d->open->plan;
    struct phx_plan_seq *p = &plan->seqs[plan->n_seqs];
    bool                 is_last = seq->n_computed + n_rows == seq->n_tokens;
    int32_t              n_checked = count_checked(seq, seq->n_computed + n_rows);

    d->open->seqs[plan->n_seqs++] = seq;
    *p = (struct phx_plan_seq){
        .slot = seq->slot,
        .pos = seq->n_computed,
        .n_rows = n_rows,
        .first_row = plan->n_rows,
        .is_sampled = is_last,
        .n_checked = n_checked,
        .tokens = seq->tokens + seq->n_computed,
        .blocks = seq->kv.blocks,
        .n_blocks = seq->kv.n_blocks,
        .is_new = seq->is_new,
    };
    seq->is_new = false;
    seq->is_planned = true;
    plan->n_rows += n_rows;
    d->rows_left -= n_rows;
    d->results_left -= is_last + n_checked;
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
    for (int32_t i = 0, next = s->cursor; i < n_slots && left > 0 && d->rows_left > 0; i++) {
        int32_t     slot = next;
        struct seq *seq = s->slots[slot];

        next = slot + 1 < n_slots ? slot + 1 : 0;
        if (d->results_left == 0)
            return;
        if (seq == NULL || seq->is_planned || seq->n_computed != seq->n_tokens - 1)
            continue;
        if (!make_room(s, seq))
            continue;
        add_to_plan(d, seq, 1);
        left--;
        s->cursor = next; /* who had no turn comes first next time */
    }
}

/* How many results a checked sequence may have: it leaves one for each of those that are not planned yet. */
static int32_t results_for(const struct draft *d, const struct seq *seq)
{
    int32_t n = d->results_left;

    for (int32_t i = 0; i < d->s->options.max_seqs; i++)
        n -= d->s->slots[i] != NULL && d->s->slots[i] != seq && !d->s->slots[i]->is_planned;
    n = n > 1 ? n : 1;
    return n < d->results_left ? n : d->results_left;
}

/* Nothing follows the last token of an answer, so that it needs no row; and without a result left, neither
 * does the last token of a prompt yet. */
static int32_t rows_to_go(const struct draft *d, const struct seq *seq)
{
    int32_t n = seq->n_tokens - seq->n_computed, most;

    if (seq->n_check == 0)
        return n - (d->results_left == 0);
    most = phx_seq_first_check(seq) + results_for(d, seq) - seq->n_computed;
    return n - 1 < most ? n - 1 : most;
}

static int32_t chunk_of(const struct draft *d, const struct seq *seq)
{
    int32_t n = rows_to_go(d, seq);

    n = n < d->s->options.chunk_rows ? n : d->s->options.chunk_rows;
    return n < d->rows_left ? n : d->rows_left;
}

static bool is_prefilling(const struct draft *d, const struct seq *seq)
{
    return seq->n_computed < seq->n_tokens - 1 &&
           (seq->n_check == 0 || d->results_left > 0 || seq->n_computed < phx_seq_first_check(seq));
}

/* Prompts under way go on, in the order of the queue. */
static void plan_prefills(struct draft *d)
{
    struct phx_sched *s = d->s;

    while (d->rows_left > 0) {
        struct seq *first = NULL;

        for (int32_t i = 0; i < s->options.max_seqs; i++) {
            struct seq *seq = s->slots[i];

            if (seq != NULL && !seq->is_planned && is_prefilling(d, seq) &&
                (first == NULL || phx_seq_is_before(seq, first)))
                first = seq;
        }
        if (first == NULL)
            return;
        add_to_plan(d, first, chunk_of(d, first));
    }
}

static int32_t find_slot(const struct phx_sched *s)
{
    for (int32_t i = 0; i < s->options.max_seqs; i++)
        if (s->slots[i] == NULL)
            return i;
    return -1;
}

/* Blocks for all of its known tokens, less what the prefix cache has.  While others run, one block for each
 * of them is left over: they grow, and a newcomer would be preempted again at once. */
static bool reserve_prompt(struct phx_sched *s, struct seq *seq)
{
    int32_t n_blocks = (seq->n_tokens - 1) / s->options.block_tokens + 1, found = 0;
    int32_t n_match = seq->n_check > 0 ? phx_seq_first_check(seq) + 1 : seq->n_tokens;

    if (seq->tried_at == s->n_vacated) /* no block has come free: hashing it again is in vain */
        return false;
    if (s->options.has_prefix_cache)
        found = phx_kv_match(s->pool, &seq->kv, seq->tokens, n_match);
    if (n_blocks - seq->kv.n_blocks + s->n_running <= phx_kv_available(s->pool)) {
        phx_assert(phx_kv_extend(s->pool, &seq->kv, seq->n_tokens) == 0);
        seq->n_computed = found;
        if (!seq->was_admitted) /* what it finds after a preemption is its own work */
            seq->cached_tokens = found < seq->n_prompt ? found : seq->n_prompt;
        seq->was_admitted = true;
        return true;
    }
    if (s->options.has_prefix_cache)
        phx_kv_unmatch(s->pool, &seq->kv, found, n_match);
    phx_kv_seq_init(&seq->kv, seq->kv.blocks, seq->kv.max_blocks, seq->salt);
    seq->tried_at = s->n_vacated;
    return false;
}

static bool fits_plan(const struct draft *d, const struct seq *seq)
{
    return seq->n_tokens <= d->tokens_left || d->tokens_left == PHX_PLAN_NEW_TOKENS;
}

static bool has_room(const struct draft *d)
{
    return d->rows_left > 0 && d->results_left > 0;
}

/* Gives the first of the queue a slot, blocks and at most max_rows rows, when there are any. */
static bool admit_first(struct draft *d, int32_t max_rows)
{
    struct phx_sched *s = d->s;
    struct seq       *seq = s->waiting[0];
    int32_t           slot = find_slot(s), n_rows;

    if (slot < 0 || !reserve_prompt(s, seq))
        return false;
    phx_sched_unqueue(s, 0);
    seq->slot = slot;
    seq->is_new = true;
    s->slots[slot] = seq;
    s->n_running++;
    d->tokens_left -= seq->n_tokens;
    n_rows = chunk_of(d, seq);
    add_to_plan(d, seq, n_rows < max_rows ? n_rows : max_rows);
    return true;
}

/* Who has a higher priority than something that runs goes first and displaces it, if need be; it leaves
 * a row for each of those that go on. */
static void admit_urgent(struct draft *d)
{
    struct phx_sched *s = d->s;

    while (has_room(d) && s->n_waiting > 0 && fits_plan(d, s->waiting[0])) {
        struct seq *victim = find_victim(s);
        int32_t     spare = d->rows_left - s->n_running;

        if (victim == NULL || victim->priority >= s->waiting[0]->priority)
            return;
        if (!admit_first(d, spare > 1 ? spare : 1))
            preempt(s, victim);
    }
}

static void admit_waiting(struct draft *d)
{
    while (has_room(d) && d->s->n_waiting > 0 && fits_plan(d, d->s->waiting[0]) &&
           admit_first(d, d->rows_left))
        ;
}

const struct phx_plan *phx_sched_plan(struct phx_sched *s)
{
    struct draft d = {s, NULL, s->options.max_rows, s->options.max_results, PHX_PLAN_NEW_TOKENS};

    if (s->n_plans == s->options.n_inflight)
        return NULL;
    d.open = &s->plans[(s->plan_first + s->n_plans) % s->options.n_inflight];
    d.open->plan = (struct phx_plan){.seqs = d.open->plan.seqs};
    admit_urgent(&d);
    plan_decodes(&d);
    plan_prefills(&d);
    admit_waiting(&d);
    if (d.open->plan.n_seqs == 0)
        return NULL;
    phx_sched_plan_drafts(s, d.open, d.results_left);
    d.open->plan.step = ++s->step;
    s->n_plans++;
    return &d.open->plan;
}
