/* SPDX-License-Identifier: Apache-2.0 */
#include <event2/event.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/api/state.h"
#include "daemon/config/config.h"
#include "daemon/identity/identity.h"
#include "daemon/metrics/metrics.h"
#include "daemon/queue/queue.h"
#include "daemon/work/work.h"

typedef void (*route_fn)(struct phx_api *a, struct phx_http_request *r, const struct phx_identity *who);

static void put_model(const struct phx_api *a, struct phx_buf *out)
{
    struct phx_engine_facts facts;

    phx_engine_facts(a->d->engine, &facts);
    phx_buf_puts(out, "{\"id\":");
    phx_json_put_str(out, a->d->model_name, strlen(a->d->model_name));
    phx_buf_printf(out,
                   ",\"object\":\"model\",\"created\":%lld,\"owned_by\":\"phalanx\","
                   "\"max_model_len\":%d}",
                   (long long)(a->d->started_wall_ns / 1000000000), facts.max_context);
}

static void reply_json(struct phx_http_request *r, struct phx_buf *body)
{
    phx_http_reply(r, 200, "application/json", body->data, body->size);
    phx_buf_fini(body);
}

static void list_models(struct phx_api *a, struct phx_http_request *r, const struct phx_identity *who)
{
    struct phx_buf body;

    (void)who; /* every key sees the one model */
    phx_buf_init(&body, 0);
    phx_buf_puts(&body, "{\"object\":\"list\",\"data\":[");
    put_model(a, &body);
    phx_buf_puts(&body, "]}");
    reply_json(r, &body);
}

static void show_model(struct phx_api *a, struct phx_http_request *r, const struct phx_identity *who)
{
    const char    *name = phx_http_path(r) + strlen("/v1/models/");
    struct phx_buf body;
    struct phx_err err = {0};

    (void)who;
    if (strcmp(name, a->d->model_name) != 0) {
        (void)phx_fail(&err, PHX_E_NOTFOUND, "model: '%.100s' is not served here", name); /* told */
        phx_api_fail(r, &err, -1);
        return;
    }
    phx_buf_init(&body, 0);
    put_model(a, &body);
    reply_json(r, &body);
}

static void chat(struct phx_api *a, struct phx_http_request *r, const struct phx_identity *who)
{
    phx_api_generate(a, r, PHX_API_CHAT, who);
}

static void complete(struct phx_api *a, struct phx_http_request *r, const struct phx_identity *who)
{
    phx_api_generate(a, r, PHX_API_COMPLETION, who);
}

static void show_health(struct phx_api *a, struct phx_http_request *r, const struct phx_identity *who)
{
    (void)a;
    (void)who;
    phx_http_reply(r, 200, "application/json", "{\"status\":\"ok\"}", 15);
}

static void show_ready(struct phx_api *a, struct phx_http_request *r, const struct phx_identity *who)
{
    struct phx_engine_facts facts;

    (void)who;
    phx_engine_facts(a->d->engine, &facts);
    if (facts.is_ready && !a->is_draining)
        phx_http_reply(r, 200, "application/json", "{\"status\":\"ready\"}", 18);
    else
        phx_http_reply(r, 503, "application/json", "{\"status\":\"not ready\"}", 22);
}

static void show_metrics(struct phx_api *a, struct phx_http_request *r, const struct phx_identity *who)
{
    struct phx_buf body;

    (void)who;
    phx_buf_init(&body, 0);
    phx_metrics_write(a->d->metrics, &body);
    phx_http_reply(r, 200, "text/plain; version=0.0.4; charset=utf-8", body.data, body.size);
    phx_buf_fini(&body);
}

/* roles 0: no key is needed. */
struct route {
    const char *method, *path;
    bool        is_prefix;
    unsigned    roles;
    route_fn    run;
};

enum { ANYONE = 0, ANY_KEY = 15 };

static const struct route routes[] = {
    {"POST", "/v1/chat/completions", false, PHX_ROLE_BIT_USER | PHX_ROLE_BIT_ADMIN, chat},
    {"POST", "/v1/completions", false, PHX_ROLE_BIT_USER | PHX_ROLE_BIT_ADMIN, complete},
    {"GET", "/v1/models", false, ANY_KEY, list_models},
    {"GET", "/v1/models/", true, ANY_KEY, show_model},
    {"GET", "/healthz", false, ANYONE, show_health},
    {"GET", "/readyz", false, ANYONE, show_ready},
    {"GET", "/metrics", false, PHX_ROLE_BIT_OPERATOR | PHX_ROLE_BIT_ADMIN, show_metrics},
};

static bool matches(const struct route *route, const char *path)
{
    size_t n = strlen(route->path);

    return route->is_prefix ? strncmp(path, route->path, n) == 0 && path[n] != '\0'
                            : strcmp(path, route->path) == 0;
}

static int authenticate(struct phx_api *a, struct phx_http_request *r, unsigned roles,
                        struct phx_identity *who, struct phx_err *err)
{
    static const char      scheme[] = "Bearer ";
    const char            *header = phx_http_header(r, "Authorization");
    struct phx_credentials credentials = {.on_behalf_of = phx_http_header(r, "x-phalanx-on-behalf-of")};
    int                    rc;

    if (header == NULL || strncmp(header, scheme, sizeof(scheme) - 1) != 0)
        return phx_fail(err, PHX_E_UNAUTH,
                        "an API key is needed: send the header Authorization: Bearer KEY");
    credentials.bearer = header + sizeof(scheme) - 1;
    rc = phx_identify(a->d->identities, &credentials, who, err);
    if (rc != 0)
        return rc;
    if ((who->roles & roles) == 0)
        return phx_fail(err, PHX_E_DENIED, "this key has no role that may do this");
    return 0;
}

static void run_route(struct phx_api *a, const struct route *route, struct phx_http_request *r)
{
    struct phx_identity who = {0};
    struct phx_err      err = {0};

    if (route->roles != ANYONE && authenticate(a, r, route->roles, &who, &err) != 0)
        phx_api_fail(r, &err, -1);
    else
        route->run(a, r, &who);
}

static void on_request(void *ctx, struct phx_http_request *r)
{
    struct phx_api *a = ctx;
    struct phx_err  err = {0};
    bool            has_path = false;

    for (size_t i = 0; i < sizeof(routes) / sizeof(routes[0]); i++) {
        if (!matches(&routes[i], phx_http_path(r)))
            continue;
        has_path = true;
        if (strcmp(phx_http_method(r), routes[i].method) == 0) {
            run_route(a, &routes[i], r);
            return;
        }
    }
    if (has_path) /* phx_fail's value is in err, which is told */
        (void)phx_fail(&err, PHX_E_NOTFOUND, "%s is not served on this path", phx_http_method(r));
    else
        (void)phx_fail(&err, PHX_E_NOTFOUND, "there is no such path; see /v1/models");
    phx_api_fail(r, &err, -1);
}

void phx_api_count(struct phx_api *a, const char *tenant, const char *outcome)
{
    char labels[256];

    (void)snprintf(labels, sizeof(labels), "tenant=\"%s\",model=\"%s\",outcome=\"%s\"", tenant,
                   a->d->model_name, outcome);
    phx_metrics_count(a->d->metrics, "phalanx_requests_total", labels, 1);
}

static void on_flush(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    phx_api_flush(ctx);
}

static int32_t count_threads(const struct phx_config *c)
{
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    long n = c->text_threads > 0 ? (long)c->text_threads : cores / 4;

    return n < 1 ? 1 : n > PHX_TEXT_THREADS_MAX ? PHX_TEXT_THREADS_MAX : (int32_t)n;
}

static int open_parts(struct phx_api *a, struct phx_err *err)
{
    const struct phx_config *c = a->d->config;
    struct phx_http_options  options = {
         .listen = c->listen,
         .tls_cert_file = c->http_tls_cert[0] != '\0' ? c->http_tls_cert : NULL,
         .tls_key_file = c->http_tls_key[0] != '\0' ? c->http_tls_key : NULL,
         .body_max_bytes = (size_t)c->http_body_max_bytes,
         .header_max_bytes = (size_t)c->http_header_max_bytes,
         .pending_max_bytes = (size_t)c->http_pending_max_bytes,
         .requests_max = (int32_t)c->http_requests_max,
         .connections_max = (int32_t)c->http_connections_max,
         .idle_timeout_s = (int32_t)c->http_idle_timeout_s,
    };
    int rc = phx_work_open(a->d->base, count_threads(c), (int32_t)c->text_queue, &a->work, err);

    a->body_max_bytes = options.body_max_bytes;
    a->pending_max_bytes = options.pending_max_bytes;
    a->cache = phx_text_cache_create((size_t)c->text_cache_bytes);
    a->inter_token = phx_metrics_series(a->d->metrics, "phalanx_inter_token_seconds", "");
    a->flush = event_new(a->d->base, -1, 0, on_flush, a);
    phx_assert(a->flush != NULL);
    return rc == 0 ? phx_http_open(a->d->base, &options, on_request, a, &a->http, err) : rc;
}

int phx_api_open(struct phx_daemon *d, struct phx_api **out, struct phx_err *err)
{
    struct phx_api *a = phx_mem_calloc(1, sizeof(*a));
    int             rc;

    a->d = d;
    rc = open_parts(a, err);
    if (rc != 0) {
        phx_api_close(a);
        a = NULL;
    }
    *out = a;
    return rc;
}

const char *phx_api_url(const struct phx_api *a)
{
    return phx_http_url(a->http);
}

void phx_api_drain(struct phx_api *a)
{
    a->is_draining = true;
    phx_http_drain(a->http);
}

bool phx_api_is_idle(const struct phx_api *a)
{
    return a->n_open == 0;
}

void phx_api_close(struct phx_api *a)
{
    if (a == NULL)
        return;
    phx_api_cancel_all(a);
    phx_work_close(a->work); /* ends those whose prompts were not ready */
    phx_http_close(a->http);
    event_free(a->flush);
    phx_text_cache_destroy(a->cache);
    phx_buf_fini(&a->frames);
    phx_mem_free(a);
}
