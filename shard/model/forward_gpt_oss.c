/* SPDX-License-Identifier: Apache-2.0
 * gpt-oss, read against docs/model/gpt-oss.md. */
#include "shard/model/state.h"

/* x += sum_e g_e (W_down,e glu(W_gate,e n + b_gate,e, W_up,e n + b_up,e) + b_down,e),
 * n = rmsnorm(x);  e, g = the top-k of W_r n + b_r and the softmax over them */
static void mixture(struct phx_model *m, const struct phx_layer *w, const struct phx_step *s, struct phx_tensor next_norm)
{
    const struct phx_model_config *c = m->config;
    struct phx_moe_args            experts = {
        .out = s->out, .x = s->norm, .ids = s->ids, .gates = s->gates,
        .gate_up = w->gate_up, .gate_up_bias = w->gate_up_bias, .down = w->down,
        .kind = PHX_GLU_OAI, .limit = c->glu_limit};
    struct phx_add_norm_args       end = {
        .x = s->x, .y = s->out, .ids = s->ids, .gates = s->gates, .expert_bias = w->down_bias,
        .norm = next_norm.data != NULL ? s->norm : next_norm, .gain = next_norm, .eps = c->norm_eps};
    struct phx_mixture_args        all = {.experts = &experts, .router = w->router, .router_bias = w->router_bias,
                                          .logits = s->router, .end = m->part.tp_size == 1 ? &end : NULL};

    phx_mixture(m->backend, &all);
    if (all.end == NULL)
        phx_forward_end(m, &end); /* each rank holds a slice of every expert */
}

void phx_forward_gpt_oss(struct phx_model *m, const struct phx_step *s)
{
    phx_forward_norm(m, s);
    for (int32_t i = 0; i < m->weights.n_layers; i++) {
        phx_forward_attention(m, &m->weights.layers[i], s); /* with sinks, every other layer windowed */
        mixture(m, &m->weights.layers[i], s, phx_forward_next_norm(m, i));
    }
}
