/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/text/template.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/text/utf8.h"
#include "rpc/base/mem.h"

const char *phx_style_name(enum phx_style style)
{
    static const char *const names[] = {"none",   "harmony", "llama3",       "llama3.1",
                                        "llama2", "chatml",  "mistral-v0.1", "mistral-v0.2"};
    return names[style];
}

/* ---- recognising ---- */

static bool has(const char *source, const char *mark)
{
    return strstr(source, mark) != NULL;
}

static enum phx_style guess(const char *source)
{
    if (has(source, "<|start_header_id|>") && has(source, "<|eot_id|>"))
        return has(source, "Cutting Knowledge Date") ? PHX_STYLE_LLAMA31 : PHX_STYLE_LLAMA3;
    if (has(source, "<|im_start|>") && has(source, "<|im_end|>"))
        return PHX_STYLE_CHATML;
    if (!has(source, "[INST]") || has(source, "[AVAILABLE_TOOLS]") ||
        has(source, "[SYSTEM_PROMPT]"))
        return PHX_STYLE_NONE;
    if (has(source, "<<SYS>>"))
        return PHX_STYLE_LLAMA2;
    return has(source, "\" [INST] \"") || has(source, "' [INST] '") ? PHX_STYLE_MISTRAL02
                                                                    : PHX_STYLE_MISTRAL01;
}

/* The literal between "<|im_start|>system\n" and "<|im_end|>" where the template writes one (in the
 * source the newline is the two characters \n). */
static char *find_default_system(const char *source)
{
    static const char *const opens[] = {"<|im_start|>system\\n", "<|im_start|>system\n"};
    for (size_t i = 0; i < 2; i++)
        for (const char *at = source; (at = strstr(at, opens[i])) != NULL;) {
            at += strlen(opens[i]);
            const char *end = strstr(at, "<|im_end|>");
            size_t      size = end ? (size_t)(end - at) : 0;
            if (size > 0 && strcspn(at, "'\"{}") >= size)
                return phx_mem_strndup(at, size);
        }
    return NULL;
}

static int32_t special(const struct phx_tokenizer *t, const char *name)
{
    int32_t id = phx_tokenizer_id(t, name);
    return phx_tokenizer_is_special(t, id) ? id : -1;
}

static bool find_marks(struct phx_template *tpl, const struct phx_tokenizer *t)
{
    tpl->bos = phx_tokenizer_bos(t);
    tpl->eos = phx_tokenizer_eos(t);
    switch (tpl->style) {
    case PHX_STYLE_LLAMA3:
    case PHX_STYLE_LLAMA31:
        tpl->open = special(t, "<|start_header_id|>");
        tpl->close = special(t, "<|end_header_id|>");
        tpl->turn_end = special(t, "<|eot_id|>");
        return tpl->open >= 0 && tpl->close >= 0 && tpl->turn_end >= 0 && tpl->bos >= 0;
    case PHX_STYLE_CHATML:
        tpl->open = special(t, "<|im_start|>");
        tpl->turn_end = special(t, "<|im_end|>");
        return tpl->open >= 0 && tpl->turn_end >= 0;
    default:
        return tpl->bos >= 0 && tpl->eos >= 0;
    }
}

void phx_template_recognise(struct phx_template *tpl, const char *source,
                            const struct phx_tokenizer *t)
{
    *tpl = (struct phx_template){
        .style = guess(source), .bos = -1, .eos = -1, .open = -1, .close = -1, .turn_end = -1};
    if (tpl->style == PHX_STYLE_NONE || !find_marks(tpl, t)) {
        tpl->style = PHX_STYLE_NONE;
        return;
    }
    if (tpl->style == PHX_STYLE_CHATML)
        tpl->default_system = find_default_system(source);
    tpl->spaces_eos = has(source, "eos_token + ' '") || has(source, "eos_token + \" \"");
}

void phx_template_fini(struct phx_template *tpl)
{
    phx_mem_free(tpl->default_system);
    tpl->default_system = NULL;
}

/* ---- rendering ---- */

/* One run of text under construction; marks of the template and content are encoded together, as
 * the reference encodes the rendered string between two special tokens. */
struct run {
    struct phx_prompt *p;
    struct phx_buf     text;
};

static void run_end(struct run *r)
{
    if (r->p->rc == 0)
        r->p->rc = phx_buf_check(&r->text, "a message", r->p->err);
    phx_prompt_run(r->p, r->text.data, r->text.size);
    phx_buf_clear(&r->text);
}

static void run_id(struct run *r, int32_t id)
{
    run_end(r);
    phx_prompt_id(r->p, id);
}

static bool is_space(int32_t c)
{
    return (c >= 9 && c <= 13) || (c >= 0x1C && c <= 0x20) || c == 0x85 || c == 0xA0 ||
           c == 0x1680 || (c >= 0x2000 && c <= 0x200A) || c == 0x2028 || c == 0x2029 ||
           c == 0x202F || c == 0x205F || c == 0x3000;
}

static void run_trimmed(struct run *r, const char *text)
{
    size_t size = strlen(text), length;
    while (size > 0 && is_space(phx_utf8_first(text, &length)) && length <= size) {
        text += length;
        size -= length;
    }
    while (size > 0) {
        size_t last = phx_utf8_last_length(text, size);
        if (!is_space(phx_utf8_first(text + size - last, &length)))
            break;
        size -= last;
    }
    phx_buf_put(&r->text, text, size);
}

static const char *content_of(const struct phx_chat_message *m)
{
    return m->content ? m->content : "";
}

static bool is_system(const struct phx_chat_message *m)
{
    return m->role == PHX_ROLE_SYSTEM || m->role == PHX_ROLE_DEVELOPER;
}

static const char *role_name(const struct phx_chat_message *m)
{
    return is_system(m) ? "system" : m->role == PHX_ROLE_USER ? "user" : "assistant";
}

static void llama3_header(const struct phx_template *tpl, struct run *r, const char *role)
{
    run_id(r, tpl->open);
    phx_buf_puts(&r->text, role);
    run_id(r, tpl->close);
    phx_buf_puts(&r->text, "\n\n");
}

/* "2026-01-15" -> "15 Jan 2026"; without a date the day the published template falls back to. */
static void put_llama_date(struct phx_buf *out, const char *date)
{
    static const char months[] = "JanFebMarAprMayJunJulAugSepOctNovDec";
    if (!date) {
        phx_buf_puts(out, "26 Jul 2024");
        return;
    }
    long month = strtol(date + 5, NULL, 10);
    phx_buf_printf(out, "%.2s %.3s %.4s", date + 8, months + 3 * (month - 1), date);
}

static void write_llama3(const struct phx_template *tpl, struct run *r, const struct phx_chat *chat)
{
    size_t i = 0;
    run_id(r, tpl->bos);
    if (tpl->style == PHX_STYLE_LLAMA31) {
        llama3_header(tpl, r, "system");
        phx_buf_puts(&r->text, "Cutting Knowledge Date: December 2023\nToday Date: ");
        put_llama_date(&r->text, chat->date);
        phx_buf_puts(&r->text, "\n\n");
        if (is_system(&chat->messages[0]))
            run_trimmed(r, content_of(&chat->messages[i++]));
        run_id(r, tpl->turn_end);
    }
    for (; i < chat->n_messages; i++) {
        llama3_header(tpl, r, role_name(&chat->messages[i]));
        run_trimmed(r, content_of(&chat->messages[i]));
        run_id(r, tpl->turn_end);
    }
    llama3_header(tpl, r, "assistant");
    run_end(r);
}

static void write_chatml(const struct phx_template *tpl, struct run *r, const struct phx_chat *chat)
{
    if (tpl->default_system && !is_system(&chat->messages[0])) {
        run_id(r, tpl->open);
        phx_buf_printf(&r->text, "system\n%s", tpl->default_system);
        run_id(r, tpl->turn_end);
        phx_buf_putc(&r->text, '\n');
    }
    for (size_t i = 0; i < chat->n_messages; i++) {
        run_id(r, tpl->open);
        phx_buf_printf(&r->text, "%s\n", role_name(&chat->messages[i]));
        phx_buf_puts(&r->text, content_of(&chat->messages[i]));
        run_id(r, tpl->turn_end);
        phx_buf_putc(&r->text, '\n');
    }
    run_id(r, tpl->open);
    phx_buf_puts(&r->text, "assistant\n");
    run_end(r);
}

/* The [INST] formats know an optional system message, then user and assistant in turn. */
static bool alternates(struct phx_prompt *p, const struct phx_chat *chat, size_t first)
{
    for (size_t i = first; i < chat->n_messages; i++) {
        enum phx_role want = (i - first) % 2 == 0 ? PHX_ROLE_USER : PHX_ROLE_ASSISTANT;
        if (chat->messages[i].role != want) {
            phx_prompt_fail(p, PHX_E_INVALID,
                            "messages[%zu].role: this model's format needs user "
                            "and assistant in turn",
                            i);
            return false;
        }
    }
    return true;
}

static void write_llama2(const struct phx_template *tpl, struct run *r, const struct phx_chat *chat)
{
    size_t first = is_system(&chat->messages[0]) ? 1 : 0;
    if (!alternates(r->p, chat, first))
        return;
    for (size_t i = first; i < chat->n_messages; i++) {
        const char *content = content_of(&chat->messages[i]);
        if (chat->messages[i].role == PHX_ROLE_ASSISTANT) {
            phx_buf_putc(&r->text, ' ');
            run_trimmed(r, content);
            phx_buf_putc(&r->text, ' ');
            run_id(r, tpl->eos);
            continue;
        }
        char *joined = NULL;
        if (i == 1 && first == 1)
            joined = phx_mem_printf("<<SYS>>\n%s\n<</SYS>>\n\n%s", content_of(&chat->messages[0]),
                                    content);
        run_id(r, tpl->bos);
        phx_buf_puts(&r->text, "[INST] ");
        run_trimmed(r, joined ? joined : content);
        phx_buf_puts(&r->text, " [/INST]");
        phx_mem_free(joined);
    }
    run_end(r);
}

static void write_mistral(const struct phx_template *tpl, struct run *r,
                          const struct phx_chat *chat)
{
    bool   is_02 = tpl->style == PHX_STYLE_MISTRAL02;
    size_t first = is_system(&chat->messages[0]) ? 1 : 0;
    if (first == 1 && !is_02) {
        phx_prompt_fail(r->p, PHX_E_UNSUPPORTED,
                        "messages[0].role: this model's chat template has "
                        "no system message");
        return;
    }
    if (!alternates(r->p, chat, first))
        return;
    run_id(r, tpl->bos);
    for (size_t i = first; i < chat->n_messages; i++) {
        if (chat->messages[i].role == PHX_ROLE_ASSISTANT) {
            phx_buf_puts(&r->text, is_02 ? " " : "");
            phx_buf_puts(&r->text, content_of(&chat->messages[i]));
            run_id(r, tpl->eos);
            phx_buf_puts(&r->text, tpl->spaces_eos ? " " : "");
            continue;
        }
        phx_buf_puts(&r->text, is_02 ? " [INST] " : "[INST] ");
        if (i == 1 && first == 1) {
            phx_buf_puts(&r->text, content_of(&chat->messages[0]));
            phx_buf_puts(&r->text, "\n\n");
        }
        phx_buf_puts(&r->text, content_of(&chat->messages[i]));
        phx_buf_puts(&r->text, " [/INST]");
    }
    run_end(r);
}

void phx_template_write(const struct phx_template *tpl, struct phx_prompt *p,
                        const struct phx_chat *chat)
{
    struct run r = {.p = p};
    phx_buf_init(&r.text, PHX_TEXT_BYTES_MAX);
    switch (tpl->style) {
    case PHX_STYLE_LLAMA3:
    case PHX_STYLE_LLAMA31:
        write_llama3(tpl, &r, chat);
        break;
    case PHX_STYLE_CHATML:
        write_chatml(tpl, &r, chat);
        break;
    case PHX_STYLE_LLAMA2:
        write_llama2(tpl, &r, chat);
        break;
    default:
        write_mistral(tpl, &r, chat);
    }
    phx_buf_fini(&r.text);
}
