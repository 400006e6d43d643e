/* SPDX-License-Identifier: Apache-2.0
 * Forged files: 20 licences with random contents, every bit of each flipped, every truncation, wrong, old and
 * revoked keys.  None may be accepted. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
/* cmocka needs the headers above first */
#include <cmocka.h>

#include "rpc/base/clock.h"
#include "rpc/base/id.h"
#include "rpc/base/mem.h"
#include "tests/unit/daemon/license/forge.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { N_FILES = 2 }; /* about fifteen times slower */
#else
enum { N_FILES = 20 };
#endif

static struct forge forge;

static int set_up(void **state)
{
    (void)state;
    forge_init(&forge);
    return 0;
}

/* Names and numbers differ from file to file, and so do lengths and all of the base64. */
static char *make_file(int i)
{
    static const char *const classes[] = {"commercial", "research", "education", "government", "evaluation"};
    json_t *p = forge_payload(&forge);
    char    name[65], *file;

    phx_id_hex(name, sizeof(name), 4 + (size_t)i);
    json_object_set_new(p, "licence_id", json_string(name));
    json_object_set_new(p, "serial", json_integer(7 + (json_int_t)(phx_id_random_u64() % 100000)));
    json_object_set_new(json_object_get(p, "licensee"), "class", json_string(classes[i % 5]));
    json_object_set_new(json_object_get(p, "limits"), "seats",
                        i % 7 == 0 ? json_null() : json_integer((json_int_t)(phx_id_random_u64() % 10000)));
    if (i % 3 == 0)
        json_object_del(p, "reporting");
    file = forge_sign(p, &forge.issuers[0]);
    json_decref(p);
    return file;
}

static void no_flipped_bit_is_accepted(void **state)
{
    int64_t n_tried = 0, n_accepted = 0, began = phx_clock_mono_ns();

    (void)state;
    for (int i = 0; i < N_FILES; i++) {
        char               *file = make_file(i);
        size_t              size = strlen(file);
        struct phx_license *l = NULL;
        struct phx_err      err;

        assert_int_equal(forge_parse(&forge, file, &l, &err), 0);
        phx_license_free(l);
        for (size_t bit = 0; bit < size * 8; bit++) {
            file[bit / 8] = (char)(file[bit / 8] ^ (1 << (bit % 8)));
            if (phx_license_parse(file, size, &forge.keys, &l, &err) == 0) {
                print_message("file %d: bit %zu of byte %zu\n", i, bit % 8, bit / 8);
                phx_license_free(l);
                n_accepted++;
            }
            file[bit / 8] = (char)(file[bit / 8] ^ (1 << (bit % 8)));
            n_tried++;
        }
        phx_mem_free(file);
    }
    print_message("%d files, %lld bits flipped, %lld accepted, %lld ms\n", N_FILES, (long long)n_tried,
                  (long long)n_accepted, (long long)((phx_clock_mono_ns() - began) / 1000000));
    assert_int_equal(n_accepted, 0);
}

static void no_truncated_file_is_accepted(void **state)
{
    (void)state;
    for (int i = 0; i < N_FILES; i++) {
        char               *file = make_file(i);
        size_t              size = strlen(file);
        struct phx_license *l = NULL;
        struct phx_err      err;

        while (size > 0 && file[size - 1] != '}') /* white space at the end says nothing */
            size--;
        for (size_t n = 0; n < size; n++)
            assert_int_not_equal(phx_license_parse(file, n, &forge.keys, &l, &err), 0);
        assert_int_equal(phx_license_parse(file, size, &forge.keys, &l, &err), 0);
        phx_license_free(l);
        phx_mem_free(file);
    }
}

static void verifying_is_fast(void **state)
{
    enum { N = 200 };
    char               *file = make_file(0);
    int64_t             began = phx_clock_mono_ns(), each;
    struct phx_license *l = NULL;
    struct phx_err      err;

    (void)state;
    for (int i = 0; i < N; i++) {
        assert_int_equal(forge_parse(&forge, file, &l, &err), 0);
        phx_license_free(l);
    }
    each = (phx_clock_mono_ns() - began) / N;
    print_message("verifying and parsing one licence: %lld us\n", (long long)(each / 1000));
    if (N_FILES == 20)
        assert_true(each <= 1000000);
    phx_mem_free(file);
}

/* ---- keys ------------------------------------------------------------------------------------------------------ */

static void expect(const char *file, const struct phx_key_set *keys, const char *part)
{
    struct phx_license *l = NULL;
    struct phx_err      err = {0};
    int                 rc = phx_license_parse(file, strlen(file), keys, &l, &err);

    phx_license_free(l);
    if (part == NULL)
        assert_int_equal(rc, 0);
    else {
        assert_int_equal(rc, PHX_E_LICENSE);
        if (strstr(err.text, part) == NULL)
            fail_msg("message \"%s\" says nothing about \"%s\"", err.text, part);
    }
}

static char *sign_at(const char *issued_at, const struct phx_sign_key *named, const struct phx_sign_key *signer)
{
    json_t *p = forge_payload(&forge);
    char    kid[PHX_KEY_ID_BYTES], *file;

    phx_sign_key_id(named->public_key, kid);
    json_object_set_new(p, "issuer_kid", json_string(kid));
    json_object_set_new(p, "issued_at", json_string(issued_at));
    json_object_set_new(p, "not_after", json_string("2040-01-01T00:00:00Z"));
    file = forge_sign(p, signer);
    json_decref(p);
    return file;
}

static void expect_signed(const char *issued_at, int named, int signer, const char *part)
{
    char *file = sign_at(issued_at, &forge.issuers[named], &forge.issuers[signer]);

    expect(file, &forge.keys, part);
    phx_mem_free(file);
}

static void wrong_old_and_mixed_keys_are_refused(void **state)
{
    struct phx_sign_key stranger;
    char               *file;

    (void)state;
    phx_sign_key_make(&stranger);
    file = sign_at("2027-01-01T00:00:00Z", &forge.issuers[0], &stranger);
    expect(file, &forge.keys, "signature");
    phx_mem_free(file);
    file = sign_at("2027-01-01T00:00:00Z", &forge.issuers[0], &forge.roots[0]); /* roots sign no licences */
    expect(file, &forge.keys, "signature");
    phx_mem_free(file);
    expect_signed("2027-01-01T00:00:00Z", 0, 0, NULL);
    expect_signed("2027-01-01T00:00:00Z", 0, 1, "issuer_kid");
    expect_signed("2030-01-01T00:00:00Z", 0, 0, "issued_at"); /* the old key's time is over */
    expect_signed("2025-12-31T23:59:59Z", 0, 0, "issued_at");
    expect_signed("2027-01-01T00:00:00Z", 1, 1, "issued_at"); /* the new one's has not begun */
}

static void old_and_new_issuers_overlap(void **state)
{
    (void)state;
    expect_signed("2028-06-01T00:00:00Z", 0, 0, NULL);
    expect_signed("2028-06-01T00:00:00Z", 1, 1, NULL);
    expect_signed("2032-06-01T00:00:00Z", 1, 1, NULL);
}

static void revoked_and_outdated_are_refused(void **state)
{
    struct phx_key_set *keys = phx_mem_dup(&forge.keys, sizeof(forge.keys));
    json_t             *p = forge_payload(&forge);
    char               *file = forge_sign(p, &forge.issuers[0]);

    (void)state;
    keys->revoked[0] = 8;
    keys->n_revoked = 1;
    expect(file, keys, NULL);
    keys->revoked[1] = 7;
    keys->n_revoked = 2;
    expect(file, keys, "serial 7 was revoked");
    keys->n_revoked = 0;
    keys->version = 2;
    expect(file, keys, "key set version 3 or later");
    keys->version = 3;
    keys->issuers[0] = keys->issuers[1]; /* the issuer was dropped */
    keys->n_issuers = 1;
    expect(file, keys, "signature");
    keys->n_issuers = 0;
    expect(file, keys, "signature");
    phx_mem_free(keys);
    phx_mem_free(file);
    json_decref(p);
}

static void another_cluster_s_licence_is_refused(void **state)
{
    static const char here[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    static const char there[] = "bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb";
    json_t             *p = forge_payload(&forge);
    struct phx_license *l = forge_license(&forge, json_incref(p));
    struct phx_err      err = {0};

    (void)state;
    assert_int_equal(phx_license_binds(l, here, &err), 0); /* no list: any cluster */
    phx_license_free(l);
    json_object_set_new(p, "clusters", json_pack("[s]", there));
    l = forge_license(&forge, p);
    assert_int_equal(phx_license_binds(l, there, &err), 0);
    assert_int_equal(phx_license_binds(l, here, &err), PHX_E_LICENSE);
    assert_non_null(strstr(err.text, here));
    phx_license_free(l);
}

static int parse_key_set(const struct phx_sign_key *signers, int n, struct phx_err *err)
{
    struct phx_key_set *keys = phx_mem_calloc(1, sizeof(*keys));
    json_t             *p = forge_key_set(&forge, 4);
    char               *file = forge_sign_key_set(p, signers, n);
    int                 rc = phx_key_set_parse(file, strlen(file), &forge.trusted, keys, err);

    if (rc == 0) {
        assert_int_equal(keys->version, 4);
        assert_int_equal(keys->n_issuers, 2);
    } else
        assert_int_equal(keys->n_issuers, 0);
    phx_mem_free(file);
    json_decref(p);
    phx_mem_free(keys);
    return rc;
}

static void a_key_set_needs_two_roots(void **state)
{
    struct phx_sign_key signers[3];
    struct phx_err      err;

    (void)state;
    assert_int_equal(parse_key_set(forge.roots, 3, &err), 0);
    assert_int_equal(parse_key_set(forge.roots, 2, &err), 0);
    assert_int_equal(parse_key_set(forge.roots + 1, 2, &err), 0);
    assert_int_not_equal(parse_key_set(forge.roots, 1, &err), 0);
    signers[0] = signers[1] = forge.roots[0]; /* one root twice is one root */
    assert_int_not_equal(parse_key_set(signers, 2, &err), 0);
    signers[1] = forge.issuers[0];
    assert_int_not_equal(parse_key_set(signers, 2, &err), 0);
}

static void no_flipped_bit_of_a_key_set_is_accepted(void **state)
{
    struct phx_key_set *keys = phx_mem_calloc(1, sizeof(*keys));
    json_t             *p = forge_key_set(&forge, 4);
    char               *file = forge_sign_key_set(p, forge.roots, 2);
    size_t              size = strlen(file);
    struct phx_err      err;

    (void)state;
    for (size_t bit = 0; bit < size * 8; bit++) {
        file[bit / 8] = (char)(file[bit / 8] ^ (1 << (bit % 8)));
        if (phx_key_set_parse(file, size, &forge.trusted, keys, &err) == 0)
            fail_msg("accepted: bit %zu of byte %zu", bit % 8, bit / 8);
        file[bit / 8] = (char)(file[bit / 8] ^ (1 << (bit % 8)));
    }
    for (size_t n = 0; n + 2 < size; n++)
        assert_int_not_equal(phx_key_set_parse(file, n, &forge.trusted, keys, &err), 0);
    phx_mem_free(file);
    json_decref(p);
    phx_mem_free(keys);
}

static void a_licence_is_no_key_set(void **state)
{
    struct phx_key_set *keys = phx_mem_calloc(1, sizeof(*keys));
    struct phx_license *l = NULL;
    json_t             *p = forge_payload(&forge), *k = forge_key_set(&forge, 4);
    char               *file = forge_sign(p, &forge.roots[0]);
    char               *key_set = forge_sign_key_set(k, forge.issuers, 2);
    struct phx_err      err;

    (void)state;
    forge.trusted.threshold = 1;
    assert_int_not_equal(phx_key_set_parse(file, strlen(file), &forge.trusted, keys, &err), 0);
    forge.trusted.threshold = 2;
    assert_int_not_equal(phx_license_parse(key_set, strlen(key_set), &forge.keys, &l, &err), 0);
    phx_mem_free(file);
    phx_mem_free(key_set);
    json_decref(p);
    json_decref(k);
    phx_mem_free(keys);
}

/* ---- issuing ----------------------------------------------------------------------------------------------------- */

static void issuing_fills_in_and_checks(void **state)
{
    json_t             *p = forge_payload(&forge);
    char               *text, *file = NULL;
    struct phx_license *l = NULL;
    struct phx_err      err = {0};

    (void)state;
    json_object_del(p, "seat_salt");
    json_object_del(p, "issued_at");
    json_object_del(p, "issuer_kid");
    text = json_dumps(p, JSON_INDENT(4));
    assert_int_equal(phx_license_issue(text, &forge.issuers[0], forge_time("2027-03-04T05:06:07Z"), &file, &err), 0);
    assert_int_equal(forge_parse(&forge, file, &l, &err), 0);
    assert_int_equal(phx_license_terms(l)->issued_ns, forge_time("2027-03-04T05:06:07Z"));
    phx_license_free(l);
    phx_mem_free(file);
    free(text);
    json_object_set_new(p, "grace_day", json_integer(1));
    text = json_dumps(p, 0);
    assert_int_not_equal(phx_license_issue(text, &forge.issuers[0], 0, &file, &err), 0);
    assert_null(file);
    assert_non_null(strstr(err.text, "grace_day"));
    free(text);
    json_decref(p);
}

static void issuing_a_key_set_checks(void **state)
{
    json_t        *p = forge_key_set(&forge, 9);
    char          *text = json_dumps(p, 0), *file = NULL;
    struct phx_err err;

    (void)state;
    assert_int_equal(phx_key_set_issue(text, forge.roots, 2, &file, &err), 0);
    phx_mem_free(file);
    free(text);
    json_object_set_new(p, "version", json_string("9"));
    text = json_dumps(p, 0);
    assert_int_not_equal(phx_key_set_issue(text, forge.roots, 2, &file, &err), 0);
    assert_null(file);
    free(text);
    json_decref(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(no_flipped_bit_is_accepted),
        cmocka_unit_test(no_truncated_file_is_accepted),
        cmocka_unit_test(verifying_is_fast),
        cmocka_unit_test(wrong_old_and_mixed_keys_are_refused),
        cmocka_unit_test(old_and_new_issuers_overlap),
        cmocka_unit_test(revoked_and_outdated_are_refused),
        cmocka_unit_test(another_cluster_s_licence_is_refused),
        cmocka_unit_test(a_key_set_needs_two_roots),
        cmocka_unit_test(no_flipped_bit_of_a_key_set_is_accepted),
        cmocka_unit_test(a_licence_is_no_key_set),
        cmocka_unit_test(issuing_fills_in_and_checks),
        cmocka_unit_test(issuing_a_key_set_checks),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
