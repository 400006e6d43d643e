/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/text/prompt.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "daemon/text/cache.h"
#include "daemon/text/tokenizer.h"

void phx_prompt_id(struct phx_prompt *p, int32_t id)
{
    if (p->rc == 0)
        phx_ids_put(p->ids, id);
    p->has_begun = true;
}

void phx_prompt_run(struct phx_prompt *p, const char *text, size_t size)
{
    if (p->rc || size == 0)
        return;
    unsigned flags = p->has_begun ? PHX_ENCODE_INNER : 0;
    p->rc = phx_text_cache_encode(p->scope, p->t, text, size, flags, p->ids, p->err);
    p->has_begun = true;
}

void phx_prompt_text(struct phx_prompt *p, const char *text)
{
    phx_prompt_run(p, text, strlen(text));
}

void phx_prompt_fail(struct phx_prompt *p, int code, const char *fmt, ...)
{
    char    text[200];
    va_list args;
    if (p->rc)
        return;
    va_start(args, fmt);
    (void)vsnprintf(text, sizeof text, fmt, args);
    va_end(args);
    p->rc = phx_fail(p->err, code, "%s", text);
}
