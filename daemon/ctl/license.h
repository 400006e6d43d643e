/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/ctl: the actions of `phalanx license`. */
#ifndef PHX_DAEMON_CTL_LICENSE_H
#define PHX_DAEMON_CTL_LICENSE_H

#include <stdbool.h>
#include <stdint.h>

#include "daemon/license/license.h"
#include "daemon/store/store.h"

enum { PHX_CTL_KEYS_MAX = PHX_ROOTS_MAX, PHX_CTL_FILES_MAX = 8 };

struct phx_ctl_license {
    const char *data_dir, *out, *name, *payload, *key_set, *roots, *renews, *by, *period;
    const char *keys[PHX_CTL_KEYS_MAX];
    int         n_keys;
    const char *files[PHX_CTL_FILES_MAX];
    int         n_files;
    bool        is_json, is_dry_run;
};

int phx_ctl_license_keygen(const struct phx_ctl_license *a, struct phx_err *err) PHX_CHECKED;
int phx_ctl_license_keyset(const struct phx_ctl_license *a, struct phx_err *err) PHX_CHECKED;
int phx_ctl_license_issue(const struct phx_ctl_license *a, struct phx_err *err) PHX_CHECKED;
int phx_ctl_license_show(const struct phx_ctl_license *a, struct phx_err *err) PHX_CHECKED;
int phx_ctl_license_install(const struct phx_ctl_license *a, struct phx_err *err) PHX_CHECKED;
int phx_ctl_license_seats(const struct phx_ctl_license *a, struct phx_err *err) PHX_CHECKED;

/* The database of a data folder with its licence, as the daemon would read them. */
struct phx_ctl_site {
    struct phx_store         *store;
    struct phx_license_store *license;
    int64_t                   now_ns; /* T */
};
int  phx_ctl_site_open(const char *data_dir, bool is_read_only, struct phx_ctl_site *out,
                       struct phx_err *err) PHX_CHECKED;
void phx_ctl_site_close(struct phx_ctl_site *site);

#endif
