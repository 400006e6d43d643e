/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/replay/recorded.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/store/store.h"
#include "rpc/base/hash.h"
#include "rpc/base/json.h"

enum { TOKENS_MAX = PHX_RPC_TOKENS_MAX, CHOICES_MAX = 128 };

/* ---- kept JSON ------------------------------------------------------------------------------------------ */

static int read_ids(const json_t *list, const char *name, struct phx_arena *arena, int32_t **out, int32_t *n,
                    struct phx_err *err)
{
    size_t count = json_array_size(list);

    if (!json_is_array(list) || count > TOKENS_MAX)
        return phx_fail(err, PHX_E_FORMAT, "kept %s: not a list of at most %d tokens", name, TOKENS_MAX);
    *out = phx_arena_calloc(arena, count + 1, sizeof(**out));
    *n = (int32_t)count;
    for (size_t i = 0; i < count; i++) {
        const json_t *v = json_array_get(list, i);
        json_int_t    id = json_integer_value(v);

        if (!json_is_integer(v) || id < 0 || id > INT32_MAX)
            return phx_fail(err, PHX_E_FORMAT, "kept %s[%zu]: not a token id", name, i);
        (*out)[i] = (int32_t)id;
    }
    return 0;
}

static int read_float(const json_t *object, const char *key, float *out, struct phx_err *err)
{
    int64_t  number = 0;
    int      rc = phx_json_get_int(object, "sampling", key, 0, UINT32_MAX, &number, err);
    uint32_t bits = (uint32_t)number;

    memcpy(out, &bits, sizeof(bits));
    return rc;
}

static int read_bias(const json_t *list, struct phx_arena *arena, struct phx_sampling *s, struct phx_err *err)
{
    size_t           n = json_array_size(list);
    struct phx_bias *bias = phx_arena_calloc(arena, n + 1, sizeof(*bias));

    if (n > PHX_BIAS_MAX)
        return phx_fail(err, PHX_E_FORMAT, "kept sampling.bias: more than %d", PHX_BIAS_MAX);
    for (size_t i = 0; i < n; i++) {
        const json_t *pair = json_array_get(list, i);
        uint32_t      bits = (uint32_t)json_integer_value(json_array_get(pair, 1));

        bias[i].token = (int32_t)json_integer_value(json_array_get(pair, 0));
        memcpy(&bias[i].bias, &bits, sizeof(bits));
    }
    s->bias = bias;
    s->n_bias = (int32_t)n;
    return 0;
}

static int read_sampling(const json_t *object, struct phx_arena *arena, struct phx_sampling *s,
                         struct phx_err *err)
{
    const json_t *bias = NULL;
    const char   *seed = "";
    int64_t       ignore_eos = 0, top_k = 0;
    int32_t      *stop_ids = NULL;
    int           rc;

    phx_sampling_init(s);
    rc = phx_json_get_array(object, "sampling", "bias", PHX_BIAS_MAX, &bias, err);
    if (rc == 0)
        rc = read_bias(bias, arena, s, err);
    if (rc == 0)
        rc = read_float(object, "frequency_penalty", &s->frequency_penalty, err);
    if (rc == 0)
        rc = phx_json_get_int(object, "sampling", "ignore_eos", 0, 1, &ignore_eos, err);
    if (rc == 0)
        rc = read_float(object, "min_p", &s->min_p, err);
    if (rc == 0)
        rc = read_float(object, "presence_penalty", &s->presence_penalty, err);
    if (rc == 0)
        rc = read_float(object, "repetition_penalty", &s->repetition_penalty, err);
    if (rc == 0)
        rc = phx_json_get_str(object, "sampling", "seed", 20, &seed, err);
    if (rc == 0)
        rc = read_ids(json_object_get(object, "stop_ids"), "sampling.stop_ids", arena, &stop_ids,
                      &s->n_stop_ids, err);
    if (rc == 0)
        rc = read_float(object, "temperature", &s->temperature, err);
    if (rc == 0)
        rc = phx_json_get_int(object, "sampling", "top_k", 0, INT32_MAX, &top_k, err);
    if (rc == 0)
        rc = read_float(object, "top_p", &s->top_p, err);
    s->stop_ids = stop_ids;
    s->ignore_eos = ignore_eos == 1;
    s->top_k = (int32_t)top_k;
    s->seed = strtoull(seed, NULL, 10);
    return rc == 0 ? phx_sampling_check(s, err) : rc;
}

static int read_choices(const json_t *list, struct phx_arena *arena, struct phx_recorded *out,
                        struct phx_err *err)
{
    size_t n = json_array_size(list);
    int    rc = 0;

    out->choices = phx_arena_calloc(arena, n + 1, sizeof(*out->choices));
    out->n_choices = (int32_t)n;
    for (size_t i = 0; i < n && rc == 0; i++)
        rc = read_ids(json_array_get(list, i), "choices", arena, &out->choices[i].ids, &out->choices[i].n, err);
    return rc;
}

int phx_recorded_parse(const char *request, size_t request_size, const char *response, size_t response_size,
                       struct phx_arena *arena, struct phx_recorded *out, struct phx_err *err)
{
    json_t       *asked = NULL, *answered = NULL;
    const json_t *sampling = NULL, *choices = NULL;
    int rc = phx_json_parse(&asked, request, request_size, PHX_CONTENT_MAX_BYTES, 0, "kept request", err);

    if (rc == 0)
        rc = phx_json_parse(&answered, response, response_size, PHX_CONTENT_MAX_BYTES, 0, "kept answer", err);
    if (rc == 0)
        rc = read_ids(json_object_get(asked, "prompt"), "prompt", arena, &out->prompt, &out->n_prompt, err);
    if (rc == 0)
        rc = phx_json_get_object(asked, "", "sampling", &sampling, err);
    if (rc == 0)
        rc = read_sampling(sampling, arena, &out->sampling, err);
    if (rc == 0)
        rc = phx_json_get_array(answered, "", "choices", CHOICES_MAX, &choices, err);
    if (rc == 0)
        rc = read_choices(choices, arena, out, err);
    json_decref(asked);
    json_decref(answered);
    return rc;
}

/* ---- leaves ------------------------------------------------------------------------------------------------ */

struct leaves {
    struct phx_recorded *out;
    bool                 has_intent, has_result;
};

static void copy(char *to, size_t size, const json_t *object, const char *key)
{
    const char *text = json_string_value(json_object_get(object, key));

    (void)snprintf(to, size, "%s", text != NULL ? text : "");
}

static int read_leaf(void *ctx, const struct phx_value *c, int n_columns)
{
    struct leaves *l = ctx;
    json_t        *record = NULL;

    (void)n_columns;
    if (phx_json_parse(&record, c[1].data, c[1].size, 1 << 20, 0, "record", NULL) != 0)
        return PHX_E_FORMAT;
    if (strcmp(c[0].data, "intent") == 0) {
        const json_t *model = json_object_get(record, "model");

        l->has_intent = true;
        copy(l->out->tenant, sizeof(l->out->tenant), json_object_get(record, "who"), "tenant");
        copy(l->out->model_name, sizeof(l->out->model_name), model, "name");
        copy(l->out->manifest_root, sizeof(l->out->manifest_root), model, "manifest_root");
    } else if (strcmp(c[0].data, "result") == 0) {
        l->has_result = true;
        copy(l->out->replay_class, sizeof(l->out->replay_class), json_object_get(record, "out"), "replay_class");
    }
    json_decref(record);
    return 0;
}

static int read_leaves(struct phx_tx *tx, const char *receipt, struct phx_recorded *out, struct phx_err *err)
{
    const struct phx_value value = phx_value_text(receipt);
    struct leaves          l = {.out = out};
    int rc = phx_tx_exec(tx, "SELECT kind, record FROM audit WHERE receipt = ?", &value, 1, read_leaf, &l, err);

    if (rc == 0 && !l.has_intent)
        rc = phx_fail(err, PHX_E_NOTFOUND, "receipt %.40s is not in the log", receipt);
    else if (rc == 0 && !l.has_result)
        rc = phx_fail(err, PHX_E_STATE, "the request of receipt %.40s has not ended", receipt);
    return rc;
}

int phx_recorded_read(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES], const char *receipt,
                      const char *by, int64_t at_ns, struct phx_arena *arena, struct phx_recorded *out,
                      struct phx_err *err)
{
    struct phx_content_text text = {0};
    int                     rc = read_leaves(tx, receipt, out, err);

    if (rc != 0)
        return rc;
    rc = phx_content_read(tx, site_key, receipt, by, "replay", at_ns, &text, err);
    if (rc == 0 && (!text.has_text || text.response.size == 0))
        rc = phx_fail(err, PHX_E_STATE,
                      "receipt %.40s: nothing was kept to replay; the tenant's privacy must be encrypted or clear",
                      receipt);
    if (rc == 0)
        rc = phx_recorded_parse(text.request.data, text.request.size, text.response.data, text.response.size,
                                arena, out, err);
    if (text.request.data != NULL)
        phx_secret_wipe(text.request.data, text.request.size);
    if (text.response.data != NULL)
        phx_secret_wipe(text.response.data, text.response.size);
    phx_buf_fini(&text.request);
    phx_buf_fini(&text.response);
    return rc;
}

void phx_recorded_wipe(struct phx_recorded *r)
{
    if (r->prompt != NULL)
        phx_secret_wipe(r->prompt, (size_t)r->n_prompt * sizeof(*r->prompt));
    for (int32_t i = 0; i < r->n_choices; i++)
        phx_secret_wipe(r->choices[i].ids, (size_t)r->choices[i].n * sizeof(*r->choices[i].ids));
}
