/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/store/store.h"
#include "daemon/tenant/tenant.h"
#include "scratch.h"

#define HASH "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff"

struct world {
    struct scratch    s;
    struct phx_store *store;
    struct phx_err    err;
    struct phx_tenant t;
    const char       *name, *by;
    char              names[256]; /* of the list, each with a blank behind it */
};

static struct world w;

static int setup(void **state)
{
    (void)state;
    memset(&w, 0, sizeof(w));
    scratch_make(&w.s);
    return phx_store_open(w.s.db, NULL, &w.store, &w.err);
}

static int teardown(void **state)
{
    (void)state;
    phx_store_close(w.store);
    scratch_remove(&w.s);
    return 0;
}

static int do_get(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    (void)ctx;
    return phx_tenant_get(tx, w.name, &w.t, err);
}

static int do_set(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    (void)ctx;
    return phx_tenant_set(tx, &w.t, w.by, 1000, err);
}

static int add_name(void *ctx, const struct phx_tenant *t)
{
    (void)ctx;
    strncat(w.names, t->tenant, sizeof(w.names) - strlen(w.names) - 2);
    strcat(w.names, " ");
    return 0;
}

static int do_list(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    w.names[0] = '\0';
    return phx_tenant_list(tx, add_name, ctx, err);
}

static int get(const char *name)
{
    w.name = name;
    return phx_store_run(w.store, do_get, NULL, &w.err);
}

static int set(void)
{
    w.by = "alice";
    return phx_store_run(w.store, do_set, NULL, &w.err);
}

static void test_defaults(void **state)
{
    (void)state;
    assert_int_equal(get("acme"), 0);
    assert_string_equal(w.t.tenant, "acme");
    assert_int_equal(w.t.privacy, PHX_PRIVACY_COMMIT_ONLY);
    assert_string_equal(w.t.retention, "standard");
    assert_string_equal(w.t.replay, "");
    assert_string_equal(w.t.aup_hash, "");
    assert_int_equal(scratch_int(&w.s, "SELECT count(*) FROM tenant"), 0);
}

static void test_set(void **state)
{
    (void)state;
    assert_int_equal(get("acme"), 0);
    w.t.privacy = PHX_PRIVACY_ENCRYPTED;
    (void)snprintf(w.t.retention, sizeof(w.t.retention), "phi-6y");
    (void)snprintf(w.t.replay, sizeof(w.t.replay), "A");
    (void)snprintf(w.t.aup_hash, sizeof(w.t.aup_hash), HASH);
    (void)snprintf(w.t.aup_by, sizeof(w.t.aup_by), "Dr. Ann Smith");
    w.t.aup_ns = 77;
    assert_int_equal(set(), 0);
    memset(&w.t, 0, sizeof(w.t));
    assert_int_equal(get("acme"), 0);
    assert_int_equal(w.t.privacy, PHX_PRIVACY_ENCRYPTED);
    assert_string_equal(w.t.retention, "phi-6y");
    assert_string_equal(w.t.replay, "A");
    assert_string_equal(w.t.aup_hash, HASH);
    assert_string_equal(w.t.aup_by, "Dr. Ann Smith");
    assert_int_equal(w.t.aup_ns, 77);
    assert_int_equal(scratch_int(&w.s, "SELECT count(*) FROM audit WHERE kind = 'admin'"
                                       " AND instr(record, 'tenant.set') AND instr(record, 'alice')"
                                       " AND instr(record, 'privacy=encrypted retention=phi-6y replay=A')"
                                       " AND instr(record, '" HASH "')"), 1);
    (void)snprintf(w.t.tenant, sizeof(w.t.tenant), "zebra");
    assert_int_equal(set(), 0);
    assert_int_equal(phx_store_run(w.store, do_list, NULL, &w.err), 0);
    assert_string_equal(w.names, "acme zebra ");
    assert_int_equal(get("other"), 0);
    assert_int_equal(w.t.privacy, PHX_PRIVACY_COMMIT_ONLY);
}

static void expect_refused(const char *field)
{
    assert_int_equal(set(), PHX_E_INVALID);
    assert_non_null(strstr(w.err.text, field));
    assert_int_equal(scratch_int(&w.s, "SELECT (SELECT count(*) FROM tenant) + (SELECT count(*) FROM audit)"),
                     0);
    assert_int_equal(get("acme"), 0);
}

static void test_refused(void **state)
{
    (void)state;
    assert_int_equal(get("acme"), 0);
    w.t.tenant[0] = '\0';
    expect_refused("tenant");
    (void)snprintf(w.t.tenant, sizeof(w.t.tenant), "a b");
    expect_refused("tenant");
    w.t.privacy = 0;
    expect_refused("privacy");
    w.t.privacy = 4;
    expect_refused("privacy");
    (void)snprintf(w.t.retention, sizeof(w.t.retention), "one-day");
    expect_refused("retention");
    (void)snprintf(w.t.replay, sizeof(w.t.replay), "C");
    expect_refused("replay");
    (void)snprintf(w.t.aup_hash, sizeof(w.t.aup_hash), "AB");
    expect_refused("aup_hash");
    (void)snprintf(w.t.aup_hash, sizeof(w.t.aup_hash), HASH);
    expect_refused("aup_by"); /* nobody has signed it */
    (void)snprintf(w.t.aup_by, sizeof(w.t.aup_by), "Ann");
    expect_refused("aup_by"); /* a signature under nothing */
    (void)snprintf(w.t.aup_hash, sizeof(w.t.aup_hash), HASH);
    (void)snprintf(w.t.aup_by, sizeof(w.t.aup_by), "Ann");
    expect_refused("aup_ns");
}

static void test_damaged_row(void **state)
{
    (void)state;
    scratch_sql(&w.s, "INSERT INTO tenant(tenant, privacy) VALUES('acme', 'none')");
    assert_int_equal(get("acme"), PHX_E_FORMAT); /* never falls back to something less private */
}

static void test_purpose(void **state)
{
    char long_one[66];

    (void)state;
    memset(long_one, 'a', 65);
    long_one[65] = '\0';
    assert_int_equal(phx_purpose_check("credit-scoring-2", NULL), 0);
    assert_int_equal(phx_purpose_check("", NULL), PHX_E_INVALID);
    assert_int_equal(phx_purpose_check("Credit", NULL), PHX_E_INVALID);
    assert_int_equal(phx_purpose_check("a b", NULL), PHX_E_INVALID);
    assert_int_equal(phx_purpose_check(long_one, NULL), PHX_E_INVALID);
    long_one[64] = '\0';
    assert_int_equal(phx_purpose_check(long_one, NULL), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_defaults, setup, teardown),
        cmocka_unit_test_setup_teardown(test_set, setup, teardown),
        cmocka_unit_test_setup_teardown(test_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(test_damaged_row, setup, teardown),
        cmocka_unit_test(test_purpose),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
