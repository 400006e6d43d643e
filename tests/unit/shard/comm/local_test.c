/* SPDX-License-Identifier: Apache-2.0 */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "tests/unit/shard/comm/script.h"

struct job {
    struct phx_comm *comm;
    const void      *arg;
    int (*run)(struct phx_comm *c, const void *arg);
    int rc;
};

static void *run_job(void *arg)
{
    struct job *j = arg;

    j->rc = j->run(j->comm, j->arg);
    return NULL;
}

/* One thread per rank of a local world. */
static void run_world(int32_t tp, int32_t pp, int (*run)(struct phx_comm *, const void *),
                      const void *arg)
{
    struct phx_comm *comm[64];
    struct job       job[64];
    pthread_t        thread[64];
    struct phx_err   err = {0};

    assert_int_equal(phx_comm_local(tp, pp, &script_limits, comm, &err), 0);
    for (int32_t i = 0; i < tp * pp; i++) {
        job[i] = (struct job){comm[i], arg, run, -99};
        assert_int_equal(pthread_create(&thread[i], NULL, run_job, &job[i]), 0);
    }
    for (int32_t i = 0; i < tp * pp; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        assert_int_equal(job[i].rc, 0);
        phx_comm_close(comm[i]);
    }
}

static void test_script(void **state)
{
    static const int32_t shapes[][2] = {{1, 1}, {2, 1}, {1, 2}, {2, 2}, {4, 1}, {8, 1}, {3, 2},
                                        {1, 4}, {5, 1}, {4, 2}, {6, 2}, {1, 12}};

    (void)state;
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        run_world(shapes[i][0], shapes[i][1], script_run, NULL);
}

static void test_bad_shape_is_refused(void **state)
{
    struct phx_comm *comm[1] = {NULL};
    struct phx_err   err = {0};

    (void)state;
    assert_int_equal(phx_comm_local(65, 1, &script_limits, comm, &err), PHX_E_INVALID);
    assert_null(comm[0]);
    assert_int_equal(phx_comm_local(0, 1, &script_limits, comm, &err), PHX_E_INVALID);
    assert_int_equal(phx_comm_local(64, 512, &script_limits, comm, &err), PHX_E_INVALID);
}

static void test_results_queue_on_one_rank_and_time_out(void **state)
{
    struct phx_comm *c;
    struct phx_err   err = {0};
    char             got[16];
    size_t           n = 0;
    int64_t          start;

    (void)state;
    assert_int_equal(phx_comm_self(&script_limits, &c, &err), 0);
    assert_int_equal(phx_comm_result_send(c, "one", 3), 0);
    assert_int_equal(phx_comm_result_send(c, "two22", 5), 0);
    assert_int_equal(phx_comm_result_recv(c, got, sizeof(got), &n, 0), 0);
    assert_int_equal(n, 3);
    assert_memory_equal(got, "one", 3);
    assert_int_equal(phx_comm_result_recv(c, got, sizeof(got), &n, -1), 0);
    assert_int_equal(n, 5);
    assert_memory_equal(got, "two22", 5);
    start = phx_clock_mono_ns();
    assert_int_equal(phx_comm_result_recv(c, got, sizeof(got), &n, 30), PHX_E_TIMEOUT);
    assert_true(phx_clock_mono_ns() - start >= 29000000);
    for (int i = 0; i < 1000; i++) {
        char big[1000] = {0};
        int  rc = phx_comm_result_send(c, big, sizeof(big));

        if (rc != 0) {
            assert_int_equal(rc, PHX_E_LIMIT);
            break;
        }
        assert_true(i < 900); /* the ring is bounded */
    }
    phx_comm_close(c);
}

static void test_too_large_messages_are_refused(void **state)
{
    struct phx_comm *c;
    struct phx_err   err = {0};
    char            *big = phx_mem_calloc(1, 100001);
    size_t           n = 100001;

    (void)state;
    assert_int_equal(phx_comm_self(&script_limits, &c, &err), 0);
    assert_int_equal(phx_comm_result_send(c, big, 100001), PHX_E_TOOBIG);
    assert_int_equal(phx_comm_bcast(c, big, n, &n), PHX_E_TOOBIG);
    phx_comm_close(c);
    phx_mem_free(big);
}

/* Rank 1 leaves at once: rank 0 must not wait for ever. */
static int leave_or_wait(struct phx_comm *c, const void *arg)
{
    float             x[4] = {0};
    struct phx_tensor t = phx_view(x, 1, 4);

    (void)arg;
    return phx_comm_sum(c, t);
}

static void test_a_peer_that_closed_ends_the_wait(void **state)
{
    struct phx_comm *comm[2];
    struct job       job;
    pthread_t        thread;
    struct phx_err   err = {0};
    int64_t          start = phx_clock_mono_ns();

    (void)state;
    assert_int_equal(phx_comm_local(2, 1, &script_limits, comm, &err), 0);
    job = (struct job){comm[0], NULL, leave_or_wait, 0};
    assert_int_equal(pthread_create(&thread, NULL, run_job, &job), 0);
    phx_comm_close(comm[1]);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(job.rc, PHX_E_PEER);
    assert_true(phx_clock_mono_ns() - start < 2000000000);
    phx_comm_close(comm[0]);
}

/* A stage may run two micro-batches ahead of a receiver that computes. */
static void test_sends_do_not_wait_for_the_receiver(void **state)
{
    struct phx_comm *comm[2];
    struct phx_err   err = {0};
    size_t           n = script_limits.max_activation_bytes / sizeof(float);
    float           *x = phx_mem_calloc(n, sizeof(float)), *y = phx_mem_calloc(n, sizeof(float));

    (void)state;
    assert_int_equal(phx_comm_local(1, 2, &script_limits, comm, &err), 0);
    for (int32_t k = 0; k < 2; k++) {
        x[0] = (float)k;
        x[n - 1] = (float)k + 10;
        assert_int_equal(phx_comm_send(comm[0], phx_view(x, 1, (int32_t)n)), 0);
    }
    for (int32_t k = 0; k < 2; k++) {
        assert_int_equal(phx_comm_recv(comm[1], phx_view(y, 1, (int32_t)n)), 0);
        assert_true(y[0] == (float)k && y[n - 1] == (float)k + 10);
    }
    phx_comm_close(comm[0]);
    phx_comm_close(comm[1]);
    phx_mem_free(x);
    phx_mem_free(y);
}

static int64_t cpu_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return ts.tv_sec * INT64_C(1000000000) + ts.tv_nsec;
}

static int wait_for_plan(struct phx_comm *c, const void *arg)
{
    char   plan[16] = "go";
    size_t n = 3;

    (void)arg;
    if (phx_comm_shape(c)->rank == 0)
        (void)usleep(500000);
    return phx_comm_bcast(c, plan, sizeof(plan), &n);
}

static void test_waiting_ranks_sleep(void **state)
{
    int64_t before = cpu_ns();

    (void)state;
    run_world(2, 2, wait_for_plan, NULL);
    /* three ranks waited half a second each; spinning would have cost 1.5 s of cpu (or all cores) */
    assert_true(cpu_ns() - before < 100000000);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_script),
        cmocka_unit_test(test_bad_shape_is_refused),
        cmocka_unit_test(test_results_queue_on_one_rank_and_time_out),
        cmocka_unit_test(test_too_large_messages_are_refused),
        cmocka_unit_test(test_a_peer_that_closed_ends_the_wait),
        cmocka_unit_test(test_sends_do_not_wait_for_the_receiver),
        cmocka_unit_test(test_waiting_ranks_sleep),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
