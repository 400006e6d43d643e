/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/store/store.h"

#include <errno.h>
#include <event2/event.h>
#include <fcntl.h>
#include <pthread.h>
#include <sqlite3.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "daemon/store/schema.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "rpc/base/queue.h"

enum { JOBS_MAX = 65536, BATCH_MAX = 1024, BUSY_MS = 5000, STATEMENTS_MAX = 256 };

struct job {
    phx_store_fn      fn;
    phx_store_done_fn done;
    void             *ctx;
    struct phx_err    err;
    int               code;
    bool              is_waited;  /* phx_store_run(): signalled instead of called back */
    bool              is_finished;
    struct job       *next;       /* in its batch */
};

struct statement {
    const char   *sql; /* callers use literals: the address names the statement */
    sqlite3_stmt *stmt;
};

struct phx_tx {
    struct phx_store *store;
};

struct phx_store {
    sqlite3          *db;
    char             *path;
    struct phx_queue *jobs;    /* to the thread */
    struct phx_queue *results; /* to the loop */
    struct event     *event;
    pthread_t         thread;
    bool              has_thread;
    pthread_mutex_t   lock; /* is_finished of waited jobs */
    pthread_cond_t    finished;
    bool              wants_scrub; /* the store's thread alone */
    struct statement  statements[STATEMENTS_MAX];
    int               n_statements;
};

struct phx_value phx_value_text(const char *s)
{
    if (s == NULL)
        return (struct phx_value){.kind = PHX_VALUE_NULL};
    return (struct phx_value){.kind = PHX_VALUE_TEXT, .data = s, .size = strlen(s)};
}

static int fail_db(struct phx_store *s, const char *what, struct phx_err *err)
{
    return phx_fail(err, PHX_E_IO, "%s: %s: %s", s->path, what, sqlite3_errmsg(s->db));
}

static int exec_plain(struct phx_store *s, const char *sql, struct phx_err *err)
{
    return sqlite3_exec(s->db, sql, NULL, NULL, NULL) == SQLITE_OK ? 0 : fail_db(s, sql, err);
}

static int prepare(struct phx_store *s, const char *sql, sqlite3_stmt **out, struct phx_err *err)
{
    for (int i = 0; i < s->n_statements; i++)
        if (s->statements[i].sql == sql) {
            *out = s->statements[i].stmt;
            return 0;
        }
    if (s->n_statements == STATEMENTS_MAX)
        return phx_fail(err, PHX_E_INTERNAL, "more than %d kinds of statements", STATEMENTS_MAX);
    if (sqlite3_prepare_v3(s->db, sql, -1, SQLITE_PREPARE_PERSISTENT, out, NULL) != SQLITE_OK)
        return fail_db(s, "prepare", err);
    s->statements[s->n_statements++] = (struct statement){sql, *out};
    return 0;
}

static int bind_value(sqlite3_stmt *stmt, int i, const struct phx_value *v)
{
    switch (v->kind) {
    case PHX_VALUE_INT: return sqlite3_bind_int64(stmt, i, v->number);
    case PHX_VALUE_TEXT: return sqlite3_bind_text(stmt, i, v->data, (int)v->size, SQLITE_STATIC);
    case PHX_VALUE_BLOB: return sqlite3_bind_blob(stmt, i, v->data, (int)v->size, SQLITE_STATIC);
    default: return sqlite3_bind_null(stmt, i);
    }
}

static void read_column(sqlite3_stmt *stmt, int i, struct phx_value *v)
{
    *v = (struct phx_value){.kind = PHX_VALUE_NULL};
    switch (sqlite3_column_type(stmt, i)) {
    case SQLITE_INTEGER: *v = phx_value_int(sqlite3_column_int64(stmt, i)); return;
    case SQLITE_TEXT: v->kind = PHX_VALUE_TEXT; break;
    case SQLITE_BLOB: v->kind = PHX_VALUE_BLOB; break;
    default: return;
    }
    v->data = sqlite3_column_blob(stmt, i);
    v->size = (size_t)sqlite3_column_bytes(stmt, i);
    if (v->kind == PHX_VALUE_TEXT)
        v->data = sqlite3_column_text(stmt, i); /* ends with a NUL */
}

int phx_tx_exec(struct phx_tx *tx, const char *sql, const struct phx_value *values, int n_values,
                phx_row_fn row, void *ctx, struct phx_err *err)
{
    enum { COLUMNS_MAX = 32 };
    sqlite3_stmt *stmt = NULL;
    int           rc = prepare(tx->store, sql, &stmt, err), step = SQLITE_DONE;

    if (rc != 0)
        return rc;
    for (int i = 0; i < n_values && rc == 0; i++)
        if (bind_value(stmt, i + 1, &values[i]) != SQLITE_OK)
            rc = fail_db(tx->store, "bind", err);
    while (rc == 0 && (step = sqlite3_step(stmt)) == SQLITE_ROW) {
        struct phx_value columns[COLUMNS_MAX];
        int              n = sqlite3_column_count(stmt);

        phx_assert(n <= COLUMNS_MAX);
        for (int i = 0; i < n; i++)
            read_column(stmt, i, &columns[i]);
        if (row != NULL)
            rc = row(ctx, columns, n);
    }
    if (rc == 0 && step != SQLITE_DONE)
        rc = fail_db(tx->store, "step", err);
    (void)sqlite3_reset(stmt); /* repeats the error already told */
    (void)sqlite3_clear_bindings(stmt);
    return rc;
}

int64_t phx_tx_changes(const struct phx_tx *tx)
{
    return sqlite3_changes(tx->store->db);
}

void phx_tx_scrub(struct phx_tx *tx)
{
    tx->store->wants_scrub = true;
}

/* Frames of an earlier commit stay in the write-ahead log until they are written over: what was erased is
 * gone only when the log is empty.  A reader of another process can be in the way: the next batch tries
 * again. */
static void scrub(struct phx_store *s)
{
    int rc;

    if (!s->wants_scrub)
        return;
    if (s->event != NULL)
        (void)sqlite3_busy_timeout(s->db, 0); /* a daemon's commits do not wait for somebody's reading */
    rc = sqlite3_wal_checkpoint_v2(s->db, NULL, SQLITE_CHECKPOINT_TRUNCATE, NULL, NULL);
    (void)sqlite3_busy_timeout(s->db, BUSY_MS);
    s->wants_scrub = rc != SQLITE_OK;
    if (rc != SQLITE_OK && rc != SQLITE_BUSY)
        phx_log(PHX_LOG_ERROR, "store.scrub.fail", "reason=%s", sqlite3_errmsg(s->db));
}

/* One job in a savepoint of the open transaction. */
static void run_job(struct phx_store *s, struct job *job)
{
    struct phx_tx tx = {s};

    job->code = exec_plain(s, "SAVEPOINT job", &job->err);
    if (job->code != 0)
        return;
    job->code = job->fn(&tx, job->ctx, &job->err);
    if (job->code != 0 && exec_plain(s, "ROLLBACK TO job", NULL) != 0)
        phx_log(PHX_LOG_ERROR, "store.rollback.fail", "reason=%s", sqlite3_errmsg(s->db));
    if (exec_plain(s, "RELEASE job", job->code == 0 ? &job->err : NULL) != 0 && job->code == 0)
        job->code = PHX_E_IO;
}

static void finish_job(struct phx_store *s, struct job *job)
{
    if (job->is_waited) {
        pthread_mutex_lock(&s->lock);
        job->is_finished = true;
        pthread_cond_broadcast(&s->finished);
        pthread_mutex_unlock(&s->lock);
        return;
    }
    while (phx_queue_push(s->results, job) != 0)
        usleep(1000); /* the loop is behind by 65536 results: wait for it */
}

/* Runs a batch as one transaction.  When the commit fails, every job of it failed. */
static void run_batch(struct phx_store *s, struct job *first)
{
    struct phx_err err = {0};
    int            rc = exec_plain(s, "BEGIN IMMEDIATE", &err);

    for (struct job *j = first; j != NULL && rc == 0; j = j->next)
        run_job(s, j);
    if (rc == 0)
        rc = exec_plain(s, "COMMIT", &err);
    if (rc != 0) {
        if (!sqlite3_get_autocommit(s->db) && exec_plain(s, "ROLLBACK", NULL) != 0)
            phx_log(PHX_LOG_ERROR, "store.rollback.fail", "reason=%s", sqlite3_errmsg(s->db));
        phx_log(PHX_LOG_ERROR, "store.commit.fail", "reason=%s", err.text);
    }
    if (rc == 0)
        scrub(s);
    for (struct job *j = first, *next; j != NULL; j = next) {
        next = j->next;
        if (rc != 0) {
            j->code = rc;
            j->err = err;
        }
        finish_job(s, j);
    }
}

static void *run_thread(void *ctx)
{
    struct phx_store *s = ctx;
    struct job       *first;

    while ((first = phx_queue_pop(s->jobs, -1)) != NULL) {
        struct job *last = first, *next;
        int         n = 1;

        while (n < BATCH_MAX && (next = phx_queue_try_pop(s->jobs)) != NULL) {
            last->next = next;
            last = next;
            n++;
        }
        run_batch(s, first);
    }
    return NULL;
}

static int deliver(struct phx_store *s)
{
    struct job *job;
    int         n = 0;

    while ((job = phx_queue_try_pop(s->results)) != NULL) {
        if (job->done != NULL)
            job->done(job->ctx, job->code == 0 ? NULL : &job->err);
        phx_mem_free(job);
        n++;
    }
    return n;
}

static void on_results(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    (void)deliver(ctx); /* how many does not matter here */
}

static int read_version(struct phx_store *s, int *version, struct phx_err *err)
{
    sqlite3_stmt *stmt = NULL;
    int           rc = 0;

    if (sqlite3_prepare_v2(s->db, "PRAGMA user_version", -1, &stmt, NULL) != SQLITE_OK ||
        sqlite3_step(stmt) != SQLITE_ROW)
        rc = fail_db(s, "user_version", err);
    else
        *version = sqlite3_column_int(stmt, 0);
    (void)sqlite3_finalize(stmt); /* read only */
    return rc;
}

static int migrate(struct phx_store *s, struct phx_err *err)
{
    char pragma[64];
    int  version = 0;
    int  rc = exec_plain(s, "BEGIN IMMEDIATE", err);

    if (rc != 0)
        return rc;
    rc = read_version(s, &version, err);
    if (rc == 0 && version > SCHEMA_VERSION)
        rc = phx_fail(err, PHX_E_UNSUPPORTED,
                      "%s: schema %d is of a newer phalanx (this one knows %d)", s->path, version,
                      SCHEMA_VERSION);
    for (int v = version; rc == 0 && v < SCHEMA_VERSION; v++)
        rc = exec_plain(s, schema_versions[v], err);
    (void)snprintf(pragma, sizeof(pragma), "PRAGMA user_version=%d", SCHEMA_VERSION);
    if (rc == 0)
        rc = exec_plain(s, pragma, err);
    if (rc == 0)
        return exec_plain(s, "COMMIT", err);
    if (exec_plain(s, "ROLLBACK", NULL) != 0)
        phx_log(PHX_LOG_ERROR, "store.rollback.fail", "reason=%s", sqlite3_errmsg(s->db));
    return rc;
}

/* SQLite would make it readable by all; the log and the index beside it take its mode.  An existing file is
 * not opened here: closing it again would drop the locks this process may have on it. */
static int make_private(const char *path, struct phx_err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);

    if (fd < 0 && errno != EEXIST)
        return phx_fail(err, PHX_E_IO, "open %s: %s", path, strerror(errno));
    if (fd >= 0)
        (void)close(fd); /* nothing was written */
    return 0;
}

static int open_db(struct phx_store *s, struct phx_err *err)
{
    int rc = make_private(s->path, err);

    if (rc != 0)
        return rc;
    if (sqlite3_open_v2(s->path, &s->db,
                        SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE | SQLITE_OPEN_FULLMUTEX,
                        NULL) != SQLITE_OK)
        return phx_fail(err, PHX_E_IO, "open %s: %s", s->path,
                        s->db != NULL ? sqlite3_errmsg(s->db) : "out of memory");
    (void)sqlite3_busy_timeout(s->db, BUSY_MS); /* always answers OK */
    rc = exec_plain(s, "PRAGMA journal_mode=WAL", err);
    if (rc == 0)
        rc = exec_plain(s, "PRAGMA synchronous=FULL", err);
    if (rc == 0) /* 64 MiB: receipts are random, so the pages that a group commit touches are many */
        rc = exec_plain(s, "PRAGMA cache_size=-65536", err);
    if (rc == 0)
        rc = exec_plain(s, "PRAGMA foreign_keys=ON", err);
    if (rc == 0)
        rc = exec_plain(s, "PRAGMA secure_delete=ON", err); /* what is erased leaves zeros, not its bytes */
    if (rc == 0)
        rc = exec_plain(s, "PRAGMA temp_store=MEMORY", err); /* no copies of rows in other files */
    return rc == 0 ? migrate(s, err) : rc;
}

int phx_store_open(const char *path, struct event_base *base, struct phx_store **out,
                   struct phx_err *err)
{
    struct phx_store *s = phx_mem_calloc(1, sizeof(*s));
    int               rc;

    *out = NULL;
    s->path = phx_mem_strdup(path);
    pthread_mutex_init(&s->lock, NULL);
    pthread_cond_init(&s->finished, NULL);
    rc = open_db(s, err);
    if (rc == 0)
        rc = phx_queue_create(&s->jobs, JOBS_MAX, err);
    if (rc == 0)
        rc = phx_queue_create(&s->results, JOBS_MAX, err);
    if (rc == 0) {
        s->has_thread = pthread_create(&s->thread, NULL, run_thread, s) == 0;
        if (!s->has_thread)
            rc = phx_fail(err, PHX_E_NOMEM, "cannot start the store's thread");
    }
    if (rc == 0 && base != NULL) {
        s->event = event_new(base, phx_queue_fd(s->results), EV_READ | EV_PERSIST, on_results, s);
        phx_assert(s->event != NULL && event_add(s->event, NULL) == 0);
    }
    if (rc != 0) {
        phx_store_close(s);
        return rc;
    }
    *out = s;
    return 0;
}

void phx_store_close(struct phx_store *s)
{
    if (s == NULL)
        return;
    if (s->has_thread) {
        phx_queue_close(s->jobs);
        (void)pthread_join(s->thread, NULL); /* a thread we started ourselves */
        (void)deliver(s); /* the last ones */
    }
    if (s->event != NULL)
        event_free(s->event);
    for (int i = 0; i < s->n_statements; i++)
        (void)sqlite3_finalize(s->statements[i].stmt); /* nothing is in progress */
    (void)sqlite3_close(s->db);
    phx_queue_destroy(s->jobs, phx_mem_free);
    phx_queue_destroy(s->results, phx_mem_free);
    pthread_cond_destroy(&s->finished);
    pthread_mutex_destroy(&s->lock);
    phx_mem_free(s->path);
    phx_mem_free(s);
}

void phx_store_submit(struct phx_store *s, phx_store_fn fn, phx_store_done_fn done, void *ctx)
{
    struct job *job = phx_mem_calloc(1, sizeof(*job));

    job->fn = fn;
    job->done = done;
    job->ctx = ctx;
    if (phx_queue_push(s->jobs, job) == 0)
        return;
    job->code = phx_fail(&job->err, PHX_E_BUSY, "the store's queue of %d jobs is full", JOBS_MAX);
    finish_job(s, job);
}

int phx_store_run(struct phx_store *s, phx_store_fn fn, void *ctx, struct phx_err *err)
{
    struct job job = {.fn = fn, .ctx = ctx, .is_waited = true};

    if (phx_queue_push(s->jobs, &job) != 0)
        return phx_fail(err, PHX_E_BUSY, "the store's queue of %d jobs is full", JOBS_MAX);
    pthread_mutex_lock(&s->lock);
    while (!job.is_finished)
        pthread_cond_wait(&s->finished, &s->lock);
    pthread_mutex_unlock(&s->lock);
    if (job.code != 0 && err != NULL)
        *err = job.err;
    return job.code;
}

static int run_nothing(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    (void)tx;
    (void)ctx;
    (void)err;
    return 0;
}

void phx_store_drain(struct phx_store *s)
{
    struct phx_err err = {0};

    do {
        if (phx_store_run(s, run_nothing, NULL, &err) != 0) /* queues are in order: all before it ran */
            phx_log(PHX_LOG_WARN, "store.drain", "reason=%s", err.text);
    } while (deliver(s) > 0);
}

static void close_reader(struct phx_store *r)
{
    for (int i = 0; i < r->n_statements; i++)
        (void)sqlite3_finalize(r->statements[i].stmt); /* repeats an error already told */
    (void)sqlite3_close(r->db);
    phx_mem_free(r);
}

int phx_store_read(struct phx_store *s, phx_store_fn fn, void *ctx, struct phx_err *err)
{
    struct phx_store *r = phx_mem_calloc(1, sizeof(*r)); /* no more of it than a transaction needs */
    struct phx_tx     tx = {r};
    int               rc = 0;

    r->path = s->path;
    if (sqlite3_open_v2(r->path, &r->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX, NULL) != SQLITE_OK)
        rc = phx_fail(err, PHX_E_IO, "open %s: %s", r->path,
                      r->db != NULL ? sqlite3_errmsg(r->db) : "out of memory");
    if (rc == 0) {
        (void)sqlite3_busy_timeout(r->db, BUSY_MS); /* always answers OK */
        rc = exec_plain(r, "BEGIN", err);
    }
    if (rc == 0)
        rc = fn(&tx, ctx, err);
    close_reader(r); /* ends the transaction: there is nothing to commit */
    return rc;
}
