/* SPDX-License-Identifier: Apache-2.0
 * The licence: signature before parsing, every state by its day, damage and strangers refused. */
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/license/license.h"
#include "rpc/base/buf.h"
#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "scratch.h"

static const int64_t SECOND = 1000000000, DAY = INT64_C(86400) * 1000000000;

static const char PAYLOAD[] =
    "{\"class\":\"commercial\",\"continuity_days\":10,\"customer\":\"Acme\",\"grace_days\":14,"
    "\"id\":\"L1\",\"max_concurrent\":3,\"not_after\":2000000,\"not_before\":1000000,\"serial\":7,"
    "\"warn_days\":2}";

static uint8_t public_key[1][32], secret_key[64];

static int setup(void **state)
{
    (void)state;
    if (sodium_init() < 0)
        return -1;
    return crypto_sign_keypair(public_key[0], secret_key);
}

static int parse(const char *text, struct phx_license **out, struct phx_err *err)
{
    return phx_license_parse(text, strlen(text), (const uint8_t(*)[32])public_key, 1, out, err);
}

static void test_states_by_day(void **state)
{
    const int64_t end = 2000000 * SECOND;
    const struct {
        int64_t                at;
        enum phx_license_state expected;
        const char            *rule;
    } cases[] = {
        {1000000 * SECOND - 1, PHX_LICENSE_EARLY, "licence.early"},
        {1000000 * SECOND, PHX_LICENSE_VALID, ""},
        {end - 2 * DAY - 1, PHX_LICENSE_VALID, ""},
        {end - 2 * DAY, PHX_LICENSE_EXPIRING, ""},
        {end - 1, PHX_LICENSE_EXPIRING, ""},
        {end, PHX_LICENSE_GRACE, ""},
        {end + 14 * DAY - 1, PHX_LICENSE_GRACE, ""},
        {end + 14 * DAY, PHX_LICENSE_CONTINUITY, ""},
        {end + 24 * DAY - 1, PHX_LICENSE_CONTINUITY, ""},
        {end + 24 * DAY, PHX_LICENSE_EXPIRED, "licence.expired"},
    };
    struct phx_license *l = NULL;
    struct phx_err      err = {0};
    char               *text = NULL;

    (void)state;
    assert_int_equal(phx_license_sign(PAYLOAD, secret_key, &text, &err), 0);
    assert_int_equal(parse(text, &l, &err), 0);
    assert_string_equal(phx_license_facts(l)->customer, "Acme");
    assert_int_equal(phx_license_facts(l)->serial, 7);
    assert_int_equal(phx_license_facts(l)->max_concurrent, 3);
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        const char *rule = NULL;
        int         rc = phx_license_check(l, cases[i].at, &rule, &err);

        assert_int_equal(phx_license_state(l, cases[i].at), cases[i].expected);
        assert_int_equal(rc, cases[i].rule[0] == '\0' ? 0 : PHX_E_LICENSE);
        assert_string_equal(rule, cases[i].rule);
    }
    phx_license_close(l);
    phx_mem_free(text);
}

/* Any changed byte of the payload or the signature is refused, and never crashes the parser. */
static void test_every_changed_byte_is_refused(void **state)
{
    struct phx_license *l = NULL;
    struct phx_err      err = {0};
    char               *text = NULL;
    size_t              from, to;

    (void)state;
    assert_int_equal(phx_license_sign(PAYLOAD, secret_key, &text, &err), 0);
    from = (size_t)(strstr(text, "\"payload\":\"") - text) + strlen("\"payload\":\"");
    to = (size_t)(strchr(text + from, '"') - text);
    for (size_t i = from; i < to; i++) {
        char kept = text[i];

        text[i] = kept == 'A' ? 'B' : 'A';
        assert_true(parse(text, &l, &err) < 0);
        assert_null(l);
        text[i] = kept;
    }
    from = (size_t)(strstr(text, "\"sig\":\"") - text) + strlen("\"sig\":\"");
    for (size_t i = from; text[i] != '"' && text[i] != '='; i++) {
        char kept = text[i];

        text[i] = kept == 'A' ? 'B' : 'A';
        assert_int_equal(parse(text, &l, &err), PHX_E_LICENSE);
        text[i] = kept;
    }
    assert_int_equal(parse(text, &l, &err), 0);
    phx_license_close(l);
    phx_mem_free(text);
}

static void test_a_strangers_signature_is_refused(void **state)
{
    uint8_t             other_public[32], other_secret[64];
    struct phx_license *l = NULL;
    struct phx_err      err = {0};
    char               *text = NULL;

    (void)state;
    assert_int_equal(crypto_sign_keypair(other_public, other_secret), 0);
    assert_int_equal(phx_license_sign(PAYLOAD, other_secret, &text, &err), 0);
    assert_int_equal(parse(text, &l, &err), PHX_E_LICENSE);
    assert_null(l);
    phx_mem_free(text);
}

static void test_signed_nonsense_is_refused(void **state)
{
    static const char *const payloads[] = {
        "", "[]", "{}", "{\"id\":\"x\",\"unknown\":1}",
        "{\"class\":\"c\",\"customer\":\"x\",\"id\":\"L\",\"serial\":1.5,\"not_before\":1,\"not_after\":2}",
        "{\"class\":\"c\",\"customer\":\"x\",\"id\":\"L\",\"serial\":1,\"not_before\":5,\"not_after\":2}",
    };

    (void)state;
    for (size_t i = 0; i < sizeof(payloads) / sizeof(payloads[0]); i++) {
        struct phx_license *l = NULL;
        struct phx_err      err = {0};
        char               *text = NULL;

        assert_int_equal(phx_license_sign(payloads[i], secret_key, &text, &err), 0);
        assert_true(parse(text, &l, &err) < 0);
        assert_null(l);
        phx_mem_free(text);
    }
}

static void test_an_evaluation_is_made_once(void **state)
{
    struct scratch      s;
    struct phx_license *l = NULL;
    struct phx_err      err = {0};
    char                file[128], issuers[128], first[65];
    int64_t             now = phx_clock_wall_ns();

    (void)state;
    scratch_make(&s);
    (void)snprintf(file, sizeof(file), "%s/license.json", s.dir);
    (void)snprintf(issuers, sizeof(issuers), "%s/issuers.pub", s.dir);
    assert_int_equal(phx_license_open(file, issuers, &l, &err), PHX_E_IO);
    assert_int_equal(phx_license_ensure_evaluation(file, issuers, &err), 0);
    assert_int_equal(phx_license_open(file, issuers, &l, &err), 0);
    assert_string_equal(phx_license_facts(l)->class_name, "evaluation");
    assert_int_equal(phx_license_state(l, now), PHX_LICENSE_VALID);
    assert_int_equal(phx_license_state(l, now + 31 * DAY), PHX_LICENSE_GRACE);
    assert_int_equal(phx_license_state(l, now + 45 * DAY), PHX_LICENSE_EXPIRED);
    (void)snprintf(first, sizeof(first), "%s", phx_license_facts(l)->id);
    phx_license_close(l);
    assert_int_equal(phx_license_ensure_evaluation(file, issuers, &err), 0);
    assert_int_equal(phx_license_open(file, issuers, &l, &err), 0);
    assert_string_equal(phx_license_facts(l)->id, first);
    phx_license_close(l);
    scratch_remove(&s);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_states_by_day),
        cmocka_unit_test(test_every_changed_byte_is_refused),
        cmocka_unit_test(test_a_strangers_signature_is_refused),
        cmocka_unit_test(test_signed_nonsense_is_refused),
        cmocka_unit_test(test_an_evaluation_is_made_once),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
