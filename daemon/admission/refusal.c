/* SPDX-License-Identifier: Apache-2.0
 * Requests that are refused, and times in which no record could be made: both are leaves. */
#include <stdio.h>
#include <string.h>

#include "daemon/admission/lease.h"
#include "daemon/metrics/metrics.h"
#include "daemon/time/time.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

void phx_admission_note_failure(struct phx_admission *a, const struct phx_err *err)
{
    phx_log(PHX_LOG_ERROR, "admission.record.fail", "reason=%s", err->text);
    if (a->gap_since_ns == 0)
        a->gap_since_ns = phx_time_now(a->o.time);
}

struct gap {
    int64_t from_ns, to_ns;
};

static int write_gap(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct gap *g = ctx;
    char              text[64];

    (void)snprintf(text, sizeof(text), "%lld", (long long)g->from_ns);
    return phx_audit_event(tx, "gap", "store.unavailable", text, "daemon",
                           "records could not be made durable since; requests were refused", g->to_ns, err);
}

static void on_gap(void *ctx, const struct phx_err *err)
{
    if (err != NULL)
        phx_log(PHX_LOG_ERROR, "admission.gap.fail", "reason=%s", err->text);
    phx_mem_free(ctx);
}

/* Records can be made again: say for how long they could not. */
void phx_admission_note_success(struct phx_admission *a)
{
    struct gap *g;

    if (a->gap_since_ns == 0)
        return;
    g = phx_mem_calloc(1, sizeof(*g));
    g->from_ns = a->gap_since_ns;
    g->to_ns = phx_time_now(a->o.time);
    a->gap_since_ns = 0;
    phx_store_submit(a->o.store, write_gap, on_gap, g);
}

/* ---- refusals ------------------------------------------------------------------------------------------ */

struct refused {
    struct phx_admission *a;
    struct phx_refusal    refusal;
    struct phx_err        text;
    char                  found[PHX_LEASE_BYTES];
    struct phx_identity   who;
    char                  request_id[65];
    int64_t               at_ns;
    phx_admission_fn      fn;
    void                 *ctx;
};

static int write_refusal(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct refused *f = ctx;
    struct phx_record     r;
    char                  receipt[PHX_RECEIPT_BYTES], user[65] = "";
    int rc = phx_content_pseudonym(tx, f->a->o.site_key, f->who.tenant, f->who.user, f->at_ns, user, err);

    if (rc != 0)
        return rc;
    phx_receipt_make(receipt);
    phx_record_init(&r);
    phx_record_int(&r, "at_ns", f->at_ns);
    phx_record_int(&r, "epoch", f->a->epoch);
    phx_record_str(&r, "key_id", f->who.key_id);
    phx_record_str(&r, "kind", "refusal");
    phx_record_str(&r, "receipt", receipt);
    phx_record_str(&r, "req_id", f->request_id);
    phx_record_str(&r, "rule", f->refusal.rule);
    phx_record_str(&r, "tenant", f->who.tenant);
    phx_record_str(&r, "user", user);
    phx_record_int(&r, "v", 1);
    return phx_audit_append(tx, "refusal", receipt, f->who.tenant, &r, err);
}

static void on_refusal(void *ctx, const struct phx_err *err)
{
    struct refused *f = ctx;

    if (err != NULL)
        phx_admission_note_failure(f->a, err);
    else
        phx_admission_note_success(f->a);
    f->fn(f->ctx, NULL, &f->refusal);
    phx_mem_free(f);
}

void phx_refusal_record(struct phx_admission *a, const struct phx_identity *who, const char *request_id,
                        const struct phx_refusal *refusal, phx_admission_fn fn, void *ctx)
{
    struct refused *f = phx_mem_calloc(1, sizeof(*f));
    char            labels[96];

    f->a = a;
    f->refusal = *refusal;
    (void)phx_fail(&f->text, refusal->code, "%s", refusal->text); /* a copy that outlives the lease */
    f->refusal.text = f->text.text;
    (void)snprintf(f->found, sizeof(f->found), "%s", refusal->receipt);
    f->refusal.receipt = f->found;
    f->who = *who;
    (void)snprintf(f->request_id, sizeof(f->request_id), "%s", request_id);
    f->at_ns = phx_time_now(a->o.time);
    f->fn = fn;
    f->ctx = ctx;
    if (a->o.metrics != NULL) {
        (void)snprintf(labels, sizeof(labels), "rule=\"%s\"", refusal->rule);
        phx_metrics_count(a->o.metrics, "phalanx_refusals_total", labels, 1);
    }
    phx_store_submit(a->o.store, write_refusal, on_refusal, f);
}
