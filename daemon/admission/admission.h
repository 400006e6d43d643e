/* SPDX-License-Identifier: Apache-2.0
 * The one way in for a generation, whichever door it came through: decides, reserves, records, and at the
 * end meters and records again.
 *
 * begin: decide (licence, role, limits), then ONE transaction with the reservation and the audit intent
 * leaf; the answer comes on the loop when it is durable.  No token may leave before.
 * end: ONE transaction with the exact usage and the audit result leaf; the final frame leaves after it.
 * A lease that is dropped by a crash is settled at the next start. */
#ifndef PHX_DAEMON_ADMISSION_H
#define PHX_DAEMON_ADMISSION_H

#include <stddef.h>
#include <stdint.h>

#include "daemon/keys/keys.h"
#include "rpc/base/err.h"
#include "rpc/rpc.h"

struct event_base;
struct phx_store;
struct phx_license;
struct phx_metrics;
struct phx_admission;
struct phx_lease;

struct phx_admission_options {
    int32_t max_active;            /* leases open at once */
    int32_t max_active_per_tenant;
    const char *model_name, *model_digest; /* bound into every record */
    const char *build;
    struct phx_metrics *metrics; /* or NULL: requests, tokens, refusals, times are counted here */
    int64_t max_prompt_tokens, max_output_tokens; /* of one request; 0 = no limit here */
};

struct phx_admission_facts {
    const struct phx_identity *identity;
    const char    *request_id;
    const char    *endpoint;       /* "chat.completions", "completions", "grpc.generate" */
    const char    *end_user;       /* or NULL */
    const int32_t *prompt;         /* recorded as a salted commitment only */
    int32_t        n_prompt;
    int32_t        max_new;        /* per choice */
    int32_t        n_choices;
    const struct phx_sampling *sampling;
};

struct phx_refusal {
    int         code;           /* PHX_E_LICENSE, _DENIED, _LIMIT, _BUSY, _IO ... */
    const char *rule;           /* "licence.expired", "limit.active.tenant", "store.unavailable" ... */
    const char *text;
    int64_t     retry_after_ms; /* -1 = waiting does not help */
};

/* Exactly one of lease and refusal is set. */
typedef void (*phx_admission_fn)(void *ctx, struct phx_lease *lease, const struct phx_refusal *refusal);

struct phx_outcome {
    const char    *finish;         /* "stop", "length", "tool_calls", "cancelled", "error", ... */
    const int32_t *output;         /* all choices' tokens one after the other; commitment only */
    int32_t        n_output;
    int32_t        n_reasoning;
    int32_t        n_cached;       /* prompt tokens served from the prefix cache */
    int64_t        queue_ms, first_token_ms, total_ms;
};
typedef void (*phx_settled_fn)(void *ctx, const struct phx_err *err); /* err NULL = durable */

int  phx_admission_open(struct event_base *base, struct phx_store *store, struct phx_license *license,
                        const struct phx_admission_options *options, struct phx_admission **out,
                        struct phx_err *err) PHX_CHECKED;
void phx_admission_close(struct phx_admission *a); /* after the last lease has ended */

/* fn runs later on the loop, always exactly once (also when the caller has lost interest: it must then end
 * the lease as cancelled).  facts are copied as needed. */
void phx_admission_begin(struct phx_admission *a, const struct phx_admission_facts *facts,
                         phx_admission_fn fn, void *ctx);
/* The id the client can verify later; borrowed while the lease lives. */
const char *phx_lease_receipt(const struct phx_lease *lease);
/* Output tokens of all choices so far; cheap, call it per step.  Written down once a second, so that a crash
 * settles at a proven number. */
void phx_lease_progress(struct phx_lease *lease, int32_t n_output, int32_t n_reasoning);
/* Ends the lease; fn runs later on the loop exactly once, after which the lease is gone. */
void phx_lease_end(struct phx_lease *lease, const struct phx_outcome *outcome, phx_settled_fn fn,
                   void *ctx);
int32_t phx_admission_active(const struct phx_admission *a);

#endif
