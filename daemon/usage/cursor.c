/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "daemon/store/store.h"
#include "daemon/usage/export.h"

enum { NAME_BYTES = 48 };

/* "usage/2026-11/ledger" */
static void name_cursor(const char *period, const char *what, char name[NAME_BYTES])
{
    (void)snprintf(name, NAME_BYTES, "usage/%.7s/%s", period, what);
}

static int read_cursor(void *ctx, const struct phx_value *c, int n_columns)
{
    struct cursor *cursor = ctx;
    const char    *what = strrchr(c[0].data, '/') + 1;

    (void)n_columns;
    cursor->is_known = true;
    if (strcmp(what, "ledger") == 0)
        cursor->below_id = c[1].number;
    else if (strcmp(what, "log") == 0)
        cursor->below_leaf = c[1].number;
    else
        cursor->from_leaf = c[1].number;
    return 0;
}

static int read_largest(void *ctx, const struct phx_value *c, int n_columns)
{
    (void)n_columns;
    ((struct cursor *)ctx)->from_leaf = c[0].number;
    return 0;
}

int phx_cursor_load(struct phx_tx *tx, const char *period, struct cursor *out, struct phx_err *err)
{
    char             names[3][NAME_BYTES];
    struct phx_value values[3];
    int              rc;

    *out = (struct cursor){0};
    name_cursor(period, "ledger", names[0]);
    name_cursor(period, "log", names[1]);
    name_cursor(period, "log-from", names[2]);
    for (int i = 0; i < 3; i++)
        values[i] = phx_value_text(names[i]);
    rc = phx_tx_exec(tx, "SELECT name, next_id FROM export_cursor WHERE name IN (?, ?, ?)", values, 3,
                     read_cursor, out, err);
    if (rc != 0 || out->is_known)
        return rc;
    return phx_tx_exec(tx,
                       "SELECT COALESCE(MAX(next_id), 0) FROM export_cursor WHERE name LIKE 'usage/%/log'",
                       NULL, 0, read_largest, out, err);
}

int phx_cursor_store(struct phx_tx *tx, const char *period, const struct cursor *c, struct phx_err *err)
{
    const struct {
        const char *what;
        int64_t     next_id;
    } rows[] = {{"ledger", c->below_id}, {"log", c->below_leaf}, {"log-from", c->from_leaf}};
    int rc = 0;

    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]) && rc == 0; i++) {
        char name[NAME_BYTES];

        name_cursor(period, rows[i].what, name);
        rc = phx_tx_exec(tx, "INSERT INTO export_cursor(name, next_id) VALUES(?, ?)",
                         (const struct phx_value[]){phx_value_text(name), phx_value_int(rows[i].next_id)}, 2,
                         NULL, NULL, err);
    }
    return rc;
}
