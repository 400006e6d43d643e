/* SPDX-License-Identifier: Apache-2.0
 * Answers as neutral events, for harmony and for plain models; stop strings. */
#include "tests/unit/daemon/text/text_util.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "daemon/text/chat.h"
#include "rpc/base/mem.h"
#include "tests/unit/daemon/text/byte_harmony.h"

/* A harmony checkpoint: a byte tokenizer with the marks, as small models have. */
static struct phx_text *open_harmony_in(const char *dir)
{
    struct phx_text *t = phx_mem_calloc(1, sizeof *t);
    struct phx_err   err = {0};
    struct phx_buf   json;
    phx_buf_init(&json, 0);
    put_byte_harmony(&json);
    assert_ok(phx_tokenizer_open_json(json.data, json.size, "bytes", &t->tokenizer, &err));
    assert_true(phx_harmony_init(&t->harmony, t->tokenizer));
    t->template.style = PHX_STYLE_HARMONY;
    t->think = t->think_end = -1;
    assert_ok(phx_text_find_stops(t, dir, &err));
    phx_buf_fini(&json);
    return t;
}

static struct phx_text *open_harmony(void)
{
    return open_harmony_in("/no/such");
}

static void record(void *ctx, const struct phx_reply_event *e)
{
    static const char *const names[] = {"", "R:", "C:", "call ", "A:", "", ""};
    static int               last;
    struct phx_buf          *log = ctx;
    if (log->size == 0)
        last = 0;
    if (e->kind == PHX_REPLY_CALL_END)
        phx_buf_printf(log, "/%zu%s", e->call_index, e->is_complete ? "" : "?");
    else if (e->kind == PHX_REPLY_END)
        phx_buf_puts(log, ".");
    else {
        assert_true(e->size_bytes > 0);
        if ((int)e->kind != last)
            phx_buf_puts(log, names[e->kind]);
        phx_buf_put(log, e->data, e->size_bytes);
    }
    last = (int)e->kind;
}

static void check(const struct phx_text *t, const struct phx_chat *chat, const char *completion,
                  const char *want)
{
    struct phx_ids ids = encode(phx_text_tokenizer(t), completion, PHX_ENCODE_SPECIALS);
    struct phx_buf log;
    phx_buf_init(&log, 0);
    struct phx_reply *r = phx_reply_create(t, chat, record, &log);
    for (size_t i = 0; i < ids.n; i++)
        phx_reply_push(r, ids.data[i]);
    phx_reply_end(r);
    assert_string_equal(log.data, want);
    phx_reply_destroy(r);
    phx_buf_fini(&log);
    phx_ids_fini(&ids);
}

static const struct phx_tool         tool = {.name = "f"};
static const struct phx_chat_message hello = {.role = PHX_ROLE_USER, .content = "Hello"};

static void harmony_answers_become_neutral_events(void **state)
{
    (void)state;
    struct phx_text *t = open_harmony();
    struct phx_chat  chat = {.messages = &hello, .n_messages = 1, .tools = &tool, .n_tools = 1};
    check(t, &chat,
          "<|channel|>analysis<|message|>think\xC3\xA9<|end|><|start|>assistant<|channel|>"
          "final<|message|>say<|return|>",
          "R:think\xC3\xA9"
          "C:say.");
    check(t, &chat, "<|channel|>commentary to=functions.f <|constrain|>json<|message|>{}<|call|>",
          "call fA:{}/0.");
    /* on the analysis channel too, and without the namespace when it was offered */
    check(t, &chat, "<|channel|>analysis to=functions.g<|message|>{}<|call|>", "call gA:{}/0.");
    check(t, &chat, "<|channel|>commentary to=f<|message|>{}<|call|>", "call fA:{}/0.");
    /* cut by the token limit */
    check(t, &chat, "<|channel|>commentary to=functions.f<|message|>{\"a", "call fA:{\"a/0?.");
    check(t, &chat, "<|channel|>analysis<|message|>thin", "R:thin.");
    /* a preamble is shown; a tool nobody offered is not */
    check(t, &chat,
          "<|channel|>commentary<|message|>Wait.<|end|><|start|>assistant<|channel|>"
          "analysis to=browser.search code<|message|>q<|call|>",
          "C:Wait.R:q.");
    /* somebody else's turn is not shown */
    check(t, &chat, "<|channel|>final<|message|>a<|end|><|start|>user<|message|>b<|end|>", "C:a.");
    check(t, &chat, "No.<|end|>", "C:No..");
    check(t, &chat, "<|return|>", ".");
    chat.forced_tool = "f";
    check(t, &chat, "{\"x\":1}<|call|>", "call fA:{\"x\":1}/0.");
    phx_text_close(t);
}

static void calls_are_counted(void **state)
{
    (void)state;
    struct phx_text *t = open_harmony();
    struct phx_chat  chat = {.messages = &hello, .n_messages = 1};
    struct phx_buf   log;
    struct phx_ids   ids = encode(t->tokenizer,
                                  "<|channel|>commentary to=functions.f<|message|>{}<|call|>"
                                    "<|start|>assistant<|channel|>"
                                "commentary to=functions.g<|message|>"
                                    "[]<|call|>",
                                  PHX_ENCODE_SPECIALS);
    phx_buf_init(&log, 0);
    struct phx_reply *r = phx_reply_create(t, &chat, record, &log);
    for (size_t i = 0; i < ids.n; i++)
        phx_reply_push(r, ids.data[i]);
    assert_int_equal(phx_reply_call_count(r), 2);
    phx_reply_end(r);
    assert_string_equal(log.data, "call fA:{}/0call gA:[]/1.");
    phx_reply_destroy(r);
    phx_buf_fini(&log);
    phx_ids_fini(&ids);
    phx_text_close(t);
}

static void small_harmony_models_have_their_own_stop_ids(void **state)
{
    (void)state;
    struct phx_text *t = open_harmony();
    size_t           n;
    const int32_t   *ids = phx_text_stop_ids(t, &n);
    assert_int_equal(n, 3);
    assert_int_equal(ids[0], 257); /* <|endoftext|> */
    assert_int_equal(ids[1], 258); /* <|return|> */
    assert_int_equal(ids[2], 264); /* <|call|>; <|end|> is not among them */
    assert_true(phx_text_has_tools(t));
    assert_true(phx_text_has_reasoning(t));
    phx_text_close(t);
}

static void the_end_of_a_message_never_stops_a_generation(void **state)
{
    static const char config[] = "{\"eos_token_id\":[262,258,7]}"; /* 262 = <|end|> */
    (void)state;
    char           dir[] = "/tmp/phx_reply_test_XXXXXX";
    struct phx_err err = {0};
    assert_non_null(mkdtemp(dir));
    char *path = phx_mem_printf("%s/generation_config.json", dir);
    assert_ok(phx_file_write(path, config, sizeof config - 1, 0600, &err));
    struct phx_text     *t = open_harmony_in(dir);
    size_t               n;
    const int32_t       *ids = phx_text_stop_ids(t, &n);
    static const int32_t want[] = {7, 257, 258, 264};
    assert_int_equal(n, 4);
    assert_memory_equal(ids, want, sizeof want);
    phx_text_close(t);
    (void)unlink(path);
    (void)rmdir(dir);
    phx_mem_free(path);
}

static void a_tool_result_must_answer_a_call(void **state)
{
    (void)state;
    struct phx_text        *t = open_harmony();
    struct phx_chat_message m = {.role = PHX_ROLE_TOOL, .tool_call_id = "x", .content = "y"};
    struct phx_chat         chat = {.messages = &m, .n_messages = 1};
    struct phx_err          err = {0};
    struct phx_ids          ids = {0};
    assert_int_equal(phx_text_render(t, &chat, &ids, &err), PHX_E_INVALID);
    assert_non_null(strstr(err.text, "messages[0].tool_call_id"));
    assert_int_equal(ids.n, 0);
    phx_ids_fini(&ids);
    phx_text_close(t);
}

static void plain_answers_pass_and_thinking_is_set_apart(void **state)
{
    (void)state;
    struct phx_text *t = NULL;
    struct phx_err   err = {0};
    struct phx_chat  chat = {.messages = &hello, .n_messages = 1};
    assert_ok(phx_text_open(DATA "chat/chatml", &t, &err));
    assert_true(phx_text_has_reasoning(t));
    check(t, &chat, "Hi \xC3\xA9<|im_end|>", "C:Hi \xC3\xA9.");
    check(t, &chat, "<think>\nso\n</think>\n\nHi<|im_end|>", "R:so\nC:Hi.");
    check(t, &chat, "<think>\nso", "R:so.");
    check(t, NULL, "<think>x", "C:<think>x.");
    phx_text_close(t);
    assert_ok(phx_text_open(DATA "chat/llama2", &t, &err));
    assert_false(phx_text_has_reasoning(t));
    check(t, &chat, "the \xE4\xBD\xA0", "C:the \xE4\xBD\xA0.");
    check(t, NULL, "the", "C: the.");
    phx_text_close(t);
}

/* ---- stop strings ---- */

static void check_stop(const char *const *strings, size_t n, const char *text, size_t step,
                       const char *want, bool is_found)
{
    struct phx_err   err = {0};
    struct phx_stop *s = NULL;
    struct phx_buf   out;
    size_t           size = strlen(text);
    bool             found = false;
    phx_buf_init(&out, 0);
    assert_ok(phx_stop_create(strings, n, &s, &err));
    for (size_t i = 0; i < size; i += step)
        found = phx_stop_push(s, text + i, step < size - i ? step : size - i, &out);
    phx_stop_flush(s, &out);
    assert_int_equal(found, is_found);
    assert_string_equal(out.data ? out.data : "", want);
    phx_stop_destroy(s);
    phx_buf_fini(&out);
}

static void stop_strings_are_found_however_the_text_arrives(void **state)
{
    static const char *const strings[] = {"STOP", "\n\n", "aab"};
    (void)state;
    for (size_t step = 1; step < 12; step++) {
        check_stop(strings, 3, "one STO two STOP three", step, "one STO two ", true);
        check_stop(strings, 3, "aaaab", step, "aa", true);
        check_stop(strings, 3, "a\nb\n\nc", step, "a\nb", true);
        check_stop(strings, 3, "ends in STO", step, "ends in STO", false);
        check_stop(strings, 0, "anything", step, "anything", false);
    }
}

static void bad_stop_strings_are_refused(void **state)
{
    static const char *const empty[] = {"a", ""};
    const char              *many[PHX_STOP_STRINGS_MAX + 1];
    struct phx_err           err = {0};
    struct phx_stop         *s = NULL;
    char                     text[PHX_STOP_STRING_BYTES_MAX + 2];
    const char              *one = text;
    (void)state;
    assert_int_equal(phx_stop_create(empty, 2, &s, &err), PHX_E_INVALID);
    assert_non_null(strstr(err.text, "stop[1]"));
    for (size_t i = 0; i <= PHX_STOP_STRINGS_MAX; i++)
        many[i] = "x";
    assert_int_equal(phx_stop_create(many, PHX_STOP_STRINGS_MAX + 1, &s, &err), PHX_E_INVALID);
    assert_ok(phx_stop_create(many, PHX_STOP_STRINGS_MAX, &s, &err));
    phx_stop_destroy(s);
    memset(text, 'x', sizeof text);
    text[PHX_STOP_STRING_BYTES_MAX + 1] = '\0';
    assert_int_equal(phx_stop_create(&one, 1, &s, &err), PHX_E_INVALID);
    one++;
    assert_ok(phx_stop_create(&one, 1, &s, &err));
    phx_stop_destroy(s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(harmony_answers_become_neutral_events),
        cmocka_unit_test(calls_are_counted),
        cmocka_unit_test(small_harmony_models_have_their_own_stop_ids),
        cmocka_unit_test(the_end_of_a_message_never_stops_a_generation),
        cmocka_unit_test(a_tool_result_must_answer_a_call),
        cmocka_unit_test(plain_answers_pass_and_thinking_is_set_apart),
        cmocka_unit_test(stop_strings_are_found_however_the_text_arrives),
        cmocka_unit_test(bad_stop_strings_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
