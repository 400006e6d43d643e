/* SPDX-License-Identifier: Apache-2.0
 * How long content is kept, and the holds that keep it longer. */
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/content/vault.h"

enum { NAME_MAX_BYTES = 64, SUBJECT_MAX_BYTES = 128 };

/* Whole days, never fewer than the years they stand for. */
static const struct {
    const char *name;
    int32_t     days;
} classes[] = {
    {"standard", PHX_RETENTION_FLOOR_DAYS}, {"year-1", 366},   {"phi-6y", 2192},
    {"sec-6y", 2192},                       {"year-10", 3653},
};

int phx_retention_days(const char *class_name, int32_t *days, struct phx_err *err)
{
    for (size_t i = 0; i < sizeof(classes) / sizeof(classes[0]); i++)
        if (strcmp(class_name, classes[i].name) == 0) {
            *days = classes[i].days;
            return 0;
        }
    return phx_fail(err, PHX_E_INVALID, "retention: standard, year-1, phi-6y, sec-6y or year-10");
}

/* ---- holds ------------------------------------------------------------------------------------------------ */

static int check_hold(const char *name, const char *tenant, const char *user, const char *reason,
                      const char *by, struct phx_err *err)
{
    size_t n = strlen(name);

    if (n == 0 || n > NAME_MAX_BYTES ||
        strspn(name, "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") != n)
        return phx_fail(err, PHX_E_INVALID, "name of the hold: 1 to %d letters, digits and . _ -",
                        NAME_MAX_BYTES);
    if (tenant[0] == '\0' && user[0] == '\0')
        return phx_fail(err, PHX_E_INVALID, "a hold names a tenant, a user or both");
    if (strlen(tenant) > NAME_MAX_BYTES || strlen(user) > SUBJECT_MAX_BYTES)
        return phx_fail(err, PHX_E_INVALID, "tenant of at most %d bytes, user of at most %d", NAME_MAX_BYTES,
                        SUBJECT_MAX_BYTES);
    if (phx_content_check_text("by", by, SUBJECT_MAX_BYTES, err) != 0)
        return PHX_E_INVALID;
    return phx_content_check_text("reason", reason, PHX_WHY_MAX_BYTES, err);
}

int phx_hold_open(struct phx_tx *tx, const char *name, const char *tenant, const char *user,
                  const char *reason, const char *by, int64_t at_ns, struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_text(name),  phx_value_text(tenant), phx_value_text(user),
                                       phx_value_int(at_ns), phx_value_text(reason), phx_value_text(by)};
    int rc = check_hold(name, tenant, user, reason, by, err);

    if (rc == 0)
        rc = phx_tx_exec(tx, "INSERT INTO legal_hold(name, tenant, user, opened_ns, reason, opened_by)"
                             " VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT(name) DO NOTHING",
                         values, 6, NULL, NULL, err);
    if (rc == 0 && phx_tx_changes(tx) == 0)
        rc = phx_fail(err, PHX_E_STATE, "there is or was a hold '%s': take another name", name);
    return rc == 0 ? phx_audit_event(tx, "admin", "hold.open", name, by, reason, at_ns, err) : rc;
}

int phx_hold_close(struct phx_tx *tx, const char *name, const char *by, int64_t at_ns, struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_int(at_ns), phx_value_text(by), phx_value_text(name)};
    int rc = phx_content_check_text("by", by, SUBJECT_MAX_BYTES, err);

    if (rc == 0)
        rc = phx_tx_exec(tx, "UPDATE legal_hold SET closed_ns = ?, closed_by = ?"
                             " WHERE name = ? AND closed_ns = 0", values, 3, NULL, NULL, err);
    if (rc == 0 && phx_tx_changes(tx) == 0)
        rc = phx_fail(err, PHX_E_NOTFOUND, "no open hold has the name '%.64s'", name);
    return rc == 0 ? phx_audit_event(tx, "admin", "hold.close", name, by, "", at_ns, err) : rc;
}

struct listing {
    phx_hold_fn fn;
    void       *ctx;
};

static int list_row(void *ctx, const struct phx_value *c, int n_columns)
{
    const struct listing *l = ctx;
    const struct phx_hold hold = {
        .name = c[0].data,
        .tenant = c[1].data,
        .user = c[2].data,
        .reason = c[3].data,
        .opened_by = c[4].data,
        .closed_by = c[5].data,
        .opened_ns = c[6].number,
        .closed_ns = c[7].number,
    };

    (void)n_columns;
    return l->fn(l->ctx, &hold);
}

int phx_hold_list(struct phx_tx *tx, phx_hold_fn fn, void *ctx, struct phx_err *err)
{
    struct listing l = {fn, ctx};

    return phx_tx_exec(tx, "SELECT name, tenant, user, reason, opened_by, closed_by, opened_ns, closed_ns"
                           " FROM legal_hold ORDER BY opened_ns, name", NULL, 0, list_row, &l, err);
}

static int fail_held(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)n_columns;
    return phx_fail(ctx, PHX_E_STATE, "the legal hold '%s' is open on this content; it is not erased",
                    (const char *)columns[0].data);
}

int phx_hold_check(struct phx_tx *tx, const char *tenant, const char *user, struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_text(tenant), phx_value_text(user)};

    return phx_tx_exec(tx, "SELECT name FROM legal_hold WHERE closed_ns = 0 AND tenant IN ('', ?)"
                           " AND user IN ('', ?) ORDER BY name LIMIT 1", values, 2, fail_held, err, err);
}

/* A hold on one user is on a month in which that user's content lies. */
int phx_hold_check_month(struct phx_tx *tx, const char *tenant, const char *period, struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_text(tenant), phx_value_text(period),
                                       phx_value_text(tenant), phx_value_text(period)};

    return phx_tx_exec(tx, "SELECT name FROM legal_hold h WHERE closed_ns = 0 AND tenant IN ('', ?)"
                           " AND (user = '' OR ? IS NULL OR EXISTS(SELECT 1 FROM content c"
                           "  WHERE c.tenant = ? AND c.period = ? AND c.shredded_ns = 0 AND c.user = h.user))"
                           " ORDER BY name LIMIT 1", values, 4, fail_held, err, err);
}
