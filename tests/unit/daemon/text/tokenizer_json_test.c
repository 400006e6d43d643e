/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.json files that are wrong, or ask for what is not here: each refused by name. */
#include "tests/unit/daemon/text/text_util.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>

#include "daemon/text/bytelevel.h"
#include "rpc/base/mem.h"

/* A fixture with one value replaced: path "model/merges/0" = JSON text. */
static void edit(json_t *root, const char *path, const char *value)
{
    char    copy[128], *save = NULL;
    json_t *at = root, *new_value = json_loads(value, JSON_DECODE_ANY, NULL);
    (void)snprintf(copy, sizeof copy, "%s", path);
    char *key = strtok_r(copy, "/", &save), *next;
    assert_non_null(new_value);
    for (; (next = strtok_r(NULL, "/", &save)) != NULL; key = next)
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
    int rc = !json_is_array(at) ? json_object_set_new(at, key, new_value)
             : (size_t)atoi(key) < json_array_size(at)
                 ? json_array_set_new(at, (size_t)atoi(key), new_value)
                 : json_array_append_new(at, new_value);
    assert_int_equal(rc, 0);
}

static int open_edited(const char *file, const char *path, const char *value, struct phx_err *err)
{
    char   *name = phx_mem_printf(DATA "%s.json", file);
    json_t *root = json_load_file(name, 0, NULL);
    assert_non_null(root);
    if (path)
        edit(root, path, value);
    char                 *text = json_dumps(root, JSON_COMPACT);
    struct phx_tokenizer *t = NULL;
    int rc = phx_tokenizer_open_json(text, strlen(text), "tokenizer.json", &t, err);
    phx_tokenizer_close(t);
    free(text);
    json_decref(root);
    phx_mem_free(name);
    return rc;
}

static void what_cannot_be_honoured_is_refused_by_name(void **state)
{
    static const struct {
        const char *file, *path, *value;
        int         code;
        const char *names;
    } cases[] = {
        {"llama3", "version", "\"2.0\"", PHX_E_UNSUPPORTED, "version"},
        {"llama3", "model/type", "\"Unigram\"", PHX_E_UNSUPPORTED, "Unigram"},
        {"llama3", "model/type", "\"WordPiece\"", PHX_E_UNSUPPORTED, "WordPiece"},
        {"llama3", "model/dropout", "0.1", PHX_E_UNSUPPORTED, "dropout"},
        {"llama3", "model/end_of_word_suffix", "\"</w>\"", PHX_E_UNSUPPORTED, "end_of_word_suffix"},
        {"llama3", "model/surprise", "1", PHX_E_UNSUPPORTED, "surprise"},
        {"llama3", "surprise", "1", PHX_E_UNSUPPORTED, "surprise"},
        {"llama3", "truncation", "{\"max_length\":5}", PHX_E_UNSUPPORTED, "truncation"},
        {"llama3", "padding", "{\"strategy\":{\"Fixed\":5}}", PHX_E_UNSUPPORTED, "padding"},
        {"llama3", "normalizer", "{\"type\":\"BertNormalizer\"}", PHX_E_UNSUPPORTED,
         "BertNormalizer"},
        {"llama3", "normalizer", "{\"type\":\"Lowercase\"}", PHX_E_UNSUPPORTED, "Lowercase"},
        {"llama3", "pre_tokenizer", "{\"type\":\"UnicodeScripts\"}", PHX_E_UNSUPPORTED,
         "UnicodeScripts"},
        {"llama3", "pre_tokenizer/pretokenizers/0/behavior", "\"Odd\"", PHX_E_UNSUPPORTED, "Odd"},
        {"llama3", "pre_tokenizer/pretokenizers/0/pattern", "{\"Regex\":\"a(\"}", PHX_E_FORMAT,
         "regular expression"},
        {"llama3", "pre_tokenizer/pretokenizers/0/pattern", "{\"Regex\":\"\\\\w+\"}",
         PHX_E_UNSUPPORTED, "\\w"},
        {"llama3", "pre_tokenizer/pretokenizers/2", "{\"type\":\"Digits\"}", PHX_E_UNSUPPORTED,
         "behind ByteLevel"},
        {"llama3", "decoder", "null", PHX_E_UNSUPPORTED, "decoder"},
        {"llama3", "decoder", "{\"type\":\"WordPiece\"}", PHX_E_UNSUPPORTED, "WordPiece"},
        {"llama3", "decoder", "{\"type\":\"Fuse\"}", PHX_E_UNSUPPORTED, "ByteLevel"},
        {"sp_legacy", "decoder/decoders/3/content", "\"x\"", PHX_E_UNSUPPORTED, "Strip"},
        {"sp_legacy", "decoder/decoders/0/content", "\"x\"", PHX_E_UNSUPPORTED, "Replace"},
        {"llama3", "post_processor", "{\"type\":\"BertProcessing\"}", PHX_E_UNSUPPORTED,
         "BertProcessing"},
        {"sp_legacy", "post_processor/special_tokens", "{}", PHX_E_FORMAT, "post_processor"},
        {"sp_legacy", "post_processor/special_tokens/<s>/ids", "[99999]", PHX_E_FORMAT,
         "post_processor"},
        {"sp_legacy", "post_processor/single", "[]", PHX_E_FORMAT, "post_processor"},
        {"llama3", "model/merges/0", "\"a\"", PHX_E_FORMAT, "merge 0"},
        {"llama3", "model/merges/1", "[\"a\",\"b\",\"c\"]", PHX_E_FORMAT, "merge 1"},
        {"llama3", "model/merges/2", "\"qz zq\"", PHX_E_FORMAT, "merge 2"},
        {"llama3", "model/merges/3", "[\"\",\"a\"]", PHX_E_FORMAT, "merge 3"},
        {"llama3", "model/merges", "{}", PHX_E_FORMAT, "merges"},
        {"llama3", "model/vocab", "[]", PHX_E_FORMAT, "vocab"},
        {"llama3", "model/vocab/zzz", "5", PHX_E_FORMAT, "token id 5"},
        {"llama3", "model/vocab/zzz", "-1", PHX_E_FORMAT, "-1"},
        {"llama3", "model/vocab/zzz", "3000000", PHX_E_FORMAT, "3000000"},
        {"llama3", "model/vocab/zzz", "1.5", PHX_E_FORMAT, "no integer"},
        {"llama3", "added_tokens/0/id", "3", PHX_E_FORMAT, "token id 3"},
        {"llama3", "added_tokens/0/content", "\"a\"", PHX_E_FORMAT, "added token"},
        {"llama3", "added_tokens/0/content", "\"\"", PHX_E_FORMAT, "0 bytes"},
        {"llama3", "added_tokens/0/lstrip", "3", PHX_E_FORMAT, "lstrip"},
        {"llama3", "added_tokens/0/surprise", "3", PHX_E_UNSUPPORTED, "surprise"},
        {"sp_legacy", "model/unk_token", "\"nope\"", PHX_E_FORMAT, "unk_token"},
        {"sp_legacy", "model/byte_fallback", "\"yes\"", PHX_E_FORMAT, "byte_fallback"},
    };
    (void)state;
    struct phx_err err = {0};
    assert_ok(open_edited("llama3", NULL, NULL, &err));
    assert_ok(open_edited("sp_legacy", NULL, NULL, &err));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int rc = open_edited(cases[i].file, cases[i].path, cases[i].value, &err);
        if (rc != cases[i].code || !strstr(err.text, cases[i].names))
            fail_msg("%s = %s: code %d, \"%s\"", cases[i].path, cases[i].value, rc, err.text);
    }
}

static void a_missing_byte_is_refused(void **state)
{
    (void)state;
    json_t *root = json_load_file(DATA "llama3.json", 0, NULL);
    json_t *vocab = json_object_get(json_object_get(root, "model"), "vocab");
    assert_int_equal(json_object_del(vocab, "\xC4\x80"), 0); /* U+0100 = byte 00 */
    char                 *text = json_dumps(root, JSON_COMPACT);
    struct phx_tokenizer *t = NULL;
    struct phx_err        err = {0};
    assert_int_equal(phx_tokenizer_open_json(text, strlen(text), "x", &t, &err), PHX_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "0x00"));
    free(text);
    json_decref(root);
}

static void what_is_not_json_is_refused(void **state)
{
    static const char *const bad[] = {
        "",  "{", "[]", "null", "{\"version\":\"1.0\",\"version\":\"1.0\"}", "{\"version\":1}",
        "{}"};
    (void)state;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct phx_tokenizer *t = NULL;
        struct phx_err        err = {0};
        assert_true(phx_tokenizer_open_json(bad[i], strlen(bad[i]), "x", &t, &err) < 0);
        assert_null(t);
    }
    char deep[20001];
    memset(deep, '[', sizeof deep - 1);
    deep[sizeof deep - 1] = '\0';
    struct phx_tokenizer *t = NULL;
    struct phx_err        err = {0};
    assert_true(phx_tokenizer_open_json(deep, sizeof deep - 1, "x", &t, &err) < 0);
    assert_int_equal(phx_tokenizer_open_file("/no/such/tokenizer.json", &t, &err), PHX_E_IO);
    assert_int_equal(phx_tokenizer_open_dir("/no/such", &t, &err), PHX_E_IO);
}

static void the_byte_alphabet_is_its_own_inverse(void **state)
{
    (void)state;
    struct phx_buf spelled, back;
    char           all[256];
    for (int i = 0; i < 256; i++)
        all[i] = (char)i;
    phx_buf_init(&spelled, 0);
    phx_buf_init(&back, 0);
    phx_bytelevel_encode(all, sizeof all, &spelled);
    assert_true(phx_bytelevel_decode(spelled.data, spelled.size, &back));
    assert_int_equal(back.size, 256);
    assert_memory_equal(back.data, all, 256);
    phx_buf_clear(&spelled);
    phx_bytelevel_encode(" \n", 2, &spelled);
    assert_string_equal(spelled.data, "\xC4\xA0\xC4\x8A"); /* U+0120 U+010A */
    assert_false(phx_bytelevel_decode(" ", 1, &back));
    assert_false(phx_bytelevel_decode("a\xE2\x96\x81", 4, &back));
    assert_int_equal(back.size, 256);
    phx_buf_fini(&spelled);
    phx_buf_fini(&back);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_cannot_be_honoured_is_refused_by_name),
        cmocka_unit_test(a_missing_byte_is_refused),
        cmocka_unit_test(what_is_not_json_is_refused),
        cmocka_unit_test(the_byte_alphabet_is_its_own_inverse),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
