/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/sched/seq.h"

#include <string.h>

#include "rpc/base/mem.h"

struct seq *phx_seq_create(const struct phx_submit *submit, const struct phx_sched_options *options)
{
    struct seq *s = phx_mem_calloc(1, sizeof(*s));
    int32_t     room = options->max_context - submit->n_tokens, max_blocks;

    s->id = submit->seq_id;
    s->slot = -1;
    s->priority = submit->priority;
    s->n_tokens = submit->n_tokens;
    s->n_prompt = submit->n_prompt;
    s->n_check = submit->n_check;
    s->max_total = submit->n_tokens;
    if (submit->n_check == 0)
        s->max_total += submit->max_new < room ? submit->max_new : room;
    s->tokens = phx_mem_calloc((size_t)s->max_total, sizeof(*s->tokens));
    memcpy(s->tokens, submit->tokens, (size_t)submit->n_tokens * sizeof(*s->tokens));
    s->sampling = submit->sampling;
    s->sampling.bias = phx_mem_dup(submit->sampling.bias,
                                   (size_t)submit->sampling.n_bias * sizeof(struct phx_bias));
    s->sampling.stop_ids = phx_mem_dup(submit->sampling.stop_ids,
                                       (size_t)submit->sampling.n_stop_ids * sizeof(int32_t));
    memcpy(s->salt, submit->cache_salt, sizeof(s->salt));
    max_blocks = (s->max_total + options->block_tokens - 1) / options->block_tokens;
    phx_kv_seq_init(&s->kv, phx_mem_calloc((size_t)max_blocks, sizeof(int32_t)), max_blocks, s->salt);
    if (options->draft_rows > 0 && submit->n_check == 0)
        phx_drafter_init(&s->drafter, s->max_total);
    return s;
}

void phx_seq_destroy(struct seq *s)
{
    if (s == NULL)
        return;
    phx_mem_free(s->tokens);
    phx_mem_free(s->kv.blocks);
    phx_drafter_fini(&s->drafter);
    phx_mem_free((void *)(uintptr_t)s->sampling.bias); /* our own copies, const for readers */
    phx_mem_free((void *)(uintptr_t)s->sampling.stop_ids);
    phx_mem_free(s);
}

int32_t phx_seq_first_check(const struct seq *seq)
{
    return seq->n_tokens - seq->n_check + seq->n_checked - 1;
}

void phx_seq_put_end(struct phx_sched_event *e, const struct seq *seq, enum phx_finish finish)
{
    *e = (struct phx_sched_event){
        .seq_id = seq->id,
        .slot = seq->slot,
        .token = -1,
        .result = -1,
        .index = seq->n_tokens - seq->n_prompt - (seq->n_check - seq->n_checked),
        .cached_tokens = seq->cached_tokens,
        .finish = finish,
    };
}

bool phx_seq_is_stop(const struct seq *seq, int32_t token)
{
    if (seq->sampling.ignore_eos)
        return false;
    for (int32_t i = 0; i < seq->sampling.n_stop_ids; i++)
        if (seq->sampling.stop_ids[i] == token)
            return true;
    return false;
}

bool phx_seq_is_before(const struct seq *a, const struct seq *b)
{
    return a->priority != b->priority ? a->priority > b->priority : a->order < b->order;
}

void phx_sched_enqueue(struct phx_sched *s, struct seq *seq)
{
    int32_t at = s->n_waiting++;

    while (at > 0 && phx_seq_is_before(seq, s->waiting[at - 1])) {
        s->waiting[at] = s->waiting[at - 1];
        at--;
    }
    s->waiting[at] = seq;
}

void phx_sched_unqueue(struct phx_sched *s, int32_t i)
{
    s->n_waiting--;
    memmove(&s->waiting[i], &s->waiting[i + 1], (size_t)(s->n_waiting - i) * sizeof(*s->waiting));
}

void phx_sched_vacate(struct phx_sched *s, struct seq *seq)
{
    phx_kv_release(s->pool, &seq->kv);
    phx_kv_seq_init(&seq->kv, seq->kv.blocks, seq->kv.max_blocks, seq->salt);
    s->slots[seq->slot] = NULL;
    s->n_running--;
    s->n_vacated++;
    seq->slot = -1;
    seq->n_computed = 0;
}
