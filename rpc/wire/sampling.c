/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/wire/convert.h"

int phx_wire_sampling_encode(const struct phx_sampling *in, struct phx_arena *arena,
                             Phalanx__V1__Sampling **out, struct phx_err *err)
{
    Phalanx__V1__LogitBias *items;
    Phalanx__V1__Sampling  *m;
    int                     rc = phx_sampling_check(in, err);

    if (rc != 0)
        return rc;
    m = phx_arena_calloc(arena, 1, sizeof(*m));
    phalanx__v1__sampling__init(m);
    m->temperature = in->temperature;
    m->top_p = in->top_p;
    m->min_p = in->min_p;
    m->presence_penalty = in->presence_penalty;
    m->frequency_penalty = in->frequency_penalty;
    m->repetition_penalty = in->repetition_penalty;
    m->top_k = in->top_k;
    m->seed = in->seed;
    m->logprobs_plus_one = in->n_logprobs + 1;
    m->n_stop_ids = (size_t)in->n_stop_ids;
    m->stop_ids = (int32_t *)in->stop_ids; /* packing only reads */
    m->ignore_eos = in->ignore_eos;
    m->n_bias = (size_t)in->n_bias;
    m->bias = phx_arena_calloc(arena, m->n_bias, sizeof(*m->bias));
    items = phx_arena_calloc(arena, m->n_bias, sizeof(*items));
    for (size_t i = 0; i < m->n_bias; i++) {
        phalanx__v1__logit_bias__init(&items[i]);
        items[i].token = in->bias[i].token;
        items[i].bias = in->bias[i].bias;
        m->bias[i] = &items[i];
    }
    *out = m;
    return 0;
}

int phx_wire_sampling_decode(const Phalanx__V1__Sampling *in, struct phx_arena *arena,
                             struct phx_sampling *out, struct phx_err *err)
{
    struct phx_bias *bias;

    phx_sampling_init(out);
    if (in == NULL)
        return 0;
    out->temperature = in->temperature;
    out->top_p = in->top_p == 0.0f ? 1.0f : in->top_p; /* absent numbers are 0 in proto3: off */
    out->min_p = in->min_p;
    out->presence_penalty = in->presence_penalty;
    out->frequency_penalty = in->frequency_penalty;
    out->repetition_penalty = in->repetition_penalty == 0.0f ? 1.0f : in->repetition_penalty;
    out->top_k = in->top_k;
    out->seed = in->seed;
    if (in->logprobs_plus_one < 0 || in->logprobs_plus_one > PHX_TOP_LOGPROBS_MAX + 1)
        return phx_wire_range("Sampling.logprobs_plus_one", in->logprobs_plus_one, 0,
                              PHX_TOP_LOGPROBS_MAX + 1, err);
    out->n_logprobs = in->logprobs_plus_one - 1;
    out->stop_ids = in->stop_ids;
    out->n_stop_ids = (int32_t)in->n_stop_ids;
    out->ignore_eos = in->ignore_eos != 0;
    bias = phx_arena_calloc(arena, in->n_bias, sizeof(*bias));
    for (size_t i = 0; i < in->n_bias; i++)
        bias[i] = (struct phx_bias){in->bias[i]->token, in->bias[i]->bias};
    out->bias = bias;
    out->n_bias = (int32_t)in->n_bias;
    return phx_sampling_check(out, err);
}
