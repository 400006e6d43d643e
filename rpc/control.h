/* SPDX-License-Identifier: Apache-2.0
 * DOOR of rpc/, second part (rpc/rpc.h includes it): requests and answers of the services Admission,
 * License, Metering and Audit, as plain structs.  Every count, length and range below is checked when a
 * message is encoded and when it is decoded.
 *
 * Strings are UTF-8, "" when not said, never NULL after decoding; NULL is sent as "".  Not named: at most
 * PHX_RPC_NAME_MAX bytes.  A digest has 0 or 32 bytes. */
#ifndef PHX_RPC_CONTROL_H
#define PHX_RPC_CONTROL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    PHX_RPC_IDEM_MAX = 128,              /* idempotency key: bytes */
    PHX_RPC_DIGEST_BYTES = 32,
    PHX_RPC_WARNINGS_MAX = 16,           /* each at most PHX_RPC_NAME_MAX bytes */
    PHX_RPC_ENVELOPE_MAX_BYTES = 64 << 10, /* licence, key set, checkpoint */
    PHX_RPC_LICENSED_MODELS_MAX = 64,
    PHX_RPC_PURPOSES_MAX = 64,
    PHX_RPC_SEATS_MAX = 1000,            /* on a page */
    PHX_RPC_USAGE_GROUPS_MAX = 4,
    PHX_RPC_USAGE_ROWS_MAX = 10000,      /* on a page */
    PHX_RPC_EXPORT_MAX_BYTES = 1 << 20,  /* one message of Metering.Export */
    PHX_RPC_RECORDS_MAX = 1000,          /* on a page */
    PHX_RPC_LEAF_MAX_BYTES = 65535,
    PHX_RPC_PROOF_MAX = 64               /* hashes */
};
#define PHX_RPC_COUNT_MAX ((int64_t)1 << 48) /* of tokens, seats, milliseconds: any one number */

struct phx_rpc_bytes { /* borrowed */
    const void *data;
    size_t      size;
};

/* ---- Admission --------------------------------------------------------------------------------- */

struct phx_rpc_admit {
    const char *tenant; /* "" = the caller's */
    const char *user;
    const char *model; /* not "" */
    const char *purpose;
    const char *idempotency_key; /* at most PHX_RPC_IDEM_MAX */
    struct phx_rpc_bytes request_digest;
    int64_t     max_input_tokens, max_output_tokens; /* 0..PHX_RPC_COUNT_MAX */
    const char *cost_centre;
    const char *session; /* a gateway's id; "" = none */
};

struct phx_rpc_lease_usage { /* 0..PHX_RPC_COUNT_MAX; cached <= input, reasoning <= output */
    int64_t input_tokens, cached_input_tokens, output_tokens, reasoning_tokens;
};

enum phx_rpc_decision {
    PHX_RPC_DECISION_NONE = 0,
    PHX_RPC_DECISION_ALLOWED,
    PHX_RPC_DECISION_OVERDRAFT,
    PHX_RPC_DECISION_REPLAYED /* the idempotency key has ended already; usage is filled */
};

struct phx_rpc_admit_answer {
    enum phx_rpc_decision decision;
    const char *lease_id;
    int64_t     expires_unix_ns;
    const char *seat_id;
    int64_t     budget_left_tokens; /* -1 = no budget is set */
    struct phx_rpc_lease_usage usage;
    const char *const *warnings;
    int32_t     n_warnings;
};

struct phx_rpc_renew {
    const char *lease_id; /* not "" */
    struct phx_rpc_lease_usage so_far;
};

struct phx_rpc_renew_answer {
    int64_t expires_unix_ns;
};

struct phx_rpc_settle {
    const char *lease_id; /* not "" */
    bool        has_usage; /* must be there */
    struct phx_rpc_lease_usage usage;
    const char *outcome; /* not "" */
    struct phx_rpc_bytes response_digest;
};

struct phx_rpc_settle_answer {
    const char *receipt_id;
};

struct phx_rpc_cancel_lease {
    const char *lease_id; /* not "" */
    const char *reason;   /* at most PHX_RPC_TEXT_MAX */
};

struct phx_rpc_empty { /* a message without fields */
    char unused;
};

/* ---- License ----------------------------------------------------------------------------------- */

enum phx_rpc_license_state {
    PHX_RPC_LICENSE_NONE = 0,
    PHX_RPC_LICENSE_EVALUATION,
    PHX_RPC_LICENSE_VALID,
    PHX_RPC_LICENSE_WARNING,
    PHX_RPC_LICENSE_OVERDRAFT,
    PHX_RPC_LICENSE_OVER_LIMIT,
    PHX_RPC_LICENSE_GRACE,
    PHX_RPC_LICENSE_CONTINUITY,
    PHX_RPC_LICENSE_EXPIRED,
    PHX_RPC_LICENSE_INVALID,
    PHX_RPC_LICENSE_EARLY
};

struct phx_rpc_licensed_model {
    const char *manifest_root, *policy;
    const char *const *denied_purposes;
    int32_t     n_denied_purposes;
};

struct phx_rpc_license { /* limits: -1 = none; the rest 0..PHX_RPC_COUNT_MAX */
    const char *license_id;
    int64_t     serial;
    const char *legal_name; /* at most PHX_RPC_TEXT_MAX, as state_reason and problem */
    const char *licensee_class;
    enum phx_rpc_license_state state;
    const char *state_reason;
    const char *unit;
    int64_t     seats, overdraft_pct, seats_used;
    const char *period;
    int64_t     not_before_unix_s, not_after_unix_s;
    const char *enforce;
    const struct phx_rpc_licensed_model *models;
    int32_t     n_models;
    bool        is_clock_suspect;
    const char *clock_state;
    int64_t     key_set_version;
    const char *problem;
    int64_t     indirect_users, concurrent, nodes, gpus, tokens_per_month;
    int64_t     indirect_used, overdraft_used, exempt_used;
};

struct phx_rpc_license_answer {
    struct phx_rpc_license facts;
};

struct phx_rpc_license_install {
    struct phx_rpc_bytes envelope; /* not empty; at most PHX_RPC_ENVELOPE_MAX_BYTES, as key_set */
    const char *note;              /* at most PHX_RPC_TEXT_MAX */
    struct phx_rpc_bytes key_set;  /* empty = the present one */
    bool        is_dry_run;
};

struct phx_rpc_license_install_answer {
    struct phx_rpc_license facts;
    bool        is_dry_run;
};

struct phx_rpc_seats {
    const char *period, *tenant; /* "" = now, all */
    int32_t     page_size;       /* 0..PHX_RPC_SEATS_MAX; 0 = 100 */
    const char *page_token;
};

struct phx_rpc_seat {
    const char *seat_id, *tenant;
    int64_t     first_unix_ns, last_unix_ns;
    bool        is_overdraft, is_indirect, is_exempt;
};

struct phx_rpc_seats_answer {
    const struct phx_rpc_seat *seats;
    int32_t     n_seats;
    const char *next_page_token;
};

struct phx_rpc_accept_clock {
    const char *by, *approved_by; /* by "" = the caller; approved_by not "" */
};

struct phx_rpc_accept_clock_answer {
    const char *clock_state;
    int64_t     now_unix_ns;
};

/* ---- Metering ---------------------------------------------------------------------------------- */

struct phx_rpc_usage_filter {
    int64_t     from_unix_ns, to_unix_ns; /* 0 or more; to 0 = now, else not before from */
    const char *tenant, *user, *model, *cost_centre;
};

struct phx_rpc_usage_totals {
    int64_t requests, input_tokens, cached_input_tokens, output_tokens, reasoning_tokens;
    int64_t queue_ms, compute_ms, kv_block_seconds;
};

struct phx_rpc_usage_query {
    struct phx_rpc_usage_filter filter;
    const char *const *group_by;
    int32_t     n_group_by;
    int32_t     page_size; /* 0..PHX_RPC_USAGE_ROWS_MAX; 0 = 1000 */
    const char *page_token;
};

struct phx_rpc_usage_row {
    const char *const *group;
    int32_t     n_group;
    struct phx_rpc_usage_totals totals;
};

struct phx_rpc_usage_answer {
    const struct phx_rpc_usage_row *rows;
    int32_t     n_rows;
    const char *next_page_token;
    uint64_t    ledger_index;
};

enum phx_rpc_export_format {
    PHX_RPC_EXPORT_NONE = 0,
    PHX_RPC_EXPORT_CLOUDEVENTS,
    PHX_RPC_EXPORT_CSV,
    PHX_RPC_EXPORT_FOCUS
};

struct phx_rpc_usage_export {
    struct phx_rpc_usage_filter filter;
    enum phx_rpc_export_format  format; /* not NONE */
    uint64_t    from_index, to_index;   /* to 0 = what is there now, else not below from */
};

struct phx_rpc_usage_part { /* one message of the stream */
    struct phx_rpc_bytes data; /* whole records; at most PHX_RPC_EXPORT_MAX_BYTES */
    uint64_t    next_index;
};

/* ---- Audit ------------------------------------------------------------------------------------- */

enum phx_rpc_record_by { /* numbers of the fields in the proto */
    PHX_RPC_BY_NONE = 0,
    PHX_RPC_BY_INDEX,
    PHX_RPC_BY_RECEIPT,
    PHX_RPC_BY_REQUEST
};

struct phx_rpc_audit_get {
    enum phx_rpc_record_by by; /* which of the three counts; not NONE */
    uint64_t    index;
    const char *receipt_id, *request_id;
};

struct phx_rpc_record {
    uint64_t    index;
    const char *kind;
    int64_t     unix_ns;
    const char *request_id, *tenant;
    struct phx_rpc_bytes leaf; /* at most PHX_RPC_LEAF_MAX_BYTES */
};

struct phx_rpc_records_answer {
    const struct phx_rpc_record *records;
    int32_t     n_records;
};

enum phx_rpc_prove_what { /* numbers of the fields in the proto */
    PHX_RPC_PROVE_NONE = 0,
    PHX_RPC_PROVE_INDEX,
    PHX_RPC_PROVE_RECEIPT,
    PHX_RPC_PROVE_CONSISTENCY
};

struct phx_rpc_audit_prove {
    enum phx_rpc_prove_what what; /* not NONE */
    uint64_t    index;
    const char *receipt_id;
    uint64_t    old_tree_size;
    uint64_t    tree_size; /* 0 = the newest checkpoint */
};

struct phx_rpc_prove_answer {
    uint64_t    index, tree_size;
    const struct phx_rpc_bytes *hashes; /* 32 bytes each */
    int32_t     n_hashes;
    struct phx_rpc_bytes checkpoint; /* at most PHX_RPC_ENVELOPE_MAX_BYTES */
    bool        has_record;
    struct phx_rpc_record record; /* inclusion only */
};

struct phx_rpc_checkpoint_answer {
    struct phx_rpc_bytes checkpoint;
    uint64_t    tree_size;
};

struct phx_rpc_audit_search {
    int64_t     from_unix_ns, to_unix_ns; /* as in the usage filter */
    const char *kind, *tenant, *user, *model_digest;
    int32_t     page_size; /* 0..PHX_RPC_RECORDS_MAX; 0 = 100 */
    const char *page_token;
};

struct phx_rpc_search_answer {
    const struct phx_rpc_record *records;
    int32_t     n_records;
    const char *next_page_token;
};

struct phx_rpc_audit_replay {
    const char *receipt_id; /* not "" */
    const char *as_class;   /* "A", "B", "" = the recorded class */
};

struct phx_rpc_replay_answer {
    const char *receipt_id;
    const char *replay_class; /* by which it was run: "A", "B" */
    bool        is_equal;
    int64_t     n_tokens, n_checked; /* n_checked: those that agree */
    int64_t     first_difference; /* -1 = none */
    const char *tolerance;        /* at most PHX_RPC_TEXT_MAX */
};

#endif
