/* SPDX-License-Identifier: Apache-2.0 */
#include <netinet/in.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/clock.h"
#include "tests/unit/rpc/transport/loop.h"

struct fixture {
    struct test_loop       loop;
    struct phx_rpc_client *client;
    struct phx_arena      *arena;
    struct phx_err         err;
};

static void start(struct fixture *f, const char *bearer, size_t queue_bytes)
{
    struct phx_rpc_client_options o;

    memset(f, 0, sizeof(*f));
    test_loop_start(&f->loop, queue_bytes);
    o = test_loop_options(&f->loop);
    o.bearer = bearer;
    assert_int_equal(phx_rpc_client_open(&f->client, &o, &f->err), 0);
    f->arena = phx_arena_create();
}

static void stop(struct fixture *f)
{
    phx_rpc_client_close(f->client);
    phx_arena_destroy(f->arena);
    test_loop_stop(&f->loop);
}

static void a_unary_call_is_answered_and_names_its_caller(void **state)
{
    struct phx_cluster_state cluster;
    struct fixture           f;

    (void)state;
    start(&f, "phx-token", 0);
    assert_int_equal(phx_rpc_cluster_get(f.client, 0, f.arena, &cluster, &f.err), 0);
    assert_string_equal(cluster.cluster_id, "test-cluster");
    assert_true(cluster.is_ready);
    assert_true(test_wait_for(&f.loop.requests, 1));
    assert_string_equal(f.loop.last_name, "rank-0");
    assert_string_equal(f.loop.last_bearer, "phx-token");
    stop(&f);
}

/* A proxy in the environment must not see a word of it. */
static void proxies_in_the_environment_are_not_used(void **state)
{
    struct phx_cluster_state cluster;
    struct fixture           f;

    (void)state;
    assert_int_equal(setenv("http_proxy", "http://127.0.0.1:1", 1), 0);
    assert_int_equal(setenv("grpc_proxy", "http://127.0.0.1:1", 1), 0);
    start(&f, NULL, 0);
    assert_int_equal(phx_rpc_cluster_get(f.client, 0, f.arena, &cluster, &f.err), 0);
    stop(&f);
    assert_int_equal(unsetenv("http_proxy"), 0);
    assert_int_equal(unsetenv("grpc_proxy"), 0);
}

static void arguments_and_answers_of_commands_arrive(void **state)
{
    struct phx_cluster_target target = {"r1", 4711, "maintenance"};
    struct phx_cluster_done   done;
    struct fixture            f;

    (void)state;
    start(&f, NULL, 0);
    assert_int_equal(phx_rpc_cluster_drain(f.client, 0, &target, &done, &f.err), 0);
    assert_int_equal(done.n_replicas, 2);
    assert_int_equal(done.n_running, 4711);
    assert_true(test_wait_for(&f.loop.requests, 1));
    assert_string_equal(f.loop.last_bearer, "(none)");
    stop(&f);
}

/* Two codes share FAILED_PRECONDITION: the trailing metadata tells them apart. */
static void a_refusal_keeps_its_exact_code_and_text(void **state)
{
    struct phx_cluster_target target = {"r9", 0, ""};
    struct phx_cluster_done   done;
    struct fixture            f;

    (void)state;
    start(&f, NULL, 0);
    assert_int_equal(phx_rpc_cluster_restart(f.client, 0, &target, &done, &f.err), PHX_E_STATE);
    assert_string_equal(f.err.text, "no replica is called r9");
    stop(&f);
}

static void a_refusal_names_its_rule_and_when_to_come_back(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_ADMIT, .u.admit = {.model = "m", .user = "hasty"}};
    struct phx_rpc_answer  answer;
    struct phx_rpc_refusal refusal;
    struct fixture         f;

    (void)state;
    start(&f, NULL, 0);
    phx_rpc_client_refusal(f.client, &refusal);
    assert_string_equal(refusal.rule, "");
    assert_int_equal(refusal.retry_after_ms, -1);
    assert_int_equal(phx_rpc_ask(f.client, 0, &q, f.arena, &answer, &f.err), PHX_E_LIMIT);
    assert_string_equal(f.err.text, "1 request a second");
    phx_rpc_client_refusal(f.client, &refusal);
    assert_string_equal(refusal.rule, "rate");
    assert_int_equal(refusal.retry_after_ms, 2000);
    q.u.admit.user = "eleventh";
    assert_int_equal(phx_rpc_ask(f.client, 0, &q, f.arena, &answer, &f.err), PHX_E_LICENSE);
    phx_rpc_client_refusal(f.client, &refusal);
    assert_string_equal(refusal.rule, "licence.seats");
    assert_int_equal(refusal.retry_after_ms, -1);
    q.u.admit.user = "ninth";
    assert_int_equal(phx_rpc_ask(f.client, 0, &q, f.arena, &answer, &f.err), 0);
    phx_rpc_client_refusal(f.client, &refusal);
    assert_string_equal(refusal.rule, "");
    stop(&f);
}

/* Each method reaches the handler as itself and takes back the answer of its own kind. */
static void every_method_of_the_control_plane_is_served(void **state)
{
    struct phx_rpc_answer answer;
    struct fixture        f;
    int                   n = 0;

    (void)state;
    start(&f, NULL, 0);
    for (int m = PHX_RPC_ADMIT; m < PHX_RPC_METHODS; m++) {
        struct phx_rpc_request q = {.method = (enum phx_rpc_method)m};

        if (m == PHX_RPC_METERING_EXPORT)
            continue;
        if (m == PHX_RPC_ADMIT)
            q.u.admit.model = "m";
        else if (m == PHX_RPC_RENEW || m == PHX_RPC_CANCEL_LEASE)
            q.u.renew.lease_id = "l"; /* first in both */
        else if (m == PHX_RPC_SETTLE)
            q.u.settle = (struct phx_rpc_settle){"l", true, {1, 0, 1, 0}, "stop", {NULL, 0}};
        else if (m == PHX_RPC_LICENSE_INSTALL)
            q.u.license_install.envelope = (struct phx_rpc_bytes){"e", 1};
        else if (m == PHX_RPC_LICENSE_ACCEPT_CLOCK)
            q.u.accept_clock.approved_by = "b";
        else if (m == PHX_RPC_AUDIT_GET)
            q.u.audit_get.by = PHX_RPC_BY_INDEX;
        else if (m == PHX_RPC_AUDIT_PROVE)
            q.u.audit_prove.what = PHX_RPC_PROVE_INDEX;
        else if (m == PHX_RPC_AUDIT_REPLAY)
            q.u.audit_replay = (struct phx_rpc_audit_replay){"rcpt_1", "B"};
        if (phx_rpc_ask(f.client, 0, &q, f.arena, &answer, &f.err) != 0)
            fail_msg("method %d: %s", m, f.err.text);
        n++;
        if (m == PHX_RPC_SETTLE)
            assert_string_equal(answer.u.settle.receipt_id, "stop");
        else if (m == PHX_RPC_AUDIT_REPLAY)
            assert_string_equal(answer.u.audit_replay.receipt_id, "rcpt_1");
    }
    assert_int_equal(n, 14);
    stop(&f);
}

static void an_export_arrives_part_by_part(void **state)
{
    struct phx_rpc_request q = {.method = PHX_RPC_METERING_EXPORT};
    struct phx_rpc_answer  answer;
    struct phx_rpc_stream *stream;
    struct fixture         f;
    uint64_t               next = 0;
    int                    rc;

    (void)state;
    start(&f, NULL, 0);
    q.u.usage_export.format = PHX_RPC_EXPORT_CSV;
    q.u.usage_export.to_index = 100;
    assert_int_equal(phx_rpc_stream_open(f.client, 0, &q, &stream, &f.err), 0);
    while ((rc = phx_rpc_stream_recv(stream, f.arena, &answer, &f.err)) == 1) {
        assert_int_equal(answer.u.usage_export.next_index, ++next);
        assert_memory_equal(answer.u.usage_export.data.data, "a,b\r\n", 5);
    }
    assert_int_equal(rc, 0);
    assert_int_equal(next, 100);
    phx_rpc_stream_close(stream);
    stop(&f);
}

static void a_bad_argument_is_refused_before_the_handler(void **state)
{
    struct phx_cluster_target target = {"r1", -5, ""};
    struct phx_cluster_done   done;
    struct fixture            f;

    (void)state;
    start(&f, NULL, 0);
    assert_int_equal(phx_rpc_cluster_drain(f.client, 0, &target, &done, &f.err), PHX_E_INVALID);
    assert_non_null(strstr(f.err.text, "DrainRequest.timeout_ms is -5"));
    assert_int_equal(f.loop.requests, 0);
    stop(&f);
}

static void a_stream_delivers_every_message_and_its_end(void **state)
{
    struct phx_generate    request = {.model = "demo", .prompt = "What is 2 + 2?"};
    struct phx_rpc_stream *stream;
    struct phx_rpc_answer  answer;
    struct fixture         f;
    int                    n = 0, rc;

    (void)state;
    start(&f, NULL, 0);
    atomic_store(&f.loop.n_events, 1000);
    assert_int_equal(phx_rpc_generate(f.client, 0, &request, &stream, &f.err), 0);
    while ((rc = phx_rpc_stream_recv(stream, f.arena, &answer, &f.err)) == 1) {
        assert_int_equal(answer.u.generate.kind, PHX_GENERATE_TEXT);
        assert_string_equal(answer.u.generate.text, "piece");
        n++;
    }
    assert_int_equal(rc, 0);
    assert_int_equal(n, 1000);
    phx_rpc_stream_close(stream);
    assert_int_equal(phx_rpc_cluster_watch(f.client, 0, &stream, &f.err), 0);
    assert_int_equal(phx_rpc_stream_recv(stream, f.arena, &answer, &f.err), 1);
    assert_string_equal(answer.u.event.reason, "test.event");
    phx_rpc_stream_close(stream);
    stop(&f);
}

static void leaving_a_stream_is_told_to_the_handler(void **state)
{
    struct phx_generate    request = {.model = "demo", .prompt = "hi"};
    struct phx_rpc_stream *stream;
    struct fixture         f;

    (void)state;
    start(&f, NULL, 0);
    atomic_store(&f.loop.is_holding, true);
    assert_int_equal(phx_rpc_generate(f.client, 0, &request, &stream, &f.err), 0);
    assert_true(test_wait_for(&f.loop.requests, 1));
    phx_rpc_stream_close(stream);
    assert_true(test_wait_for(&f.loop.cancelled, 1));
    stop(&f);
}

static void a_deadline_ends_the_call_on_both_sides(void **state)
{
    struct phx_cluster_state cluster;
    struct fixture           f;
    int64_t                  begin;

    (void)state;
    start(&f, NULL, 0);
    atomic_store(&f.loop.is_holding, true);
    begin = phx_clock_mono_ns();
    assert_int_equal(phx_rpc_cluster_get(f.client, 300, f.arena, &cluster, &f.err), PHX_E_TIMEOUT);
    assert_in_range((phx_clock_mono_ns() - begin) / 1000000, 280, 3000);
    assert_true(test_wait_for(&f.loop.cancelled, 1));
    stop(&f);
}

static void a_client_that_does_not_read_is_dropped(void **state)
{
    struct phx_generate    request = {.model = "demo", .prompt = "hi"};
    struct phx_rpc_stream *stream;
    struct fixture         f;

    (void)state;
    start(&f, NULL, 64 << 10);
    atomic_store(&f.loop.n_events, 100000);
    assert_int_equal(phx_rpc_generate(f.client, 0, &request, &stream, &f.err), 0);
    assert_true(test_wait_for(&f.loop.busy_seen, 1));
    assert_true(test_wait_for(&f.loop.cancelled, 1));
    phx_rpc_stream_close(stream);
    stop(&f);
}

static void health_follows_what_the_server_says(void **state)
{
    struct fixture f;
    bool           is_serving = false;

    (void)state;
    start(&f, NULL, 0);
    assert_int_equal(phx_rpc_health_check(f.client, 0, "", &is_serving, &f.err), 0);
    assert_true(is_serving);
    assert_int_equal(phx_rpc_health_check(f.client, 0, "no.Such", &is_serving, &f.err),
                     PHX_E_NOTFOUND);
    assert_false(is_serving);
    stop(&f);
}

static void a_second_listener_on_the_port_is_refused(void **state)
{
    struct fixture                f;
    struct phx_rpc_server        *second;
    struct phx_rpc_server_options o = {0};

    (void)state;
    start(&f, NULL, 0);
    o.listen = f.loop.target;
    o.tls = f.loop.server_tls;
    assert_int_equal(phx_rpc_server_open(&second, &o, &f.err), PHX_E_IO);
    assert_non_null(strstr(f.err.text, f.loop.target));
    assert_null(second);
    stop(&f);
}

static void unusable_certificates_are_refused_by_name(void **state)
{
    struct fixture                f;
    struct phx_rpc_server        *server;
    struct phx_rpc_server_options o = {.listen = "127.0.0.1:0"};

    (void)state;
    start(&f, NULL, 0);
    o.tls = f.loop.server_tls;
    o.tls.key_pem = f.loop.client_tls.key_pem;
    assert_int_equal(phx_rpc_server_open(&server, &o, &f.err), PHX_E_INVALID);
    assert_non_null(strstr(f.err.text, "do not belong together"));
    o.tls.ca_pem = "not a certificate";
    assert_int_equal(phx_rpc_server_open(&server, &o, &f.err), PHX_E_INVALID);
    assert_non_null(strstr(f.err.text, "ca_pem"));
    o.tls.ca_pem = NULL;
    assert_int_equal(phx_rpc_server_open(&server, &o, &f.err), PHX_E_INVALID);
    stop(&f);
}

/* Plain bytes instead of a handshake: nothing reaches a handler, and the server goes on. */
static void garbage_on_the_port_reaches_no_handler(void **state)
{
    struct phx_cluster_state cluster;
    struct sockaddr_in       address = {.sin_family = AF_INET};
    static const char        preface[] = "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\4\0\0\0\0\0";
    struct fixture           f;
    char                     byte;
    int                      fd;

    (void)state;
    start(&f, NULL, 0);
    address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    address.sin_port = htons((uint16_t)phx_rpc_server_port(f.loop.server));
    fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof(address)), 0);
    assert_int_equal(send(fd, preface, sizeof(preface), MSG_NOSIGNAL), sizeof(preface));
    while (recv(fd, &byte, 1, 0) > 0)
        continue; /* an alert or nothing, then the end */
    close(fd);
    assert_int_equal(f.loop.requests, 0);
    assert_int_equal(phx_rpc_cluster_get(f.client, 0, f.arena, &cluster, &f.err), 0);
    stop(&f);
}

static void close_cancels_what_is_left_open(void **state)
{
    struct phx_generate    request = {.model = "demo", .prompt = "hi"};
    struct phx_rpc_stream *stream;
    struct phx_rpc_answer  answer;
    struct fixture         f;

    (void)state;
    start(&f, NULL, 0);
    atomic_store(&f.loop.is_holding, true);
    assert_int_equal(phx_rpc_generate(f.client, 0, &request, &stream, &f.err), 0);
    assert_true(test_wait_for(&f.loop.requests, 1));
    test_loop_stop(&f.loop);
    assert_int_equal(f.loop.cancelled, 1);
    assert_true(phx_rpc_stream_recv(stream, f.arena, &answer, &f.err) < 0);
    phx_rpc_stream_close(stream);
    phx_rpc_client_close(f.client);
    phx_arena_destroy(f.arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_unary_call_is_answered_and_names_its_caller),
        cmocka_unit_test(proxies_in_the_environment_are_not_used),
        cmocka_unit_test(arguments_and_answers_of_commands_arrive),
        cmocka_unit_test(a_refusal_keeps_its_exact_code_and_text),
        cmocka_unit_test(a_refusal_names_its_rule_and_when_to_come_back),
        cmocka_unit_test(every_method_of_the_control_plane_is_served),
        cmocka_unit_test(an_export_arrives_part_by_part),
        cmocka_unit_test(a_bad_argument_is_refused_before_the_handler),
        cmocka_unit_test(a_stream_delivers_every_message_and_its_end),
        cmocka_unit_test(leaving_a_stream_is_told_to_the_handler),
        cmocka_unit_test(a_deadline_ends_the_call_on_both_sides),
        cmocka_unit_test(a_client_that_does_not_read_is_dropped),
        cmocka_unit_test(health_follows_what_the_server_says),
        cmocka_unit_test(a_second_listener_on_the_port_is_refused),
        cmocka_unit_test(unusable_certificates_are_refused_by_name),
        cmocka_unit_test(garbage_on_the_port_reaches_no_handler),
        cmocka_unit_test(close_cancels_what_is_left_open),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
