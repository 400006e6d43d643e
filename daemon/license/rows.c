/* SPDX-License-Identifier: Apache-2.0
 * The licence in the database: each one that was ever installed stays, with its leaf in the audit log. */
#include <inttypes.h>
#include <stdio.h>

#include "daemon/audit/audit.h"
#include "daemon/license/held.h"

struct newest {
    int64_t         number;
    struct phx_buf *envelope; /* NULL = the number is all */
};

static int take_newest(void *ctx, const struct phx_value *columns, int n_columns)
{
    struct newest *n = ctx;

    n->number = columns[0].number;
    if (n_columns > 1 && n->envelope != NULL)
        phx_buf_put(n->envelope, columns[1].data, columns[1].size);
    return 0;
}

static int read_rows(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_license_rows *r = ctx;
    struct newest            license = {0, &r->license}, key_set = {0, &r->key_set}, none = {0, NULL};
    int rc = phx_tx_exec(tx, "SELECT serial, envelope FROM license ORDER BY serial DESC LIMIT 1", NULL, 0,
                         take_newest, &license, err);

    if (rc == 0)
        rc = phx_tx_exec(tx, "SELECT version, envelope FROM key_set ORDER BY version DESC LIMIT 1", NULL, 0,
                         take_newest, &key_set, err);
    if (rc == 0)
        rc = phx_tx_exec(tx, "SELECT value FROM meta WHERE name = 'license_none_ns'", NULL, 0, take_newest, &none,
                         err);
    r->serial = license.number;
    r->key_set_version = key_set.number;
    r->none_since_ns = none.number;
    return rc;
}

int phx_license_rows_read(struct phx_store *store, struct phx_license_rows *out, struct phx_err *err)
{
    phx_buf_init(&out->license, PHX_LICENSE_MAX_BYTES + 1);
    phx_buf_init(&out->key_set, PHX_LICENSE_MAX_BYTES + 1);
    return phx_store_run(store, read_rows, out, err);
}

void phx_license_rows_fini(struct phx_license_rows *r)
{
    phx_buf_fini(&r->license);
    phx_buf_fini(&r->key_set);
}

static int add_key_set(struct phx_tx *tx, const struct phx_license_pair *p, const char *by, int64_t now_ns,
                       struct phx_err *err)
{
    struct newest          newest = {0, NULL};
    char                   subject[48];
    const struct phx_value values[] = {phx_value_int(p->keys.version),
                                       phx_value_blob(p->key_set_file.data, p->key_set_file.size),
                                       phx_value_int(now_ns)};
    int rc = phx_tx_exec(tx, "SELECT coalesce(max(version), 0) FROM key_set", NULL, 0, take_newest, &newest, err);

    if (rc != 0)
        return rc;
    if (newest.number >= p->keys.version)
        return phx_fail(err, PHX_E_STATE, "key set version %" PRId64 " was installed meanwhile; try again",
                        newest.number);
    rc = phx_tx_exec(tx, "INSERT INTO key_set(version, envelope, installed_ns) VALUES(?, ?, ?)", values, 3, NULL,
                     NULL, err);
    (void)snprintf(subject, sizeof(subject), "version %" PRId64, p->keys.version);
    return rc != 0 ? rc
                   : phx_audit_event(tx, "licence", "licence.keyset", subject, by, p->keys.digest, now_ns, err);
}

static int add_license(struct phx_tx *tx, const struct phx_license_pair *p, const char *by, int64_t now_ns,
                       struct phx_err *err)
{
    const struct phx_license_terms *t = &p->license->terms;
    struct newest                   newest = {0, NULL};
    char                            subject[48], detail[160], until[PHX_DATE_BYTES];
    const struct phx_value          values[] = {phx_value_int(t->serial),
                                                phx_value_blob(p->license_file.data, p->license_file.size),
                                                phx_value_int(now_ns)};
    int rc = phx_tx_exec(tx, "SELECT coalesce(max(serial), 0) FROM license", NULL, 0, take_newest, &newest, err);

    if (rc != 0)
        return rc;
    if (newest.number >= t->serial)
        return phx_fail(err, PHX_E_STATE, "licence serial %" PRId64 " was installed meanwhile; try again",
                        newest.number);
    rc = phx_tx_exec(tx, "INSERT INTO license(serial, envelope, installed_ns) VALUES(?, ?, ?)", values, 3, NULL,
                     NULL, err);
    phx_date_format(t->not_after_ns, until);
    (void)snprintf(subject, sizeof(subject), "serial %" PRId64, t->serial);
    (void)snprintf(detail, sizeof(detail), "%s until %s replaces %" PRId64, t->digest, until, newest.number);
    return rc != 0 ? rc : phx_audit_event(tx, "licence", "licence.install", subject, by, detail, now_ns, err);
}

int phx_license_rows_add(struct phx_tx *tx, const struct phx_license_pair *p, const char *by, int64_t now_ns,
                         struct phx_err *err)
{
    int rc = p->is_new_key_set ? add_key_set(tx, p, by, now_ns, err) : 0;

    if (rc == 0 && p->is_new_license)
        rc = add_license(tx, p, by, now_ns, err);
    return rc == 0 ? phx_license_rows_set_none(tx, 0, err) : rc;
}

int phx_license_rows_set_none(struct phx_tx *tx, int64_t since_ns, struct phx_err *err)
{
    const struct phx_value value = phx_value_int(since_ns);
    int rc = phx_tx_exec(tx, "DELETE FROM meta WHERE name = 'license_none_ns'", NULL, 0, NULL, NULL, err);

    if (rc != 0 || since_ns == 0)
        return rc;
    return phx_tx_exec(tx, "INSERT INTO meta(name, value) VALUES('license_none_ns', ?)", &value, 1, NULL, NULL,
                       err);
}
