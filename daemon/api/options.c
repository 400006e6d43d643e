/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/api/request.h"

struct real_option {
    const char *key;
    double      min, max;
    size_t      offset; /* of a float in struct phx_sampling */
};

static const struct real_option real_options[] = {
    {"temperature", 0, 2, offsetof(struct phx_sampling, temperature)},
    {"top_p", 1e-6, 1, offsetof(struct phx_sampling, top_p)},
    {"min_p", 0, 1, offsetof(struct phx_sampling, min_p)},
    {"presence_penalty", -2, 2, offsetof(struct phx_sampling, presence_penalty)},
    {"frequency_penalty", -2, 2, offsetof(struct phx_sampling, frequency_penalty)},
    {"repetition_penalty", 1e-3, 10, offsetof(struct phx_sampling, repetition_penalty)},
};

static int parse_reals(const json_t *body, struct phx_sampling *s, struct phx_err *err)
{
    for (size_t i = 0; i < sizeof(real_options) / sizeof(real_options[0]); i++) {
        const struct real_option *o = &real_options[i];
        float                    *field = (float *)(void *)((char *)s + o->offset);
        double                    value = (double)*field;
        int rc = phx_json_opt_real(body, "", o->key, o->min, o->max, &value, err);

        if (rc != 0)
            return rc;
        *field = (float)value;
    }
    return 0;
}

static int parse_bias(const json_t *body, const struct phx_api_limits *limits,
                      struct phx_arena *arena, struct phx_sampling *s, struct phx_err *err)
{
    const json_t    *map = NULL;
    struct phx_bias *bias;
    const char      *key;
    json_t          *value;
    int              rc = phx_json_opt_object(body, "", "logit_bias", &map, err);

    if (rc != 0 || map == NULL)
        return rc;
    if (json_object_size(map) > PHX_BIAS_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "logit_bias: more than %d entries", PHX_BIAS_MAX);
    bias = phx_arena_calloc(arena, json_object_size(map), sizeof(*bias));
    json_object_foreach((json_t *)map, key, value)
    {
        char   *end;
        long    id;
        double  number = json_number_value(value);

        errno = 0;
        id = strtol(key, &end, 10);
        if (key[0] < '0' || key[0] > '9' || *end != '\0' || errno != 0 || id >= limits->vocab_size)
            return phx_fail(err, PHX_E_INVALID, "logit_bias: '%.20s' is not a token id below %d",
                            key, limits->vocab_size);
        if (!json_is_number(value) || !(number >= -100 && number <= 100))
            return phx_fail(err, PHX_E_INVALID,
                            "logit_bias: the value of %ld must be between -100 and 100", id);
        bias[s->n_bias++] = (struct phx_bias){(int32_t)id, (float)number};
    }
    s->bias = bias;
    return 0;
}

static int parse_stops(const json_t *body, struct phx_arena *arena, struct phx_api_request *out,
                       struct phx_err *err)
{
    const json_t *stop = json_object_get(body, "stop");
    const char  **stops;
    size_t        n;

    if (stop == NULL || json_is_null(stop))
        return 0;
    if (!json_is_string(stop) && !json_is_array(stop))
        return phx_fail(err, PHX_E_INVALID, "stop: must be a string or a list of strings");
    n = json_is_string(stop) ? 1 : json_array_size(stop);
    if (n > PHX_STOP_STRINGS_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "stop: %zu strings; at most %d are served", n,
                        PHX_STOP_STRINGS_MAX);
    stops = phx_arena_calloc(arena, n > 0 ? n : 1, sizeof(*stops));
    for (size_t i = 0; i < n; i++) {
        const json_t *item = json_is_string(stop) ? stop : json_array_get(stop, i);
        size_t        size = json_string_length(item);

        if (!json_is_string(item) || size == 0 || size > PHX_STOP_STRING_BYTES_MAX)
            return phx_fail(err, PHX_E_INVALID, "stop[%zu]: must be a string of 1 to %d bytes", i,
                            PHX_STOP_STRING_BYTES_MAX);
        stops[i] = json_string_value(item);
    }
    out->stops = stops;
    out->n_stops = n;
    return 0;
}

static int parse_stop_ids(const json_t *body, const struct phx_api_limits *limits,
                          struct phx_arena *arena, struct phx_sampling *s, struct phx_err *err)
{
    const json_t *list = NULL;
    int32_t      *ids;
    int rc = phx_json_opt_array(body, "", "stop_token_ids", PHX_STOP_IDS_MAX / 2, &list, err);

    if (rc != 0 || list == NULL)
        return rc;
    ids = phx_arena_calloc(arena, json_array_size(list) + 1, sizeof(*ids));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *id = json_array_get(list, i);

        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= limits->vocab_size)
            return phx_fail(err, PHX_E_INVALID, "stop_token_ids[%zu]: not a token id below %d", i,
                            limits->vocab_size);
        ids[i] = (int32_t)json_integer_value(id);
    }
    s->stop_ids = ids;
    s->n_stop_ids = (int32_t)json_array_size(list);
    return 0;
}

/* chat: logprobs is a switch and top_logprobs a count; completions: logprobs is the count. */
static int parse_logprobs(const json_t *body, struct phx_api_request *out, struct phx_err *err)
{
    int64_t n_top = 0;
    int     rc;

    if (out->kind == PHX_API_COMPLETION) {
        int64_t n = -1;

        rc = phx_json_opt_int(body, "", "logprobs", 0, PHX_TOP_LOGPROBS_MAX, &n, err);
        out->wants_logprobs = n >= 0;
        out->sampling.n_logprobs = (int32_t)n;
        return rc;
    }
    rc = phx_json_opt_bool(body, "", "logprobs", &out->wants_logprobs, err);
    if (rc == 0)
        rc = phx_json_opt_int(body, "", "top_logprobs", 0, PHX_TOP_LOGPROBS_MAX, &n_top, err);
    if (rc == 0 && n_top > 0 && !out->wants_logprobs)
        rc = phx_fail(err, PHX_E_INVALID, "top_logprobs: needs logprobs to be true");
    out->sampling.n_logprobs = out->wants_logprobs ? (int32_t)n_top : -1;
    return rc;
}

static int parse_stream(const json_t *body, struct phx_api_request *out, struct phx_err *err)
{
    static const char *const keys[] = {"include_usage", NULL};
    const json_t            *options = NULL;
    int                      rc = phx_json_opt_bool(body, "", "stream", &out->is_stream, err);

    if (rc == 0)
        rc = phx_json_opt_object(body, "", "stream_options", &options, err);
    if (rc != 0 || options == NULL)
        return rc;
    if (!out->is_stream)
        return phx_fail(err, PHX_E_INVALID, "stream_options: needs stream to be true");
    rc = phx_json_check_keys(options, "stream_options", keys, err);
    if (rc == 0)
        rc = phx_json_opt_bool(options, "stream_options", "include_usage", &out->has_stream_usage,
                               err);
    return rc;
}

static int parse_counts(const json_t *body, const struct phx_api_limits *limits,
                        struct phx_api_request *out, struct phx_err *err)
{
    int64_t n = 1, old_max = 0, new_max = 0, top_k = 0, seed = 0;
    int     rc = phx_json_opt_int(body, "", "n", 1, PHX_API_CHOICES_MAX, &n, err);

    if (rc == 0)
        rc = phx_json_opt_int(body, "", "max_tokens", 1, limits->max_context, &old_max, err);
    if (rc == 0)
        rc = phx_json_opt_int(body, "", "max_completion_tokens", 1, limits->max_context, &new_max,
                              err);
    if (rc == 0)
        rc = phx_json_opt_int(body, "", "top_k", -1, limits->vocab_size, &top_k, err);
    if (rc == 0)
        rc = phx_json_opt_int(body, "", "seed", INT64_MIN, INT64_MAX, &seed, err);
    if (rc == 0)
        rc = phx_json_opt_bool(body, "", "ignore_eos", &out->sampling.ignore_eos, err);
    if (rc != 0)
        return rc;
    if (old_max > 0 && new_max > 0 && old_max != new_max)
        return phx_fail(err, PHX_E_INVALID,
                        "max_completion_tokens: differs from max_tokens; give one of them");
    out->n_choices = (int32_t)n;
    out->max_new = (int32_t)(new_max > 0 ? new_max : old_max);
    out->sampling.top_k = top_k > 0 ? (int32_t)top_k : 0;
    out->has_seed = json_is_integer(json_object_get(body, "seed"));
    out->sampling.seed = (uint64_t)seed;
    return 0;
}

int phx_api_parse_options(const json_t *body, const struct phx_api_limits *limits,
                          struct phx_arena *arena, struct phx_api_request *out,
                          struct phx_err *err)
{
    int rc;

    phx_sampling_init(&out->sampling);
    rc = parse_counts(body, limits, out, err);
    if (rc == 0)
        rc = parse_reals(body, &out->sampling, err);
    if (rc == 0)
        rc = parse_bias(body, limits, arena, &out->sampling, err);
    if (rc == 0)
        rc = parse_stops(body, arena, out, err);
    if (rc == 0)
        rc = parse_stop_ids(body, limits, arena, &out->sampling, err);
    if (rc == 0)
        rc = parse_logprobs(body, out, err);
    if (rc == 0)
        rc = parse_stream(body, out, err);
    if (rc == 0)
        rc = phx_json_opt_str(body, "", "user", PHX_API_USER_MAX, &out->user, err);
    return rc != 0 ? rc : phx_sampling_check(&out->sampling, err);
}
