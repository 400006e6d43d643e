/* SPDX-License-Identifier: Apache-2.0
 * `phalanx-rank --script FILE`: the engine without a daemon.  JSON lines of requests in:
 *   {"id":1,"tokens":[..],"max_new":8,"temperature":0,"seed":7,"logprobs":2,"ignore_eos":true,
 *    "stop_ids":[2],"after":3,"priority":0}
 * ("after": submitted when that many steps have run; "cancel_after": cancelled then), JSON lines of tokens
 * out. */
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

static const char *const keys[] = {"id", "tokens", "n_prompt", "max_new", "temperature", "top_p",
                                   "top_k", "min_p", "repetition_penalty", "seed", "logprobs",
                                   "ignore_eos", "stop_ids", "after", "cancel_after", "priority",
                                   "salt", NULL};

static int get_ids(const json_t *line, const char *key, struct phx_arena *arena, const int32_t **out,
                   int32_t *n, struct phx_err *err)
{
    const json_t *list = NULL;
    int32_t      *ids;
    int rc = phx_json_opt_array(line, "", key, PHX_RPC_TOKENS_MAX, &list, err);

    if (rc != 0 || list == NULL)
        return rc;
    ids = phx_arena_calloc(arena, json_array_size(list) + 1, sizeof(*ids));
    for (size_t i = 0; i < json_array_size(list); i++)
        ids[i] = (int32_t)json_integer_value(json_array_get(list, i));
    *out = ids;
    *n = (int32_t)json_array_size(list);
    return 0;
}

static int get_reals(const json_t *line, struct phx_sampling *s, struct phx_err *err)
{
    double temperature = 0, top_p = 1, min_p = 0, repetition = 1;
    int    rc = phx_json_opt_real(line, "", "temperature", 0, 100, &temperature, err);

    if (rc == 0)
        rc = phx_json_opt_real(line, "", "top_p", 0, 1, &top_p, err);
    if (rc == 0)
        rc = phx_json_opt_real(line, "", "min_p", 0, 1, &min_p, err);
    if (rc == 0)
        rc = phx_json_opt_real(line, "", "repetition_penalty", 0, 10, &repetition, err);
    s->temperature = (float)temperature;
    s->top_p = (float)top_p;
    s->min_p = (float)min_p;
    s->repetition_penalty = (float)repetition;
    return rc;
}

static int parse_request(const json_t *line, struct script *t, struct request *r, struct phx_err *err)
{
    int64_t     id = 0, max_new = 16, seed = 0, top_k = 0, logprobs = -1, priority = 0, n_prompt = 0;
    const char *salt = "";
    int         rc = phx_json_check_object(line, "", err);

    memset(r, 0, sizeof(*r));
    r->cancel_after = -1;
    phx_sampling_init(&r->submit.sampling);
    if (rc == 0)
        rc = phx_json_check_keys(line, "", keys, err);
    if (rc == 0)
        rc = phx_json_get_int(line, "", "id", 1, INT64_MAX, &id, err);
    if (rc == 0)
        rc = get_ids(line, "tokens", t->arena, &r->submit.tokens, &r->submit.n_tokens, err);
    n_prompt = r->submit.n_tokens;
    if (rc == 0)
        rc = phx_json_opt_int(line, "", "n_prompt", 1, INT32_MAX, &n_prompt, err);
    if (rc == 0)
        rc = phx_json_opt_int(line, "", "max_new", 1, INT32_MAX, &max_new, err);
    if (rc == 0)
        rc = phx_json_opt_int(line, "", "seed", 0, INT64_MAX, &seed, err);
    if (rc == 0)
        rc = phx_json_opt_int(line, "", "top_k", 0, INT32_MAX, &top_k, err);
    if (rc == 0)
        rc = phx_json_opt_int(line, "", "logprobs", -1, PHX_TOP_LOGPROBS_MAX, &logprobs, err);
    if (rc == 0)
        rc = phx_json_opt_int(line, "", "priority", -1000, 1000, &priority, err);
    if (rc == 0)
        rc = phx_json_opt_int(line, "", "after", 0, INT64_MAX, &r->after, err);
    if (rc == 0)
        rc = phx_json_opt_int(line, "", "cancel_after", 0, INT64_MAX, &r->cancel_after, err);
    if (rc == 0)
        rc = phx_json_opt_bool(line, "", "ignore_eos", &r->submit.sampling.ignore_eos, err);
    if (rc == 0)
        rc = phx_json_opt_str(line, "", "salt", PHX_CACHE_SALT_BYTES, &salt, err);
    if (rc == 0)
        rc = get_ids(line, "stop_ids", t->arena, &r->submit.sampling.stop_ids,
                     &r->submit.sampling.n_stop_ids, err);
    if (rc == 0)
        rc = get_reals(line, &r->submit.sampling, err);
    r->submit.seq_id = (uint64_t)id;
    r->submit.n_prompt = (int32_t)n_prompt;
    r->submit.max_new = (int32_t)max_new;
    r->submit.priority = (int32_t)priority;
    r->submit.sampling.seed = (uint64_t)seed;
    r->submit.sampling.top_k = (int32_t)top_k;
    r->submit.sampling.n_logprobs = (int32_t)logprobs;
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
        if (rc == 0)
            rc = phx_json_parse(&root, line, strlen(line), SCRIPT_MAX_BYTES, 0, "request", err);
        if (rc == 0)
            rc = parse_request(root, t, &t->requests[t->n_requests++], err);
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
    fputs(",\"top\":[", stdout);
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

static int run_script(struct phx_step *s, struct script *t, struct phx_err *err)
{
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
        step++;
    }
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
