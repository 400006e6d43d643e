/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/replay/replay.h"

#include <stdio.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/daemon.h"
#include "daemon/queue/queue.h"
#include "daemon/replay/recorded.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/hash.h"
#include "rpc/base/mem.h"

struct run;

struct part { /* one choice */
    struct run            *r;
    const struct phx_recorded_choice *recorded;
    struct phx_engine_seq *seq; /* NULL when over */
    int32_t                n_seen, first_difference; /* -1 = none */
    int32_t                n_over;                   /* of those seen; class B */
    double                 max_gap;
};

struct run {
    struct phx_daemon        *d;
    struct phx_arena         *arena;
    struct phx_recorded       recorded;
    struct phx_replay_verdict verdict;
    char                      by[129], as_class[8];
    int64_t                   at_ns;
    struct part              *parts;
    int32_t                   n_open;
    struct phx_err            failure;
    phx_replay_fn             fn;
    void                     *ctx;
};

static void finish(struct run *r, const struct phx_err *err)
{
    r->fn(r->ctx, err == NULL ? &r->verdict : NULL, err);
    phx_recorded_wipe(&r->recorded);
    phx_arena_destroy(r->arena);
    phx_mem_free(r->parts);
    phx_mem_free(r);
}

/* Class B: nothing is generated. */
static bool is_prefill(const struct run *r)
{
    return strcmp(r->verdict.run_class, "B") == 0;
}

/* ---- the verdict ---------------------------------------------------------------------------------------- */

static int write_verdict(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct run *r = ctx;
    char              detail[160], gap[48] = "";

    if (is_prefill(r))
        (void)snprintf(gap, sizeof(gap), ", largest gap %.3g", r->verdict.max_gap);
    (void)snprintf(detail, sizeof(detail), "class %s, %lld of %lld tokens, first difference %lld%s",
                   r->verdict.run_class, (long long)r->verdict.n_checked, (long long)r->verdict.n_tokens,
                   (long long)r->verdict.first_difference, gap);
    return phx_audit_event(tx, "replay", r->verdict.is_equal ? "replay.equal" : "replay.differs",
                           r->verdict.receipt, r->by, detail, r->at_ns, err);
}

static void on_verdict(void *ctx, const struct phx_err *err)
{
    finish(ctx, err);
}

static void conclude(struct run *r)
{
    int64_t before = 0;

    if (r->failure.code != 0) {
        finish(r, &r->failure);
        return;
    }
    r->verdict.first_difference = -1;
    for (int32_t i = 0; i < r->recorded.n_choices; i++) {
        const struct part *p = &r->parts[i];

        r->verdict.n_tokens += p->recorded->n;
        r->verdict.n_checked += p->n_seen - p->n_over;
        r->verdict.n_over += p->n_over;
        r->verdict.max_gap = p->max_gap > r->verdict.max_gap ? p->max_gap : r->verdict.max_gap;
        if (r->verdict.first_difference < 0 && p->first_difference >= 0)
            r->verdict.first_difference = before + p->first_difference;
        before += p->recorded->n;
    }
    r->verdict.is_equal = r->verdict.first_difference < 0 && r->verdict.n_checked == r->verdict.n_tokens;
    r->at_ns = phx_time_now(r->d->time);
    phx_store_submit(r->d->store, write_verdict, on_verdict, r);
}

/* ---- checking it in one pass ------------------------------------------------------------------------------ */

static void count_over(struct part *p, int32_t at)
{
    p->n_over++;
    if (p->first_difference < 0)
        p->first_difference = at;
}

static bool is_stop(const struct phx_sampling *s, int32_t token)
{
    for (int32_t i = 0; i < s->n_stop_ids && !s->ignore_eos; i++)
        if (s->stop_ids[i] == token)
            return true;
    return false;
}

static void on_gap(void *ctx, const struct phx_token_out *token)
{
    struct part               *p = ctx;
    const struct phx_sampling *s = &p->r->recorded.sampling;
    double                     allowed = s->temperature > 0 ? PHX_REPLAY_MASS_GAP : PHX_REPLAY_LOGIT_GAP;
    int32_t                    at = p->n_seen;

    if (token->token < 0 || at >= p->recorded->n)
        return;
    p->n_seen++;
    p->max_gap = (double)token->gap > p->max_gap ? (double)token->gap : p->max_gap;
    /* nothing is generated behind a stop id, however likely it looks */
    if ((double)token->gap > allowed || (at > 0 && is_stop(s, p->recorded->ids[at - 1])))
        count_over(p, at);
}

/* ---- running it again ------------------------------------------------------------------------------------- */

static void on_token(void *ctx, const struct phx_token_out *token)
{
    struct part *p = ctx;

    if (token->token < 0 || p->first_difference >= 0)
        return;
    if (p->n_seen >= p->recorded->n || p->recorded->ids[p->n_seen] != token->token) {
        p->first_difference = p->n_seen;
        if (p->seq != NULL) {
            struct phx_engine_seq *seq = p->seq;

            p->seq = NULL;
            phx_engine_cancel(seq); /* what follows would differ as well */
        }
        return;
    }
    p->n_seen++;
}

static void on_end(void *ctx, enum phx_finish end, const struct phx_err *err)
{
    struct part *p = ctx;
    struct run  *r = p->r;

    p->seq = NULL;
    if (end == PHX_FINISH_ERROR && r->failure.code == 0)
        (void)phx_fail(&r->failure, err != NULL ? err->code : PHX_E_INTERNAL, "replay: %s",
                       err != NULL ? err->text : "the engine failed");
    if (p->n_seen < p->recorded->n && p->first_difference < 0)
        p->first_difference = p->n_seen; /* it ended sooner */
    if (--r->n_open == 0)
        conclude(r);
}

static int submit_prompt(struct part *p, struct phx_engine_request *request, struct phx_err *err)
{
    static const struct phx_engine_callbacks callbacks = {on_token, on_end};

    request->tokens = p->r->recorded.prompt;
    request->n_tokens = p->r->recorded.n_prompt;
    request->max_new = p->recorded->n;
    return phx_engine_submit(p->r->d->engine, request, &callbacks, p, &p->seq, err);
}

static int submit_check(struct part *p, struct phx_engine_request *request, struct phx_err *err)
{
    static const struct phx_engine_callbacks callbacks = {on_gap, on_end};
    const struct phx_recorded               *recorded = &p->r->recorded;
    size_t   n = (size_t)recorded->n_prompt + (size_t)p->recorded->n;
    int32_t *tokens = phx_mem_calloc(n, sizeof(*tokens));
    int      rc;

    memcpy(tokens, recorded->prompt, (size_t)recorded->n_prompt * sizeof(*tokens));
    memcpy(tokens + recorded->n_prompt, p->recorded->ids, (size_t)p->recorded->n * sizeof(*tokens));
    request->tokens = tokens;
    request->n_tokens = (int32_t)n; /* both are at most PHX_RPC_TOKENS_MAX */
    request->n_check = p->recorded->n;
    rc = phx_engine_submit(p->r->d->engine, request, &callbacks, p, &p->seq, err);
    phx_secret_wipe(tokens, n * sizeof(*tokens));
    phx_mem_free(tokens);
    return rc;
}

static int submit(struct run *r, int32_t i, struct phx_err *err)
{
    struct phx_sampling       sampling = r->recorded.sampling;
    struct phx_engine_request request = {.tenant = r->recorded.tenant, .sampling = &sampling};

    sampling.seed += (uint64_t)i; /* as the choices were drawn */
    return is_prefill(r) ? submit_check(&r->parts[i], &request, err) : submit_prompt(&r->parts[i], &request, err);
}

static void run_again(struct run *r)
{
    int32_t n = r->recorded.n_choices;
    int     rc = 0;

    r->parts = phx_mem_calloc((size_t)n + 1, sizeof(*r->parts));
    r->n_open = 1; /* held until all are submitted */
    for (int32_t i = 0; i < n; i++) {
        r->parts[i] = (struct part){.r = r, .recorded = &r->recorded.choices[i], .first_difference = -1};
        if (r->parts[i].recorded->n == 0 || rc != 0)
            continue;
        rc = submit(r, i, &r->failure);
        r->n_open += rc == 0;
    }
    if (rc != 0)
        for (int32_t i = 0; i < n; i++)
            if (r->parts[i].seq != NULL) {
                struct phx_engine_seq *seq = r->parts[i].seq;

                r->parts[i].seq = NULL;
                phx_engine_cancel(seq);
            }
    if (--r->n_open == 0)
        conclude(r);
}

/* ---- what was recorded -------------------------------------------------------------------------------------- */

static int read_recorded(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct run *r = ctx;

    return phx_recorded_read(tx, r->d->site_key, r->verdict.receipt, r->by, r->at_ns, r->arena, &r->recorded,
                             err);
}

/* The class by which it is run; only answers of an engine can be. */
static int choose_class(struct run *r, struct phx_err *err)
{
    const char *class = r->as_class[0] != '\0' ? r->as_class : r->recorded.replay_class;

    if (strcmp(r->recorded.replay_class, "A") != 0 && strcmp(r->recorded.replay_class, "B") != 0)
        return phx_fail(err, PHX_E_STATE, "replay: an answer of class %s cannot be run again",
                        r->recorded.replay_class);
    if (strcmp(class, "A") != 0 && strcmp(class, "B") != 0)
        return phx_fail(err, PHX_E_INVALID, "replay: class '%s' is not A, B or nothing (the recorded one)", class);
    (void)snprintf(r->verdict.run_class, sizeof(r->verdict.run_class), "%s", class);
    return 0;
}

static int check_model(const struct run *r, struct phx_err *err)
{
    if (strcmp(r->recorded.manifest_root, r->d->manifest_root) == 0 &&
        strcmp(r->recorded.model_name, r->d->model_name) == 0)
        return 0;
    return phx_fail(err, PHX_E_STATE, "replay: '%.60s' %.20s answered; this cluster serves '%.60s'",
                    r->recorded.model_name, r->recorded.manifest_root, r->d->model_name);
}

static void on_recorded(void *ctx, const struct phx_err *err)
{
    struct run *r = ctx;

    if (err != NULL) {
        finish(r, err);
        return;
    }
    (void)snprintf(r->verdict.replay_class, sizeof(r->verdict.replay_class), "%s", r->recorded.replay_class);
    if (choose_class(r, &r->failure) != 0 || check_model(r, &r->failure) != 0) {
        finish(r, &r->failure);
        return;
    }
    run_again(r);
}

void phx_replay_run(struct phx_daemon *d, const char *receipt, const char *as_class, const char *by,
                    phx_replay_fn fn, void *ctx)
{
    struct run *r = phx_mem_calloc(1, sizeof(*r));

    r->d = d;
    r->arena = phx_arena_create();
    r->at_ns = phx_time_now(d->time);
    r->fn = fn;
    r->ctx = ctx;
    (void)snprintf(r->verdict.receipt, sizeof(r->verdict.receipt), "%s", receipt);
    (void)snprintf(r->as_class, sizeof(r->as_class), "%s", as_class);
    (void)snprintf(r->by, sizeof(r->by), "%s", by);
    phx_store_submit(d->store, read_recorded, on_recorded, r);
}
