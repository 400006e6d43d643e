/* SPDX-License-Identifier: Apache-2.0
 * What comes in: new sequences, and cancellations. */
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/sched/seq.h"

static int check_room(const struct phx_sched *s, const struct phx_submit *r, struct phx_err *err)
{
    const struct phx_sched_options *o = &s->options;
    int64_t total = (int64_t)r->n_tokens + (r->n_check > 0 ? 0 : r->max_new), room;

    if (r->n_tokens - (r->n_check > 0) >= o->max_context)
        return phx_fail(err, PHX_E_TOOBIG, "sequence: %d tokens fill the context of %d", r->n_tokens,
                        o->max_context);
    total = total < o->max_context ? total : o->max_context;
    room = (int64_t)o->n_blocks * o->block_tokens;
    if (total > room)
        return phx_fail(err, PHX_E_TOOBIG,
                        "sequence: %lld tokens need more than the cache's %lld; lower max_tokens",
                        (long long)total, (long long)room);
    /* events of cancelled ones count until they are fetched, so that none is ever lost */
    if (s->n_waiting + s->n_running + s->n_pending >= o->max_waiting + o->max_seqs)
        return phx_fail(err, PHX_E_BUSY, "the queue of %d sequences is full", o->max_waiting);
    return 0;
}

static bool is_in_use(const struct phx_sched *s, uint64_t seq_id)
{
    for (int32_t i = 0; i < s->n_waiting; i++)
        if (s->waiting[i]->id == seq_id)
            return true;
    for (int32_t i = 0; i < s->options.max_seqs; i++)
        if (s->slots[i] != NULL && s->slots[i]->id == seq_id)
            return true;
    return false;
}

static int check_submit(const struct phx_sched *s, const struct phx_submit *r, struct phx_err *err)
{
    int rc;

    if (r->seq_id == 0 || is_in_use(s, r->seq_id))
        return phx_fail(err, PHX_E_INVALID, "sequence: id %llu is 0 or in use",
                        (unsigned long long)r->seq_id);
    if (r->n_tokens < 1 || r->n_prompt < 1 || r->n_prompt > r->n_tokens || r->max_new < 1)
        return phx_fail(err, PHX_E_INVALID, "sequence: n_tokens %d, n_prompt %d, max_new %d",
                        r->n_tokens, r->n_prompt, r->max_new);
    if (r->n_check < 0 || r->n_check > r->n_tokens - r->n_prompt)
        return phx_fail(err, PHX_E_INVALID, "sequence: n_check %d is not 0 to %d", r->n_check,
                        r->n_tokens - r->n_prompt);
    rc = check_room(s, r, err);
    if (rc != 0)
        return rc;
    for (int32_t i = 0; i < r->n_tokens; i++)
        if (r->tokens[i] < 0 || r->tokens[i] >= s->options.vocab_size)
            return phx_fail(err, PHX_E_INVALID, "sequence: token %d is not an id below %d", i,
                            s->options.vocab_size);
    rc = phx_sampling_check(&r->sampling, err);
    for (int32_t i = 0; rc == 0 && i < r->sampling.n_bias; i++)
        if (r->sampling.bias[i].token < 0 || r->sampling.bias[i].token >= s->options.vocab_size)
            rc = phx_fail(err, PHX_E_INVALID, "logit_bias: entry %d is not of an id below %d", i,
                          s->options.vocab_size);
    return rc;
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

static void finish_now(struct phx_sched *s, struct seq *seq)
{
    phx_assert(s->n_pending < s->pending_max); /* check_room keeps a place for each */
    phx_seq_put_end(&s->pending[s->n_pending++], seq, PHX_FINISH_CANCELLED);
    if (seq->slot >= 0)
        phx_sched_vacate(s, seq);
    phx_seq_destroy(seq);
}

void phx_sched_cancel(struct phx_sched *s, uint64_t seq_id)
{
    for (int32_t i = 0; i < s->n_waiting; i++)
        if (s->waiting[i]->id == seq_id) {
            struct seq *seq = s->waiting[i];

            phx_sched_unqueue(s, i);
            finish_now(s, seq);
            return;
        }
    for (int32_t i = 0; i < s->options.max_seqs; i++)
        if (s->slots[i] != NULL && s->slots[i]->id == seq_id) {
            if (s->slots[i]->is_planned)
                s->slots[i]->is_cancelled = true;
            else
                finish_now(s, s->slots[i]);
            return;
        }
}

int32_t phx_sched_drain_events(struct phx_sched *s, struct phx_sched_event *events)
{
    int32_t n = s->n_pending;

    if (n > 0)
        memcpy(events, s->pending, (size_t)n * sizeof(*events));
    s->n_pending = 0;
    return n;
}
