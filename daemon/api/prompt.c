/* SPDX-License-Identifier: Apache-2.0
 * From a parsed body to token ids.  Small prompts on the loop; large ones on a thread, which touches nothing of a
 * generation but its request (that nobody changes meanwhile), its prompt and its error. */
#include <string.h>
#include <time.h>

#include "daemon/api/generation.h"
#include "daemon/config/config.h"
#include "daemon/metrics/metrics.h"
#include "daemon/work/work.h"
#include "rpc/base/clock.h"

enum { COMPLETION_DEFAULT_TOKENS = 16 };

/* What a thread needs; in the generation's arena. */
struct render {
    struct generation      *g;
    const struct phx_text  *text;
    struct phx_text_scope   scope;
    struct phx_err          err;
    phx_api_rendered_fn    *done;
};

static void render(void *ctx)
{
    struct render            *r = ctx;
    struct generation        *g = r->g;
    struct phx_api_request   *q = &g->request;
    int                       rc = 0;

    if (q->kind == PHX_API_CHAT)
        rc = phx_text_render_cached(r->text, &r->scope, &q->chat, &g->prompt, &r->err);
    else if (q->prompt_ids == NULL)
        rc = phx_text_prompt_cached(r->text, &r->scope, q->prompt, q->prompt_bytes, &g->prompt, &r->err);
    for (size_t i = 0; q->prompt_ids != NULL && i < q->n_prompt_ids; i++)
        phx_ids_put(&g->prompt, q->prompt_ids[i]);
    r->err.code = rc;
}

static void on_rendered(void *ctx)
{
    struct render *r = ctx;

    phx_metrics_observe(r->g->a->d->metrics, "phalanx_render_seconds", "",
                        (double)(phx_clock_mono_ns() - r->g->began_ns) / 1e9);
    r->done(r->g, &r->err);
}

static void set_date(struct generation *g)
{
    const char *setting = g->a->d->config->chat_date;
    char        date[16];
    struct tm   tm;
    time_t      now = time(NULL);

    if (strcmp(setting, "today") == 0) {
        (void)gmtime_r(&now, &tm); /* any time_t of this century fits */
        (void)strftime(date, sizeof(date), "%Y-%m-%d", &tm);
        g->request.chat.date = phx_arena_strdup(g->arena, date);
    } else if (strcmp(setting, "none") != 0)
        g->request.chat.date = setting;
}

void phx_api_render(struct generation *g, phx_api_rendered_fn *done)
{
    struct render *r = phx_arena_calloc(g->arena, 1, sizeof(*r));
    bool           is_small = g->n_body <= (size_t)g->a->d->config->text_inline_bytes || g->request.prompt_ids != NULL;

    *r = (struct render){.g = g, .text = g->a->d->text, .scope = {g->a->cache, g->who.tenant}, .done = done};
    if (g->request.kind == PHX_API_CHAT)
        set_date(g);
    if (is_small) {
        render(r);
        on_rendered(r);
    } else if (phx_work_submit(g->a->work, render, on_rendered, r, &r->err) != 0)
        done(g, &r->err);
}

int phx_api_check_length(struct generation *g, int32_t max_context, struct phx_err *err)
{
    int32_t left = max_context - (int32_t)g->prompt.n;

    if (g->prompt.n >= (size_t)max_context)
        return phx_fail(err, PHX_E_INVALID,
                        "messages: the prompt has %zu tokens and the context is %d; shorten it",
                        g->prompt.n, max_context);
    if (g->prompt.n == 0)
        return phx_fail(err, PHX_E_INVALID, "prompt: must not be empty");
    if (g->request.max_new > left)
        return phx_fail(err, PHX_E_INVALID,
                        "max_tokens: %d and a prompt of %zu tokens are more than the context of %d",
                        g->request.max_new, g->prompt.n, max_context);
    if (g->request.max_new == 0) {
        g->request.max_new = left;
        if (g->request.kind == PHX_API_COMPLETION && left > COMPLETION_DEFAULT_TOKENS)
            g->request.max_new = COMPLETION_DEFAULT_TOKENS;
    }
    return 0;
}

