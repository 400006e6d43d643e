/* SPDX-License-Identifier: Apache-2.0
 * The one way in for a generation, whichever door it came through: decides, reserves, records, and at the
 * end meters and records again.
 *
 * begin: the loop decides what needs no database (licence, model, purpose, role, sizes, rate, capacity);
 * then ONE transaction decides seat and budget and writes seat, reservation and the audit intent leaf.  The
 * answer comes on the loop when it is durable.  No token may leave before; the engine may start, since almost
 * every transaction admits, so that the disk's time passes while the prompt is read.
 * end: ONE transaction with the exact usage and the audit result leaf; the final frame leaves after it.
 * A lease that is dropped by a crash is settled at the next start at its proven lower bound. */
#ifndef PHX_DAEMON_ADMISSION_H
#define PHX_DAEMON_ADMISSION_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/keys/keys.h"
#include "rpc/base/err.h"
#include "rpc/rpc.h"

struct event_base;
struct phx_store;
struct phx_license_store;
struct phx_metrics;
struct phx_publisher;
struct phx_time;
struct phx_admission;
struct phx_lease;

/* What answers; bound into every record. */
struct phx_admission_engine {
    const char *build, *config_sha256; /* of the effective configuration */
    const char *backend, *isa, *compute, *dtype, *kv_dtype;
    const char *replay_class; /* "A", "B" or "C" */
    int32_t     tp, pp;
    bool        has_prefix_cache;
};

struct phx_admission_options {
    struct event_base        *base;
    struct phx_store         *store;
    struct phx_license_store *license;
    struct phx_time          *time;
    struct phx_publisher     *publisher; /* NULL = none to wake (tests) */
    struct phx_metrics       *metrics;   /* or NULL: refusals, seats, active leases */
    const uint8_t            *site_key;  /* 32 bytes: of kept content and pseudonyms */
    struct phx_admission_engine engine;  /* copied */
    const char *model_name;
    const char *aup_sha256;              /* the acceptable-use text tenants must have signed; "" = none */
    const char *space_dir;               /* where the records lie; "" = free space is not watched */
    int64_t     keep_free_bytes;
    bool        is_purpose_required;
    int32_t     max_active;              /* leases open at once */
    int32_t     max_active_per_tenant;
    int64_t     max_prompt_tokens, max_output_tokens; /* of one request; 0 = no limit here */
    int64_t     requests_per_minute, tokens_per_minute; /* of one user; 0 = no limit */
    int64_t     gateway_ttl_ms;
};

struct phx_admission_facts {
    const struct phx_identity *identity;
    const char    *request_id;
    const char    *endpoint;        /* "chat.completions", "completions", "grpc.generate" */
    const char    *end_user;        /* a label the caller gave, never an identity; or NULL */
    const char    *purpose;         /* purpose code, "" = none */
    const char    *idempotency_key; /* at most 128 bytes, "" = none */
    const int32_t *prompt;          /* recorded as a keyed commitment; kept as the tenant's privacy says */
    int32_t        n_prompt;
    int32_t        max_new;         /* per choice */
    int32_t        n_choices;
    const struct phx_sampling *sampling;
};

struct phx_refusal {
    int         code;           /* PHX_E_LICENSE, _DENIED, _LIMIT, _BUSY, _IO ... */
    const char *rule;           /* "licence.expired", "budget.user", "store.unavailable" ... */
    const char *text;
    int64_t     retry_after_ms; /* -1 = waiting does not help */
    const char *receipt;        /* of the request that holds this idempotency key; "" = none */
};

/* Exactly one of lease and refusal is set. */
typedef void (*phx_admission_fn)(void *ctx, struct phx_lease *lease, const struct phx_refusal *refusal);

struct phx_choice_ids {
    const int32_t *ids;
    int32_t        n;
};
struct phx_outcome {
    const char                  *finish;  /* "stop", "length", "tool_calls", "cancelled", "error", ... */
    const struct phx_choice_ids *choices; /* every generated token; may be NULL when there are none */
    int32_t                      n_choices;
    int32_t                      n_reasoning;
    int32_t                      n_cached; /* prompt tokens served from the prefix cache */
    int64_t                      queue_ms, first_token_ms, total_ms;
};
typedef void (*phx_settled_fn)(void *ctx, const struct phx_err *err); /* err NULL = durable */

/* A new epoch begins: what an older one left open is settled as a crash.  Options' strings are copied. */
int  phx_admission_open(const struct phx_admission_options *options, struct phx_admission **out,
                        struct phx_err *err) PHX_CHECKED;
void phx_admission_close(struct phx_admission *a); /* after the last lease has ended; NULL is allowed */

/* fn runs later on the loop, always exactly once (also when the caller has lost interest: it must then end
 * the lease as cancelled).  facts are copied as needed.  True = only the transaction can still refuse: work may
 * start, whose results are thrown away if it does. */
bool phx_admission_begin(struct phx_admission *a, const struct phx_admission_facts *facts,
                         phx_admission_fn fn, void *ctx);
/* The id the client can verify later; borrowed while the lease lives. */
const char *phx_lease_receipt(const struct phx_lease *lease);
/* Output tokens of all choices so far; cheap, call it per step.  Written down every 256 tokens and every
 * second, so that a crash settles at a proven number. */
void phx_lease_progress(struct phx_lease *lease, int32_t n_output, int32_t n_reasoning);
/* Ends the lease; fn runs later on the loop exactly once, after which the lease is gone. */
void phx_lease_end(struct phx_lease *lease, const struct phx_outcome *outcome, phx_settled_fn fn,
                   void *ctx);
/* Which weights answer from now on ("sha256:..." of the signed manifest, "" = not signed) and which ones they
 * were derived from; a "model" leaf says so. */
void phx_admission_set_model(struct phx_admission *a, const char *manifest_root, const char *parent_root);
/* What the cluster runs on: the licence may limit it. */
void phx_admission_set_places(struct phx_admission *a, int32_t n_hosts, int32_t n_gpus);
int32_t phx_admission_active(const struct phx_admission *a); /* gateways' leases too */
int64_t phx_admission_epoch(const struct phx_admission *a);

/* ---- outside gateways (daemon/admission/gateway.c) ---------------------------------------------------- */

struct phx_gateway_admit {
    const struct phx_identity *identity;     /* the gateway's caller, verified */
    const char *request_id, *model, *purpose, *idempotency_key, *session;
    const uint8_t *request_digest;           /* 32 bytes */
    int64_t     max_input, max_output;
};
struct phx_gateway_usage {
    int64_t prompt, cached, output, reasoning;
};
enum phx_gateway_decision {
    PHX_GATEWAY_REFUSED = 0, PHX_GATEWAY_ALLOWED, PHX_GATEWAY_OVERDRAFT,
    PHX_GATEWAY_REPLAYED /* the key's lease has ended; usage is filled */
};
struct phx_gateway_answer {
    enum phx_gateway_decision decision;
    struct phx_refusal        refusal; /* REFUSED */
    char                      lease[PHX_RPC_NAME_MAX];
    char                      seat_id[65];
    int64_t                   expires_ns, budget_left;
    struct phx_gateway_usage  usage;
    const char               *warning; /* "" = none */
};
/* err: only when nothing can be decided (store). */
typedef void (*phx_gateway_fn)(void *ctx, const struct phx_gateway_answer *answer, const struct phx_err *err);

/* A key that is there with the same digest re-attaches: the open lease with a new expiry, or what it used. */
void phx_gateway_admit(struct phx_admission *a, const struct phx_gateway_admit *request, phx_gateway_fn fn,
                       void *ctx);
/* Only the tenant that owns the lease may name it (PHX_E_NOTFOUND else).  so_far: the proven lower bound. */
void phx_gateway_renew(struct phx_admission *a, const struct phx_identity *who, const char *lease,
                       const struct phx_gateway_usage *so_far, phx_gateway_fn fn, void *ctx);
/* The same settlement twice is answered alike; another is PHX_E_STATE.  digest: 32 bytes or NULL. */
void phx_gateway_settle(struct phx_admission *a, const struct phx_identity *who, const char *lease,
                        const struct phx_gateway_usage *usage, const char *outcome,
                        const uint8_t *response_digest, phx_gateway_fn fn, void *ctx);
void phx_gateway_cancel(struct phx_admission *a, const struct phx_identity *who, const char *lease,
                        const char *reason, phx_gateway_fn fn, void *ctx);

#endif
