/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/admission: a lease, and the jobs that make its records. */
#ifndef PHX_DAEMON_ADMISSION_LEASE_H
#define PHX_DAEMON_ADMISSION_LEASE_H

#include "daemon/admission/admission.h"
#include "daemon/admission/rate.h"
#include "daemon/audit/audit.h"
#include "daemon/content/content.h"
#include "daemon/ledger/ledger.h"
#include "daemon/license/license.h"
#include "daemon/seat/seat.h"
#include "daemon/store/store.h"

enum { PHX_USER_NAME_MAX = PHX_KEY_NAME_MAX + PHX_SUBJECT_MAX + 2 };

/* What the transaction decided; read on the loop when it is over. */
struct phx_decision {
    struct phx_refusal refusal;  /* rule "" = admitted */
    struct phx_err     why; /* keeps the text of `refusal` */
    char               found[PHX_LEASE_BYTES]; /* lease that holds the idempotency key */
    bool               is_overdraft, is_replayed;
    int32_t            warning_pct;
    int64_t            budget_left;
    struct phx_seat_counts seats; /* read when a seat was added */
    bool               has_seats;
};

struct phx_lease {
    struct phx_lease     *prev, *next;
    struct phx_admission *a;
    struct phx_identity   who;
    char                  receipt[PHX_RECEIPT_BYTES];
    char                  request_id[65], endpoint[33], purpose[65], session[65];
    char                  idem_key[PHX_IDEM_KEY_MAX + 1];
    uint8_t               digest[32]; /* of the request, for its idempotency key */
    char                 *end_user;
    uint8_t               salt[PHX_SALT_BYTES];
    char                  request_commit[65], response_commit[65];
    int32_t              *prompt; /* until the intent is durable */
    int32_t               n_prompt, max_new, n_choices;
    struct phx_sampling   sampling; /* bias and stop lists: owned copies until the intent is durable */
    bool                  is_gateway;
    int64_t               expires_ns; /* of a gateway's */
    int64_t               at_ns;      /* trusted time of the record being made */
    const char           *clock_state;
    /* of the licence, as it was when the loop decided */
    struct phx_license_question question;
    uint8_t               seat_salt[32];
    bool                  has_license;
    int64_t               license_serial, key_set_version;
    char                  license_digest[65], policy[65];
    struct phx_decision   decision;
    enum phx_privacy      privacy;
    int64_t               keep_until_ns;
    char                  aup_hash[65], pseudonym[65], replay_class[2];
    uint8_t               seat_id[PHX_SEAT_ID_BYTES];
    phx_admission_fn      begun;
    phx_settled_fn        settled;
    void                 *ctx;
    /* progress and the end */
    int64_t               progress_ns, n_written;
    struct phx_buf        response; /* canonical JSON of the tokens, when they are kept */
    int64_t               n_output, n_reasoning, n_cached;
    int64_t               queue_ms, first_ms, total_ms;
    char                  finish[33];
};

struct phx_admission {
    struct phx_admission_options o; /* strings in the arena */
    struct phx_arena *arena;
    uint8_t           site_key[PHX_CONTENT_KEY_BYTES];
    char              manifest_root[80], parent_root[80];
    int32_t           n_hosts, n_gpus;
    char              devices[240];
    int64_t           epoch;
    struct phx_lease *first;
    int32_t           n_active, n_gateway;
    struct phx_table *tenants;      /* name -> struct tenant_count */
    struct phx_rate  *requests, *tokens;
    struct event     *tick;
    bool              is_full;      /* little free space: refuse */
    int64_t           gap_since_ns; /* records could not be made durable since; 0 = they can */
    bool              is_expiring;  /* an expiry job is under way */
    int64_t           job_ns;       /* trusted time of the recovery or expiry job */
    int32_t           n_expired;    /* its answer */
};

/* decide.c: what needs no database.  False when refused. */
bool phx_decide(struct phx_admission *a, struct phx_lease *l, struct phx_refusal *r);
void phx_rate_name(const struct phx_identity *who, char name[PHX_USER_NAME_MAX]);

/* intent.c, result.c, recover.c: store jobs; ctx is the lease (the admission for recover and expire). */
int phx_intent_write(struct phx_tx *tx, void *ctx, struct phx_err *err);
int phx_result_write(struct phx_tx *tx, void *ctx, struct phx_err *err);
int phx_recover_write(struct phx_tx *tx, void *ctx, struct phx_err *err);
int phx_expire_write(struct phx_tx *tx, void *ctx, struct phx_err *err);
int phx_lease_forget(struct phx_tx *tx, const char *lease, struct phx_err *err);
/* Settles a lease's reserve as a crash at what progress has proven. */
int phx_crash_write(struct phx_tx *tx, struct phx_admission *a, const struct phx_ledger_row *open,
                    int64_t at_ns, struct phx_err *err);

/* record.c: the leaves. */
int phx_record_intent(struct phx_tx *tx, const struct phx_lease *l, const char *content_sha256,
                      struct phx_err *err);
struct phx_result_facts {
    const struct phx_ledger_row *row; /* the commit or void */
    const char *response_commit, *content_sha256, *replay_class;
};
int phx_record_result(struct phx_tx *tx, const struct phx_result_facts *f, struct phx_err *err);

/* keep.c: what is kept for a replay, as canonical JSON. */
void phx_request_json(const struct phx_lease *l, struct phx_buf *out);
void phx_response_json(const struct phx_outcome *o, struct phx_buf *out);

/* decide.c, admission.c, refusal.c */
void phx_refuse(struct phx_refusal *r, int code, const char *rule, const char *text, int64_t retry_after_ms);
struct phx_lease *phx_lease_create(struct phx_admission *a, const struct phx_identity *who);
void phx_lease_destroy(struct phx_lease *l);
void phx_admission_note_failure(struct phx_admission *a, const struct phx_err *err);
void phx_admission_note_success(struct phx_admission *a);
/* Records a refusal; fn(ctx, NULL, refusal) follows. */
void phx_refusal_record(struct phx_admission *a, const struct phx_identity *who, const char *request_id,
                        const struct phx_refusal *refusal, phx_admission_fn fn, void *ctx);

#endif
