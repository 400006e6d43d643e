/* SPDX-License-Identifier: Apache-2.0
 * The database.  One thread writes; work is submitted as functions that run inside a transaction on that
 * thread, and their completion is told on the loop when the transaction is durable.  Work that arrives
 * within a short window shares one commit (and one fsync); a work that fails takes back only its own changes.
 *
 * The SQL that passes this door is the common subset of SQLite and PostgreSQL, with parameters $1, $2, ...;
 * no type of either leaves it. */
#ifndef PHX_DAEMON_STORE_H
#define PHX_DAEMON_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct event_base;
struct phx_metrics;
struct phx_store;
struct phx_tx;  /* a transaction; valid inside the work function only */
struct phx_row; /* one row of a result; valid inside the row function only */

struct phx_store_options {
    const char         *path;       /* database file; made with mode 0600 when it is not there */
    struct event_base  *base;       /* where completions run; NULL: only phx_store_call and _read */
    struct phx_metrics *metrics;    /* or NULL */
    int32_t             window_us;  /* how long a commit waits for company */
    int32_t             pending_max;
};

/* PHX_E_IO when the file cannot be opened or made, PHX_E_STATE when its schema is newer than this build,
 * PHX_E_FORMAT when it is no database.  Brings an older schema up to date. */
int  phx_store_open(const struct phx_store_options *options, struct phx_store **out,
                    struct phx_err *err) PHX_CHECKED;
/* Finishes what was submitted, runs the completions, closes.  NULL is allowed. */
void phx_store_close(struct phx_store *s);

/* On the store's thread; 0 keeps its changes, a negative code (with *err filled) takes them back.
 * May run again after an I/O error of a shared commit: it must set its results, not add to them. */
typedef int (*phx_store_work_fn)(void *ctx, struct phx_tx *tx, struct phx_err *err);
/* On the loop.  err NULL: the changes are durable. */
typedef void (*phx_store_done_fn)(void *ctx, const struct phx_err *err);

/* done runs exactly once, later on the loop: with the work's own error, with PHX_E_IO (disk full, I/O
 * error: the next work tries again), or with PHX_E_BUSY when pending_max works wait. */
void phx_store_submit(struct phx_store *s, phx_store_work_fn work, phx_store_done_fn done, void *ctx);
/* Submits and waits.  For start, tests and the command line. */
int phx_store_call(struct phx_store *s, phx_store_work_fn work, void *ctx,
                   struct phx_err *err) PHX_CHECKED;
/* Runs at once on the caller's thread (always the same one) and sees what is durable; reads only. */
int phx_store_read(struct phx_store *s, phx_store_work_fn work, void *ctx,
                   struct phx_err *err) PHX_CHECKED;
/* False after a commit failed, until one succeeds. */
bool phx_store_is_healthy(struct phx_store *s);

/* ---- inside a transaction ------------------------------------------------------------------- */

enum phx_db_kind { PHX_DB_NULL = 0, PHX_DB_INT, PHX_DB_TEXT, PHX_DB_BLOB };
struct phx_db_value {
    enum phx_db_kind kind;
    int64_t          integer;
    const void      *data; /* borrowed for the call */
    size_t           size;
};
struct phx_db_value phx_db_int(int64_t value);
struct phx_db_value phx_db_text(const char *text); /* NULL = SQL NULL */
struct phx_db_value phx_db_blob(const void *data, size_t size);

/* 0 = go on, 1 = enough, negative = stop with that error. */
typedef int (*phx_row_fn)(void *ctx, const struct phx_row *row, struct phx_err *err);

/* One statement with n parameters.  fn may be NULL.  PHX_E_STATE for a broken constraint (a unique key
 * that exists), PHX_E_IO for the machine. */
int phx_tx_query(struct phx_tx *tx, const char *sql, const struct phx_db_value *params, int n,
                 phx_row_fn fn, void *ctx, struct phx_err *err) PHX_CHECKED;
/* A statement without a result; *n_changed (may be NULL) = rows it changed. */
int phx_tx_run(struct phx_tx *tx, const char *sql, const struct phx_db_value *params, int n,
               int64_t *n_changed, struct phx_err *err) PHX_CHECKED;

int64_t     phx_row_int(const struct phx_row *row, int column);  /* 0 for NULL */
const char *phx_row_text(const struct phx_row *row, int column); /* "" for NULL; never NULL */
const void *phx_row_blob(const struct phx_row *row, int column, size_t *size);

/* Small named values of the cluster (ids, secrets, generations).  get: PHX_E_NOTFOUND when absent,
 * PHX_E_FORMAT when it has another size. */
int phx_meta_get(struct phx_tx *tx, const char *name, void *value, size_t size,
                 struct phx_err *err) PHX_CHECKED;
int phx_meta_set(struct phx_tx *tx, const char *name, const void *value, size_t size,
                 struct phx_err *err) PHX_CHECKED;
/* Gets, or makes it from random bytes the first time. */
int phx_store_secret(struct phx_store *s, const char *name, void *value, size_t size,
                     struct phx_err *err) PHX_CHECKED;

#endif
