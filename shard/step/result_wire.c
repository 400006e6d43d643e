/* SPDX-License-Identifier: Apache-2.0
 * Sampled tokens as bytes:  u64 step  i32 code  i32 n_tokens, then per token
 *   i32 slot  i32 token  f32 logprob  f32 gap  i32 n_top  n_top x (i32 id, f32 logprob) */
#include <float.h>
#include <stddef.h>
#include <string.h>

#include "shard/step/stage.h"

enum { HEADER_BYTES = 16, TOKEN_BYTES = 20 };

_Static_assert(offsetof(struct phx_result_token, n_top) == TOKEN_BYTES - 4, "what every token has lies first");

size_t phx_result_max_bytes(int32_t max_results)
{
    return HEADER_BYTES + (size_t)max_results * (TOKEN_BYTES + 8 * PHX_TOP_LOGPROBS_MAX);
}

void phx_result_encode(const struct phx_result *r, struct phx_buf *out)
{
    phx_buf_put(out, &r->step, 8);
    phx_buf_put(out, &r->code, 4);
    phx_buf_put(out, &r->n_tokens, 4);
    for (int32_t i = 0; i < r->n_tokens; i++) {
        const struct phx_result_token *t = &r->tokens[i];

        phx_buf_put(out, t, TOKEN_BYTES);
        for (int32_t j = 0; j < t->n_top; j++) {
            phx_buf_put(out, &t->top_ids[j], 4);
            phx_buf_put(out, &t->top_logprobs[j], 4);
        }
    }
}

static bool get(const unsigned char **at, size_t *left, void *out, size_t size)
{
    if (*left < size)
        return false;
    memcpy(out, *at, size);
    *at += size;
    *left -= size;
    return true;
}

static bool get_token(const unsigned char **at, size_t *left, const struct phx_plan_limits *l,
                      struct phx_result_token *t)
{
    if (!get(at, left, t, TOKEN_BYTES))
        return false;
    if (t->slot < 0 || t->slot >= l->max_seqs || t->token < -1 || t->token >= l->vocab_size ||
        !(t->gap >= 0.0f && t->gap <= FLT_MAX) || t->n_top < 0 || t->n_top > PHX_TOP_LOGPROBS_MAX)
        return false;
    for (int32_t j = 0; j < t->n_top; j++)
        if (!get(at, left, &t->top_ids[j], 4) || !get(at, left, &t->top_logprobs[j], 4) ||
            t->top_ids[j] < 0 || t->top_ids[j] >= l->vocab_size)
            return false;
    return true;
}

int phx_result_decode(const void *data, size_t size, const struct phx_plan_limits *limits,
                      struct phx_result *r, struct phx_err *err)
{
    const unsigned char *at = data;

    if (!get(&at, &size, &r->step, 8) || !get(&at, &size, &r->code, 4) ||
        !get(&at, &size, &r->n_tokens, 4) || r->n_tokens < 0 || r->n_tokens > limits->max_results ||
        r->code > 0)
        return phx_fail(err, PHX_E_FORMAT, "step result: the header is wrong or cut off");
    for (int32_t i = 0; i < r->n_tokens; i++)
        if (!get_token(&at, &size, limits, &r->tokens[i]))
            return phx_fail(err, PHX_E_FORMAT, "step result: token %d is wrong or cut off", i);
    if (size != 0)
        return phx_fail(err, PHX_E_FORMAT, "step result: %zu bytes too many", size);
    return 0;
}
