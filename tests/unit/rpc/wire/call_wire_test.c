/* SPDX-License-Identifier: Apache-2.0
 * Requests and answers of Cluster and Inference. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/wire/wire.h"

struct bytes {
    uint8_t *data;
    size_t   size;
};

static struct phx_arena *arena;
static struct phx_err    err;

static int set_up(void **state)
{
    (void)state;
    arena = phx_arena_create();
    memset(&err, 0, sizeof(err));
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    phx_arena_destroy(arena);
    return 0;
}

static struct bytes pack(const struct phx_wire_out *out)
{
    struct bytes b = {phx_arena_calloc(arena, 1, out->size + 1), out->size};

    phx_wire_pack(out, b.data);
    return b;
}

static void assert_fails(int rc, int want, const char *text)
{
    assert_int_equal(rc, want);
    if (strstr(err.text, text) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", err.text, text);
}

static const char *repeat(char c, size_t n)
{
    char *s = phx_arena_calloc(arena, 1, n + 1);

    memset(s, c, n);
    return s;
}

static void cluster_state_comes_back_whole(void **state)
{
    static const struct phx_cluster_rank ranks[] = {{{1, 2, "h", 3, 4, "cpu"}, {1, 5, 6, 7}, 8}};
    struct phx_cluster_replica replica = {
        .id = "r0", .state = PHX_REPLICA_READY, .model_name = "m", .model_digest = "d",
        .backend = "cpu", .tp_size = 2, .pp_size = 2, .restarts = 1, .last_error = "died",
        .kv_blocks = 10, .steps_per_s = 12.5, .ranks = ranks, .n_ranks = 1};
    struct phx_rpc_answer a = {0}, r;
    struct phx_wire_out   out;
    struct bytes          b;

    (void)state;
    a.u.event.reason = "fleet.replica.ready";
    a.u.event.state = (struct phx_cluster_state){
        .cluster_id = "c", .build = "b", .http_url = "http://x", .is_ready = true,
        .licence = "evaluation", .n_queued = 3, .replicas = &replica, .n_replicas = 1};
    assert_int_equal(phx_wire_encode_answer(PHX_RPC_CLUSTER_WATCH, &a, arena, &out, &err), 0);
    b = pack(&out);
    assert_int_equal(
        phx_wire_decode_answer(PHX_RPC_CLUSTER_WATCH, b.data, b.size, arena, &r, &err), 0);
    assert_string_equal(r.u.event.reason, "fleet.replica.ready");
    assert_string_equal(r.u.event.state.licence, "evaluation");
    assert_int_equal(r.u.event.state.replicas[0].state, PHX_REPLICA_READY);
    assert_true(r.u.event.state.replicas[0].steps_per_s == 12.5);
    assert_int_equal(r.u.event.state.replicas[0].ranks[0].facts.kv_bytes, 6);
    assert_int_equal(r.u.event.state.replicas[0].ranks[0].max_sequences, 8);
    assert_fails(phx_wire_decode_answer(PHX_RPC_CLUSTER_GET, b.data, 0, arena, &r, &err),
                 PHX_E_FORMAT, "no ClusterState");
}

static struct phx_rpc_request generate_of(const struct phx_generate_message *messages, int32_t n)
{
    struct phx_rpc_request q = {.method = PHX_RPC_INFERENCE_GENERATE};

    q.u.generate.model = "demo";
    q.u.generate.messages = messages;
    q.u.generate.n_messages = n;
    return q;
}

static int round_trip(const struct phx_rpc_request *q, struct phx_rpc_request *r)
{
    struct phx_wire_out out;
    struct bytes        b;
    int                 rc = phx_wire_encode_request(q, arena, &out, &err);

    if (rc != 0)
        return rc;
    b = pack(&out);
    return phx_wire_decode_request(q->method, b.data, b.size, arena, r, &err);
}

static void generate_comes_back_whole(void **state)
{
    static const struct phx_generate_message messages[] = {
        {"system", "", "Be brief."}, {"user", "", "Gr\xc3\xbc\xc3\x9f Gott"}};
    static const char *const stops[] = {"\n\n", "END"};
    struct phx_rpc_request   q = generate_of(messages, 2), r;

    (void)state;
    q.u.generate.stops = stops;
    q.u.generate.n_stops = 2;
    q.u.generate.has_sampling = true;
    phx_sampling_init(&q.u.generate.sampling);
    q.u.generate.sampling.temperature = 0.0f;
    q.u.generate.max_new = 99;
    q.u.generate.user = "u-1";
    assert_int_equal(round_trip(&q, &r), 0);
    assert_int_equal(r.u.generate.n_messages, 2);
    assert_string_equal(r.u.generate.messages[1].content, messages[1].content);
    assert_string_equal(r.u.generate.stops[1], "END");
    assert_true(r.u.generate.has_sampling && r.u.generate.sampling.temperature == 0.0f);
    assert_string_equal(r.u.generate.user, "u-1");
    q.u.generate.has_sampling = false;
    assert_int_equal(round_trip(&q, &r), 0);
    assert_false(r.u.generate.has_sampling);
    assert_true(r.u.generate.sampling.temperature == 1.0f);
}

static void generate_needs_a_model_and_one_kind_of_input(void **state)
{
    static const struct phx_generate_message messages[] = {{"user", "", "hi"}};
    struct phx_rpc_request                   q = generate_of(messages, 1), r;

    (void)state;
    q.u.generate.prompt = "also";
    assert_fails(round_trip(&q, &r), PHX_E_INVALID, "either messages or prompt");
    q = generate_of(NULL, 0);
    assert_fails(round_trip(&q, &r), PHX_E_INVALID, "either messages or prompt");
    q = generate_of(messages, 1);
    q.u.generate.model = "";
    assert_fails(round_trip(&q, &r), PHX_E_INVALID, "GenerateRequest.model");
    q = generate_of(messages, 1);
    q.u.generate.idempotency_key = repeat('k', 129);
    assert_fails(round_trip(&q, &r), PHX_E_TOOBIG, "idempotency_key has 129 bytes (limit 128)");
}

static void the_text_of_a_request_is_bounded_as_a_whole(void **state)
{
    struct phx_generate_message messages[2] = {{"user", "", ""}, {"user", "", "x"}};
    struct phx_rpc_request      q = generate_of(messages, 2), r;

    (void)state;
    messages[0].content = repeat('a', PHX_RPC_PROMPT_MAX_BYTES - 1);
    assert_int_equal(round_trip(&q, &r), 0);
    messages[0].content = repeat('a', PHX_RPC_PROMPT_MAX_BYTES);
    assert_fails(round_trip(&q, &r), PHX_E_TOOBIG, "the text has 8388609 bytes");
}

static void events_of_a_stream_come_back_whole(void **state)
{
    struct phx_rpc_answer a = {0}, r;
    struct phx_wire_out   out;
    struct bytes          b;

    (void)state;
    a.u.generate = (struct phx_generate_event){.kind = PHX_GENERATE_TEXT, .text = ""};
    assert_int_equal(phx_wire_encode_answer(PHX_RPC_INFERENCE_GENERATE, &a, arena, &out, &err), 0);
    b = pack(&out);
    assert_int_equal(
        phx_wire_decode_answer(PHX_RPC_INFERENCE_GENERATE, b.data, b.size, arena, &r, &err), 0);
    assert_int_equal(r.u.generate.kind, PHX_GENERATE_TEXT); /* an empty piece is still a piece */
    a.u.generate = (struct phx_generate_event){.kind = PHX_GENERATE_DONE, .request_id = "q",
                                               .receipt_id = "p", .finish_reason = "stop",
                                               .usage = {1, 2, 3, 4}};
    assert_int_equal(phx_wire_encode_answer(PHX_RPC_INFERENCE_GENERATE, &a, arena, &out, &err), 0);
    b = pack(&out);
    assert_int_equal(
        phx_wire_decode_answer(PHX_RPC_INFERENCE_GENERATE, b.data, b.size, arena, &r, &err), 0);
    assert_string_equal(r.u.generate.receipt_id, "p");
    assert_int_equal(r.u.generate.usage.reasoning_tokens, 4);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(cluster_state_comes_back_whole),
        TEST(generate_comes_back_whole),
        TEST(generate_needs_a_model_and_one_kind_of_input),
        TEST(the_text_of_a_request_is_bounded_as_a_whole),
        TEST(events_of_a_stream_come_back_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
