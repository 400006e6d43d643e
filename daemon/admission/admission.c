/* SPDX-License-Identifier: Apache-2.0
 * The life of a lease on the loop: begin, progress, end. */
#include "daemon/admission/admission.h"

#include <event2/event.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>

#include "daemon/admission/lease.h"
#include "daemon/metrics/metrics.h"
#include "daemon/time/time.h"
#include "rpc/base/clock.h"
#include "rpc/base/hash.h"
#include "rpc/base/id.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "rpc/base/table.h"

enum { TENANTS_MAX = 65536, PROGRESS_TOKENS = 256 };

static const int64_t PROGRESS_NS = 1000000000;

/* ---- leases ------------------------------------------------------------------------------------------- */

static void count_tenant(struct phx_admission *a, const char *tenant, int32_t add)
{
    int32_t *n = phx_table_get_str(a->tenants, tenant);

    if (n == NULL) {
        n = phx_mem_calloc(1, sizeof(*n));
        if (phx_table_set_str(a->tenants, tenant, n) != 0) { /* full: that many tenants are active at once */
            phx_mem_free(n);
            return;
        }
    }
    *n += add;
    if (*n <= 0)
        phx_mem_free(phx_table_remove_str(a->tenants, tenant));
}

static void gauge(const struct phx_admission *a)
{
    if (a->o.metrics != NULL)
        phx_metrics_gauge(a->o.metrics, "phalanx_admissions_active", "", a->n_active + a->n_gateway);
}

struct phx_lease *phx_lease_create(struct phx_admission *a, const struct phx_identity *who)
{
    struct phx_lease *l = phx_mem_calloc(1, sizeof(*l));

    l->a = a;
    l->who = *who;
    l->at_ns = phx_time_now(a->o.time);
    l->clock_state = phx_clock_state_name(phx_time_state(a->o.time));
    l->decision.budget_left = -1;
    phx_receipt_make(l->receipt);
    phx_id_random(l->salt, sizeof(l->salt));
    return l;
}

static void link_lease(struct phx_lease *l)
{
    struct phx_admission *a = l->a;

    l->next = a->first;
    if (a->first != NULL)
        a->first->prev = l;
    a->first = l;
    a->n_active++;
    count_tenant(a, l->who.tenant, 1);
    gauge(a);
}

static void unlink_lease(struct phx_lease *l)
{
    struct phx_admission *a = l->a;

    if (l->prev != NULL)
        l->prev->next = l->next;
    else
        a->first = l->next;
    if (l->next != NULL)
        l->next->prev = l->prev;
    a->n_active--;
    count_tenant(a, l->who.tenant, -1);
    gauge(a);
}

/* The prompt is not kept in memory longer than it is needed. */
static void forget_prompt(struct phx_lease *l)
{
    if (l->prompt != NULL)
        phx_secret_wipe(l->prompt, (size_t)l->n_prompt * sizeof(*l->prompt));
    phx_mem_free(l->prompt);
    l->prompt = NULL;
    phx_mem_free((void *)l->sampling.bias);
    phx_mem_free((void *)l->sampling.stop_ids);
    l->sampling.bias = NULL;
    l->sampling.stop_ids = NULL;
}

void phx_lease_destroy(struct phx_lease *l)
{
    forget_prompt(l);
    if (l->response.data != NULL)
        phx_secret_wipe(l->response.data, l->response.size);
    phx_buf_fini(&l->response);
    phx_secret_wipe(l->salt, sizeof(l->salt));
    phx_mem_free(l->end_user);
    phx_mem_free(l);
}

const char *phx_lease_receipt(const struct phx_lease *lease)
{
    return lease->receipt;
}

/* ---- the beginning --------------------------------------------------------------------------------------- */

static void tell_seats(const struct phx_lease *l)
{
    struct phx_metrics *m = l->a->o.metrics;

    if (!l->decision.has_seats)
        return;
    phx_log(l->decision.warning_pct >= 100 ? PHX_LOG_WARN : PHX_LOG_INFO, "licence.seat.taken",
            "people=%lld overdraft=%lld indirect=%lld limit=%lld used_pct=%d",
            (long long)l->decision.seats.people, (long long)l->decision.seats.overdraft,
            (long long)l->decision.seats.indirect, (long long)l->question.limits.seats,
            (int)l->decision.warning_pct);
    if (m == NULL)
        return;
    phx_metrics_gauge(m, "phalanx_seats_used", "", (double)l->decision.seats.people);
    phx_metrics_gauge(m, "phalanx_seats_limit", "", (double)l->question.limits.seats);
}

static void give_back_rate(struct phx_lease *l, int64_t used)
{
    char name[PHX_USER_NAME_MAX];

    if (l->a->tokens == NULL)
        return;
    phx_rate_name(&l->who, name);
    phx_rate_give(l->a->tokens, name, (int64_t)l->n_prompt + (int64_t)l->max_new * l->n_choices - used);
}

static void refuse_lease(struct phx_lease *l)
{
    struct phx_decision *d = &l->decision;

    d->refusal.receipt = d->found;
    give_back_rate(l, 0);
    phx_refusal_record(l->a, &l->who, l->request_id, &d->refusal, l->begun, l->ctx);
}

static void on_intent(void *ctx, const struct phx_err *err)
{
    struct phx_lease     *l = ctx;
    struct phx_admission *a = l->a;

    if (err == NULL) {
        forget_prompt(l);
        l->progress_ns = phx_clock_mono_ns();
        phx_admission_note_success(a);
        if (a->o.publisher != NULL)
            phx_publisher_wake(a->o.publisher);
        tell_seats(l);
        l->begun(l->ctx, l, NULL);
        return;
    }
    unlink_lease(l);
    if (l->decision.refusal.rule != NULL) {
        refuse_lease(l);
    } else {
        struct phx_refusal refusal;

        phx_admission_note_failure(a, err);
        phx_refuse(&refusal, PHX_E_BUSY, "store.unavailable",
                   "the record of this request cannot be made durable", 1000);
        refusal.receipt = "";
        l->begun(l->ctx, NULL, &refusal);
    }
    phx_lease_destroy(l);
}

static void copy_sampling(struct phx_lease *l, const struct phx_sampling *s)
{
    l->sampling = *s;
    l->sampling.bias = s->n_bias == 0 ? NULL : phx_mem_dup(s->bias, (size_t)s->n_bias * sizeof(*s->bias));
    l->sampling.stop_ids = s->n_stop_ids == 0
                               ? NULL
                               : phx_mem_dup(s->stop_ids, (size_t)s->n_stop_ids * sizeof(*s->stop_ids));
}

/* What makes two requests the same one, for an idempotency key. */
static void digest_request(struct phx_lease *l)
{
    struct phx_buf b;

    if (l->idem_key[0] == '\0')
        return;
    phx_buf_init(&b, 0);
    phx_buf_printf(&b, "%s\n%s\n", l->endpoint, l->a->o.model_name);
    phx_request_json(l, &b);
    phx_sha256(b.data, b.size, l->digest);
    phx_secret_wipe(b.data, b.size);
    phx_buf_fini(&b);
}

static struct phx_lease *make_lease(struct phx_admission *a, const struct phx_admission_facts *f)
{
    struct phx_lease *l = phx_lease_create(a, f->identity);

    l->n_prompt = f->n_prompt;
    l->max_new = f->max_new;
    l->n_choices = f->n_choices;
    l->prompt = phx_mem_dup(f->prompt, (size_t)f->n_prompt * sizeof(*f->prompt));
    copy_sampling(l, f->sampling);
    l->end_user = phx_mem_strdup(f->end_user != NULL ? f->end_user : "");
    (void)snprintf(l->request_id, sizeof(l->request_id), "%s", f->request_id);
    (void)snprintf(l->endpoint, sizeof(l->endpoint), "%s", f->endpoint);
    (void)snprintf(l->purpose, sizeof(l->purpose), "%s", f->purpose != NULL ? f->purpose : "");
    (void)snprintf(l->idem_key, sizeof(l->idem_key), "%s",
                   f->idempotency_key != NULL ? f->idempotency_key : "");
    phx_audit_commit(l->salt, f->prompt, (size_t)f->n_prompt, l->request_commit);
    digest_request(l);
    return l;
}

bool phx_admission_begin(struct phx_admission *a, const struct phx_admission_facts *f,
                         phx_admission_fn fn, void *ctx)
{
    struct phx_lease  *l = make_lease(a, f);
    struct phx_refusal refusal;

    l->begun = fn;
    l->ctx = ctx;
    if (!phx_decide(a, l, &refusal)) {
        phx_refusal_record(a, &l->who, l->request_id, &refusal, fn, ctx);
        phx_lease_destroy(l);
        return false;
    }
    link_lease(l);
    phx_store_submit(a->o.store, phx_intent_write, on_intent, l);
    return true;
}

/* ---- progress --------------------------------------------------------------------------------------------- */

struct progress {
    struct phx_ledger_row row;
    char                  lease[PHX_RECEIPT_BYTES];
    struct phx_identity   who;
    char                  request_id[65];
};

static int write_progress(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    return phx_ledger_put(tx, &((struct progress *)ctx)->row, err);
}

static void on_progress(void *ctx, const struct phx_err *err)
{
    if (err != NULL) /* the reservation still stands: a crash would settle at an older number */
        phx_log(PHX_LOG_WARN, "admission.progress.fail", "reason=%s", err->text);
    phx_mem_free(ctx);
}

void phx_lease_progress(struct phx_lease *l, int32_t n_output, int32_t n_reasoning)
{
    int64_t          now = phx_clock_mono_ns();
    struct progress *p;

    if (now - l->progress_ns < PROGRESS_NS && n_output - l->n_written < PROGRESS_TOKENS)
        return;
    l->progress_ns = now;
    l->n_written = n_output;
    p = phx_mem_calloc(1, sizeof(*p));
    memcpy(p->lease, l->receipt, sizeof(p->lease));
    memcpy(p->request_id, l->request_id, sizeof(p->request_id));
    p->who = l->who;
    p->row = (struct phx_ledger_row){
        .kind = PHX_LEDGER_PROGRESS,
        .lease = p->lease,
        .at_ns = phx_time_now(l->a->o.time),
        .epoch = l->a->epoch,
        .tenant = p->who.tenant,
        .user = p->who.user,
        .key_id = p->who.key_id,
        .cost_centre = p->who.cost_centre,
        .model = l->a->o.model_name,
        .request_id = p->request_id,
        .prompt = l->n_prompt,
        .output = n_output,
        .reasoning = n_reasoning,
        .outcome = "",
        .note = "",
    };
    phx_store_submit(l->a->o.store, write_progress, on_progress, p);
}

/* ---- the end ----------------------------------------------------------------------------------------------- */

static void on_result(void *ctx, const struct phx_err *err)
{
    struct phx_lease     *l = ctx;
    struct phx_admission *a = l->a;

    if (err != NULL)
        phx_admission_note_failure(a, err);
    else if (a->o.publisher != NULL)
        phx_publisher_wake(a->o.publisher);
    unlink_lease(l);
    l->settled(l->ctx, err);
    phx_lease_destroy(l);
}

/* Each choice behind its length, so that no two lists of choices look alike. */
static void commit_response(struct phx_lease *l, const struct phx_outcome *o)
{
    struct phx_buf b;

    phx_buf_init(&b, 0);
    phx_response_json(o, &b);
    phx_audit_commit_bytes(l->salt, b.data, b.size, l->response_commit);
    if (l->privacy == PHX_PRIVACY_COMMIT_ONLY) {
        phx_secret_wipe(b.data, b.size);
        phx_buf_fini(&b);
    } else
        l->response = b;
}

void phx_lease_end(struct phx_lease *l, const struct phx_outcome *o, phx_settled_fn fn, void *ctx)
{
    l->settled = fn;
    l->ctx = ctx;
    for (int32_t i = 0; i < o->n_choices; i++)
        l->n_output += o->choices[i].n;
    l->n_reasoning = o->n_reasoning;
    l->n_cached = o->n_cached;
    l->queue_ms = o->queue_ms;
    l->first_ms = o->first_token_ms;
    l->total_ms = o->total_ms;
    l->at_ns = phx_time_now(l->a->o.time);
    (void)snprintf(l->finish, sizeof(l->finish), "%s", o->finish);
    commit_response(l, o);
    give_back_rate(l, l->n_prompt + l->n_output);
    phx_store_submit(l->a->o.store, phx_result_write, on_result, l);
}

/* ---- opening ------------------------------------------------------------------------------------------------ */

static void watch_space(struct phx_admission *a)
{
    struct statvfs s;
    bool           is_full;

    if (a->o.space_dir[0] == '\0' || statvfs(a->o.space_dir, &s) != 0)
        return;
    is_full = (uint64_t)s.f_bavail * s.f_frsize < (uint64_t)a->o.keep_free_bytes;
    if (is_full != a->is_full)
        phx_log(is_full ? PHX_LOG_ERROR : PHX_LOG_INFO, "admission.space",
                "dir=%s free_mb=%llu is_full=%d", a->o.space_dir,
                (unsigned long long)(s.f_bavail * s.f_frsize >> 20), (int)is_full);
    a->is_full = is_full;
}

static void on_expired(void *ctx, const struct phx_err *err)
{
    struct phx_admission *a = ctx;

    a->is_expiring = false;
    if (err != NULL)
        phx_admission_note_failure(a, err);
    else
        a->n_gateway -= a->n_expired;
    gauge(a);
}

static void on_tick(evutil_socket_t fd, short what, void *ctx)
{
    struct phx_admission *a = ctx;

    (void)fd;
    (void)what;
    watch_space(a);
    (void)phx_time_now(a->o.time); /* the high-water mark moves on also while nobody asks */
    if (a->n_gateway == 0 || a->is_expiring)
        return;
    a->is_expiring = true;
    a->job_ns = phx_time_now(a->o.time);
    phx_store_submit(a->o.store, phx_expire_write, on_expired, a);
}

static void copy_options(struct phx_admission *a, const struct phx_admission_options *o)
{
    const char **texts[] = {&a->o.engine.build, &a->o.engine.config_sha256, &a->o.engine.backend,
                            &a->o.engine.isa, &a->o.engine.compute, &a->o.engine.dtype,
                            &a->o.engine.kv_dtype, &a->o.engine.replay_class,
                            &a->o.model_name, &a->o.aup_sha256, &a->o.space_dir};

    a->arena = phx_arena_create();
    a->o = *o;
    for (size_t i = 0; i < sizeof(texts) / sizeof(texts[0]); i++)
        *texts[i] = phx_arena_strdup(a->arena, *texts[i] != NULL ? *texts[i] : "");
    memcpy(a->site_key, o->site_key, sizeof(a->site_key));
    a->o.site_key = a->site_key;
}

int phx_admission_open(const struct phx_admission_options *o, struct phx_admission **out,
                       struct phx_err *err)
{
    const struct timeval  second = {1, 0};
    struct phx_admission *a = phx_mem_calloc(1, sizeof(*a));
    int                   rc;

    *out = NULL;
    copy_options(a, o);
    a->tenants = phx_table_create(TENANTS_MAX);
    if (o->requests_per_minute > 0)
        a->requests = phx_rate_create(o->requests_per_minute);
    if (o->tokens_per_minute > 0)
        a->tokens = phx_rate_create(o->tokens_per_minute);
    a->tick = event_new(o->base, -1, EV_PERSIST, on_tick, a);
    phx_assert(a->tick != NULL && event_add(a->tick, &second) == 0);
    a->job_ns = phx_time_now(o->time);
    rc = phx_store_run(o->store, phx_recover_write, a, err);
    if (rc != 0) {
        phx_admission_close(a);
        return rc;
    }
    watch_space(a);
    *out = a;
    return 0;
}

void phx_admission_close(struct phx_admission *a)
{
    size_t cursor = 0;
    void  *n;

    if (a == NULL)
        return;
    event_free(a->tick);
    while ((n = phx_table_next(a->tenants, &cursor)) != NULL)
        phx_mem_free(n);
    phx_table_destroy(a->tenants);
    phx_rate_destroy(a->requests);
    phx_rate_destroy(a->tokens);
    phx_secret_wipe(a->site_key, sizeof(a->site_key));
    phx_arena_destroy(a->arena);
    phx_mem_free(a);
}

struct model_event {
    int64_t at_ns;
    char    root[80], parent[80];
};

static int write_model(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    const struct model_event *m = ctx;

    return phx_audit_event(tx, "model", "model.load", m->root, "daemon", m->parent, m->at_ns, err);
}

static void on_model(void *ctx, const struct phx_err *err)
{
    if (err != NULL)
        phx_log(PHX_LOG_ERROR, "admission.model.fail", "reason=%s", err->text);
    phx_mem_free(ctx);
}

void phx_admission_set_model(struct phx_admission *a, const char *manifest_root, const char *parent_root)
{
    struct model_event *m = phx_mem_calloc(1, sizeof(*m));

    (void)snprintf(a->manifest_root, sizeof(a->manifest_root), "%s", manifest_root);
    (void)snprintf(a->parent_root, sizeof(a->parent_root), "%s", parent_root);
    memcpy(m->root, a->manifest_root, sizeof(m->root));
    memcpy(m->parent, a->parent_root, sizeof(m->parent));
    m->at_ns = phx_time_now(a->o.time);
    phx_store_submit(a->o.store, write_model, on_model, m);
}

void phx_admission_set_places(struct phx_admission *a, int32_t n_hosts, int32_t n_gpus)
{
    a->n_hosts = n_hosts;
    a->n_gpus = n_gpus;
}

int32_t phx_admission_active(const struct phx_admission *a)
{
    return a->n_active + a->n_gateway;
}

int64_t phx_admission_epoch(const struct phx_admission *a)
{
    return a->epoch;
}
