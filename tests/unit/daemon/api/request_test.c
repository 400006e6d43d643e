/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/api/request.h"

static const struct phx_api_limits limits = {
    .body_max_bytes = 1 << 20, .vocab_size = 300, .max_context = 4096};

struct refusal {
    enum phx_api_kind kind;
    const char       *body;
    int               code;
    const char       *names; /* must stand in the message */
};

#define CHAT(fields) \
    "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":\"hi\"}]" fields "}"
#define TEXT(fields) "{\"model\":\"m\",\"prompt\":\"hi\"" fields "}"

static const struct refusal refusals[] = {
    {PHX_API_CHAT, "", PHX_E_FORMAT, "request body"},
    {PHX_API_CHAT, "[1]", PHX_E_INVALID, "object"},
    {PHX_API_CHAT, "{\"model\":\"m\"}", PHX_E_INVALID, "messages"},
    {PHX_API_CHAT, "{\"messages\":[]}", PHX_E_INVALID, "model"},
    {PHX_API_CHAT, "{\"model\":\"m\",\"messages\":[]}", PHX_E_INVALID, "messages"},
    {PHX_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"king\",\"content\":\"\"}]}",
     PHX_E_INVALID, "messages[0].role"},
    {PHX_API_CHAT, "{\"model\":\"m\",\"messages\":[{\"role\":\"user\"}]}", PHX_E_INVALID,
     "messages[0].content"},
    {PHX_API_CHAT,
     "{\"model\":\"m\",\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image_url\"}]}]}",
     PHX_E_UNSUPPORTED, "content[0].type"},
    {PHX_API_CHAT, CHAT(",\"temprature\":1"), PHX_E_INVALID, "temprature"},
    {PHX_API_CHAT, CHAT(",\"temperature\":-0.1"), PHX_E_INVALID, "temperature"},
    {PHX_API_CHAT, CHAT(",\"temperature\":2.1"), PHX_E_INVALID, "temperature"},
    {PHX_API_CHAT, CHAT(",\"temperature\":\"1\""), PHX_E_INVALID, "temperature"},
    {PHX_API_CHAT, CHAT(",\"temperature\":NaN"), PHX_E_FORMAT, "request body"},
    {PHX_API_CHAT, CHAT(",\"top_p\":0"), PHX_E_INVALID, "top_p"},
    {PHX_API_CHAT, CHAT(",\"n\":0"), PHX_E_INVALID, "n"},
    {PHX_API_CHAT, CHAT(",\"n\":17"), PHX_E_INVALID, "n"},
    {PHX_API_CHAT, CHAT(",\"max_tokens\":0"), PHX_E_INVALID, "max_tokens"},
    {PHX_API_CHAT, CHAT(",\"max_tokens\":4097"), PHX_E_INVALID, "max_tokens"},
    {PHX_API_CHAT, CHAT(",\"logit_bias\":{\"300\":1}"), PHX_E_INVALID, "logit_bias"},
    {PHX_API_CHAT, CHAT(",\"logit_bias\":{\"1\":101}"), PHX_E_INVALID, "logit_bias"},
    {PHX_API_CHAT, CHAT(",\"logit_bias\":{\"x\":1}"), PHX_E_INVALID, "logit_bias"},
    {PHX_API_CHAT, CHAT(",\"stop\":[\"\"]"), PHX_E_INVALID, "stop[0]"},
    {PHX_API_CHAT, CHAT(",\"stop\":7"), PHX_E_INVALID, "stop"},
    {PHX_API_CHAT, CHAT(",\"top_logprobs\":3"), PHX_E_INVALID, "top_logprobs"},
    {PHX_API_CHAT, CHAT(",\"logprobs\":true,\"top_logprobs\":21"), PHX_E_INVALID, "top_logprobs"},
    {PHX_API_CHAT, CHAT(",\"stream_options\":{\"include_usage\":true}"), PHX_E_INVALID,
     "stream_options"},
    {PHX_API_CHAT, CHAT(",\"response_format\":{\"type\":\"json_object\"}"), PHX_E_UNSUPPORTED,
     "response_format"},
    {PHX_API_CHAT, CHAT(",\"store\":true"), PHX_E_UNSUPPORTED, "store"},
    {PHX_API_CHAT, CHAT(",\"reasoning_effort\":\"huge\""), PHX_E_INVALID, "reasoning_effort"},
    {PHX_API_CHAT, CHAT(",\"tools\":[{\"type\":\"function\",\"function\":{}}]"), PHX_E_INVALID,
     "tools[0].name"},
    {PHX_API_CHAT, CHAT(",\"tool_choice\":\"required\""), PHX_E_UNSUPPORTED, "tool_choice"},
    {PHX_API_CHAT, CHAT(",\"seed\":1.5"), PHX_E_INVALID, "seed"},
    {PHX_API_COMPLETION, "{\"model\":\"m\"}", PHX_E_INVALID, "prompt"},
    {PHX_API_COMPLETION, "{\"model\":\"m\",\"prompt\":[\"a\",\"b\"]}", PHX_E_UNSUPPORTED, "prompt"},
    {PHX_API_COMPLETION, "{\"model\":\"m\",\"prompt\":[1,300]}", PHX_E_INVALID, "prompt[1]"},
    {PHX_API_COMPLETION, TEXT(",\"echo\":true"), PHX_E_UNSUPPORTED, "echo"},
    {PHX_API_COMPLETION, TEXT(",\"suffix\":\"x\""), PHX_E_UNSUPPORTED, "suffix"},
    {PHX_API_COMPLETION, TEXT(",\"best_of\":2"), PHX_E_UNSUPPORTED, "best_of"},
    {PHX_API_COMPLETION, TEXT(",\"messages\":[]"), PHX_E_INVALID, "messages"},
};

static void refuses_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(refusals) / sizeof(refusals[0]); i++) {
        struct phx_arena      *arena = phx_arena_create();
        struct phx_api_request request;
        struct phx_err         err = {0};
        const struct refusal  *r = &refusals[i];
        int rc = phx_api_request_parse(r->kind, r->body, strlen(r->body), &limits, arena, &request,
                                       &err);

        if (rc != r->code || strstr(err.text, r->names) == NULL)
            fail_msg("%s: code %d, text '%s'", r->body, rc, err.text);
        phx_arena_destroy(arena);
    }
}

static void reads_every_chat_field(void **state)
{
    static const char body[] =
        "{\"model\":\"m\",\"messages\":["
        "{\"role\":\"system\",\"content\":\"be brief\"},"
        "{\"role\":\"user\",\"content\":[{\"type\":\"text\",\"text\":\"a\"},{\"type\":\"text\","
        "\"text\":\"b\"}]},"
        "{\"role\":\"assistant\",\"content\":null,\"reasoning_content\":\"r\",\"tool_calls\":["
        "{\"id\":\"c1\",\"type\":\"function\",\"function\":{\"name\":\"f\",\"arguments\":\"{}\"}}]},"
        "{\"role\":\"tool\",\"tool_call_id\":\"c1\",\"content\":\"4\"}],"
        "\"stream\":true,\"stream_options\":{\"include_usage\":true},\"max_completion_tokens\":7,"
        "\"temperature\":0.5,\"top_p\":0.9,\"top_k\":40,\"min_p\":0.1,\"presence_penalty\":0.25,"
        "\"frequency_penalty\":-0.25,\"repetition_penalty\":1.5,\"logit_bias\":{\"5\":-100,\"6\":2},"
        "\"logprobs\":true,\"top_logprobs\":4,\"n\":3,\"stop\":[\"x\",\"yy\"],\"stop_token_ids\":[9],"
        "\"seed\":-2,\"reasoning_effort\":\"high\",\"user\":\"u\",\"tools\":[{\"type\":\"function\","
        "\"function\":{\"name\":\"f\",\"description\":\"d\",\"parameters\":{\"type\":\"object\"}}}],"
        "\"tool_choice\":{\"type\":\"function\",\"function\":{\"name\":\"f\"}}}";
    struct phx_arena      *arena = phx_arena_create();
    struct phx_api_request r;
    struct phx_err         err = {0};

    (void)state;
    if (phx_api_request_parse(PHX_API_CHAT, body, strlen(body), &limits, arena, &r, &err) != 0)
        fail_msg("%s", err.text);
    assert_string_equal(r.model, "m");
    assert_int_equal(r.chat.n_messages, 4);
    assert_string_equal(r.chat.messages[1].content, "ab");
    assert_string_equal(r.chat.messages[2].reasoning, "r");
    assert_string_equal(r.chat.messages[2].calls[0].name, "f");
    assert_string_equal(r.chat.messages[3].tool_call_id, "c1");
    assert_true(r.is_stream && r.has_stream_usage && r.has_seed && r.wants_logprobs);
    assert_int_equal(r.max_new, 7);
    assert_float_equal(r.sampling.temperature, 0.5f, 0);
    assert_float_equal(r.sampling.min_p, 0.1f, 0);
    assert_float_equal(r.sampling.repetition_penalty, 1.5f, 0);
    assert_int_equal(r.sampling.top_k, 40);
    assert_int_equal(r.sampling.n_bias, 2);
    assert_int_equal(r.sampling.n_logprobs, 4);
    assert_int_equal(r.sampling.n_stop_ids, 1);
    assert_true(r.sampling.seed == (uint64_t)-2);
    assert_int_equal(r.n_choices, 3);
    assert_int_equal(r.n_stops, 2);
    assert_int_equal(r.chat.effort, PHX_EFFORT_HIGH);
    assert_string_equal(r.chat.tools[0].parameters, "{\"type\":\"object\"}");
    assert_string_equal(r.chat.forced_tool, "f");
    phx_arena_destroy(arena);
}

static void refuses_deep_json_and_big_bodies(void **state)
{
    enum { DEPTH = 10000 };
    struct phx_arena      *arena = phx_arena_create();
    struct phx_api_limits  small = limits;
    struct phx_api_request r;
    struct phx_err         err = {0};
    char                  *deep = phx_arena_calloc(arena, DEPTH * 2 + 1, 1);

    (void)state;
    memset(deep, '[', DEPTH);
    memset(deep + DEPTH, ']', DEPTH);
    assert_int_not_equal(
        phx_api_request_parse(PHX_API_CHAT, deep, DEPTH * 2, &limits, arena, &r, &err), 0);
    small.body_max_bytes = 100;
    assert_int_equal(
        phx_api_request_parse(PHX_API_CHAT, deep, 101, &small, arena, &r, &err), PHX_E_TOOBIG);
    phx_arena_destroy(arena);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_by_name),
        cmocka_unit_test(reads_every_chat_field),
        cmocka_unit_test(refuses_deep_json_and_big_bodies),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
