/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/team.h"

#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "kernels/memory.h"

enum { THREADS_MAX = 1024, SPINS = 4000 };

struct member {
    struct phx_team *team;
    pthread_t        thread;
    int32_t          index;
    bool             is_started;
};

struct phx_team {
    int32_t     size;
    atomic_uint generation; /* a new job each time it moves */
    atomic_uint n_sleeping;
    atomic_uint n_working;  /* members that have not finished the job */
    atomic_uint is_waiting; /* the caller sleeps on n_working */
    atomic_bool is_closing;
    phx_team_fn fn;
    void       *ctx;
    int32_t     n_units;
    struct member members[];
};

static void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    sched_yield();
#endif
}

static void futex_wait(atomic_uint *word, unsigned value)
{
    /* woken, changed meanwhile or interrupted: the caller looks again in each case */
    (void)syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, value, NULL, NULL, 0);
}

static void futex_wake(atomic_uint *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, THREADS_MAX, NULL, NULL, 0);
}

static void run_share(struct phx_team *t, int32_t member)
{
    int32_t first = (int32_t)((int64_t)t->n_units * member / t->size);
    int32_t end = (int32_t)((int64_t)t->n_units * (member + 1) / t->size);

    if (end > first)
        t->fn(t->ctx, member, first, end);
}

static unsigned wait_for_job(struct phx_team *t, unsigned seen)
{
    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&t->generation, memory_order_acquire) != seen)
            return atomic_load(&t->generation);
        pause_cpu();
    }
    atomic_fetch_add(&t->n_sleeping, 1);
    while (atomic_load(&t->generation) == seen)
        futex_wait(&t->generation, seen);
    atomic_fetch_sub(&t->n_sleeping, 1);
    return atomic_load(&t->generation);
}

static void *run_member(void *ctx)
{
    struct member   *m = ctx;
    struct phx_team *t = m->team;
    unsigned         seen = 0;

    while (true) {
        seen = wait_for_job(t, seen);
        if (atomic_load(&t->is_closing))
            return NULL;
        run_share(t, m->index);
        if (atomic_fetch_sub(&t->n_working, 1) == 1 && atomic_load(&t->is_waiting) != 0)
            futex_wake(&t->n_working);
    }
}

static void wait_for_members(struct phx_team *t)
{
    unsigned n;

    for (int i = 0; i < SPINS; i++) {
        if (atomic_load_explicit(&t->n_working, memory_order_acquire) == 0)
            return;
        pause_cpu();
    }
    atomic_store(&t->is_waiting, 1);
    while ((n = atomic_load(&t->n_working)) != 0)
        futex_wait(&t->n_working, n);
    atomic_store(&t->is_waiting, 0);
}

void phx_team_run(struct phx_team *t, int32_t n_units, phx_team_fn fn, void *ctx)
{
    if (n_units <= 0)
        return;
    if (t->size == 1 || n_units == 1) {
        fn(ctx, 0, 0, n_units);
        return;
    }
    t->fn = fn;
    t->ctx = ctx;
    t->n_units = n_units;
    atomic_store(&t->n_working, (unsigned)t->size - 1);
    atomic_fetch_add(&t->generation, 1);
    if (atomic_load(&t->n_sleeping) != 0)
        futex_wake(&t->generation);
    run_share(t, 0);
    wait_for_members(t);
}

static int32_t count_cores(cpu_set_t *set)
{
    if (sched_getaffinity(0, sizeof(*set), set) != 0) {
        CPU_ZERO(set);
        CPU_SET(0, set);
    }
    return (int32_t)CPU_COUNT(set);
}

/* Binds a thread to the n-th core this process may use, counted round. */
static void pin(pthread_t thread, const cpu_set_t *allowed, int32_t n)
{
    cpu_set_t one;
    int32_t   left = n % (int32_t)CPU_COUNT(allowed);

    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, allowed) && left-- == 0) {
            CPU_SET(core, &one);
            break;
        }
    (void)pthread_setaffinity_np(thread, sizeof(one), &one); /* unpinned is slower, not wrong */
}

static int start_members(struct phx_team *t)
{
    sigset_t all, old;
    int      rc = 0;

    sigfillset(&all); /* signals belong to the process's own thread */
    pthread_sigmask(SIG_SETMASK, &all, &old);
    for (int32_t i = 1; i < t->size && rc == 0; i++) {
        t->members[i] = (struct member){.team = t, .index = i};
        rc = pthread_create(&t->members[i].thread, NULL, run_member, &t->members[i]);
        t->members[i].is_started = rc == 0;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    return rc;
}

struct phx_team *phx_team_create(int32_t n_threads, bool is_pinned, int32_t first_core)
{
    cpu_set_t        allowed;
    int32_t          n_cores = count_cores(&allowed);
    int32_t          size = n_threads > 0 ? n_threads : n_cores;
    struct phx_team *t;

    if (size > THREADS_MAX)
        return NULL;
    t = phx_memory_alloc(sizeof(*t) + (size_t)size * sizeof(struct member));
    if (t == NULL)
        return NULL;
    t->size = size;
    if (start_members(t) != 0) {
        phx_team_destroy(t);
        return NULL;
    }
    if (is_pinned) {
        pin(pthread_self(), &allowed, first_core);
        for (int32_t i = 1; i < size; i++)
            pin(t->members[i].thread, &allowed, first_core + i);
    }
    return t;
}

void phx_team_destroy(struct phx_team *t)
{
    if (t == NULL)
        return;
    atomic_store(&t->is_closing, true);
    atomic_fetch_add(&t->generation, 1);
    futex_wake(&t->generation);
    for (int32_t i = 1; i < t->size; i++)
        if (t->members[i].is_started)
            (void)pthread_join(t->members[i].thread, NULL); /* a thread we started ourselves */
    phx_memory_free(t);
}

int32_t phx_team_size(const struct phx_team *t)
{
    return t->size;
}
