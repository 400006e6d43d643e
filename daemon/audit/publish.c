/* SPDX-License-Identifier: Apache-2.0
 * The publishing thread.  Nobody waits for it: leaves are durable before it sees them. */
#include <pthread.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#include "daemon/audit/audit.h"
#include "daemon/audit/publish.h"
#include "rpc/base/clock.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

/* Leaves may also come from another process (the command line): look without being woken. */
enum { POLL_MS = 5000, RETRY_MS = 1000, NS_PER_MS = 1000000, NS_PER_S = 1000000000 };

struct phx_publisher {
    struct phx_press press; /* of the thread, once it runs */
    char            *origin;
    int64_t          interval_ns, key_life_ns;
    int64_t          key_until_ns; /* of the thread */
    pthread_t        thread;
    bool             has_thread, has_lock;
    pthread_mutex_t  lock; /* all below */
    pthread_cond_t   changed;
    bool             is_awake, is_stopping;
    char            *checkpoint;
    uint64_t         size;
    char             problem[sizeof(((struct phx_err *)0)->text)];
};

/* With the lock held; returns early when something changed. */
static void wait_until(struct phx_publisher *p, int64_t mono_ns)
{
    const struct timespec at = {.tv_sec = mono_ns / NS_PER_S, .tv_nsec = mono_ns % NS_PER_S};

    (void)pthread_cond_timedwait(&p->changed, &p->lock, &at); /* callers look again at the clock */
}

static void show(struct phx_publisher *p, const struct phx_err *err)
{
    const struct phx_signed_tree *last = &p->press.last;
    bool                          had_problem;

    pthread_mutex_lock(&p->lock);
    if (last->note.data != NULL && (p->checkpoint == NULL || strcmp(p->checkpoint, last->note.data) != 0)) {
        phx_mem_free(p->checkpoint);
        p->checkpoint = phx_mem_strdup(last->note.data);
        p->size = last->checkpoint.size;
    }
    had_problem = p->problem[0] != '\0';
    (void)snprintf(p->problem, sizeof(p->problem), "%s", err->text);
    pthread_mutex_unlock(&p->lock);
    if (err->code != 0 && !had_problem) /* once, not at every new try */
        phx_log(PHX_LOG_ERROR, "audit.publish.fail", "size=%llu reason=%s",
                (unsigned long long)last->checkpoint.size, err->text);
    if (err->code == 0 && had_problem)
        phx_log(PHX_LOG_INFO, "audit.publish.resume", "size=%llu",
                (unsigned long long)last->checkpoint.size);
}

/* A key that has signed nothing since it began protects nothing by moving on. */
static void check_key_age(struct phx_publisher *p)
{
    const struct phx_press *press = &p->press;

    if (p->key_life_ns > 0 && phx_clock_mono_ns() >= p->key_until_ns && press->last.note.data != NULL &&
        press->last.checkpoint.size > press->key.from_size)
        p->press.is_moving = true;
}

static int run_once(struct phx_publisher *p)
{
    struct phx_err err = {0};
    int64_t        epoch = p->press.key.epoch;
    int            rc;

    check_key_age(p);
    rc = phx_press_run(&p->press, &err);
    if (rc == 0)
        err = (struct phx_err){0}; /* files that need not be there leave their text */
    if (p->press.key.epoch != epoch) {
        p->key_until_ns = phx_clock_mono_ns() + p->key_life_ns;
        phx_log(PHX_LOG_INFO, "audit.key.move", "epoch=%lld", (long long)p->press.key.epoch);
    }
    show(p, &err);
    return rc;
}

static void *run_thread(void *ctx)
{
    struct phx_publisher *p = ctx;
    int64_t               next_ns = 0;

    pthread_mutex_lock(&p->lock);
    while (!p->is_stopping) {
        int64_t poll_ns = phx_clock_mono_ns() + (int64_t)POLL_MS * NS_PER_MS;
        int64_t rest_ns = p->interval_ns;

        while (!p->is_stopping && !p->is_awake && phx_clock_mono_ns() < poll_ns)
            wait_until(p, poll_ns);
        while (!p->is_stopping && phx_clock_mono_ns() < next_ns)
            wait_until(p, next_ns);
        p->is_awake = false;
        pthread_mutex_unlock(&p->lock);
        if (run_once(p) != 0 && rest_ns < (int64_t)RETRY_MS * NS_PER_MS)
            rest_ns = (int64_t)RETRY_MS * NS_PER_MS;
        next_ns = phx_clock_mono_ns() + rest_ns;
        pthread_mutex_lock(&p->lock);
        p->is_awake = p->is_awake || p->problem[0] != '\0';
    }
    pthread_mutex_unlock(&p->lock);
    (void)run_once(p); /* leaves that came during the last run; a problem is logged, and the next start goes on */
    return NULL;
}

static int start_thread(struct phx_publisher *p, struct phx_err *err)
{
    pthread_condattr_t attr;

    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_mutex_init(&p->lock, NULL);
    pthread_cond_init(&p->changed, &attr);
    pthread_condattr_destroy(&attr);
    p->has_lock = true;
    p->is_awake = true;
    p->has_thread = pthread_create(&p->thread, NULL, run_thread, p) == 0;
    return p->has_thread ? 0 : phx_fail(err, PHX_E_NOMEM, "cannot start the publishing thread");
}

int phx_publisher_open(struct phx_store *store, const struct phx_publisher_options *options,
                       struct phx_publisher **out, struct phx_err *err)
{
    enum { EPOCH_DIGITS = 20 };
    struct phx_publisher *p;
    int                   rc;

    *out = NULL;
    if (strlen(options->origin) + EPOCH_DIGITS > PHX_NOTE_NAME_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "the origin of the audit log has more than %d bytes",
                        PHX_NOTE_NAME_MAX - EPOCH_DIGITS);
    rc = phx_sign_init(err);
    if (rc != 0)
        return rc;
    p = phx_mem_calloc(1, sizeof(*p));
    p->origin = phx_mem_strdup(options->origin);
    p->interval_ns = options->interval_ms * NS_PER_MS;
    p->key_life_ns = options->key_life_s * NS_PER_S;
    p->key_until_ns = phx_clock_mono_ns() + p->key_life_ns;
    rc = phx_press_open(&p->press, store, options->dir, options->key_dir, p->origin, err);
    if (rc == 0 && p->press.last.note.data != NULL) {
        p->checkpoint = phx_mem_strdup(p->press.last.note.data);
        p->size = p->press.last.checkpoint.size;
    }
    if (rc == 0)
        rc = start_thread(p, err);
    if (rc != 0) {
        phx_publisher_close(p);
        return rc;
    }
    *out = p;
    return 0;
}

void phx_publisher_close(struct phx_publisher *p)
{
    if (p == NULL)
        return;
    if (p->has_thread) {
        pthread_mutex_lock(&p->lock);
        p->is_stopping = true;
        pthread_cond_signal(&p->changed);
        pthread_mutex_unlock(&p->lock);
        (void)pthread_join(p->thread, NULL); /* a thread we started ourselves */
    }
    if (p->has_lock) {
        pthread_cond_destroy(&p->changed);
        pthread_mutex_destroy(&p->lock);
    }
    phx_press_close(&p->press);
    phx_mem_free(p->checkpoint);
    phx_mem_free(p->origin);
    phx_mem_free(p);
}

void phx_publisher_wake(struct phx_publisher *p)
{
    pthread_mutex_lock(&p->lock);
    if (!p->is_awake) {
        p->is_awake = true;
        pthread_cond_signal(&p->changed);
    }
    pthread_mutex_unlock(&p->lock);
}

char *phx_publisher_checkpoint(struct phx_publisher *p)
{
    char *text;

    pthread_mutex_lock(&p->lock);
    text = p->checkpoint != NULL ? phx_mem_strdup(p->checkpoint) : NULL;
    pthread_mutex_unlock(&p->lock);
    return text;
}

uint64_t phx_publisher_size(struct phx_publisher *p)
{
    uint64_t size;

    pthread_mutex_lock(&p->lock);
    size = p->size;
    pthread_mutex_unlock(&p->lock);
    return size;
}

void phx_publisher_problem(struct phx_publisher *p, char *text, size_t size)
{
    pthread_mutex_lock(&p->lock);
    (void)snprintf(text, size, "%s", p->problem); /* may be cut */
    pthread_mutex_unlock(&p->lock);
}
