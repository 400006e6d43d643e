/* SPDX-License-Identifier: Apache-2.0
 * What the architectures share: both ends of the model, attention, and how a failure inside a step is
 * kept until its end (every rank must enter every collective, so nothing returns early). */
#include "shard/model/state.h"

#include <stdio.h>

void phx_forward_fail(struct phx_model *m, int code, const char *what, const char *why)
{
    if (m->failure == 0)
        m->failure = phx_fail(&m->failure_text, code, "step: %s: %s", what, why);
}

void phx_forward_sync(struct phx_model *m)
{
    const char *why = NULL;
    int         code = phx_comm_wait(m->comm); /* of what it queued: a peer may be gone */
    if (code != 0)
        phx_forward_fail(m, code, "waiting for the other ranks", phx_err_text(code));
    code = phx_backend_sync(m->backend, &why);
    if (code != 0) /* a device that is lost is a rank that is gone: all of them leave */
        phx_forward_fail(m, code == PHX_SYNC_LOST ? PHX_E_PEER : PHX_E_INTERNAL, "backend",
                         why != NULL ? why : "failed");
}

void phx_forward_sum(struct phx_model *m, struct phx_tensor x)
{
    if (m->part.tp_size == 1)
        return;
    if (!phx_transit_is_queued(&m->transit))
        phx_forward_sync(m);
    int code = phx_transit_sum(&m->transit, x);
    if (code != 0)
        phx_forward_fail(m, code, "sum over the tensor group", phx_err_text(code));
}

void phx_forward_end(struct phx_model *m, const struct phx_add_norm_args *end)
{
    int code = m->part.tp_size > 1 ? phx_transit_sum_add_norm(&m->transit, end) : 1;

    if (code == 1) {
        phx_forward_sum(m, end->y);
        phx_add_norm(m->backend, end);
    } else if (code != 0) {
        phx_forward_fail(m, code, "sum over the tensor group", phx_err_text(code));
    }
}

void phx_forward_matmul_end(struct phx_model *m, struct phx_tensor x, const struct phx_weight *w,
                            const struct phx_add_norm_args *end)
{
    if (m->part.tp_size == 1) {
        phx_matmul_add_norm(m->backend, x, w, end);
        return;
    }
    phx_matmul(m->backend, end->y, x, w, (struct phx_tensor){0});
    phx_forward_end(m, end);
}

/* Each rank looks up the rows of its part of the vocabulary, zeros elsewhere: the sum is exact. */
void phx_forward_embed(struct phx_model *m, const struct phx_step *s)
{
    phx_embed      (m->backend, s->x, s->batch->tokens, m->weights.embedding, m->part.vocab.first);
    phx_forward_sum(m, s->x);
}

void phx_forward_norm(struct phx_model *m, const struct phx_step *s)
{
    phx_rmsnorm    (m->backend, s->norm, s->x, m->weights.layers[0].attn_norm, m->config->norm_eps);
}

struct phx_tensor phx_forward_next_norm(const struct phx_model *m, int32_t i)
{
    return i + 1 < m->weights.n_layers ? m->weights.layers[i + 1].attn_norm : (struct phx_tensor){0};
}

void phx_forward_attention(struct phx_model *m, const struct phx_layer *w, const struct phx_step *s)
{
    const struct phx_model_config *c = m->config;
    const struct phx_spans        *spans = &s->batch->spans;
    struct phx_backend            *b = m->backend;
    struct phx_matmul_rope_args    begin = {.x = s->norm, .w = w->attn_qkv, .bias = w->attn_qkv_bias, .out = s->qkv, .kv = m->kv,
                                            .layer = w->index, .spans = spans, .cos = m->cos, .sin = m->sin};
    struct phx_attention_args      args = {
        .out = s->attn, .q = s->q, .kv = m->kv, .layer = w->index,
        .n_heads = m->part.heads.end - m->part.heads.first, .group = c->n_heads / c->n_kv_heads,
        .head_first = m->part.heads.first, .kv_first = m->part.kv_heads.first,
        .window = w->window, .scale = m->attn_scale, .sinks = w->sinks, .spans = spans};

    struct phx_add_norm_args       end = {.x = s->x, .y = s->out, .bias = w->attn_out_bias,
                                          .norm = s->norm, .gain = w->ffn_norm, .eps = c->norm_eps};

    /* x += W_o attention(rope(W_q n + b_q), rope(W_k n + b_k), W_v n + b_v) + b_o,  n = rmsnorm(x) */
    phx_matmul_rope_write(b, &begin);
    phx_attention(b, &args);
    phx_forward_matmul_end(m, s->attn, w->attn_out, &end); /* heads are split over the ranks */
}

/* Where this rank's columns of the logits are: one rank computes the whole vocabulary, on the host in place. */
static struct phx_tensor logits_part(const struct phx_model *m, struct phx_tensor logits, int32_t n)
{
    if (m->part_logits.data != NULL)
        return phx_rows(m->part_logits, n);
    return m->logits.data != NULL ? phx_rows(m->logits, n) : logits;
}

void phx_forward_head(struct phx_model *m, const struct phx_step *s, struct phx_tensor logits)
{
    struct phx_backend *b = m->backend;
    int32_t             n = s->batch->n_logits;
    struct phx_tensor   rows = phx_rows(m->rows, n);
    if (n == 0)
        return;

    /* logits = W_head rmsnorm(x) of the rows that are asked for */
    phx_gather_rows(b, rows, s->x, s->batch->logit_rows);
    phx_rmsnorm    (b, rows, rows, m->weights.final_norm, m->config->norm_eps);
    phx_matmul     (b, logits_part(m, logits, n), rows, m->weights.head, (struct phx_tensor){0});
}
