/* SPDX-License-Identifier: Apache-2.0
 * Leases for outside gateways.  They live in the database alone: a gateway that comes back with the same key
 * finds its lease again, also after a restart of the daemon, and one that does not come back is settled as a
 * crash when the lease expires. */
#include <stdio.h>
#include <string.h>

#include "daemon/admission/lease.h"
#include "daemon/metrics/metrics.h"
#include "daemon/time/time.h"
#include "rpc/base/hex.h"
#include "rpc/base/mem.h"

/* ---- one call ------------------------------------------------------------------------------------------ */

struct call {
    struct phx_admission     *a;
    struct phx_gateway_answer answer;
    struct phx_identity       who;
    char                      lease[PHX_LEASE_BYTES];
    struct phx_gateway_usage  usage;
    bool                      has_usage;
    char                      outcome[129], response_commit[65];
    int64_t                   at_ns;
    bool                      is_ended; /* by this call */
    struct phx_lease         *admitted; /* admit only */
    phx_gateway_fn            fn;
    void                     *ctx;
};

static struct call *make_call(struct phx_admission *a, const struct phx_identity *who, const char *lease,
                              phx_gateway_fn fn, void *ctx)
{
    struct call *c = phx_mem_calloc(1, sizeof(*c));

    c->a = a;
    c->who = *who;
    c->at_ns = phx_time_now(a->o.time);
    c->answer.warning = "";
    c->answer.budget_left = -1;
    c->fn = fn;
    c->ctx = ctx;
    (void)snprintf(c->lease, sizeof(c->lease), "%s", lease);
    (void)snprintf(c->answer.lease, sizeof(c->answer.lease), "%s", lease);
    return c;
}

static void finish(struct call *c, const struct phx_err *err)
{
    if (err == NULL && c->is_ended)
        c->a->n_gateway--;
    if (err == NULL && c->a->o.publisher != NULL)
        phx_publisher_wake(c->a->o.publisher);
    c->fn(c->ctx, err == NULL ? &c->answer : NULL, err);
    phx_mem_free(c);
}

static void on_done(void *ctx, const struct phx_err *err)
{
    finish(ctx, err);
}

/* The lease, if it is this tenant's and a gateway's. */
static int find_lease(struct phx_tx *tx, const struct call *c, struct phx_arena *arena,
                      struct phx_ledger_row *begin, struct phx_ledger_row *end, struct phx_err *err)
{
    int rc = phx_ledger_find(tx, c->lease, arena, begin, end, err);

    if (rc == 0 && strcmp(begin->tenant, c->who.tenant) != 0)
        rc = PHX_E_NOTFOUND;
    return rc == PHX_E_NOTFOUND ? phx_fail(err, rc, "lease %.40s is not known", c->lease) : rc;
}

static int extend(struct phx_tx *tx, struct call *c, struct phx_err *err)
{
    struct phx_value values[2];

    c->answer.expires_ns = c->at_ns + c->a->o.gateway_ttl_ms * 1000000;
    values[0] = phx_value_int(c->answer.expires_ns);
    values[1] = phx_value_text(c->lease);
    return phx_tx_exec(tx, "UPDATE lease SET expires_ns = ? WHERE lease = ? AND kind = 'gateway'", values,
                       2, NULL, NULL, err);
}

/* ---- admit -------------------------------------------------------------------------------------------------- */

/* The key is there with the same digest: attach again, or tell what it used. */
static int reattach(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct call          *c = ctx;
    struct phx_arena     *arena = phx_arena_create();
    struct phx_ledger_row begin, end;
    int                   rc = find_lease(tx, c, arena, &begin, &end, err);

    if (rc == 0 && end.kind == PHX_LEDGER_NONE) {
        c->answer.decision = PHX_GATEWAY_ALLOWED;
        rc = extend(tx, c, err);
    } else if (rc == 0) {
        c->answer.decision = PHX_GATEWAY_REPLAYED;
        c->answer.usage = (struct phx_gateway_usage){end.prompt, end.cached, end.output, end.reasoning};
    }
    phx_arena_destroy(arena);
    return rc;
}

static void on_refused(void *ctx, struct phx_lease *lease, const struct phx_refusal *refusal)
{
    struct call *c = ctx;

    (void)lease;
    c->answer.decision = PHX_GATEWAY_REFUSED;
    c->answer.refusal = *refusal;
    finish(c, NULL);
}

static void on_admitted(void *ctx, const struct phx_err *err)
{
    struct call         *c = ctx;
    struct phx_lease    *l = c->admitted;
    struct phx_decision *d = &l->decision;

    if (err == NULL) {
        c->a->n_gateway++;
        c->answer.decision = d->is_overdraft ? PHX_GATEWAY_OVERDRAFT : PHX_GATEWAY_ALLOWED;
        c->answer.expires_ns = l->expires_ns;
        c->answer.budget_left = d->budget_left;
        c->answer.warning = d->warning_pct >= 100  ? "the licensed seats are used up"
                            : d->warning_pct >= 90 ? "90 % of the licensed seats are used"
                            : d->warning_pct >= 80 ? "80 % of the licensed seats are used"
                                                   : "";
        phx_hex_encode(c->answer.seat_id, sizeof(c->answer.seat_id), l->seat_id, sizeof(l->seat_id));
        memcpy(c->answer.lease, l->receipt, sizeof(l->receipt));
        finish(c, NULL);
    } else if (d->is_replayed) {
        memcpy(c->lease, d->found, sizeof(c->lease));
        (void)snprintf(c->answer.lease, sizeof(c->answer.lease), "%s", d->found);
        phx_store_submit(c->a->o.store, reattach, on_done, c);
    } else if (d->refusal.rule != NULL) {
        d->refusal.receipt = d->found;
        phx_refusal_record(c->a, &c->who, l->request_id, &d->refusal, on_refused, c);
    } else {
        phx_admission_note_failure(c->a, err);
        finish(c, err);
    }
    phx_lease_destroy(l);
}

/* The adapter of the store: the job's context is the lease, the callback's is the call. */
static int write_admit(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_intent_write(tx, ((struct call *)ctx)->admitted, err);
}

void phx_gateway_admit(struct phx_admission *a, const struct phx_gateway_admit *g, phx_gateway_fn fn,
                       void *ctx)
{
    struct call       *c = make_call(a, g->identity, "", fn, ctx);
    struct phx_lease  *l = phx_lease_create(a, g->identity);
    struct phx_refusal refusal;

    c->admitted = l;
    l->is_gateway = true;
    l->n_prompt = (int32_t)g->max_input;
    l->max_new = (int32_t)g->max_output;
    l->n_choices = 1;
    l->expires_ns = l->at_ns + a->o.gateway_ttl_ms * 1000000;
    l->end_user = phx_mem_strdup("");
    phx_sampling_init(&l->sampling);
    memcpy(l->digest, g->request_digest, sizeof(l->digest));
    phx_hex_encode(l->request_commit, sizeof(l->request_commit), l->digest, sizeof(l->digest));
    (void)snprintf(l->request_id, sizeof(l->request_id), "%s", g->request_id);
    (void)snprintf(l->endpoint, sizeof(l->endpoint), "gateway");
    (void)snprintf(l->purpose, sizeof(l->purpose), "%s", g->purpose);
    (void)snprintf(l->session, sizeof(l->session), "%s", g->session);
    (void)snprintf(l->idem_key, sizeof(l->idem_key), "%s", g->idempotency_key);
    if (strcmp(g->model, a->o.model_name) != 0)
        phx_refuse(&refusal, PHX_E_NOTFOUND, "request.model", "this model is not served here", -1);
    else if (phx_decide(a, l, &refusal)) {
        phx_store_submit(a->o.store, write_admit, on_admitted, c);
        return;
    }
    phx_refusal_record(a, &c->who, l->request_id, &refusal, on_refused, c);
    phx_lease_destroy(l);
}

/* ---- renew ---------------------------------------------------------------------------------------------------- */

static struct phx_ledger_row row_of(const struct call *c, const struct phx_ledger_row *begin,
                                    enum phx_ledger_kind kind)
{
    struct phx_ledger_row row = *begin;

    row.kind = kind;
    row.at_ns = c->at_ns;
    row.epoch = c->a->epoch;
    row.reserved = 0;
    row.prompt = c->usage.prompt;
    row.cached = c->usage.cached;
    row.output = row.upper = c->usage.output;
    row.reasoning = c->usage.reasoning;
    row.outcome = c->outcome;
    row.note = "";
    return row;
}

static int check_usage(const struct call *c, const struct phx_ledger_row *begin, struct phx_err *err)
{
    const struct phx_gateway_usage *u = &c->usage;

    if (u->prompt < 0 || u->cached < 0 || u->output < 0 || u->reasoning < 0 || u->cached > u->prompt ||
        u->reasoning > u->output)
        return phx_fail(err, PHX_E_INVALID,
                        "usage: counts must be 0 or more, cached within input, reasoning within output");
    if (u->prompt > begin->prompt || u->output > begin->reserved - begin->prompt)
        return phx_fail(err, PHX_E_INVALID,
                        "usage: %lld input and %lld output tokens are more than were reserved",
                        (long long)u->prompt, (long long)u->output);
    return 0;
}

static int write_renew(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct call          *c = ctx;
    struct phx_arena     *arena = phx_arena_create();
    struct phx_ledger_row begin, end, row;
    int                   rc = find_lease(tx, c, arena, &begin, &end, err);

    if (rc == 0 && end.kind != PHX_LEDGER_NONE)
        rc = phx_fail(err, PHX_E_STATE, "lease %.40s has ended (%s)", c->lease, end.outcome);
    if (rc == 0)
        rc = check_usage(c, &begin, err);
    if (rc == 0) {
        row = row_of(c, &begin, PHX_LEDGER_PROGRESS);
        rc = phx_ledger_put(tx, &row, err);
    }
    if (rc == 0)
        rc = extend(tx, c, err);
    c->answer.decision = PHX_GATEWAY_ALLOWED;
    phx_arena_destroy(arena);
    return rc;
}

void phx_gateway_renew(struct phx_admission *a, const struct phx_identity *who, const char *lease,
                       const struct phx_gateway_usage *so_far, phx_gateway_fn fn, void *ctx)
{
    struct call *c = make_call(a, who, lease, fn, ctx);

    c->usage = *so_far;
    phx_store_submit(a->o.store, write_renew, on_done, c);
}

/* ---- settle, cancel ------------------------------------------------------------------------------------------- */

/* A settlement that was sent twice: alike is fine, another is not. */
static int compare_end(const struct call *c, const struct phx_ledger_row *end, enum phx_ledger_kind kind,
                       struct phx_err *err)
{
    const struct phx_gateway_usage *u = &c->usage;

    if (end->kind == kind && end->prompt == u->prompt && end->cached == u->cached &&
        end->output == u->output && end->reasoning == u->reasoning && strcmp(end->outcome, c->outcome) == 0)
        return 0;
    return phx_fail(err, PHX_E_STATE, "lease %.40s was settled otherwise (%s, %lld output tokens)", c->lease,
                    end->outcome, (long long)end->output);
}

static int write_end(struct phx_tx *tx, struct call *c, enum phx_ledger_kind kind, struct phx_err *err)
{
    struct phx_arena       *arena = phx_arena_create();
    struct phx_ledger_row   begin, end, row;
    struct phx_result_facts facts = {&row, c->response_commit, "", "C"};
    int                     rc = find_lease(tx, c, arena, &begin, &end, err);

    if (rc == 0 && end.kind != PHX_LEDGER_NONE) {
        rc = compare_end(c, &end, kind, err);
    } else if (rc == 0) {
        rc = check_usage(c, &begin, err);
        row = row_of(c, &begin, kind);
        if (rc == 0)
            rc = phx_ledger_put(tx, &row, err);
        if (rc == 0)
            rc = phx_lease_forget(tx, c->lease, err);
        if (rc == 0)
            rc = phx_record_result(tx, &facts, err);
        c->is_ended = rc == 0;
    }
    c->answer.decision = PHX_GATEWAY_ALLOWED;
    phx_arena_destroy(arena);
    return rc;
}

static int write_settle(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return write_end(tx, ctx, PHX_LEDGER_COMMIT, err);
}

static int write_cancel(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return write_end(tx, ctx, PHX_LEDGER_VOID, err);
}

void phx_gateway_settle(struct phx_admission *a, const struct phx_identity *who, const char *lease,
                        const struct phx_gateway_usage *usage, const char *outcome,
                        const uint8_t *response_digest, phx_gateway_fn fn, void *ctx)
{
    struct call *c = make_call(a, who, lease, fn, ctx);

    c->usage = *usage;
    (void)snprintf(c->outcome, sizeof(c->outcome), "%s", outcome);
    if (response_digest != NULL)
        phx_hex_encode(c->response_commit, sizeof(c->response_commit), response_digest, 32);
    phx_store_submit(a->o.store, write_settle, on_done, c);
}

void phx_gateway_cancel(struct phx_admission *a, const struct phx_identity *who, const char *lease,
                        const char *reason, phx_gateway_fn fn, void *ctx)
{
    struct call *c = make_call(a, who, lease, fn, ctx);

    (void)snprintf(c->outcome, sizeof(c->outcome), "%s", reason);
    phx_store_submit(a->o.store, write_cancel, on_done, c);
}
