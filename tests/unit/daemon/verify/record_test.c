/* SPDX-License-Identifier: Apache-2.0
 * The scanner of canonical records and the rules between them, without files. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/verify/verify.h"

#define BASE "\"at_ns\":1,\"kind\":\"key\",\"receipt\":\"r\",\"v\":1"

static int scan(const char *text, struct phx_fields *f)
{
    struct phx_err err;

    return phx_record_scan(text, strlen(text), f, &err);
}

static void test_fields(void **state)
{
    struct phx_fields f;

    (void)state;
    assert_int_equal(scan("{\"at_ns\":-7,\"cost\":{\"cached\":3,\"upper\":9223372036854775807},\"kind\":\"a\\\"b\","
                          "\"who\":{\"tenant\":\"t\",\"x\":{\"user\":\"deep\"}}}", &f), 0);
    assert_int_equal(f.f[PHX_F_AT_NS].number, -7);
    assert_int_equal(f.f[PHX_F_CACHED].number, 3);
    assert_true(f.f[PHX_F_UPPER].number == INT64_MAX);
    assert_true(phx_slice_is(f.f[PHX_F_KIND].text, "a\\\"b"));
    assert_true(phx_slice_means(f.f[PHX_F_KIND].text, "a\"b"));
    assert_false(phx_slice_means(f.f[PHX_F_KIND].text, "a\"bc"));
    assert_true(phx_slice_is(f.f[PHX_F_WHO_TENANT].text, "t"));
    assert_int_equal(f.f[PHX_F_WHO_USER].type, PHX_V_NONE); /* of a deeper object */
    assert_int_equal(f.f[PHX_F_TENANT].type, PHX_V_NONE);   /* of another one */
}

static void test_one_spelling(void **state)
{
    static const char *const bad[] = {
        "", "{", "{}x", "[]", "{" BASE ",\"v\":1}", "{\"b\":1,\"a\":1}", "{\"a\":1,}", "{\"a\" :1}", "{\"a\":01}",
        "{\"a\":-0}", "{\"a\":-}", "{\"a\":1.0}", "{\"a\":9223372036854775808}", "{\"a\":-9223372036854775809}",
        "{\"a\":\"\\/\"}", "{\"a\":\"\\u0041\"}", "{\"a\":\"\\u000a\"}", "{\"a\":\"\\u001F\"}", "{\"a\":\"\n\"}",
        "{\"a\":\"\xff\"}", "{\"a\":\"\\", "{\"a\":\"\\u00", "{\"a\":true}", "{\"a\":[]}",
        "{\"\\t\":1,\"\\u0001\":1}", "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{}}}}}}}}}",
    };
    static const char *const good[] = {
        "{}", "{" BASE "}", "{\"a\":-9223372036854775808}", "{\"a\":\"\\u0000\\u001f\\b\"}", "{\"\\u0001\":1,\"\\t\":1}",
        "{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":{\"a\":1}}}}}}}", "{\"\":0,\"\\\"\":1}",
    };
    struct phx_fields f;

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (scan(bad[i], &f) != PHX_E_FORMAT)
            fail_msg("accepted: %s", bad[i]);
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (scan(good[i], &f) != 0)
            fail_msg("refused: %s", good[i]);
}

static void push(struct phx_rules *r, uint64_t leaf, const char *kind, int receipt, int epoch)
{
    char text[512];

    (void)snprintf(text, sizeof(text),
                   strcmp(kind, "intent") == 0
                       ? "{\"asked\":{},\"at_ns\":1,\"engine\":{},\"epoch\":%d,\"kind\":\"intent\",\"model\":{},"
                         "\"receipt\":\"r%d\",\"rules\":{},\"sample\":{},\"v\":1,\"who\":{\"tenant\":\"\",\"user\":\"\"}}"
                   : strcmp(kind, "result") == 0
                       ? "{\"at_ns\":1,\"cost\":{\"cached\":0,\"compute_ms\":0,\"output\":0,\"prompt\":0,\"queue_ms\":0,"
                         "\"reasoning\":0,\"upper\":0},\"epoch\":%d,\"finish\":\"\",\"kind\":\"result\",\"out\":{},"
                         "\"receipt\":\"r%d\",\"timing\":{},\"v\":1}"
                       : "{\"at_ns\":1,\"epoch\":%d,\"event\":\"daemon.start\",\"kind\":\"admin\",\"receipt\":\"s%d\","
                         "\"v\":1}",
                   epoch, receipt);
    phx_rules_push(r, leaf, text, strlen(text));
}

/* More requests than are remembered: memory stays bounded, old finished ones are forgotten and it says so. */
static void test_many_receipts(void **state)
{
    enum { MANY = PHX_V_CLOSED_MAX + 1000 };
    struct phx_report report;
    struct phx_rules  r;

    (void)state;
    phx_report_init(&report, "many");
    phx_rules_init(&r, &report);
    push(&r, 0, "start", 0, 1);
    for (int i = 0; i < MANY; i++) {
        push(&r, 1, "intent", i, 1);
        push(&r, 2, "result", i, 1);
    }
    assert_int_equal(report.n_problems, 0);
    assert_true(r.is_forgetful);
    assert_true(r.n_slots <= 4 * (size_t)PHX_V_CLOSED_MAX);
    assert_int_equal(r.n_open, 0);
    push(&r, 3, "intent", MANY - 1, 1); /* a fresh one is remembered */
    assert_int_equal(report.n_problems, 1);
    assert_int_equal(phx_report_verdict(&report), PHX_V_TAMPERED);
    phx_rules_fini(&r);
    phx_report_fini(&report);
}

static void test_lost_at_start(void **state)
{
    struct phx_report report;
    struct phx_rules  r;

    (void)state;
    phx_report_init(&report, "lost");
    phx_rules_init(&r, &report);
    push(&r, 0, "start", 0, 1);
    for (int i = 0; i < 5000; i++)
        push(&r, 1, "intent", i, 1);
    push(&r, 2, "start", 1, 2);
    assert_int_equal(report.n_problems, 5000);
    assert_int_equal(json_array_size(report.problems), 20);
    assert_int_equal(phx_report_verdict(&report), PHX_V_INCOMPLETE);
    push(&r, 3, "result", 17, 2); /* too late */
    assert_int_equal(phx_report_verdict(&report), PHX_V_TAMPERED);
    phx_rules_fini(&r);
    phx_report_fini(&report);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_fields),
        cmocka_unit_test(test_one_spelling),
        cmocka_unit_test(test_many_receipts),
        cmocka_unit_test(test_lost_at_start),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
