/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/seat/seat.h"

#include <stdio.h>
#include <string.h>

#include "daemon/store/store.h"
#include "rpc/base/buf.h"
#include "rpc/base/hash.h"

void phx_seat_id(const uint8_t salt[32], const char *issuer, const char *subject,
                 uint8_t seat_id[PHX_SEAT_ID_BYTES])
{
    struct phx_buf b;

    phx_buf_init(&b, 0);
    phx_buf_put(&b, issuer, strlen(issuer) + 1); /* the NUL parts the two: neither holds one */
    phx_buf_put(&b, subject, strlen(subject));
    phx_hmac_sha256(salt, 32, b.data, b.size, seat_id);
    phx_secret_wipe(b.data, b.size);
    phx_buf_fini(&b);
}

/* ---- counting -------------------------------------------------------------------------------------- */

struct sum {
    struct phx_seat_counts n;
    int64_t                at_id, n_new;
};

static int take_sum(void *ctx, const struct phx_value *c, int n_columns)
{
    struct sum *s = ctx;

    (void)n_columns;
    s->n = (struct phx_seat_counts){c[0].number, c[1].number, c[2].number, c[3].number};
    s->at_id = c[4].number;
    return 0;
}

/* A seat is people, indirect or exempt, so that the three add up to the members. */
static int fold_row(void *ctx, const struct phx_value *c, int n_columns)
{
    struct sum *s = ctx;
    bool        is_overdraft = c[1].number != 0, is_indirect = c[2].number != 0;

    (void)n_columns;
    s->at_id = c[0].number;
    s->n_new++;
    if (c[3].number != 0) {
        s->n.exempt++;
        return 0;
    }
    s->n.overdraft += is_overdraft;
    if (is_indirect)
        s->n.indirect++;
    else
        s->n.people++;
    return 0;
}

static int save_sum(struct phx_tx *tx, const char *period, const struct sum *s, struct phx_err *err)
{
    const struct phx_value values[] = {
        phx_value_text(period),          phx_value_int(s->n.people), phx_value_int(s->n.indirect),
        phx_value_int(s->n.overdraft),   phx_value_int(s->n.exempt), phx_value_int(s->at_id),
    };

    return phx_tx_exec(tx,
                       "INSERT INTO seat_sum(period, people, indirect, overdraft, exempt, at_id)"
                       " VALUES(?, ?, ?, ?, ?, ?) ON CONFLICT(period) DO UPDATE SET"
                       " people = excluded.people, indirect = excluded.indirect,"
                       " overdraft = excluded.overdraft, exempt = excluded.exempt, at_id = excluded.at_id",
                       values, 6, NULL, NULL, err);
}

/* The sum so far and the seats behind it: exact whoever added them, and cheap for a large set. */
static int fold(struct phx_tx *tx, const char *period, struct sum *s, struct phx_err *err)
{
    struct phx_value values[2] = {phx_value_text(period)};
    int              rc;

    *s = (struct sum){{0, 0, 0, 0}, 0, 0};
    rc = phx_tx_exec(tx, "SELECT people, indirect, overdraft, exempt, at_id FROM seat_sum WHERE period = ?",
                     values, 1, take_sum, s, err);
    values[1] = phx_value_int(s->at_id);
    return rc != 0 ? rc
                   : phx_tx_exec(tx,
                                 "SELECT id, is_overdraft, is_indirect, is_exempt FROM seat"
                                 " WHERE period = ? AND id > ? ORDER BY id",
                                 values, 2, fold_row, s, err);
}

int phx_seat_count(struct phx_tx *tx, const char *period, struct phx_seat_counts *out, struct phx_err *err)
{
    struct sum s;
    int        rc = fold(tx, period, &s, err);

    *out = s.n;
    return rc;
}

/* Counting may happen in a transaction that only reads, so the sum moves on when a seat is added. */
static int move_sum(struct phx_tx *tx, const char *period, struct phx_err *err)
{
    enum { BEHIND_MAX = 16 };
    struct sum s;
    int        rc = fold(tx, period, &s, err);

    return rc == 0 && s.n_new > BEHIND_MAX ? save_sum(tx, period, &s, err) : rc;
}

/* ---- members --------------------------------------------------------------------------------------- */

static int note_found(void *ctx, const struct phx_value *columns, int n_columns)
{
    (void)columns;
    (void)n_columns;
    *(int *)ctx = 1;
    return 0;
}

int phx_seat_has(struct phx_tx *tx, const char *period, const uint8_t seat_id[PHX_SEAT_ID_BYTES],
                 struct phx_err *err)
{
    const struct phx_value values[] = {phx_value_text(period), phx_value_blob(seat_id, PHX_SEAT_ID_BYTES)};
    int found = 0;
    int rc = phx_tx_exec(tx, "SELECT 1 FROM seat WHERE period = ? AND seat_id = ?", values, 2, note_found,
                         &found, err);

    return rc == 0 ? found : rc;
}

static int check_seat(const struct phx_seat *seat, struct phx_err *err)
{
    const char *p = seat->period;

    if (strnlen(p, sizeof(seat->period)) != 7 || strspn(p, "0123456789") != 4 || p[4] != '-' ||
        strspn(p + 5, "0123456789") != 2)
        return phx_fail(err, PHX_E_INVALID, "seat: the period '%.7s' is not a month like 2026-11", p);
    if (seat->tenant[0] == '\0')
        return phx_fail(err, PHX_E_INVALID, "seat: a tenant is needed");
    return 0;
}

int phx_seat_add(struct phx_tx *tx, const struct phx_seat *seat, struct phx_err *err)
{
    const struct phx_value values[] = {
        phx_value_text(seat->period),      phx_value_blob(seat->seat_id, PHX_SEAT_ID_BYTES),
        phx_value_text(seat->tenant),      phx_value_int(seat->first_ns),
        phx_value_int(seat->is_overdraft), phx_value_int(seat->is_indirect),
        phx_value_int(seat->is_exempt),
    };
    int rc = check_seat(seat, err);

    if (rc == 0)
        rc = phx_tx_exec(tx,
                         "INSERT INTO seat(period, seat_id, tenant, first_ns, is_overdraft, is_indirect,"
                         " is_exempt) VALUES(?, ?, ?, ?, ?, ?, ?) ON CONFLICT(period, seat_id) DO NOTHING",
                         values, 7, NULL, NULL, err);
    return rc == 0 && phx_tx_changes(tx) > 0 ? move_sum(tx, seat->period, err) : rc;
}

struct walk {
    phx_seat_fn fn;
    void       *ctx;
};

static int give_row(void *ctx, const struct phx_value *c, int n_columns)
{
    const struct walk *w = ctx;
    struct phx_seat    seat = {.tenant = c[2].data,
                               .first_ns = c[3].number,
                               .is_overdraft = c[4].number != 0,
                               .is_indirect = c[5].number != 0,
                               .is_exempt = c[6].number != 0};

    (void)n_columns;
    (void)snprintf(seat.period, sizeof(seat.period), "%s", (const char *)c[0].data);
    if (c[1].size != PHX_SEAT_ID_BYTES)
        return PHX_E_FORMAT;
    memcpy(seat.seat_id, c[1].data, PHX_SEAT_ID_BYTES);
    return w->fn(w->ctx, &seat);
}

int phx_seat_list(struct phx_tx *tx, const char *period, const char *tenant, phx_seat_fn fn, void *ctx,
                  struct phx_err *err)
{
    struct walk            w = {fn, ctx};
    const struct phx_value values[] = {phx_value_text(period), phx_value_text(tenant)};

    return phx_tx_exec(tx,
                       "SELECT period, seat_id, tenant, first_ns, is_overdraft, is_indirect, is_exempt"
                       " FROM seat WHERE period = ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY seat_id",
                       values, 2, give_row, &w, err);
}
