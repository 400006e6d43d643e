/* SPDX-License-Identifier: Apache-2.0
 * Admission for outside gateways: the same rules as for requests over HTTP (daemon/admission/gateway.c). */
#include <stdio.h>
#include <string.h>

#include "daemon/admission/admission.h"
#include "daemon/control/job.h"
#include "rpc/base/id.h"

/* Who is admitted: the verified caller or the end user whose token came along.  A name in the request is
 * nobody's identity; it must be the caller's own, or none. */
static int check_caller(const struct phx_control_job *job, const struct phx_rpc_admit *a, struct phx_err *err)
{
    if (a->tenant[0] != '\0' && strcmp(a->tenant, job->who.tenant) != 0)
        return phx_fail(err, PHX_E_DENIED, "tenant: '%.64s' is not the caller's", a->tenant);
    if (a->user[0] != '\0' && strcmp(a->user, job->who.user) != 0)
        return phx_fail(err, PHX_E_DENIED,
                        "user: must be the verified one; send the end user's token as metadata "
                        "x-phalanx-on-behalf-of");
    if (a->cost_centre[0] != '\0' && strcmp(a->cost_centre, job->who.cost_centre) != 0)
        return phx_fail(err, PHX_E_DENIED, "cost_centre: must be that of the caller's key");
    if (a->max_input_tokens > PHX_RPC_TOKENS_MAX || a->max_output_tokens > PHX_RPC_TOKENS_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "max_input_tokens, max_output_tokens: at most %d each",
                        PHX_RPC_TOKENS_MAX);
    if (a->idempotency_key[0] != '\0' && a->request_digest.size != PHX_RPC_DIGEST_BYTES)
        return phx_fail(err, PHX_E_INVALID, "request_digest: 32 bytes are needed with an idempotency key");
    return 0;
}

static void refuse(struct phx_control_job *job, const struct phx_refusal *r)
{
    struct phx_err err = {0};

    (void)phx_fail(&err, r->code, "%s (rule %s)", r->text, r->rule); /* told */
    if (job->call != NULL)
        phx_rpc_refuse(job->call, &err, r->rule, r->retry_after_ms);
    phx_control_end(job);
}

static struct phx_rpc_lease_usage usage_of(const struct phx_gateway_usage *u)
{
    return (struct phx_rpc_lease_usage){u->prompt, u->cached, u->output, u->reasoning};
}

static void on_admitted(void *ctx, const struct phx_gateway_answer *a, const struct phx_err *err)
{
    static const enum phx_rpc_decision decisions[] = {
        [PHX_GATEWAY_ALLOWED] = PHX_RPC_DECISION_ALLOWED,
        [PHX_GATEWAY_OVERDRAFT] = PHX_RPC_DECISION_OVERDRAFT,
        [PHX_GATEWAY_REPLAYED] = PHX_RPC_DECISION_REPLAYED,
    };
    struct phx_control_job      *job = ctx;
    struct phx_rpc_admit_answer *out = &job->answer.u.admit;
    const char                 **warnings;

    if (err != NULL) {
        phx_control_fail(job, err, 1000);
        return;
    }
    if (a->decision == PHX_GATEWAY_REFUSED) {
        refuse(job, &a->refusal);
        return;
    }
    warnings = phx_arena_calloc(job->arena, 1, sizeof(*warnings));
    warnings[0] = a->warning;
    *out = (struct phx_rpc_admit_answer){
        .decision = decisions[a->decision],
        .lease_id = a->lease,
        .expires_unix_ns = a->expires_ns,
        .seat_id = a->seat_id,
        .budget_left_tokens = a->budget_left,
        .usage = usage_of(&a->usage),
        .warnings = warnings,
        .n_warnings = a->warning[0] != '\0',
    };
    phx_control_reply(job);
}

static void admit(struct phx_control_job *job, const struct phx_rpc_admit *a)
{
    static const uint8_t no_digest[PHX_RPC_DIGEST_BYTES];
    char                 request_id[33];
    struct phx_err       err = {0};
    struct phx_gateway_admit g = {
        .identity = &job->who,
        .request_id = request_id,
        .model = a->model,
        .purpose = a->purpose,
        .idempotency_key = a->idempotency_key,
        .session = a->session,
        .request_digest = a->request_digest.size == PHX_RPC_DIGEST_BYTES ? a->request_digest.data : no_digest,
        .max_input = a->max_input_tokens,
        .max_output = a->max_output_tokens,
    };

    if (check_caller(job, a, &err) != 0) {
        phx_control_fail(job, &err, -1);
        return;
    }
    phx_id_hex(request_id, sizeof(request_id), 16);
    phx_gateway_admit(job->d->admission, &g, on_admitted, job);
}

/* ---- the open lease --------------------------------------------------------------------------------------- */

static struct phx_gateway_usage usage_from(const struct phx_rpc_lease_usage *u)
{
    return (struct phx_gateway_usage){u->input_tokens, u->cached_input_tokens, u->output_tokens,
                                      u->reasoning_tokens};
}

static void on_renewed(void *ctx, const struct phx_gateway_answer *a, const struct phx_err *err)
{
    struct phx_control_job *job = ctx;

    if (err == NULL)
        job->answer.u.renew.expires_unix_ns = a->expires_ns;
    phx_control_finish(job, err);
}

static void on_settled(void *ctx, const struct phx_gateway_answer *a, const struct phx_err *err)
{
    struct phx_control_job *job = ctx;

    if (err == NULL)
        job->answer.u.settle.receipt_id = phx_control_keep(job, a->lease);
    phx_control_finish(job, err);
}

static void on_cancelled(void *ctx, const struct phx_gateway_answer *a, const struct phx_err *err)
{
    (void)a; /* the answer has no fields */
    phx_control_finish(ctx, err);
}

void phx_control_admission(struct phx_control_job *job, const struct phx_rpc_request *request)
{
    struct phx_admission    *a = job->d->admission;
    struct phx_gateway_usage usage;

    switch (request->method) {
    case PHX_RPC_ADMIT: admit(job, &request->u.admit); break;
    case PHX_RPC_RENEW:
        usage = usage_from(&request->u.renew.so_far);
        phx_gateway_renew(a, &job->who, request->u.renew.lease_id, &usage, on_renewed, job);
        break;
    case PHX_RPC_SETTLE: {
        const struct phx_rpc_settle *s = &request->u.settle;

        usage = usage_from(&s->usage);
        phx_gateway_settle(a, &job->who, s->lease_id, &usage, s->outcome,
                           s->response_digest.size == PHX_RPC_DIGEST_BYTES ? s->response_digest.data : NULL,
                           on_settled, job);
        break;
    }
    default:
        phx_gateway_cancel(a, &job->who, request->u.cancel_lease.lease_id, request->u.cancel_lease.reason,
                           on_cancelled, job);
    }
}
