/* SPDX-License-Identifier: Apache-2.0
 * `phalanx bench http`: load on any server of the OpenAI API, and what its clients see. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/ctl/client.h"
#include "daemon/ctl/ctl.h"
#include "daemon/ctl/load.h"
#include "rpc/base/mem.h"

enum { OPT_KEY = 256, OPT_CA, OPT_PROMPT, OPT_OUTPUT, OPT_WHOLE, OPT_CHAT, OPT_EOS, OPT_JSON, OPT_REQUESTS,
       OPEN_CONNECTIONS = 1024, TOKENS_MAX = 1 << 20 };

struct arguments {
    const char             *url, *key_file, *data_dir;
    struct phx_load_options load;
    bool                    is_json;
};

static const struct argp_option options[] = {
    {"url", 'u', "URL", 0, "where it listens (default: from --data)", 0},
    {"key-file", OPT_KEY, "FILE", 0, "file with the API key (default: from --data)", 0},
    {"data", 'd', "DIR", 0, "data folder of a running cluster", 0},
    {"ca-file", OPT_CA, "FILE", 0, "CA certificate for https", 0},
    {"model", 'm', "NAME", 0, "model (default: the first one served)", 0},
    {"rate", 'r', "R", 0, "open loop: requests per second, each timed from the moment it was due", 0},
    {"concurrency", 'c', "N", 0, "closed loop: N requests at once (default 8); with --rate the most at once", 0},
    {"duration", 't', "S", 0, "seconds in which requests are sent (default 10)", 0},
    {"requests", OPT_REQUESTS, "N", 0, "stop after so many", 0},
    {"prompt-tokens", OPT_PROMPT, "N", 0, "tokens of a prompt (default 128); with --chat words", 0},
    {"output-tokens", OPT_OUTPUT, "N", 0, "max_tokens (default 64)", 0},
    {"chat", OPT_CHAT, NULL, 0, "/v1/chat/completions with a text instead of /v1/completions with token ids", 0},
    {"no-stream", OPT_WHOLE, NULL, 0, "ask for whole answers", 0},
    {"stop-early", OPT_EOS, NULL, 0, "let the model end an answer; else ignore_eos is sent", 0},
    {"json", OPT_JSON, NULL, 0, "print one JSON object", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static double read_number(struct argp_state *state, const char *name, const char *text, double min, double max)
{
    char  *end;
    double value = strtod(text, &end);

    if (end == text || *end != '\0' || !(value >= min && value <= max))
        argp_error(state, "--%s: '%.40s' is not a number from %g to %.0f", name, text, min, max);
    return value;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'u': a->url = arg; return 0;
    case 'd': a->data_dir = arg; return 0;
    case 'm': a->load.model = arg; return 0;
    case 'r': a->load.rate = read_number(state, "rate", arg, 0.001, 1e6); return 0;
    case 'c':
        a->load.connections = (int32_t)read_number(state, "concurrency", arg, 1, PHX_LOAD_CONNECTIONS_MAX);
        return 0;
    case 't': a->load.duration_s = read_number(state, "duration", arg, 0.1, 86400); return 0;
    case OPT_REQUESTS: a->load.requests_max = (int64_t)read_number(state, "requests", arg, 1, 1e9); return 0;
    case OPT_PROMPT: a->load.prompt_tokens = (int32_t)read_number(state, "prompt-tokens", arg, 1, TOKENS_MAX); return 0;
    case OPT_OUTPUT: a->load.output_tokens = (int32_t)read_number(state, "output-tokens", arg, 1, TOKENS_MAX); return 0;
    case OPT_KEY: a->key_file = arg; return 0;
    case OPT_CA: a->load.ca_file = arg; return 0;
    case OPT_CHAT: a->load.is_chat = true; return 0;
    case OPT_WHOLE: a->load.is_stream = false; return 0;
    case OPT_EOS: a->load.ends_early = true; return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case ARGP_KEY_ARG:
        if (a->url != NULL)
            argp_error(state, "one URL is expected");
        a->url = arg;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* ---- what is printed ------------------------------------------------------------------------------------- */

static void show_progress(void *ctx, const struct phx_load_result *r)
{
    const struct phx_load_options *o = ctx;
    int                            done = (int)(20.0 * r->seconds / o->duration_s);

    done = done < 20 ? done : 20;
    fprintf(stderr, "\r[%.*s%.*s] %5.1f s  %lld answered  %lld failed  %.0f events/s ", done, "####################",
            20 - done, "....................", r->seconds, (long long)r->n_answered, (long long)r->n_failed,
            (double)r->n_events / r->seconds);
    (void)fflush(stderr);
}

static json_t *json_histogram(const struct phx_histogram *h)
{
    return json_pack("{s:I,s:f,s:f,s:f,s:f,s:f}", "n", (json_int_t)h->n, "mean",
                     h->n > 0 ? h->sum_ns / (double)h->n / 1e6 : 0.0, "p50", phx_histogram_ms(h, 0.5), "p90",
                     phx_histogram_ms(h, 0.9), "p99", phx_histogram_ms(h, 0.99), "max", (double)h->max_ns / 1e6);
}

static void print_json(const struct phx_load_options *o, const struct phx_load_result *r)
{
    json_t *out = json_pack("{s:s,s:s,s:s,s:b,s:f,s:i,s:i,s:i,s:f}", "benchmark", "http", "model", o->model, "endpoint",
                            o->is_chat ? "chat.completions" : "completions", "stream", (int)o->is_stream, "rate", o->rate,
                            "concurrency", (int)o->connections, "prompt_tokens_asked", (int)o->prompt_tokens,
                            "output_tokens_asked", (int)o->output_tokens, "seconds", r->seconds);

    json_object_set_new(out, "sent", json_integer(r->n_sent));
    json_object_set_new(out, "answered", json_integer(r->n_answered));
    json_object_set_new(out, "errors", json_integer(r->n_failed));
    json_object_set_new(out, "sent_late", json_integer(r->n_late));
    json_object_set_new(out, "prompt_tokens", json_integer(r->n_prompt_tokens));
    json_object_set_new(out, "output_tokens", json_integer(r->n_tokens));
    json_object_set_new(out, "events", json_integer(r->n_events));
    json_object_set_new(out, "bytes", json_integer(r->n_bytes));
    json_object_set_new(out, "requests_per_s", json_real((double)r->n_answered / r->seconds));
    json_object_set_new(out, "output_tokens_per_s", json_real((double)r->n_tokens / r->seconds));
    json_object_set_new(out, "events_per_s", json_real((double)r->n_events / r->seconds));
    json_object_set_new(out, "ttft_ms", json_histogram(&r->ttft));
    json_object_set_new(out, "inter_token_ms", json_histogram(&r->gap));
    json_object_set_new(out, "per_output_token_ms", json_histogram(&r->per_token));
    json_object_set_new(out, "request_ms", json_histogram(&r->whole));
    if (r->first_failure[0] != '\0')
        json_object_set_new(out, "first_error", json_stringn_nocheck(r->first_failure, strlen(r->first_failure)));
    phx_ctl_print_json(out);
}

static void print_row(const char *name, const struct phx_histogram *h)
{
    if (h->n > 0)
        printf("%-26s %10.2f %10.2f %10.2f %10.2f %10.2f\n", name, h->sum_ns / (double)h->n / 1e6,
               phx_histogram_ms(h, 0.5), phx_histogram_ms(h, 0.9), phx_histogram_ms(h, 0.99), (double)h->max_ns / 1e6);
}

static void print_table(const struct phx_load_options *o, const struct phx_load_result *r)
{
    printf("%s, %s, ", o->is_chat ? "chat" : "completions", o->is_stream ? "streamed" : "whole");
    if (o->rate > 0)
        printf("open loop at %g/s", o->rate);
    else
        printf("closed loop of %d", (int)o->connections);
    printf(", %.1f s\n\n", r->seconds);
    printf("requests   %10.1f /s  (%lld answered, %lld failed, %lld sent late)\n", (double)r->n_answered / r->seconds,
           (long long)r->n_answered, (long long)r->n_failed, (long long)r->n_late);
    printf("output     %10.1f tokens/s\n", (double)r->n_tokens / r->seconds);
    printf("events     %10.1f /s  (%.2f tokens each)\n", (double)r->n_events / r->seconds,
           r->n_events > 0 ? (double)r->n_tokens / (double)r->n_events : 0.0);
    printf("prompt     %10.1f tokens/s\n\n", (double)r->n_prompt_tokens / r->seconds);
    printf("%-26s %10s %10s %10s %10s %10s\n", "ms", "mean", "p50", "p90", "p99", "max");
    print_row("time to first token", &r->ttft);
    print_row("between two events", &r->gap);
    print_row("per output token", &r->per_token);
    print_row("whole request", &r->whole);
    if (r->first_failure[0] != '\0')
        printf("\nfirst failure: %s\n", r->first_failure);
}

/* ---- the run --------------------------------------------------------------------------------------------- */

/* SCHEME://HOST[:PORT][/PATH] into its parts, in place. */
static int split_url(char *url, struct phx_load_options *o, struct phx_err *err)
{
    char *host, *path, *port, *end;

    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return phx_fail(err, PHX_E_INVALID, "--url: '%.100s' does not begin with http:// or https://", url);
    o->is_tls = url[4] == 's';
    host = url + (o->is_tls ? 8 : 7);
    path = strchr(host, '/');
    o->path = "";
    if (path != NULL && path[1] != '\0') {
        char *copy = path + strlen(path);

        while (copy[-1] == '/')
            *--copy = '\0';
        memmove(path + 1, path, strlen(path) + 1); /* room for the NUL behind the host; the caller left one byte */
        *path = '\0';
        o->path = path + 1;
    } else if (path != NULL)
        *path = '\0';
    end = host[0] == '[' ? strchr(host, ']') : host;
    if (end == NULL)
        return phx_fail(err, PHX_E_INVALID, "--url: '[' without ']'");
    port = strchr(end, ':');
    o->port = port != NULL ? port + 1 : o->is_tls ? "443" : "80";
    if (port != NULL)
        *port = '\0';
    if (host[0] == '[') {
        host++;
        *end = '\0';
    }
    o->host = host;
    return host[0] != '\0' ? 0 : phx_fail(err, PHX_E_INVALID, "--url: a host is needed");
}

static int find_server(struct arguments *a, struct phx_ctl_endpoint *endpoint, char **key, char **model,
                       struct phx_err *err)
{
    struct phx_client_options client = {.ca_file = a->load.ca_file};
    const char               *key_file = a->key_file;
    int                       rc = a->data_dir != NULL ? phx_ctl_endpoint_load(a->data_dir, endpoint, err) : 0;

    if (rc != 0)
        return rc;
    client.url = a->url != NULL ? a->url : endpoint->url;
    key_file = key_file != NULL ? key_file : endpoint->key_file;
    if (client.url == NULL)
        return phx_fail(err, PHX_E_INVALID, "give --data DIR, or a URL and --key-file");
    if (key_file != NULL)
        rc = phx_ctl_read_key(key_file, key, err);
    else
        *key = phx_mem_strdup("none");
    client.key = *key;
    if (rc == 0 && a->load.model == NULL) {
        rc = phx_client_model(&client, model, err);
        a->load.model = *model;
    }
    a->url = client.url;
    a->load.key = *key;
    return rc;
}

static int measure(struct arguments *a, struct phx_err *err)
{
    struct phx_load_result *result = phx_mem_calloc(1, sizeof(*result));
    char                   *url = phx_mem_printf("%s%c", a->url, '\0'); /* one byte more, for the cut */
    bool                    has_bar = isatty(STDERR_FILENO) != 0;
    int                     rc = split_url(url, &a->load, err);

    if (rc == 0)
        rc = phx_load_run(&a->load, has_bar ? show_progress : NULL, &a->load, result, err);
    if (has_bar)
        fputs("\r\033[K", stderr);
    if (rc == 0 && a->is_json)
        print_json(&a->load, result);
    else if (rc == 0)
        print_table(&a->load, result);
    if (rc == 0 && result->n_answered == 0)
        rc = phx_fail(err, PHX_E_PEER, "no request was answered: %.250s", result->first_failure);
    phx_mem_free(url);
    phx_mem_free(result);
    return rc;
}

int phx_ctl_bench_http(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "[URL]",
                                     "Load on a server of the OpenAI API, and what its clients see.", NULL, NULL, NULL};
    struct arguments         a = {.load = {.is_stream = true, .prompt_tokens = 128, .output_tokens = 64, .duration_s = 10}};
    struct phx_ctl_endpoint  endpoint = {0};
    struct phx_err           err = {0};
    char                    *key = NULL, *model = NULL;
    int                      rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (a.load.connections == 0)
        a.load.connections = a.load.rate > 0 ? OPEN_CONNECTIONS : 8;
    rc = find_server(&a, &endpoint, &key, &model, &err);
    if (rc == 0)
        rc = measure(&a, &err);
    phx_ctl_endpoint_fini(&endpoint);
    phx_mem_free(key);
    phx_mem_free(model);
    return rc == 0 ? PHX_EXIT_OK : phx_ctl_fail(&err);
}
