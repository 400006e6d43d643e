/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"

static int parse(const char *text, json_t **root, struct phx_err *err)
{
    return phx_json_parse(root, text, strlen(text), 4096, 0, "request body", err);
}

static void malformed_input_is_refused_with_its_place(void **state)
{
    static const struct {
        const char *text, *says;
    } rows[] = {
        {"", "line 1"},
        {"{", "line 1"},
        {"{\"a\": 1,\n \"b\": }", "line 2"},
        {"{\"a\": 1} x", "line 1"},
        {"{\"a\": 1, \"a\": 2}", "duplicate"},
        {"{\"a\": \"\\u0000\"}", "\\u0000"},
        {"{\"a\": \"\xff\"}", "decode byte 0xff"},
        {"{\"a\": \"\xed\xa0\x80\"}", "decode byte 0xed"},
        {"{\"a\": 1e999}", "real number overflow"},
        {"{\"a\": 99999999999999999999}", "too big integer"},
        {"{\"a\": NaN}", "invalid token"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        struct phx_err err = {0};
        json_t        *root;

        assert_int_equal(parse(rows[i].text, &root, &err), PHX_E_FORMAT);
        assert_null(root);
        if (strstr(err.text, rows[i].says) == NULL || strstr(err.text, "request body") == NULL)
            fail_msg("%s: %s", rows[i].text, err.text);
    }
}

static void errors_never_quote_the_input(void **state)
{
    struct phx_err err;
    json_t        *root;

    (void)state;
    assert_int_equal(parse("{\"a\": topsecret}", &root, &err), PHX_E_FORMAT);
    assert_null(strstr(err.text, "topsecret"));
    assert_int_equal(parse("{\"secretkey\": 1, \"secretkey\": 2}", &root, &err), PHX_E_FORMAT);
    assert_null(strstr(err.text, "secretkey"));
}

static void depth_and_size_end_at_their_limit(void **state)
{
    char           text[20002];
    struct phx_err err;
    json_t        *root;

    (void)state;
    memset(text, '[', 32);
    memset(text + 32, ']', 32);
    assert_int_equal(phx_json_parse(&root, text, 64, 64, 0, "x", &err), 0);
    json_decref(root);
    memset(text, '[', 33);
    memset(text + 33, ']', 33);
    assert_int_equal(phx_json_parse(&root, text, 66, 66, 0, "x", &err), PHX_E_FORMAT);
    assert_non_null(strstr(err.text, "32 levels"));
    assert_int_equal(phx_json_parse(&root, text, 66, 66, 33, "x", &err), 0);
    json_decref(root);
    assert_int_equal(phx_json_parse(&root, text, 66, 65, 33, "x", &err), PHX_E_TOOBIG);
    memset(text, '[', 10000);
    memset(text + 10000, ']', 10000);
    assert_int_equal(phx_json_parse(&root, text, 20000, 20000, 0, "x", &err), PHX_E_FORMAT);
    /* brackets inside strings do not count */
    assert_int_equal(parse("[\"[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[[\\\"[[[\"]", &root, &err), 0);
    json_decref(root);
}

static void getters_name_the_field(void **state)
{
    struct phx_err err;
    json_t        *root;
    const char    *s = "unset";
    int64_t        n = -1;
    double         x = -1;
    bool           b = false;
    const json_t  *v = NULL;

    (void)state;
    assert_int_equal(parse("{\"s\":\"abc\",\"n\":5,\"x\":2.5,\"b\":true,\"a\":[1,2],\"o\":{},"
                           "\"z\":null}", &root, &err), 0);
    assert_int_equal(phx_json_get_str(root, "", "s", 3, &s, &err), 0);
    assert_string_equal(s, "abc");
    assert_int_equal(phx_json_get_str(root, "", "s", 2, &s, &err), PHX_E_TOOBIG);
    assert_int_equal(phx_json_get_int(root, "", "n", 0, 5, &n, &err), 0);
    assert_int_equal(n, 5);
    assert_int_equal(phx_json_get_int(root, "req", "n", 6, 9, &n, &err), PHX_E_INVALID);
    assert_string_equal(err.text, "req.n must be between 6 and 9");
    assert_int_equal(phx_json_get_int(root, "", "x", 0, 9, &n, &err), PHX_E_INVALID);
    assert_int_equal(phx_json_get_real(root, "", "n", 0, 5, &x, &err), 0);
    assert_true(x == 5.0);
    assert_int_equal(phx_json_get_real(root, "", "x", 0, 2, &x, &err), PHX_E_INVALID);
    assert_int_equal(phx_json_get_bool(root, "", "b", &b, &err), 0);
    assert_true(b);
    assert_int_equal(phx_json_get_bool(root, "", "n", &b, &err), PHX_E_INVALID);
    assert_int_equal(phx_json_get_array(root, "", "a", 2, &v, &err), 0);
    assert_int_equal(phx_json_get_array(root, "", "a", 1, &v, &err), PHX_E_TOOBIG);
    assert_int_equal(phx_json_get_object(root, "", "o", &v, &err), 0);
    assert_int_equal(phx_json_get_object(root, "", "a", &v, &err), PHX_E_INVALID);
    assert_int_equal(phx_json_get_str(root, "m[0]", "none", 9, &s, &err), PHX_E_INVALID);
    assert_string_equal(err.text, "m[0].none is missing");
    s = "kept";
    assert_int_equal(phx_json_opt_str(root, "", "none", 9, &s, &err), 0);
    assert_int_equal(phx_json_opt_str(root, "", "z", 9, &s, &err), 0);
    assert_string_equal(s, "kept");
    assert_int_equal(phx_json_opt_str(root, "", "n", 9, &s, &err), PHX_E_INVALID);
    assert_int_equal(phx_json_get_str(json_object_get(root, "a"), "a", "k", 9, &s, &err),
                     PHX_E_INVALID);
    json_decref(root);
}

static void unknown_keys_are_named(void **state)
{
    static const char *const known[] = {"a", "b", NULL};
    struct phx_err           err;
    json_t                  *root;

    (void)state;
    assert_int_equal(parse("{\"a\":1,\"b\":2}", &root, &err), 0);
    assert_int_equal(phx_json_check_keys(root, "", known, &err), 0);
    json_decref(root);
    assert_int_equal(parse("{\"a\":1,\"c\":2}", &root, &err), 0);
    assert_int_equal(phx_json_check_keys(root, "cfg", known, &err), PHX_E_INVALID);
    assert_string_equal(err.text, "unknown field \"cfg.c\"");
    json_decref(root);
}

static void written_strings_read_back(void **state)
{
    static const char text[] = "q\" b\\ n\n t\t r\r c\x01 d\x7f e\xe2\x82\xac / end";
    struct phx_buf    b;
    struct phx_err    err;
    json_t           *root;

    (void)state;
    phx_buf_init(&b, 0);
    phx_json_put_str(&b, text, sizeof(text) - 1);
    assert_int_equal(phx_json_parse(&root, b.data, b.size, 4096, 0, "x", &err), 0);
    assert_string_equal(json_string_value(root), text);
    json_decref(root);
    phx_buf_clear(&b);
    phx_json_put_str(&b, "a\xff\xe2\x82z", 5);
    assert_string_equal(b.data, "\"a\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbdz\"");
    phx_buf_clear(&b);
    assert_int_equal(parse("{ \"b\": [1, 2.5, null], \"a\": {} }", &root, &err), 0);
    phx_json_put(&b, root);
    assert_string_equal(b.data, "{\"b\":[1,2.5,null],\"a\":{}}");
    json_decref(root);
    phx_buf_fini(&b);
}

static void files_are_parsed_with_their_path_in_errors(void **state)
{
    char           path[] = "/tmp/phx-json-XXXXXX";
    int            fd = mkstemp(path);
    struct phx_err err;
    json_t        *root;

    (void)state;
    assert_int_equal(write(fd, "{\"k\":[]}", 8), 8);
    close(fd);
    assert_int_equal(phx_json_load(&root, path, 100, 0, &err), 0);
    assert_true(json_is_object(root));
    json_decref(root);
    assert_int_equal(phx_json_load(&root, path, 7, 0, &err), PHX_E_TOOBIG);
    assert_non_null(strstr(err.text, path));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(phx_json_load(&root, path, 100, 0, &err), PHX_E_IO);
    assert_null(root);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(malformed_input_is_refused_with_its_place),
        cmocka_unit_test(errors_never_quote_the_input),
        cmocka_unit_test(depth_and_size_end_at_their_limit),
        cmocka_unit_test(getters_name_the_field),
        cmocka_unit_test(unknown_keys_are_named),
        cmocka_unit_test(written_strings_read_back),
        cmocka_unit_test(files_are_parsed_with_their_path_in_errors),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
