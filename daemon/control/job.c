/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/control/job.h"

#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/queue.h"

enum { JOBS_MAX = 1024 };

struct phx_control {
    struct phx_daemon      *d;
    struct phx_control_job *first;
    int                     n_jobs;
    struct phx_queue       *asked, *answered;
    struct event           *event;
    pthread_t               thread;
    bool                    has_thread;
    atomic_bool             is_closing;
};

struct phx_daemon *phx_control_daemon(const struct phx_control *c)
{
    return c->d;
}

/* ---- life ------------------------------------------------------------------------------------------ */

struct phx_control_job *phx_control_job_create(struct phx_control *c, struct phx_rpc_call *call)
{
    struct phx_control_job *job;

    if (c->n_jobs == JOBS_MAX)
        return NULL;
    job = phx_mem_calloc(1, sizeof(*job));
    job->control = c;
    job->d = c->d;
    job->call = call;
    job->arena = phx_arena_create();
    job->next = c->first;
    if (c->first != NULL)
        c->first->prev = job;
    c->first = job;
    c->n_jobs++;
    return job;
}

void phx_control_end(struct phx_control_job *job)
{
    struct phx_control *c = job->control;

    if (job->prev != NULL)
        job->prev->next = job->next;
    else
        c->first = job->next;
    if (job->next != NULL)
        job->next->prev = job->prev;
    c->n_jobs--;
    phx_arena_destroy(job->arena);
    phx_mem_free(job);
}

void phx_control_reply(struct phx_control_job *job)
{
    if (job->call != NULL)
        phx_rpc_reply(job->call, &job->answer);
    phx_control_end(job);
}

void phx_control_fail(struct phx_control_job *job, const struct phx_err *err, int64_t retry_after_ms)
{
    if (job->call != NULL)
        phx_rpc_fail(job->call, err, retry_after_ms);
    phx_control_end(job);
}

void phx_control_finish(struct phx_control_job *job, const struct phx_err *err)
{
    if (err == NULL)
        phx_control_reply(job);
    else
        phx_control_fail(job, err, phx_err_is_retryable(err->code) ? 1000 : -1);
}

void phx_control_cancelled(struct phx_control *c, const struct phx_rpc_call *call)
{
    struct phx_control_job *job = c->first;

    while (job != NULL && job->call != call)
        job = job->next;
    if (job == NULL)
        return;
    job->call = NULL; /* what runs goes on, and is answered to nobody */
    if (job->is_waiting)
        phx_control_end(job);
}

/* ---- reading --------------------------------------------------------------------------------------- */

static void *run(void *ctx)
{
    struct phx_control     *c = ctx;
    struct phx_control_job *job;

    while ((job = phx_queue_pop(c->asked, -1)) != NULL) {
        if (atomic_load(&c->is_closing))
            job->rc = phx_fail(&job->err, PHX_E_BUSY, "the daemon is stopping");
        else
            job->rc = job->work(job, &job->err);
        phx_assert(phx_queue_push(c->answered, job) == 0); /* it holds every job there can be */
    }
    return NULL;
}

static void take_answers(struct phx_control *c)
{
    struct phx_control_job *job;

    while ((job = phx_queue_try_pop(c->answered)) != NULL)
        job->done(job, job->rc == 0 ? NULL : &job->err);
}

static void on_answered(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    take_answers(ctx);
}

void phx_control_read(struct phx_control_job *job, phx_control_work_fn work, phx_control_done_fn done)
{
    struct phx_err err = {0};

    job->work = work;
    job->done = done;
    job->err = (struct phx_err){0};
    if (phx_queue_push(job->control->asked, job) == 0)
        return;
    (void)phx_fail(&err, PHX_E_BUSY, "the daemon is stopping"); /* told */
    done(job, &err);
}

/* ---- opening --------------------------------------------------------------------------------------- */

static int start(struct phx_control *c, struct phx_err *err)
{
    sigset_t all, old;
    int      rc = phx_queue_create(&c->asked, JOBS_MAX, err);

    if (rc == 0)
        rc = phx_queue_create(&c->answered, JOBS_MAX, err);
    if (rc != 0)
        return rc;
    c->event = event_new(c->d->base, phx_queue_fd(c->answered), EV_READ | EV_PERSIST, on_answered, c);
    phx_assert(c->event != NULL && event_add(c->event, NULL) == 0);
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_BLOCK, &all, &old); /* cannot fail with valid arguments */
    c->has_thread = pthread_create(&c->thread, NULL, run, c) == 0;
    (void)pthread_sigmask(SIG_SETMASK, &old, NULL);
    return c->has_thread ? 0 : phx_fail(err, PHX_E_NOMEM, "no thread for reports: too many processes");
}

int phx_control_open(struct phx_daemon *d, struct phx_control **out, struct phx_err *err)
{
    struct phx_control *c = phx_mem_calloc(1, sizeof(*c));
    int                 rc;

    *out = NULL;
    c->d = d;
    rc = start(c, err);
    if (rc != 0) {
        phx_control_close(c);
        return rc;
    }
    *out = c;
    return 0;
}

void phx_control_close(struct phx_control *c)
{
    if (c == NULL)
        return;
    atomic_store(&c->is_closing, true);
    if (c->has_thread) {
        phx_queue_close(c->asked);
        (void)pthread_join(c->thread, NULL);
        take_answers(c);
    }
    phx_assert(c->first == NULL); /* the store was drained, the engine has ended */
    if (c->event != NULL)
        event_free(c->event);
    phx_queue_destroy(c->asked, NULL);
    phx_queue_destroy(c->answered, NULL);
    phx_mem_free(c);
}

/* ---- small helpers --------------------------------------------------------------------------------- */

const char *phx_control_keep(struct phx_control_job *job, const char *s)
{
    return s != NULL ? phx_arena_strdup(job->arena, s) : "";
}

const char *phx_control_filter(struct phx_control_job *job, const char *s)
{
    return s != NULL && *s != '\0' ? phx_arena_strdup(job->arena, s) : NULL;
}

int phx_control_token(const char *token, uint64_t *numbers, int n, struct phx_err *err)
{
    const char *p = token;

    for (int i = 0; i < n; i++) {
        char *end;

        if (*p < '0' || *p > '9' || strspn(p, "0123456789") > 18)
            return phx_fail(err, PHX_E_INVALID, "page_token is not one of this call's");
        numbers[i] = strtoull(p, &end, 10);
        if (*end != (i + 1 < n ? '.' : '\0'))
            return phx_fail(err, PHX_E_INVALID, "page_token is not one of this call's");
        p = end + 1;
    }
    return 0;
}
