/* SPDX-License-Identifier: Apache-2.0
 * Erasing: one answer, a month, by age; what holds and the floor keep. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "vault_world.h"

static int setup(void **state)
{
    struct world *w = phx_mem_calloc(1, sizeof(*w));

    world_make(w);
    *state = w;
    return 0;
}

static int teardown(void **state)
{
    world_remove(*state);
    phx_mem_free(*state);
    return 0;
}

static void keep(struct world *w, const char *receipt, const char *tenant, const char *user,
                 enum phx_privacy mode, int64_t at_ns, int32_t days)
{
    struct kept k = {receipt, tenant, user, mode, at_ns, days, "the question", "the answer", "", ""};

    assert_int_equal(put(w, &k), 0);
}

static void expect_gone(struct world *w, const char *receipt)
{
    struct phx_content_text t;

    assert_int_equal(get(w, receipt, &t), PHX_E_STATE);
    assert_non_null(strstr(w->err.text, "was shredded on 2026-"));
}

/* Rows that still hold a key, a salt, a text or a user. */
static int64_t remains(struct world *w)
{
    return scratch_int(&w->s, "SELECT count(*) FROM content WHERE salt IS NOT NULL OR wrapped_dek IS NOT NULL"
                              " OR request IS NOT NULL OR request_tag IS NOT NULL OR response IS NOT NULL"
                              " OR response_tag IS NOT NULL OR user <> ''");
}

static void test_shred_one(void **state)
{
    struct world *w = *state;

    for (enum phx_privacy m = PHX_PRIVACY_COMMIT_ONLY; m <= PHX_PRIVACY_CLEAR; m++) {
        char receipt[16];

        (void)snprintf(receipt, sizeof(receipt), "rcpt_%d", (int)m);
        keep(w, receipt, "acme", "u-1", m, NOV, 0);
        keep(w, m == PHX_PRIVACY_ENCRYPTED ? "rcpt_stays" : receipt + 4, "acme", "u-2", PHX_PRIVACY_ENCRYPTED,
             NOV, 0);
        assert_int_equal(shred(w, receipt, NOV + DAY), 0);
        expect_gone(w, receipt);
        assert_int_equal(shred(w, receipt, NOV + DAY), PHX_E_STATE);
    }
    assert_reads(w, "rcpt_stays", "the question", "the answer");
    assert_int_equal(remains(w), 3);
    assert_int_equal(leaves(w, "shred", "\"by\":\"alice\""), 3);
    assert_int_equal(leaves(w, "shred", "\"subject\":\"rcpt_2\""), 1);
    assert_int_equal(shred(w, "rcpt_none", NOV), PHX_E_NOTFOUND);
    assert_int_equal(scratch_int(&w->s, "SELECT count(*) FROM content"), 6); /* that it was there stays */
}

/* An answer that is still being written when its request is shredded is not kept, and that is no error. */
static void test_shred_under_way(void **state)
{
    struct world *w = *state;
    struct kept   k = {"rcpt_1", "acme", "u", PHX_PRIVACY_ENCRYPTED, NOV, 0, "question", "answer", "", ""};
    struct kept   l = {"rcpt_2", "acme", "u", PHX_PRIVACY_CLEAR, NOV, 0, "question", "answer", "", ""};

    assert_int_equal(put_request(w, &k), 0);
    assert_int_equal(put_request(w, &l), 0);
    assert_int_equal(shred(w, "rcpt_1", NOV + 1), 0);
    assert_int_equal(put_response(w, &k), 0);
    assert_string_equal(k.response_sha256, "");
    assert_int_equal(shred_month(w, "acme", "2026-11", NOV + 2), 0);
    assert_int_equal(put_response(w, &l), 0);
    assert_string_equal(l.response_sha256, "");
    assert_int_equal(sweep(w, 10), 1);
    assert_int_equal(remains(w), 0);
}

static void test_shred_month(void **state)
{
    struct world *w = *state;

    keep(w, "rcpt_a1", "acme", "u-1", PHX_PRIVACY_ENCRYPTED, NOV, 0);
    keep(w, "rcpt_a2", "acme", "u-2", PHX_PRIVACY_CLEAR, NOV, 0);
    keep(w, "rcpt_a3", "acme", "u-2", PHX_PRIVACY_COMMIT_ONLY, NOV, 0);
    keep(w, "rcpt_dec", "acme", "u-1", PHX_PRIVACY_ENCRYPTED, NOV + 30 * DAY, 0);
    keep(w, "rcpt_b1", "other", "u-1", PHX_PRIVACY_ENCRYPTED, NOV, 0);

    assert_int_equal(shred_month(w, "acme", "2026-13", NOV + DAY), PHX_E_INVALID);
    assert_int_equal(shred_month(w, "acme", "2026-1", NOV + DAY), PHX_E_INVALID);
    assert_int_equal(shred_month(w, "acme", "2026-10", NOV + DAY), PHX_E_NOTFOUND);
    assert_int_equal(shred_month(w, "acme", "2026-11", NOV + DAY), 0);
    expect_gone(w, "rcpt_a1"); /* at once: the sweep has not run */
    expect_gone(w, "rcpt_a2");
    expect_gone(w, "rcpt_a3");
    assert_int_equal(leaves(w, "shred", "period=2026-11"), 1);

    keep(w, "rcpt_new", "acme", "u-1", PHX_PRIVACY_ENCRYPTED, NOV + 2 * DAY, 0); /* the month goes on */
    assert_int_equal(sweep(w, 2), 2);
    assert_int_equal(sweep(w, 2), 1);
    assert_int_equal(sweep(w, 2), 0);
    assert_int_equal(remains(w), 3);
    expect_gone(w, "rcpt_a1");
    assert_reads(w, "rcpt_new", "the question", "the answer");
    assert_reads(w, "rcpt_dec", "the question", "the answer");
    assert_reads(w, "rcpt_b1", "the question", "the answer");
}

/* ---- holds --------------------------------------------------------------------------------------------------- */

static void expect_held(struct world *w, int rc, const char *name)
{
    assert_int_equal(rc, PHX_E_STATE);
    assert_non_null(strstr(w->err.text, name));
}

static void test_hold_on_tenant(void **state)
{
    struct world *w = *state;

    keep(w, "rcpt_1", "acme", "u-1", PHX_PRIVACY_ENCRYPTED, NOV, 0);
    keep(w, "rcpt_2", "other", "u-1", PHX_PRIVACY_ENCRYPTED, NOV, 0);
    assert_int_equal(hold(w, "case-7", "acme", ""), 0);
    assert_int_equal(hold(w, "case-7", "acme", ""), PHX_E_STATE);
    assert_int_equal(leaves(w, "admin", "hold.open"), 1);

    expect_held(w, shred(w, "rcpt_1", NOV), "case-7");
    expect_held(w, shred_month(w, "acme", "2026-11", NOV), "case-7");
    assert_int_equal(expire(w, NOV + 400 * DAY, 10), 1); /* the other tenant's */
    assert_reads(w, "rcpt_1", "the question", "the answer");

    assert_int_equal(unhold(w, "case-7"), 0);
    assert_int_equal(unhold(w, "case-7"), PHX_E_NOTFOUND);
    assert_int_equal(leaves(w, "admin", "hold.close"), 1);
    assert_int_equal(hold(w, "case-7", "acme", ""), PHX_E_STATE); /* a name is used once */
    assert_int_equal(shred(w, "rcpt_1", NOV), 0);
}

static void test_hold_on_user(void **state)
{
    struct world *w = *state;

    keep(w, "rcpt_1", "acme", "u-1", PHX_PRIVACY_ENCRYPTED, NOV, 0);
    keep(w, "rcpt_2", "acme", "u-2", PHX_PRIVACY_ENCRYPTED, NOV, 0);
    keep(w, "rcpt_3", "acme", "u-2", PHX_PRIVACY_ENCRYPTED, NOV + 30 * DAY, 0);
    assert_int_equal(hold(w, "case-8", "", "u-1"), 0);
    expect_held(w, shred(w, "rcpt_1", NOV), "case-8");
    expect_held(w, shred_month(w, "acme", "2026-11", NOV), "case-8"); /* u-1 is in it */
    assert_int_equal(shred_month(w, "acme", "2026-12", NOV), 0);      /* and not in this one */
    assert_int_equal(shred(w, "rcpt_2", NOV), 0);
    assert_int_equal(hold(w, "case-9", "acme", "u-3"), 0);
    expect_held(w, shred(w, "rcpt_1", NOV), "case-8");
    assert_int_equal(expire(w, NOV + 400 * DAY, 10), 1); /* what is left of December */
    assert_reads(w, "rcpt_1", "the question", "the answer");
}

static void test_hold_texts(void **state)
{
    struct world *w = *state;

    assert_int_equal(hold(w, "case 7", "acme", ""), PHX_E_INVALID);
    assert_int_equal(hold(w, "", "acme", ""), PHX_E_INVALID);
    assert_int_equal(hold(w, "case-7", "", ""), PHX_E_INVALID);
    assert_int_equal(unhold(w, "case-7"), PHX_E_NOTFOUND);
}

/* ---- by age ---------------------------------------------------------------------------------------------------- */

static void test_classes(void **state)
{
    int32_t days;

    (void)state;
    assert_int_equal(phx_retention_days("standard", &days, NULL), 0);
    assert_int_equal(days, 184);
    assert_int_equal(phx_retention_days("phi-6y", &days, NULL), 0);
    assert_int_equal(days, 2192); /* six years with two leap days */
    assert_int_equal(phx_retention_days("sec-6y", &days, NULL), 0);
    assert_int_equal(days, 2192);
    assert_int_equal(phx_retention_days("year-1", &days, NULL), 0);
    assert_int_equal(days, 366);
    assert_int_equal(phx_retention_days("year-10", &days, NULL), 0);
    assert_int_equal(days, 3653);
    assert_int_equal(phx_retention_days("short", &days, NULL), PHX_E_INVALID);
}

static void test_expire(void **state)
{
    struct world *w = *state;
    char          receipt[16];

    for (int i = 0; i < 5; i++) {
        (void)snprintf(receipt, sizeof(receipt), "rcpt_%d", i);
        keep(w, receipt, i < 3 ? "acme" : "other", "u", PHX_PRIVACY_ENCRYPTED, NOV, 0);
    }
    keep(w, "rcpt_long", "acme", "u", PHX_PRIVACY_ENCRYPTED, NOV, 366);
    assert_int_equal(expire(w, NOV + 184 * DAY - 1, 10), 0);
    assert_int_equal(expire(w, NOV + 184 * DAY, 2), 2);
    assert_int_equal(expire(w, NOV + 184 * DAY, 10), 3);
    assert_int_equal(expire(w, NOV + 184 * DAY, 10), 0);
    assert_int_equal(leaves(w, "shred", "content.expire"), 3); /* a leaf per call, tenant and month */
    assert_int_equal(leaves(w, "shred", "count=2"), 2);
    assert_int_equal(leaves(w, "shred", "count=1"), 1);
    assert_reads(w, "rcpt_long", "the question", "the answer");
    assert_int_equal(remains(w), 1);
    /* The key of the month goes with the last of its content. */
    assert_int_equal(scratch_int(&w->s, "SELECT wrapped IS NULL FROM tenant_kek WHERE tenant = 'other'"), 1);
    assert_int_equal(scratch_int(&w->s, "SELECT wrapped IS NULL FROM tenant_kek WHERE tenant = 'acme'"), 0);
    assert_int_equal(expire(w, NOV + 366 * DAY, 10), 1);
    assert_int_equal(scratch_int(&w->s, "SELECT wrapped IS NULL FROM tenant_kek WHERE tenant = 'acme'"), 1);
    assert_int_equal(leaves(w, "shred", "content.key-end"), 2);
}

/* Also a row whose time was moved is kept for the floor. */
static void test_floor(void **state)
{
    struct world *w = *state;

    keep(w, "rcpt_1", "acme", "u", PHX_PRIVACY_ENCRYPTED, NOV, 0);
    scratch_sql(&w->s, "UPDATE content SET keep_until_ns = 1");
    assert_int_equal(expire(w, NOV + 183 * DAY, 10), 0);
    assert_int_equal(remains(w), 1);
    assert_int_equal(expire(w, NOV + 184 * DAY, 10), 1);
}

/* A sweep that was cut off by a crash goes on in the next expiry. */
static void test_expire_sweeps(void **state)
{
    struct world *w = *state;

    keep(w, "rcpt_1", "acme", "u", PHX_PRIVACY_CLEAR, NOV, 0);
    assert_int_equal(shred_month(w, "acme", "2026-11", NOV), 0);
    assert_int_equal(remains(w), 1);
    assert_int_equal(expire(w, NOV, 10), 1);
    assert_int_equal(remains(w), 0);
}

static void test_names_end(void **state)
{
    const int64_t new_year = NOV + 46 * DAY + DAY / 2; /* 2027-01-01T00:00:00Z */
    struct world *w = *state;
    char          a[65], b[65];

    assert_int_equal(pseudonym(w, "acme", "u", NOV, a), 0);
    assert_int_equal(expire(w, new_year + 184 * DAY - 1, 10), 0);
    assert_int_equal(pseudonym(w, "acme", "u", NOV, b), 0);
    assert_string_equal(a, b);
    assert_int_equal(hold(w, "case-7", "acme", "u"), 0);
    assert_int_equal(expire(w, new_year + 184 * DAY, 10), 0);
    assert_int_equal(pseudonym(w, "acme", "u", NOV, b), 0);
    assert_string_equal(a, b);
    assert_int_equal(unhold(w, "case-7"), 0);
    scratch_sql(&w->s, "INSERT INTO tenant(tenant, retention) VALUES('acme', 'phi-6y')");
    assert_int_equal(expire(w, new_year + 184 * DAY, 10), 0);
    assert_int_equal(pseudonym(w, "acme", "u", NOV, b), 0);
    assert_string_equal(a, b);
    assert_int_equal(expire(w, new_year + 2192 * DAY, 10), 0);
    assert_int_equal(scratch_int(&w->s, "SELECT count(*) FROM tenant_kek WHERE wrapped IS NOT NULL"), 0);
    assert_int_equal(pseudonym(w, "acme", "u", NOV, b), 0);
    assert_string_not_equal(a, b); /* whoever asks again gets another name: the old ones cannot be linked */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_shred_one, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shred_under_way, setup, teardown),
        cmocka_unit_test_setup_teardown(test_shred_month, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hold_on_tenant, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hold_on_user, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hold_texts, setup, teardown),
        cmocka_unit_test(test_classes),
        cmocka_unit_test_setup_teardown(test_expire, setup, teardown),
        cmocka_unit_test_setup_teardown(test_floor, setup, teardown),
        cmocka_unit_test_setup_teardown(test_expire_sweeps, setup, teardown),
        cmocka_unit_test_setup_teardown(test_names_end, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
