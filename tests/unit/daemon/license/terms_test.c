/* SPDX-License-Identifier: Apache-2.0
 * What a payload may say: every field bent, one at a time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
/* cmocka needs the headers above first */
#include <cmocka.h>

#include "daemon/license/terms.h"
#include "rpc/base/mem.h"
#include "tests/unit/daemon/license/forge.h"

static struct forge forge;

static int set_up(void **state)
{
    (void)state;
    forge_init(&forge);
    return 0;
}

/* The payload's text must be refused with a message that has `part`. */
static void expect_refused(const char *text, const char *part)
{
    struct phx_license *l = NULL;
    struct phx_err      err = {0};
    int                 rc = phx_license_read(text, strlen(text), &l, &err);

    if (rc == 0)
        fail_msg("accepted: expected a refusal about \"%s\"", part);
    assert_null(l);
    if (strstr(err.text, part) == NULL)
        fail_msg("message \"%s\" says nothing about \"%s\"", err.text, part);
}

static void reads_every_field(void **state)
{
    struct phx_license             *l = forge_license(&forge, forge_payload(&forge));
    const struct phx_license_terms *t = phx_license_terms(l);

    (void)state;
    assert_string_equal(t->license_id, "01JTEST");
    assert_int_equal(t->serial, 7);
    assert_int_equal(t->supersedes, 6);
    assert_string_equal(t->legal_name, "Acme plc");
    assert_string_equal(t->class_name, "commercial");
    assert_int_equal(t->n_affiliates, 1);
    assert_string_equal(t->affiliates[0], "Acme Ltd");
    assert_string_equal(t->revenue_band, "");
    assert_int_equal(t->n_models, 1);
    assert_int_equal(t->models[0].n_denied_purposes, 2);
    assert_string_equal(t->models[0].derived_from, "");
    assert_int_equal(t->limits.seats, 500);
    assert_int_equal(t->limits.overdraft_pct, 10);
    assert_int_equal(t->limits.concurrent, -1);
    assert_int_equal(t->limits.tokens_per_month, -1);
    for (uint8_t i = 0; i < 32; i++)
        assert_int_equal(t->seat_salt[i], i);
    assert_int_equal(t->n_clusters, 0);
    assert_int_equal(t->not_before_ns, INT64_C(1798761600) * 1000000000);
    assert_int_equal(t->not_after_ns, INT64_C(1861920000) * 1000000000);
    assert_int_equal(t->enforce, PHX_ENFORCE_HARD);
    assert_string_equal(t->exempt_tenants[0], "icu");
    assert_string_equal(t->reporting_mode, "offline-bundle");
    assert_int_equal(t->retain_days, 400);
    assert_int_equal(t->key_set_min_version, 3);
    assert_int_equal(strlen(t->digest), 64);
    phx_license_free(l);
}

/* path: "limits.seats" or "models.0.policy"; json NULL = the field goes. */
static void set_path(json_t *root, const char *path, const char *json)
{
    char    copy[128], *dot, *key = copy;
    json_t *at = root, *value = json != NULL ? json_loads(json, JSON_DECODE_ANY, NULL) : NULL;

    (void)snprintf(copy, sizeof(copy), "%s", path);
    while ((dot = strchr(key, '.')) != NULL) {
        *dot = '\0';
        at = json_is_array(at) ? json_array_get(at, (size_t)atoi(key)) : json_object_get(at, key);
        key = dot + 1;
    }
    if (json == NULL)
        (void)json_object_del(at, key);
    else {
        assert_non_null(value);
        json_object_set_new(at, key, value);
    }
}

static void bad_fields_are_refused_by_name(void **state)
{
    static const struct {
        const char *path, *json, *part;
    } cases[] = {
        {"schema", "\"licence/2\"", "schema"},
        {"schema", NULL, "schema"},
        {"extra", "1", "extra"},
        {"licensee.extra", "1", "licensee.extra"},
        {"limits.extra", "1", "limits.extra"},
        {"models.0.extra", "1", "models[0].extra"},
        {"reporting.extra", "1", "reporting.extra"},
        {"licence_id", "\"\"", "licence_id"},
        {"licence_id", "\"a\\nb\"", "control"},
        {"licence_id", "7", "licence_id"},
        {"serial", "0", "serial"},
        {"serial", "7.0", "serial"},
        {"serial", "\"7\"", "serial"},
        {"serial", "9007199254740993", "serial"},
        {"supersedes", "7", "supersedes"},
        {"licensee", NULL, "licensee"},
        {"licensee.legal_name", NULL, "legal_name"},
        {"licensee.class", "\"hobby\"", "licensee.class"},
        {"licensee.class", "\"small-business\"", "attestation"},
        {"licensee.affiliates", "[1]", "affiliates[0]"},
        {"attestation", "{}", "attestation.sha256"},
        {"attestation", "{\"sha256\":\"00\",\"revenue_band\":\"x\"}", "attestation.sha256"},
        {"models", "[]", "models"},
        {"models", "{}", "models"},
        {"models", "[1]", "models[0]"},
        {"models.0.manifest_root", "\"sha256:00\"", "models[0].manifest_root"},
        {"models.0.policy", NULL, "models[0].policy"},
        {"models.0.derived_from", "\"llama\"", "models[0].derived_from"},
        {"models.0.denied_purposes", "\"all\"", "models[0].denied_purposes"},
        {"models.0.limits", "{\"unit\":\"person-month\"}", "models[0].limits.seats"},
        {"models.0.limits", "{\"unit\":\"person-month\",\"seats\":1.5}", "models[0].limits.seats"},
        {"limits", NULL, "limits"},
        {"limits.unit", "\"named-user\"", "limits.unit"},
        {"limits.seats", NULL, "limits.seats"},
        {"limits.seats", "-1", "limits.seats"},
        {"limits.seats", "1e3", "limits.seats"},
        {"limits.overdraft_pct", "101", "limits.overdraft_pct"},
        {"limits.tokens_per_month", "\"many\"", "limits.tokens_per_month"},
        {"seat_salt", NULL, "seat_salt"},
        {"seat_salt", "\"AAEC\"", "seat_salt"},
        {"seat_salt", "\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh9=\"", "seat_salt"},
        {"clusters", "[\"node-1\"]", "clusters[0]"},
        {"not_before", "\"2027-01-01\"", "not_before"},
        {"not_after", "\"2026-01-01T00:00:00Z\"", "not_after"},
        {"issued_at", "\"2029-01-01T00:00:00Z\"", "issued_at"},
        {"warn_days", "-1", "warn_days"},
        {"grace_days", NULL, "grace_days"},
        {"continuity_days", "3651", "continuity_days"},
        {"enforce", "\"HARD\"", "enforce"},
        {"exempt_tenants", "[\"a\",\"a\"]", "exempt_tenants[1]"},
        {"exempt_cap_pct", "101", "exempt_cap_pct"},
        {"reporting.mode", "\"phone-home\"", "reporting.mode"},
        {"reporting.every_days", "0", "reporting.every_days"},
        {"key_set_min_version", "0", "key_set_min_version"},
        {"issuer_kid", "\"ed25519:zz\"", "issuer_kid"},
        {"issuer_kid", NULL, "issuer_kid"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *p = forge_payload(&forge);
        char   *text;

        set_path(p, cases[i].path, cases[i].json);
        text = json_dumps(p, 0);
        expect_refused(text, cases[i].part);
        free(text);
        json_decref(p);
    }
}

static void small_business_needs_an_attestation(void **state)
{
    json_t             *p = forge_payload(&forge);
    struct phx_license *l;

    (void)state;
    set_path(p, "licensee.class", "\"small-business\"");
    set_path(p, "attestation",
             "{\"sha256\":\"aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa\","
             "\"revenue_band\":\"<20M/month\",\"signed_by\":\"CFO\",\"on\":\"2028-02-29\"}");
    l = forge_license(&forge, p);
    assert_string_equal(phx_license_terms(l)->revenue_band, "<20M/month");
    assert_string_equal(phx_license_terms(l)->attested_on, "2028-02-29");
    phx_license_free(l);
}

static void dates_have_one_spelling(void **state)
{
    static const char *const good[] = {"1970-01-01T00:00:00Z", "2028-02-29T23:59:59Z", "2000-02-29T00:00:00Z",
                                       "2038-01-19T03:14:08Z", "2199-12-31T23:59:59Z"};
    static const char *const bad[] = {"2027-02-29T00:00:00Z", "2100-02-29T00:00:00Z", "2028-02-30T00:00:00Z",
                                      "2028-04-31T00:00:00Z", "2028-00-01T00:00:00Z", "2028-13-01T00:00:00Z",
                                      "2028-01-00T00:00:00Z", "2028-01-01T24:00:00Z", "2028-01-01T00:60:00Z",
                                      "2028-12-31T23:59:60Z", "2028-01-01T00:00:00z", "2028-01-01t00:00:00Z",
                                      "2028-01-01 00:00:00Z", "2028-01-01T00:00:00",  "2028-01-01T00:00:00+00:00",
                                      "2028-01-01T00:00:00.5Z", "28-01-01T00:00:00Z", "1969-12-31T23:59:59Z",
                                      "2200-01-01T00:00:00Z", "+028-01-01T00:00:00Z", "2028- 1-01T00:00:00Z",
                                      "", "2028-01-01", "9999-12-31T23:59:59Z"};
    char    text[PHX_DATE_BYTES];
    int64_t ns;

    (void)state;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++) {
        assert_true(phx_date_parse(good[i], &ns));
        phx_date_format(ns, text);
        assert_string_equal(text, good[i]);
    }
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (phx_date_parse(bad[i], &ns))
            fail_msg("accepted %s", bad[i]);
}

static void structure_is_strict(void **state)
{
    json_t *p = forge_payload(&forge);
    char   *text = json_dumps(p, JSON_COMPACT), *bent;

    (void)state;
    bent = phx_mem_printf("{\"serial\":8,%s", text + 1); /* the second one would win elsewhere */
    expect_refused(bent, "duplicate");
    phx_mem_free(bent);
    bent = phx_mem_printf("%s{}", text);
    expect_refused(bent, "JSON");
    phx_mem_free(bent);
    bent = phx_mem_printf("{\"x\":[[[[[[[[1]]]]]]]],%s", text + 1);
    expect_refused(bent, "nested deeper than 8");
    phx_mem_free(bent);
    bent = phx_mem_printf("{\"x\":\"\xc0\xaf\",%s", text + 1);
    expect_refused(bent, "unable to decode");
    phx_mem_free(bent);
    bent = phx_mem_printf("{\"x\":\"\xed\xa0\x80\",%s", text + 1);
    expect_refused(bent, "unable to decode");
    phx_mem_free(bent);
    expect_refused("[]", "object");
    expect_refused("", "JSON");
    free(text);
    json_decref(p);
}

static void add_models(json_t *p, int n)
{
    json_t *models = json_object_get(p, "models");

    for (int i = 0; i < n; i++) {
        char root[72];

        (void)snprintf(root, sizeof(root), "sha256:%064x", i);
        json_array_append_new(models, json_pack("{s:s,s:s}", "manifest_root", root, "policy", "p"));
    }
}

static void counts_are_bounded(void **state)
{
    json_t *p = forge_payload(&forge), *clusters = json_array();
    char   *text, hex[65];

    (void)state;
    add_models(p, 63);
    phx_license_free(forge_license(&forge, json_incref(p)));
    json_array_append_new(json_object_get(p, "models"),
                          json_pack("{s:s,s:s}", "manifest_root", "sha256:x", "policy", "p"));
    text = json_dumps(p, 0);
    expect_refused(text, "models has 65 items (limit 64)");
    free(text);
    json_decref(p);

    p = forge_payload(&forge);
    for (int i = 0; i < 65; i++) {
        (void)snprintf(hex, sizeof(hex), "%064x", i);
        json_array_append_new(clusters, json_string(hex));
    }
    json_object_set_new(p, "clusters", clusters);
    text = json_dumps(p, 0);
    expect_refused(text, "clusters has 65 items (limit 64)");
    free(text);
    json_decref(p);

    p = forge_payload(&forge);
    add_models(p, 1);
    add_models(p, 1);
    text = json_dumps(p, 0);
    expect_refused(text, "models[2].manifest_root is there twice");
    free(text);
    json_decref(p);
}

static void too_large_a_file_is_refused(void **state)
{
    char               *text = phx_mem_calloc(1, PHX_LICENSE_MAX_BYTES + 2);
    struct phx_license *l = NULL;
    struct phx_err      err = {0};

    (void)state;
    memset(text, ' ', PHX_LICENSE_MAX_BYTES + 1);
    assert_int_equal(phx_license_read(text, PHX_LICENSE_MAX_BYTES + 1, &l, &err), PHX_E_TOOBIG);
    assert_int_equal(forge_parse(&forge, text, &l, &err), PHX_E_TOOBIG);
    phx_mem_free(text);
}

/* ---- key sets and roots ------------------------------------------------------------------------------------------ */

static void key_sets_are_strict(void **state)
{
    static const struct {
        const char *path, *json, *part;
    } cases[] = {
        {"schema", "\"keyset/2\"", "schema"},
        {"version", "0", "version"},
        {"version", "1.0", "version"},
        {"extra", "1", "extra"},
        {"issuers", "[]", "issuers is empty"},
        {"issuers.0.extra", "1", "issuers[0].extra"},
        {"issuers.0.kid", "\"ed25519:00\"", "issuers[0].kid"},
        {"issuers.1.not_after", "\"2028-01-01T00:00:00Z\"", "issuers[1].not_after"},
        {"issuers.0.public_key", "\"00\"", "issuers[0].public_key"},
        {"revoked_serials", "[1.5]", "revoked_serials[0]"},
        {"revoked_serials", "[0]", "revoked_serials[0]"},
        {"issued_at", "0", "issued_at"},
    };
    struct phx_key_set *keys = phx_mem_calloc(1, sizeof(*keys));
    struct phx_err      err;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        json_t *p = forge_key_set(&forge, 4);
        char   *text;

        set_path(p, cases[i].path, cases[i].json);
        text = json_dumps(p, 0);
        assert_int_not_equal(phx_key_set_read(text, strlen(text), keys, &err), 0);
        if (strstr(err.text, cases[i].part) == NULL)
            fail_msg("message \"%s\" says nothing about \"%s\"", err.text, cases[i].part);
        assert_int_equal(keys->version, 0);
        free(text);
        json_decref(p);
    }
    phx_mem_free(keys);
}

static void roots_come_from_a_file(void **state)
{
    static const struct {
        const char *text, *part;
    } bad[] = {
        {"", "0 root keys"},
        {"threshold 1\n", "0 root keys"},
        {"threshold 0\n", "threshold"},
        {"hello\n", "neither"},
        {"0000000000000000000000000000000000000000000000000000000000000001\n", "threshold 0"},
        {"threshold 2\n0000000000000000000000000000000000000000000000000000000000000001\n", "threshold 2"},
        {"threshold 1\nthreshold 1\n", "once"},
        {"threshold 2\n0000000000000000000000000000000000000000000000000000000000000001\n"
         "0000000000000000000000000000000000000000000000000000000000000001\n", "twice"},
    };
    static const char good[] = "# roots\n\nthreshold 2 # of 3\r\n"
                               "0000000000000000000000000000000000000000000000000000000000000001 # a\n"
                               "0000000000000000000000000000000000000000000000000000000000000002\n"
                               "0000000000000000000000000000000000000000000000000000000000000003";
    struct phx_license_roots roots;
    struct phx_err           err;
    char                     path[64];

    (void)state;
    (void)snprintf(path, sizeof(path), "license_roots_%d.tmp", (int)getpid());
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        assert_int_equal(phx_file_write(path, bad[i].text, strlen(bad[i].text), 0600, &err), 0);
        assert_int_not_equal(phx_license_roots_read(path, &roots, &err), 0);
        if (strstr(err.text, bad[i].part) == NULL)
            fail_msg("message \"%s\" says nothing about \"%s\"", err.text, bad[i].part);
    }
    assert_int_equal(phx_file_write(path, good, strlen(good), 0600, &err), 0);
    assert_int_equal(phx_license_roots_read(path, &roots, &err), 0);
    assert_int_equal(roots.n_keys, 3);
    assert_int_equal(roots.threshold, 2);
    assert_int_equal(roots.keys[2][31], 3);
    (void)remove(path);
    phx_license_roots_builtin(&roots);
    assert_int_equal(roots.threshold, 2);
    assert_int_equal(roots.n_keys, 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(reads_every_field),
        cmocka_unit_test(bad_fields_are_refused_by_name),
        cmocka_unit_test(small_business_needs_an_attestation),
        cmocka_unit_test(dates_have_one_spelling),
        cmocka_unit_test(structure_is_strict),
        cmocka_unit_test(counts_are_bounded),
        cmocka_unit_test(too_large_a_file_is_refused),
        cmocka_unit_test(key_sets_are_strict),
        cmocka_unit_test(roots_come_from_a_file),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
