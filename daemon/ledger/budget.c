/* SPDX-License-Identifier: Apache-2.0 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ledger/row.h"
#include "rpc/base/mem.h"

static const char *const scope_names[] = {"", "tenant", "user", "key", "license"};
static const char *const period_names[] = {"", "day", "month", "total"};

const char *phx_budget_scope_name(enum phx_budget_scope scope)
{
    return scope_names[scope >= PHX_BUDGET_TENANT && scope <= PHX_BUDGET_LICENSE ? (int)scope : 0];
}

const char *phx_budget_period_name(enum phx_budget_period period)
{
    return period_names[period >= PHX_PERIOD_DAY && period <= PHX_PERIOD_TOTAL ? (int)period : 0];
}

enum phx_budget_scope phx_budget_scope_parse(const char *name)
{
    for (int i = PHX_BUDGET_TENANT; i <= PHX_BUDGET_LICENSE; i++)
        if (strcmp(name, scope_names[i]) == 0)
            return i;
    return 0;
}

enum phx_budget_period phx_budget_period_parse(const char *name)
{
    for (int i = PHX_PERIOD_DAY; i <= PHX_PERIOD_TOTAL; i++)
        if (strcmp(name, period_names[i]) == 0)
            return i;
    return 0;
}

/* ---- sums -------------------------------------------------------------------------------------------------- */

struct sum_reader {
    struct phx_budget *b;
    bool               is_found;
};

static int read_sum(void *ctx, const struct phx_value *c, int n_columns)
{
    struct sum_reader *r = ctx;

    (void)n_columns;
    r->is_found = true;
    r->b->posted = c[0].number;
    r->b->pending = c[1].number;
    r->b->at_id = c[2].number;
    return 0;
}

static int store_sum(struct phx_tx *tx, const struct phx_budget *b, struct phx_err *err)
{
    const struct phx_value values[] = {
        phx_value_text(phx_budget_scope_name(b->scope)), phx_value_text(b->name), phx_value_text(b->window),
        phx_value_int(b->posted), phx_value_int(b->pending), phx_value_int(b->at_id)};
    /* windows that are over: a late commit finds no sum to move, which is right for a cache */
    int rc = phx_tx_exec(tx,
                         "DELETE FROM budget_sum WHERE scope = ? AND name = ? AND time_window < ?"
                         " AND LENGTH(time_window) = LENGTH(?)",
                         (const struct phx_value[]){values[0], values[1], values[2], values[2]}, 4, NULL,
                         NULL, err);

    if (rc != 0)
        return rc;
    return phx_tx_exec(tx,
                       "INSERT INTO budget_sum(scope, name, time_window, posted, pending, at_id)"
                       " VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT(scope, name, time_window) DO UPDATE SET"
                       " posted = excluded.posted, pending = excluded.pending, at_id = excluded.at_id",
                       values, 6, NULL, NULL, err);
}

static int fold_sum(struct phx_tx *tx, struct phx_budget *b, struct phx_err *err)
{
    struct fold f = {0};
    int         rc = phx_budget_fold(tx, b->scope, b->name, b->window, &f, err);

    b->posted = f.posted;
    b->pending = f.pending;
    b->at_id = f.at_id;
    return rc;
}

/* The sum of the window that at_ns is in, from the cache or from the rows. */
static int load_sum(struct phx_tx *tx, struct phx_budget *b, int64_t at_ns, bool *is_cached,
                    struct phx_err *err)
{
    struct sum_reader r = {b, false};
    struct phx_value  values[3];
    int               rc;

    phx_window_format(b->period, at_ns, b->window);
    values[0] = phx_value_text(phx_budget_scope_name(b->scope));
    values[1] = phx_value_text(b->name);
    values[2] = phx_value_text(b->window);
    rc = phx_tx_exec(tx,
                     "SELECT posted, pending, at_id FROM budget_sum WHERE scope = ? AND name = ?"
                     " AND time_window = ?",
                     values, 3, read_sum, &r, err);
    *is_cached = r.is_found;
    return rc == 0 && !r.is_found ? fold_sum(tx, b, err) : rc;
}

/* ---- setting ------------------------------------------------------------------------------------------------ */

static int check_budget(const struct phx_budget *b, struct phx_err *err)
{
    const char *slash = strchr(b->name, '/');

    if (b->scope < PHX_BUDGET_TENANT || b->scope > PHX_BUDGET_KEY)
        return phx_fail(err, PHX_E_INVALID, "scope: tenant, user or key (the licence brings its own limit)");
    if (b->period < PHX_PERIOD_DAY || b->period > PHX_PERIOD_TOTAL)
        return phx_fail(err, PHX_E_INVALID, "period: day, month or total");
    if (b->name[0] == '\0')
        return phx_fail(err, PHX_E_INVALID, "name: it is empty");
    if (b->scope == PHX_BUDGET_TENANT && slash != NULL)
        return phx_fail(err, PHX_E_INVALID, "name: a tenant has no '/'");
    if (b->scope == PHX_BUDGET_USER && (slash == NULL || slash == b->name || slash[1] == '\0'))
        return phx_fail(err, PHX_E_INVALID, "name: a user is named TENANT/USER");
    if (b->tokens < 0)
        return phx_fail(err, PHX_E_INVALID, "tokens: %" PRId64 " is below 0", b->tokens);
    return 0;
}

int phx_budget_set(struct phx_tx *tx, const struct phx_budget *b, int64_t at_ns, struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_text(phx_budget_scope_name(b->scope)),
                                       phx_value_text(b->name),
                                       phx_value_text(phx_budget_period_name(b->period)),
                                       phx_value_int(b->tokens), phx_value_int(at_ns)};
    struct phx_budget      sum = *b;
    int                    rc = check_budget(b, err);

    if (rc == 0)
        rc = phx_tx_exec(tx,
                         "INSERT INTO budget(scope, name, period, tokens, changed_ns) VALUES(?, ?, ?, ?, ?)"
                         " ON CONFLICT(scope, name, period) DO UPDATE SET tokens = excluded.tokens,"
                         " changed_ns = excluded.changed_ns",
                         values, 5, NULL, NULL, err);
    if (rc == 0) {
        phx_window_format(b->period, at_ns, sum.window);
        rc = fold_sum(tx, &sum, err);
    }
    return rc == 0 ? store_sum(tx, &sum, err) : rc;
}

int phx_budget_remove(struct phx_tx *tx, const struct phx_budget *b, struct phx_err *err)
{
    char                   any_window[WINDOW_BYTES];
    const struct phx_value values[] = {phx_value_text(phx_budget_scope_name(b->scope)),
                                       phx_value_text(b->name),
                                       phx_value_text(phx_budget_period_name(b->period))};
    int                    rc = check_budget(b, err);

    if (rc == 0)
        rc = phx_tx_exec(tx, "DELETE FROM budget WHERE scope = ? AND name = ? AND period = ?", values, 3,
                         NULL, NULL, err);
    if (rc == 0 && phx_tx_changes(tx) == 0)
        rc = phx_fail(err, PHX_E_NOTFOUND, "there is no %s budget of %s '%.100s'",
                      phx_budget_period_name(b->period), phx_budget_scope_name(b->scope), b->name);
    if (rc != 0)
        return rc;
    phx_window_format(b->period, 0, any_window);
    return phx_tx_exec(
        tx, "DELETE FROM budget_sum WHERE scope = ? AND name = ? AND LENGTH(time_window) = LENGTH(?)",
        (const struct phx_value[]){values[0], values[1], phx_value_text(any_window)}, 3, NULL, NULL, err);
}

/* ---- listing ------------------------------------------------------------------------------------------------ */

struct budget_list {
    struct phx_budget *items;
    size_t             n, capacity;
};

static struct phx_budget *grow(struct budget_list *l)
{
    if (l->n == l->capacity) {
        l->capacity = l->capacity * 2 + 16;
        l->items = phx_mem_realloc(l->items, l->capacity, sizeof(*l->items));
    }
    return &l->items[l->n++];
}

static int collect_budget(void *ctx, const struct phx_value *c, int n_columns)
{
    struct budget_list *l = ctx;
    struct phx_budget  *b = grow(l);

    (void)n_columns;
    *b = (struct phx_budget){.scope = phx_budget_scope_parse(c[0].data),
                             .period = phx_budget_period_parse(c[2].data),
                             .tokens = c[3].number};
    (void)snprintf(b->name, sizeof(b->name), "%s", (const char *)c[1].data);
    return 0;
}

int phx_budget_list(struct phx_tx *tx, int64_t at_ns, phx_budget_fn fn, void *ctx, struct phx_err *err)
{
    struct budget_list l = {0};
    bool               is_cached;
    int rc = phx_tx_exec(tx, "SELECT scope, name, period, tokens FROM budget ORDER BY scope, name, period",
                         NULL, 0, collect_budget, &l, err);

    for (size_t i = 0; i < l.n && rc == 0; i++) {
        rc = load_sum(tx, &l.items[i], at_ns, &is_cached, err);
        if (rc == 0)
            rc = fn(ctx, &l.items[i]);
    }
    phx_mem_free(l.items);
    return rc;
}

/* ---- checking ------------------------------------------------------------------------------------------------- */

static int collect_budgets_of(struct phx_tx *tx, const char *tenant, const char *user, const char *key_id,
                              struct budget_list *out, struct phx_err *err)
{
    char             name[PHX_BUDGET_NAME_BYTES];
    struct phx_value values[3];

    if ((size_t)snprintf(name, sizeof(name), "%s/%s", tenant, user) >= sizeof(name))
        return phx_fail(err, PHX_E_INVALID, "user: tenant and user have more than %d bytes",
                        PHX_BUDGET_NAME_BYTES - 2);
    values[0] = phx_value_text(tenant);
    values[1] = phx_value_text(name);
    values[2] = phx_value_text(key_id);
    return phx_tx_exec(tx,
                       "SELECT scope, name, period, tokens FROM budget WHERE (scope = 'tenant' AND name = ?)"
                       " OR (scope = 'user' AND name = ?) OR (scope = 'key' AND name = ?)",
                       values, 3, collect_budget, out, err);
}

struct verdict {
    int64_t            want, at_ns;
    int64_t           *left, *retry_ns;
    struct phx_budget *broken;
    bool               is_broken;
};

/* Of several that refuse, the one to wait longest for: an earlier retry would be in vain. */
static int judge(const struct phx_budget *b, struct verdict *v, struct phx_err *err)
{
    int64_t from_ns, end_ns, used, rest;
    int     rc;

    if (__builtin_add_overflow(b->posted, b->pending, &used))
        return phx_fail(err, PHX_E_INVALID, "budget: the sum of '%.40s' would overflow", b->name);
    rest = b->tokens - used; /* both are 0 or more */
    if (v->want <= rest) {
        if (*v->left < 0 || rest - v->want < *v->left)
            *v->left = rest - v->want;
        return 0;
    }
    rc = phx_window_range(b->window, &from_ns, &end_ns, err);
    if (rc != 0)
        return rc;
    if (v->want > b->tokens)
        end_ns = 0;
    if (!v->is_broken || (*v->retry_ns != 0 && (end_ns == 0 || end_ns > *v->retry_ns))) {
        *v->broken = *b;
        *v->retry_ns = end_ns;
    }
    v->is_broken = true;
    return 0;
}

static int check_one(struct phx_tx *tx, struct phx_budget *b, struct verdict *v, struct phx_err *err)
{
    bool is_cached = false;
    int  rc = load_sum(tx, b, v->at_ns, &is_cached, err);

    if (rc == 0 && !is_cached)
        rc = store_sum(tx, b, err);
    return rc == 0 ? judge(b, v, err) : rc;
}

int phx_budget_check(struct phx_tx *tx, const char *tenant, const char *user, const char *key_id,
                     int64_t license_tokens, int64_t want, int64_t at_ns, int64_t *left,
                     struct phx_budget *broken, int64_t *retry_ns, struct phx_err *err)
{
    struct phx_budget  license = {
         .scope = PHX_BUDGET_LICENSE, .period = PHX_PERIOD_MONTH, .tokens = license_tokens};
    struct budget_list l = {0};
    struct verdict     v = {want, at_ns, left, retry_ns, broken, false};
    int                rc;

    *left = -1;
    *retry_ns = 0;
    if (want < 0)
        return phx_fail(err, PHX_E_INVALID, "budget: %" PRId64 " tokens are asked for", want);
    rc = collect_budgets_of(tx, tenant, user, key_id, &l, err);
    for (size_t i = 0; i < l.n && rc == 0; i++)
        rc = check_one(tx, &l.items[i], &v, err);
    if (rc == 0 && license_tokens >= 0)
        rc = check_one(tx, &license, &v, err);
    phx_mem_free(l.items);
    return rc == 0 ? !v.is_broken : rc;
}

/* ---- audit ---------------------------------------------------------------------------------------------------- */

static int collect_sum(void *ctx, const struct phx_value *c, int n_columns)
{
    struct budget_list *l = ctx;
    struct phx_budget  *b = grow(l);

    (void)n_columns;
    *b = (struct phx_budget){.scope = phx_budget_scope_parse(c[0].data),
                             .posted = c[3].number,
                             .pending = c[4].number,
                             .at_id = c[5].number};
    (void)snprintf(b->name, sizeof(b->name), "%s", (const char *)c[1].data);
    (void)snprintf(b->window, sizeof(b->window), "%s", (const char *)c[2].data);
    return 0;
}

static int audit_sum(struct phx_tx *tx, const struct phx_budget *b, struct phx_err *err)
{
    struct fold f = {0};
    int         rc = phx_budget_fold(tx, b->scope, b->name, b->window, &f, err);

    if (rc == 0 && (f.posted != b->posted || f.pending != b->pending))
        rc = phx_fail(err, PHX_E_STATE,
                      "budget_sum %s '%.60s' %s: posted %" PRId64 " and pending %" PRId64
                      ", but its rows say %" PRId64 " and %" PRId64,
                      phx_budget_scope_name(b->scope), b->name, b->window, b->posted, b->pending, f.posted,
                      f.pending);
    if (rc == 0 && (b->at_id < f.touched_id || b->at_id > f.at_id))
        rc = phx_fail(err, PHX_E_STATE,
                      "budget_sum %s '%.60s' %s: says row %" PRId64 " is its last, but %" PRId64 " is",
                      phx_budget_scope_name(b->scope), b->name, b->window, b->at_id, f.touched_id);
    return rc;
}

static int fail_open(void *ctx, const struct phx_value *c, int n_columns)
{
    (void)n_columns;
    return phx_fail(ctx, PHX_E_STATE, "ledger_open: lease %.40s is not as its rows say",
                    (const char *)c[0].data);
}

int phx_budget_audit(struct phx_tx *tx, struct phx_err *err)
{
    struct budget_list l = {0};
    int rc = phx_tx_exec(tx, "SELECT scope, name, time_window, posted, pending, at_id FROM budget_sum"
                             " ORDER BY scope, name, time_window",
                         NULL, 0, collect_sum, &l, err);

    for (size_t i = 0; i < l.n && rc == 0; i++)
        rc = audit_sum(tx, &l.items[i], err);
    phx_mem_free(l.items);
    if (rc != 0)
        return rc;
    return phx_tx_exec(tx,
                       "SELECT lease FROM ledger_open WHERE lease NOT IN (SELECT r.lease FROM ledger r WHERE"
                       " r.kind = 'reserve' AND NOT EXISTS (SELECT 1 FROM ledger e WHERE e.lease = r.lease"
                       " AND e.kind IN ('commit', 'void'))) UNION ALL SELECT r.lease FROM ledger r WHERE"
                       " r.kind = 'reserve' AND NOT EXISTS (SELECT 1 FROM ledger e WHERE e.lease = r.lease"
                       " AND e.kind IN ('commit', 'void')) AND NOT EXISTS (SELECT 1 FROM ledger_open o WHERE"
                       " o.lease = r.lease) LIMIT 1",
                       NULL, 0, fail_open, err, err);
}
