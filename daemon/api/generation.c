/* SPDX-License-Identifier: Apache-2.0
 * One generation: body -> prompt -> admission -> tokens out -> settled (durable) -> last frame.  The engine starts
 * while the transaction that admits is on its way to the disk; what it says waits for that.  A generation lives
 * until its last callback has come, also when its client has left. */
#include <stdio.h>
#include <string.h>

#include "daemon/admission/admission.h"
#include "daemon/api/generation.h"
#include "daemon/config/config.h"
#include "daemon/config/limits.h"
#include "daemon/ledger/ledger.h"
#include "daemon/metrics/metrics.h"
#include "daemon/queue/queue.h"
#include "daemon/tenant/tenant.h"
#include "rpc/base/clock.h"
#include "rpc/base/id.h"
#include "rpc/base/log.h"

static void destroy(struct generation *g)
{
    phx_generation_unmark(g);
    if (g->prev != NULL)
        g->prev->next = g->next;
    else
        g->a->first = g->next;
    if (g->next != NULL)
        g->next->prev = g->prev;
    g->a->n_open--;
    for (int32_t i = 0; g->parts != NULL && i < g->request.n_choices; i++) {
        phx_choice_fini(&g->parts[i].choice);
        phx_ids_fini(&g->parts[i].output);
    }
    phx_mem_free(g->parts);
    phx_ids_fini(&g->prompt);
    phx_arena_destroy(g->arena);
    phx_mem_free(g);
}

static void reply_error(struct generation *g, const struct phx_err *err, int64_t retry_after_ms)
{
    struct phx_http_request *r = g->http;

    if (r == NULL)
        return;
    if (g->is_streaming) {
        phx_generation_fail_stream(g, err);
        return;
    }
    g->http = NULL;
    phx_api_fail(r, err, retry_after_ms);
}

/* ---- the end --------------------------------------------------------------------------------- */

static const char *outcome_of(const struct generation *g)
{
    if (g->failure.code != 0)
        return "error";
    if (g->is_cancelled)
        return "cancelled";
    return g->parts[0].choice.finish != NULL ? g->parts[0].choice.finish : "error";
}

static void observe(struct generation *g)
{
    struct phx_metrics *m = g->a->d->metrics;
    int32_t             reasoning = 0;

    for (int32_t i = 0; i < g->request.n_choices; i++)
        reasoning += g->parts[i].choice.n_reasoning_tokens;
    phx_api_count(g->a, g->who.tenant, outcome_of(g));
    phx_metrics_count(m, "phalanx_tokens_total", "kind=\"prompt\"", (double)g->prompt.n);
    phx_metrics_count(m, "phalanx_tokens_total", "kind=\"cached\"",
                      g->parts[0].choice.cached_tokens);
    phx_metrics_count(m, "phalanx_tokens_total", "kind=\"output\"", (double)g->n_output);
    phx_metrics_count(m, "phalanx_tokens_total", "kind=\"reasoning\"", reasoning);
    if (g->first_ns > 0)
        phx_metrics_observe(m, "phalanx_time_to_first_token_seconds", "",
                            (double)(g->first_ns - g->began_ns) / 1e9);
    phx_metrics_observe(m, "phalanx_settlement_seconds", "", (double)(phx_clock_mono_ns() - g->ended_ns) / 1e9);
}

/* The record is durable (or cannot be made so): the last frame goes out. */
static void on_settled(void *ctx, const struct phx_err *err)
{
    struct generation *g = ctx;

    observe(g);
    if (err != NULL)
        reply_error(g, err, -1);
    else if (g->failure.code != 0)
        reply_error(g, &g->failure, g->retry_after_ms);
    else if (g->http != NULL && g->is_streaming)
        phx_generation_finish_stream(g);
    else if (g->http != NULL)
        phx_generation_finish_whole(g);
    destroy(g);
}

static void settle(struct generation *g)
{
    int64_t               now = phx_clock_mono_ns();
    struct phx_choice_ids choices[PHX_CHOICES_MAX];
    struct phx_outcome    outcome = {
        .finish = outcome_of(g),
        .choices = choices,
        .n_choices = g->request.n_choices,
        .n_cached = g->parts[0].choice.cached_tokens,
        .queue_ms = (g->admitted_ns - g->began_ns) / 1000000,
        .first_token_ms = g->first_ns > 0 ? (g->first_ns - g->began_ns) / 1000000 : 0,
        .total_ms = (now - g->began_ns) / 1000000,
    };

    g->is_settling = true;
    g->ended_ns = now;
    for (int32_t i = 0; i < g->request.n_choices; i++) {
        outcome.n_reasoning += g->parts[i].choice.n_reasoning_tokens;
        choices[i] = (struct phx_choice_ids){g->parts[i].output.data, (int32_t)g->parts[i].output.n};
    }
    phx_lease_end(g->lease, &outcome, on_settled, g);
}

static void cancel_parts(struct generation *g)
{
    for (int32_t i = 0; g->parts != NULL && i < g->request.n_choices; i++)
        if (g->parts[i].seq != NULL) {
            struct phx_engine_seq *seq = g->parts[i].seq;

            g->parts[i].seq = NULL; /* on_end follows */
            phx_engine_cancel(seq);
        }
}

static void on_gone(void *ctx)
{
    struct generation *g = ctx;

    g->http = NULL;
    g->is_cancelled = true;
    if (!g->is_settling)
        cancel_parts(g);
}

/* ---- tokens ---------------------------------------------------------------------------------- */

static void on_token(void *ctx, const struct phx_token_out *token)
{
    struct part       *p = ctx;
    struct generation *g = p->g;
    int64_t            now = phx_clock_mono_ns();

    if (token->token < 0 || g->is_refused)
        return;
    if (g->first_ns == 0)
        g->first_ns = now;
    else
        phx_series_observe(g->a->inter_token, (double)(now - g->last_ns) / 1e9);
    g->last_ns = now;
    phx_ids_put(&p->output, token->token);
    g->n_output++;
    if (g->lease != NULL)
        phx_lease_progress(g->lease, g->n_output, 0);
    if (phx_choice_push(&p->choice, token) && p->seq != NULL) {
        struct phx_engine_seq *seq = p->seq;

        p->seq = NULL;
        phx_engine_cancel(seq); /* a stop string: what follows is not wanted */
    }
    phx_generation_mark(g);
}

static void fail(struct generation *g, const struct phx_err *err, int64_t retry_after_ms)
{
    g->failure = *err;
    g->retry_after_ms = retry_after_ms;
    cancel_parts(g);
}

static void on_end(void *ctx, enum phx_finish finish, const struct phx_err *err)
{
    struct part       *p = ctx;
    struct generation *g = p->g;

    p->seq = NULL;
    p->is_open = false;
    phx_choice_end(&p->choice, finish);
    if (finish == PHX_FINISH_ERROR && g->failure.code == 0) {
        if (err != NULL)
            fail(g, err, phx_err_is_retryable(err->code) ? 1000 : -1);
        else {
            struct phx_err unknown = {0};

            (void)phx_fail(&unknown, PHX_E_INTERNAL, "the engine failed"); /* recorded */
            fail(g, &unknown, -1);
        }
    }
    phx_generation_mark(g);
    if (--g->n_open > 0)
        return;
    if (g->is_refused)
        destroy(g);
    else if (g->lease != NULL)
        settle(g);
}

static int submit_parts(struct generation *g, struct phx_err *err)
{
    static const struct phx_engine_callbacks callbacks = {on_token, on_end};
    int                                      rc = 0;

    for (int32_t i = 0; i < g->request.n_choices && rc == 0; i++) {
        struct part              *p = &g->parts[i];
        struct phx_sampling       sampling = g->sampling;
        struct phx_engine_request request = {
            .tenant = g->who.tenant,
            .tokens = g->prompt.data,
            .n_tokens = (int32_t)g->prompt.n,
            .max_new = g->request.max_new,
            .sampling = &sampling,
        };

        sampling.seed += (uint64_t)i; /* choices differ, and each can be repeated */
        rc = phx_engine_submit(g->a->d->engine, &request, &callbacks, p, &p->seq, err);
        if (rc == 0) {
            p->is_open = true;
            g->n_open++;
        }
    }
    return rc;
}

/* Admission may still refuse: nothing of this is seen before it has not. */
static void start_engine(struct generation *g)
{
    struct phx_engine_facts facts;
    struct phx_err          err = {0};
    int                     rc = submit_parts(g, &err);

    if (rc == 0)
        return;
    phx_engine_facts(g->a->d->engine, &facts);
    fail(g, &err, phx_err_is_retryable(rc) ? facts.retry_after_ms : -1);
}

/* ---- the beginning --------------------------------------------------------------------------- */

static void refuse(struct generation *g, const struct phx_refusal *refusal)
{
    struct phx_err err = {0};

    (void)phx_fail(&err, refusal->code, "%s (rule %s)", refusal->text, refusal->rule); /* told */
    if (g->http != NULL) {
        phx_http_set_header(g->http, "x-phalanx-rule", refusal->rule);
        if (refusal->receipt[0] != '\0')
            phx_http_set_header(g->http, "x-phalanx-receipt", refusal->receipt);
    }
    reply_error(g, &err, refusal->retry_after_ms);
    phx_api_count(g->a, g->who.tenant, "refused");
    g->is_refused = true;
    cancel_parts(g);
    if (g->n_open == 0)
        destroy(g);
}

/* What admission cost: how long the first token had to wait for it. */
static void observe_admission(struct generation *g)
{
    struct phx_metrics *m = g->a->d->metrics;

    g->admitted_ns = phx_clock_mono_ns();
    phx_metrics_observe(m, "phalanx_admission_seconds", "", (double)(g->admitted_ns - g->asked_ns) / 1e9);
    phx_metrics_observe(m, "phalanx_admission_wait_seconds", "",
                        g->first_ns > 0 ? (double)(g->admitted_ns - g->first_ns) / 1e9 : 0.0);
    if (g->first_ns > 0)
        g->first_ns = g->last_ns = g->admitted_ns; /* nobody has seen it before */
}

static void on_admitted(void *ctx, struct phx_lease *lease, const struct phx_refusal *refusal)
{
    struct generation *g = ctx;

    observe_admission(g);
    if (refusal != NULL) {
        refuse(g, refusal);
        return;
    }
    g->lease = lease;
    if (g->n_output > 0)
        phx_lease_progress(lease, g->n_output, 0);
    if (g->http != NULL)
        phx_http_set_header(g->http, "x-phalanx-receipt", phx_lease_receipt(lease));
    if (g->http != NULL && g->request.is_stream && g->failure.code == 0)
        phx_generation_begin_stream(g);
    if (g->n_open == 0)
        settle(g);
}

/* The model's own stop ids and the caller's; a seed even when none was given, so that any answer can be
 * drawn again. */
static void resolve_sampling(struct generation *g)
{
    size_t         n;
    const int32_t *own = phx_text_stop_ids(g->a->d->text, &n);
    int32_t       *all = phx_arena_calloc(g->arena, PHX_STOP_IDS_MAX, sizeof(*all));

    g->sampling = g->request.sampling;
    n = n < PHX_STOP_IDS_MAX / 2 ? n : PHX_STOP_IDS_MAX / 2;
    memcpy(all, own, n * sizeof(*all));
    if (g->sampling.n_stop_ids > 0)
        memcpy(all + n, g->sampling.stop_ids, (size_t)g->sampling.n_stop_ids * sizeof(*all));
    g->sampling.stop_ids = all;
    g->sampling.n_stop_ids += (int32_t)n;
    if (!g->request.has_seed)
        g->sampling.seed = phx_id_random_u64();
}

static int check_headers(const struct generation *g, struct phx_err *err)
{
    const char *key = phx_http_header(g->http, "Idempotency-Key");
    const char *purpose = phx_http_header(g->http, "x-phalanx-purpose");

    if (key != NULL && (key[0] == '\0' || strlen(key) > PHX_IDEM_KEY_MAX))
        return phx_fail(err, PHX_E_INVALID, "Idempotency-Key: must have 1 to %d bytes", PHX_IDEM_KEY_MAX);
    return purpose == NULL ? 0 : phx_purpose_check(purpose, err);
}

static int parse(struct generation *g, const struct phx_engine_facts *facts, struct phx_err *err)
{
    const struct phx_api_limits limits = {g->a->body_max_bytes, facts->vocab_size,
                                          facts->max_context};
    const char                 *body = phx_http_body(g->http, &g->n_body);
    int rc = phx_api_request_parse(g->request.kind, body, g->n_body, &limits, g->arena, &g->request, err);

    if (rc != 0)
        return rc;
    if (strcmp(g->request.model, g->a->d->model_name) != 0)
        return phx_fail(err, PHX_E_NOTFOUND, "model: '%.100s' is not served here; '%.100s' is",
                        g->request.model, g->a->d->model_name);
    return check_headers(g, err);
}

static int open_choices(struct generation *g, struct phx_err *err)
{
    int rc = 0;

    g->parts = phx_mem_calloc((size_t)g->request.n_choices, sizeof(*g->parts));
    for (int32_t i = 0; i < g->request.n_choices && rc == 0; i++) {
        g->parts[i].g = g;
        rc = phx_choice_init(&g->parts[i].choice, i, g->a->d->text, &g->request, err);
    }
    return rc;
}

static void admit(struct generation *g)
{
    const struct phx_admission_facts facts = {
        .identity = &g->who,
        .request_id = phx_http_id(g->http),
        .endpoint = g->request.kind == PHX_API_CHAT ? "chat.completions" : "completions",
        .end_user = g->request.user,
        .purpose = phx_http_header(g->http, "x-phalanx-purpose"),
        .idempotency_key = phx_http_header(g->http, "Idempotency-Key"),
        .prompt = g->prompt.data,
        .n_prompt = (int32_t)g->prompt.n,
        .max_new = g->request.max_new,
        .n_choices = g->request.n_choices,
        .sampling = &g->sampling,
    };

    g->asked_ns = phx_clock_mono_ns();
    if (phx_admission_begin(g->a->d->admission, &facts, on_admitted, g))
        start_engine(g);
}

/* Refused before admission saw it. */
static void give_up(struct generation *g, const struct phx_err *err)
{
    reply_error(g, err, phx_err_is_retryable(err->code) ? 1000 : -1);
    phx_api_count(g->a, g->who.tenant, g->is_cancelled ? "cancelled" : "refused");
    destroy(g);
}

static void on_prompt(struct generation *g, struct phx_err *err)
{
    struct phx_engine_facts facts;

    if (err->code == 0 && g->http != NULL && g->is_cancelled)
        (void)phx_fail(err, PHX_E_BUSY, "the server is shutting down"); /* told */
    phx_engine_facts(g->a->d->engine, &facts);
    if (g->http == NULL || err->code != 0 || phx_api_check_length(g, facts.max_context, err) != 0) {
        give_up(g, err);
        return;
    }
    resolve_sampling(g);
    if (open_choices(g, err) != 0)
        give_up(g, err);
    else
        admit(g);
}

static struct generation *create(struct phx_api *a, struct phx_http_request *r, enum phx_api_kind kind,
                                 const struct phx_identity *who)
{
    struct generation *g = phx_mem_calloc(1, sizeof(*g));
    char               random[33];

    g->a = a;
    g->http = r;
    g->who = *who;
    g->arena = phx_arena_create();
    g->request.kind = kind;
    g->began_ns = phx_clock_mono_ns();
    g->created_s = phx_clock_wall_ns() / 1000000000;
    phx_id_hex(random, sizeof(random), 12);
    (void)snprintf(g->id, sizeof(g->id), "%s-%s", kind == PHX_API_CHAT ? "chatcmpl" : "cmpl", random);
    g->next = a->first;
    if (a->first != NULL)
        a->first->prev = g;
    a->first = g;
    a->n_open++;
    return g;
}

void phx_api_generate(struct phx_api *a, struct phx_http_request *r, enum phx_api_kind kind,
                      const struct phx_identity *who)
{
    struct generation      *g = create(a, r, kind, who);
    struct phx_engine_facts facts;
    struct phx_err          err = {0};
    int                     rc = 0;

    phx_engine_facts(a->d->engine, &facts);
    if (a->is_draining || facts.max_context == 0)
        rc = phx_fail(&err, PHX_E_BUSY, a->is_draining ? "the server is shutting down"
                                                       : "no replica is ready yet; try again");
    if (rc == 0)
        rc = parse(g, &facts, &err);
    if (rc != 0) {
        give_up(g, &err);
        return;
    }
    phx_http_on_gone(g->http, on_gone, g);
    phx_api_render(g, on_prompt);
}

void phx_api_cancel_all(struct phx_api *a)
{
    for (struct generation *g = a->first, *next; g != NULL; g = next) {
        next = g->next;
        g->is_cancelled = true;
        if (!g->is_settling)
            cancel_parts(g);
    }
}
