/* SPDX-License-Identifier: Apache-2.0
 * The leaves of a request (docs/audit.md has the schema).  Keys in ascending order; integers and strings. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/admission/lease.h"

static int64_t millionths(float x)
{
    return (int64_t)((double)x * 1e6);
}

static void put_asked(struct phx_record *r, const struct phx_lease *l)
{
    char hash[65] = "";

    if (l->idem_key[0] != '\0')
        phx_audit_commit_bytes(l->salt, l->idem_key, strlen(l->idem_key), hash);
    phx_record_open(r, "asked");
    phx_record_str(r, "api", l->endpoint);
    phx_record_str(r, "idem_key_commit", hash);
    phx_record_int(r, "max_new", l->max_new);
    phx_record_int(r, "n_choices", l->n_choices);
    phx_record_int(r, "n_in", l->n_prompt);
    phx_record_str(r, "req_id", l->request_id);
    phx_record_str(r, "request_commit", l->request_commit);
    phx_record_close(r);
}

static void put_engine(struct phx_record *r, const struct phx_admission_engine *e)
{
    phx_record_open(r, "engine");
    phx_record_str(r, "backend", e->backend);
    phx_record_str(r, "build", e->build);
    phx_record_str(r, "compute", e->compute);
    phx_record_str(r, "config_sha256", e->config_sha256);
    phx_record_str(r, "dtype", e->dtype);
    phx_record_str(r, "isa", e->isa);
    phx_record_str(r, "kv_dtype", e->kv_dtype);
    phx_record_int(r, "pp", e->pp);
    phx_record_int(r, "prefix_cache", e->has_prefix_cache);
    phx_record_str(r, "replay_class", e->replay_class);
    phx_record_int(r, "tp", e->tp);
    phx_record_close(r);
}

static void put_rules(struct phx_record *r, const struct phx_lease *l)
{
    phx_record_open(r, "rules");
    phx_record_str(r, "admission", l->decision.is_overdraft ? "overdraft" : "allow");
    phx_record_int(r, "budget_left", l->decision.budget_left);
    phx_record_open(r, "guard"); /* the verdict of a guard model, when one is served */
    phx_record_str(r, "name", "");
    phx_record_str(r, "verdict", "");
    phx_record_str(r, "version", "");
    phx_record_close(r);
    phx_record_int(r, "key_set", l->key_set_version);
    phx_record_str(r, "licence", l->license_digest);
    phx_record_int(r, "licence_serial", l->license_serial);
    phx_record_str(r, "licence_state", phx_license_state_name(l->question.state));
    phx_record_str(r, "policy", l->policy);
    phx_record_close(r);
}

/* Reals in millionths. */
static void put_sample(struct phx_record *r, const struct phx_sampling *s)
{
    char seed[24];

    (void)snprintf(seed, sizeof(seed), "%" PRIu64, s->seed);
    phx_record_open(r, "sample");
    phx_record_int(r, "frequency_penalty_e6", millionths(s->frequency_penalty));
    phx_record_int(r, "ignore_eos", s->ignore_eos);
    phx_record_int(r, "min_p_e6", millionths(s->min_p));
    phx_record_int(r, "n_bias", s->n_bias);
    phx_record_int(r, "n_stop_ids", s->n_stop_ids);
    phx_record_int(r, "presence_penalty_e6", millionths(s->presence_penalty));
    phx_record_int(r, "repetition_penalty_e6", millionths(s->repetition_penalty));
    phx_record_str(r, "rng", "philox4x32-10");
    phx_record_str(r, "seed", seed);
    phx_record_int(r, "temperature_e6", millionths(s->temperature));
    phx_record_int(r, "top_k", s->top_k);
    phx_record_int(r, "top_p_e6", millionths(s->top_p));
    phx_record_close(r);
}

static void put_who(struct phx_record *r, const struct phx_lease *l)
{
    static const char *const auth[] = {"", "key", "certificate", "token"};

    phx_record_open(r, "who");
    phx_record_str(r, "aup_hash", l->aup_hash);
    phx_record_str(r, "auth", auth[l->who.auth]);
    phx_record_str(r, "cost_centre", l->who.cost_centre);
    phx_record_str(r, "end_user", l->end_user);
    phx_record_int(r, "is_person", l->who.is_person);
    phx_record_str(r, "issuer", l->who.issuer);
    phx_record_str(r, "key_id", l->who.key_id);
    phx_record_str(r, "purpose", l->purpose);
    phx_record_str(r, "service", l->who.service);
    phx_record_str(r, "tenant", l->who.tenant);
    phx_record_str(r, "user", l->pseudonym);
    phx_record_close(r);
}

int phx_record_intent(struct phx_tx *tx, const struct phx_lease *l, const char *content_sha256,
                      struct phx_err *err)
{
    const struct phx_admission *a = l->a;
    struct phx_record           r;

    phx_record_init(&r);
    put_asked(&r, l);
    phx_record_int(&r, "at_ns", l->at_ns);
    phx_record_str(&r, "clock", l->clock_state);
    put_engine(&r, &a->o.engine);
    phx_record_int(&r, "epoch", a->epoch);
    phx_record_str(&r, "kind", "intent");
    phx_record_open(&r, "model");
    phx_record_str(&r, "manifest_root", a->manifest_root);
    phx_record_str(&r, "name", a->o.model_name);
    phx_record_close(&r);
    phx_record_str(&r, "receipt", l->receipt);
    put_rules(&r, l);
    put_sample(&r, &l->sampling);
    phx_record_open(&r, "state");
    phx_record_str(&r, "content_sha256", content_sha256);
    phx_record_int(&r, "keep_until_ns", l->keep_until_ns);
    phx_record_str(&r, "privacy", l->is_gateway ? "gateway" : phx_privacy_name(l->privacy));
    phx_record_close(&r);
    phx_record_int(&r, "v", 1);
    put_who(&r, l);
    return phx_audit_append(tx, "intent", l->receipt, l->who.tenant, &r, err);
}

int phx_record_result(struct phx_tx *tx, const struct phx_result_facts *f, struct phx_err *err)
{
    const struct phx_ledger_row *row = f->row;
    struct phx_record            r;

    phx_record_init(&r);
    phx_record_int(&r, "at_ns", row->at_ns);
    phx_record_open(&r, "cost");
    phx_record_int(&r, "cached", row->cached);
    phx_record_int(&r, "compute_ms", row->compute_ms);
    phx_record_int(&r, "output", row->output);
    phx_record_int(&r, "prompt", row->prompt);
    phx_record_int(&r, "queue_ms", row->queue_ms);
    phx_record_int(&r, "reasoning", row->reasoning);
    phx_record_int(&r, "upper", row->upper);
    phx_record_close(&r);
    phx_record_int(&r, "epoch", row->epoch);
    phx_record_str(&r, "finish", row->outcome);
    phx_record_str(&r, "kind", "result");
    phx_record_str(&r, "ledger", phx_ledger_kind_name(row->kind));
    phx_record_open(&r, "out");
    phx_record_str(&r, "content_sha256", f->content_sha256);
    phx_record_str(&r, "replay_class", f->replay_class);
    phx_record_str(&r, "response_commit", f->response_commit);
    phx_record_close(&r);
    phx_record_str(&r, "receipt", row->lease);
    phx_record_open(&r, "timing");
    phx_record_int(&r, "first_ms", row->first_ms);
    phx_record_int(&r, "total_ms", row->total_ms);
    phx_record_close(&r);
    phx_record_int(&r, "v", 1);
    return phx_audit_append(tx, "result", row->lease, row->tenant, &r, err);
}
