/* SPDX-License-Identifier: Apache-2.0
 * phalanx-rank as processes of their own, and what they say to a daemon. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "tests/unit/shard/step/fake_daemon.h"

static struct fake_daemon d;

static int clean_up(void **state)
{
    (void)state;
    fake_daemon_stop(&d);
    return 0;
}

static void start(int32_t tp, int32_t pp)
{
    fake_daemon_start(&d, tp, pp, false);
    if (!fake_daemon_wait(&d, &d.n_ready, 1, 30))
        fail_msg("not ready: %s", d.fatal);
}

static int32_t tokens_of(uint64_t seq_id)
{
    int32_t n = 0;

    for (int32_t i = 0; i < d.n_tokens; i++)
        if (d.tokens[i].seq_id == seq_id && d.tokens[i].token >= 0)
            assert_int_equal(d.tokens[i].index, n++); /* none lost, none doubled */
    return n;
}

static const struct fake_token *end_of(uint64_t seq_id)
{
    for (int32_t i = 0; i < d.n_tokens; i++)
        if (d.tokens[i].seq_id == seq_id && d.tokens[i].finish != PHX_FINISH_NONE)
            return &d.tokens[i];
    return NULL;
}

static void wait_for_end(uint64_t seq_id, double seconds)
{
    for (double waited = 0; end_of(seq_id) == NULL && waited < seconds; waited += 0.02)
        fake_daemon_idle(&d, 0.02);
    assert_non_null(end_of(seq_id));
}

static void send_kind(enum phx_link_kind kind)
{
    const struct phx_link_msg msg = {.kind = kind};

    fake_daemon_send(&d, &msg);
}

static void send_cancel(uint64_t seq_id)
{
    struct phx_link_msg msg = {.kind = PHX_LINK_CANCEL};

    msg.u.cancel = (struct phx_link_cancel){&seq_id, 1};
    fake_daemon_send(&d, &msg);
}

static void send_drain(int64_t timeout_ms)
{
    struct phx_link_msg msg = {.kind = PHX_LINK_DRAIN};

    msg.u.drain.timeout_ms = timeout_ms;
    fake_daemon_send(&d, &msg);
}

static void leaves_in_good_order(double seconds)
{
    int status = fake_daemon_reap(&d, seconds);

    assert_true(status >= 0 && WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(d.n_bye, 1);
    assert_int_equal(d.n_fatal, 0);
    assert_true(fake_daemon_ranks_left(&d, 2));
}

/* Milliseconds of processor time of all ranks so far. */
static double cpu_ms(void)
{
    double sum = 0;

    for (int32_t i = 0; i < d.n_ranks; i++) {
        char          path[64], line[1024];
        unsigned long user = 0, system = 0;
        FILE         *f;

        (void)snprintf(path, sizeof(path), "/proc/%d/stat", d.rank_pids[i]);
        f = fopen(path, "r");
        assert_non_null(f);
        assert_non_null(fgets(line, sizeof(line), f));
        fclose(f);
        assert_int_equal(sscanf(strrchr(line, ')') + 1,
                                " %*c %*d %*d %*d %*d %*d %*u %*u %*u %*u %*u %lu %lu", &user, &system), 2);
        sum += (double)(user + system) * 1000.0 / (double)sysconf(_SC_CLK_TCK);
    }
    return sum;
}

static void check_facts(int32_t tp, int32_t pp)
{
    uint64_t kv_bytes = 0;

    assert_int_equal(d.n_ranks, tp * pp);
    assert_int_equal(d.tp_size, tp);
    assert_int_equal(d.pp_size, pp);
    assert_string_equal(d.replica, "r7");
    if (fake_daemon_cuda_rank == NULL)
        assert_string_equal(d.device, "cpu");
    else
        assert_memory_equal(d.device, "cuda:", 5);
    assert_true(d.n_loading >= 1 && d.fraction == 1.0);
    assert_int_equal(d.ready.kv_blocks, 600);
    assert_int_equal(d.ready.block_tokens, 16);
    assert_int_equal(d.ready.max_seqs, 4);
    assert_true(d.ready.max_context > 0 && d.ready.vocab_size > 256);
    for (int32_t i = 0; i < d.n_ranks; i++) {
        assert_int_equal(d.facts[i].rank, i);
        assert_true(d.facts[i].weights_bytes > 10000 && d.facts[i].scratch_bytes > 0);
        kv_bytes += d.facts[i].kv_bytes;
    }
    assert_true(kv_bytes > 0);
}

static void serve_and_idle(int32_t tp, int32_t pp)
{
    double before;

    start(tp, pp);
    check_facts(tp, pp);
    fake_daemon_submit(&d, 1, 20);
    fake_daemon_submit(&d, 2, 5);
    wait_for_end(1, 10);
    assert_int_equal(tokens_of(1), 20);
    assert_int_equal(tokens_of(2), 5);
    assert_int_equal(end_of(1)->finish, PHX_FINISH_LENGTH);
    assert_true(d.n_steps < 25 + 4); /* one message per step, not per token */
    d.n_heartbeats = 0;
    fake_daemon_idle(&d, 0.5);
    before = cpu_ms();
    fake_daemon_idle(&d, 3);
    assert_in_range(d.n_heartbeats, 2, 20); /* every 200 ms for 3.5 s, fewer on a busy machine */
    assert_false(d.is_busy);
    print_message("%dx%d idle: %.1f ms of processor in 3 s\n", tp, pp, cpu_ms() - before);
    assert_true(cpu_ms() - before <= 60.0 * tp * pp); /* clock ticks are of 10 ms */
    send_kind(PHX_LINK_STOP);
    leaves_in_good_order(10);
}

static void one_rank_serves_without_mpi(void **state)
{
    (void)state;
    serve_and_idle(1, 1);
}

static void four_ranks_serve_and_sleep_when_idle(void **state)
{
    (void)state;
    serve_and_idle(2, 2);
}

static void cancelling_ends_one_and_spares_the_other(void **state)
{
    (void)state;
    start(1, 2);
    fake_daemon_submit(&d, 1, 400);
    fake_daemon_submit(&d, 2, 30);
    (void)fake_daemon_wait(&d, &d.n_steps, 3, 10);
    send_cancel(1);
    send_cancel(99);
    wait_for_end(1, 10);
    wait_for_end(2, 10);
    assert_int_equal(end_of(1)->finish, PHX_FINISH_CANCELLED);
    assert_true(tokens_of(1) < 400);
    assert_int_equal(tokens_of(2), 30);
    send_kind(PHX_LINK_STOP);
    leaves_in_good_order(10);
}

static void draining_ends_what_runs_and_takes_nothing_new(void **state)
{
    (void)state;
    start(1, 1);
    fake_daemon_submit(&d, 1, 50);
    send_drain(0);
    fake_daemon_submit(&d, 2, 5);
    leaves_in_good_order(60);
    assert_int_equal(tokens_of(1), 50);
    assert_int_equal(end_of(2)->finish, PHX_FINISH_ERROR);
    assert_int_equal(end_of(2)->error_code, PHX_E_BUSY);
}

static void draining_has_an_end(void **state)
{
    (void)state;
    start(2, 1);
    for (uint64_t id = 1; id <= 40; id++)
        fake_daemon_submit(&d, id, 400);
    send_drain(300);
    leaves_in_good_order(10);
    assert_true(end_of(40) == NULL); /* the daemon lets another replica go on with it */
}

static void a_refused_rank_says_why_and_leaves(void **state)
{
    int status;

    (void)state;
    fake_daemon_start(&d, 1, 1, true);
    status = fake_daemon_reap(&d, 20);
    assert_true(status >= 0 && WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 1);
    assert_int_equal(d.n_attached, 0);
}

static void ranks_leave_when_the_daemon_is_gone(void **state)
{
    (void)state;
    start(2, 2);
    fake_daemon_vanish(&d);
    assert_true(fake_daemon_reap(&d, 10) >= 0);
    assert_true(fake_daemon_ranks_left(&d, 1));
}

static void a_killed_follower_takes_its_replica_down(void **state)
{
    (void)state;
    start(2, 2);
    fake_daemon_submit(&d, 1, 2000);
    (void)fake_daemon_wait(&d, &d.n_steps, 3, 10);
    assert_int_equal(kill(d.rank_pids[3], SIGKILL), 0);
    assert_true(fake_daemon_reap(&d, 10) > 0);
    assert_true(fake_daemon_ranks_left(&d, 2));
    assert_true(fake_daemon_wait(&d, &d.n_detached, 1, 5));
}

#define WITH_DAEMON(test) cmocka_unit_test_teardown(test, clean_up)

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        WITH_DAEMON(one_rank_serves_without_mpi),
        WITH_DAEMON(four_ranks_serve_and_sleep_when_idle),
        WITH_DAEMON(cancelling_ends_one_and_spares_the_other),
        WITH_DAEMON(draining_ends_what_runs_and_takes_nothing_new),
        WITH_DAEMON(draining_has_an_end),
        WITH_DAEMON(a_refused_rank_says_why_and_leaves),
        WITH_DAEMON(ranks_leave_when_the_daemon_is_gone),
        WITH_DAEMON(a_killed_follower_takes_its_replica_down),
    };

    if (argc > 1) /* on the emulated device, where a step's tokens leave while the next one is computed */
        fake_daemon_cuda_rank = argv[1];
    return cmocka_run_group_tests_name("shard/step/serve", tests, NULL, NULL);
}
