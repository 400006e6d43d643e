/* SPDX-License-Identifier: Apache-2.0
 * Records have one spelling: escapes, UTF-8, order of keys; commitments. */
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/audit/audit.h"

static void check_text(struct phx_record *r, const char *expected)
{
    struct phx_err err = {0};

    assert_int_equal(phx_record_end(r, &err), 0);
    assert_string_equal(r->text.data, expected);
    phx_record_fini(r);
}

static void test_nested_and_sorted(void **state)
{
    struct phx_record r;

    (void)state;
    phx_record_init(&r);
    check_text(&r, "{}");
    phx_record_init(&r);
    phx_record_int(&r, "at_ns", INT64_MAX);
    phx_record_open(&r, "b");
    phx_record_open(&r, "a");
    phx_record_close(&r);
    phx_record_int(&r, "z", INT64_MIN);
    phx_record_close(&r);
    phx_record_str(&r, "c", "");
    assert_true(r.has_at_ns);
    assert_int_equal(r.at_ns, INT64_MAX);
    check_text(&r, "{\"at_ns\":9223372036854775807,\"b\":{\"a\":{},\"z\":-9223372036854775808},\"c\":\"\"}");
}

static void test_only_the_outer_time_counts(void **state)
{
    struct phx_record r;

    (void)state;
    phx_record_init(&r);
    phx_record_open(&r, "a");
    phx_record_int(&r, "at_ns", 5);
    phx_record_close(&r);
    assert_false(r.has_at_ns);
    phx_record_fini(&r);
}

static void test_escapes(void **state)
{
    struct phx_record r;

    (void)state;
    phx_record_init(&r);
    phx_record_str(&r, "s", "\"\\/\b\f\n\r\t\x01\x1f\x7f\xc3\xa9\xf0\x9f\x98\x80");
    check_text(&r, "{\"s\":\"\\\"\\\\/\\b\\f\\n\\r\\t\\u0001\\u001f\x7f\xc3\xa9\xf0\x9f\x98\x80\"}");
}

static void test_bytes_that_are_no_utf8(void **state)
{
    struct phx_record r;

    (void)state;
    phx_record_init(&r);
    phx_record_str(&r, "s", "a\xff" "b\xc3");                 /* alone, cut short */
    phx_record_str(&r, "t", "\xed\xa0\x80\xc0\xaf");            /* a surrogate, an overlong form */
    check_text(&r, "{\"s\":\"a\xef\xbf\xbd" "b\xef\xbf\xbd\","
                   "\"t\":\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\"}");
}

static void test_too_long(void **state)
{
    static char       text[PHX_RECORD_MAX_BYTES + 1];
    struct phx_record r;
    struct phx_err    err = {0};

    (void)state;
    memset(text, 'x', sizeof(text) - 1);
    phx_record_init(&r);
    phx_record_str(&r, "s", text);
    assert_int_equal(phx_record_end(&r, &err), PHX_E_TOOBIG);
    phx_record_fini(&r);
}

static void write_unsorted(void)
{
    struct phx_record r;

    phx_record_init(&r);
    phx_record_int(&r, "b", 1);
    phx_record_int(&r, "a", 1);
}

static void write_twice(void)
{
    struct phx_record r;

    phx_record_init(&r);
    phx_record_open(&r, "a");
    phx_record_int(&r, "b", 1);
    phx_record_int(&r, "b", 1);
}

static void write_unclosed(void)
{
    struct phx_record r;

    phx_record_init(&r);
    phx_record_open(&r, "a");
    if (phx_record_end(&r, NULL) != 0)
        _exit(1);
}

static void check_aborts(void (*fn)(void))
{
    int   status = 0;
    pid_t pid = fork();

    assert_true(pid >= 0);
    if (pid == 0) {
        (void)signal(SIGABRT, SIG_DFL);
        (void)close(2); /* the message is expected */
        fn();
        _exit(0);
    }
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
}

static void test_order_is_asserted(void **state)
{
    (void)state;
    check_aborts(write_unsorted);
    check_aborts(write_twice);
    check_aborts(write_unclosed);
}

static void test_commitments(void **state)
{
    /* HMAC-SHA256(32 bytes 0x0b, ids as little-endian 32-bit), computed with Python's hmac */
    static const int32_t ids[] = {1, -1, 200000};
    static const uint8_t bytes[] = {1, 0, 0, 0, 255, 255, 255, 255, 0x40, 0x0d, 3, 0};
    uint8_t              salt[PHX_SALT_BYTES];
    char                 of_ids[65], of_bytes[65];

    (void)state;
    memset(salt, 0x0b, sizeof(salt));
    phx_audit_commit(salt, ids, 3, of_ids);
    phx_audit_commit_bytes(salt, bytes, sizeof(bytes), of_bytes);
    assert_string_equal(of_ids, of_bytes);
    assert_string_equal(of_ids, "7f67e773666e583d9d21f9213e89ed7e617e7b807fb3581e63ceafcc2a843679");
    salt[31] ^= 1;
    phx_audit_commit(salt, ids, 3, of_ids);
    assert_string_not_equal(of_ids, of_bytes);
}

static void test_receipts_differ(void **state)
{
    char a[PHX_RECEIPT_BYTES], b[PHX_RECEIPT_BYTES];

    (void)state;
    phx_receipt_make(a);
    phx_receipt_make(b);
    assert_int_equal(strlen(a), 37);
    assert_memory_equal(a, "rcpt_", 5);
    assert_int_equal(strspn(a + 5, "0123456789abcdef"), 32);
    assert_string_not_equal(a, b);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_nested_and_sorted),
        cmocka_unit_test(test_only_the_outer_time_counts),
        cmocka_unit_test(test_escapes),
        cmocka_unit_test(test_bytes_that_are_no_utf8),
        cmocka_unit_test(test_too_long),
        cmocka_unit_test(test_order_is_asserted),
        cmocka_unit_test(test_commitments),
        cmocka_unit_test(test_receipts_differ),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
