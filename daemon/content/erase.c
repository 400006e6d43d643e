/* SPDX-License-Identifier: Apache-2.0
 * Erasing: one answer, a month, what is past its time, and what a lost site key makes unreadable. */
#include <inttypes.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "daemon/audit/audit.h"
#include "daemon/content/vault.h"
#include "rpc/base/clock.h"
#include "rpc/base/mem.h"

enum { BY_MAX_BYTES = 128 };
static const int64_t day_ns = INT64_C(86400) * 1000000000;

int phx_row_erase(struct phx_tx *tx, const char *receipt, int64_t at_ns, struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_int(at_ns), phx_value_text(receipt)};

    phx_tx_scrub(tx);
    return phx_tx_exec(tx, "UPDATE content SET salt = NULL, wrapped_dek = NULL, request = NULL,"
                           " request_tag = NULL, response = NULL, response_tag = NULL, user = '',"
                           " shredded_ns = ? WHERE receipt = ? AND shredded_ns = 0",
                       values, 2, NULL, NULL, err);
}

/* ---- lists of rows ------------------------------------------------------------------------------------------ */

struct item {
    char *receipt, *tenant, *period; /* owned */
};
struct list {
    struct item *items;
    int          n, capacity;
};

static char *copy_text(const struct phx_value *v)
{
    return v->kind == PHX_VALUE_TEXT ? phx_mem_strndup(v->data, v->size) : phx_mem_strdup("");
}

static int add_item(void *ctx, const struct phx_value *c, int n_columns)
{
    struct list *l = ctx;

    (void)n_columns;
    if (l->n == l->capacity) {
        l->capacity = l->capacity == 0 ? 64 : 2 * l->capacity;
        l->items = phx_mem_realloc(l->items, (size_t)l->capacity, sizeof(*l->items));
    }
    l->items[l->n++] = (struct item){copy_text(&c[0]), copy_text(&c[1]), copy_text(&c[2])};
    return 0;
}

static void free_list(struct list *l)
{
    for (int i = 0; i < l->n; i++) {
        phx_mem_free(l->items[i].receipt);
        phx_mem_free(l->items[i].tenant);
        phx_mem_free(l->items[i].period);
    }
    phx_mem_free(l->items);
    *l = (struct list){0};
}

static int compare_items(const void *a, const void *b)
{
    const struct item *x = a, *y = b;
    int                order = strcmp(x->tenant, y->tenant);

    return order != 0 ? order : strcmp(x->period, y->period);
}

/* ---- one answer, one month ---------------------------------------------------------------------------------- */

struct owner {
    char    tenant[129], user[129];
    int64_t shredded_ns;
    bool    is_there;
};

static int read_owner(void *ctx, const struct phx_value *c, int n_columns)
{
    struct owner *o = ctx;

    (void)n_columns;
    (void)snprintf(o->tenant, sizeof(o->tenant), "%.*s", (int)c[0].size, (const char *)c[0].data);
    (void)snprintf(o->user, sizeof(o->user), "%.*s", (int)c[1].size, (const char *)c[1].data);
    o->shredded_ns = c[2].number;
    o->is_there = true;
    return 0;
}

int phx_content_shred(struct phx_tx *tx, const char *receipt, const char *by, int64_t at_ns,
                      struct phx_err *err)
{
    const struct phx_value value = phx_value_text(receipt);
    struct owner           o = {0};
    char                   when[32];
    int                    rc = phx_content_check_text("by", by, BY_MAX_BYTES, err);

    if (rc == 0)
        rc = phx_tx_exec(tx, "SELECT tenant, user, shredded_ns FROM content WHERE receipt = ?", &value, 1,
                         read_owner, &o, err);
    if (rc != 0)
        return rc;
    if (!o.is_there)
        return phx_fail(err, PHX_E_NOTFOUND, "no content is kept for %.64s", receipt);
    phx_clock_format_utc(o.shredded_ns, when);
    if (o.shredded_ns != 0)
        return phx_fail(err, PHX_E_STATE, "the content of %s was shredded on %s", receipt, when);
    rc = phx_hold_check(tx, o.tenant, o.user, err);
    if (rc == 0)
        rc = phx_row_erase(tx, receipt, at_ns, err);
    return rc == 0 ? phx_audit_event(tx, "shred", "content.shred", receipt, by, "", at_ns, err) : rc;
}

static int check_month(const char *period, struct phx_err *err)
{
    int  year, month;
    char rest, again[16];

    if (strlen(period) == 7 && sscanf(period, "%4d-%2d%c", &year, &month, &rest) == 2 && month >= 1 &&
        month <= 12 && year >= 1970 && snprintf(again, sizeof(again), "%04d-%02d", year, month) == 7 &&
        strcmp(again, period) == 0)
        return 0;
    return phx_fail(err, PHX_E_INVALID, "period: a month like 2026-11");
}

int phx_content_shred_month(struct phx_tx *tx, const char *tenant, const char *period, const char *by,
                            int64_t at_ns, struct phx_err *err)
{
    char detail[64];
    int  rc = phx_content_check_text("by", by, BY_MAX_BYTES, err);

    if (rc == 0)
        rc = check_month(period, err);
    if (rc == 0)
        rc = phx_hold_check_month(tx, tenant, period, err);
    if (rc != 0)
        return rc;
    rc = phx_kek_destroy(tx, tenant, period, at_ns, err);
    if (rc == 0)
        return phx_fail(err, PHX_E_NOTFOUND, "the tenant '%.64s' has no key for %s", tenant, period);
    (void)snprintf(detail, sizeof(detail), "period=%s", period);
    return rc == 1 ? phx_audit_event(tx, "shred", "content.shred-month", tenant, by, detail, at_ns, err)
                   : rc;
}

int phx_content_sweep(struct phx_tx *tx, int64_t at_ns, int max, struct phx_err *err)
{
    const struct phx_value value = phx_value_int(max);
    struct list            l = {0};
    int rc = phx_tx_exec(tx, "SELECT c.receipt, c.tenant, c.period FROM tenant_kek k JOIN content c"
                             " ON c.tenant = k.tenant AND c.period = k.period"
                             " AND c.generation < k.generation WHERE c.shredded_ns = 0 LIMIT ?",
                         &value, 1, add_item, &l, err);

    for (int i = 0; i < l.n && rc == 0; i++)
        rc = phx_row_erase(tx, l.items[i].receipt, at_ns, err);
    rc = rc == 0 ? l.n : rc;
    free_list(&l);
    return rc;
}

/* ---- what is past its time ----------------------------------------------------------------------------------- */

/* One leaf for what lies together; items [from, to) are of one tenant and month. */
static int tell_expired(struct phx_tx *tx, const struct list *l, int from, int to, int64_t now_ns,
                        struct phx_err *err)
{
    char detail[64];

    (void)snprintf(detail, sizeof(detail), "period=%s count=%d", l->items[from].period, to - from);
    return phx_audit_event(tx, "shred", "content.expire", l->items[from].tenant, "retention", detail, now_ns,
                           err);
}

static int expire_rows(struct phx_tx *tx, int64_t now_ns, int max, struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_int(now_ns),
                                       phx_value_int(now_ns - PHX_RETENTION_FLOOR_DAYS * day_ns),
                                       phx_value_int(max)};
    struct list l = {0};
    int rc = phx_tx_exec(tx, "SELECT receipt, tenant, period FROM content c"
                             " WHERE shredded_ns = 0 AND keep_until_ns <= ? AND at_ns <= ?"
                             " AND NOT EXISTS(SELECT 1 FROM legal_hold h WHERE h.closed_ns = 0"
                             "  AND h.tenant IN ('', c.tenant) AND h.user IN ('', c.user))"
                             " ORDER BY keep_until_ns LIMIT ?", values, 3, add_item, &l, err);

    if (l.n > 0)
        qsort(l.items, (size_t)l.n, sizeof(*l.items), compare_items);
    for (int i = 0, from = 0; i < l.n && rc == 0; i++) {
        rc = phx_row_erase(tx, l.items[i].receipt, now_ns, err);
        if (rc == 0 && (i + 1 == l.n || compare_items(&l.items[i], &l.items[i + 1]) != 0)) {
            rc = tell_expired(tx, &l, from, i + 1, now_ns, err);
            from = i + 1;
        }
    }
    rc = rc == 0 ? l.n : rc;
    free_list(&l);
    return rc;
}

static int end_key(struct phx_tx *tx, const struct item *key, int64_t now_ns, struct phx_err *err)
{
    char detail[64];
    int  rc = phx_kek_destroy(tx, key->tenant, key->period, now_ns, err);

    (void)snprintf(detail, sizeof(detail), "period=%s", key->period);
    return rc == 1 ? phx_audit_event(tx, "shred", "content.key-end", key->tenant, "retention", detail,
                                     now_ns, err)
                   : rc;
}

/* Keys of past months whose content is all gone. */
static int end_months(struct phx_tx *tx, int64_t now_ns, struct phx_err *err)
{
    struct phx_value value;
    struct list      l = {0};
    char             month[8];
    int              rc;

    phx_month_format(now_ns, month);
    value = phx_value_text(month);
    rc = phx_tx_exec(tx, "SELECT '', tenant, period FROM tenant_kek k"
                         " WHERE wrapped IS NOT NULL AND length(period) = 7 AND period < ?"
                         " AND NOT EXISTS(SELECT 1 FROM content c WHERE c.tenant = k.tenant"
                         "  AND c.period = k.period AND c.shredded_ns = 0)", &value, 1, add_item, &l, err);
    for (int i = 0; i < l.n && rc == 0; i++)
        rc = end_key(tx, &l.items[i], now_ns, err);
    free_list(&l);
    return rc;
}

/* When the names of a year end: the class's days behind the last instant of the year. */
static bool is_year_over(const char *year, const char *class_name, int64_t now_ns)
{
    struct tm tm = {.tm_year = atoi(year) - 1900 + 1, .tm_mday = 1};
    int32_t   days = 0;

    if (phx_retention_days(class_name[0] != '\0' ? class_name : "standard", &days, NULL) != 0)
        return false; /* a class of another version: keep */
    return now_ns / 1000000000 >= (int64_t)timegm(&tm) + (int64_t)days * 86400;
}

static int end_years(struct phx_tx *tx, int64_t now_ns, struct phx_err *err)
{
    struct list l = {0};
    int         rc = phx_tx_exec(tx, "SELECT coalesce(t.retention, ''), k.tenant, k.period FROM tenant_kek k"
                                     " LEFT JOIN tenant t ON t.tenant = k.tenant"
                                     " WHERE k.wrapped IS NOT NULL AND length(k.period) = 4"
                                     " AND k.tenant <> '' AND NOT EXISTS(SELECT 1 FROM content c"
                                     "  WHERE c.tenant = k.tenant AND c.shredded_ns = 0"
                                     "  AND substr(c.period, 1, 4) = k.period)",
                                 NULL, 0, add_item, &l, err);

    for (int i = 0; i < l.n && rc == 0; i++)
        if (is_year_over(l.items[i].period, l.items[i].receipt, now_ns) &&
            phx_hold_check_month(tx, l.items[i].tenant, NULL, NULL) == 0)
            rc = end_key(tx, &l.items[i], now_ns, err);
    free_list(&l);
    return rc;
}

int phx_content_expire(struct phx_tx *tx, int64_t now_ns, int max, struct phx_err *err)
{
    int n = phx_content_sweep(tx, now_ns, max, err), expired, rc;

    if (n < 0 || n >= max)
        return n;
    expired = expire_rows(tx, now_ns, max - n, err);
    if (expired < 0 || n + expired >= max)
        return expired < 0 ? expired : n + expired;
    rc = end_months(tx, now_ns, err);
    if (rc == 0)
        rc = end_years(tx, now_ns, err);
    return rc == 0 ? n + expired : rc;
}

/* ---- a lost site key ------------------------------------------------------------------------------------------- */

int phx_content_key_lost(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES], const char *by,
                         const char *why, int64_t at_ns, struct phx_err *err)
{
    const struct phx_value value = phx_value_int(at_ns);
    int                    rc = phx_content_check_text("by", by, PHX_WHY_MAX_BYTES, err);

    if (rc == 0)
        rc = phx_content_check_text("why", why, PHX_WHY_MAX_BYTES, err);
    if (rc == 0 && phx_content_key_check(tx, site_key, NULL) == 0)
        rc = phx_fail(err, PHX_E_STATE, "keys/content.key is the right one: nothing is lost");
    if (rc == 0)
        rc = phx_tx_exec(tx, "UPDATE tenant_kek SET wrapped = NULL, generation = generation + 1,"
                             " destroyed_ns = ? WHERE wrapped IS NOT NULL", &value, 1, NULL, NULL, err);
    if (rc == 0)
        rc = phx_content_key_check(tx, site_key, err);
    if (rc == 0)
        rc = phx_audit_event(tx, "key", "content.key-lost", "content.key", by, why, at_ns, err);
    phx_tx_scrub(tx);
    return rc;
}
