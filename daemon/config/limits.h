/* SPDX-License-Identifier: Apache-2.0
 * The named limits of every input.  What an operator may set has a key in the config table; these are
 * the bounds of those keys, and the limits nobody needs to set. */
#ifndef PHX_DAEMON_LIMITS_H
#define PHX_DAEMON_LIMITS_H

enum {
    /* config file */
    PHX_CONFIG_FILE_MAX_BYTES = 1 << 20,
    PHX_CONFIG_DEPTH_MAX = 3,
    PHX_CONFIG_VALUE_MAX_BYTES = 4096,
    PHX_CONFIG_ARGS_MAX = 64,

    /* HTTP */
    PHX_BODY_DEFAULT_BYTES = 1 << 20,
    PHX_BODY_MAX_BYTES = 64 << 20,
    PHX_HEADER_DEFAULT_BYTES = 16 << 10,
    PHX_HEADER_MAX_BYTES = 1 << 20,
    PHX_PENDING_DEFAULT_BYTES = 1 << 20,
    PHX_PENDING_MAX_BYTES = 64 << 20,
    PHX_HTTP_REQUESTS_DEFAULT = 1024,
    PHX_HTTP_REQUESTS_MAX = 65536,
    PHX_HTTP_CONNECTIONS_MAX = 1 << 20,

    /* tokenizing */
    PHX_TEXT_THREADS_MAX = 64,
    PHX_TEXT_QUEUE_MAX = 65536,

    /* cluster shape */
    PHX_REPLICAS_MAX = 64,
    PHX_TP_SIZE_MAX = 64,
    PHX_PP_SIZE_MAX = 128,
    PHX_MODEL_NAME_MAX = 128,

    /* requests */
    PHX_CONTEXT_MAX = 1 << 20,
    PHX_CHOICES_MAX = 16,
    PHX_ACTIVE_DEFAULT = 512,
    PHX_ACTIVE_MAX = 65536,
    PHX_WAITING_DEFAULT = 1024,
    PHX_WAITING_MAX = 65536,
    PHX_TENANTS_MAX = 4096,
    PHX_RATE_MAX = 1000000000,

    /* store, audit, licence */
    PHX_STORE_PENDING_MAX = 8192,
    PHX_KEYS_MAX = 100000,
    PHX_AUDIT_RECORD_MAX_BYTES = 8192,
    PHX_LICENSE_FILE_MAX_BYTES = 64 << 10,
    PHX_LICENSE_DEPTH_MAX = 8,
    PHX_ISSUER_KEYS_MAX = 16,

    /* metrics: children of one family; more label values than that share the child "other" */
    PHX_METRIC_CHILDREN_MAX = 1024
};

#endif
