/* SPDX-License-Identifier: Apache-2.0
 * Ids equal to the references' to the last one, and what cannot be honoured refused by name. */
#include "tests/unit/daemon/text/text_util.h"

#include <jansson.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "rpc/base/mem.h"

/* One line of a vector file: text, ids, and perhaps flags and what decoding gives. */
static void check_vector(const struct phx_tokenizer *t, json_t *root, const char *where,
                         size_t line)
{
    json_t        *text = json_object_get(root, "text"), *want = json_object_get(root, "ids");
    json_t        *shown = json_object_get(root, "decoded");
    unsigned       flags = (unsigned)json_integer_value(json_object_get(root, "flags"));
    struct phx_err err = {0};
    struct phx_ids ids = {0};
    struct phx_buf back;
    assert_ok(phx_tokenizer_encode(t, json_string_value(text), json_string_length(text), flags,
                                   &ids, &err));
    for (size_t i = 0; i < ids.n && i < json_array_size(want); i++)
        if (ids.data[i] != json_integer_value(json_array_get(want, i)))
            fail_msg("%s:%zu: id %zu is %d", where, line, i, ids.data[i]);
    assert_int_equal(ids.n, json_array_size(want));
    phx_buf_init(&back, 0);
    phx_tokenizer_decode(t, ids.data, ids.n, PHX_DECODE_SPECIALS, &back);
    if (!shown)
        shown = text;
    assert_int_equal(back.size, json_string_length(shown));
    assert_memory_equal(back.data ? back.data : "", json_string_value(shown), back.size);
    phx_buf_fini(&back);
    phx_ids_fini(&ids);
}

static void check_vectors(const struct phx_tokenizer *t, const char *path, size_t want)
{
    char  *line = NULL;
    size_t capacity = 0, n = 0;
    FILE  *file = fopen(path, "r");
    assert_non_null(file);
    while (getline(&line, &capacity, file) > 0) {
        json_t *root = json_loads(line, JSON_ALLOW_NUL, NULL);
        assert_non_null(root);
        check_vector(t, root, path, ++n);
        json_decref(root);
    }
    assert_int_equal(n, want);
    free(line);
    (void)fclose(file);
}

static void all_published_vectors_pass(void **state)
{
    (void)state;
    struct phx_tokenizer *t = open_ranks(DATA "o200k_base.tiktoken", "o200k_base");
    check_vectors(t, DATA "o200k_vectors.jsonl", 400);
    assert_int_equal(phx_tokenizer_vocab_size(t), 200019);
    phx_tokenizer_close(t);
    t = open_ranks(DATA "o200k_base.tiktoken", "o200k_harmony");
    check_vectors(t, DATA "o200k_vectors.jsonl", 400);
    phx_tokenizer_close(t);
    t = open_ranks(DATA "gpt2.tiktoken", "gpt2");
    check_vectors(t, DATA "gpt2_vectors.jsonl", 300);
    phx_tokenizer_close(t);
}

static void tokenizer_json_equals_the_reference(void **state)
{
    static const struct {
        const char *name;
        size_t      n;
    } files[] = {{"llama3", 408},    {"gpt2", 272},     {"qwen", 272},      {"deepseek", 272},
                 {"sp_legacy", 408}, {"sp_first", 408}, {"sp_always", 408}, {"sp_cross", 408}};
    (void)state;
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct phx_err        err = {0};
        struct phx_tokenizer *t = NULL;
        char                 *json = phx_mem_printf(DATA "%s.json", files[i].name);
        char                 *vectors = phx_mem_printf(DATA "%s.jsonl", files[i].name);
        assert_ok(phx_tokenizer_open_file(json, &t, &err));
        check_vectors(t, vectors, files[i].n);
        phx_tokenizer_close(t);
        phx_mem_free(json);
        phx_mem_free(vectors);
    }
}

static void special_names_have_the_published_ids(void **state)
{
    static const struct {
        const char *name;
        int32_t     id;
    } want[] = {{"<|startoftext|>", 199998}, {"<|return|>", 200002}, {"<|constrain|>", 200003},
                {"<|channel|>", 200005},     {"<|start|>", 200006},  {"<|end|>", 200007},
                {"<|message|>", 200008},     {"<|call|>", 200012},   {"user", 1428},
                {"assistant", 173781},       {"no such token", -1}};
    (void)state;
    struct phx_tokenizer *t = open_ranks(DATA "o200k_base.tiktoken", "o200k_harmony");
    for (size_t i = 0; i < sizeof want / sizeof want[0]; i++) {
        assert_int_equal(phx_tokenizer_id(t, want[i].name), want[i].id);
        assert_int_equal(phx_tokenizer_is_special(t, want[i].id), want[i].id >= 199998);
    }
    assert_int_equal(phx_tokenizer_bos(t), 199998);
    assert_int_equal(phx_tokenizer_eos(t), 200002);
    assert_int_equal(phx_tokenizer_pad(t), 199999);
    size_t size;
    assert_memory_equal(phx_tokenizer_bytes(t, 9552, &size), " \xF0\x9F", 3);
    assert_int_equal(size, 3);
    assert_null(phx_tokenizer_bytes(t, 201087, &size));
    assert_null(phx_tokenizer_bytes(t, -1, &size));
    assert_int_equal(size, 0);
    phx_tokenizer_close(t);
}

static void special_looking_text_is_never_special(void **state)
{
    (void)state;
    struct phx_tokenizer *t = open_ranks(DATA "o200k_base.tiktoken", "o200k_harmony");
    struct phx_ids        ids = encode(t, "<|start|>", 0);
    assert_ids(&ids, (int32_t[]){27, 91, 5236, 91, 29}, 5);
    phx_ids_fini(&ids);
    ids = encode(t, "<|start|>user<|message|>", PHX_ENCODE_SPECIALS);
    assert_ids(&ids, (int32_t[]){200006, 1428, 200008}, 3);
    phx_ids_fini(&ids);
    for (int32_t id = 199998; id < 200019; id++) {
        size_t         size;
        const char    *name = phx_tokenizer_bytes(t, id, &size);
        struct phx_buf text;
        phx_buf_init(&text, 0);
        phx_buf_printf(&text, "%s x%s%s", name, name, name);
        ids = encode(t, text.data, 0);
        for (size_t i = 0; i < ids.n; i++)
            assert_true(ids.data[i] < 199998);
        assert_text(t, &ids, text.data);
        phx_ids_fini(&ids);
        phx_buf_fini(&text);
    }
    phx_tokenizer_close(t);
}

static void text_that_is_not_utf8_is_refused_with_its_offset(void **state)
{
    static const char *const bad[] = {"ab\xFFz", "ab\xC0\x80", "ab\xED\xA0\x80",
                                      "ab\xF4\x90\x80\x80", "ab\xE2\x82"};
    (void)state;
    struct phx_tokenizer *t = open_ranks(DATA "gpt2.tiktoken", "gpt2");
    struct phx_ids        ids = {0};
    struct phx_err        err = {0};
    phx_ids_put(&ids, 7);
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        assert_int_equal(phx_tokenizer_encode(t, bad[i], strlen(bad[i]), 0, &ids, &err),
                         PHX_E_FORMAT);
        assert_non_null(strstr(err.text, "byte 2"));
        assert_int_equal(ids.n, 1);
    }
    phx_ids_fini(&ids);
    phx_tokenizer_close(t);
}

static void a_text_over_the_limit_is_refused(void **state)
{
    (void)state;
    struct phx_tokenizer *t = open_ranks(DATA "gpt2.tiktoken", "gpt2");
    struct phx_ids        ids = {0};
    struct phx_err        err = {0};
    char                 *text = phx_mem_calloc(1, PHX_TEXT_BYTES_MAX + 1);
    memset(text, ' ', PHX_TEXT_BYTES_MAX + 1);
    assert_int_equal(phx_tokenizer_encode(t, text, PHX_TEXT_BYTES_MAX + 1, 0, &ids, &err),
                     PHX_E_TOOBIG);
    phx_mem_free(text);
    phx_ids_fini(&ids);
    phx_tokenizer_close(t);
}

static void one_long_word_is_merged_in_reasonable_time(void **state)
{
    (void)state;
    enum { SIZE = 2 << 20 };
    struct phx_tokenizer *t = open_ranks(DATA "gpt2.tiktoken", "gpt2");
    struct phx_ids        ids = {0};
    struct phx_err        err = {0};
    char                 *text = phx_mem_calloc(1, SIZE);
    for (size_t i = 0; i < SIZE; i++)
        text[i] = (char)('a' + (i * i / 7 + i) % 26);
    assert_ok(phx_tokenizer_encode(t, text, SIZE, 0, &ids, &err)); /* quadratic would be hours */
    struct phx_buf back;
    phx_buf_init(&back, 0);
    phx_tokenizer_decode(t, ids.data, ids.n, 0, &back);
    assert_int_equal(back.size, SIZE);
    assert_memory_equal(back.data, text, SIZE);
    phx_buf_fini(&back);
    phx_mem_free(text);
    phx_ids_fini(&ids);
    phx_tokenizer_close(t);
}

/* Many threads, one tokenizer: each must get what one alone gets. */
static void *encode_often(void *ctx)
{
    static const char text[] = "Threads don't   share 12345 \xE4\xBD\xA0\xE5\xA5\xBD\n\nstate";
    const struct phx_tokenizer *t = ctx;
    struct phx_ids              first = {0};
    struct phx_err              err;
    for (int i = 0; i < 200; i++) {
        struct phx_ids ids = {0};
        if (phx_tokenizer_encode(t, text, sizeof text - 1, 0, &ids, &err))
            return NULL;
        bool same = i == 0 || (ids.n == first.n &&
                               memcmp(ids.data, first.data, ids.n * sizeof *ids.data) == 0);
        phx_ids_fini(i == 0 ? &first : &ids);
        if (i == 0)
            first = ids;
        if (!same) {
            phx_ids_fini(&first);
            return NULL;
        }
    }
    phx_ids_fini(&first);
    return ctx;
}

static void one_tokenizer_serves_many_threads(void **state)
{
    (void)state;
    struct phx_tokenizer *t = open_ranks(DATA "gpt2.tiktoken", "gpt2");
    pthread_t             threads[4];
    for (int i = 0; i < 4; i++)
        assert_int_equal(pthread_create(&threads[i], NULL, encode_often, t), 0);
    for (int i = 0; i < 4; i++) {
        void *result = NULL;
        assert_int_equal(pthread_join(threads[i], &result), 0);
        assert_ptr_equal(result, t);
    }
    phx_tokenizer_close(t);
}

static void bad_rank_files_are_refused(void **state)
{
    static const struct {
        const char *text;
        const char *names;
    } files[] = {{"IQ== 0\nIg== x\n", "line 2"}, {"IQ== 0\nIg==\n", "line 2"},
                 {"IQ= 0\n", "line 1"},          {"IQ== 0\nIg== 0\n", "token id 0"},
                 {"IQ== 9999999\n", "9999999"},  {"IQ== 0\nIg== 1\n", "ranks 0 to"},
                 {"I!== 0\n", "line 1"},         {"", "ranks 0 to"}};
    (void)state;
    char path[] = "/tmp/phx_ranks_XXXXXX";
    int  fd = mkstemp(path);
    assert_true(fd >= 0);
    for (size_t i = 0; i < sizeof files / sizeof files[0]; i++) {
        struct phx_err        err = {0};
        struct phx_tokenizer *t = NULL;
        assert_ok(phx_file_write(path, files[i].text, strlen(files[i].text), 0600, &err));
        assert_int_equal(phx_tokenizer_open_ranks(path, "gpt2", &t, &err), PHX_E_FORMAT);
        assert_null(t);
        if (!strstr(err.text, files[i].names))
            fail_msg("\"%s\" does not name \"%s\"", err.text, files[i].names);
    }
    struct phx_err        err = {0};
    struct phx_tokenizer *t = NULL;
    assert_int_equal(phx_tokenizer_open_ranks(path, "p50k", &t, &err), PHX_E_NOTFOUND);
    assert_int_equal(phx_tokenizer_open_ranks("/no/such", "gpt2", &t, &err), PHX_E_IO);
    (void)remove(path);
    assert_string_equal(phx_encoding_name(0), "o200k_base");
    assert_null(phx_encoding_name(4));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_published_vectors_pass),
        cmocka_unit_test(tokenizer_json_equals_the_reference),
        cmocka_unit_test(special_names_have_the_published_ids),
        cmocka_unit_test(special_looking_text_is_never_special),
        cmocka_unit_test(text_that_is_not_utf8_is_refused_with_its_offset),
        cmocka_unit_test(a_text_over_the_limit_is_refused),
        cmocka_unit_test(one_long_word_is_merged_in_reasonable_time),
        cmocka_unit_test(one_tokenizer_serves_many_threads),
        cmocka_unit_test(bad_rank_files_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
