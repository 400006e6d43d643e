/* SPDX-License-Identifier: Apache-2.0
 * The modules of a running phalanxd, as main.c opens them (top to bottom) and closes them (bottom up).
 * Everything here lives on the loop thread. */
#ifndef PHX_DAEMON_DAEMON_H
#define PHX_DAEMON_DAEMON_H

#include <stdbool.h>
#include <stdint.h>

struct phx_daemon {
    struct event_base     *base;
    struct phx_config     *config;
    struct phx_metrics    *metrics;
    struct phx_text       *text;
    struct phx_store      *store;
    struct phx_time       *time;
    struct phx_keys       *keys;
    struct phx_identities *identities;
    struct phx_keeper     *keeper; /* of kept content */
    struct phx_publisher  *publisher; /* of the audit log */
    struct phx_license_store *license;
    struct phx_admission  *admission;
    struct phx_fleet      *fleet;
    struct phx_engine     *engine;
    struct phx_rpc_server *rpc;
    struct phx_cluster    *cluster; /* serves `rpc` */
    struct phx_control    *control; /* the services of the records */
    struct phx_api        *api;
    const char            *model_name; /* as clients name it; borrowed from the config */
    const char            *cluster_id; /* 32 hex digits, made once per data folder */
    char                   manifest_root[80]; /* "sha256:..." of the model's signed manifest, "" = not signed */
    uint8_t                site_key[32];  /* wraps what is kept of requests; wiped at the end */
    int64_t                started_wall_ns;
    bool                   is_draining; /* SIGTERM came: refuse new work with PHX_E_BUSY */
};

#endif
