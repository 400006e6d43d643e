/* SPDX-License-Identifier: Apache-2.0
 * The database behind everything durable: one SQLite file (WAL, synchronous=FULL), one thread that writes.
 * No SQLite type leaves this folder, so that another database can stand behind the same door.
 *
 * Jobs that wait while a commit runs share the next one (group commit: no fixed delay, and the slower the
 * disk, the larger the group), each in a savepoint of its own: one that fails is rolled back alone.  `done` comes on the loop when the commit is on disk. */
#ifndef PHX_DAEMON_STORE_H
#define PHX_DAEMON_STORE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct event_base;
struct phx_store;
struct phx_tx; /* a transaction, valid inside a job */

/* Runs on the store's thread; a negative code rolls the job back. */
typedef int (*phx_store_fn)(struct phx_tx *tx, void *ctx, struct phx_err *err);
/* Runs on the loop, once; err is NULL when the job is durable. */
typedef void (*phx_store_done_fn)(void *ctx, const struct phx_err *err);

/* Opens or creates the file and brings its schema up to date.  base may be NULL (command line): then only
 * phx_store_run() may be used.  PHX_E_IO naming the file; PHX_E_UNSUPPORTED for a newer schema. */
int  phx_store_open(const char *path, struct event_base *base, struct phx_store **out,
                    struct phx_err *err) PHX_CHECKED;
/* Runs what is queued (its done callbacks are called), then closes.  NULL is allowed. */
void phx_store_close(struct phx_store *s);

/* Runs what is queued and calls its done callbacks, and what those submit, until nothing is left. */
void phx_store_drain(struct phx_store *s);

void phx_store_submit(struct phx_store *s, phx_store_fn fn, phx_store_done_fn done, void *ctx);
/* Runs a job and waits for it. */
int phx_store_run(struct phx_store *s, phx_store_fn fn, void *ctx, struct phx_err *err) PHX_CHECKED;

/* Runs a job that only reads, on the calling thread and a connection of its own: it sees one snapshot and holds
 * up no writer.  For long walks (reports, exports). */
int phx_store_read(struct phx_store *s, phx_store_fn fn, void *ctx, struct phx_err *err) PHX_CHECKED;

/* One bound value or result column. */
struct phx_value {
    enum { PHX_VALUE_NULL = 0, PHX_VALUE_INT, PHX_VALUE_TEXT, PHX_VALUE_BLOB } kind;
    int64_t     number;
    const void *data;
    size_t      size;
};
static inline struct phx_value phx_value_int(int64_t n)
{
    return (struct phx_value){.kind = PHX_VALUE_INT, .number = n};
}
struct phx_value phx_value_text(const char *s); /* NULL becomes an SQL null */
static inline struct phx_value phx_value_blob(const void *data, size_t size)
{
    return (struct phx_value){.kind = PHX_VALUE_BLOB, .data = data, .size = size};
}

/* Called per row; columns are borrowed until it returns.  A non-zero return ends the walk with it. */
typedef int (*phx_row_fn)(void *ctx, const struct phx_value *columns, int n_columns);

/* One statement with `?` placeholders; sql is a literal (its address names the prepared statement).  row may
 * be NULL. */
int phx_tx_exec(struct phx_tx *tx, const char *sql, const struct phx_value *values, int n_values,
                phx_row_fn row, void *ctx, struct phx_err *err) PHX_CHECKED;
/* Rows changed by the last statement. */
int64_t phx_tx_changes(const struct phx_tx *tx);
/* This transaction erases: the write-ahead log is emptied behind its commit, so that no old copy stays in
 * it.  When another process reads just then, behind a later commit. */
void phx_tx_scrub(struct phx_tx *tx);

#endif
