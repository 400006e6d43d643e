/* SPDX-License-Identifier: Apache-2.0
 * The ledger: rows are only added, never changed; integers only.
 *
 *   reserve   prompt + the most a request may produce, before its first token
 *   progress  what has been produced so far: the lower bound a crash settles at
 *   commit    exact usage and outcome; one per lease
 *   void      nothing was produced; one per lease, instead of a commit
 *   correct   a signed delta to a committed row, with its reason; the row itself stays
 *
 * Every sum is a fold over these rows.  A cached sum carries the id of the last row in it. */
#ifndef PHX_DAEMON_LEDGER_H
#define PHX_DAEMON_LEDGER_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct phx_store;
struct phx_tx;

enum phx_ledger_kind {
    PHX_LEDGER_NONE = 0,
    PHX_LEDGER_RESERVE,
    PHX_LEDGER_PROGRESS,
    PHX_LEDGER_COMMIT,
    PHX_LEDGER_VOID,
    PHX_LEDGER_CORRECT
};
#define PHX_LEDGER_COUNT_MAX ((int64_t)1 << 48) /* of any one number of a row */

const char *phx_ledger_kind_name(enum phx_ledger_kind kind); /* "reserve", ... */

struct phx_ledger_row {
    int64_t              id; /* set by put */
    enum phx_ledger_kind kind;
    const char          *lease; /* also the receipt's id */
    int64_t              at_ns; /* trusted time, UTC */
    int64_t              epoch;
    const char          *tenant, *user, *key_id, *cost_centre, *model, *request_id;
    int64_t              reserved;                          /* reserve */
    int64_t              prompt, cached, output, reasoning; /* commit, progress; correct: deltas */
    int64_t              upper;      /* commit of a crash: the most it can have produced; else output */
    int64_t              compute_ms, queue_ms, first_ms, total_ms;
    const char          *outcome;    /* commit: "stop", "length", "crash", ...; void: the reason */
    int64_t              ref;        /* correct: id of the row it corrects; else 0 */
    const char          *note;       /* correct: why and who; else "" */
};

/* Adds a row and moves the budget sums with it, in the caller's transaction.  Sets row->id.
 *
 * After the reserve, the texts tenant ... request_id may be NULL (taken from it) or must equal its own.  A
 * correct row names the lease; ref may be 0 (set to its commit) or must be the commit's id.
 * PHX_E_STATE: a second reserve, commit or void of a lease; anything after its end but a correction; a row
 * without a reserve; a correction of what was not committed.
 * PHX_E_INVALID, naming the field: a negative or too large count (above PHX_LEDGER_COUNT_MAX), more cached than
 * prompt, more reasoning than output, prompt + output over the reserve, upper below output, a void with
 * tokens, a correction below zero, a sum that would overflow. */
int phx_ledger_put(struct phx_tx *tx, struct phx_ledger_row *row, struct phx_err *err) PHX_CHECKED;

/* Rows are borrowed while fn runs; a non-zero return ends the walk with it. */
typedef int (*phx_ledger_row_fn)(void *ctx, const struct phx_ledger_row *row);

/* Every reserve that has no end yet, by id; output and reasoning are what progress has proven (cached 0, prompt
 * as reserved).  epoch_below: only those of an older epoch; INT64_MAX = all.  fn may put rows. */
int phx_ledger_open_rows(struct phx_tx *tx, int64_t epoch_below, phx_ledger_row_fn fn, void *ctx,
                         struct phx_err *err) PHX_CHECKED;
/* The reserve of a lease with what progress has proven, and the end if there is one (end.kind NONE = open).
 * Rows live in `arena`.  PHX_E_NOTFOUND. */
struct phx_arena;
int phx_ledger_find(struct phx_tx *tx, const char *lease, struct phx_arena *arena,
                    struct phx_ledger_row *begin, struct phx_ledger_row *end,
                    struct phx_err *err) PHX_CHECKED;
/* All rows with from_id <= id < to_id in order (to_id 0 = all there are). */
int phx_ledger_walk(struct phx_tx *tx, int64_t from_id, int64_t to_id, phx_ledger_row_fn fn,
                    void *ctx, struct phx_err *err) PHX_CHECKED;

/* ---- idempotency keys: kept as long as the ledger, scoped to the tenant -------------------------------- */

enum phx_idem {
    PHX_IDEM_NEW = 0, /* was not there; it is now taken by `lease` */
    PHX_IDEM_SAME,    /* there, with the same request digest; found_lease names its lease */
    PHX_IDEM_OTHER    /* there, with another digest: the caller refuses */
};
enum { PHX_IDEM_KEY_MAX = 128, PHX_LEASE_BYTES = 40 };

/* One transaction with the reserve.  Answers enum phx_idem or a negative code. */
int phx_idem_take(struct phx_tx *tx, const char *tenant, const char *key, const uint8_t digest[32],
                  const char *lease, int64_t at_ns, char found_lease[PHX_LEASE_BYTES],
                  struct phx_err *err);

/* ---- budgets ---------------------------------------------------------------------------------------------- */

enum phx_budget_scope { PHX_BUDGET_TENANT = 1, PHX_BUDGET_USER, PHX_BUDGET_KEY, PHX_BUDGET_LICENSE };
enum phx_budget_period { PHX_PERIOD_DAY = 1, PHX_PERIOD_MONTH, PHX_PERIOD_TOTAL };
const char *phx_budget_scope_name(enum phx_budget_scope scope);
const char *phx_budget_period_name(enum phx_budget_period period);

enum { PHX_BUDGET_NAME_BYTES = 200 };
struct phx_budget {
    enum phx_budget_scope  scope;
    char                   name[PHX_BUDGET_NAME_BYTES]; /* tenant; "tenant/user"; key id; "" for the licence */
    enum phx_budget_period period;
    int64_t                tokens; /* limit: prompt + output */
    /* filled by list and check */
    char                   window[12]; /* "2026-11-23", "2026-11", "total" */
    int64_t                posted, pending, at_id;
};

/* Adds a budget or changes its limit; the sum of its present window is folded from the rows.  PHX_E_INVALID. */
int phx_budget_set(struct phx_tx *tx, const struct phx_budget *b, int64_t at_ns,
                   struct phx_err *err) PHX_CHECKED;
/* PHX_E_NOTFOUND: there is no such budget. */
int phx_budget_remove(struct phx_tx *tx, const struct phx_budget *b, struct phx_err *err) PHX_CHECKED;
/* All budgets by scope, name and period, with the sums of the windows that at_ns is in. */
typedef int (*phx_budget_fn)(void *ctx, const struct phx_budget *b);
int phx_budget_list(struct phx_tx *tx, int64_t at_ns, phx_budget_fn fn, void *ctx,
                    struct phx_err *err) PHX_CHECKED;

/* Would `want` tokens fit into every budget of this tenant, user, key and the licence now?  1 = yes (*left =
 * the smallest rest after it, -1 = no budget is set), 0 = no (*broken is the budget that refuses for longest,
 * and *retry_ns when its window ends, 0 = never: it has no end, or want is above the limit itself), or a
 * negative code.  license_tokens: monthly limit of the
 * licence, -1 = none.  posted + pending + want <= tokens holds afterwards by construction, because the
 * reserve follows in the same transaction. */
int phx_budget_check(struct phx_tx *tx, const char *tenant, const char *user, const char *key_id,
                     int64_t license_tokens, int64_t want, int64_t at_ns, int64_t *left,
                     struct phx_budget *broken, int64_t *retry_ns, struct phx_err *err);
/* Recomputes every cached sum from the rows.  PHX_E_STATE naming the first that differs. */
int phx_budget_audit(struct phx_tx *tx, struct phx_err *err) PHX_CHECKED;

/* ---- sums ----------------------------------------------------------------------------------------------------- */

/* Which rows: what was committed, what corrects a commit of the same month, and of an earlier one. */
enum phx_usage_class {
    PHX_USAGE_ALL = 0, PHX_USAGE_COMMITS, PHX_USAGE_CORRECTIONS, PHX_USAGE_CORRECTIONS_EARLIER
};
struct phx_usage_filter {
    int64_t     from_ns, to_ns; /* to 0 = no end; a row counts by the time of its commit or correction */
    int64_t     from_id;        /* only rows with this id or a higher one, ordered by id alone; 0 = all */
    int64_t     below_id;       /* only rows with a lower id; 0 = all */
    const char *tenant, *user, *model, *cost_centre; /* NULL = all */
    enum phx_usage_class usage_class;
};
/* Commits and corrections by time, then id. */
int phx_ledger_usage_rows(struct phx_tx *tx, const struct phx_usage_filter *filter, phx_ledger_row_fn fn,
                          void *ctx, struct phx_err *err) PHX_CHECKED;

enum { PHX_USAGE_GROUPS_MAX = 4, PHX_USAGE_GROUP_BYTES = 160, PHX_USAGE_SUMS_MAX = 1 << 20 };
enum phx_usage_group {
    PHX_GROUP_NONE = 0, PHX_GROUP_TENANT, PHX_GROUP_USER, PHX_GROUP_MODEL, PHX_GROUP_COST_CENTRE,
    PHX_GROUP_HOUR, PHX_GROUP_DAY, PHX_GROUP_MONTH
};
/* "tenant", "user", "model", "cost_centre", "hour", "day", "month"; parse answers PHX_GROUP_NONE for others. */
const char          *phx_usage_group_name(enum phx_usage_group group);
enum phx_usage_group phx_usage_group_parse(const char *name);
struct phx_usage_row {
    const char *group[PHX_USAGE_GROUPS_MAX]; /* in the order asked, "" behind the last; times are
                                        "2026-11-23T05:00:00Z", "2026-11-23", "2026-11" */
    int64_t requests; /* commits; corrections add none */
    int64_t prompt, cached, output, reasoning, compute_ms, queue_ms;
    int64_t first_id, last_id; /* ledger rows in it */
};
/* Borrowed while fn runs. */
typedef int (*phx_usage_fn)(void *ctx, const struct phx_usage_row *row);
/* Sums of commits and corrections, ordered by group; groups end with PHX_GROUP_NONE or at 4.  *at_id: the last row
 * of the ledger it holds for.  PHX_E_LIMIT: more than PHX_USAGE_SUMS_MAX sums; PHX_E_INVALID: one overflows. */
int phx_ledger_usage(struct phx_tx *tx, const struct phx_usage_filter *filter,
                     const enum phx_usage_group groups[PHX_USAGE_GROUPS_MAX], phx_usage_fn fn,
                     void *ctx, int64_t *at_id, struct phx_err *err) PHX_CHECKED;
/* Id of the last row, 0 = none. */
int phx_ledger_last_id(struct phx_tx *tx, int64_t *out, struct phx_err *err) PHX_CHECKED;
/* The most leases that were open at once in a period (to_ns > 0), for rows with id < below_id (0 = all). */
int phx_ledger_peak(struct phx_tx *tx, int64_t from_ns, int64_t to_ns, int64_t below_id, int64_t *out,
                    struct phx_err *err) PHX_CHECKED;
/* Adds up; PHX_E_INVALID when a sum overflows. */
int phx_usage_add(struct phx_usage_row *sum, const struct phx_usage_row *row, struct phx_err *err) PHX_CHECKED;

/* "YYYY-MM" (UTC) to a half-open range.  PHX_E_INVALID. */
int phx_period_parse(const char *period, int64_t *from_ns, int64_t *to_ns, struct phx_err *err) PHX_CHECKED;
/* The month of a time, "2026-11". */
void phx_period_format(int64_t at_ns, char period[8]);

#endif
