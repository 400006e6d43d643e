/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/admission/admission.h"

#include <event2/event.h>
#include <stdio.h>
#include <string.h>

#include "daemon/admission/record.h"
#include "daemon/ledger/ledger.h"
#include "daemon/license/license.h"
#include "daemon/metrics/metrics.h"
#include "rpc/base/clock.h"
#include "rpc/base/id.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

static const int64_t PROGRESS_NS = 1000000000;

int phx_admission_open(struct event_base *base, struct phx_store *store, struct phx_license *license,
                       const struct phx_admission_options *options, struct phx_admission **out,
                       struct phx_err *err)
{
    struct phx_admission *a = phx_mem_calloc(1, sizeof(*a));
    int                   rc;

    *out = NULL;
    a->base = base;
    a->store = store;
    a->license = license;
    a->metrics = options->metrics;
    a->max_active = options->max_active;
    a->max_active_per_tenant = options->max_active_per_tenant;
    a->max_prompt_tokens = options->max_prompt_tokens;
    a->max_output_tokens = options->max_output_tokens;
    a->model_name = phx_mem_strdup(options->model_name);
    a->model_digest = phx_mem_strdup(options->model_digest);
    a->build = phx_mem_strdup(options->build);
    rc = phx_store_run(store, phx_record_recover, a, err);
    if (rc != 0) {
        phx_admission_close(a);
        return rc;
    }
    *out = a;
    return 0;
}

void phx_admission_close(struct phx_admission *a)
{
    if (a == NULL)
        return;
    phx_mem_free(a->model_name);
    phx_mem_free(a->model_digest);
    phx_mem_free(a->build);
    phx_mem_free(a);
}

static void gauge(const struct phx_admission *a)
{
    if (a->metrics != NULL)
        phx_metrics_gauge(a->metrics, "phalanx_admissions_active", "", a->n_active);
}

static void destroy_lease(struct phx_lease *l)
{
    struct phx_admission *a = l->a;

    if (l->prev != NULL)
        l->prev->next = l->next;
    else
        a->first = l->next;
    if (l->next != NULL)
        l->next->prev = l->prev;
    a->n_active--;
    gauge(a);
    phx_mem_free(l->end_user);
    phx_mem_free(l);
}

/* ---- decisions -------------------------------------------------------------------------------- */

static int32_t count_tenant(const struct phx_admission *a, const char *tenant)
{
    int32_t n = 0;

    for (const struct phx_lease *l = a->first; l != NULL; l = l->next)
        n += strcmp(l->who.tenant, tenant) == 0;
    return n;
}

static void refuse(struct phx_refusal *r, int code, const char *rule, const char *text,
                   int64_t retry_after_ms)
{
    *r = (struct phx_refusal){code, rule, text, retry_after_ms};
}

/* In the order of the promise: licence, role, limits.  False when refused. */
static bool decide(const struct phx_admission *a, const struct phx_admission_facts *f,
                   struct phx_refusal *r, struct phx_err *why)
{
    const char *rule;
    int32_t     licensed = phx_license_facts(a->license)->max_concurrent;
    int64_t     output = (int64_t)f->max_new * f->n_choices;

    if (phx_license_check(a->license, phx_clock_wall_ns(), &rule, why) != 0)
        refuse(r, PHX_E_LICENSE, rule, why->text, -1);
    else if ((f->identity->roles & (PHX_ROLE_BIT_USER | PHX_ROLE_BIT_ADMIN)) == 0)
        refuse(r, PHX_E_DENIED, "role.user", "this key has no role that may generate", -1);
    else if (a->max_prompt_tokens > 0 && f->n_prompt > a->max_prompt_tokens)
        refuse(r, PHX_E_TOOBIG, "limit.prompt", "the prompt is over the configured limit of tokens", -1);
    else if (a->max_output_tokens > 0 && output > a->max_output_tokens)
        refuse(r, PHX_E_TOOBIG, "limit.output", "max_tokens is over the configured limit", -1);
    else if (licensed > 0 && a->n_active >= licensed)
        refuse(r, PHX_E_LIMIT, "licence.concurrent", "the licence's concurrent requests are in use", 1000);
    else if (a->n_active >= a->max_active)
        refuse(r, PHX_E_LIMIT, "limit.active", "too many requests are active", 1000);
    else if (count_tenant(a, f->identity->tenant) >= a->max_active_per_tenant)
        refuse(r, PHX_E_LIMIT, "limit.active.tenant", "this tenant has too many active requests", 1000);
    else
        return true;
    return false;
}

/* ---- refusals ---------------------------------------------------------------------------------- */

struct refused {
    struct phx_refusal_record record; /* first: the store job gets its address */
    struct phx_refusal        refusal;
    struct phx_err            why;
    phx_admission_fn          fn;
    void                     *ctx;
};

static void on_refusal_recorded(void *ctx, const struct phx_err *err)
{
    struct refused *f = ctx;

    if (err != NULL)
        phx_log(PHX_LOG_ERROR, "admission.refusal.unrecorded", "rule=%s reason=%s", f->refusal.rule,
                err->text);
    f->fn(f->ctx, NULL, &f->refusal);
    phx_mem_free(f);
}

static void record_refusal(struct phx_admission *a, const struct phx_admission_facts *facts,
                           const struct phx_refusal *refusal, const struct phx_err *why,
                           phx_admission_fn fn, void *ctx)
{
    struct refused *f = phx_mem_calloc(1, sizeof(*f));

    f->refusal = *refusal;
    f->why = *why;
    if (refusal->text == why->text)
        f->refusal.text = f->why.text;
    f->fn = fn;
    f->ctx = ctx;
    (void)snprintf(f->record.tenant, sizeof(f->record.tenant), "%s", facts->identity->tenant);
    (void)snprintf(f->record.user, sizeof(f->record.user), "%s", facts->identity->user);
    (void)snprintf(f->record.key_id, sizeof(f->record.key_id), "%s", facts->identity->key_id);
    (void)snprintf(f->record.request_id, sizeof(f->record.request_id), "%s", facts->request_id);
    (void)snprintf(f->record.rule, sizeof(f->record.rule), "%s", refusal->rule);
    phx_store_submit(a->store, phx_record_refusal, on_refusal_recorded, &f->record);
}

/* ---- leases ------------------------------------------------------------------------------------ */

static void on_begun(void *ctx, const struct phx_err *err)
{
    struct phx_lease *l = ctx;

    if (err == NULL) {
        l->begun(l->ctx, l, NULL);
        return;
    }
    const struct phx_refusal refusal = {PHX_E_IO, "store.unavailable",
                                        "the record of this request cannot be made durable", 1000};

    phx_log(PHX_LOG_ERROR, "admission.intent.fail", "reason=%s", err->text);
    l->begun(l->ctx, NULL, &refusal);
    destroy_lease(l);
}

void phx_admission_begin(struct phx_admission *a, const struct phx_admission_facts *f,
                         phx_admission_fn fn, void *ctx)
{
    struct phx_refusal refusal;
    struct phx_err     why = {0};
    struct phx_lease  *l;

    if (!decide(a, f, &refusal, &why)) {
        record_refusal(a, f, &refusal, &why, fn, ctx);
        return;
    }
    l = phx_mem_calloc(1, sizeof(*l));
    l->a = a;
    l->who = *f->identity;
    l->begun = fn;
    l->ctx = ctx;
    l->n_prompt = f->n_prompt;
    l->max_new = f->max_new;
    l->n_choices = f->n_choices;
    l->sampling = *f->sampling;
    l->sampling.bias = NULL;
    l->sampling.stop_ids = NULL;
    l->end_user = phx_mem_strdup(f->end_user != NULL ? f->end_user : "");
    (void)snprintf(l->request_id, sizeof(l->request_id), "%s", f->request_id);
    (void)snprintf(l->endpoint, sizeof(l->endpoint), "%s", f->endpoint);
    phx_receipt_make(l->receipt);
    phx_id_random(l->salt, sizeof(l->salt));
    phx_audit_commit(l->salt, f->prompt, (size_t)f->n_prompt, l->prompt_commitment);
    l->next = a->first;
    if (a->first != NULL)
        a->first->prev = l;
    a->first = l;
    a->n_active++;
    gauge(a);
    phx_store_submit(a->store, phx_record_intent, on_begun, l);
}

const char *phx_lease_receipt(const struct phx_lease *lease)
{
    return lease->receipt;
}

/* ---- progress ---------------------------------------------------------------------------------- */

struct progress {
    struct phx_ledger_row row;
    char receipt[PHX_RECEIPT_BYTES], request_id[65], key_id[33];
    char tenant[PHX_KEY_NAME_MAX + 1], user[PHX_KEY_NAME_MAX + 1];
};

static void on_progress_written(void *ctx, const struct phx_err *err)
{
    if (err != NULL) /* the reservation still stands: a crash would settle at an older number */
        phx_log(PHX_LOG_WARN, "admission.progress.fail", "reason=%s", err->text);
    phx_mem_free(ctx);
}

void phx_lease_progress(struct phx_lease *l, int32_t n_output, int32_t n_reasoning)
{
    int64_t          now = phx_clock_mono_ns();
    struct progress *p;

    if (now - l->progress_ns < PROGRESS_NS)
        return;
    l->progress_ns = now;
    p = phx_mem_calloc(1, sizeof(*p));
    memcpy(p->receipt, l->receipt, sizeof(p->receipt));
    memcpy(p->request_id, l->request_id, sizeof(p->request_id));
    memcpy(p->key_id, l->who.key_id, sizeof(p->key_id));
    memcpy(p->tenant, l->who.tenant, sizeof(p->tenant));
    memcpy(p->user, l->who.user, sizeof(p->user));
    p->row = (struct phx_ledger_row){
        .receipt = p->receipt, .tenant = p->tenant, .user = p->user, .key_id = p->key_id,
        .model = l->a->model_name, .request_id = p->request_id, .at_ns = phx_clock_wall_ns(),
        .epoch = l->a->epoch, .output = n_output, .reasoning = n_reasoning, .finish = "",
    };
    phx_store_submit(l->a->store, phx_record_progress, on_progress_written, &p->row);
}

/* ---- the end ----------------------------------------------------------------------------------- */

static void on_ended(void *ctx, const struct phx_err *err)
{
    struct phx_lease *l = ctx;
    phx_settled_fn    settled = l->settled;

    if (err != NULL)
        phx_log(PHX_LOG_ERROR, "admission.result.fail", "receipt=%s reason=%s", l->receipt, err->text);
    settled(l->ctx, err);
    destroy_lease(l);
}

void phx_lease_end(struct phx_lease *l, const struct phx_outcome *o, phx_settled_fn fn, void *ctx)
{
    l->settled = fn;
    l->ctx = ctx;
    l->n_output = o->n_output;
    l->n_reasoning = o->n_reasoning;
    l->n_cached = o->n_cached;
    l->queue_ms = o->queue_ms;
    l->first_token_ms = o->first_token_ms;
    l->total_ms = o->total_ms;
    (void)snprintf(l->finish, sizeof(l->finish), "%s", o->finish);
    phx_audit_commit(l->salt, o->output, (size_t)o->n_output, l->output_commitment);
    phx_store_submit(l->a->store, phx_record_result, on_ended, l);
}

int32_t phx_admission_active(const struct phx_admission *a)
{
    return a->n_active;
}
