/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
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

static struct bytes encode(const struct phx_link_msg *msg)
{
    struct phx_wire_out out;

    if (phx_wire_encode_link(msg, arena, &out, &err) != 0)
        fail_msg("encode: %s", err.text);
    return pack(&out);
}

static int decode(struct bytes b, enum phx_wire_side side, struct phx_link_msg *msg)
{
    memset(&err, 0, sizeof(err));
    return phx_wire_decode_link(b.data, b.size, side, arena, msg, &err);
}

static void assert_fails(int rc, int want, const char *text)
{
    assert_int_equal(rc, want);
    if (strstr(err.text, text) == NULL)
        fail_msg("\"%s\" does not contain \"%s\"", err.text, text);
}

static struct phx_link_msg hello_msg(void)
{
    static const struct phx_rank_info ranks[2] = {{0, 100, "node-a", 0, 0, "cpu"},
                                                  {1, 101, "node-b", 0, 1, "cuda:0"}};
    struct phx_link_msg               m = {.kind = PHX_LINK_HELLO};

    m.u.hello = (struct phx_link_hello){1, 2, "replica-0", "TOKEN", "0.1.0", "demo", "sha256:ab",
                                        "sha256:cd", 1, 2, ranks, 2};
    return m;
}

static void hello_comes_back_whole(void **state)
{
    struct phx_link_msg m = hello_msg(), r;

    (void)state;
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), 0);
    assert_int_equal(r.kind, PHX_LINK_HELLO);
    assert_int_equal(r.u.hello.protocol_max, 2);
    assert_string_equal(r.u.hello.replica_id, "replica-0");
    assert_string_equal(r.u.hello.join_token, "TOKEN");
    assert_string_equal(r.u.hello.model_digest, "sha256:ab");
    assert_string_equal(r.u.hello.model_parent, "sha256:cd");
    assert_int_equal(r.u.hello.n_ranks, 2);
    assert_int_equal(r.u.hello.ranks[1].pid, 101);
    assert_string_equal(r.u.hello.ranks[1].device, "cuda:0");
}

static void step_comes_back_whole(void **state)
{
    struct phx_logprob   top[PHX_TOP_LOGPROBS_MAX];
    struct phx_token_out tokens[4] = {
        {.seq_id = 7, .token = 0, .index = 3, .logprob = -0.5f, .top = top,
         .n_top = PHX_TOP_LOGPROBS_MAX, .cached_tokens = 48},
        {.seq_id = 8, .token = 200000, .gap = 0.25f, .finish = PHX_FINISH_STOP},
        {.seq_id = 9, .token = -1, .finish = PHX_FINISH_CANCELLED},
        {.seq_id = UINT64_MAX, .token = -1, .finish = PHX_FINISH_ERROR,
         .error_code = PHX_E_TOOBIG, .error_text = "too long"}};
    struct phx_link_msg m = {.kind = PHX_LINK_STEP}, r;

    (void)state;
    for (int i = 0; i < PHX_TOP_LOGPROBS_MAX; i++)
        top[i] = (struct phx_logprob){i, i == 19 ? -INFINITY : -(float)i};
    m.u.step = (struct phx_link_step){42, tokens, 4, {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}};
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), 0);
    assert_int_equal(r.u.step.step, 42);
    assert_int_equal(r.u.step.n_tokens, 4);
    assert_int_equal(r.u.step.tokens[0].token, 0);
    assert_int_equal(r.u.step.tokens[0].n_top, PHX_TOP_LOGPROBS_MAX);
    assert_true(isinf(r.u.step.tokens[0].top[19].logprob));
    assert_int_equal(r.u.step.tokens[0].cached_tokens, 48);
    assert_int_equal(r.u.step.tokens[1].finish, PHX_FINISH_STOP);
    assert_true(r.u.step.tokens[0].gap == 0 && r.u.step.tokens[1].gap == 0.25f);
    assert_int_equal(r.u.step.tokens[2].token, -1);
    assert_true(r.u.step.tokens[3].seq_id == UINT64_MAX);
    assert_int_equal(r.u.step.tokens[3].error_code, PHX_E_TOOBIG);
    assert_string_equal(r.u.step.tokens[3].error_text, "too long");
    assert_string_equal(r.u.step.tokens[1].error_text, "");
    assert_int_equal(r.u.step.stats.step_us, 7);
    assert_int_equal(r.u.step.stats.n_draft_tokens, 10);
    assert_int_equal(r.u.step.stats.n_accepted_tokens, 11);
    assert_int_equal(r.u.step.stats.bytes_comm, 12);
}

static struct phx_submit submit_of(const int32_t *tokens, int32_t n)
{
    struct phx_submit s = {.seq_id = 5, .tokens = tokens, .n_tokens = n, .n_prompt = 1,
                           .max_new = 16, .priority = -3};

    memset(s.cache_salt, 0xa5, sizeof(s.cache_salt));
    phx_sampling_init(&s.sampling);
    return s;
}

static void submit_comes_back_whole(void **state)
{
    static const int32_t  tokens[] = {1, 200, 199999, 0};
    static const int32_t  stops[] = {200002, 200012};
    const struct phx_bias bias[] = {{17, -100.0f}, {18, 2.5f}};
    struct phx_submit     s = submit_of(tokens, 4);
    struct phx_link_msg   m = {.kind = PHX_LINK_SUBMIT}, r;
    const struct phx_submit *got;

    (void)state;
    s.sampling.temperature = 0.7f;
    s.sampling.top_p = 0.9f;
    s.sampling.top_k = 40;
    s.sampling.seed = UINT64_MAX;
    s.sampling.n_logprobs = 0;
    s.sampling.bias = bias;
    s.sampling.n_bias = 2;
    s.sampling.stop_ids = stops;
    s.sampling.n_stop_ids = 2;
    s.sampling.ignore_eos = true;
    s.n_check = 3;
    m.u.submit = (struct phx_link_submit){&s, 1};
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_DAEMON, &r), 0);
    got = &r.u.submit.items[0];
    assert_int_equal(got->seq_id, 5);
    assert_memory_equal(got->cache_salt, s.cache_salt, PHX_CACHE_SALT_BYTES);
    assert_int_equal(got->n_tokens, 4);
    assert_memory_equal(got->tokens, tokens, sizeof(tokens));
    assert_int_equal(got->priority, -3);
    assert_int_equal(got->n_check, 3);
    assert_true(got->sampling.temperature == 0.7f && got->sampling.top_p == 0.9f);
    assert_true(got->sampling.seed == UINT64_MAX);
    assert_int_equal(got->sampling.n_logprobs, 0);
    assert_true(got->sampling.bias[0].bias == -100.0f);
    assert_int_equal(got->sampling.stop_ids[1], 200012);
    assert_true(got->sampling.ignore_eos);
}

static void small_messages_keep_their_kind(void **state)
{
    static const uint64_t ids[] = {1, UINT64_MAX};
    struct phx_link_msg   m, r;

    (void)state;
    m = (struct phx_link_msg){.kind = PHX_LINK_CANCEL, .u.cancel = {ids, 2}};
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_DAEMON, &r), 0);
    assert_true(r.u.cancel.n_seq_ids == 2 && r.u.cancel.seq_ids[1] == UINT64_MAX);
    m = (struct phx_link_msg){.kind = PHX_LINK_WELCOME, .u.welcome = {1, "0.1.0", {500, 5000}}};
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_DAEMON, &r), 0);
    assert_int_equal(r.u.welcome.settings.lost_after_ms, 5000);
    m = (struct phx_link_msg){.kind = PHX_LINK_HEARTBEAT, .u.heartbeat = {9, 10, true}};
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), 0);
    assert_true(r.u.heartbeat.progress == 10 && r.u.heartbeat.is_busy);
    m = (struct phx_link_msg){.kind = PHX_LINK_LOADING, .u.loading = {0.5, 1, 2, 1.5}};
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), 0);
    assert_true(r.u.loading.fraction == 0.5 && r.u.loading.bytes_total == 2);
    m = (struct phx_link_msg){.kind = PHX_LINK_FATAL, .u.fatal = {PHX_E_IO, "disk", 3}};
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), 0);
    assert_int_equal(r.u.fatal.code, PHX_E_IO);
    for (int kind = PHX_LINK_DRAIN; kind <= PHX_LINK_PING; kind++) {
        m = (struct phx_link_msg){.kind = (enum phx_link_kind)kind};
        assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_DAEMON, &r), 0);
        assert_int_equal(r.kind, kind);
    }
    m = (struct phx_link_msg){.kind = PHX_LINK_BYE};
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), 0);
    assert_int_equal(r.kind, PHX_LINK_BYE);
}

static void ready_comes_back_whole_and_needs_positive_sizes(void **state)
{
    static const struct phx_rank_facts facts[] = {{0, 1u << 30, 2, 3}};
    struct phx_link_msg m = {.kind = PHX_LINK_READY, .u.ready = {facts, 1, 100, 16, 64, 4096, 512}};
    struct phx_link_msg r;

    (void)state;
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), 0);
    assert_int_equal(r.u.ready.ranks[0].weights_bytes, 1u << 30);
    assert_int_equal(r.u.ready.vocab_size, 512);
    m.u.ready.block_tokens = 0;
    assert_fails(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), PHX_E_INVALID, "Ready.block_tokens");
}

/* Finds `text` in the bytes and puts `with` over its first byte. */
static struct bytes damage(struct bytes b, const char *text, uint8_t with)
{
    uint8_t *p = memmem(b.data, b.size, text, strlen(text));

    assert_non_null(p);
    *p = with;
    return b;
}

static void nul_and_bad_utf8_are_refused_by_field(void **state)
{
    struct phx_link_msg m = hello_msg(), r;

    (void)state;
    assert_fails(decode(damage(encode(&m), "OKEN", 0), PHX_WIRE_FROM_RANK, &r), PHX_E_INVALID,
                 "Hello.join_token has a NUL byte");
    assert_fails(decode(damage(encode(&m), "plica-0", 0xff), PHX_WIRE_FROM_RANK, &r),
                 PHX_E_INVALID, "Hello.replica_id is not valid UTF-8");
    assert_fails(decode(damage(encode(&m), "ode-b", 0xc0), PHX_WIRE_FROM_RANK, &r), PHX_E_INVALID,
                 "RankInfo.host is not valid UTF-8");
    m.u.hello.model_name = "\xed\xa0\x80"; /* a surrogate */
    assert_int_equal(phx_wire_encode_link(&m, arena, &(struct phx_wire_out){0}, &err),
                     PHX_E_INVALID);
    assert_non_null(strstr(err.text, "Hello.model_name"));
}

static const char *repeat(char c, size_t n)
{
    char *s = phx_arena_calloc(arena, 1, n + 1);

    memset(s, c, n);
    return s;
}

static void strings_end_at_their_limit(void **state)
{
    struct phx_link_msg m = hello_msg(), r;
    struct phx_wire_out out;

    (void)state;
    m.u.hello.model_name = repeat('x', PHX_RPC_NAME_MAX);
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), 0);
    m.u.hello.model_name = repeat('x', PHX_RPC_NAME_MAX + 1);
    assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_TOOBIG,
                 "Hello.model_name has 257 bytes (limit 256)");
    m = (struct phx_link_msg){.kind = PHX_LINK_FATAL};
    m.u.fatal.text = repeat('y', PHX_RPC_TEXT_MAX);
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), 0);
    m.u.fatal.text = repeat('y', PHX_RPC_TEXT_MAX + 1);
    assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_TOOBIG, "Fatal.text");
}

/* The receiver counts too: a longer name made by hand is refused on its side. */
static void a_peer_that_breaks_a_limit_is_refused(void **state)
{
    uint8_t             data[400] = {0x0a, 0}; /* AttachRequest.hello */
    struct phx_link_msg r;
    size_t              n = 257;

    (void)state;
    data[1] = (uint8_t)((n + 3) & 0x7f) | 0x80;
    data[2] = (uint8_t)((n + 3) >> 7);
    data[3] = 0x32; /* model_name */
    data[4] = (uint8_t)(n & 0x7f) | 0x80;
    data[5] = (uint8_t)(n >> 7);
    memset(data + 6, 'z', n);
    assert_fails(decode((struct bytes){data, 6 + n}, PHX_WIRE_FROM_RANK, &r), PHX_E_TOOBIG,
                 "Hello.model_name has 257 bytes");
}

static void a_peer_that_sends_too_long_a_list_is_refused(void **state)
{
    uint8_t             data[8200];
    struct phx_link_msg r;

    (void)state;
    for (size_t n = PHX_RPC_CANCELS_MAX; n <= PHX_RPC_CANCELS_MAX + 1; n++) {
        uint8_t head[] = {0x1a, (uint8_t)((n + 3) & 0x7f) | 0x80, (uint8_t)((n + 3) >> 7), /* cancel */
                          0x0a, (uint8_t)(n & 0x7f) | 0x80, (uint8_t)(n >> 7)}; /* seq_ids, packed */
        int     rc;

        memcpy(data, head, sizeof(head));
        memset(data + sizeof(head), 1, n);
        rc = decode((struct bytes){data, sizeof(head) + n}, PHX_WIRE_FROM_DAEMON, &r);
        if (n == PHX_RPC_CANCELS_MAX)
            assert_int_equal(rc, 0);
        else
            assert_fails(rc, PHX_E_TOOBIG, "CancelSequences.seq_ids has 4097 items (limit 4096)");
    }
}

static void lists_end_at_their_limit(void **state)
{
    int32_t             *tokens = phx_arena_calloc(arena, PHX_RPC_TOKENS_MAX + 1, sizeof(*tokens));
    struct phx_submit   *items = phx_arena_calloc(arena, PHX_RPC_SUBMITS_MAX + 1, sizeof(*items));
    struct phx_link_msg  m = {.kind = PHX_LINK_SUBMIT}, r;
    struct phx_wire_out  out;

    (void)state;
    for (int i = 0; i <= PHX_RPC_SUBMITS_MAX; i++)
        items[i] = submit_of(tokens, 1);
    m.u.submit = (struct phx_link_submit){items, PHX_RPC_SUBMITS_MAX};
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_DAEMON, &r), 0);
    assert_int_equal(r.u.submit.n_items, PHX_RPC_SUBMITS_MAX);
    m.u.submit.n_items++;
    assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_INVALID, "Submit.items");
    m.u.submit.n_items = 1;
    items[0].n_tokens = PHX_RPC_TOKENS_MAX;
    assert_int_equal(decode(encode(&m), PHX_WIRE_FROM_DAEMON, &r), 0);
    assert_int_equal(r.u.submit.items[0].n_tokens, PHX_RPC_TOKENS_MAX);
    items[0].n_tokens++;
    assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_INVALID, "Sequence.tokens");
}

static void a_full_step_fits(void **state)
{
    struct phx_token_out *tokens =
        phx_arena_calloc(arena, PHX_RPC_STEP_TOKENS_MAX + 1, sizeof(*tokens));
    struct phx_logprob  top[PHX_TOP_LOGPROBS_MAX] = {{0, -1.0f}};
    struct phx_link_msg m = {.kind = PHX_LINK_STEP}, r;
    struct phx_wire_out out;

    (void)state;
    for (int i = 0; i < PHX_RPC_STEP_TOKENS_MAX; i++)
        tokens[i] = (struct phx_token_out){.seq_id = 1, .token = i, .logprob = -1, .top = top,
                                           .n_top = PHX_TOP_LOGPROBS_MAX};
    m.u.step.tokens = tokens;
    m.u.step.n_tokens = PHX_RPC_STEP_TOKENS_MAX;
    if (decode(encode(&m), PHX_WIRE_FROM_RANK, &r) != 0)
        fail_msg("%s", err.text);
    assert_int_equal(r.u.step.tokens[PHX_RPC_STEP_TOKENS_MAX - 1].token,
                     PHX_RPC_STEP_TOKENS_MAX - 1);
    m.u.step.n_tokens++;
    assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_INVALID, "Step.tokens");
}

static void sampling_values_out_of_range_are_named(void **state)
{
    static const struct {
        const char *field;
        size_t      offset;
        float       good, bad;
    } rows[] = {
        {"temperature", offsetof(struct phx_sampling, temperature), 100.0f, 100.5f},
        {"temperature", offsetof(struct phx_sampling, temperature), 0.0f, -0.1f},
        {"temperature", offsetof(struct phx_sampling, temperature), 0.0f, NAN},
        {"top_p", offsetof(struct phx_sampling, top_p), 1.0f, 1.01f},
        {"top_p", offsetof(struct phx_sampling, top_p), 0.5f, 0.0f},
        {"top_p", offsetof(struct phx_sampling, top_p), 0.5f, INFINITY},
        {"min_p", offsetof(struct phx_sampling, min_p), 1.0f, 1.5f},
        {"presence_penalty", offsetof(struct phx_sampling, presence_penalty), -2.0f, -2.1f},
        {"frequency_penalty", offsetof(struct phx_sampling, frequency_penalty), 2.0f, 2.1f},
        {"repetition_penalty", offsetof(struct phx_sampling, repetition_penalty), 10.0f, 0.0f},
    };
    struct phx_sampling s;

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        phx_sampling_init(&s);
        assert_int_equal(phx_sampling_check(&s, &err), 0);
        memcpy((char *)&s + rows[i].offset, &rows[i].good, sizeof(float));
        assert_int_equal(phx_sampling_check(&s, &err), 0);
        memcpy((char *)&s + rows[i].offset, &rows[i].bad, sizeof(float));
        assert_fails(phx_sampling_check(&s, &err), PHX_E_INVALID, rows[i].field);
    }
    phx_sampling_init(&s);
    s.n_logprobs = PHX_TOP_LOGPROBS_MAX;
    assert_int_equal(phx_sampling_check(&s, &err), 0);
    s.n_logprobs++;
    assert_fails(phx_sampling_check(&s, &err), PHX_E_INVALID, "n_logprobs");
    s.n_logprobs = -2;
    assert_fails(phx_sampling_check(&s, &err), PHX_E_INVALID, "n_logprobs");
}

static void sequences_with_impossible_counts_are_refused(void **state)
{
    static const int32_t tokens[] = {1, 2};
    struct phx_submit    s = submit_of(tokens, 2);
    struct phx_link_msg  m = {.kind = PHX_LINK_SUBMIT, .u.submit = {&s, 1}};
    struct phx_wire_out  out;

    (void)state;
    s.n_prompt = 3;
    assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_INVALID, "Sequence.n_prompt");
    s.n_prompt = 2;
    s.max_new = 0;
    assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_INVALID, "Sequence.max_new");
    s.max_new = 1;
    s.n_check = 1;
    assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_INVALID, "Sequence.n_check");
    s.n_prompt = 1;
    s.n_check = 2;
    assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_INVALID, "Sequence.n_check");
    s.n_check = -1;
    assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_INVALID, "Sequence.n_check");
    s.n_check = 1;
    s.seq_id = 0;
    assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_INVALID, "Sequence.seq_id");
}

static void a_gap_is_a_number_from_0(void **state)
{
    const float          bad[] = {-0.5f, INFINITY, NAN};
    struct phx_token_out t = {.seq_id = 1, .token = 1};
    struct phx_link_msg  m = {.kind = PHX_LINK_STEP, .u.step = {.tokens = &t, .n_tokens = 1}};
    struct phx_wire_out  out;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        t.gap = bad[i];
        assert_fails(phx_wire_encode_link(&m, arena, &out, &err), PHX_E_INVALID, "TokenOut.gap");
    }
}

static void ranks_must_match_the_layout(void **state)
{
    struct phx_link_msg m = hello_msg(), r;

    (void)state;
    m.u.hello.tp_size = 4;
    assert_fails(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), PHX_E_INVALID, "Hello.ranks has 2");
    m.u.hello.tp_size = 0;
    assert_fails(decode(encode(&m), PHX_WIRE_FROM_RANK, &r), PHX_E_INVALID, "Hello.tp_size");
}

static void unknown_fields_are_skipped_unknown_kinds_refused(void **state)
{
    struct phx_link_msg m = {.kind = PHX_LINK_HEARTBEAT, .u.heartbeat = {1, 2, true}}, r;
    struct bytes        b = encode(&m);
    uint8_t             data[64];
    static const uint8_t extra[] = {0xa2, 0x06, 3, 'a', 'b', 'c'}; /* field 100, bytes */
    static const uint8_t future[] = {0x7a, 0};                     /* kind 15 of the oneof */

    (void)state;
    memcpy(data, b.data, b.size);
    memcpy(data + b.size, extra, sizeof(extra));
    assert_int_equal(decode((struct bytes){data, b.size + sizeof(extra)}, PHX_WIRE_FROM_RANK, &r),
                     0);
    assert_int_equal(r.u.heartbeat.progress, 2);
    memcpy(data, future, sizeof(future));
    assert_fails(decode((struct bytes){data, sizeof(future)}, PHX_WIRE_FROM_RANK, &r),
                 PHX_E_UNSUPPORTED, "AttachRequest.kind");
}

static void every_cut_message_is_refused_or_smaller(void **state)
{
    struct phx_link_msg m = hello_msg(), r;
    struct bytes        b = encode(&m);

    (void)state;
    for (size_t n = 0; n < b.size; n++) {
        uint8_t *copy = phx_mem_dup(b.data, n); /* its own block, so that reading past it shows */

        assert_int_not_equal(decode((struct bytes){copy, n}, PHX_WIRE_FROM_RANK, &r), 0);
        phx_mem_free(copy);
    }
}

/* Two bytes each, about a hundred when decoded: refused before anything is allocated. */
static void a_bomb_of_tiny_messages_is_refused(void **state)
{
    size_t              n = 2 << 20;
    uint8_t            *data = phx_mem_calloc(n + 8, 1);
    struct phx_link_msg r;
    size_t              size = 0;

    (void)state;
    data[size++] = 0x22; /* AttachRequest.step */
    for (size_t rest = n; ; rest >>= 7) {
        data[size++] = (uint8_t)((rest & 0x7f) | (rest > 0x7f ? 0x80 : 0));
        if (rest <= 0x7f)
            break;
    }
    for (size_t i = 0; i < n; i += 2)
        data[size + i] = 0x12; /* Step.tokens, empty */
    assert_fails(decode((struct bytes){data, size + n}, PHX_WIRE_FROM_RANK, &r), PHX_E_TOOBIG,
                 "would need over 64 MiB");
    phx_mem_free(data);
}

static void oversized_bytes_are_refused(void **state)
{
    uint8_t            *data = phx_mem_calloc(PHX_RPC_MESSAGE_MAX_BYTES + 1, 1);
    struct phx_link_msg r;

    (void)state;
    assert_fails(decode((struct bytes){data, PHX_RPC_MESSAGE_MAX_BYTES + 1}, PHX_WIRE_FROM_RANK, &r),
                 PHX_E_TOOBIG, "limit 16777216");
    phx_mem_free(data);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(hello_comes_back_whole),
        TEST(step_comes_back_whole),
        TEST(submit_comes_back_whole),
        TEST(small_messages_keep_their_kind),
        TEST(ready_comes_back_whole_and_needs_positive_sizes),
        TEST(nul_and_bad_utf8_are_refused_by_field),
        TEST(strings_end_at_their_limit),
        TEST(a_peer_that_breaks_a_limit_is_refused),
        TEST(a_peer_that_sends_too_long_a_list_is_refused),
        TEST(lists_end_at_their_limit),
        TEST(a_full_step_fits),
        TEST(sampling_values_out_of_range_are_named),
        TEST(sequences_with_impossible_counts_are_refused),
        TEST(a_gap_is_a_number_from_0),
        TEST(ranks_must_match_the_layout),
        TEST(unknown_fields_are_skipped_unknown_kinds_refused),
        TEST(every_cut_message_is_refused_or_smaller),
        TEST(a_bomb_of_tiny_messages_is_refused),
        TEST(oversized_bytes_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
