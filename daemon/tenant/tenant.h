/* SPDX-License-Identifier: Apache-2.0
 * What a tenant has agreed to and chosen: the acceptable-use text it signed (by hash), how much of its
 * requests is kept and for how long, and the replay class it asks for. */
#ifndef PHX_DAEMON_TENANT_H
#define PHX_DAEMON_TENANT_H

#include <stdint.h>

#include "daemon/content/content.h"
#include "rpc/base/err.h"

struct phx_tx;

struct phx_tenant {
    char             tenant[65];
    enum phx_privacy privacy;
    char             retention[33]; /* class name, phx_retention_days() */
    char             replay[2];     /* "A" or "B" asked for; "" = what the engine gives */
    char             aup_hash[65];  /* SHA-256 of the signed text; "" = none signed */
    char             aup_by[129];
    int64_t          aup_ns;
};
/* A tenant without a row has the defaults (commit-only, "standard", nothing signed).  0 or negative. */
int phx_tenant_get(struct phx_tx *tx, const char *tenant, struct phx_tenant *out,
                   struct phx_err *err) PHX_CHECKED;
/* Writes the row and an "admin" leaf.  PHX_E_INVALID naming the field. */
int phx_tenant_set(struct phx_tx *tx, const struct phx_tenant *t, const char *by, int64_t at_ns,
                   struct phx_err *err) PHX_CHECKED;
typedef int (*phx_tenant_fn)(void *ctx, const struct phx_tenant *t);
int phx_tenant_list(struct phx_tx *tx, phx_tenant_fn fn, void *ctx, struct phx_err *err) PHX_CHECKED;
/* Purpose codes: lower case, digits and '-', at most 64 bytes.  PHX_E_INVALID. */
int phx_purpose_check(const char *purpose, struct phx_err *err) PHX_CHECKED;

#endif
