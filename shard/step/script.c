/* SPDX-License-Identifier: Apache-2.0
 * `phalanx-rank --script FILE`: the engine without a daemon.  JSON lines of requests in:
 *   {"id":1,"tokens":[..],"max_new":8,"temperature":0,"seed":7,"logprobs":2,"ignore_eos":true,
 *    "stop_ids":[2],"logit_bias":[[5,-100]],"after":3,"priority":0}
 * ("after": submitted when that many steps have run, or when nothing else is left to do; "cancel_after":
 * cancelled then; "check": the last so many tokens are an answer to be checked; temperature 0 unless given),
 * JSON lines of tokens out. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/step/stage.h"

enum { SCRIPT_MAX_BYTES = 64 << 20, REQUESTS_MAX = 4096 };

struct request {
    struct phx_submit submit;
    int64_t           after, cancel_after;
    bool              is_sent;
};

struct script {
    struct phx_arena *arena;
    struct request   *requests; /* [REQUESTS_MAX] */
    int32_t           n_requests;
};

static const char *const keys[] = {
    "id", "tokens", "n_prompt", "max_new", "temperature", "top_p", "top_k", "min_p",
    "repetition_penalty", "presence_penalty", "frequency_penalty", "logit_bias", "seed", "logprobs",
    "ignore_eos", "stop_ids", "after", "cancel_after", "priority", "salt", "check", NULL};

/* A list of ids, whose values the scheduler checks. */
static int get_ids(const json_t *line, const char *key, size_t max, struct phx_arena *arena,
                   const int32_t **out, int32_t *n, struct phx_err *err)
{
    const json_t *list = NULL;
    int32_t      *ids;
    int           rc = phx_json_opt_array(line, "", key, max, &list, err);

    if (rc != 0 || list == NULL)
        return rc;
    ids = phx_arena_calloc(arena, json_array_size(list) + 1, sizeof(*ids));
    for (size_t i = 0; i < json_array_size(list); i++) {
        json_int_t id = json_integer_value(json_array_get(list, i));

        if (!json_is_integer(json_array_get(list, i)) || id < 0 || id > INT32_MAX)
            return phx_fail(err, PHX_E_INVALID, "%s[%zu]: not a token id", key, i);
        ids[i] = (int32_t)id;
    }
    *out = ids;
    *n = (int32_t)json_array_size(list);
    return 0;
}

/* "logit_bias": [[id, bias], ...] */
static int get_bias(const json_t *line, struct phx_arena *arena, struct phx_sampling *s,
                    struct phx_err *err)
{
    const json_t    *list = NULL;
    struct phx_bias *bias;
    int              rc = phx_json_opt_array(line, "", "logit_bias", PHX_BIAS_MAX, &list, err);

    if (rc != 0 || list == NULL)
        return rc;
    bias = phx_arena_calloc(arena, json_array_size(list) + 1, sizeof(*bias));
    for (size_t i = 0; i < json_array_size(list); i++) {
        const json_t *pair = json_array_get(list, i);

        if (json_array_size(pair) != 2 || !json_is_integer(json_array_get(pair, 0)) ||
            !json_is_number(json_array_get(pair, 1)))
            return phx_fail(err, PHX_E_INVALID, "logit_bias[%zu]: not [id, bias]", i);
        bias[i].token = (int32_t)json_integer_value(json_array_get(pair, 0));
        bias[i].bias = (float)json_number_value(json_array_get(pair, 1));
    }
    s->bias = bias;
    s->n_bias = (int32_t)json_array_size(list);
    return 0;
}

/* Ranges are checked by phx_sampling_check() when the request is submitted. */
static int get_reals(const json_t *line, struct phx_sampling *s, struct phx_err *err)
{
    const struct {
        const char *key;
        float      *out;
        double      value;
    } fields[] = {
        {"temperature", &s->temperature, 0},
        {"top_p", &s->top_p, 1},
        {"min_p", &s->min_p, 0},
        {"repetition_penalty", &s->repetition_penalty, 1},
        {"presence_penalty", &s->presence_penalty, 0},
        {"frequency_penalty", &s->frequency_penalty, 0},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        double value = fields[i].value;
        int    rc = phx_json_opt_real(line, "", fields[i].key, -1000, 1000, &value, err);

        if (rc != 0)
            return rc;
        *fields[i].out = (float)value;
    }
    return 0;
}

static int get_integers(const json_t *line, struct request *r, struct phx_err *err)
{
    int64_t id = 0, n_prompt = 0, max_new = 16, priority = 0, top_k = 0,
            seed = 0, logprobs = -1, check = 0;
    const struct {
        const char *key;
        int64_t     min, max;
        int64_t    *out;
    } fields[] = {
        {"id", 1, INT64_MAX, &id},
        {"n_prompt", 1, INT32_MAX, &n_prompt},
        {"max_new", 1, INT32_MAX, &max_new},
        {"priority", -1000, 1000, &priority},
        {"top_k", 0, INT32_MAX, &top_k},
        {"seed", 0, INT64_MAX, &seed},
        {"logprobs", -1, PHX_TOP_LOGPROBS_MAX, &logprobs},
        {"check", 0, INT32_MAX, &check},
        {"after", 0, INT64_MAX, &r->after},
        {"cancel_after", 0, INT64_MAX, &r->cancel_after},
    };

    for (size_t i = 0; i < sizeof(fields) / sizeof(*fields); i++) {
        int rc = phx_json_opt_int(line, "", fields[i].key, fields[i].min, fields[i].max,
                                  fields[i].out, err);

        if (rc != 0)
            return rc;
    }
    r->submit.seq_id = (uint64_t)id;
    r->submit.n_prompt = n_prompt > 0 ? (int32_t)n_prompt : r->submit.n_tokens - (int32_t)check;
    r->submit.max_new = (int32_t)max_new;
    r->submit.priority = (int32_t)priority;
    r->submit.n_check = (int32_t)check;
    r->submit.sampling.seed = (uint64_t)seed;
    r->submit.sampling.top_k = (int32_t)top_k;
    r->submit.sampling.n_logprobs = (int32_t)logprobs;
    return 0;
}

static int parse_request(const json_t *line, struct script *t, struct request *r, struct phx_err *err)
{
    struct phx_sampling *s = &r->submit.sampling;
    const char          *salt = "";
    int                  rc = phx_json_check_object(line, "", err);

    memset(r, 0, sizeof(*r));
    r->cancel_after = -1;
    phx_sampling_init(s);
    if (rc == 0)
        rc = phx_json_check_keys(line, "", keys, err);
    if (rc == 0)
        rc = get_ids(line, "tokens", PHX_RPC_TOKENS_MAX, t->arena, &r->submit.tokens,
                     &r->submit.n_tokens, err);
    if (rc == 0)
        rc = get_ids(line, "stop_ids", PHX_STOP_IDS_MAX, t->arena, &s->stop_ids, &s->n_stop_ids, err);
    if (rc == 0)
        rc = get_bias(line, t->arena, s, err);
    if (rc == 0)
        rc = get_integers(line, r, err);
    if (rc == 0)
        rc = get_reals(line, s, err);
    if (rc == 0)
        rc = phx_json_opt_bool(line, "", "ignore_eos", &s->ignore_eos, err);
    if (rc == 0)
        rc = phx_json_opt_str(line, "", "salt", PHX_CACHE_SALT_BYTES, &salt, err);
    memcpy(r->submit.cache_salt, salt, strlen(salt));
    return rc;
}

static int read_script(const char *path, struct script *t, struct phx_err *err)
{
    struct phx_buf text;
    char          *save = NULL;
    int            rc = phx_buf_read_file(&text, path, SCRIPT_MAX_BYTES, err);

    if (rc != 0)
        return rc;
    t->requests = phx_arena_calloc(t->arena, REQUESTS_MAX, sizeof(*t->requests));
    for (char *line = strtok_r(text.data, "\n", &save); line != NULL && rc == 0;
         line = strtok_r(NULL, "\n", &save)) {
        json_t *root = NULL;

        if (t->n_requests == REQUESTS_MAX)
            rc = phx_fail(err, PHX_E_TOOBIG, "more than %d requests", REQUESTS_MAX);
        else
            rc = phx_json_parse(&root, line, strlen(line), SCRIPT_MAX_BYTES, 0, "request", err);
        if (rc == 0)
            rc = parse_request(root, t, &t->requests[t->n_requests++], err);
        if (rc != 0)
            phx_err_prefix(err, "request %d: ", t->n_requests);
        json_decref(root);
    }
    phx_buf_fini(&text);
    return rc;
}

static void print_token(const struct phx_token_out *t)
{
    printf("{\"id\":%" PRIu64 ",\"token\":%d,\"index\":%d,\"logprob\":%.9g,\"cached\":%d,\"finish\":\"%s\"",
           t->seq_id, t->token, t->index, (double)t->logprob, t->cached_tokens,
           phx_finish_name(t->finish));
    printf(",\"gap\":%.9g,\"top\":[", (double)t->gap);
    for (int32_t i = 0; i < t->n_top; i++)
        printf("%s[%d,%.9g]", i > 0 ? "," : "", t->top[i].token, (double)t->top[i].logprob);
    fputs("]}\n", stdout);
}

/* Sends and cancels what is due; true while something is still to come. */
static bool submit_due(struct script *t, struct phx_head *h, int64_t step, bool is_idle)
{
    bool is_more = false;

    for (int32_t i = 0; i < t->n_requests; i++) {
        struct request *r = &t->requests[i];

        if (!r->is_sent && (r->after <= step || is_idle)) {
            phx_head_submit(h, &r->submit);
            r->is_sent = true;
            is_idle = false;
        }
        if (r->is_sent && r->cancel_after >= 0 && r->cancel_after <= step) {
            phx_head_cancel(h, r->submit.seq_id);
            r->cancel_after = -1;
        }
        is_more = is_more || !r->is_sent;
    }
    return is_more;
}

/* What the scheduler did, for tests of preemption and of the prefix cache, and how long all steps took. */
static void print_total(const struct phx_step_stats *total)
{
    printf("{\"preempted\":%d,\"prefix_hit_tokens\":%" PRIu64 ",\"prefill_rows\":%d,"
           "\"decode_rows\":%d,\"step_us\":%" PRIu32 ",\"drafted\":%d,\"accepted\":%d}\n",
           total->n_preempted, total->prefix_hit_tokens, total->n_prefill_tokens,
           total->n_decode_tokens, total->step_us, total->n_draft_tokens, total->n_accepted_tokens);
}

static void add_stats(struct phx_step_stats *total, const struct phx_step_stats *step)
{
    total->n_preempted += step->n_preempted;
    total->prefix_hit_tokens += step->prefix_hit_tokens;
    total->n_prefill_tokens += step->n_prefill_tokens;
    total->n_decode_tokens += step->n_decode_tokens;
    total->n_draft_tokens += step->n_draft_tokens;
    total->n_accepted_tokens += step->n_accepted_tokens;
    total->step_us += step->step_us;
}

static int run_script(struct phx_step *s, struct script *t, struct phx_err *err)
{
    struct phx_step_stats total = {0};
    struct phx_head *h = NULL;
    int64_t          step = 0;
    int              rc = phx_head_create(s, &h, err);

    while (rc == 0) {
        struct phx_link_step out;
        bool is_more = submit_due(t, h, step, !phx_head_has_work(h));

        if (!is_more && !phx_head_has_work(h))
            break;
        rc = phx_head_run(h, &out, err);
        for (int32_t i = 0; rc == 0 && i < out.n_tokens; i++)
            print_token(&out.tokens[i]);
        if (rc == 0)
            add_stats(&total, &out.stats);
        step++;
    }
    if (rc == 0)
        print_total(&total);
    if (h != NULL)
        phx_head_stop(h);
    phx_head_destroy(h);
    return rc;
}

int phx_step_script(struct phx_step *s, struct phx_err *err)
{
    struct script t = {.arena = phx_arena_create()};
    int           rc = s->rank == 0 ? read_script(s->options->script_file, &t, err) : 0;

    if (rc == 0)
        rc = phx_step_load(s, NULL, NULL, err);
    if (rc == 0)
        rc = s->rank == 0 ? run_script(s, &t, err) : phx_step_follow(s, err);
    phx_arena_destroy(t.arena);
    return rc;
}
