/* SPDX-License-Identifier: Apache-2.0
 * Harmony prompts byte for byte, and answers read back, slips included. */
#include "tests/unit/daemon/text/text_util.h"

#include "daemon/text/harmony.h"

static struct phx_tokenizer *tokenizer;
static struct phx_harmony    harmony;

static int setup(void **state)
{
    (void)state;
    tokenizer = open_ranks(DATA "o200k_base.tiktoken", "o200k_harmony");
    return phx_harmony_init(&harmony, tokenizer) ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    phx_tokenizer_close(tokenizer);
    return 0;
}

#define SYSTEM_LOW                                                                                 \
    "<|start|>system<|message|>You are ChatGPT, a large language model trained by OpenAI.\n"       \
    "Knowledge cutoff: 2024-06\nCurrent date: 2026-01-15\n\nReasoning: low\n\n"                    \
    "# Valid channels: analysis, commentary, final. Channel must be included for every message."
#define DEVELOPER                                                                                  \
    "<|end|><|start|>developer<|message|># Instructions\n\nAnswer in one line.<|end|>"
#define TOOLS_LINE "\nCalls to these tools must go to the commentary channel: 'functions'."
#define DEVELOPER_TOOLS                                                                            \
    "<|end|><|start|>developer<|message|># Tools\n\n## functions\n\nnamespace functions {\n\n"     \
    "// Weather outlook.\ntype forecast = (_: {\ncity: string,\n}) => any;\n\n"                    \
    "} // namespace functions<|end|>"

static void check(const struct phx_chat *chat, const char *want)
{
    struct phx_err    err = {0};
    struct phx_ids    ids = {0};
    struct phx_prompt p = {.t = tokenizer, .ids = &ids, .err = &err};
    phx_harmony_write_chat(&harmony, &p, chat);
    assert_ok(p.rc);
    assert_text(tokenizer, &ids, want);
    phx_ids_fini(&ids);
}

static const struct phx_chat_message turn[] = {
    {.role = PHX_ROLE_SYSTEM, .content = "Answer in one line."},
    {.role = PHX_ROLE_USER, .content = "Name a prime above 20."},
    {.role = PHX_ROLE_ASSISTANT, .content = "23", .reasoning = "23 works."},
    {.role = PHX_ROLE_USER, .content = "And above 30?"},
};

static void a_first_turn_is_rendered_byte_for_byte(void **state)
{
    (void)state;
    struct phx_chat chat = {
        .messages = turn, .n_messages = 2, .effort = PHX_EFFORT_LOW, .date = "2026-01-15"};
    check(&chat, SYSTEM_LOW DEVELOPER
          "<|start|>user<|message|>Name a prime above 20.<|end|><|start|>assistant");
}

static void a_finished_turn_loses_its_reasoning(void **state)
{
    (void)state;
    struct phx_chat chat = {
        .messages = turn, .n_messages = 4, .effort = PHX_EFFORT_LOW, .date = "2026-01-15"};
    check(&chat,
          SYSTEM_LOW DEVELOPER "<|start|>user<|message|>Name a prime above 20.<|end|>"
                               "<|start|>assistant<|channel|>final<|message|>23<|end|>"
                               "<|start|>user<|message|>And above 30?<|end|><|start|>assistant");
}

static const struct phx_tool forecast = {
    .name = "forecast",
    .description = "Weather outlook.",
    .parameters = "{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\"}},"
                  "\"required\":[\"city\"]}"};
static const struct phx_tool_call call = {
    .id = "c1", .name = "forecast", .arguments = "{\"city\":\"Oslo\"}"};
static const struct phx_chat_message tool_turn[] = {
    {.role = PHX_ROLE_USER, .content = "Rain in Oslo?"},
    {.role = PHX_ROLE_ASSISTANT, .reasoning = "Call forecast.", .calls = &call, .n_calls = 1},
    {.role = PHX_ROLE_TOOL, .tool_call_id = "c1", .content = "{\"rain\":true}"},
    {.role = PHX_ROLE_ASSISTANT, .reasoning = "It rains.", .content = "Yes."},
    {.role = PHX_ROLE_USER, .content = "Thanks"},
};

static void function_tools_are_rendered_byte_for_byte(void **state)
{
    (void)state;
    struct phx_chat chat = {.messages = tool_turn,
                            .n_messages = 1,
                            .tools = &forecast,
                            .n_tools = 1,
                            .effort = PHX_EFFORT_LOW,
                            .date = "2026-01-15"};
    check(&chat, SYSTEM_LOW TOOLS_LINE DEVELOPER_TOOLS
          "<|start|>user<|message|>Rain in Oslo?<|end|><|start|>assistant");
}

#define LOOP                                                                                       \
    "<|start|>assistant to=functions.forecast<|channel|>commentary <|constrain|>json<|message|>"   \
    "{\"city\":\"Oslo\"}<|call|><|start|>functions.forecast to=assistant<|channel|>commentary"     \
    "<|message|>{\"rain\":true}<|end|>"

static void reasoning_stays_inside_a_tool_loop_and_goes_with_its_final(void **state)
{
    (void)state;
    struct phx_chat chat = {.messages = tool_turn,
                            .n_messages = 3,
                            .tools = &forecast,
                            .n_tools = 1,
                            .effort = PHX_EFFORT_LOW,
                            .date = "2026-01-15"};
    check(&chat, SYSTEM_LOW TOOLS_LINE DEVELOPER_TOOLS
          "<|start|>user<|message|>Rain in Oslo?<|end|>"
          "<|start|>assistant<|channel|>analysis<|message|>Call forecast.<|end|>" LOOP
          "<|start|>assistant");
    chat.n_messages = 5;
    check(&chat, SYSTEM_LOW TOOLS_LINE DEVELOPER_TOOLS
          "<|start|>user<|message|>Rain in Oslo?<|end|>" LOOP
          "<|start|>assistant<|channel|>final<|message|>Yes.<|end|>"
          "<|start|>user<|message|>Thanks<|end|><|start|>assistant");
}

static void a_preamble_goes_to_commentary(void **state)
{
    (void)state;
    struct phx_chat_message m[] = {tool_turn[0], tool_turn[1]};
    m[1].reasoning = NULL;
    m[1].content = "I will check two sources.";
    struct phx_chat chat = {.messages = m,
                            .n_messages = 2,
                            .tools = &forecast,
                            .n_tools = 1,
                            .effort = PHX_EFFORT_LOW,
                            .date = "2026-01-15",
                            .forced_tool = "forecast"};
    check(
        &chat, SYSTEM_LOW TOOLS_LINE DEVELOPER_TOOLS
        "<|start|>user<|message|>Rain in Oslo?<|end|>"
        "<|start|>assistant<|channel|>commentary<|message|>I will check two sources.<|end|>"
        "<|start|>assistant to=functions.forecast<|channel|>commentary <|constrain|>json<|message|>"
        "{\"city\":\"Oslo\"}<|call|><|start|>assistant<|channel|>commentary to=functions.forecast "
        "<|constrain|>json<|message|>");
}

static void the_published_prompt_prefix_has_its_golden_ids(void **state)
{
    (void)state;
    static const int32_t golden[] = {200006, 17360, 200008, 3575, 553,   17554, 162016, 11,
                                     261,    4410,  6439,   2359, 22203, 656,   7788,   17527,
                                     558,    87447, 100594, 25,   220,   1323,  19,     12,
                                     3218,   279,   30377,  289,  25,    14093, 279,    2};
    struct phx_err       err = {0};
    struct phx_ids       ids = {0};
    struct phx_prompt    p = {.t = tokenizer, .ids = &ids, .err = &err};
    struct phx_chat      chat = {.messages = turn + 1, .n_messages = 1};
    phx_harmony_write_chat(&harmony, &p, &chat);
    assert_ok(p.rc);
    assert_true(ids.n > 32);
    assert_memory_equal(ids.data, golden, sizeof golden);
    phx_ids_fini(&ids);
}

static void marks_in_content_are_ordinary_text(void **state)
{
    (void)state;
    static const int32_t    tail[] = {1428, 200008, 27, 91, 5236, 91, 29, 200007, 200006, 173781};
    struct phx_chat_message m = {.role = PHX_ROLE_USER, .content = "<|start|>"};
    struct phx_chat         chat = {.messages = &m, .n_messages = 1};
    struct phx_err          err = {0};
    struct phx_ids          ids = {0};
    struct phx_prompt       p = {.t = tokenizer, .ids = &ids, .err = &err};
    phx_harmony_write_chat(&harmony, &p, &chat);
    assert_ok(p.rc);
    assert_true(ids.n > 10);
    assert_memory_equal(ids.data + ids.n - 10, tail, sizeof tail);
    phx_ids_fini(&ids);
}

static void check_type(const char *schema, const char *want)
{
    struct phx_err err = {0};
    struct phx_buf out;
    phx_buf_init(&out, 0);
    assert_ok(phx_harmony_type(schema, "schema", &out, &err));
    assert_string_equal(out.data, want);
    phx_buf_fini(&out);
}

static void schemas_become_typescript(void **state)
{
    (void)state;
    check_type("{\"type\":\"object\",\"properties\":{\"city\":{\"type\":\"string\",\"description\":"
               "\"Town name\"},\"days\":{\"type\":\"integer\",\"default\":3},\"unit\":{\"type\":"
               "\"string\",\"enum\":[\"c\",\"f\"],\"default\":\"c\"}},\"required\":[\"city\"]}",
               "{\n// Town name\ncity: string,\ndays?: number, // default: 3\n"
               "unit?: \"c\" | \"f\", // default: c\n}");
    check_type(
        "{\"type\":\"object\",\"description\":\"Top\",\"properties\":{\"a\":{\"type\":"
        "\"object\",\"properties\":{\"b\":{\"type\":\"array\",\"items\":{\"type\":\"boolean\"}"
        "}}},\"c\":{\"type\":[\"integer\",\"null\"],\"nullable\":true},\"d\":{\"type\":"
        "\"array\"},\"e\":{\"$ref\":\"#/x\"},\"f\":{\"type\":\"string\",\"nullable\":true,"
        "\"title\":\"T\",\"examples\":[\"x\",1],\"default\":\"q\"},\"g\":{\"type\":\"number\","
        "\"default\":0.1}}}",
        "// Top\n{\na?: {\n    b?: boolean[],\n    },\nc?: number | null,\nd?: Array<any>,\n"
        "e?: any,\n// T\n//\n// Examples:\n// - \"x\"\nf?: string | null, // default: \"q\"\n"
        "g?: number, // default: 0.1\n}");
    check_type(
        "{\"type\":\"object\",\"properties\":{\"x\":{\"description\":\"Which\",\"default\":"
        "\"a\",\"oneOf\":[{\"type\":\"string\",\"description\":\"first\"},{\"type\":\"number\","
        "\"description\":\"second\",\"default\":2}]}},\"required\":[\"x\"]}",
        "{\n// Which\n// default: \"a\"\nx:\n | string\n | number // second default: 2\n,\n}");
}

static void a_tool_without_parameters_takes_none(void **state)
{
    (void)state;
    struct phx_tool now = {.name = "now", .description = "Line one\nline two"};
    struct phx_chat chat = {.tools = &now, .n_tools = 1};
    struct phx_err  err = {0};
    struct phx_buf  out;
    phx_buf_init(&out, 0);
    assert_ok(phx_harmony_developer_text(&chat, "Be kind.", &out, &err));
    assert_string_equal(out.data, "# Instructions\n\nBe kind.\n\n# Tools\n\n## functions\n\n"
                                  "namespace functions {\n\n// Line one\n// line two\n"
                                  "type now = () => any;\n\n} // namespace functions");
    phx_buf_fini(&out);
    now.parameters = "[1]";
    phx_buf_init(&out, 0);
    assert_int_equal(phx_harmony_developer_text(&chat, NULL, &out, &err), PHX_E_INVALID);
    assert_non_null(strstr(err.text, "tools[0]"));
    phx_buf_fini(&out);
}

/* ---- reading: a transcript of events as text ---- */

static void record(void *ctx, enum phx_harmony_event event, const struct phx_harmony_header *h,
                   const char *data, size_t size, int32_t terminator)
{
    struct phx_buf *log = ctx;
    if (event == PHX_HARMONY_BEGIN)
        phx_buf_printf(log, "[%s|%s|%s|%s]", h->author, h->channel, h->recipient, h->content_type);
    else if (event == PHX_HARMONY_DELTA)
        phx_buf_put(log, data, size);
    else
        phx_buf_puts(log, terminator == harmony.call  ? "(call)"
                          : terminator == harmony.end ? "(end)"
                          : terminator == harmony.ret ? "(return)"
                                                      : "(cut)");
}

static void check_parse(const char *completion, const char *want)
{
    struct phx_ids            ids = encode(tokenizer, completion, PHX_ENCODE_SPECIALS);
    struct phx_harmony_parser p;
    struct phx_buf            log;
    phx_buf_init(&log, 0);
    phx_harmony_parser_init(&p, &harmony, record, &log);
    for (size_t i = 0; i < ids.n; i++)
        phx_harmony_parser_push(&p, ids.data[i]);
    phx_harmony_parser_end(&p);
    assert_string_equal(log.data ? log.data : "", want);
    phx_harmony_parser_fini(&p);
    phx_buf_fini(&log);
    phx_ids_fini(&ids);
}

static void well_formed_answers_are_read(void **state)
{
    (void)state;
    check_parse("<|channel|>analysis<|message|>23 works.<|end|><|start|>assistant<|channel|>final"
                "<|message|>23<|return|>",
                "[assistant|analysis||]23 works.(end)[assistant|final||]23(return)");
    check_parse(
        "<|channel|>analysis<|message|>Call forecast.<|end|><|start|>assistant<|channel|>"
        "commentary to=functions.forecast <|constrain|>json<|message|>{\"city\":\"Oslo\"}"
        "<|call|>",
        "[assistant|analysis||]Call forecast.(end)"
        "[assistant|commentary|functions.forecast|<|constrain|>json]{\"city\":\"Oslo\"}(call)");
    check_parse("<|channel|>commentary<|message|>I will check two sources.<|end|><|start|>assistant"
                "<|channel|>commentary to=functions.a<|message|>{}<|call|>",
                "[assistant|commentary||]I will check two sources.(end)"
                "[assistant|commentary|functions.a|]{}(call)");
    check_parse(
        " to=functions.forecast<|channel|>commentary <|constrain|>json<|message|>{}<|call|>",
        "[assistant|commentary|functions.forecast|<|constrain|>json]{}(call)");
    check_parse("<|channel|>analysis to=browser.search code<|message|>{}<|call|>",
                "[assistant|analysis|browser.search|code]{}(call)");
}

static void the_golden_completion_is_read(void **state)
{
    (void)state;
    static const int32_t golden[] = {
        200005, 35644, 200008, 1844,  31064, 25,  392,   4827, 382, 220,    17,     659,
        220,    17,    16842,  12295, 81645, 13,  51441, 6052, 13,  200007, 200006, 173781,
        200005, 17196, 200008, 17,    659,   220, 17,    314,  220, 19,     13,     200002};
    struct phx_harmony_parser p;
    struct phx_buf            log;
    phx_buf_init(&log, 0);
    phx_harmony_parser_init(&p, &harmony, record, &log);
    for (size_t i = 0; i < sizeof golden / sizeof golden[0]; i++)
        phx_harmony_parser_push(&p, golden[i]);
    phx_harmony_parser_end(&p);
    assert_string_equal(log.data, "[assistant|analysis||]User asks: \"What is 2 + 2?\" Simple "
                                  "arithmetic. Provide answer.(end)[assistant|final||]2 + 2 = 4."
                                  "(return)");
    phx_harmony_parser_fini(&p);
    phx_buf_fini(&log);
}

static void slips_are_forgiven(void **state)
{
    (void)state;
    /* bare text before any header is the answer */
    check_parse("I cannot help with that.<|end|>", "[assistant|||]I cannot help with that.(end)");
    check_parse("I cannot help", "[assistant|||]I cannot help(cut)");
    /* a channel, no message mark */
    check_parse("<|channel|>final Sorry, no.<|return|>", "[assistant|final||]Sorry, no.(return)");
    /* two terminators */
    check_parse("<|channel|>final<|message|>x<|end|><|return|>", "[assistant|final||]x(end)");
    /* constrain glued to the recipient */
    check_parse("<|channel|>commentary to=functions.f<|constrain|>json<|message|>{}<|call|>",
                "[assistant|commentary|functions.f|<|constrain|>json]{}(call)");
    /* doubled channel, free text in the header */
    check_parse("<|channel|>analysis<|channel|>final<|message|>x<|return|>",
                "[assistant|final||]x(return)");
    check_parse("<|channel|>final ?<|message|>x<|return|>", "[assistant|final||?]x(return)");
    /* the recipient without to= */
    check_parse("<|channel|>commentary functions.f json<|message|>{}<|call|>",
                "[assistant|commentary|functions.f|json]{}(call)");
    /* end or start left out */
    check_parse("<|channel|>analysis<|message|>a<|start|>assistant<|channel|>final<|message|>b"
                "<|return|>",
                "[assistant|analysis||]a(cut)[assistant|final||]b(return)");
    check_parse("<|channel|>analysis<|message|>a<|channel|>final<|message|>b<|return|>",
                "[assistant|analysis||]a(cut)[assistant|final||]b(return)");
    check_parse("<|channel|>analysis<|message|>a<|end|>assistant<|channel|>final<|message|>b",
                "[assistant|analysis||]a(end)[assistant|final||]b(cut)");
    /* nothing at all, headers cut short */
    check_parse("", "");
    check_parse("<|channel|>", "");
    check_parse("<|channel|>analysis", "");
    check_parse("<|channel|>commentary to=functions.f", "");
    check_parse("<|channel|>analysis<|message|>a<|end|><|start|>assistant<|channel|>final",
                "[assistant|analysis||]a(end)");
    /* somebody else's turn keeps its author */
    check_parse("<|channel|>final<|message|>a<|end|><|start|>user<|message|>b<|end|>",
                "[assistant|final||]a(end)[user|||]b(end)");
    check_parse("<|end|><|message|>x", "[assistant|||]x(cut)");
}

static void a_long_answer_without_header_is_not_lost(void **state)
{
    (void)state;
    char text[3000], want[3100];
    memset(text, 'x', sizeof text);
    for (size_t i = 7; i < sizeof text; i += 8)
        text[i] = ' ';
    memcpy(text + 600, "\xE2\x82\xAC", 3);
    text[sizeof text - 1] = '\0';
    (void)snprintf(want, sizeof want, "[assistant|||]%s(end)", text);
    char completion[3100];
    (void)snprintf(completion, sizeof completion, "%s<|end|>", text);
    check_parse(completion, want);
}

static void half_a_character_never_crosses_a_message_border(void **state)
{
    (void)state;
    static const int32_t      ids[] = {200005, 35644,  200008, 9552,   200007, 200006,
                                       173781, 200005, 17196,  200008, 64,     200002};
    struct phx_harmony_parser p;
    struct phx_buf            log;
    phx_buf_init(&log, 0);
    phx_harmony_parser_init(&p, &harmony, record, &log);
    for (size_t i = 0; i < sizeof ids / sizeof ids[0]; i++)
        phx_harmony_parser_push(&p, ids[i]);
    phx_harmony_parser_end(&p);
    assert_string_equal(log.data,
                        "[assistant|analysis||] \xEF\xBF\xBD(end)[assistant|final||]a(return)");
    phx_harmony_parser_fini(&p);
    phx_buf_fini(&log);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_first_turn_is_rendered_byte_for_byte),
        cmocka_unit_test(a_finished_turn_loses_its_reasoning),
        cmocka_unit_test(function_tools_are_rendered_byte_for_byte),
        cmocka_unit_test(reasoning_stays_inside_a_tool_loop_and_goes_with_its_final),
        cmocka_unit_test(a_preamble_goes_to_commentary),
        cmocka_unit_test(the_published_prompt_prefix_has_its_golden_ids),
        cmocka_unit_test(marks_in_content_are_ordinary_text),
        cmocka_unit_test(schemas_become_typescript),
        cmocka_unit_test(a_tool_without_parameters_takes_none),
        cmocka_unit_test(well_formed_answers_are_read),
        cmocka_unit_test(the_golden_completion_is_read),
        cmocka_unit_test(slips_are_forgiven),
        cmocka_unit_test(a_long_answer_without_header_is_not_lost),
        cmocka_unit_test(half_a_character_never_crosses_a_message_border),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
