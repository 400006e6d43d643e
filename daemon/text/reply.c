/* SPDX-License-Identifier: Apache-2.0
 * One answer, token by token, as neutral events. */
#include <stdio.h>
#include <string.h>

#include "daemon/text/chat.h"
#include "rpc/base/mem.h"

/* What the text of the current message is. */
enum part { PART_CONTENT, PART_REASONING, PART_CALL, PART_HIDDEN };

struct phx_reply {
    const struct phx_text    *text;
    phx_reply_fn             *fn;
    void                     *ctx;
    struct phx_harmony_parser parser; /* is_harmony */
    struct phx_detok         *detok;  /* else */
    struct phx_buf            delta;
    bool                      is_harmony;
    bool                      is_chat;
    enum part                 part;
    bool                      skips_newlines; /* behind <think> and </think> */
    size_t                    n_calls;
    char                    **tools; /* names, so that a call without "functions." is known */
    size_t                    n_tools;
};

static void emit(struct phx_reply *r, enum phx_reply_kind kind, const char *data, size_t size,
                 bool is_complete)
{
    struct phx_reply_event event = {.kind = kind,
                                    .data = data,
                                    .size_bytes = size,
                                    .call_index = r->n_calls ? r->n_calls - 1 : 0,
                                    .is_complete = is_complete};
    r->fn(r->ctx, &event);
}

/* ---- harmony ---- */

/* The function a recipient means, or NULL.  The channel is not asked: models also call on analysis.
 */
static const char *call_name(const struct phx_reply *r, const char *recipient)
{
    if (strncmp(recipient, "functions.", 10) == 0 && recipient[10])
        return recipient + 10;
    for (size_t i = 0; i < r->n_tools; i++)
        if (strcmp(r->tools[i], recipient) == 0)
            return recipient;
    return NULL;
}

static enum part part_of(const struct phx_reply *r, const struct phx_harmony_header *h)
{
    if (strncmp(h->author, "assistant", 9) != 0)
        return PART_HIDDEN; /* a turn of somebody else that the model made up */
    if (call_name(r, h->recipient))
        return PART_CALL;
    if (h->recipient[0] && strcmp(h->recipient, "all") != 0 && strcmp(h->recipient, "user") != 0 &&
        strcmp(h->channel, "final") != 0)
        return PART_REASONING; /* meant for a tool nobody offered: not for the user */
    return strcmp(h->channel, "analysis") == 0 ? PART_REASONING : PART_CONTENT;
}

static void on_message(void *ctx, enum phx_harmony_event event,
                       const struct phx_harmony_header *header, const char *data, size_t size,
                       int32_t terminator)
{
    static const enum phx_reply_kind kinds[] = {
        [PART_CONTENT] = PHX_REPLY_CONTENT,
        [PART_REASONING] = PHX_REPLY_REASONING,
        [PART_CALL] = PHX_REPLY_CALL_ARGS,
    };
    struct phx_reply *r = ctx;
    if (event == PHX_HARMONY_BEGIN) {
        r->part = part_of(r, header);
        if (r->part == PART_CALL) {
            const char *name = call_name(r, header->recipient);
            r->n_calls++;
            emit(r, PHX_REPLY_CALL_BEGIN, name, strlen(name), false);
        }
    } else if (event == PHX_HARMONY_DELTA && r->part != PART_HIDDEN) {
        emit(r, kinds[r->part], data, size, false);
    } else if (event == PHX_HARMONY_END && r->part == PART_CALL) {
        emit(r, PHX_REPLY_CALL_END, "", 0, terminator >= 0);
    }
}

/* ---- plain models ---- */

static void emit_delta(struct phx_reply *r)
{
    const char *data = r->delta.data;
    size_t      size = r->delta.size;
    while (r->skips_newlines && size > 0 && *data == '\n') {
        data++;
        size--;
    }
    if (size > 0) {
        r->skips_newlines = false;
        emit(r, r->part == PART_REASONING ? PHX_REPLY_REASONING : PHX_REPLY_CONTENT, data, size,
             false);
    }
    phx_buf_clear(&r->delta);
}

static void push_plain(struct phx_reply *r, int32_t id)
{
    if (r->is_chat && r->text->think >= 0 && (id == r->text->think || id == r->text->think_end)) {
        phx_detok_flush(r->detok, &r->delta);
        emit_delta(r);
        r->part = id == r->text->think ? PART_REASONING : PART_CONTENT;
        r->skips_newlines = true;
        return;
    }
    phx_detok_push(r->detok, id, &r->delta);
    emit_delta(r);
}

/* ---- the door ---- */

struct phx_reply *phx_reply_create(const struct phx_text *t, const struct phx_chat *chat,
                                   phx_reply_fn *fn, void *ctx)
{
    struct phx_reply *r = phx_mem_calloc(1, sizeof *r);
    r->text = t;
    r->fn = fn;
    r->ctx = ctx;
    r->is_chat = chat != NULL;
    r->is_harmony = chat && t->template.style == PHX_STYLE_HARMONY;
    phx_buf_init(&r->delta, 1 << 20);
    if (!r->is_harmony) {
        r->detok = phx_detok_create(t->tokenizer, chat ? 0 : PHX_DECODE_CONTINUE);
        return r;
    }
    r->tools = phx_mem_calloc(chat->n_tools ? chat->n_tools : 1, sizeof *r->tools);
    for (; r->n_tools < chat->n_tools; r->n_tools++)
        r->tools[r->n_tools] = phx_mem_strdup(chat->tools[r->n_tools].name);
    phx_harmony_parser_init(&r->parser, &t->harmony, on_message, r);
    if (chat->forced_tool) { /* the prompt wrote this header */
        struct phx_harmony_header header = {.author = "assistant", .channel = "commentary"};
        (void)snprintf(header.recipient, sizeof header.recipient, "functions.%s",
                       chat->forced_tool);
        phx_harmony_parser_begin(&r->parser, &header);
    }
    return r;
}

void phx_reply_destroy(struct phx_reply *r)
{
    if (!r)
        return;
    if (r->is_harmony)
        phx_harmony_parser_fini(&r->parser);
    for (size_t i = 0; i < r->n_tools; i++)
        phx_mem_free(r->tools[i]);
    phx_mem_free(r->tools);
    phx_detok_destroy(r->detok);
    phx_buf_fini(&r->delta);
    phx_mem_free(r);
}

void phx_reply_push(struct phx_reply *r, int32_t id)
{
    if (r->is_harmony)
        phx_harmony_parser_push(&r->parser, id);
    else
        push_plain(r, id);
}

void phx_reply_end(struct phx_reply *r)
{
    if (r->is_harmony) {
        phx_harmony_parser_end(&r->parser);
    } else {
        phx_detok_flush(r->detok, &r->delta);
        emit_delta(r);
    }
    emit(r, PHX_REPLY_END, "", 0, true);
}

size_t phx_reply_call_count(const struct phx_reply *r)
{
    return r->n_calls;
}
