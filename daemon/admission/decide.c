/* SPDX-License-Identifier: Apache-2.0
 * What the loop decides alone, in the order of the promise: licence, model, purpose, role, sizes, rate,
 * capacity.  Seat and budget are decided in the transaction (intent.c). */
#include <stdio.h>
#include <string.h>

#include "daemon/admission/lease.h"
#include "daemon/tenant/tenant.h"
#include "daemon/time/time.h"
#include "rpc/base/clock.h"
#include "rpc/base/table.h"

void phx_refuse(struct phx_refusal *r, int code, const char *rule, const char *text, int64_t retry_after_ms)
{
    *r = (struct phx_refusal){code, rule, text, retry_after_ms, ""};
}

void phx_rate_name(const struct phx_identity *who, char name[PHX_USER_NAME_MAX])
{
    (void)snprintf(name, PHX_USER_NAME_MAX, "%s/%s", who->tenant, who->user);
}

/* A derived model is under its parent's terms, unless the licence names it itself. */
static const char *licensed_root(const struct phx_admission *a, const struct phx_license *license)
{
    const struct phx_license_model *m = phx_license_find_model(license, a->manifest_root);

    if (a->parent_root[0] == '\0' || (m != NULL && strcmp(m->manifest_root, a->manifest_root) == 0))
        return a->manifest_root;
    return a->parent_root;
}

/* Copies what the transaction and the record need, so that neither looks at a licence that was replaced. */
static void note_license(const struct phx_admission *a, struct phx_lease *l)
{
    const struct phx_license       *license = phx_license_now(a->o.license);
    const struct phx_license_terms *t;
    const struct phx_license_model *m;
    struct phx_license_question    *q = &l->question;

    q->state = phx_license_state(license, l->at_ns);
    q->is_observing = phx_license_is_observing(a->o.license, l->at_ns);
    q->enforce = PHX_ENFORCE_OBSERVE;
    q->limits = (struct phx_license_limits){-1, 0, -1, -1, -1, -1, -1};
    l->key_set_version = phx_license_key_set_version(a->o.license);
    if (license == NULL)
        return;
    t = phx_license_terms(license);
    m = phx_license_find_model(license, licensed_root(a, license));
    l->has_license = true;
    l->license_serial = t->serial;
    memcpy(l->seat_salt, t->seat_salt, sizeof(l->seat_salt));
    memcpy(l->license_digest, t->digest, sizeof(l->license_digest));
    (void)snprintf(l->policy, sizeof(l->policy), "%.64s", m != NULL ? m->policy : "");
    q->enforce = t->enforce;
    q->limits = *phx_license_limits(license, m);
    q->is_indirect = !l->who.is_person;
    q->is_exempt = phx_license_is_exempt(license, l->who.tenant);
    q->exempt_cap = phx_license_exempt_cap(license);
}

static bool decide_license(const struct phx_admission *a, struct phx_lease *l, struct phx_refusal *r)
{
    const struct phx_license *license = phx_license_now(a->o.license);
    struct phx_license_answer answer;

    note_license(a, l);
    if (license == NULL)
        return true; /* NONE: the transaction asks the table of states */
    phx_license_decide_model(license, licensed_root(a, license), l->purpose, NULL, &answer);
    if (answer.verdict != PHX_VERDICT_REFUSE)
        return true;
    phx_refuse(r, strcmp(answer.rule, "licence.purpose") == 0 ? PHX_E_DENIED : PHX_E_LICENSE, answer.rule,
               answer.reason, -1);
    return false;
}

static bool decide_caller(const struct phx_admission *a, const struct phx_lease *l, struct phx_refusal *r)
{
    int64_t output = (int64_t)l->max_new * l->n_choices;

    if (a->o.is_purpose_required && l->purpose[0] == '\0')
        phx_refuse(r, PHX_E_DENIED, "policy.purpose",
                   "a purpose code is needed here: send the header x-phalanx-purpose", -1);
    else if ((l->who.roles & (PHX_ROLE_BIT_USER | PHX_ROLE_BIT_ADMIN)) == 0)
        phx_refuse(r, PHX_E_DENIED, "role.user", "this key has no role that may generate", -1);
    else if (a->o.max_prompt_tokens > 0 && l->n_prompt > a->o.max_prompt_tokens)
        phx_refuse(r, PHX_E_TOOBIG, "limit.prompt", "the prompt is over the configured limit of tokens", -1);
    else if (a->o.max_output_tokens > 0 && output > a->o.max_output_tokens)
        phx_refuse(r, PHX_E_TOOBIG, "limit.output", "max_tokens is over the configured limit", -1);
    else
        return true;
    return false;
}

static bool decide_capacity(const struct phx_admission *a, const struct phx_lease *l, struct phx_refusal *r)
{
    const int32_t *n_tenant = phx_table_get_str(a->tenants, l->who.tenant);
    int64_t        licensed = l->question.limits.concurrent;
    int32_t        n = a->n_active + a->n_gateway;

    const struct phx_license_limits *limits = &l->question.limits;

    if (a->is_full)
        phx_refuse(r, PHX_E_BUSY, "audit.space",
                   "too little disk space is left for the records; an operator must free some", 60000);
    else if (limits->nodes >= 0 && a->n_hosts > limits->nodes && l->question.enforce != PHX_ENFORCE_OBSERVE)
        phx_refuse(r, PHX_E_LICENSE, "licence.nodes", "the cluster runs on more hosts than the licence allows", -1);
    else if (limits->gpus >= 0 && a->n_gpus > limits->gpus && l->question.enforce != PHX_ENFORCE_OBSERVE)
        phx_refuse(r, PHX_E_LICENSE, "licence.gpus", "the cluster runs on more GPUs than the licence allows", -1);
    else if (licensed >= 0 && n >= licensed)
        phx_refuse(r, PHX_E_LIMIT, "licence.concurrent", "the licence's concurrent requests are in use", 1000);
    else if (n >= a->o.max_active)
        phx_refuse(r, PHX_E_LIMIT, "limit.active", "too many requests are active", 1000);
    else if (n_tenant != NULL && *n_tenant >= a->o.max_active_per_tenant)
        phx_refuse(r, PHX_E_LIMIT, "limit.active.tenant", "this tenant has too many active requests", 1000);
    else
        return true;
    return false;
}

static bool take_rate(struct phx_rate *rate, const char *name, int64_t want, const char *rule,
                      const char *text, struct phx_refusal *r)
{
    int64_t wait_ns = rate == NULL ? 0 : phx_rate_take(rate, name, want, phx_clock_mono_ns());

    if (wait_ns == 0)
        return true;
    phx_refuse(r, PHX_E_LIMIT, rule, text, wait_ns == INT64_MAX ? -1 : wait_ns / 1000000 + 1);
    return false;
}

/* Last, because it takes: what is refused for another reason costs nothing. */
static bool decide_rate(struct phx_admission *a, const struct phx_lease *l, struct phx_refusal *r)
{
    char    name[PHX_USER_NAME_MAX];
    int64_t tokens = (int64_t)l->n_prompt + (int64_t)l->max_new * l->n_choices;

    phx_rate_name(&l->who, name);
    if (!take_rate(a->requests, name, 1, "rate.requests", "this user's requests per minute are used up", r))
        return false;
    if (take_rate(a->tokens, name, tokens, "rate.tokens", "this user's tokens per minute are used up", r))
        return true;
    if (a->requests != NULL)
        phx_rate_give(a->requests, name, 1);
    return false;
}

bool phx_decide(struct phx_admission *a, struct phx_lease *l, struct phx_refusal *r)
{
    if (l->purpose[0] != '\0' && phx_purpose_check(l->purpose, &l->decision.why) != 0) {
        phx_refuse(r, PHX_E_INVALID, "request.purpose", l->decision.why.text, -1);
        return false;
    }
    return decide_license(a, l, r) && decide_caller(a, l, r) && decide_capacity(a, l, r) &&
           decide_rate(a, l, r);
}
