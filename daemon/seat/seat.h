/* SPDX-License-Identifier: Apache-2.0
 * Seats: one natural person, one licensee, one UTC calendar month.  A grow-only set, not a counter: adding a
 * member twice changes nothing, so retries, replays, failovers and merges cannot count twice.
 *
 *   seat_id = HMAC-SHA256(licence.seat_salt, issuer || 0x00 || subject)
 *
 * The salt is the licence's: the same person is the same member on every cluster of the firm. */
#ifndef PHX_DAEMON_SEAT_H
#define PHX_DAEMON_SEAT_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct phx_tx;

enum { PHX_SEAT_ID_BYTES = 32 };

void phx_seat_id(const uint8_t salt[32], const char *issuer, const char *subject,
                 uint8_t seat_id[PHX_SEAT_ID_BYTES]);

struct phx_seat_counts {
    int64_t people, indirect, overdraft, exempt; /* members in the period; overdraft ones are in people too */
};
int phx_seat_count(struct phx_tx *tx, const char *period, struct phx_seat_counts *out,
                   struct phx_err *err) PHX_CHECKED;
/* 1 = has a seat in the period, 0 = not, or a negative code. */
int phx_seat_has(struct phx_tx *tx, const char *period, const uint8_t seat_id[PHX_SEAT_ID_BYTES],
                 struct phx_err *err);
/* Adds a member; adding one that is there is a success that changes nothing. */
struct phx_seat {
    char    period[8]; /* "2026-11" */
    uint8_t seat_id[PHX_SEAT_ID_BYTES];
    const char *tenant;
    int64_t first_ns;
    bool    is_overdraft, is_indirect, is_exempt;
};
int phx_seat_add(struct phx_tx *tx, const struct phx_seat *seat, struct phx_err *err) PHX_CHECKED;
typedef int (*phx_seat_fn)(void *ctx, const struct phx_seat *seat);
int phx_seat_list(struct phx_tx *tx, const char *period, const char *tenant /* NULL = all */,
                  phx_seat_fn fn, void *ctx, struct phx_err *err) PHX_CHECKED;

#endif
