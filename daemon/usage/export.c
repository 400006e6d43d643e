/* SPDX-License-Identifier: Apache-2.0
 * What a cluster without a network tells its licensor: counts, where ledger and log stand, and a proof that the
 * log of the export before is the beginning of this one's. */
#include "daemon/usage/export.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/audit/audit.h"
#include "daemon/seat/seat.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/json.h"
#include "rpc/base/utf8.h"

struct work {
    const struct phx_usage_export *e;
    int64_t                        from_ns, to_ns;
    struct phx_tiles              *tiles;
    struct cursor                  cursor;
    /* counted */
    struct phx_seat_counts seats;
    struct phx_usage_row   total;
    int64_t                n_corrections, peak, clock_events, serial, key_set_version;
    json_t                *models;
    struct phx_err        *err;
};

/* ---- the cursor ------------------------------------------------------------------------------------------ */

static int fix_cursor(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct work *w = ctx;
    int64_t      last_id = 0;
    int          rc = phx_cursor_load(tx, w->e->period, &w->cursor, err);

    if (rc != 0 || w->cursor.is_known)
        return rc;
    if (w->e->now_ns < w->to_ns)
        return phx_fail(err, PHX_E_STATE, "period %s is not over (UTC): export it afterwards", w->e->period);
    rc = phx_ledger_last_id(tx, &last_id, err);
    w->cursor.below_id = last_id + 1;
    w->cursor.below_leaf = (int64_t)phx_tiles_size(w->tiles);
    if (rc == 0 && w->cursor.below_leaf < w->cursor.from_leaf)
        rc = phx_fail(err, PHX_E_STATE,
                      "the published log has %lld leaves, but %lld were exported before: was a snapshot restored?",
                      (long long)w->cursor.below_leaf, (long long)w->cursor.from_leaf);
    if (rc == 0)
        rc = phx_cursor_store(tx, w->e->period, &w->cursor, err);
    if (rc == 0) /* no later row can then have a time within the period */
        rc = phx_time_save(tx, w->e->now_ns, err);
    return rc != 0 ? rc
                   : phx_audit_event(tx, "admin", "usage.export", w->e->period, w->e->by, w->e->message,
                                     w->e->now_ns, err);
}

/* ---- counting -------------------------------------------------------------------------------------------- */

static int read_number(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)n_columns;
    *(int64_t *)ctx = columns[0].number;
    return 0;
}

static int add_model(void *ctx, const struct phx_usage_row *row)
{
    struct work *w = ctx;
    json_t      *model;

    if (phx_usage_add(&w->total, row, w->err) != 0)
        return PHX_E_INVALID;
    model = json_pack("{s:s#,s:I,s:I,s:I,s:I,s:I,s:I}", "model", row->group[0],
                      (int)phx_utf8_valid_prefix(row->group[0], strlen(row->group[0])), "requests",
                      (json_int_t)row->requests, "prompt_tokens", (json_int_t)row->prompt, "cached_tokens",
                      (json_int_t)row->cached, "output_tokens", (json_int_t)row->output, "reasoning_tokens",
                      (json_int_t)row->reasoning, "compute_ms", (json_int_t)row->compute_ms);
    return json_array_append_new(w->models, model) == 0 ? 0 : phx_fail(w->err, PHX_E_NOMEM, "export: no memory");
}

static int count_row(void *ctx, const struct phx_ledger_row *row)
{
    *(int64_t *)ctx += row->kind == PHX_LEDGER_CORRECT;
    return 0;
}

static int count_ledger(struct phx_tx *tx, struct work *w, struct phx_err *err)
{
    static const enum phx_usage_group groups[PHX_USAGE_GROUPS_MAX] = {PHX_GROUP_MODEL};
    const struct phx_usage_filter     filter = {
            .from_ns = w->from_ns, .to_ns = w->to_ns, .below_id = w->cursor.below_id};
    int64_t at_id;
    int     rc = phx_ledger_usage(tx, &filter, groups, add_model, w, &at_id, err);

    if (rc == 0)
        rc = phx_ledger_usage_rows(tx, &filter, count_row, &w->n_corrections, err);
    return rc == 0 ? phx_ledger_peak(tx, w->from_ns, w->to_ns, w->cursor.below_id, &w->peak, err) : rc;
}

/* As they were at the end of the period, so that a later export of it is the same. */
static int count_rest(struct phx_tx *tx, struct work *w, struct phx_err *err)
{
    const struct phx_value end = phx_value_int(w->to_ns);
    int rc = phx_tx_exec(tx, "SELECT COALESCE(MAX(serial), 0) FROM license WHERE installed_ns < ?", &end, 1,
                         read_number, &w->serial, err);

    if (rc == 0)
        rc = phx_tx_exec(tx, "SELECT COALESCE(MAX(version), 0) FROM key_set WHERE installed_ns < ?", &end, 1,
                         read_number, &w->key_set_version, err);
    if (rc == 0)
        rc = phx_tx_exec(tx,
                         "SELECT COUNT(*) FROM audit WHERE kind = 'clock' AND at_ns >= ? AND at_ns < ?"
                         " AND leaf < ?",
                         (const struct phx_value[]){phx_value_int(w->from_ns), end,
                                                    phx_value_int(w->cursor.below_leaf)},
                         3, read_number, &w->clock_events, err);
    return rc == 0 ? phx_seat_count(tx, w->e->period, &w->seats, err) : rc;
}

static int count_all(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    int rc = count_ledger(tx, ctx, err);

    return rc == 0 ? count_rest(tx, ctx, err) : rc;
}

/* ---- the log --------------------------------------------------------------------------------------------- */

static int checkpoint_json(struct work *w, int64_t size, json_t **out, struct phx_err *err)
{
    struct phx_checkpoint c = {.size = (uint64_t)size};
    struct phx_buf        text;
    int                   rc = 0;

    (void)snprintf(c.origin, sizeof(c.origin), "phalanx/%.64s", w->e->cluster_id);
    phx_tlog_empty(&c.root);
    if (size > 0)
        rc = phx_tlog_root(c.size, phx_tiles_read, w->tiles, &c.root, err);
    phx_buf_init(&text, 0);
    phx_checkpoint_format(&c, &text);
    *out = rc == 0 ? json_stringn(text.data, text.size) : NULL;
    phx_buf_fini(&text);
    return rc;
}

static int log_json(struct work *w, json_t **out, struct phx_err *err)
{
    struct phx_tlog_hash proof[PHX_TLOG_PROOF_MAX];
    json_t              *list = json_array(), *before = NULL, *now = NULL;
    int                  n = 0, rc = checkpoint_json(w, w->cursor.from_leaf, &before, err);

    if (rc == 0)
        rc = checkpoint_json(w, w->cursor.below_leaf, &now, err);
    if (rc == 0 && w->cursor.from_leaf > 0) {
        n = phx_tlog_prove_consistency((uint64_t)w->cursor.from_leaf, (uint64_t)w->cursor.below_leaf,
                                       phx_tiles_read, w->tiles, proof, err);
        rc = n < 0 ? n : 0;
    }
    for (int i = 0; i < n && rc == 0; i++) {
        char hex[PHX_SHA256_HEX];

        phx_hex_encode(hex, sizeof(hex), proof[i].bytes, sizeof(proof[i].bytes));
        json_array_append_new(list, json_string(hex));
    }
    if (rc != 0) {
        json_decref(list);
        json_decref(before);
        json_decref(now);
        return rc;
    }
    *out = json_pack("{s:o,s:o,s:o}", "before", before, "now", now, "consistency", list);
    return 0;
}

/* ---- the text -------------------------------------------------------------------------------------------- */

static json_t *counts_json(const struct work *w)
{
    json_t *seats = json_pack("{s:I,s:I,s:I,s:I}", "people", (json_int_t)w->seats.people, "overdraft",
                              (json_int_t)w->seats.overdraft, "indirect", (json_int_t)w->seats.indirect,
                              "exempt", (json_int_t)w->seats.exempt);
    json_t *ledger = json_pack("{s:I,s:I,s:I}", "first", (json_int_t)w->total.first_id, "last",
                               (json_int_t)w->total.last_id, "below", (json_int_t)w->cursor.below_id);

    return json_pack("{s:s,s:s,s:s,s:s,s:o,s:o,s:I,s:I,s:I,s:I,s:I,s:I,s:O}", "format",
                     "phalanx.usage-export.v1", "cluster", w->e->cluster_id, "period", w->e->period, "message",
                     w->e->message, "seats", seats, "ledger", ledger, "requests",
                     (json_int_t)w->total.requests, "corrections", (json_int_t)w->n_corrections,
                     "peak_concurrency", (json_int_t)w->peak, "clock_events", (json_int_t)w->clock_events,
                     "licence_serial", (json_int_t)w->serial, "key_set_version",
                     (json_int_t)w->key_set_version, "models", w->models);
}

static int format_payload(struct work *w, char **payload, struct phx_err *err)
{
    json_t *root, *log = NULL;
    int     rc = log_json(w, &log, err);

    if (rc != 0)
        return rc;
    root = counts_json(w);
    if (json_object_set_new(root, "log", log) != 0) /* also when there is no root */
        rc = phx_fail(err, PHX_E_NOMEM, "export: no memory");
    else {
        struct phx_buf text;
        char          *dump = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);

        phx_assert(dump != NULL);
        phx_buf_init(&text, 0);
        phx_buf_puts(&text, dump);
        *payload = phx_buf_take(&text);
        free(dump);
    }
    json_decref(root);
    return rc;
}

static int check_request(const struct phx_usage_export *e, struct work *w, struct phx_err *err)
{
    size_t n = strlen(e->message);

    if (n == 0 || n > PHX_USAGE_MESSAGE_MAX || phx_utf8_valid_prefix(e->message, n) != n)
        return phx_fail(err, PHX_E_INVALID, "message: 1 to %d bytes of UTF-8", PHX_USAGE_MESSAGE_MAX);
    return phx_period_parse(e->period, &w->from_ns, &w->to_ns, err);
}

int phx_usage_export(struct phx_store *store, const struct phx_usage_export *e, char **payload,
                     struct phx_err *err)
{
    struct work w = {.e = e, .err = err};
    int         rc = check_request(e, &w, err);

    *payload = NULL;
    if (rc == 0)
        rc = phx_tiles_open(e->audit_dir, &w.tiles, err);
    if (rc != 0)
        return rc;
    w.models = json_array();
    rc = phx_store_run(store, fix_cursor, &w, err);
    if (rc == 0)
        rc = phx_store_read(store, count_all, &w, err);
    if (rc == 0)
        rc = format_payload(&w, payload, err);
    json_decref(w.models);
    phx_tiles_close(w.tiles);
    return rc;
}
