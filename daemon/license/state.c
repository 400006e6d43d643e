/* SPDX-License-Identifier: Apache-2.0
 * The table of states.  A running generation is never cut: the table is asked once, at admission. */
#include <string.h>

#include "daemon/license/terms.h"

static const int64_t DAY_NS = INT64_C(86400) * 1000000000;

const char *phx_license_state_name(enum phx_license_state state)
{
    static const char *const names[] = {"none", "early", "valid", "expiring", "grace", "continuity", "expired"};

    return names[state];
}

enum phx_license_state phx_license_state(const struct phx_license *l, int64_t now_ns)
{
    const struct phx_license_terms *t;
    int64_t                         grace_end;

    if (l == NULL)
        return PHX_LICENSE_NONE;
    t = &l->terms;
    grace_end = t->not_after_ns + t->grace_days * DAY_NS;
    if (now_ns < t->not_before_ns)
        return PHX_LICENSE_EARLY;
    if (now_ns < t->not_after_ns)
        return now_ns < t->not_after_ns - t->warn_days * DAY_NS ? PHX_LICENSE_VALID : PHX_LICENSE_EXPIRING;
    if (now_ns < grace_end)
        return PHX_LICENSE_GRACE;
    return now_ns < grace_end + t->continuity_days * DAY_NS ? PHX_LICENSE_CONTINUITY : PHX_LICENSE_EXPIRED;
}

static bool has(const char *const *list, int32_t n, const char *text)
{
    for (int32_t i = 0; i < n; i++)
        if (strcmp(list[i], text) == 0)
            return true;
    return false;
}

bool phx_license_is_exempt(const struct phx_license *l, const char *tenant)
{
    return has(l->terms.exempt_tenants, l->terms.n_exempt_tenants, tenant);
}

int64_t phx_license_exempt_cap(const struct phx_license *l)
{
    int64_t seats = l->terms.limits.seats;

    return seats < 0 ? INT64_MAX : seats * l->terms.exempt_cap_pct / 100;
}

/* ---- the table -------------------------------------------------------------------------------------------------- */

static void refuse(struct phx_license_answer *a, const char *rule, const char *reason)
{
    a->verdict = PHX_VERDICT_REFUSE;
    a->rule = rule;
    a->reason = reason;
}

static void mark(struct phx_license_answer *a, const char *rule, const char *reason)
{
    a->verdict = PHX_VERDICT_OVERDRAFT;
    a->rule = rule;
    a->reason = reason;
}

static int32_t warning_of(int64_t used, int64_t limit)
{
    static const int32_t steps[] = {100, 90, 80};

    for (size_t i = 0; limit > 0 && i < sizeof(steps) / sizeof(steps[0]); i++)
        if (used * 100 >= limit * steps[i])
            return steps[i];
    return 0;
}

static void decide_indirect(const struct phx_license_question *q, struct phx_license_answer *a)
{
    int64_t limit = q->limits.indirect_users;

    if (limit < 0)
        return;
    a->warning_pct = warning_of(q->indirect_used + (q->is_known ? 0 : 1), limit);
    if (q->is_known || q->indirect_used < limit)
        return;
    if (q->enforce == PHX_ENFORCE_OBSERVE)
        mark(a, "licence.indirect", "over the licence's indirect users, which it only observes");
    else
        refuse(a, "licence.indirect",
               "all indirect users of the licence are in use this month; pass a verified person (OIDC token or "
               "certificate) or ask your administrator for more");
}

static void decide_seats(const struct phx_license_question *q, struct phx_license_answer *a)
{
    int64_t limit = q->limits.seats;

    if (limit < 0)
        return;
    a->warning_pct = warning_of(q->seats_used + (q->is_known ? 0 : 1), limit);
    if (q->is_known || q->seats_used < limit)
        return;
    if (q->seats_used < limit + limit * q->limits.overdraft_pct / 100)
        mark(a, "licence.seats", "over the seats of the licence, within its overdraft: reported for true-up");
    else if (q->enforce != PHX_ENFORCE_HARD)
        mark(a, "licence.seats", "over the seats and the overdraft of the licence: reported for true-up");
    else
        refuse(a, "licence.seats",
               "all seats of the licence and its overdraft are in use this month; ask your administrator for "
               "more seats, or come back on the first of next month (UTC)");
}

static void decide_use(const struct phx_license_question *q, struct phx_license_answer *a)
{
    if (q->is_indirect)
        decide_indirect(q, a);
    else
        decide_seats(q, a);
}

/* Seats start anew each month, so the exemption must hold for an exempt tenant's new users as well. */
static bool fits_exempt(const struct phx_license_question *q)
{
    if (!q->is_exempt || q->exempt_cap <= 0)
        return false;
    return q->is_known ? q->exempt_used <= q->exempt_cap : q->exempt_used < q->exempt_cap;
}

static void decide_continuity(const struct phx_license_question *q, struct phx_license_answer *a)
{
    if (!q->is_known)
        refuse(a, "licence.continuity",
               "the licence ended and only users it knows are served; ask your administrator to install a new "
               "one");
}

static void decide_expired(const struct phx_license_question *q, struct phx_license_answer *a)
{
    if (!fits_exempt(q))
        refuse(a, "licence.expired",
               "the licence has expired; ask your administrator to install a new one (audit and export still "
               "work)");
}

static void decide_none(const struct phx_license_question *q, struct phx_license_answer *a)
{
    if (!q->is_observing && !q->is_known)
        refuse(a, "licence.none",
               "no licence could be read for 72 hours; ask your administrator to install one: phalanx license "
               "install");
}

void phx_license_decide(const struct phx_license_question *q, struct phx_license_answer *out)
{
    *out = (struct phx_license_answer){PHX_VERDICT_SERVE, "", "", 0};
    switch (q->state) {
    case PHX_LICENSE_EARLY:
        refuse(out, "licence.early",
               "the licence is not in force yet; ask your administrator to check its first day and the clock");
        break;
    case PHX_LICENSE_VALID:
    case PHX_LICENSE_EXPIRING:
    case PHX_LICENSE_GRACE: decide_use(q, out); break;
    case PHX_LICENSE_CONTINUITY: decide_continuity(q, out); break;
    case PHX_LICENSE_EXPIRED: decide_expired(q, out); break;
    case PHX_LICENSE_NONE: decide_none(q, out); break;
    }
}

void phx_license_decide_model(const struct phx_license *l, const char *manifest_root, const char *purpose,
                              const struct phx_license_model **model, struct phx_license_answer *out)
{
    const struct phx_license_model *m = phx_license_find_model(l, manifest_root);

    *out = (struct phx_license_answer){PHX_VERDICT_SERVE, "", "", 0};
    if (model != NULL)
        *model = m;
    if (m == NULL)
        refuse(out, "licence.model", "the licence does not name this model; ask your administrator for one that "
                                     "does");
    else if (has(m->denied_classes, m->n_denied_classes, l->terms.class_name))
        refuse(out, "licence.class", "the terms of this model shut out licensees of this class");
    else if (has(m->denied_purposes, m->n_denied_purposes, purpose))
        refuse(out, "licence.purpose", "the terms of this model forbid this purpose");
}
