/* SPDX-License-Identifier: Apache-2.0
 * Guesses in a plan: rows of a decoding sequence behind its last token. */
#include "rpc/base/mem.h"
#include "shard/sched/seq.h"

/* How many of `most` positions behind the known tokens have blocks: its own, and those that nobody waits for
 * while one is left for each running sequence. */
static int32_t count_places(const struct phx_sched *s, const struct seq *seq, int32_t most)
{
    int32_t n = seq->kv.n_blocks * s->options.block_tokens - seq->n_tokens;
    int32_t n_spare = phx_kv_available(s->pool) - s->n_running;

    if (n < most && s->n_waiting == 0 && n_spare > 0)
        n += (n_spare < most ? n_spare : most) * s->options.block_tokens;
    return n < most ? n : most;
}

/* Nothing follows a token that ends the sequence. */
static int32_t count_to_stop(const struct seq *seq, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        if (phx_seq_is_stop(seq, seq->tokens[seq->n_tokens + i]))
            return i + 1;
    return n;
}

/* At most `most` guesses for one sequence; the last token that it may have is never one. */
static int32_t add_guesses(struct phx_sched *s, struct seq *seq, int32_t most)
{
    int32_t left = seq->max_total - seq->n_tokens - 1, n;

    n = count_places(s, seq, most < left ? most : left);
    n = count_to_stop(seq, phx_drafter_guess(&seq->drafter, seq->tokens, seq->n_tokens, n));
    if (n > 0)
        phx_assert(phx_kv_extend(s->pool, &seq->kv, seq->n_tokens + n) == 0);
    return n;
}

void phx_sched_plan_drafts(struct phx_sched *s, struct open_plan *open, int32_t results_left)
{
    struct phx_plan *plan = &open->plan;
    int32_t          rows_left, first_row = 0;

    rows_left = s->options.draft_rows < s->options.max_rows ? s->options.draft_rows : s->options.max_rows;
    rows_left -= plan->n_rows;
    rows_left = rows_left < results_left ? rows_left : results_left;
    if (rows_left <= 0 || plan->n_prefill_rows > 0)
        return;
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        struct phx_plan_seq *p = &plan->seqs[i];
        int32_t              n_seqs = plan->n_seqs - i;

        p->first_row = first_row;
        p->n_drafts = add_guesses(s, open->seqs[i], (rows_left + n_seqs - 1) / n_seqs);
        p->n_rows += p->n_drafts;
        p->n_blocks = open->seqs[i]->kv.n_blocks;
        rows_left -= p->n_drafts;
        first_row += p->n_rows;
    }
    plan->n_draft_rows = first_row - plan->n_rows;
    plan->n_rows = first_row;
}
