/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/api/request.h"

#include <string.h>

static const char *const chat_keys[] = {
    "model", "messages", "stream", "stream_options", "max_tokens", "max_completion_tokens",
    "temperature", "top_p", "top_k", "min_p", "presence_penalty", "frequency_penalty",
    "repetition_penalty", "logit_bias", "logprobs", "top_logprobs", "n", "stop", "stop_token_ids",
    "ignore_eos", "seed", "tools", "tool_choice", "parallel_tool_calls", "response_format",
    "reasoning_effort", "user", "store", "service_tier", NULL,
};

static const char *const completion_keys[] = {
    "model", "prompt", "stream", "stream_options", "max_tokens", "temperature", "top_p", "top_k",
    "min_p", "presence_penalty", "frequency_penalty", "repetition_penalty", "logit_bias",
    "logprobs", "n", "best_of", "echo", "suffix", "stop", "stop_token_ids", "ignore_eos", "seed",
    "user", NULL,
};

/* Values that mean "nothing special" are honoured by doing nothing; others are refused by name. */
static int check_defaults(const json_t *body, const struct phx_api_request *out,
                          struct phx_err *err)
{
    bool        store = false, echo = false;
    const char *tier = "auto", *suffix = "";
    int64_t     best_of = out->n_choices;
    int         rc = phx_json_opt_bool(body, "", "store", &store, err);

    if (rc == 0)
        rc = phx_json_opt_bool(body, "", "echo", &echo, err);
    if (rc == 0)
        rc = phx_json_opt_str(body, "", "service_tier", 32, &tier, err);
    if (rc == 0)
        rc = phx_json_opt_str(body, "", "suffix", 4096, &suffix, err);
    if (rc == 0)
        rc = phx_json_opt_int(body, "", "best_of", 1, 1024, &best_of, err);
    if (rc != 0)
        return rc;
    if (store)
        return phx_fail(err, PHX_E_UNSUPPORTED, "store: answers are not kept; leave it out");
    if (echo)
        return phx_fail(err, PHX_E_UNSUPPORTED, "echo: the prompt is not repeated; leave it out");
    if (suffix[0] != '\0')
        return phx_fail(err, PHX_E_UNSUPPORTED, "suffix: insertion is not served; leave it out");
    if (strcmp(tier, "auto") != 0 && strcmp(tier, "default") != 0)
        return phx_fail(err, PHX_E_UNSUPPORTED, "service_tier: only auto and default are served");
    if (best_of != out->n_choices)
        return phx_fail(err, PHX_E_UNSUPPORTED, "best_of: only the value of n is served");
    return 0;
}

static int parse_response_format(const json_t *body, struct phx_err *err)
{
    static const char *const keys[] = {"type", NULL};
    const json_t            *format = NULL;
    const char              *type = "text";
    int                      rc = phx_json_opt_object(body, "", "response_format", &format, err);

    if (rc != 0 || format == NULL)
        return rc;
    rc = phx_json_get_str(format, "response_format", "type", 32, &type, err);
    if (rc == 0 && strcmp(type, "text") != 0)
        return phx_fail(err, PHX_E_UNSUPPORTED,
                        "response_format: only {\"type\":\"text\"} is served, since nothing else could "
                        "be guaranteed");
    return rc != 0 ? rc : phx_json_check_keys(format, "response_format", keys, err);
}

static int parse_effort(const json_t *body, struct phx_chat *chat, struct phx_err *err)
{
    const char *effort = NULL;
    int         rc = phx_json_opt_str(body, "", "reasoning_effort", 16, &effort, err);

    if (rc != 0 || effort == NULL)
        return rc;
    if (strcmp(effort, "low") == 0)
        chat->effort = PHX_EFFORT_LOW;
    else if (strcmp(effort, "medium") == 0)
        chat->effort = PHX_EFFORT_MEDIUM;
    else if (strcmp(effort, "high") == 0)
        chat->effort = PHX_EFFORT_HIGH;
    else
        return phx_fail(err, PHX_E_INVALID, "reasoning_effort: must be low, medium or high");
    return 0;
}

static int parse_prompt_ids(const json_t *prompt, const struct phx_api_limits *limits,
                            struct phx_arena *arena, struct phx_api_request *out,
                            struct phx_err *err)
{
    size_t   n = json_array_size(prompt);
    int32_t *ids;

    if (n == 0 || n > (size_t)limits->max_context)
        return phx_fail(err, PHX_E_INVALID, "prompt: %zu token ids; 1 to %d are served", n,
                        limits->max_context);
    ids = phx_arena_calloc(arena, n, sizeof(*ids));
    for (size_t i = 0; i < n; i++) {
        const json_t *id = json_array_get(prompt, i);

        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= limits->vocab_size)
            return phx_fail(err, PHX_E_INVALID, "prompt[%zu]: not a token id below %d", i,
                            limits->vocab_size);
        ids[i] = (int32_t)json_integer_value(id);
    }
    out->prompt_ids = ids;
    out->n_prompt_ids = n;
    return 0;
}

static int parse_prompt(const json_t *body, const struct phx_api_limits *limits,
                        struct phx_arena *arena, struct phx_api_request *out, struct phx_err *err)
{
    const json_t *prompt = json_object_get(body, "prompt");

    if (json_is_array(prompt) && json_array_size(prompt) == 1 &&
        !json_is_integer(json_array_get(prompt, 0)))
        prompt = json_array_get(prompt, 0); /* a list of one prompt */
    if (json_is_array(prompt) && json_array_size(prompt) > 0 &&
        !json_is_integer(json_array_get(prompt, 0)))
        return phx_fail(err, PHX_E_UNSUPPORTED,
                        "prompt: one prompt per request is served; send several requests");
    if (json_is_array(prompt))
        return parse_prompt_ids(prompt, limits, arena, out, err);
    if (!json_is_string(prompt))
        return phx_fail(err, PHX_E_INVALID, "prompt: must be a string or a list of token ids");
    out->prompt_bytes = json_string_length(prompt);
    out->prompt = phx_arena_strndup(arena, json_string_value(prompt), out->prompt_bytes);
    return 0;
}

static int parse_chat(const json_t *body, struct phx_arena *arena, struct phx_api_request *out,
                      struct phx_err *err)
{
    int rc = phx_api_parse_messages(body, arena, &out->chat, err);

    if (rc == 0)
        rc = phx_api_parse_tools(body, arena, &out->chat, err);
    if (rc == 0)
        rc = parse_effort(body, &out->chat, err);
    if (rc == 0)
        rc = parse_response_format(body, err);
    return rc;
}

static int parse_body(const json_t *body, const struct phx_api_limits *limits,
                      struct phx_arena *arena, struct phx_api_request *out, struct phx_err *err)
{
    bool        is_chat = out->kind == PHX_API_CHAT;
    const char *model = NULL;
    int         rc = phx_json_check_object(body, "", err);

    if (rc == 0)
        rc = phx_json_check_keys(body, "", is_chat ? chat_keys : completion_keys, err);
    if (rc == 0)
        rc = phx_json_get_str(body, "", "model", PHX_API_NAME_MAX, &model, err);
    if (rc != 0)
        return rc;
    out->model = phx_arena_strdup(arena, model);
    rc = phx_api_parse_options(body, limits, arena, out, err);
    if (rc == 0)
        rc = check_defaults(body, out, err);
    if (rc == 0)
        rc = is_chat ? parse_chat(body, arena, out, err)
                     : parse_prompt(body, limits, arena, out, err);
    return rc;
}

static void free_tree(void *tree)
{
    json_decref(tree);
}

int phx_api_request_parse(enum phx_api_kind kind, const char *body, size_t size,
                          const struct phx_api_limits *limits, struct phx_arena *arena,
                          struct phx_api_request *out, struct phx_err *err)
{
    json_t *root = NULL;
    int     rc;

    memset(out, 0, sizeof(*out));
    out->kind = kind;
    rc = phx_json_parse(&root, body, size, limits->body_max_bytes, 0, "request body", err);
    if (rc != 0)
        return rc;
    phx_arena_cleanup(arena, free_tree, root); /* strings are borrowed from the tree */
    return parse_body(root, limits, arena, out, err);
}
