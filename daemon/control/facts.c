/* SPDX-License-Identifier: Apache-2.0
 * The licence as a client sees it. */
#include <string.h>

#include "daemon/control/job.h"
#include "daemon/ledger/ledger.h"
#include "daemon/license/license.h"
#include "daemon/seat/seat.h"
#include "daemon/time/time.h"

static const enum phx_rpc_license_state states[] = {
    [PHX_LICENSE_NONE] = PHX_RPC_LICENSE_NONE,
    [PHX_LICENSE_EARLY] = PHX_RPC_LICENSE_EARLY,
    [PHX_LICENSE_VALID] = PHX_RPC_LICENSE_VALID,
    [PHX_LICENSE_EXPIRING] = PHX_RPC_LICENSE_WARNING,
    [PHX_LICENSE_GRACE] = PHX_RPC_LICENSE_GRACE,
    [PHX_LICENSE_CONTINUITY] = PHX_RPC_LICENSE_CONTINUITY,
    [PHX_LICENSE_EXPIRED] = PHX_RPC_LICENSE_EXPIRED,
};

enum phx_rpc_license_state phx_control_license_state(int license_state)
{
    return states[license_state];
}

static void copy_limits(const struct phx_license_limits *limits, struct phx_rpc_license *out)
{
    out->seats = limits->seats;
    out->overdraft_pct = limits->overdraft_pct;
    out->indirect_users = limits->indirect_users;
    out->concurrent = limits->concurrent;
    out->nodes = limits->nodes;
    out->gpus = limits->gpus;
    out->tokens_per_month = limits->tokens_per_month;
}

/* The licence stays while the daemon runs, but the answer may be sent after another one was installed: copies. */
static void copy_models(struct phx_control_job *job, const struct phx_license_terms *t,
                        struct phx_rpc_license *out)
{
    struct phx_rpc_licensed_model *models =
        phx_arena_calloc(job->arena, (size_t)t->n_models, sizeof(*models));

    for (int32_t i = 0; i < t->n_models; i++)
        models[i] = (struct phx_rpc_licensed_model){
            .manifest_root = t->models[i].manifest_root,
            .policy = t->models[i].policy,
            .denied_purposes = t->models[i].denied_purposes,
            .n_denied_purposes = t->models[i].n_denied_purposes,
        };
    out->models = models;
    out->n_models = t->n_models;
}

static const char *enforce_name(enum phx_enforce enforce)
{
    static const char *const names[] = {"", "observe", "soft", "hard"};

    return names[enforce];
}

static void copy_terms(struct phx_control_job *job, const struct phx_license_terms *t,
                       struct phx_rpc_license *out)
{
    out->license_id = t->license_id;
    out->serial = t->serial;
    out->legal_name = t->legal_name;
    out->licensee_class = t->class_name;
    out->not_before_unix_s = t->not_before_ns / 1000000000;
    out->not_after_unix_s = t->not_after_ns / 1000000000;
    out->enforce = enforce_name(t->enforce);
    copy_limits(&t->limits, out);
    copy_models(job, t, out);
    if (out->state == PHX_RPC_LICENSE_VALID && strcmp(t->class_name, "evaluation") == 0)
        out->state = PHX_RPC_LICENSE_EVALUATION;
}

void phx_control_facts(struct phx_control_job *job, struct phx_rpc_license *out)
{
    static const struct phx_license_limits none = {-1, 0, -1, -1, -1, -1, -1};
    const struct phx_license              *l = phx_license_now(job->d->license);
    enum phx_clock_state                   clock = phx_time_state(job->d->time);
    char                                   text[256], period[8];

    phx_license_format(l, job->now_ns, text, sizeof(text));
    phx_period_format(job->now_ns, period);
    *out = (struct phx_rpc_license){
        .state = states[phx_license_state(l, job->now_ns)],
        .state_reason = phx_control_keep(job, text),
        .unit = "person-month",
        .period = phx_control_keep(job, period),
        .is_clock_suspect = clock >= PHX_CLOCK_SUSPECT,
        .clock_state = phx_clock_state_name(clock),
        .key_set_version = phx_license_key_set_version(job->d->license),
        .problem = phx_control_keep(job, phx_license_problem(job->d->license)),
    };
    copy_limits(&none, out);
    if (l != NULL)
        copy_terms(job, phx_license_terms(l), out);
    else if (*out->problem != '\0')
        out->state = PHX_RPC_LICENSE_INVALID;
}

/* Only a licence in force can be used too much. */
static void judge_use(struct phx_rpc_license *f)
{
    int64_t most = f->seats + f->seats * f->overdraft_pct / 100;

    if (f->seats < 0 || (f->state != PHX_RPC_LICENSE_VALID && f->state != PHX_RPC_LICENSE_WARNING &&
                         f->state != PHX_RPC_LICENSE_EVALUATION))
        return;
    if (f->seats_used >= most && f->seats_used > f->seats)
        f->state = PHX_RPC_LICENSE_OVER_LIMIT;
    else if (f->seats_used > f->seats)
        f->state = PHX_RPC_LICENSE_OVERDRAFT;
}

int phx_control_facts_seats(struct phx_tx *tx, struct phx_rpc_license *facts, struct phx_err *err)
{
    struct phx_seat_counts counts;
    int                    rc = phx_seat_count(tx, facts->period, &counts, err);

    if (rc != 0)
        return rc;
    facts->seats_used = counts.people;
    facts->indirect_used = counts.indirect;
    facts->overdraft_used = counts.overdraft;
    facts->exempt_used = counts.exempt;
    judge_use(facts);
    return 0;
}
