/* SPDX-License-Identifier: Apache-2.0
 * The configuration: one table (table.c) knows every key with type, default, bounds and help, and drives
 * the YAML parser, `phalanxd -t`, `phalanxd --help-config` and the example file. */
#ifndef PHX_DAEMON_CONFIG_H
#define PHX_DAEMON_CONFIG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/config/limits.h"
#include "daemon/http/http.h"
#include "rpc/base/buf.h"
#include "rpc/base/err.h"

struct phx_config_list {
    char  *items[PHX_CONFIG_ARGS_MAX]; /* owned */
    size_t n;
};

/* Strings are owned by the config and never NULL ("" = not set).  The member of key `a.b` is a_b. */
struct phx_config {
    char *listen, *grpc_listen, *data_dir;

    char   *http_tls_cert, *http_tls_key;
    int64_t http_body_max_bytes, http_header_max_bytes, http_pending_max_bytes;
    int64_t http_requests_max, http_connections_max, http_idle_timeout_s;

    int64_t text_threads, text_queue, text_inline_bytes, text_cache_bytes;

    char *model_key; /* PEM file: the model must be signed with it; "" = unsigned models are served */
    char *model_path, *model_name; /* name: as clients say it; default: the folder's name */

    int64_t cluster_replicas, cluster_tp, cluster_pp;
    char   *cluster_devices, *cluster_transport, *cluster_interface, *cluster_ib_devices; /* of GPUs */

    char   *engine_class; /* "bitwise" or "fast" */
    char   *engine_backend, *engine_isa, *engine_compute, *engine_dtype, *engine_kv_dtype;
    int64_t engine_threads; /* per rank; 0 = the allowed cores shared out */
    int64_t engine_kv_memory_bytes; /* per rank; 0 = what is free */
    int64_t engine_block_tokens, engine_max_seqs, engine_max_rows, engine_max_context;
    bool    engine_prefix_cache, engine_graphs, engine_overlap;
    char   *engine_speculate; /* "off" or "lookup" */

    int64_t limits_active, limits_active_per_tenant;     /* requests admitted at once */
    int64_t limits_waiting, limits_waiting_per_tenant;   /* sequences in the queue */
    int64_t limits_prompt_tokens, limits_output_tokens;  /* of one request; 0 = the context */
    int64_t limits_choices, limits_resumes;

    int64_t timeouts_heartbeat_ms, timeouts_lost_ms, timeouts_step_stall_ms;
    int64_t timeouts_start_ms, timeouts_load_stall_ms, timeouts_drain_ms;

    int64_t restart_backoff_min_ms, restart_backoff_max_ms, restart_stable_ms, restart_max_failures;

    char                  *launcher_kind, *launcher_mpirun, *launcher_rank_program;
    struct phx_config_list launcher_args; /* added to the launch line before the rank program */

    char *license_file, *license_key_set; /* default: DIR/license.json and DIR/keyset.json */
    char *license_roots;                  /* "" = compiled in */

    int64_t rate_requests_per_minute, rate_tokens_per_minute; /* of one user; 0 = no limit */
    int64_t lease_gateway_ttl_ms;
    int64_t audit_checkpoint_ms, audit_key_life_s, audit_keep_free_bytes;

    char *policy_aup_sha256;
    bool  policy_purpose_required;

    char *oidc_jwks_file, *oidc_issuer, *oidc_audience;
    char *oidc_tenant, *oidc_tenant_claim, *oidc_roles_claim;

    char *chat_date;                      /* "none", "today" or YYYY-MM-DD */
    char *log_level;
};

/* Defaults only.  Owned: phx_config_destroy(). */
struct phx_config *phx_config_create(void);
void               phx_config_destroy(struct phx_config *c); /* NULL is allowed */
/* Reads and checks a file.  Errors name file, line and key: PHX_E_INVALID (unknown key, value out of
 * bounds, key given twice), PHX_E_FORMAT (not YAML), PHX_E_IO, PHX_E_TOOBIG. */
int phx_config_load(const char *path, struct phx_config **out, struct phx_err *err) PHX_CHECKED;
/* The same from memory; `name` stands for the file in messages. */
int phx_config_parse(const char *text, size_t size, const char *name, struct phx_config **out,
                     struct phx_err *err) PHX_CHECKED;
/* Sets one key ("engine.threads") from text, as the command line does.  A list takes one more item. */
int phx_config_set(struct phx_config *c, const char *key, const char *value,
                   struct phx_err *err) PHX_CHECKED;
/* What one key alone cannot tell: needed keys, keys that exclude each other.  load and parse call it. */
int phx_config_check(const struct phx_config *c, struct phx_err *err) PHX_CHECKED;
/* Replaces a cluster.tp of 0 by what suits this machine and model; parse and load have done it. */
void phx_config_settle(struct phx_config *c);
/* Pure: the largest power of two, up to 8, that divides the heads and gives each replica's ranks nodes of
 * their own; n_heads 0 = not known: 1. */
int32_t phx_config_default_tp(int32_t n_nodes, int64_t n_replicas, int64_t n_heads);
/* A file that parses back to the same config: keys that differ from their defaults. */
void phx_config_format(const struct phx_config *c, struct phx_buf *out);
/* All keys with default, bounds and help: as a commented YAML file, and as a list for a terminal. */
void phx_config_format_example(struct phx_buf *out);
void phx_config_format_help(struct phx_buf *out);

/* What the HTTP server is opened with; strings are borrowed from the config. */
struct phx_http_options phx_config_http(const struct phx_config *c);

#endif
