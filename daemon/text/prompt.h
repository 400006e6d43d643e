/* SPDX-License-Identifier: Apache-2.0
 * Writing a prompt: runs of ordinary text between special ids (private to daemon/text).
 * The first error sticks; the writer's owner reads it at the end, so that renderers read like the
 * format they render. */
#ifndef PHX_DAEMON_TEXT_PROMPT_H
#define PHX_DAEMON_TEXT_PROMPT_H

#include "daemon/text/text.h"

struct phx_prompt {
    const struct phx_tokenizer *t;
    const struct phx_text_scope *scope; /* or NULL */
    struct phx_ids             *ids;
    struct phx_err             *err;
    int                         rc;
    bool                        has_begun; /* something is written: runs no longer start a text */
};

/* A special id, as it is. */
void phx_prompt_id(struct phx_prompt *p, int32_t id);
/* A run of its own: encoded alone, special strings in it are ordinary text. */
void phx_prompt_text(struct phx_prompt *p, const char *text);
void phx_prompt_run(struct phx_prompt *p, const char *text, size_t size);
void phx_prompt_fail(struct phx_prompt *p, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
