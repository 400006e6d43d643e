/* SPDX-License-Identifier: Apache-2.0
 * Harmony prompts.  Every text run between marks is encoded alone, content as ordinary text. */
#include <stdio.h>
#include <string.h>

#include "daemon/text/harmony.h"

#define CONSTRAIN "<|constrain|>"

bool phx_harmony_init(struct phx_harmony *h, const struct phx_tokenizer *t)
{
    const struct {
        const char *name;
        int32_t    *id;
    } marks[] = {{"<|start|>", &h->start},     {"<|end|>", &h->end},
                 {"<|message|>", &h->message}, {"<|channel|>", &h->channel},
                 {CONSTRAIN, &h->constrain},   {"<|return|>", &h->ret},
                 {"<|call|>", &h->call}};
    h->tokenizer = t;
    for (size_t i = 0; i < sizeof marks / sizeof marks[0]; i++) {
        *marks[i].id = phx_tokenizer_id(t, marks[i].name);
        if (!phx_tokenizer_is_special(t, *marks[i].id))
            return false;
    }
    return true;
}

static const char *role_name(enum phx_role role)
{
    static const char *const names[] = {"", "system", "developer", "user", "assistant", "tool"};
    return names[role];
}

static void write_content_type(const struct phx_harmony *h, struct phx_prompt *p, const char *type)
{
    phx_prompt_text(p, " ");
    phx_prompt_id(p, h->constrain);
    phx_prompt_text(p, type + strlen(CONSTRAIN));
}

static void write_header(const struct phx_harmony *h, struct phx_prompt *p,
                         const struct phx_harmony_message *m)
{
    char text[256];
    if (m->role == PHX_ROLE_TOOL) {
        phx_prompt_text(p, m->name);
    } else {
        phx_prompt_text(p, role_name(m->role));
        if (m->name) {
            (void)snprintf(text, sizeof text, ":%s", m->name);
            phx_prompt_text(p, text);
        }
    }
    if (m->recipient && strcmp(m->recipient, "all") != 0) {
        (void)snprintf(text, sizeof text, " to=%s", m->recipient);
        phx_prompt_text(p, text);
    }
    if (m->channel) {
        phx_prompt_id(p, h->channel);
        phx_prompt_text(p, m->channel);
    }
    if (!m->content_type)
        return;
    if (strncmp(m->content_type, CONSTRAIN, strlen(CONSTRAIN)) == 0) {
        write_content_type(h, p, m->content_type);
    } else {
        (void)snprintf(text, sizeof text, " %s", m->content_type);
        phx_prompt_text(p, text);
    }
}

void phx_harmony_write_message(const struct phx_harmony *h, struct phx_prompt *p,
                               const struct phx_harmony_message *m)
{
    phx_prompt_id(p, h->start);
    write_header(h, p, m);
    phx_prompt_id(p, h->message);
    phx_prompt_text(p, m->content);
    phx_prompt_id(p, m->role == PHX_ROLE_ASSISTANT && m->recipient ? h->call : h->end);
}

/* ---- a whole request ---- */

static bool is_instruction(const struct phx_chat_message *m)
{
    return m->role == PHX_ROLE_SYSTEM || m->role == PHX_ROLE_DEVELOPER;
}

static const char *content_of(const struct phx_chat_message *m)
{
    return m->content ? m->content : "";
}

static void write_system(const struct phx_harmony *h, struct phx_prompt *p,
                         const struct phx_chat *chat)
{
    struct phx_buf text;
    phx_buf_init(&text, PHX_TEXT_BYTES_MAX);
    phx_harmony_system_text(chat, &text);
    phx_harmony_write_message(
        h, p, &(struct phx_harmony_message){.role = PHX_ROLE_SYSTEM, .content = text.data});
    phx_buf_fini(&text);
}

/* The instructions that lead the conversation become one developer message, with the tools.
 * Answers how many messages that took. */
static size_t write_developer(const struct phx_harmony *h, struct phx_prompt *p,
                              const struct phx_chat *chat)
{
    struct phx_buf instructions, text;
    size_t         n = 0;
    phx_buf_init(&instructions, PHX_TEXT_BYTES_MAX);
    phx_buf_init(&text, PHX_TEXT_BYTES_MAX);
    for (; n < chat->n_messages && is_instruction(&chat->messages[n]); n++) {
        phx_buf_puts(&instructions, n ? "\n\n" : "");
        phx_buf_puts(&instructions, content_of(&chat->messages[n]));
    }
    if (p->rc == 0)
        p->rc = phx_buf_check(&instructions, "the instructions", p->err);
    if (p->rc == 0 && (n > 0 || chat->n_tools > 0 || chat->schema_name))
        p->rc = phx_harmony_developer_text(chat, n ? instructions.data : NULL, &text, p->err);
    if (p->rc == 0 && text.size > 0)
        phx_harmony_write_message(
            h, p, &(struct phx_harmony_message){.role = PHX_ROLE_DEVELOPER, .content = text.data});
    phx_buf_fini(&instructions);
    phx_buf_fini(&text);
    return n;
}

/* An assistant message that the user saw as the answer of its turn. */
static bool is_final(const struct phx_chat_message *m)
{
    return m->role == PHX_ROLE_ASSISTANT && m->n_calls == 0 &&
           (*content_of(m) || !m->reasoning || !*m->reasoning);
}

/* Reasoning is dropped once its turn has its final answer, and kept inside a tool loop: a rule of
 * position alone, so that the same conversation always gives the same prompt prefix. */
static bool keeps_reasoning(const struct phx_chat *chat, size_t i)
{
    for (; i < chat->n_messages && chat->messages[i].role != PHX_ROLE_USER; i++)
        if (is_final(&chat->messages[i]))
            return false;
    return true;
}

static void write_assistant(const struct phx_harmony *h, struct phx_prompt *p,
                            const struct phx_chat *chat, size_t i)
{
    const struct phx_chat_message *m = &chat->messages[i];
    struct phx_harmony_message     out = {.role = PHX_ROLE_ASSISTANT, .name = m->name};
    if (m->reasoning && *m->reasoning && keeps_reasoning(chat, i)) {
        out.channel = "analysis";
        out.content = m->reasoning;
        phx_harmony_write_message(h, p, &out);
    }
    if (is_final(m) || *content_of(m)) { /* beside calls: a preamble the user sees */
        out.channel = m->n_calls > 0 ? "commentary" : "final";
        out.content = content_of(m);
        phx_harmony_write_message(h, p, &out);
    }
    for (size_t c = 0; c < m->n_calls; c++) {
        char recipient[96];
        (void)snprintf(recipient, sizeof recipient, "functions.%s", m->calls[c].name);
        out.recipient = recipient;
        out.channel = "commentary";
        out.content_type = CONSTRAIN "json";
        out.content = m->calls[c].arguments ? m->calls[c].arguments : "";
        phx_harmony_write_message(h, p, &out);
    }
}

/* The name of the function a tool message answers. */
static const char *called_name(const struct phx_chat *chat, size_t i)
{
    const struct phx_chat_message *m = &chat->messages[i];
    for (size_t j = i; m->tool_call_id && j-- > 0;)
        for (size_t c = 0; c < chat->messages[j].n_calls; c++) {
            const struct phx_tool_call *call = &chat->messages[j].calls[c];
            if (call->id && strcmp(call->id, m->tool_call_id) == 0)
                return call->name;
        }
    return m->name;
}

static void write_tool(const struct phx_harmony *h, struct phx_prompt *p,
                       const struct phx_chat *chat, size_t i)
{
    const char *name = called_name(chat, i);
    char        full[96];
    if (!name) {
        phx_prompt_fail(p, PHX_E_INVALID, "messages[%zu].tool_call_id: no earlier call has that id",
                        i);
        return;
    }
    (void)snprintf(full, sizeof full, "functions.%s", name);
    phx_harmony_write_message(
        h, p,
        &(struct phx_harmony_message){.role = PHX_ROLE_TOOL,
                                      .name = full,
                                      .recipient = "assistant",
                                      .channel = "commentary",
                                      .content = content_of(&chat->messages[i])});
}

static void write_one(const struct phx_harmony *h, struct phx_prompt *p,
                      const struct phx_chat *chat, size_t i)
{
    const struct phx_chat_message *m = &chat->messages[i];
    if (m->role == PHX_ROLE_ASSISTANT) {
        write_assistant(h, p, chat, i);
    } else if (m->role == PHX_ROLE_TOOL) {
        write_tool(h, p, chat, i);
    } else if (m->role == PHX_ROLE_USER) {
        phx_harmony_write_message(h, p,
                                  &(struct phx_harmony_message){.role = PHX_ROLE_USER,
                                                                .name = m->name,
                                                                .content = content_of(m)});
    } else { /* instructions in the middle of a conversation */
        struct phx_chat bare = {0};
        struct phx_buf  text;
        phx_buf_init(&text, PHX_TEXT_BYTES_MAX);
        if (p->rc == 0)
            p->rc = phx_harmony_developer_text(&bare, content_of(m), &text, p->err);
        if (p->rc == 0)
            phx_harmony_write_message(
                h, p,
                &(struct phx_harmony_message){.role = PHX_ROLE_DEVELOPER, .content = text.data});
        phx_buf_fini(&text);
    }
}

void phx_harmony_write_chat(const struct phx_harmony *h, struct phx_prompt *p,
                            const struct phx_chat *chat)
{
    write_system(h, p, chat);
    for (size_t i = write_developer(h, p, chat); i < chat->n_messages; i++)
        write_one(h, p, chat, i);
    phx_prompt_id(p, h->start);
    phx_prompt_text(p, role_name(PHX_ROLE_ASSISTANT));
    if (chat->forced_tool) { /* the header of the call is written for the model */
        char to[96];
        (void)snprintf(to, sizeof to, " to=functions.%s", chat->forced_tool);
        phx_prompt_id(p, h->channel);
        phx_prompt_text(p, "commentary");
        phx_prompt_text(p, to);
        write_content_type(h, p, CONSTRAIN "json");
        phx_prompt_id(p, h->message);
    }
}
