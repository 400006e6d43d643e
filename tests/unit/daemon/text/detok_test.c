/* SPDX-License-Identifier: Apache-2.0
 * Incremental decoding: whole characters only, at every split; the same bytes in the end. */
#include "tests/unit/daemon/text/text_util.h"

#include <stdio.h>

#include "daemon/text/utf8.h"
#include "rpc/base/utf8.h"

static const char mixed[] = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80 \xE4\xBD\xA0\xE5\xA5\xBD\n";

static void every_split_of_the_bytes_gives_the_same_text(void **state)
{
    (void)state;
    size_t size = sizeof mixed - 1;
    for (size_t first = 0; first <= size; first++)
        for (size_t second = first; second <= size; second++) {
            struct phx_utf8_stream s = {0};
            struct phx_buf         out;
            phx_buf_init(&out, 0);
            phx_utf8_push(&s, mixed, first, &out);
            assert_true(phx_utf8_is_valid(out.data ? out.data : "", out.size));
            phx_utf8_push(&s, mixed + first, second - first, &out);
            assert_true(phx_utf8_is_valid(out.data ? out.data : "", out.size));
            phx_utf8_push(&s, mixed + second, size - second, &out);
            phx_utf8_flush(&s, &out);
            assert_int_equal(out.size, size);
            assert_memory_equal(out.data, mixed, size);
            phx_buf_fini(&out);
        }
}

static void check_lossy(const char *bytes, bool is_per_byte, const char *want)
{
    size_t size = strlen(bytes);
    for (size_t step = 1; step <= size; step++) { /* whatever the split, the repair is the same */
        struct phx_utf8_stream s = {.is_per_byte = is_per_byte};
        struct phx_buf         out;
        phx_buf_init(&out, 0);
        for (size_t i = 0; i < size; i += step)
            phx_utf8_push(&s, bytes + i, step < size - i ? step : size - i, &out);
        phx_utf8_flush(&s, &out);
        assert_string_equal(out.data, want);
        phx_buf_fini(&out);
    }
}

#define R "\xEF\xBF\xBD"

static void what_is_not_utf8_is_repaired(void **state)
{
    (void)state;
    check_lossy("a\xFF"
                "b",
                false, "a" R "b");
    check_lossy("\xE2\x82"
                "b",
                false, R "b");
    check_lossy("\xE2\x82", false, R);
    check_lossy("\xE2\x82", true, R R);
    check_lossy("\xF0\x9F\x98"
                "x",
                true, R R R "x");
    check_lossy("\xC0\x80", false, R R);
    check_lossy("\xED\xA0\x80", false, R R R);
    check_lossy("\xF0\x80\x80", false, R R R);
    check_lossy("\xE2\xE2\x82\xAC", false, R "\xE2\x82\xAC");
    check_lossy("\x80\xE2\x82\xAC\x82", true, R "\xE2\x82\xAC" R);
}

static void tokens_that_cut_characters_are_held_back(void **state)
{
    (void)state;
    struct phx_tokenizer *t = open_ranks(DATA "o200k_base.tiktoken", "o200k_harmony");
    struct phx_detok     *d = phx_detok_create(t, 0);
    struct phx_buf        out;
    phx_buf_init(&out, 0);
    phx_detok_push(d, 9552, &out); /* 20 F0 9F */
    assert_string_equal(out.data, " ");
    phx_detok_flush(d, &out);
    assert_string_equal(out.data, " " R);
    phx_buf_clear(&out);
    phx_detok_push(d, 64, &out);
    phx_detok_push(d, 200007, &out); /* special: shown by name only when asked */
    phx_detok_push(d, 201000, &out); /* a padded row */
    phx_detok_push(d, -5, &out);
    phx_detok_flush(d, &out);
    assert_string_equal(out.data, "a");
    phx_detok_destroy(d);
    phx_buf_fini(&out);
    phx_tokenizer_close(t);
}

/* All tokens of a text one by one: never invalid UTF-8, and in the end the text. */
static void streaming_equals_decoding(void **state)
{
    static const char *const files[] = {"llama3", "sp_legacy", "sp_first"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        struct phx_err        err = {0};
        struct phx_tokenizer *t = NULL;
        char                  path[256];
        (void)snprintf(path, sizeof path, DATA "%s.json", files[i]);
        assert_ok(phx_tokenizer_open_file(path, &t, &err));
        struct phx_ids    ids = encode(t, mixed, 0);
        struct phx_detok *d = phx_detok_create(t, 0);
        struct phx_buf    out;
        phx_buf_init(&out, 0);
        for (size_t k = 0; k < ids.n; k++) {
            phx_detok_push(d, ids.data[k], &out);
            assert_true(phx_utf8_is_valid(out.data ? out.data : "", out.size));
        }
        phx_detok_flush(d, &out);
        assert_string_equal(out.data, mixed);
        phx_buf_fini(&out);
        phx_detok_destroy(d);
        phx_ids_fini(&ids);
        phx_tokenizer_close(t);
    }
}

static void a_continued_text_keeps_its_leading_space(void **state)
{
    (void)state;
    struct phx_err        err = {0};
    struct phx_tokenizer *t = NULL;
    struct phx_buf        out;
    assert_ok(phx_tokenizer_open_file(DATA "sp_legacy.json", &t, &err));
    struct phx_ids ids = encode(t, "the", 0);
    phx_buf_init(&out, 0);
    phx_tokenizer_decode(t, ids.data, ids.n, 0, &out);
    assert_string_equal(out.data, "the");
    phx_buf_clear(&out);
    phx_tokenizer_decode(t, ids.data, ids.n, PHX_DECODE_CONTINUE, &out);
    assert_string_equal(out.data, " the");
    phx_buf_fini(&out);
    phx_ids_fini(&ids);
    phx_tokenizer_close(t);
}

static void byte_tokens_that_form_no_character_become_replacements(void **state)
{
    (void)state;
    struct phx_err        err = {0};
    struct phx_tokenizer *t = NULL;
    struct phx_buf        out;
    assert_ok(phx_tokenizer_open_file(DATA "sp_legacy.json", &t, &err));
    int32_t a = phx_tokenizer_id(t, "a"), e2 = phx_tokenizer_id(t, "<0xE2>");
    int32_t ids[] = {e2, phx_tokenizer_id(t, "<0x82>"), a,
                     e2, phx_tokenizer_id(t, "<0x82>"), phx_tokenizer_id(t, "<0xAC>"),
                     e2};
    phx_buf_init(&out, 0);
    phx_tokenizer_decode(t, ids, sizeof ids / sizeof ids[0], 0, &out);
    assert_string_equal(out.data, R R "a\xE2\x82\xAC" R);
    phx_buf_fini(&out);
    phx_tokenizer_close(t);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_split_of_the_bytes_gives_the_same_text),
        cmocka_unit_test(what_is_not_utf8_is_repaired),
        cmocka_unit_test(tokens_that_cut_characters_are_held_back),
        cmocka_unit_test(streaming_equals_decoding),
        cmocka_unit_test(a_continued_text_keeps_its_leading_space),
        cmocka_unit_test(byte_tokens_that_form_no_character_become_replacements),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
