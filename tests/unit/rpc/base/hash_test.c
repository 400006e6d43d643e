/* SPDX-License-Identifier: Apache-2.0
 * hash, id and utf8. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/id.h"
#include "rpc/base/utf8.h"

static void sha256_matches_the_published_vectors(void **state)
{
    static const struct {
        const char *text, *digest;
    } rows[] = { /* FIPS 180-4 examples */
        {"", "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"},
        {"abc", "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"},
        {"abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq",
         "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++) {
        char              hex[PHX_SHA256_HEX];
        uint8_t           digest[PHX_SHA256_BYTES];
        struct phx_sha256 h;

        phx_sha256_hex(rows[i].text, strlen(rows[i].text), hex);
        assert_string_equal(hex, rows[i].digest);
        phx_sha256_init(&h);
        for (const char *p = rows[i].text; *p != '\0'; p++)
            phx_sha256_update(&h, p, 1);
        phx_sha256_final(&h, digest);
        phx_hex_encode(hex, sizeof(hex), digest, sizeof(digest));
        assert_string_equal(hex, rows[i].digest);
    }
}

static void hmac_matches_rfc_4231(void **state)
{
    uint8_t digest[PHX_SHA256_BYTES];
    char    hex[PHX_SHA256_HEX];

    (void)state;
    phx_hmac_sha256("Jefe", 4, "what do ya want for nothing?", 28, digest);
    phx_hex_encode(hex, sizeof(hex), digest, sizeof(digest));
    assert_string_equal(hex, "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843");
}

static void hex_decodes_what_it_encodes_and_nothing_else(void **state)
{
    uint8_t        out[3];
    struct phx_err err;

    (void)state;
    assert_int_equal(phx_hex_decode(out, 3, "00fFa5", &err), 0);
    assert_memory_equal(out, "\x00\xff\xa5", 3);
    assert_int_equal(phx_hex_decode(out, 3, "00ffa", &err), PHX_E_FORMAT);
    assert_int_equal(phx_hex_decode(out, 3, "00ffa5a", &err), PHX_E_FORMAT);
    assert_int_equal(phx_hex_decode(out, 3, "00fg a", &err), PHX_E_FORMAT);
}

static void secrets_compare_by_content(void **state)
{
    char secret[] = "key";

    (void)state;
    assert_true(phx_secret_equal_str("token", "token"));
    assert_false(phx_secret_equal_str("token", "tokem"));
    assert_false(phx_secret_equal_str("token", "token "));
    assert_false(phx_secret_equal_str("", "x"));
    assert_true(phx_secret_equal("ab", "abc", 2));
    phx_secret_wipe(secret, sizeof(secret));
    assert_memory_equal(secret, "\0\0\0", 4);
}

static void ids_are_hex_and_differ(void **state)
{
    char a[33], b[33];

    (void)state;
    phx_id_hex(a, sizeof(a), 16);
    phx_id_hex(b, sizeof(b), 16);
    assert_int_equal(strlen(a), 32);
    assert_int_equal(strspn(a, "0123456789abcdef"), 32);
    assert_string_not_equal(a, b);
    assert_true(phx_id_random_u64() != phx_id_random_u64());
}

static void utf8_is_judged_by_rfc_3629(void **state)
{
    static const struct {
        const char *text;
        size_t      size, valid;
    } rows[] = {
        {"plain ascii that is longer than eight", 37, 37},
        {"\xc3\xa9", 2, 2},
        {"\xe2\x82\xac", 3, 3},
        {"\xf0\x9f\x98\x80", 4, 4},
        {"\xf4\x8f\xbf\xbf", 4, 4},     /* U+10FFFF */
        {"ok\xf4\x90\x80\x80", 6, 2},   /* above it */
        {"ok\xed\xa0\x80", 5, 2},       /* surrogate */
        {"ok\xc0\x80", 4, 2},           /* overlong NUL */
        {"ok\xe0\x80\xaf", 5, 2},       /* overlong */
        {"ok\xf0\x80\x80\xaf", 6, 2},   /* overlong */
        {"ok\x80", 3, 2},               /* stray continuation */
        {"ok\xe2\x82", 4, 2},           /* cut */
        {"12345678\xff", 9, 8},
        {"a\0b", 3, 3},                 /* NUL is a character */
    };

    (void)state;
    for (size_t i = 0; i < sizeof(rows) / sizeof(rows[0]); i++)
        assert_int_equal(phx_utf8_valid_prefix(rows[i].text, rows[i].size), rows[i].valid);
}

static void an_unfinished_character_is_held_back(void **state)
{
    (void)state;
    assert_int_equal(phx_utf8_whole_prefix("ab", 2), 2);
    assert_int_equal(phx_utf8_whole_prefix("ab\xe2", 3), 2);
    assert_int_equal(phx_utf8_whole_prefix("ab\xe2\x82", 4), 2);
    assert_int_equal(phx_utf8_whole_prefix("ab\xe2\x82\xac", 5), 5);
    assert_int_equal(phx_utf8_whole_prefix("ab\xf0\x9f\x98", 5), 2);
    assert_int_equal(phx_utf8_whole_prefix("\x80\x80\x80\x80", 4), 4); /* never valid: let go */
    assert_int_equal(phx_utf8_whole_prefix("ab\xff", 3), 3);
    assert_int_equal(phx_utf8_whole_prefix("", 0), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sha256_matches_the_published_vectors),
        cmocka_unit_test(hmac_matches_rfc_4231),
        cmocka_unit_test(hex_decodes_what_it_encodes_and_nothing_else),
        cmocka_unit_test(secrets_compare_by_content),
        cmocka_unit_test(ids_are_hex_and_differ),
        cmocka_unit_test(utf8_is_judged_by_rfc_3629),
        cmocka_unit_test(an_unfinished_character_is_held_back),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
