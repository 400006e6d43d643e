/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/api/logprobs.h"

#include <math.h>
#include <string.h>

#include "rpc/base/json.h"

enum { LIST_MAX_BYTES = 64 << 20 };

static const char *const completion_lists[PHX_LOGPROB_LISTS] = {"tokens", "token_logprobs",
                                                                "top_logprobs", "text_offset"};

void phx_logprobs_init(struct phx_logprobs *l, const struct phx_tokenizer *tokenizer, bool is_chat)
{
    memset(l, 0, sizeof(*l));
    l->tokenizer = tokenizer;
    l->is_chat = is_chat;
    for (int i = 0; i < PHX_LOGPROB_LISTS; i++)
        phx_buf_init(&l->list[i], LIST_MAX_BYTES);
}

void phx_logprobs_fini(struct phx_logprobs *l)
{
    for (int i = 0; i < PHX_LOGPROB_LISTS; i++)
        phx_buf_fini(&l->list[i]);
}

static void put_number(struct phx_buf *out, float logprob)
{
    if (isinf(logprob)) /* JSON has no infinity; this is what OpenAI's servers write for "never" */
        phx_buf_puts(out, "-9999.0");
    else
        phx_buf_printf(out, "%.7g", (double)logprob);
}

static const char *put_text(const struct phx_logprobs *l, struct phx_buf *out, int32_t id,
                            size_t *size)
{
    const char *bytes = phx_tokenizer_bytes(l->tokenizer, id, size);

    phx_json_put_str(out, bytes != NULL ? bytes : "", *size);
    return bytes;
}

/* {"token":..,"logprob":..,"bytes":[..] without the closing brace */
static void put_entry(const struct phx_logprobs *l, struct phx_buf *out, int32_t id, float logprob)
{
    const char *bytes;
    size_t      size;

    phx_buf_puts(out, "{\"token\":");
    bytes = put_text(l, out, id, &size);
    phx_buf_puts(out, ",\"logprob\":");
    put_number(out, logprob);
    phx_buf_puts(out, ",\"bytes\":[");
    for (size_t i = 0; i < size; i++)
        phx_buf_printf(out, i > 0 ? ",%u" : "%u", (unsigned)(unsigned char)bytes[i]);
    phx_buf_puts(out, "]");
}

static void add_chat(struct phx_logprobs *l, const struct phx_token_out *t)
{
    struct phx_buf *out = &l->list[0];

    put_entry(l, out, t->token, t->logprob);
    phx_buf_puts(out, ",\"top_logprobs\":[");
    for (int32_t i = 0; i < t->n_top; i++) {
        if (i > 0)
            phx_buf_putc(out, ',');
        put_entry(l, out, t->top[i].token, t->top[i].logprob);
        phx_buf_putc(out, '}');
    }
    phx_buf_puts(out, "]}");
}

static void add_completion(struct phx_logprobs *l, const struct phx_token_out *t, size_t text_offset)
{
    size_t size;

    (void)put_text(l, &l->list[0], t->token, &size); /* the bytes themselves are not listed here */
    put_number(&l->list[1], t->logprob);
    phx_buf_putc(&l->list[2], '{');
    for (int32_t i = 0; i < t->n_top; i++) {
        if (i > 0)
            phx_buf_putc(&l->list[2], ',');
        (void)put_text(l, &l->list[2], t->top[i].token, &size);
        phx_buf_putc(&l->list[2], ':');
        put_number(&l->list[2], t->top[i].logprob);
    }
    phx_buf_putc(&l->list[2], '}');
    phx_buf_printf(&l->list[3], "%zu", text_offset);
}

void phx_logprobs_add(struct phx_logprobs *l, const struct phx_token_out *token, size_t text_offset)
{
    for (int i = 0; i < (l->is_chat ? 1 : PHX_LOGPROB_LISTS); i++)
        if (l->list[i].size > 0)
            phx_buf_putc(&l->list[i], ',');
    if (l->is_chat)
        add_chat(l, token);
    else
        add_completion(l, token, text_offset);
}

static void put_from(const struct phx_logprobs *l, struct phx_buf *out, const size_t *from)
{
    phx_buf_putc(out, '{');
    for (int i = 0; i < (l->is_chat ? 1 : PHX_LOGPROB_LISTS); i++) {
        const struct phx_buf *list = &l->list[i];
        size_t                skip = from[i] > 0 ? from[i] + 1 : 0; /* the comma between */

        phx_buf_printf(out, "%s\"%s\":[", i > 0 ? "," : "",
                       l->is_chat ? "content" : completion_lists[i]);
        if (list->size > skip)
            phx_buf_put(out, list->data + skip, list->size - skip);
        phx_buf_putc(out, ']');
    }
    phx_buf_puts(out, l->is_chat ? ",\"refusal\":null}" : "}");
}

void phx_logprobs_put_new(struct phx_logprobs *l, struct phx_buf *out)
{
    if (l->n_sent[0] == l->list[0].size) {
        phx_buf_puts(out, "null");
        return;
    }
    put_from(l, out, l->n_sent);
    for (int i = 0; i < PHX_LOGPROB_LISTS; i++)
        l->n_sent[i] = l->list[i].size;
}

void phx_logprobs_put_all(const struct phx_logprobs *l, struct phx_buf *out)
{
    static const size_t none[PHX_LOGPROB_LISTS] = {0};

    put_from(l, out, none);
}
