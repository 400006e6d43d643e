/* SPDX-License-Identifier: Apache-2.0
 * The transaction that admits: who has agreed to what, idempotency key, seat, budget; then reservation,
 * kept content and intent leaf.  A refusal rolls all of it back. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/admission/lease.h"
#include "daemon/tenant/tenant.h"
#include "daemon/time/time.h"
#include "rpc/base/hash.h"

/* A refusal leaves the transaction as an error, so that the store rolls it back. */
static int refuse(struct phx_lease *l, int code, const char *rule, const char *text, int64_t retry_after_ms,
                  struct phx_err *err)
{
    struct phx_decision *d = &l->decision;
    int                  rc = phx_fail(&d->why, code, "%s", text);

    phx_refuse(&d->refusal, code, rule, d->why.text, retry_after_ms);
    return phx_fail(err, rc, "%s", text);
}

static int check_tenant(struct phx_tx *tx, struct phx_lease *l, struct phx_err *err)
{
    const struct phx_admission *a = l->a;
    struct phx_tenant           t;
    int32_t                     days = 0;
    int                         rc = phx_tenant_get(tx, l->who.tenant, &t, err);

    if (rc == 0)
        rc = phx_retention_days(t.retention, &days, err);
    if (rc != 0)
        return rc;
    l->privacy = t.privacy;
    l->keep_until_ns = l->at_ns + (int64_t)days * 86400 * 1000000000;
    memcpy(l->aup_hash, t.aup_hash, sizeof(l->aup_hash));
    (void)snprintf(l->replay_class, sizeof(l->replay_class), "%s", a->o.engine.replay_class);
    if (t.replay[0] != '\0' && t.replay[0] < l->replay_class[0])
        return refuse(l, PHX_E_STATE, "replay.class",
                      "this tenant asks for class A answers, which this engine does not give", -1, err);
    if (a->o.aup_sha256[0] != '\0' && strcmp(t.aup_hash, a->o.aup_sha256) != 0)
        return refuse(l, PHX_E_DENIED, "policy.aup",
                      "this tenant has not signed the acceptable-use text in force "
                      "(phalanx tenant sign-aup)", -1, err);
    return phx_content_pseudonym(tx, a->o.site_key, l->who.tenant, l->who.user, l->at_ns, l->pseudonym, err);
}

/* ---- idempotency ------------------------------------------------------------------------------------- */

static int take_key(struct phx_tx *tx, struct phx_lease *l, struct phx_err *err)
{
    int found;

    if (l->idem_key[0] == '\0')
        return 0;
    found = phx_idem_take(tx, l->who.tenant, l->idem_key, l->digest, l->receipt, l->at_ns,
                          l->decision.found, err);
    if (found < 0 || found == PHX_IDEM_NEW)
        return found < 0 ? found : 0;
    l->decision.is_replayed = found == PHX_IDEM_SAME;
    if (found == PHX_IDEM_OTHER)
        return refuse(l, PHX_E_STATE, "idempotency.conflict",
                      "this idempotency key was used for another request", -1, err);
    return refuse(l, PHX_E_STATE, "idempotency.replayed",
                  "this idempotency key was used before; the receipt names the request that has it", -1,
                  err);
}

/* ---- seat --------------------------------------------------------------------------------------------- */

static int add_seat(struct phx_tx *tx, struct phx_lease *l, const char *period, struct phx_err *err)
{
    const struct phx_license_question *q = &l->question;
    struct phx_seat seat = {
        .tenant = l->who.tenant,
        .first_ns = l->at_ns,
        .is_overdraft = l->decision.is_overdraft,
        .is_indirect = q->is_indirect,
        .is_exempt = q->is_exempt && q->state == PHX_LICENSE_EXPIRED,
    };
    int rc;

    memcpy(seat.period, period, sizeof(seat.period));
    memcpy(seat.seat_id, l->seat_id, sizeof(seat.seat_id));
    rc = phx_seat_add(tx, &seat, err);
    if (rc == 0)
        rc = phx_time_save(tx, l->at_ns, err);
    if (rc == 0)
        rc = phx_seat_count(tx, period, &l->decision.seats, err);
    l->decision.has_seats = rc == 0;
    return rc;
}

/* Seats start anew each month: in the continuity of a licence whoever sat in the month before is known too, or
 * the first of a month would shut everybody out.  1, 0 or a negative code. */
static int sat_before(struct phx_tx *tx, const struct phx_lease *l, const char *period, struct phx_err *err)
{
    char    before[8];
    int64_t from_ns, to_ns;
    int     rc;

    if (l->question.state != PHX_LICENSE_CONTINUITY)
        return 0;
    rc = phx_period_parse(period, &from_ns, &to_ns, err);
    if (rc != 0)
        return rc;
    phx_period_format(from_ns - 1, before);
    return phx_seat_has(tx, before, l->seat_id, err);
}

static int take_seat(struct phx_tx *tx, struct phx_lease *l, struct phx_err *err)
{
    struct phx_license_question *q = &l->question;
    struct phx_license_answer    answer;
    struct phx_seat_counts       n = {0};
    char                         period[8];
    int                          has = 0, had = 0, rc = 0;

    phx_period_format(l->at_ns, period);
    phx_seat_id(l->seat_salt, l->who.issuer, l->who.user, l->seat_id);
    if (l->has_license)
        has = phx_seat_has(tx, period, l->seat_id, err);
    if (has == 0 && l->has_license) /* counting is only for whoever is new this month */
        rc = phx_seat_count(tx, period, &n, err);
    if (has == 0 && l->has_license && rc == 0)
        had = sat_before(tx, l, period, err);
    if (has < 0 || had < 0 || rc != 0)
        return has < 0 ? has : had < 0 ? had : rc;
    q->is_known = has == 1 || had == 1;
    q->seats_used = n.people;
    q->indirect_used = n.indirect;
    q->exempt_used = n.exempt;
    phx_license_decide(q, &answer);
    l->decision.is_overdraft = answer.verdict == PHX_VERDICT_OVERDRAFT;
    l->decision.warning_pct = answer.warning_pct;
    if (answer.verdict == PHX_VERDICT_REFUSE)
        return refuse(l, strncmp(answer.rule, "licence.seat", 12) == 0 ||
                                 strcmp(answer.rule, "licence.indirect") == 0
                             ? PHX_E_LIMIT
                             : PHX_E_LICENSE,
                      answer.rule, answer.reason, -1, err);
    return has == 1 || !l->has_license ? 0 : add_seat(tx, l, period, err);
}

/* ---- budget and reservation ------------------------------------------------------------------------------ */

static int64_t reserved_tokens(const struct phx_lease *l)
{
    return (int64_t)l->n_prompt + (int64_t)l->max_new * l->n_choices;
}

static int take_budget(struct phx_tx *tx, struct phx_lease *l, struct phx_err *err)
{
    static const char *const rules[] = {"", "budget.tenant", "budget.user", "budget.key", "budget.licence"};
    struct phx_budget        broken = {0};
    int64_t                  end_ns = 0;
    char                     text[200];
    int fits = phx_budget_check(tx, l->who.tenant, l->who.user, l->who.key_id,
                                l->question.limits.tokens_per_month, reserved_tokens(l), l->at_ns,
                                &l->decision.budget_left, &broken, &end_ns, err);

    if (fits != 0)
        return fits < 0 ? fits : 0;
    (void)snprintf(text, sizeof(text),
                   "the %s token budget of the %s allows %" PRId64 ": %" PRId64 " used, %" PRId64
                   " reserved, %" PRId64 " asked",
                   phx_budget_period_name(broken.period), phx_budget_scope_name(broken.scope), broken.tokens,
                   broken.posted, broken.pending, reserved_tokens(l));
    return refuse(l, PHX_E_LIMIT, rules[broken.scope], text,
                  end_ns > l->at_ns ? (end_ns - l->at_ns) / 1000000 : -1, err);
}

static int put_reserve(struct phx_tx *tx, const struct phx_lease *l, struct phx_err *err)
{
    struct phx_ledger_row row = {
        .kind = PHX_LEDGER_RESERVE,
        .lease = l->receipt,
        .at_ns = l->at_ns,
        .epoch = l->a->epoch,
        .tenant = l->who.tenant,
        .user = l->who.user,
        .key_id = l->who.key_id,
        .cost_centre = l->who.cost_centre,
        .model = l->a->o.model_name,
        .request_id = l->request_id,
        .reserved = reserved_tokens(l),
        .prompt = l->n_prompt,
        .outcome = "",
        .note = "",
    };
    const struct phx_value values[] = {
        phx_value_text(l->receipt), phx_value_text(l->is_gateway ? "gateway" : "own"),
        phx_value_int(l->a->epoch), phx_value_int(l->expires_ns), phx_value_text(l->session),
    };
    int rc = phx_ledger_put(tx, &row, err);

    return rc != 0 ? rc
                   : phx_tx_exec(tx, "INSERT INTO lease(lease, kind, epoch, expires_ns, session)"
                                     " VALUES(?, ?, ?, ?, ?)", values, 5, NULL, NULL, err);
}

static int put_content(struct phx_tx *tx, struct phx_lease *l, char sha256[65], struct phx_err *err)
{
    struct phx_content c = {
        .receipt = l->receipt,
        .tenant = l->who.tenant,
        .user = l->who.user,
        .mode = l->privacy,
        .at_ns = l->at_ns,
        .keep_until_ns = l->keep_until_ns,
        .salt = l->salt,
    };
    struct phx_buf request;
    int            rc;

    phx_buf_init(&request, PHX_CONTENT_MAX_BYTES);
    if (l->privacy != PHX_PRIVACY_COMMIT_ONLY)
        phx_request_json(l, &request);
    rc = phx_buf_check(&request, "kept request", err);
    c.request = request.data;
    c.request_size = request.size;
    if (rc == 0)
        rc = phx_content_put_request(tx, l->a->o.site_key, &c, sha256, err);
    if (request.data != NULL)
        phx_secret_wipe(request.data, request.size);
    phx_buf_fini(&request);
    return rc;
}

int phx_intent_write(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_lease *l = ctx;
    char              sha256[65] = "";
    int               rc = check_tenant(tx, l, err);

    if (rc == 0)
        rc = take_key(tx, l, err);
    if (rc == 0)
        rc = take_seat(tx, l, err);
    if (rc == 0)
        rc = take_budget(tx, l, err);
    if (rc == 0)
        rc = put_reserve(tx, l, err);
    if (rc == 0 && !l->is_gateway) /* a gateway keeps its own content */
        rc = put_content(tx, l, sha256, err);
    return rc == 0 ? phx_record_intent(tx, l, sha256, err) : rc;
}
