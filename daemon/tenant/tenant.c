/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/tenant/tenant.h"

#include <ctype.h>
#include <stdio.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/store/store.h"
#include "rpc/base/buf.h"

enum { PURPOSE_MAX_BYTES = 64 };

int phx_purpose_check(const char *purpose, struct phx_err *err)
{
    size_t n = strlen(purpose);

    if (n == 0 || n > PURPOSE_MAX_BYTES || strspn(purpose, "abcdefghijklmnopqrstuvwxyz0123456789-") != n)
        return phx_fail(err, PHX_E_INVALID, "purpose: 1 to %d lower-case letters, digits and '-'",
                        PURPOSE_MAX_BYTES);
    return 0;
}

/* ---- checks ------------------------------------------------------------------------------------------------- */

static int check_name(const char *tenant, struct phx_err *err)
{
    size_t n = strlen(tenant);

    if (n == 0 || n > 64 ||
        strspn(tenant, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-@") != n)
        return phx_fail(err, PHX_E_INVALID, "tenant: 1 to 64 letters, digits and . _ - @ are allowed");
    return 0;
}

static bool is_printable(const char *text)
{
    for (; *text != '\0'; text++)
        if (iscntrl((unsigned char)*text))
            return false;
    return true;
}

static int check_aup(const struct phx_tenant *t, struct phx_err *err)
{
    bool is_signed = t->aup_hash[0] != '\0';

    if (is_signed && (strlen(t->aup_hash) != 64 || strspn(t->aup_hash, "0123456789abcdef") != 64))
        return phx_fail(err, PHX_E_INVALID, "aup_hash: 64 lower-case hex digits, or nothing");
    if (is_signed != (t->aup_by[0] != '\0') || !is_printable(t->aup_by))
        return phx_fail(err, PHX_E_INVALID, "aup_by: who signed, without control characters%s",
                        is_signed ? "" : "; nobody when nothing is signed");
    if (is_signed != (t->aup_ns > 0))
        return phx_fail(err, PHX_E_INVALID, "aup_ns: when it was signed%s",
                        is_signed ? "" : "; 0 when nothing is signed");
    return 0;
}

static int check(const struct phx_tenant *t, struct phx_err *err)
{
    enum phx_privacy privacy;
    int32_t          days;
    int              rc = check_name(t->tenant, err);

    if (rc == 0)
        rc = phx_privacy_parse(phx_privacy_name(t->privacy), &privacy, err);
    if (rc == 0)
        rc = phx_retention_days(t->retention, &days, err);
    if (rc == 0 && t->replay[0] != '\0' && strcmp(t->replay, "A") != 0 && strcmp(t->replay, "B") != 0)
        rc = phx_fail(err, PHX_E_INVALID, "replay: A, B or nothing (what the engine gives)");
    return rc == 0 ? check_aup(t, err) : rc;
}

/* ---- rows ---------------------------------------------------------------------------------------------------- */

static void copy(char *to, size_t size, const struct phx_value *v)
{
    (void)snprintf(to, size, "%.*s", (int)v->size, v->size > 0 ? (const char *)v->data : "");
}

static int read_tenant(const struct phx_value *c, struct phx_tenant *t, struct phx_err *err)
{
    char privacy[16];

    *t = (struct phx_tenant){.aup_ns = c[6].number};
    copy(t->tenant, sizeof(t->tenant), &c[0]);
    copy(privacy, sizeof(privacy), &c[1]);
    copy(t->retention, sizeof(t->retention), &c[2]);
    copy(t->replay, sizeof(t->replay), &c[3]);
    copy(t->aup_hash, sizeof(t->aup_hash), &c[4]);
    copy(t->aup_by, sizeof(t->aup_by), &c[5]);
    if (phx_privacy_parse(privacy, &t->privacy, NULL) != 0)
        return phx_fail(err, PHX_E_FORMAT, "the row of tenant %s: unknown privacy", t->tenant);
    return 0;
}

struct reading {
    struct phx_tenant *out;
    phx_tenant_fn      fn;
    void              *ctx;
    struct phx_err    *err;
};

static int take_row(void *ctx, const struct phx_value *c, int n_columns)
{
    struct reading *r = ctx;

    (void)n_columns;
    return read_tenant(c, r->out, r->err);
}

static int pass_row(void *ctx, const struct phx_value *c, int n_columns)
{
    struct reading   *r = ctx;
    struct phx_tenant t;
    int               rc = read_tenant(c, &t, r->err);

    (void)n_columns;
    return rc == 0 ? r->fn(r->ctx, &t) : rc;
}

#define COLUMNS "tenant, privacy, retention, replay, aup_hash, aup_by, aup_ns"

int phx_tenant_get(struct phx_tx *tx, const char *tenant, struct phx_tenant *out, struct phx_err *err)
{
    const struct phx_value value = phx_value_text(tenant);
    struct reading         r = {.out = out, .err = err};

    *out = (struct phx_tenant){.privacy = PHX_PRIVACY_COMMIT_ONLY, .retention = "standard"};
    (void)snprintf(out->tenant, sizeof(out->tenant), "%s", tenant);
    return phx_tx_exec(tx, "SELECT " COLUMNS " FROM tenant WHERE tenant = ?", &value, 1, take_row, &r, err);
}

int phx_tenant_list(struct phx_tx *tx, phx_tenant_fn fn, void *ctx, struct phx_err *err)
{
    struct reading r = {.fn = fn, .ctx = ctx, .err = err};

    return phx_tx_exec(tx, "SELECT " COLUMNS " FROM tenant ORDER BY tenant", NULL, 0, pass_row, &r, err);
}

int phx_tenant_set(struct phx_tx *tx, const struct phx_tenant *t, const char *by, int64_t at_ns,
                   struct phx_err *err)
{
    const struct phx_value values[] = {
        phx_value_text(t->tenant),   phx_value_text(phx_privacy_name(t->privacy)),
        phx_value_text(t->retention), phx_value_text(t->replay),
        phx_value_text(t->aup_hash), phx_value_text(t->aup_by),
        phx_value_int(t->aup_ns),    phx_value_int(at_ns),
    };
    char detail[256];
    int  rc = check(t, err);

    if (rc == 0 && (by == NULL || by[0] == '\0' || !is_printable(by)))
        rc = phx_fail(err, PHX_E_INVALID, "by: who changes the tenant, without control characters");
    if (rc == 0)
        rc = phx_tx_exec(tx, "INSERT INTO tenant(" COLUMNS ", changed_ns) VALUES(?, ?, ?, ?, ?, ?, ?, ?)"
                             " ON CONFLICT(tenant) DO UPDATE SET privacy = excluded.privacy,"
                             " retention = excluded.retention, replay = excluded.replay,"
                             " aup_hash = excluded.aup_hash, aup_by = excluded.aup_by,"
                             " aup_ns = excluded.aup_ns, changed_ns = excluded.changed_ns",
                         values, 8, NULL, NULL, err);
    (void)snprintf(detail, sizeof(detail), "privacy=%s retention=%s replay=%s aup=%s",
                   phx_privacy_name(t->privacy), t->retention, t->replay[0] != '\0' ? t->replay : "-",
                   t->aup_hash[0] != '\0' ? t->aup_hash : "-");
    return rc == 0 ? phx_audit_event(tx, "admin", "tenant.set", t->tenant, by, detail, at_ns, err) : rc;
}
