/* SPDX-License-Identifier: Apache-2.0 */
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/clock.h"
#include "tests/unit/rpc/transport/loop.h"

static struct phx_rank_info one_rank = {0, 1, "localhost", 0, 0, "cpu"};

static struct phx_link_hello hello_of(const char *token)
{
    return (struct phx_link_hello){
        .replica_id = "r0", .join_token = token, .model_name = "demo",
        .model_digest = "sha256:00", .pp_size = 1, .tp_size = 1, .ranks = &one_rank, .n_ranks = 1};
}

static struct phx_link *connect_to(struct test_loop *t)
{
    struct phx_rpc_client_options o = test_loop_options(t);
    struct phx_link_hello         hello = hello_of("secret");
    struct phx_link_welcome       welcome;
    struct phx_link              *link;
    struct phx_err                err = {0};

    if (phx_link_connect(&link, &o, &hello, &welcome, &err) != 0)
        fail_msg("connect: %s", err.text);
    assert_int_equal(welcome.protocol, PHX_RPC_PROTOCOL_MAX);
    assert_int_equal(welcome.settings.heartbeat_ms, 200);
    assert_string_equal(welcome.build, PHX_VERSION);
    return link;
}

static void a_rank_attaches_and_leaves_in_good_order(void **state)
{
    struct phx_link_msg bye = {.kind = PHX_LINK_BYE};
    struct test_loop    t;
    struct phx_link    *link;
    struct phx_err      err;

    (void)state;
    test_loop_start(&t, 0);
    link = connect_to(&t);
    assert_true(phx_link_is_connected(link));
    assert_true(test_wait_for(&t.attached, 1));
    assert_string_equal(t.last_name, "rank-0");
    assert_int_equal(phx_link_send(link, &bye, &err), 0);
    phx_link_close(link, 2000);
    assert_true(test_wait_for(&t.detached, 1));
    assert_int_equal(t.detach_code, PHX_OK);
    assert_int_equal(t.messages, 1);
    test_loop_stop(&t);
}

static void ten_thousand_messages_go_both_ways_in_order(void **state)
{
    enum { N = 10000, TOKENS = 4 };
    struct phx_token_out tokens[TOKENS];
    struct test_loop     t;
    struct phx_link     *link;
    struct phx_link_msg  step = {.kind = PHX_LINK_STEP}, *msg;
    struct phx_err       err;
    unsigned long long   sum = 0;
    int64_t              start;

    (void)state;
    test_loop_start(&t, 0);
    atomic_store(&t.echo, 1);
    link = connect_to(&t);
    memset(tokens, 0, sizeof(tokens));
    start = phx_clock_mono_ns();
    for (int i = 0; i < N; i++) {
        for (int k = 0; k < TOKENS; k++) {
            tokens[k] = (struct phx_token_out){.seq_id = (uint64_t)k + 1, .token = i + k, .index = i};
            sum += (unsigned long long)(i + k);
        }
        step.u.step.step = (uint64_t)i;
        step.u.step.tokens = tokens;
        step.u.step.n_tokens = TOKENS;
        assert_int_equal(phx_link_send(link, &step, &err), 0);
    }
    for (int i = 0; i < N; i++) {
        assert_int_equal(phx_link_recv(link, 5000, &msg, &err), 0);
        assert_int_equal(msg->kind, PHX_LINK_CANCEL);
        assert_int_equal(msg->u.cancel.seq_ids[0], i);
        phx_link_msg_free(msg);
    }
    print_message("10000 steps of 4 tokens and 10000 answers in %.0f ms\n",
                  (double)(phx_clock_mono_ns() - start) / 1e6);
    assert_int_equal(t.messages, N);
    assert_int_equal(t.token_sum, sum);
    phx_link_close(link, 1000);
    test_loop_stop(&t);
}

static void a_loop_that_falls_behind_slows_the_rank_but_loses_nothing(void **state)
{
    enum { N = 500 };
    struct test_loop    t;
    struct phx_link    *link;
    struct phx_link_msg beat = {.kind = PHX_LINK_HEARTBEAT};
    struct phx_err      err;

    (void)state;
    test_loop_start(&t, 0);
    link = connect_to(&t);
    atomic_store(&t.is_deaf, true);
    for (int i = 0; i < N; i++)
        assert_int_equal(phx_link_send(link, &beat, &err), 0);
    (void)poll(NULL, 0, 200);
    assert_int_equal(t.messages, 0);
    atomic_store(&t.is_deaf, false);
    assert_true(test_wait_for(&t.messages, N));
    assert_int_equal(t.messages, N);
    phx_link_close(link, 1000);
    test_loop_stop(&t);
}

static void a_bad_join_token_is_refused_with_its_reason(void **state)
{
    struct test_loop              t;
    struct phx_rpc_client_options o;
    struct phx_link_hello         hello = hello_of("guess");
    struct phx_link              *link;
    struct phx_err                err = {0};

    (void)state;
    test_loop_start(&t, 0);
    o = test_loop_options(&t);
    assert_int_equal(phx_link_connect(&link, &o, &hello, NULL, &err), PHX_E_UNAUTH);
    assert_non_null(strstr(err.text, "join token is not valid"));
    assert_null(link);
    assert_true(test_wait_for(&t.detached, 1));
    test_loop_stop(&t);
}

static void versions_that_do_not_overlap_are_refused_by_name(void **state)
{
    struct test_loop              t;
    struct phx_rpc_client_options o;
    struct phx_link_hello         hello = hello_of("secret");
    struct phx_link              *link;
    struct phx_err                err = {0};

    (void)state;
    test_loop_start(&t, 0);
    o = test_loop_options(&t);
    hello.protocol_min = PHX_RPC_PROTOCOL_MAX + 1;
    hello.protocol_max = PHX_RPC_PROTOCOL_MAX + 3;
    hello.build = "9.9.9";
    assert_int_equal(phx_link_connect(&link, &o, &hello, NULL, &err), PHX_E_STATE);
    assert_non_null(strstr(err.text, "9.9.9"));
    assert_non_null(strstr(err.text, "speaks RankLink 1 to 1"));
    assert_int_equal(t.attached, 0);
    test_loop_stop(&t);
}

static void a_rank_with_another_ca_is_refused(void **state)
{
    struct test_loop              t;
    struct test_ca               *other = test_ca_create("other CA");
    struct phx_rpc_tls            stranger;
    struct phx_rpc_client_options o;
    struct phx_link_hello         hello = hello_of("secret");
    struct phx_link              *link;
    struct phx_err                err = {0};

    (void)state;
    test_loop_start(&t, 0);
    test_ca_issue(other, "rank-0", &stranger);
    o = test_loop_options(&t);
    o.tls.cert_pem = stranger.cert_pem; /* trusts the server, but shows a certificate of its own CA */
    o.tls.key_pem = stranger.key_pem;
    assert_int_equal(phx_link_connect(&link, &o, &hello, NULL, &err), PHX_E_PEER);
    o = test_loop_options(&t);
    o.tls.ca_pem = stranger.ca_pem; /* does not trust the server */
    assert_int_equal(phx_link_connect(&link, &o, &hello, NULL, &err), PHX_E_PEER);
    assert_int_equal(t.attached, 0);
    test_tls_fini(&stranger);
    test_ca_destroy(other);
    test_loop_stop(&t);
}

static void the_name_in_the_certificate_is_checked(void **state)
{
    struct test_loop              t;
    struct phx_rpc_client_options o;
    struct phx_link_hello         hello = hello_of("secret");
    struct phx_link              *link;
    struct phx_err                err = {0};

    (void)state;
    test_loop_start(&t, 0);
    o = test_loop_options(&t);
    o.server_name = "somebody.else";
    assert_int_equal(phx_link_connect(&link, &o, &hello, NULL, &err), PHX_E_PEER);
    o.server_name = "phalanxd";
    assert_int_equal(phx_link_connect(&link, &o, &hello, NULL, &err), 0);
    phx_link_close(link, 500);
    test_loop_stop(&t);
}

static void a_silent_server_is_a_timeout(void **state)
{
    struct test_loop              t;
    struct phx_rpc_client_options o;
    struct phx_link_hello         hello = hello_of("secret");
    struct phx_link              *link;
    struct phx_err                err = {0};
    int64_t                       start = phx_clock_mono_ns();

    (void)state;
    test_loop_start(&t, 0);
    atomic_store(&t.is_deaf, true);
    o = test_loop_options(&t);
    o.timeout_ms = 300;
    assert_int_equal(phx_link_connect(&link, &o, &hello, NULL, &err), PHX_E_TIMEOUT);
    assert_true(phx_clock_mono_ns() - start < INT64_C(3000000000));
    atomic_store(&t.is_deaf, false);
    test_loop_stop(&t);
}

static void a_stopped_daemon_ends_the_link_and_recv_says_so(void **state)
{
    struct test_loop     t;
    struct phx_link     *link;
    struct phx_link_msg *msg, beat = {.kind = PHX_LINK_HEARTBEAT};
    struct phx_err       err = {0};

    (void)state;
    test_loop_start(&t, 0);
    link = connect_to(&t);
    assert_int_equal(phx_link_recv(link, 0, &msg, &err), PHX_E_TIMEOUT);
    test_loop_stop(&t);
    assert_int_equal(phx_link_recv(link, 5000, &msg, &err), PHX_E_PEER);
    assert_null(msg);
    assert_false(phx_link_is_connected(link));
    assert_int_equal(phx_link_send(link, &beat, &err), PHX_E_PEER);
    phx_link_close(link, 100);
    assert_int_equal(t.detached, 1);
}

/* A process of its own, killed with SIGKILL while attached. */
static void a_killed_rank_is_noticed(void **state)
{
    struct test_loop t;
    int64_t          start;
    pid_t            pid;
    char             port[64];

    (void)state;
    test_loop_start(&t, 0);
    (void)snprintf(port, sizeof(port), "%s", t.target);
    assert_int_equal(setenv("LINK_TEST_TARGET", port, 1), 0);
    assert_int_equal(setenv("LINK_TEST_CA", t.client_tls.ca_pem, 1), 0);
    assert_int_equal(setenv("LINK_TEST_CERT", t.client_tls.cert_pem, 1), 0);
    assert_int_equal(setenv("LINK_TEST_KEY", t.client_tls.key_pem, 1), 0);
    pid = vfork();
    if (pid == 0) {
        (void)execl("/proc/self/exe", "link_test", "--rank", (char *)NULL);
        _exit(127);
    }
    assert_true(pid > 0);
    assert_true(test_wait_for(&t.attached, 1));
    start = phx_clock_mono_ns();
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_true(test_wait_for(&t.detached, 1));
    print_message("a killed rank was noticed after %.1f ms\n",
                  (double)(phx_clock_mono_ns() - start) / 1e6);
    assert_int_equal(t.detach_code, PHX_E_PEER);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
    test_loop_stop(&t);
}

static int run_rank(void)
{
    struct phx_rpc_client_options o = {
        .target = getenv("LINK_TEST_TARGET"),
        .tls = {getenv("LINK_TEST_CA"), getenv("LINK_TEST_CERT"), getenv("LINK_TEST_KEY")}};
    struct phx_link_hello hello = hello_of("secret");
    struct phx_link_msg  *msg;
    struct phx_link      *link;
    struct phx_err        err;

    if (phx_link_connect(&link, &o, &hello, NULL, &err) != 0)
        return 1;
    return phx_link_recv(link, -1, &msg, &err) != 0;
}

/* The rank never takes what is sent to it: once its window and the send queue are full it is dropped. */
static void a_rank_that_does_not_read_is_dropped(void **state)
{
    struct test_loop     t;
    struct phx_link     *link;
    struct phx_link_msg  step = {.kind = PHX_LINK_STEP};
    struct phx_token_out token = {.seq_id = 1, .token = 1};
    struct phx_err       err;

    (void)state;
    test_loop_start(&t, 64 << 10);
    atomic_store(&t.echo, 2000);
    link = connect_to(&t);
    step.u.step.tokens = &token;
    step.u.step.n_tokens = 1;
    for (int i = 0; i < 100 && atomic_load(&t.busy_seen) == 0; i++) {
        if (phx_link_send(link, &step, &err) != 0)
            break;
        (void)poll(NULL, 0, 20);
    }
    assert_true(test_wait_for(&t.busy_seen, 1));
    assert_true(test_wait_for(&t.detached, 1));
    assert_int_equal(t.detach_code, PHX_E_BUSY);
    phx_link_close(link, 100);
    test_loop_stop(&t);
}

static void links_open_and_close_many_times(void **state)
{
    struct test_loop t;

    (void)state;
    test_loop_start(&t, 0);
    for (int i = 0; i < 20; i++)
        phx_link_close(connect_to(&t), i % 2 == 0 ? 500 : 0);
    assert_true(test_wait_for(&t.detached, 20));
    test_loop_stop(&t);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_rank_attaches_and_leaves_in_good_order),
        cmocka_unit_test(ten_thousand_messages_go_both_ways_in_order),
        cmocka_unit_test(a_loop_that_falls_behind_slows_the_rank_but_loses_nothing),
        cmocka_unit_test(a_bad_join_token_is_refused_with_its_reason),
        cmocka_unit_test(versions_that_do_not_overlap_are_refused_by_name),
        cmocka_unit_test(a_rank_with_another_ca_is_refused),
        cmocka_unit_test(the_name_in_the_certificate_is_checked),
        cmocka_unit_test(a_silent_server_is_a_timeout),
        cmocka_unit_test(a_stopped_daemon_ends_the_link_and_recv_says_so),
        cmocka_unit_test(a_killed_rank_is_noticed),
        cmocka_unit_test(a_rank_that_does_not_read_is_dropped),
        cmocka_unit_test(links_open_and_close_many_times),
    };

    if (argc > 1 && strcmp(argv[1], "--rank") == 0)
        return run_rank();
    return cmocka_run_group_tests(tests, NULL, NULL);
}
