/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/admission: a lease and the jobs that make its records. */
#ifndef PHX_DAEMON_ADMISSION_RECORD_H
#define PHX_DAEMON_ADMISSION_RECORD_H

#include "daemon/admission/admission.h"
#include "daemon/audit/audit.h"
#include "daemon/store/store.h"

struct phx_lease {
    struct phx_lease     *prev, *next;
    struct phx_admission *a;
    struct phx_identity   who;
    char                  receipt[PHX_RECEIPT_BYTES];
    char                  request_id[65];
    char                  endpoint[33];
    char                 *end_user;
    uint8_t               salt[PHX_SALT_BYTES];
    char                  prompt_commitment[65], output_commitment[65];
    int32_t               n_prompt, max_new, n_choices;
    struct phx_sampling   sampling; /* numbers only: bias and stop lists are counted, not kept */
    phx_admission_fn      begun;
    phx_settled_fn        settled;
    void                 *ctx;
    /* progress and the end */
    int64_t               progress_ns;
    int32_t               n_output, n_reasoning, n_cached;
    int64_t               queue_ms, first_token_ms, total_ms;
    char                  finish[33];
};

struct phx_admission {
    struct event_base  *base;
    struct phx_store   *store;
    struct phx_license *license;
    struct phx_metrics *metrics;
    int32_t             max_active, max_active_per_tenant;
    int64_t             max_prompt_tokens, max_output_tokens;
    char               *model_name, *model_digest, *build;
    int64_t             epoch;
    struct phx_lease   *first;
    int32_t             n_active;
};

/* Store jobs; ctx is the lease. */
int phx_record_intent(struct phx_tx *tx, void *ctx, struct phx_err *err);
int phx_record_result(struct phx_tx *tx, void *ctx, struct phx_err *err);
int phx_record_progress(struct phx_tx *tx, void *ctx, struct phx_err *err);
/* ctx is the admission: a new epoch, and every open reservation of older ones settled as a crash. */
int phx_record_recover(struct phx_tx *tx, void *ctx, struct phx_err *err);

/* A refusal as a leaf; owned by the job. */
struct phx_refusal_record {
    char tenant[PHX_KEY_NAME_MAX + 1], user[PHX_KEY_NAME_MAX + 1], key_id[33];
    char request_id[65], rule[65];
};
int phx_record_refusal(struct phx_tx *tx, void *ctx, struct phx_err *err);

#endif
