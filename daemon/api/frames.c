/* SPDX-License-Identifier: Apache-2.0
 * What a client sees of a generation: frames of a stream, or one body. */
#include <inttypes.h>
#include <string.h>

#include "daemon/admission/admission.h"
#include "daemon/api/generation.h"
#include "rpc/base/log.h"

enum { CHUNK_MAX_BYTES = 64 << 20 };

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

static void write_stream(struct generation *g, const struct phx_buf *out)
{
    /* a client that does not read is dropped; its gone callback follows */
    if (g->http != NULL && out->size > 0 && phx_http_stream_write(g->http, out->data, out->size) != 0)
        phx_log(PHX_LOG_INFO, "api.stream.drop", "id=%s", g->id);
}

void phx_generation_send_delta(struct generation *g, struct part *p, bool with_finish)
{
    struct phx_buf chunk, choice;

    phx_buf_init(&chunk, CHUNK_MAX_BYTES);
    phx_buf_init(&choice, CHUNK_MAX_BYTES);
    if (phx_choice_put_delta(&p->choice, &choice, with_finish)) {
        phx_buf_puts(&chunk, "data: ");
        put_head(g, &chunk, true);
        phx_buf_puts(&chunk, ",\"choices\":[");
        phx_buf_put(&chunk, choice.data, choice.size);
        phx_buf_putc(&chunk, ']');
        if (with_finish)
            phx_buf_printf(&chunk, ",\"receipt\":\"%s\"", phx_lease_receipt(g->lease));
        phx_buf_puts(&chunk, "}\n\n");
        write_stream(g, &chunk);
    }
    phx_buf_fini(&choice);
    phx_buf_fini(&chunk);
}

void phx_generation_finish_stream(struct generation *g)
{
    struct phx_buf           chunk;
    struct phx_http_request *r = g->http;

    for (int32_t i = 0; i < g->request.n_choices; i++)
        phx_generation_send_delta(g, &g->parts[i], true);
    phx_buf_init(&chunk, CHUNK_MAX_BYTES);
    if (g->request.has_stream_usage) {
        phx_buf_puts(&chunk, "data: ");
        put_head(g, &chunk, true);
        phx_buf_puts(&chunk, ",\"choices\":[],");
        put_usage(g, &chunk);
        phx_buf_puts(&chunk, "}\n\n");
    }
    phx_buf_puts(&chunk, "data: [DONE]\n\n");
    write_stream(g, &chunk);
    phx_buf_fini(&chunk);
    g->http = NULL;
    phx_http_stream_end(r);
}

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
