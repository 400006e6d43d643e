/* SPDX-License-Identifier: Apache-2.0
 * What is kept of a request and its answer, so that it can be run again: canonical JSON with integers only
 * (reals as the bits of their float32). */
#include <inttypes.h>
#include <string.h>

#include "daemon/admission/lease.h"

static uint32_t bits(float x)
{
    uint32_t u;

    memcpy(&u, &x, sizeof(u));
    return u;
}

static void put_ids(struct phx_buf *out, const int32_t *ids, int32_t n)
{
    phx_buf_putc(out, '[');
    for (int32_t i = 0; i < n; i++)
        phx_buf_printf(out, i > 0 ? ",%" PRId32 : "%" PRId32, ids[i]);
    phx_buf_putc(out, ']');
}

static void put_sampling(struct phx_buf *out, const struct phx_sampling *s)
{
    phx_buf_puts(out, "{\"bias\":[");
    for (int32_t i = 0; i < s->n_bias; i++)
        phx_buf_printf(out, "%s[%" PRId32 ",%" PRIu32 "]", i > 0 ? "," : "", s->bias[i].token,
                       bits(s->bias[i].bias));
    phx_buf_printf(out, "],\"frequency_penalty\":%" PRIu32 ",\"ignore_eos\":%d,\"min_p\":%" PRIu32
                   ",\"presence_penalty\":%" PRIu32 ",\"repetition_penalty\":%" PRIu32
                   ",\"seed\":\"%" PRIu64 "\",\"stop_ids\":",
                   bits(s->frequency_penalty), s->ignore_eos ? 1 : 0, bits(s->min_p),
                   bits(s->presence_penalty), bits(s->repetition_penalty), s->seed);
    put_ids(out, s->stop_ids, s->n_stop_ids);
    phx_buf_printf(out, ",\"temperature\":%" PRIu32 ",\"top_k\":%" PRId32 ",\"top_p\":%" PRIu32 "}",
                   bits(s->temperature), s->top_k, bits(s->top_p));
}

void phx_request_json(const struct phx_lease *l, struct phx_buf *out)
{
    phx_buf_printf(out, "{\"max_new\":%" PRId32 ",\"n_choices\":%" PRId32 ",\"prompt\":", l->max_new,
                   l->n_choices);
    put_ids(out, l->prompt, l->n_prompt);
    phx_buf_puts(out, ",\"sampling\":");
    put_sampling(out, &l->sampling);
    phx_buf_puts(out, ",\"v\":1}");
}

void phx_response_json(const struct phx_outcome *o, struct phx_buf *out)
{
    phx_buf_puts(out, "{\"choices\":[");
    for (int32_t i = 0; i < o->n_choices; i++) {
        if (i > 0)
            phx_buf_putc(out, ',');
        put_ids(out, o->choices[i].ids, o->choices[i].n);
    }
    phx_buf_puts(out, "],\"v\":1}");
}
