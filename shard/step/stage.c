/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/step/stage.h"

#include <string.h>

#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "shard/step/pad.h"

/* One running sequence as the plans told it. */
struct slot {
    int32_t            *tokens; /* [max_context] */
    int32_t             n_tokens;
    int32_t            *blocks; /* [max_blocks] */
    int32_t             n_blocks;
    int32_t             n_prompt;
    struct phx_sampling sampling;
    struct phx_bias    *bias; /* [PHX_BIAS_MAX] */
    bool                is_known;
};

struct phx_stage {
    struct phx_step         *s;
    struct phx_plan_limits   limits;
    struct phx_plan_decoder *decoder;
    struct slot             *slots;
    int32_t                 *slot_tokens, *slot_blocks; /* memory of all slots; pages come with use */
    struct phx_bias         *slot_bias;
    struct phx_sampler      *sampler; /* on the sampler rank */
    float                   *logits;  /* [max_results, V], of the backend's host memory */
    /* [max_results] what is wanted of logits and what came, where they are not the host's in place; else NULL */
    struct phx_sample_need  *needs;
    struct phx_logits_want  *wants;
    struct phx_logits_got   *got;
    struct phx_result        result;
    void (*meanwhile)(void *ctx);
    void                    *ctx;
    /* the batch of the step */
    int32_t *tokens, *row, *n_rows, *pos, *table, *logit_rows;
};

void phx_step_plan_limits(const struct phx_step *s, struct phx_plan_limits *limits)
{
    *limits = (struct phx_plan_limits){
        .max_seqs = s->options->max_seqs,
        .max_rows = s->options->max_rows,
        .max_context = s->max_context,
        .max_blocks = (s->max_context + s->options->block_tokens - 1) / s->options->block_tokens,
        .n_blocks = s->n_blocks,
        .vocab_size = s->config.vocab_size,
        .max_results = phx_step_max_results(s->options),
    };
}

void phx_stage_set_meanwhile(struct phx_stage *g, void (*meanwhile)(void *ctx), void *ctx)
{
    g->meanwhile = meanwhile;
    g->ctx = ctx;
}

bool phx_stage_is_sampler(const struct phx_stage *g)
{
    return g->sampler != NULL;
}

static int create_slots(struct phx_stage *g, struct phx_err *err)
{
    size_t n = (size_t)g->limits.max_seqs, context = (size_t)g->limits.max_context;
    size_t n_blocks = (size_t)g->limits.max_blocks;

    g->slots = phx_mem_calloc(n, sizeof(*g->slots));
    g->slot_tokens = phx_mem_try(n * context, sizeof(int32_t));
    g->slot_blocks = phx_mem_try(n * n_blocks, sizeof(int32_t));
    g->slot_bias = phx_mem_try(n * PHX_BIAS_MAX, sizeof(*g->slot_bias));
    g->table = phx_mem_try(n * n_blocks, sizeof(int32_t));
    if (g->slot_tokens == NULL || g->slot_blocks == NULL || g->slot_bias == NULL || g->table == NULL)
        return phx_fail(err, PHX_E_NOMEM, "tables of %zu sequences of %zu tokens; lower max_seqs", n,
                        context);
    for (size_t i = 0; i < n; i++) {
        g->slots[i].tokens = g->slot_tokens + i * context;
        g->slots[i].blocks = g->slot_blocks + i * n_blocks;
        g->slots[i].bias = g->slot_bias + i * PHX_BIAS_MAX;
    }
    return 0;
}

static void create_wants(struct phx_stage *g)
{
    size_t n = (size_t)g->limits.max_results;

    g->needs = phx_mem_calloc(n, sizeof(*g->needs));
    g->wants = phx_mem_calloc(n, sizeof(*g->wants));
    g->got = phx_mem_calloc(n, sizeof(*g->got));
}

static int create_sampler(struct phx_stage *g, struct phx_err *err)
{
    size_t n = (size_t)g->limits.max_results;
    int    rc = phx_sampler_create(g->limits.vocab_size, &g->sampler, err);

    if (rc != 0)
        return rc;
    g->result.tokens = phx_mem_calloc(n, sizeof(*g->result.tokens));
    g->logits = phx_backend_alloc_host(g->s->backend, n * (size_t)g->limits.vocab_size * sizeof(float));
    if (g->logits == NULL)
        return phx_fail(err, PHX_E_NOMEM, "logits of %zu rows; lower max_seqs", n);
    return 0;
}

int phx_stage_create(struct phx_step *s, const struct phx_plan_limits *limits, struct phx_stage **out,
                     struct phx_err *err)
{
    struct phx_stage      *g = phx_mem_calloc(1, sizeof(*g));
    const struct phx_part *part = &s->parts[s->rank];
    size_t                 n = (size_t)limits->max_seqs, rows = (size_t)limits->max_rows;
    int                    rc;

    g->s = s;
    g->limits = *limits;
    g->decoder = phx_plan_decoder_create(limits);
    g->tokens = phx_mem_calloc(rows, sizeof(int32_t));
    g->row = phx_mem_calloc(n, sizeof(int32_t));
    g->n_rows = phx_mem_calloc(n, sizeof(int32_t));
    g->pos = phx_mem_calloc(n, sizeof(int32_t));
    g->logit_rows = phx_mem_calloc((size_t)limits->max_results, sizeof(int32_t));
    if (!phx_backend_is_host(s->backend))
        create_wants(g);
    rc = create_slots(g, err);
    if (rc == 0 && part->tp == 0 && part->pp == part->pp_size - 1)
        rc = create_sampler(g, err);
    *out = rc == 0 ? g : NULL;
    if (rc != 0)
        phx_stage_destroy(g);
    return rc;
}

void phx_stage_destroy(struct phx_stage *g)
{
    if (g == NULL)
        return;
    phx_plan_decoder_destroy(g->decoder);
    phx_sampler_destroy(g->sampler);
    phx_mem_free(g->slots);
    phx_mem_free(g->slot_tokens);
    phx_mem_free(g->slot_blocks);
    phx_mem_free(g->slot_bias);
    phx_backend_free_host(g->s->backend, g->logits);
    phx_mem_free(g->result.tokens);
    phx_mem_free(g->needs);
    phx_mem_free(g->wants);
    phx_mem_free(g->got);
    phx_mem_free(g->tokens);
    phx_mem_free(g->row);
    phx_mem_free(g->n_rows);
    phx_mem_free(g->pos);
    phx_mem_free(g->table);
    phx_mem_free(g->logit_rows);
    phx_mem_free(g);
}

static void renew_slot(struct slot *slot, const struct phx_wire_seq *w)
{
    slot->n_tokens = 0;
    slot->n_blocks = 0;
    slot->n_prompt = w->n_prompt;
    slot->sampling = w->sampling;
    if (w->sampling.n_bias > 0)
        memcpy(slot->bias, w->sampling.bias, (size_t)w->sampling.n_bias * sizeof(*slot->bias));
    slot->sampling.bias = slot->bias;
    slot->is_known = true;
}

/* Each checked row has a token behind it, which is none of the prompt's. */
static bool has_answer(const struct slot *slot, const struct phx_wire_seq *w)
{
    int32_t end = w->pos + w->n_rows;

    return w->n_checked == 0 || (end < slot->n_tokens && end - w->n_checked + 1 >= slot->n_prompt);
}

static int update_slot(struct phx_stage *g, const struct phx_wire_seq *w, struct phx_err *err)
{
    struct slot *slot = &g->slots[w->slot];

    if (w->is_new)
        renew_slot(slot, w);
    if (!slot->is_known || w->n_tokens + w->n_drafts > g->limits.max_context - slot->n_tokens ||
        w->n_blocks > g->limits.max_blocks - slot->n_blocks)
        return phx_fail(err, PHX_E_FORMAT, "step plan: slot %d is unknown or overflows", w->slot);
    if (w->n_tokens > 0)
        memcpy(slot->tokens + slot->n_tokens, w->tokens, (size_t)w->n_tokens * sizeof(int32_t));
    slot->n_tokens += w->n_tokens;
    if (w->n_drafts > 0) /* behind what is known, until the next plan says what is there */
        memcpy(slot->tokens + slot->n_tokens, w->drafts, (size_t)w->n_drafts * sizeof(int32_t));
    if (w->n_blocks > 0)
        memcpy(slot->blocks + slot->n_blocks, w->blocks, (size_t)w->n_blocks * sizeof(int32_t));
    slot->n_blocks += w->n_blocks;
    if (w->n_rows - w->n_drafts > slot->n_tokens - w->pos || slot->n_prompt > slot->n_tokens ||
        (w->is_sampled && w->pos + w->n_rows != slot->n_tokens + w->n_drafts) || !has_answer(slot, w) ||
        (int64_t)slot->n_blocks * g->s->options->block_tokens < w->pos + w->n_rows)
        return phx_fail(err, PHX_E_FORMAT, "step plan: the rows of slot %d do not fit its tokens or blocks",
                        w->slot);
    return 0;
}

static int32_t count_results(const struct phx_wire_seq *w)
{
    return w->is_sampled + w->n_checked + w->n_drafts;
}

/* The same on every rank. */
static void want_logits(struct phx_stage *g, const struct phx_wire_seq *w, int32_t at, int32_t n_tokens)
{
    const struct phx_sampling *p = &g->slots[w->slot].sampling;
    struct phx_sample_need    *need = &g->needs[at];
    struct phx_logits_want    *want = &g->wants[at];

    phx_sample_need(p, g->limits.vocab_size, n_tokens, w->n_checked > 0, g->s->options->tp > 1, need);
    *want = (struct phx_logits_want){.is_whole = need->is_whole, .n_best = need->n_best};
    if (need->has_draw) {
        want->draws[want->n_draws].temperature = need->temperature;
        want->draws[want->n_draws++].share = need->share;
    }
    if (need->has_norm)
        want->draws[want->n_draws++].temperature = 1.0f; /* for its sum alone */
}

static int32_t count_known(const struct phx_wire_seq *w)
{
    return w->pos + w->n_rows - count_results(w) + 1;
}

static void pad_batch(struct phx_stage *g, struct phx_batch *batch)
{
    const struct phx_plan_limits *l = &g->limits;
    const struct phx_pad_room     room = {g->tokens, g->row, g->n_rows, g->pos, g->table,
                                          l->max_seqs < l->max_rows ? l->max_seqs : l->max_rows};
    int32_t                       n = batch->n_rows, rows = n < room.most ? phx_pad_rows(n, room.most) : n;

    if (phx_model_can_record(g->s->model, rows))
        phx_pad_batch(batch, &room, g->s->options->block_tokens);
}

static int build_batch(struct phx_stage *g, const struct phx_wire_plan *plan, struct phx_batch *batch,
                       struct phx_err *err)
{
    int32_t stride = g->limits.max_blocks;

    *batch = (struct phx_batch){
        .tokens = g->tokens,
        .spans = {plan->n_seqs, g->row, g->n_rows, g->pos, g->table, stride},
        .logit_rows = g->logit_rows,
        .wants = g->wants,
        .got = g->got,
        .meanwhile = g->meanwhile,
        .ctx = g->ctx,
    };
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const struct phx_wire_seq *w = &plan->seqs[i];
        const struct slot         *slot = &g->slots[w->slot];
        int                        rc = update_slot(g, w, err);

        if (rc != 0)
            return rc;
        memcpy(g->tokens + batch->n_rows, slot->tokens + w->pos, (size_t)w->n_rows * sizeof(int32_t));
        g->row[i] = batch->n_rows;
        g->n_rows[i] = w->n_rows;
        g->pos[i] = w->pos;
        memcpy(g->table + (size_t)i * (size_t)stride, slot->blocks,
               (size_t)slot->n_blocks * sizeof(int32_t));
        batch->n_rows += w->n_rows;
        for (int32_t j = 0, n = count_results(w); j < n; j++) {
            if (g->wants != NULL)
                want_logits(g, w, batch->n_logits, count_known(w) + j);
            g->logit_rows[batch->n_logits++] = batch->n_rows - n + j;
        }
    }
    pad_batch(g, batch);
    return 0;
}

static struct phx_sample_draw draw_of(const struct phx_logits_drawn *d)
{
    return (struct phx_sample_draw){d->id, d->logit, d->largest, d->sum};
}

/* From what came of the logits at `at`; *is_decided false: from all of them, which lie at in->logits then. */
static int sample_part(struct phx_stage *g, const struct phx_sample_input *in, int32_t at, int32_t recorded,
                       bool *is_decided, struct phx_sample_output *out, struct phx_err *err)
{
    const struct phx_sample_need *need = &g->needs[at];
    const struct phx_logits_got  *got = &g->got[at];
    struct phx_sample_part        part = {.ids = got->ids, .best = got->best, .is_number = got->is_number};
    int                           rc;

    *is_decided = false;
    if (got->is_whole)
        return 0;
    part.draw = draw_of(&got->draws[0]); /* unless that is for the sum: then nobody asks */
    part.norm = got->draws[need->has_draw].sum;
    rc = phx_sample_from(in, g->limits.vocab_size, need, &part, recorded, is_decided, out, err);
    if (rc == 0 && !*is_decided)
        rc = phx_model_late_logits(g->s->model, at, in->logits, err);
    return rc;
}

/* The token behind the first n_tokens; when that is known already, how far it is from being drawn.  at: of the logits. */
static int sample_one(struct phx_stage *g, const struct phx_wire_seq *w, int32_t n_tokens, int32_t at,
                      struct phx_result_token *t, struct phx_err *err)
{
    const struct slot       *slot = &g->slots[w->slot];
    size_t                   row = (size_t)(g->got != NULL ? g->got[at].row : at);
    struct phx_sample_input  in = {g->logits + row * (size_t)g->limits.vocab_size, slot->tokens, n_tokens, slot->n_prompt,
                                   &slot->sampling, 0};
    int32_t                  recorded = w->n_checked > 0 ? slot->tokens[n_tokens] : -1;
    struct phx_sample_output out = {.token = -1};
    float                    gap = 0;
    bool                     is_decided = false;
    int                      rc = 0;

    if (g->got != NULL)
        rc = sample_part(g, &in, at, recorded, &is_decided, &out, err);
    if (rc == 0 && !is_decided && w->n_checked > 0)
        rc = phx_sample_check(g->sampler, &in, recorded, &out, &gap, err);
    else if (rc == 0 && !is_decided)
        rc = phx_sample(g->sampler, &in, &out, err);
    *t = (struct phx_result_token){.slot = w->slot, .token = rc == 0 ? out.token : -1, .logprob = out.logprob, .gap = gap,
                                   .n_top = out.n_top};
    memcpy(t->top_ids, out.top_ids, sizeof(t->top_ids));
    memcpy(t->top_logprobs, out.top_logprobs, sizeof(t->top_logprobs));
    return rc;
}

/* The results of one sequence, whose logits are the ones from `first` on.  A guess is read as output by the rows behind
 * it; when it is wrong they mean nothing. */
static int sample_seq(struct phx_stage *g, const struct phx_wire_seq *w, int32_t first, struct phx_err *err)
{
    int32_t n_results = count_results(w);
    bool    is_right = true;

    for (int32_t i = 0; i < n_results && is_right; i++) {
        struct phx_result_token *t = &g->result.tokens[g->result.n_tokens++];
        struct phx_err           why = {0};
        int                      rc = sample_one(g, w, count_known(w) + i, first + i, t, &why);

        if (rc != 0) /* token -1 ends that sequence alone */
            phx_log(PHX_LOG_ERROR, "step.sample.fail", "slot=%d reason=%s", w->slot, why.text);
        if (rc == PHX_E_PEER) {
            if (err != NULL)
                *err = why;
            return rc;
        }
        is_right = w->n_drafts == 0 || (i < w->n_drafts && t->token == w->drafts[i]);
    }
    return 0;
}

static int sample_all(struct phx_stage *g, const struct phx_wire_plan *plan, struct phx_err *err)
{
    int32_t first = 0;
    int     rc = 0;

    g->result.n_tokens = 0;
    for (int32_t i = 0; i < plan->n_seqs && rc == 0; i++) {
        rc = sample_seq(g, &plan->seqs[i], first, err);
        first += count_results(&plan->seqs[i]);
    }
    return rc;
}

int phx_stage_run(struct phx_stage *g, const void *data, size_t size, bool *is_stop,
                  const struct phx_result **result, struct phx_err *err)
{
    const struct phx_wire_plan *plan;
    struct phx_batch            batch;
    struct phx_err              dropped = {0};
    int                         rc = phx_plan_decode(g->decoder, data, size, &plan, err);

    *result = NULL;
    *is_stop = false;
    if (rc != 0)
        return rc;
    if (plan->kind == PHX_PLAN_STOP) {
        *is_stop = true;
        return 0;
    }
    rc = build_batch(g, plan, &batch, err);
    if (rc != 0)
        return rc;
    rc = phx_model_step(g->s->model, &batch,
                        phx_view(g->logits, batch.n_logits, g->limits.vocab_size), &dropped);
    if (rc == PHX_E_PEER) {
        if (err != NULL)
            *err = dropped;
        return rc;
    }
    if (rc != 0)
        phx_log(PHX_LOG_ERROR, "step.drop", "step=%llu reason=%s", (unsigned long long)plan->step,
                dropped.text);
    if (g->sampler == NULL)
        return 0;
    g->result.step = plan->step;
    g->result.code = rc;
    g->result.n_tokens = 0;
    *result = &g->result;
    return rc == 0 ? sample_all(g, plan, err) : 0;
}
