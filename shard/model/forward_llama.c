/* SPDX-License-Identifier: Apache-2.0
 * Llama 2 and 3, read against docs/model/llama.md. */
#include "shard/model/state.h"

/* x += W_down (silu(W_gate n) * W_up n),   n = rmsnorm(x) */
static void feed_forward(struct phx_model *m, const struct phx_layer *w, const struct phx_step *s,
                         struct phx_tensor next_norm)
{
    struct phx_matmul_glu_args gate = {
        .x = s->norm, .w = w->gate_up, .bias = w->gate_up_bias, .gate_up = s->gate_up, .out = s->act, .kind = PHX_GLU_SILU};
    struct phx_add_norm_args   end = {
        .x = s->x, .y = s->out, .bias = w->down_bias, .norm = next_norm.data != NULL ? s->norm : next_norm,
        .gain = next_norm, .eps = m->config->norm_eps};

    phx_matmul_glu(m->backend, &gate);
    phx_forward_matmul_end(m, s->act, w->down, &end); /* ffn columns are split over the ranks */
}

void phx_forward_llama(struct phx_model *m, const struct phx_step *s)
{
    phx_forward_norm(m, s);
    for (int32_t i = 0; i < m->weights.n_layers; i++) {
        phx_forward_attention(m, &m->weights.layers[i], s);
        feed_forward(m, &m->weights.layers[i], s, phx_forward_next_norm(m, i));
    }
}
