/* SPDX-License-Identifier: Apache-2.0
 * Time that a moved clock cannot bend: licence dates, seat periods and records use it.
 *
 *   T = max(wall, high-water mark + boot time since it)   so turning the clock back gains nothing
 *
 * Under another boot id (a reboot, another machine) nothing is certain to have passed: T goes on from the mark.
 *
 * A wall clock more than an hour ahead of what can have passed is suspect: T then goes on from the mark by the
 * boot clock (a bad reply of a time server must not end a licence for ever) until an operator accepts the new
 * time (two people) or the wall comes back.  A cold start after a long power-off looks the same; held time
 * favours the customer, and after 7 days of it every admission record says so. */
#ifndef PHX_DAEMON_TIME_H
#define PHX_DAEMON_TIME_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct phx_store;
struct phx_tx;

/* ---- pure --------------------------------------------------------------------------------------------- */

struct phx_time_mark {
    int64_t hwm_ns;           /* highest T ever made durable; 0 = none */
    int64_t boot_ns;          /* CLOCK_BOOTTIME when it was taken */
    char    boot_id[40];      /* of the kernel; another one = the boot clock started anew */
    int64_t suspect_since_ns; /* T when the clock became suspect; 0 = it is not */
};
struct phx_time_reading {
    int64_t wall_ns, boot_ns;
    char    boot_id[40];
};
enum phx_clock_state { PHX_CLOCK_OK = 1, PHX_CLOCK_BACK, PHX_CLOCK_SUSPECT, PHX_CLOCK_SUSPECT_LONG };
const char *phx_clock_state_name(enum phx_clock_state state); /* "ok", "back", "suspect", "suspect-long" */

/* T for a reading; moves *mark on (never back).  The result never decreases from call to call. */
int64_t phx_time_step(struct phx_time_mark *mark, const struct phx_time_reading *now,
                      enum phx_clock_state *state);
/* The wall clock of `now` is right after all: two-person command.  Leaves the suspect state. */
void phx_time_accept(struct phx_time_mark *mark, const struct phx_time_reading *now);

/* ---- this machine and the store ---------------------------------------------------------------------------- */

/* This machine's clocks and the id of its boot. */
void phx_time_read(struct phx_time_reading *out);
/* The mark as it was last made durable; all zero when there is none.  *accept_ns: the wall clock that was
 * accepted last, 0 = never. */
int phx_time_load(struct phx_tx *tx, struct phx_time_mark *out, int64_t *accept_ns,
                  struct phx_err *err) PHX_CHECKED;
/* Makes a mark durable; a lower one than the store's changes nothing but the suspicion. */
int phx_time_store(struct phx_tx *tx, const struct phx_time_mark *mark, struct phx_err *err) PHX_CHECKED;
/* T by the store's mark and this machine's clocks: for the command line, which has no phx_time. */
int phx_time_in(struct phx_tx *tx, int64_t *t_ns, struct phx_err *err) PHX_CHECKED;
/* Which acceptance a daemon has followed last, 0 = none; noting it is the daemon's. */
int phx_time_taken(struct phx_tx *tx, int64_t *accept_ns, struct phx_err *err) PHX_CHECKED;
int phx_time_take(struct phx_tx *tx, int64_t accept_ns, struct phx_err *err) PHX_CHECKED;
/* The two-person command: accepts the wall clock of `now`, writes mark, acceptance and a "clock" leaf.  A
 * running daemon follows within two seconds, see phx_time_taken().  PHX_E_INVALID: a name is missing or both are the same;
 * PHX_E_STATE: the clock is not suspect. */
int phx_time_accept_in(struct phx_tx *tx, const struct phx_time_reading *now, const char *by,
                       const char *approved_by, struct phx_err *err) PHX_CHECKED;

/* ---- the daemon's clock ---------------------------------------------------------------------------------- */

struct phx_time;
/* Reads the mark from the store and writes the first one. */
int  phx_time_open(struct phx_store *store, struct phx_time **out, struct phx_err *err) PHX_CHECKED;
void phx_time_close(struct phx_time *t); /* NULL is allowed */
/* T now.  Loop thread.  Call it at least every minute, also when nobody asks: it writes the mark down every
 * 60 s (asynchronously), looks for an accepted clock every second, and makes each change of state a log line
 * and a "clock" leaf. */
int64_t phx_time_now(struct phx_time *t);
enum phx_clock_state phx_time_state(const struct phx_time *t);
/* Writes the mark inside a transaction that depends on it (a seat record, a licence). */
int phx_time_save(struct phx_tx *tx, int64_t at_ns, struct phx_err *err) PHX_CHECKED;

#endif
