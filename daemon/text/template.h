/* SPDX-License-Identifier: Apache-2.0
 * Chat templates (private to daemon/text).  A checkpoint's template is a program; it is recognised
 * by its marks, never run.  The closed list below is rendered natively. */
#ifndef PHX_DAEMON_TEXT_TEMPLATE_H
#define PHX_DAEMON_TEXT_TEMPLATE_H

#include "daemon/text/prompt.h"
#include "daemon/text/text.h"

enum phx_style {
    PHX_STYLE_NONE,
    PHX_STYLE_HARMONY,
    PHX_STYLE_LLAMA3,
    PHX_STYLE_LLAMA31, /* LLAMA3 with a system message that tells the dates, always */
    PHX_STYLE_LLAMA2,
    PHX_STYLE_CHATML,
    PHX_STYLE_MISTRAL01,
    PHX_STYLE_MISTRAL02, /* " [INST] ", and a system message joins the first user message */
};
const char *phx_style_name(enum phx_style style);

struct phx_template {
    enum phx_style style;
    char          *default_system; /* chatml: what stands in when there is no system message */
    bool           spaces_eos;     /* mistral v0.1: a space behind each eos */
    int32_t        bos, eos;       /* or -1 */
    int32_t        open, close, turn_end; /* header marks and end of turn; -1 where not used */
};

/* Recognises `source` for this tokenizer.  style NONE when the template is unknown, or the
 * tokenizer lacks one of its marks. */
void phx_template_recognise(struct phx_template *tpl, const char *source,
                            const struct phx_tokenizer *t);
void phx_template_fini(struct phx_template *tpl);
void phx_template_write(const struct phx_template *tpl, struct phx_prompt *p,
                        const struct phx_chat *chat);

#endif
