/* SPDX-License-Identifier: Apache-2.0
 * Threads for work: every accepted job runs once and is told once on the loop; the queue has an end. */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */
#include <event2/event.h>
#include <pthread.h>
#include <stdatomic.h>
#include <string.h>
#include <unistd.h>

#include "daemon/work/work.h"

enum { JOBS = 500, QUEUE_MAX = 8 };

struct job {
    struct event_base *base;
    pthread_t          loop;
    atomic_int        *n_run;
    int                input, output, n_done;
    int               *n_told;
    atomic_bool       *gate; /* runs only when it is open */
};

static void run(void *ctx)
{
    struct job *j = ctx;

    while (j->gate != NULL && !atomic_load(j->gate))
        usleep(100);
    j->output = j->input * 2;
    atomic_fetch_add(j->n_run, 1);
}

static void done(void *ctx)
{
    struct job *j = ctx;

    assert_true(pthread_equal(pthread_self(), j->loop));
    assert_int_equal(j->output, j->input * 2);
    j->n_done++;
    ++*j->n_told;
}

static void each_job_runs_once_and_is_told_on_the_loop(void **state)
{
    static struct job  jobs[JOBS];
    struct event_base *base = event_base_new();
    struct phx_work   *w = NULL;
    struct phx_err     err = {0};
    atomic_int         n_run = 0;
    int                n_told = 0, n_refused = 0;

    (void)state;
    assert_int_equal(phx_work_open(base, 3, QUEUE_MAX, &w, &err), 0);
    for (int i = 0; i < JOBS;) {
        jobs[i] = (struct job){.base = base, .loop = pthread_self(), .n_run = &n_run, .input = i, .n_told = &n_told};
        if (phx_work_submit(w, run, done, &jobs[i], &err) == 0) {
            assert_int_equal(jobs[i].n_done, 0); /* never before submit returns */
            i++;
            continue;
        }
        assert_int_equal(err.code, PHX_E_BUSY);
        assert_int_equal(phx_work_pending(w), QUEUE_MAX);
        n_refused++;
        (void)event_base_loop(base, EVLOOP_ONCE);
    }
    while (n_told < JOBS)
        (void)event_base_loop(base, EVLOOP_ONCE);
    assert_true(n_refused > 0);
    assert_int_equal(atomic_load(&n_run), JOBS);
    for (int i = 0; i < JOBS; i++)
        assert_int_equal(jobs[i].n_done, 1);
    phx_work_close(w);
    event_base_free(base);
}

static void *open_gate(void *ctx)
{
    usleep(20000);
    atomic_store((atomic_bool *)ctx, true);
    return NULL;
}

static void closing_ends_what_was_accepted(void **state)
{
    struct job         jobs[QUEUE_MAX];
    struct event_base *base = event_base_new();
    struct phx_work   *w = NULL;
    struct phx_err     err = {0};
    atomic_int         n_run = 0;
    atomic_bool        gate = false;
    pthread_t          opener;
    int                n_told = 0;

    (void)state;
    assert_int_equal(phx_work_open(base, 2, QUEUE_MAX, &w, &err), 0);
    for (int i = 0; i < QUEUE_MAX; i++) {
        jobs[i] = (struct job){.base = base, .loop = pthread_self(), .n_run = &n_run, .input = i, .n_told = &n_told, .gate = &gate};
        assert_int_equal(phx_work_submit(w, run, done, &jobs[i], &err), 0);
    }
    assert_int_equal(phx_work_submit(w, run, done, &jobs[0], &err), PHX_E_BUSY);
    assert_non_null(strstr(err.text, "text.queue"));
    assert_int_equal(pthread_create(&opener, NULL, open_gate, &gate), 0);
    phx_work_close(w);
    assert_int_equal(n_told, QUEUE_MAX);
    assert_int_equal(pthread_join(opener, NULL), 0);
    event_base_free(base);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(each_job_runs_once_and_is_told_on_the_loop),
        cmocka_unit_test(closing_ends_what_was_accepted),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
