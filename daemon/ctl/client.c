/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/ctl/client.h"

#include <curl/curl.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { EVENT_MAX_BYTES = 16 << 20, CONNECT_TIMEOUT_S = 10 };

struct transfer {
    CURL                     *curl;
    struct curl_slist        *headers;
    struct phx_buf            input; /* bytes not yet parsed */
    bool                      is_stream;
    phx_client_delta_fn       fn;
    void                     *ctx;
    struct phx_client_answer *answer;
    int                       code;
    struct phx_err           *err;
};

static const json_t *at(const json_t *value, const char *key)
{
    return json_object_get(value, key);
}

static void read_usage(struct phx_client_answer *answer, const json_t *usage)
{
    if (!json_is_object(usage))
        return;
    answer->prompt_tokens = json_integer_value(at(usage, "prompt_tokens"));
    answer->completion_tokens = json_integer_value(at(usage, "completion_tokens"));
}

static void read_choice(struct transfer *t, const json_t *choice)
{
    const json_t *delta = at(choice, "delta");
    const char   *finish = json_string_value(at(choice, "finish_reason"));
    const char   *content = json_string_value(at(delta, "content"));
    const char   *reasoning = json_string_value(at(delta, "reasoning_content"));

    if (finish != NULL)
        (void)snprintf(t->answer->finish, sizeof(t->answer->finish), "%s", finish);
    if (content != NULL)
        phx_buf_puts(&t->answer->content, content);
    if (content != NULL || reasoning != NULL)
        t->fn(t->ctx, reasoning, content);
}

static int read_error(const json_t *event, struct phx_err *err)
{
    const char *message = json_string_value(at(at(event, "error"), "message"));

    return phx_fail(err, PHX_E_INTERNAL, "%s", message != NULL ? message : "the daemon failed");
}

static int read_event(struct transfer *t, const char *data, size_t size)
{
    json_t     *event = NULL;
    const char *receipt;
    int         rc;

    if (size == 6 && memcmp(data, "[DONE]", 6) == 0)
        return 0;
    rc = phx_json_parse(&event, data, size, EVENT_MAX_BYTES, 0, "event", t->err);
    if (rc != 0)
        return rc;
    if (at(event, "error") != NULL)
        rc = read_error(event, t->err);
    else
        read_choice(t, json_array_get(at(event, "choices"), 0));
    receipt = json_string_value(at(event, "receipt"));
    if (receipt != NULL)
        (void)snprintf(t->answer->receipt, sizeof(t->answer->receipt), "%s", receipt);
    read_usage(t->answer, at(event, "usage"));
    json_decref(event);
    return rc;
}

/* Takes whole lines out of the input; "data: X" lines are events, the others mean nothing to us. */
static int read_lines(struct transfer *t)
{
    char *end;
    int   rc = 0;

    while (rc == 0 && t->input.size > 0 &&
           (end = memchr(t->input.data, '\n', t->input.size)) != NULL) {
        size_t size = (size_t)(end - t->input.data);

        if (size > 6 && memcmp(t->input.data, "data: ", 6) == 0)
            rc = read_event(t, t->input.data + 6, size - 6);
        phx_buf_consume(&t->input, size + 1);
    }
    return rc;
}

static size_t on_data(char *data, size_t size, size_t n, void *ctx)
{
    struct transfer *t = ctx;
    long             status = 0;

    phx_buf_put(&t->input, data, size * n);
    if (t->input.is_over)
        t->code = phx_buf_check(&t->input, "the daemon's answer", t->err);
    (void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    if (t->code == 0 && t->is_stream && status == 200)
        t->code = read_lines(t);
    return t->code == 0 ? size * n : 0;
}

static int open_transfer(struct transfer *t, const struct phx_client_options *o, const char *path,
                         struct phx_err *err)
{
    char *url = phx_mem_printf("%s%s", o->url, path);
    char *authorization = phx_mem_printf("Authorization: Bearer %s", o->key);

    memset(t, 0, sizeof(*t));
    t->err = err;
    t->curl = curl_easy_init();
    phx_assert(t->curl != NULL);
    phx_buf_init(&t->input, EVENT_MAX_BYTES);
    t->headers = curl_slist_append(t->headers, authorization);
    t->headers = curl_slist_append(t->headers, "Content-Type: application/json");
    curl_easy_setopt(t->curl, CURLOPT_URL, url);
    curl_easy_setopt(t->curl, CURLOPT_HTTPHEADER, t->headers);
    curl_easy_setopt(t->curl, CURLOPT_WRITEFUNCTION, on_data);
    curl_easy_setopt(t->curl, CURLOPT_WRITEDATA, t);
    curl_easy_setopt(t->curl, CURLOPT_CONNECTTIMEOUT, (long)CONNECT_TIMEOUT_S);
    curl_easy_setopt(t->curl, CURLOPT_PROTOCOLS_STR, "http,https");
    curl_easy_setopt(t->curl, CURLOPT_NOPROXY, "127.0.0.1,localhost,::1");
    if (o->ca_file != NULL)
        curl_easy_setopt(t->curl, CURLOPT_CAINFO, o->ca_file);
    phx_mem_free(url);
    phx_mem_free(authorization);
    return 0;
}

static void close_transfer(struct transfer *t)
{
    curl_slist_free_all(t->headers);
    curl_easy_cleanup(t->curl);
    phx_buf_fini(&t->input);
}

/* Runs it; an HTTP error becomes the message of its body. */
static int perform(struct transfer *t, const char *url)
{
    CURLcode rc = curl_easy_perform(t->curl);
    json_t  *root = NULL;
    long     status = 0;

    if (t->code != 0)
        return t->code;
    if (rc != CURLE_OK)
        return phx_fail(t->err, PHX_E_IO, "%s: %s", url, curl_easy_strerror(rc));
    (void)curl_easy_getinfo(t->curl, CURLINFO_RESPONSE_CODE, &status);
    if (status == 200)
        return 0;
    if (t->input.data != NULL && phx_json_parse(&root, t->input.data, t->input.size,
                                                EVENT_MAX_BYTES, 0, "answer", NULL) == 0) {
        (void)read_error(root, t->err); /* the message is the result */
        json_decref(root);
        phx_err_prefix(t->err, "HTTP %ld: ", status);
        return PHX_E_INTERNAL;
    }
    return phx_fail(t->err, PHX_E_INTERNAL, "%s: HTTP status %ld", url, status);
}

int phx_client_chat(const struct phx_client_options *options, const char *body,
                    phx_client_delta_fn fn, void *ctx, struct phx_client_answer *answer,
                    struct phx_err *err)
{
    struct transfer t;
    int             rc = open_transfer(&t, options, "/v1/chat/completions", err);

    memset(answer, 0, sizeof(*answer));
    phx_buf_init(&answer->content, 0);
    if (rc != 0)
        return rc;
    t.is_stream = true;
    t.fn = fn;
    t.ctx = ctx;
    t.answer = answer;
    curl_easy_setopt(t.curl, CURLOPT_POSTFIELDS, body);
    rc = perform(&t, options->url);
    if (rc == 0 && answer->finish[0] == '\0')
        rc = phx_fail(err, PHX_E_PEER, "the answer ended early");
    close_transfer(&t);
    return rc;
}

void phx_client_answer_fini(struct phx_client_answer *answer)
{
    phx_buf_fini(&answer->content);
}

int phx_client_model(const struct phx_client_options *options, char **model, struct phx_err *err)
{
    struct transfer t;
    json_t         *root = NULL;
    const char     *id = NULL;
    int             rc = open_transfer(&t, options, "/v1/models", err);

    *model = NULL;
    if (rc == 0)
        rc = perform(&t, options->url);
    if (rc == 0)
        rc = phx_json_parse(&root, t.input.data, t.input.size, EVENT_MAX_BYTES, 0, "/v1/models", err);
    if (rc == 0) {
        id = json_string_value(at(json_array_get(at(root, "data"), 0), "id"));
        if (id == NULL)
            rc = phx_fail(err, PHX_E_FORMAT, "/v1/models names no model");
        else
            *model = phx_mem_strdup(id);
    }
    json_decref(root);
    close_transfer(&t);
    return rc;
}
