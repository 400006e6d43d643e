/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/work/work.h"

#include <event2/event.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "rpc/base/queue.h"

enum { THREADS_MAX = 64 };

struct job {
    phx_work_fn run, done;
    void       *ctx;
};

struct phx_work {
    struct phx_queue *jobs, *results;
    struct event     *event; /* results are there */
    pthread_t         threads[THREADS_MAX];
    int32_t           n_threads, queue_max;
    int32_t           n_pending; /* accepted and not told yet; loop thread */
};

static void *run_thread(void *ctx)
{
    struct phx_work *w = ctx;
    struct job      *job;

    while ((job = phx_queue_pop(w->jobs, -1)) != NULL) {
        job->run(job->ctx);
        phx_assert(phx_queue_push(w->results, job) == 0); /* it holds as many as there can be */
    }
    return NULL;
}

static void deliver(struct phx_work *w)
{
    struct job *job;

    while ((job = phx_queue_try_pop(w->results)) != NULL) {
        w->n_pending--;
        job->done(job->ctx);
        phx_mem_free(job);
    }
}

static void on_results(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    deliver(ctx);
}

/* Signals are the loop's: a thread must not take one. */
static int start_threads(struct phx_work *w, int32_t n_threads, struct phx_err *err)
{
    sigset_t all, old;
    int      rc = 0;

    (void)sigfillset(&all);
    phx_assert(pthread_sigmask(SIG_SETMASK, &all, &old) == 0);
    while (rc == 0 && w->n_threads < n_threads) {
        rc = pthread_create(&w->threads[w->n_threads], NULL, run_thread, w);
        w->n_threads += rc == 0;
    }
    phx_assert(pthread_sigmask(SIG_SETMASK, &old, NULL) == 0);
    return rc == 0 ? 0 : phx_fail(err, PHX_E_IO, "a thread for text: %s", strerror(rc));
}

int phx_work_open(struct event_base *base, int32_t n_threads, int32_t queue_max, struct phx_work **out,
                  struct phx_err *err)
{
    struct phx_work *w = phx_mem_calloc(1, sizeof(*w));
    int              rc;

    phx_assert(n_threads >= 1 && n_threads <= THREADS_MAX && queue_max >= 1);
    *out = NULL;
    w->queue_max = queue_max;
    rc = phx_queue_create(&w->jobs, (size_t)queue_max, err);
    if (rc == 0)
        rc = phx_queue_create(&w->results, (size_t)queue_max, err);
    if (rc == 0) {
        w->event = event_new(base, phx_queue_fd(w->results), EV_READ | EV_PERSIST, on_results, w);
        phx_assert(w->event != NULL && event_add(w->event, NULL) == 0);
        rc = start_threads(w, n_threads, err);
    }
    if (rc != 0) {
        phx_work_close(w);
        return rc;
    }
    *out = w;
    return 0;
}

void phx_work_close(struct phx_work *w)
{
    if (w == NULL)
        return;
    if (w->jobs != NULL)
        phx_queue_close(w->jobs);
    for (int32_t i = 0; i < w->n_threads; i++)
        (void)pthread_join(w->threads[i], NULL); /* they end when the queue is empty */
    if (w->results != NULL)
        deliver(w);
    if (w->event != NULL)
        event_free(w->event);
    phx_queue_destroy(w->jobs, NULL);
    phx_queue_destroy(w->results, NULL);
    phx_mem_free(w);
}

int phx_work_submit(struct phx_work *w, phx_work_fn run, phx_work_fn done, void *ctx, struct phx_err *err)
{
    struct job *job;

    if (w->n_pending >= w->queue_max)
        return phx_fail(err, PHX_E_BUSY, "text.queue: %d prompts are being tokenized or wait for it", w->n_pending);
    job = phx_mem_calloc(1, sizeof(*job));
    *job = (struct job){run, done, ctx};
    w->n_pending++;
    phx_assert(phx_queue_push(w->jobs, job) == 0); /* it holds queue_max */
    return 0;
}

int32_t phx_work_pending(const struct phx_work *w)
{
    return w->n_pending;
}
