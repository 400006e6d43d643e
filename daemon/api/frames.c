/* SPDX-License-Identifier: Apache-2.0
 * What a client sees of a generation: frames of a stream, or one body. */
#include <event2/event.h>
#include <inttypes.h>
#include <string.h>

#include "daemon/admission/admission.h"
#include "daemon/api/generation.h"
#include "rpc/base/log.h"

enum { FRAMES_KEEP_BYTES = 1 << 20 };

static void put_head(const struct generation *g, struct phx_buf *out, bool is_chunk)
{
    bool is_chat = g->request.kind == PHX_API_CHAT;

    phx_buf_printf(out, "{\"id\":\"%s\",\"object\":\"%s\",\"created\":%" PRId64 ",\"model\":", g->id,
                   !is_chat   ? "text_completion"
                   : is_chunk ? "chat.completion.chunk"
                              : "chat.completion",
                   g->created_s);
    phx_json_put_str(out, g->a->d->model_name, strlen(g->a->d->model_name));
    phx_buf_puts(out, ",\"system_fingerprint\":\"phalanx-" PHX_VERSION "\"");
}

static void put_usage(const struct generation *g, struct phx_buf *out)
{
    int32_t output = 0, reasoning = 0, cached = 0;

    for (int32_t i = 0; i < g->request.n_choices; i++) {
        output += g->parts[i].choice.n_tokens;
        reasoning += g->parts[i].choice.n_reasoning_tokens;
    }
    cached = g->parts[0].choice.cached_tokens;
    phx_buf_printf(out,
                   "\"usage\":{\"prompt_tokens\":%zu,\"completion_tokens\":%d,\"total_tokens\":%zu,"
                   "\"prompt_tokens_details\":{\"cached_tokens\":%d},"
                   "\"completion_tokens_details\":{\"reasoning_tokens\":%d}}",
                   g->prompt.n, output, g->prompt.n + (size_t)output, cached, reasoning);
}

/* ---- streams --------------------------------------------------------------------------------------------- */

static void on_drained(void *ctx)
{
    phx_generation_mark(ctx);
}

void phx_generation_begin_stream(struct generation *g)
{
    struct phx_buf head;

    phx_buf_init(&head, 0);
    phx_buf_puts(&head, "data: ");
    put_head(g, &head, true);
    phx_buf_puts(&head, ",\"choices\":[");
    g->frame_head = phx_arena_strndup(g->arena, head.data, head.size);
    g->n_frame_head = head.size;
    phx_buf_fini(&head);
    g->is_streaming = true;
    phx_http_stream_start(g->http, 200, "text/event-stream; charset=utf-8");
    phx_http_on_drain(g->http, on_drained, g);
    phx_generation_mark(g);
}

/* A frame for each choice with news. */
static void put_deltas(struct generation *g, struct phx_buf *out, bool with_finish)
{
    for (int32_t i = 0; i < g->request.n_choices; i++) {
        size_t before = out->size;

        phx_buf_put(out, g->frame_head, g->n_frame_head);
        if (!phx_choice_put_delta(&g->parts[i].choice, out, with_finish)) {
            out->size = before;
            continue;
        }
        phx_buf_putc(out, ']');
        if (with_finish)
            phx_buf_printf(out, ",\"receipt\":\"%s\"", phx_lease_receipt(g->lease));
        phx_buf_puts(out, "}\n\n");
    }
}

static size_t count_unsent(const struct generation *g)
{
    size_t n = 0;

    for (int32_t i = 0; i < g->request.n_choices; i++)
        n += phx_choice_unsent(&g->parts[i].choice);
    return n;
}

static void flush(struct generation *g)
{
    struct phx_buf *out = &g->a->frames;

    if (phx_http_stream_is_blocked(g->http)) {
        if (count_unsent(g) > g->a->pending_max_bytes) {
            phx_log(PHX_LOG_INFO, "api.stream.drop", "id=%s reason=%s", g->id, "unread");
            phx_http_stream_drop(g->http);
        }
        return; /* on_drained follows */
    }
    phx_buf_clear(out);
    put_deltas(g, out, false);
    if (phx_http_stream_write(g->http, out->data, out->size) != 0)
        phx_log(PHX_LOG_INFO, "api.stream.drop", "id=%s", g->id); /* its gone callback follows */
}

void phx_generation_mark(struct generation *g)
{
    if (g->is_dirty || !g->is_streaming || g->http == NULL)
        return;
    g->is_dirty = true;
    g->next_dirty = g->a->first_dirty;
    if (g->a->first_dirty == NULL)
        event_active(g->a->flush, EV_TIMEOUT, 0);
    g->a->first_dirty = g;
}

void phx_generation_unmark(struct generation *g)
{
    struct generation **at = &g->a->first_dirty;

    if (!g->is_dirty)
        return;
    while (*at != g)
        at = &(*at)->next_dirty;
    *at = g->next_dirty;
    g->is_dirty = false;
}

void phx_api_flush(struct phx_api *a)
{
    struct generation *g;

    while ((g = a->first_dirty) != NULL) {
        a->first_dirty = g->next_dirty;
        g->is_dirty = false;
        if (g->http != NULL)
            flush(g);
    }
    if (a->frames.capacity > FRAMES_KEEP_BYTES)
        phx_buf_fini(&a->frames);
}

static void end_stream(struct generation *g, struct phx_buf *out)
{
    struct phx_http_request *r = g->http;

    g->http = NULL;
    phx_generation_unmark(g);
    phx_http_stream_end(r, out->data, out->size);
    phx_buf_fini(out);
}

void phx_generation_fail_stream(struct generation *g, const struct phx_err *err)
{
    struct phx_buf out;

    phx_buf_init(&out, 0);
    put_deltas(g, &out, false);
    phx_buf_puts(&out, "data: ");
    phx_api_put_error(&out, err);
    phx_buf_puts(&out, "\n\n");
    end_stream(g, &out);
}

void phx_generation_finish_stream(struct generation *g)
{
    struct phx_buf out;

    phx_buf_init(&out, 0);
    put_deltas(g, &out, true);
    if (g->request.has_stream_usage) {
        phx_buf_put(&out, g->frame_head, g->n_frame_head);
        phx_buf_puts(&out, "],");
        put_usage(g, &out);
        phx_buf_puts(&out, "}\n\n");
    }
    phx_buf_puts(&out, "data: [DONE]\n\n");
    end_stream(g, &out);
}

/* ---- whole answers --------------------------------------------------------------------------------------- */

void phx_generation_finish_whole(struct generation *g)
{
    struct phx_buf           body;
    struct phx_http_request *r = g->http;

    phx_buf_init(&body, 0);
    put_head(g, &body, false);
    phx_buf_puts(&body, ",\"choices\":[");
    for (int32_t i = 0; i < g->request.n_choices; i++) {
        if (i > 0)
            phx_buf_putc(&body, ',');
        phx_choice_put_whole(&g->parts[i].choice, &body);
    }
    phx_buf_puts(&body, "],");
    put_usage(g, &body);
    phx_buf_printf(&body, ",\"receipt\":\"%s\"}", phx_lease_receipt(g->lease));
    g->http = NULL;
    phx_http_reply(r, 200, "application/json", body.data, body.size);
    phx_buf_fini(&body);
}
