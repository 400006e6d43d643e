/* SPDX-License-Identifier: Apache-2.0
 * The table of states, cell by cell. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
/* cmocka needs the headers above first */
#include <cmocka.h>

#include "rpc/base/mem.h"
#include "tests/unit/daemon/license/forge.h"

enum { SERVE = PHX_VERDICT_SERVE, OVERDRAFT = PHX_VERDICT_OVERDRAFT, REFUSE = PHX_VERDICT_REFUSE };

static struct forge forge;

static int set_up(void **state)
{
    (void)state;
    forge_init(&forge);
    return 0;
}

static void states_follow_the_dates(void **state)
{
    static const struct {
        const char            *at;
        enum phx_license_state expected;
    } cases[] = {
        {"1970-01-01T00:00:00Z", PHX_LICENSE_EARLY},
        {"2026-12-31T23:59:59Z", PHX_LICENSE_EARLY},
        {"2027-01-01T00:00:00Z", PHX_LICENSE_VALID},
        {"2028-02-29T12:00:00Z", PHX_LICENSE_VALID},
        {"2028-12-01T23:59:59Z", PHX_LICENSE_VALID},
        {"2028-12-02T00:00:00Z", PHX_LICENSE_EXPIRING},
        {"2028-12-31T23:59:59Z", PHX_LICENSE_EXPIRING},
        {"2029-01-01T00:00:00Z", PHX_LICENSE_GRACE},
        {"2029-01-14T23:59:59Z", PHX_LICENSE_GRACE},
        {"2029-01-15T00:00:00Z", PHX_LICENSE_CONTINUITY},
        {"2029-03-15T23:59:59Z", PHX_LICENSE_CONTINUITY},
        {"2029-03-16T00:00:00Z", PHX_LICENSE_EXPIRED},
        {"2199-12-31T23:59:59Z", PHX_LICENSE_EXPIRED},
    };
    struct phx_license *l = forge_license(&forge, forge_payload(&forge));

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(phx_license_state(l, forge_time(cases[i].at)), cases[i].expected);
    assert_int_equal(phx_license_state(NULL, 0), PHX_LICENSE_NONE);
    phx_license_free(l);
}

/* 500 seats, 10 % overdraft, 50 indirect users, an exempt cap of 100. */
static const struct cell {
    const char            *name;
    enum phx_license_state state;
    enum phx_enforce       enforce;
    bool                   is_known;
    int64_t                used;
    int                    verdict;
    const char            *rule;
    int                    warning;
} cells[] = {
    /* up to 80, 90 and 100 %: the request itself counts when it brings a new user */
    {"79 % known", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, true, 399, SERVE, "", 0},
    {"80 % known", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, true, 400, SERVE, "", 80},
    {"79 % new", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, false, 398, SERVE, "", 0},
    {"80 % new", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, false, 399, SERVE, "", 80},
    {"90 % known", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, true, 450, SERVE, "", 90},
    {"90 % new", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, false, 449, SERVE, "", 90},
    {"100 % known", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, true, 500, SERVE, "", 100},
    {"the last seat", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, false, 499, SERVE, "", 100},
    /* overdraft */
    {"first overdraft", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, false, 500, OVERDRAFT, "licence.seats", 100},
    {"last overdraft", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, false, 549, OVERDRAFT, "licence.seats", 100},
    {"overdraft known", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, true, 549, SERVE, "", 100},
    /* above */
    {"above, new, hard", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, false, 550, REFUSE, "licence.seats", 100},
    {"above, new, soft", PHX_LICENSE_VALID, PHX_ENFORCE_SOFT, false, 550, OVERDRAFT, "licence.seats", 100},
    {"above, new, observe", PHX_LICENSE_VALID, PHX_ENFORCE_OBSERVE, false, 9999, OVERDRAFT, "licence.seats", 100},
    {"above, known, hard", PHX_LICENSE_VALID, PHX_ENFORCE_HARD, true, 9999, SERVE, "", 100},
    /* expiring and grace: as valid */
    {"expiring known", PHX_LICENSE_EXPIRING, PHX_ENFORCE_HARD, true, 0, SERVE, "", 0},
    {"expiring new", PHX_LICENSE_EXPIRING, PHX_ENFORCE_HARD, false, 0, SERVE, "", 0},
    {"expiring above", PHX_LICENSE_EXPIRING, PHX_ENFORCE_HARD, false, 550, REFUSE, "licence.seats", 100},
    {"grace known", PHX_LICENSE_GRACE, PHX_ENFORCE_HARD, true, 0, SERVE, "", 0},
    {"grace new", PHX_LICENSE_GRACE, PHX_ENFORCE_HARD, false, 0, SERVE, "", 0},
    {"grace above", PHX_LICENSE_GRACE, PHX_ENFORCE_HARD, false, 550, REFUSE, "licence.seats", 100},
    /* continuity, whatever is enforced: dates are not counts */
    {"continuity known", PHX_LICENSE_CONTINUITY, PHX_ENFORCE_HARD, true, 0, SERVE, "", 0},
    {"continuity known above", PHX_LICENSE_CONTINUITY, PHX_ENFORCE_HARD, true, 9999, SERVE, "", 0},
    {"continuity new", PHX_LICENSE_CONTINUITY, PHX_ENFORCE_HARD, false, 0, REFUSE, "licence.continuity", 0},
    {"continuity new observe", PHX_LICENSE_CONTINUITY, PHX_ENFORCE_OBSERVE, false, 0, REFUSE,
     "licence.continuity", 0},
    /* expired and early */
    {"expired known", PHX_LICENSE_EXPIRED, PHX_ENFORCE_HARD, true, 0, REFUSE, "licence.expired", 0},
    {"expired new", PHX_LICENSE_EXPIRED, PHX_ENFORCE_HARD, false, 0, REFUSE, "licence.expired", 0},
    {"expired observe", PHX_LICENSE_EXPIRED, PHX_ENFORCE_OBSERVE, true, 0, REFUSE, "licence.expired", 0},
    {"early known", PHX_LICENSE_EARLY, PHX_ENFORCE_HARD, true, 0, REFUSE, "licence.early", 0},
    {"early new", PHX_LICENSE_EARLY, PHX_ENFORCE_SOFT, false, 0, REFUSE, "licence.early", 0},
};

static struct phx_license_question question_of(const struct cell *c)
{
    return (struct phx_license_question){
        .state = c->state,
        .enforce = c->enforce,
        .limits = {500, 10, 50, -1, -1, -1, -1},
        .is_known = c->is_known,
        .seats_used = c->used,
        .exempt_cap = 100,
    };
}

static void every_cell_of_the_table(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(cells) / sizeof(cells[0]); i++) {
        struct phx_license_question q = question_of(&cells[i]);
        struct phx_license_answer   a;

        phx_license_decide(&q, &a);
        if (a.verdict != (enum phx_license_verdict)cells[i].verdict || a.warning_pct != cells[i].warning ||
            strcmp(a.rule, cells[i].rule) != 0)
            fail_msg("%s: verdict %d rule %s warning %d", cells[i].name, (int)a.verdict, a.rule, a.warning_pct);
        if (a.verdict != PHX_VERDICT_SERVE)
            assert_true(strlen(a.reason) > 20);
    }
}

static void known_users_are_served_until_continuity_ends(void **state)
{
    (void)state;
    for (int s = PHX_LICENSE_VALID; s <= PHX_LICENSE_CONTINUITY; s++)
        for (int e = PHX_ENFORCE_OBSERVE; e <= PHX_ENFORCE_HARD; e++)
            for (int64_t used = 0; used < 1200; used += 7)
                for (int indirect = 0; indirect < 2; indirect++) {
                    struct phx_license_question q = {.state = (enum phx_license_state)s,
                                                     .enforce = (enum phx_enforce)e,
                                                     .limits = {500, 10, 50, -1, -1, -1, -1},
                                                     .is_known = true,
                                                     .is_indirect = indirect == 1,
                                                     .seats_used = used,
                                                     .indirect_used = used};
                    struct phx_license_answer a;

                    phx_license_decide(&q, &a);
                    assert_int_equal(a.verdict, PHX_VERDICT_SERVE);
                }
}

static void hard_limits_are_never_passed(void **state)
{
    (void)state;
    for (int64_t seats = 0; seats < 40; seats++)
        for (int64_t pct = 0; pct <= 100; pct += 5) {
            struct phx_license_question q = {.state = PHX_LICENSE_VALID, .enforce = PHX_ENFORCE_HARD};
            struct phx_license_answer   a;

            q.limits = (struct phx_license_limits){seats, pct, 0, -1, -1, -1, -1};
            for (q.seats_used = 0;; q.seats_used++) {
                phx_license_decide(&q, &a);
                if (a.verdict == PHX_VERDICT_REFUSE)
                    break;
                assert_int_equal(a.verdict == PHX_VERDICT_OVERDRAFT, q.seats_used >= seats);
            }
            assert_int_equal(q.seats_used, seats + seats * pct / 100);
        }
}

static void indirect_users_have_a_bound_of_their_own(void **state)
{
    struct phx_license_question q = {.state = PHX_LICENSE_VALID,
                                     .enforce = PHX_ENFORCE_HARD,
                                     .limits = {500, 10, 50, -1, -1, -1, -1},
                                     .is_indirect = true,
                                     .seats_used = 9999,
                                     .indirect_used = 49};
    struct phx_license_answer a;

    (void)state;
    phx_license_decide(&q, &a);
    assert_int_equal(a.verdict, PHX_VERDICT_SERVE);
    assert_int_equal(a.warning_pct, 100);
    q.indirect_used = 50;
    phx_license_decide(&q, &a);
    assert_int_equal(a.verdict, PHX_VERDICT_REFUSE);
    assert_string_equal(a.rule, "licence.indirect");
    q.enforce = PHX_ENFORCE_SOFT;
    phx_license_decide(&q, &a);
    assert_int_equal(a.verdict, PHX_VERDICT_REFUSE);
    q.enforce = PHX_ENFORCE_OBSERVE;
    phx_license_decide(&q, &a);
    assert_int_equal(a.verdict, PHX_VERDICT_OVERDRAFT);
    q.limits.indirect_users = -1;
    q.enforce = PHX_ENFORCE_HARD;
    phx_license_decide(&q, &a);
    assert_int_equal(a.verdict, PHX_VERDICT_SERVE);
}

static void without_limits_nothing_is_refused_or_warned(void **state)
{
    struct phx_license_question q = {.state = PHX_LICENSE_VALID,
                                     .enforce = PHX_ENFORCE_HARD,
                                     .limits = {-1, 0, -1, -1, -1, -1, -1},
                                     .seats_used = 1000000000};
    struct phx_license_answer a;

    (void)state;
    phx_license_decide(&q, &a);
    assert_int_equal(a.verdict, PHX_VERDICT_SERVE);
    assert_int_equal(a.warning_pct, 0);
}

static void exempt_tenants_go_on_up_to_their_cap(void **state)
{
    static const struct {
        bool    is_known;
        int64_t used, cap;
        int     verdict;
    } cases[] = {{false, 0, 100, SERVE},  {false, 99, 100, SERVE}, {false, 100, 100, REFUSE},
                 {true, 100, 100, SERVE}, {true, 101, 100, REFUSE}, {true, 0, 0, REFUSE},
                 {false, 0, 0, REFUSE},   {false, 1000000, INT64_MAX, SERVE}};

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct phx_license_question q = {.state = PHX_LICENSE_EXPIRED,
                                         .enforce = PHX_ENFORCE_HARD,
                                         .is_known = cases[i].is_known,
                                         .is_exempt = true,
                                         .exempt_used = cases[i].used,
                                         .exempt_cap = cases[i].cap};
        struct phx_license_answer a;

        phx_license_decide(&q, &a);
        assert_int_equal(a.verdict, cases[i].verdict);
    }
}

static void without_a_licence_it_observes_for_a_while(void **state)
{
    struct phx_license_question q = {.state = PHX_LICENSE_NONE, .is_observing = true};
    struct phx_license_answer   a;

    (void)state;
    phx_license_decide(&q, &a);
    assert_int_equal(a.verdict, PHX_VERDICT_SERVE);
    q.is_observing = false;
    phx_license_decide(&q, &a);
    assert_int_equal(a.verdict, PHX_VERDICT_REFUSE);
    assert_string_equal(a.rule, "licence.none");
    q.is_known = true;
    phx_license_decide(&q, &a);
    assert_int_equal(a.verdict, PHX_VERDICT_SERVE);
}

static void check_model(const struct phx_license *l, const char *root, const char *purpose, const char *rule,
                        const char *policy)
{
    const struct phx_license_model *m = NULL;
    struct phx_license_answer       a;

    phx_license_decide_model(l, root, purpose, &m, &a);
    assert_string_equal(a.rule, rule);
    assert_int_equal(a.verdict, rule[0] == '\0' ? PHX_VERDICT_SERVE : PHX_VERDICT_REFUSE);
    assert_string_equal(m != NULL ? m->policy : "", policy);
}

static void models_have_terms_of_their_own(void **state)
{
    static const char root_a[] = "sha256:aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    static const char root_b[] = "sha256:bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    json_t             *p = forge_payload(&forge);
    json_t             *models = json_object_get(p, "models");
    struct phx_license *l;

    (void)state;
    json_array_append_new(models, json_pack("{s:s,s:s,s:[s],s:{s:s,s:i}}", "manifest_root", root_a, "policy",
                                            "no-army", "denied_licensee_classes", "commercial", "limits", "unit",
                                            "person-month", "seats", 3));
    l = forge_license(&forge, json_incref(p));
    check_model(l, root_b, "", "", "any-1");
    check_model(l, "", "support", "", "any-1");
    check_model(l, root_b, "bio-weapon", "licence.purpose", "any-1");
    check_model(l, root_a, "", "licence.class", "no-army");
    assert_int_equal(phx_license_limits(l, phx_license_find_model(l, root_a))->seats, 3);
    assert_int_equal(phx_license_limits(l, phx_license_find_model(l, root_b))->seats, 500);
    phx_license_free(l);
    json_array_remove(models, 0); /* "*" goes */
    l = forge_license(&forge, p);
    check_model(l, root_b, "", "licence.model", "");
    check_model(l, "", "", "licence.model", "");
    phx_license_free(l);
}

static void exempt_cap_is_a_part_of_the_seats(void **state)
{
    struct phx_license *l = forge_license(&forge, forge_payload(&forge));

    (void)state;
    assert_int_equal(phx_license_exempt_cap(l), 100);
    assert_true(phx_license_is_exempt(l, "icu"));
    assert_false(phx_license_is_exempt(l, "ic"));
    phx_license_free(l);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(states_follow_the_dates),
        cmocka_unit_test(every_cell_of_the_table),
        cmocka_unit_test(known_users_are_served_until_continuity_ends),
        cmocka_unit_test(hard_limits_are_never_passed),
        cmocka_unit_test(indirect_users_have_a_bound_of_their_own),
        cmocka_unit_test(without_limits_nothing_is_refused_or_warned),
        cmocka_unit_test(exempt_tenants_go_on_up_to_their_cap),
        cmocka_unit_test(without_a_licence_it_observes_for_a_while),
        cmocka_unit_test(models_have_terms_of_their_own),
        cmocka_unit_test(exempt_cap_is_a_part_of_the_seats),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
