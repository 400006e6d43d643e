/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/api/choice.h"

#include <string.h>

#include "rpc/base/id.h"
#include "rpc/base/json.h"

static void begin_call(struct phx_choice *c, const struct phx_reply_event *event)
{
    struct phx_choice_call *call;
    char                    id[33];

    if (c->n_calls == PHX_API_CALLS_MAX)
        return; /* the model repeats itself; 64 calls in one answer are enough for any client */
    call = &c->calls[c->n_calls++];
    phx_id_hex(id, sizeof(id), 12);
    call->id = phx_mem_printf("call_%s", id);
    call->name = phx_mem_strndup(event->data, event->size_bytes);
    phx_buf_init(&call->arguments, PHX_CHOICE_TEXT_MAX_BYTES);
}

static void on_event(void *ctx, const struct phx_reply_event *event)
{
    struct phx_choice *c = ctx;

    switch (event->kind) {
    case PHX_REPLY_REASONING:
        c->is_in_reasoning = true;
        c->is_in_content = false;
        phx_buf_put(&c->reasoning, event->data, event->size_bytes);
        break;
    case PHX_REPLY_CONTENT:
        c->is_in_content = true;
        c->is_in_reasoning = false;
        if (!c->is_stopped && c->stop != NULL)
            c->is_stopped = phx_stop_push(c->stop, event->data, event->size_bytes, &c->content);
        else if (!c->is_stopped)
            phx_buf_put(&c->content, event->data, event->size_bytes);
        break;
    case PHX_REPLY_CALL_BEGIN:
        c->is_in_content = c->is_in_reasoning = false;
        begin_call(c, event);
        break;
    case PHX_REPLY_CALL_ARGS:
        if (event->call_index < c->n_calls)
            phx_buf_put(&c->calls[event->call_index].arguments, event->data, event->size_bytes);
        break;
    case PHX_REPLY_CALL_END:
    case PHX_REPLY_END:
        break;
    }
}

int phx_choice_init(struct phx_choice *c, int32_t index, const struct phx_text *text,
                    const struct phx_api_request *request, struct phx_err *err)
{
    memset(c, 0, sizeof(*c));
    c->index = index;
    c->request = request;
    c->tokenizer = phx_text_tokenizer(text);
    phx_buf_init(&c->reasoning, PHX_CHOICE_TEXT_MAX_BYTES);
    phx_buf_init(&c->content, PHX_CHOICE_TEXT_MAX_BYTES);
    phx_logprobs_init(&c->logprobs, c->tokenizer, request->kind == PHX_API_CHAT);
    c->reply = phx_reply_create(text, request->kind == PHX_API_CHAT ? &request->chat : NULL,
                                on_event, c);
    if (request->n_stops == 0)
        return 0;
    return phx_stop_create(request->stops, request->n_stops, &c->stop, err);
}

void phx_choice_fini(struct phx_choice *c)
{
    phx_reply_destroy(c->reply);
    phx_stop_destroy(c->stop);
    for (size_t i = 0; i < c->n_calls; i++) {
        phx_mem_free(c->calls[i].id);
        phx_mem_free(c->calls[i].name);
        phx_buf_fini(&c->calls[i].arguments);
    }
    phx_buf_fini(&c->reasoning);
    phx_buf_fini(&c->content);
    phx_logprobs_fini(&c->logprobs);
    memset(c, 0, sizeof(*c));
}

bool phx_choice_push(struct phx_choice *c, const struct phx_token_out *token)
{
    bool   is_special = phx_tokenizer_is_special(c->tokenizer, token->token);
    bool   was_content = c->is_in_content;
    size_t n_before = c->content.size;

    if (c->is_stopped || c->is_ended)
        return false;
    c->n_tokens++;
    if (token->index == 0)
        c->cached_tokens = token->cached_tokens;
    phx_reply_push(c->reply, token->token);
    if (is_special)
        c->is_in_content = c->is_in_reasoning = false;
    if (c->is_in_reasoning)
        c->n_reasoning_tokens++;
    /* tokens of the visible answer; one that only completes half a character counts with it */
    if (c->request->wants_logprobs &&
        (c->content.size > n_before || (was_content && c->is_in_content && !is_special)))
        phx_logprobs_add(&c->logprobs, token, n_before);
    return c->is_stopped;
}

void phx_choice_end(struct phx_choice *c, enum phx_finish finish)
{
    if (c->is_ended)
        return;
    c->is_ended = true;
    phx_reply_end(c->reply);
    if (c->stop != NULL && !c->is_stopped)
        phx_stop_flush(c->stop, &c->content);
    if (c->n_calls > 0)
        c->finish = "tool_calls";
    else if (c->is_stopped || finish == PHX_FINISH_STOP)
        c->finish = "stop";
    else
        c->finish = finish == PHX_FINISH_LENGTH ? "length" : "error";
}

/* "name":"text",  for the bytes of b from *n_sent on; moves *n_sent. */
static bool put_new(struct phx_buf *out, const char *name, const struct phx_buf *b, size_t *n_sent,
                    bool is_first)
{
    if (b->size == *n_sent)
        return false;
    phx_buf_puts(out, is_first ? "\"" : ",\"");
    phx_buf_puts(out, name);
    phx_buf_puts(out, "\":");
    phx_json_put_str(out, b->data + *n_sent, b->size - *n_sent);
    *n_sent = b->size;
    return true;
}

static bool put_new_calls(struct phx_choice *c, struct phx_buf *out, bool is_first)
{
    bool is_any = false;

    for (size_t i = 0; i < c->n_calls; i++) {
        struct phx_choice_call *call = &c->calls[i];

        if (call->is_opened && call->n_sent == call->arguments.size)
            continue;
        phx_buf_puts(out, is_any ? "," : is_first ? "\"tool_calls\":[" : ",\"tool_calls\":[");
        is_any = true;
        phx_buf_printf(out, "{\"index\":%zu", i);
        if (!call->is_opened) {
            phx_buf_printf(out, ",\"id\":\"%s\",\"type\":\"function\"", call->id);
            phx_buf_puts(out, ",\"function\":{\"name\":");
            phx_json_put_str(out, call->name, strlen(call->name));
            phx_buf_puts(out, ",\"arguments\":");
        } else
            phx_buf_puts(out, ",\"function\":{\"arguments\":");
        phx_json_put_str(out, call->arguments.data != NULL ? call->arguments.data + call->n_sent : "",
                         call->arguments.size - call->n_sent);
        phx_buf_puts(out, "}}");
        call->n_sent = call->arguments.size;
        call->is_opened = true;
    }
    if (is_any)
        phx_buf_putc(out, ']');
    return is_any;
}

static void put_finish(const struct phx_choice *c, struct phx_buf *out, bool with_finish)
{
    if (with_finish && c->finish != NULL)
        phx_buf_printf(out, ",\"finish_reason\":\"%s\"}", c->finish);
    else
        phx_buf_puts(out, ",\"finish_reason\":null}");
}

static bool has_news(const struct phx_choice *c)
{
    if (c->reasoning.size > c->n_reasoning_sent || c->content.size > c->n_content_sent)
        return true;
    for (size_t i = 0; i < c->n_calls; i++)
        if (!c->calls[i].is_opened || c->calls[i].n_sent < c->calls[i].arguments.size)
            return true;
    return false;
}

size_t phx_choice_unsent(const struct phx_choice *c)
{
    size_t n = c->reasoning.size - c->n_reasoning_sent + c->content.size - c->n_content_sent;

    for (size_t i = 0; i < c->n_calls; i++)
        n += c->calls[i].arguments.size - c->calls[i].n_sent;
    for (int i = 0; i < PHX_LOGPROB_LISTS; i++)
        n += c->logprobs.list[i].size - c->logprobs.n_sent[i];
    return n;
}

static void put_chat_delta(struct phx_choice *c, struct phx_buf *out)
{
    bool is_first = true;

    phx_buf_puts(out, ",\"delta\":{");
    if (!c->has_role) {
        phx_buf_puts(out, "\"role\":\"assistant\"");
        c->has_role = true;
        is_first = false;
    }
    if (put_new(out, "reasoning_content", &c->reasoning, &c->n_reasoning_sent, is_first))
        is_first = false;
    if (put_new(out, "content", &c->content, &c->n_content_sent, is_first))
        is_first = false;
    (void)put_new_calls(c, out, is_first); /* the last member: nothing follows it */
    phx_buf_puts(out, "}");
}

bool phx_choice_put_delta(struct phx_choice *c, struct phx_buf *out, bool with_finish)
{
    if (!has_news(c) && !with_finish)
        return false;
    if (c->index < 10) {
        phx_buf_puts(out, "{\"index\":");
        phx_buf_putc(out, (char)('0' + c->index));
    } else
        phx_buf_printf(out, "{\"index\":%d", c->index);
    if (c->request->kind == PHX_API_CHAT)
        put_chat_delta(c, out);
    else if (!put_new(out, "text", &c->content, &c->n_content_sent, false))
        phx_buf_puts(out, ",\"text\":\"\"");
    if (c->request->wants_logprobs) {
        phx_buf_puts(out, ",\"logprobs\":");
        phx_logprobs_put_new(&c->logprobs, out);
    }
    put_finish(c, out, with_finish);
    return true;
}

static void put_text(struct phx_buf *out, const char *name, const struct phx_buf *b)
{
    phx_buf_printf(out, ",\"%s\":", name);
    phx_json_put_str(out, b->data != NULL ? b->data : "", b->size);
}

static void put_message(const struct phx_choice *c, struct phx_buf *out)
{
    phx_buf_puts(out, ",\"message\":{\"role\":\"assistant\"");
    if (c->content.size == 0 && c->n_calls > 0)
        phx_buf_puts(out, ",\"content\":null");
    else
        put_text(out, "content", &c->content);
    if (c->reasoning.size > 0)
        put_text(out, "reasoning_content", &c->reasoning);
    for (size_t i = 0; i < c->n_calls; i++) {
        phx_buf_printf(out, "%s{\"id\":\"%s\",\"type\":\"function\",\"function\":{\"name\":",
                       i == 0 ? ",\"tool_calls\":[" : ",", c->calls[i].id);
        phx_json_put_str(out, c->calls[i].name, strlen(c->calls[i].name));
        put_text(out, "arguments", &c->calls[i].arguments);
        phx_buf_puts(out, "}}");
    }
    phx_buf_puts(out, c->n_calls > 0 ? "],\"refusal\":null}" : ",\"refusal\":null}");
}

void phx_choice_put_whole(const struct phx_choice *c, struct phx_buf *out)
{
    phx_buf_printf(out, "{\"index\":%d", c->index);
    if (c->request->kind == PHX_API_CHAT)
        put_message(c, out);
    else
        put_text(out, "text", &c->content);
    if (c->request->wants_logprobs) {
        phx_buf_puts(out, ",\"logprobs\":");
        phx_logprobs_put_all(&c->logprobs, out);
    } else
        phx_buf_puts(out, ",\"logprobs\":null");
    put_finish(c, out, true);
}
