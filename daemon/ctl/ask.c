/* SPDX-License-Identifier: Apache-2.0
 * `phalanx ask` and `phalanx chat`. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "daemon/ctl/client.h"
#include "daemon/ctl/ctl.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"

enum { OPT_SHOW = 256, OPT_RECEIPT, OPT_EFFORT, OPT_TEMPERATURE, OPT_SEED, OPT_MAX, OPT_CA, OPT_KEY };

struct arguments {
    const char *url, *key_file, *data_dir, *model, *effort, *ca_file, *receipt_file, *system;
    const char *temperature, *seed, *max_tokens;
    bool        shows_reasoning;
    const char *text;
};

static const struct argp_option options[] = {
    {"url", 'u', "URL", 0, "where the cluster listens (default: from --data)", 0},
    {"key-file", OPT_KEY, "FILE", 0, "file with the API key (default: from --data)", 0},
    {"data", 'd', "DIR", 0, "data folder of a running cluster", 0},
    {"ca-file", OPT_CA, "FILE", 0, "CA certificate for https", 0},
    {"model", 'm', "NAME", 0, "model (default: the first one served)", 0},
    {"system", 's', "TEXT", 0, "system message", 0},
    {"reasoning-effort", OPT_EFFORT, "LEVEL", 0, "low, medium or high", 0},
    {"temperature", OPT_TEMPERATURE, "T", 0, "sampling temperature (default 0)", 0},
    {"seed", OPT_SEED, "N", 0, "sampling seed", 0},
    {"max-tokens", OPT_MAX, "N", 0, "most tokens of the answer", 0},
    {"show-reasoning", OPT_SHOW, NULL, 0, "print the reasoning before the answer", 0},
    {"receipt-file", OPT_RECEIPT, "FILE", 0, "write the audit receipt id there", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'u': a->url = arg; return 0;
    case 'd': a->data_dir = arg; return 0;
    case 'm': a->model = arg; return 0;
    case 's': a->system = arg; return 0;
    case OPT_KEY: a->key_file = arg; return 0;
    case OPT_CA: a->ca_file = arg; return 0;
    case OPT_EFFORT: a->effort = arg; return 0;
    case OPT_TEMPERATURE: a->temperature = arg; return 0;
    case OPT_SEED: a->seed = arg; return 0;
    case OPT_MAX: a->max_tokens = arg; return 0;
    case OPT_SHOW: a->shows_reasoning = true; return 0;
    case OPT_RECEIPT: a->receipt_file = arg; return 0;
    case ARGP_KEY_ARG:
        if (a->text != NULL)
            argp_error(state, "one TEXT is expected; quote it");
        a->text = arg;
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

/* What is printed while deltas come: dim reasoning, then the answer. */
struct printer {
    bool shows_reasoning;
    bool is_terminal;
    bool is_in_reasoning;
};

static void print_delta(void *ctx, const char *reasoning, const char *content)
{
    struct printer *p = ctx;

    if (reasoning != NULL && p->shows_reasoning) {
        if (!p->is_in_reasoning)
            fputs(p->is_terminal ? "\033[2m" : "[reasoning] ", stdout);
        p->is_in_reasoning = true;
        fputs(reasoning, stdout);
    }
    if (content != NULL) {
        if (p->is_in_reasoning)
            fputs(p->is_terminal ? "\033[0m\n\n" : "\n[answer] ", stdout);
        p->is_in_reasoning = false;
        fputs(content, stdout);
    }
    fflush(stdout);
}

static void put_number(json_t *body, const char *key, const char *text)
{
    char  *end;
    double value;

    if (text == NULL)
        return;
    value = strtod(text, &end);
    if (*end != '\0' || end == text) /* the daemon refuses it by name */
        json_object_set_new(body, key, json_string(text));
    else if (strpbrk(text, ".eE") != NULL)
        json_object_set_new(body, key, json_real(value));
    else
        json_object_set_new(body, key, json_integer((json_int_t)value));
}

static char *make_body(const struct arguments *a, const char *model, json_t *messages)
{
    json_t *body = json_object();
    char   *text, *copy;

    json_object_set_new(body, "model", json_string(model));
    json_object_set(body, "messages", messages);
    json_object_set_new(body, "stream", json_true());
    json_object_set_new(body, "stream_options", json_pack("{s:b}", "include_usage", 1));
    put_number(body, "temperature", a->temperature != NULL ? a->temperature : "0");
    put_number(body, "seed", a->seed);
    put_number(body, "max_completion_tokens", a->max_tokens);
    if (a->effort != NULL)
        json_object_set_new(body, "reasoning_effort", json_string(a->effort));
    text = json_dumps(body, JSON_COMPACT);
    copy = text != NULL ? phx_mem_strdup(text) : NULL;
    free(text);
    json_decref(body);
    return copy;
}

static void add_message(json_t *messages, const char *role, const char *content)
{
    json_array_append_new(messages, json_pack("{s:s,s:s}", "role", role, "content", content));
}

/* One question and its answer, appended to messages. */
static int exchange(const struct arguments *a, const struct phx_client_options *client,
                    const char *model, json_t *messages, struct phx_err *err)
{
    struct printer           printer = {a->shows_reasoning, isatty(STDOUT_FILENO) != 0, false};
    struct phx_client_answer answer;
    char                    *body = make_body(a, model, messages);
    int                      rc;

    if (body == NULL)
        return phx_fail(err, PHX_E_INVALID, "the text is not UTF-8");
    rc = phx_client_chat(client, body, print_delta, &printer, &answer, err);
    phx_mem_free(body);
    fputs("\n", stdout);
    if (rc == 0 && answer.content.data != NULL)
        add_message(messages, "assistant", answer.content.data);
    if (rc == 0 && a->receipt_file != NULL)
        rc = phx_file_write(a->receipt_file, answer.receipt, strlen(answer.receipt), 0600, err);
    phx_client_answer_fini(&answer);
    return rc;
}

struct session {
    struct phx_ctl_endpoint   endpoint;
    struct phx_client_options client;
    char                     *key;
    char                     *model;
};

static int open_session(const struct arguments *a, struct session *s, struct phx_err *err)
{
    const char *key_file = a->key_file;
    int         rc = 0;

    memset(s, 0, sizeof(*s));
    if (a->data_dir != NULL)
        rc = phx_ctl_endpoint_load(a->data_dir, &s->endpoint, err);
    s->client.url = a->url != NULL ? a->url : s->endpoint.url;
    s->client.ca_file = a->ca_file;
    if (key_file == NULL)
        key_file = s->endpoint.key_file;
    if (rc == 0 && (s->client.url == NULL || key_file == NULL))
        rc = phx_fail(err, PHX_E_INVALID, "give --data DIR, or --url and --key-file");
    if (rc == 0)
        rc = phx_ctl_read_key(key_file, &s->key, err);
    s->client.key = s->key;
    if (rc == 0 && a->model == NULL)
        rc = phx_client_model(&s->client, &s->model, err);
    else if (rc == 0)
        s->model = phx_mem_strdup(a->model);
    return rc;
}

static void close_session(struct session *s)
{
    phx_ctl_endpoint_fini(&s->endpoint);
    phx_mem_free(s->key);
    phx_mem_free(s->model);
}

int phx_ctl_ask(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "TEXT",
                                     "Asks one question and prints the answer as it comes.", NULL,
                                     NULL, NULL};
    struct arguments         a = {0};
    struct session           s;
    struct phx_err           err = {0};
    json_t                  *messages = json_array();
    int                      rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    if (a.text == NULL) {
        fprintf(stderr, "phalanx ask: a TEXT is needed; see --help\n");
        json_decref(messages);
        return PHX_EXIT_USAGE;
    }
    rc = open_session(&a, &s, &err);
    if (rc == 0) {
        if (a.system != NULL)
            add_message(messages, "system", a.system);
        add_message(messages, "user", a.text);
        rc = exchange(&a, &s.client, s.model, messages, &err);
    }
    close_session(&s);
    json_decref(messages);
    return rc == 0 ? PHX_EXIT_OK : phx_ctl_fail(&err);
}

static void run_chat(const struct arguments *a, const struct session *s, json_t *messages)
{
    bool   is_terminal = isatty(STDIN_FILENO) != 0;
    char  *line = NULL;
    size_t capacity = 0;

    while (true) {
        ssize_t        n;
        struct phx_err err = {0};

        if (is_terminal)
            fputs("\033[1myou>\033[0m ", stdout);
        fflush(stdout);
        n = getline(&line, &capacity, stdin);
        if (n <= 0)
            break;
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '\0')
            continue;
        if (strcmp(line, "/quit") == 0)
            break;
        if (strcmp(line, "/new") == 0) {
            json_array_clear(messages);
            continue;
        }
        add_message(messages, "user", line);
        if (exchange(a, &s->client, s->model, messages, &err) != 0) {
            (void)phx_ctl_fail(&err); /* the chat goes on without this turn */
            json_array_remove(messages, json_array_size(messages) - 1);
        }
    }
    free(line); /* getline's own memory */
}

int phx_ctl_chat(int argc, char **argv)
{
    static const struct argp argp = {
        options, parse_option, "",
        "A chat in the terminal.  /new starts over, /quit or the end of input leaves.", NULL, NULL,
        NULL};
    struct arguments a = {0};
    struct session   s;
    struct phx_err   err = {0};
    json_t          *messages = json_array();
    int              rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    rc = open_session(&a, &s, &err);
    if (rc == 0) {
        if (a.system != NULL)
            add_message(messages, "system", a.system);
        run_chat(&a, &s, messages);
    }
    close_session(&s);
    json_decref(messages);
    return rc == 0 ? PHX_EXIT_OK : phx_ctl_fail(&err);
}
