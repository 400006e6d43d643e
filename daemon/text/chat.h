/* SPDX-License-Identifier: Apache-2.0
 * The inside of a `phx_text` (private to daemon/text). */
#ifndef PHX_DAEMON_TEXT_CHAT_H
#define PHX_DAEMON_TEXT_CHAT_H

#include "daemon/text/harmony.h"
#include "daemon/text/template.h"
#include "daemon/text/text.h"

struct phx_text {
    struct phx_tokenizer *tokenizer;
    struct phx_harmony    harmony;   /* when style is HARMONY */
    struct phx_template template;    /* its style is always set */
    int32_t        think, think_end; /* "<think>" and "</think>", -1 = none */
    struct phx_ids stops;
};

/* PHX_E_INVALID naming the first bad field, PHX_E_UNSUPPORTED for what the format cannot say. */
int phx_chat_check(const struct phx_text *t, const struct phx_chat *chat,
                   struct phx_err *err) PHX_CHECKED;
/* Fills t->stops from DIR/config.json and DIR/generation_config.json (both optional), the tokenizer
 * and the chat format. */
int phx_text_find_stops(struct phx_text *t, const char *dir, struct phx_err *err) PHX_CHECKED;

#endif
