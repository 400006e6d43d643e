/* SPDX-License-Identifier: Apache-2.0
 * Key sets: what is taken, passed over, and refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/identity/identity.h"
#include "signer.h"

static int parse(const char *text, struct phx_err *err)
{
    struct phx_jwks *j = NULL;
    int              rc = phx_jwks_parse(text, strlen(text), &j, err);

    assert_true((rc == 0) == (j != NULL));
    phx_jwks_free(j);
    return rc;
}

static void refuse(const char *text, const char *why)
{
    struct phx_err err = {0};
    int            rc = parse(text, &err);

    if (rc == 0 || strstr(err.text, why) == NULL)
        fail_msg("'%s' is not said of %.200s: %d %s", why, text, rc, err.text);
}

/* The key as an entry of its own file, with a text replaced. */
static void refuse_with(EVP_PKEY *key, const char *extra, const char *why)
{
    char *jwk = signer_jwk(key, "k", extra);
    char *text = signer_printf("{\"keys\":[%s]}", jwk);

    refuse(text, why);
    free(jwk);
    free(text);
}

static void other_kinds_are_passed_over(void **state)
{
    char *rsa = signer_jwk(signer_key(SIGNER_RSA, 0), "a", "\"x5c\":[\"MIIB\"],\"key_ops\":[\"verify\"],");
    char *p384 = signer_jwk(signer_key(SIGNER_P384, 0), "b", "");
    char *encrypting = signer_jwk(signer_key(SIGNER_RSA, 1), "c", "\"use\":\"enc\",");
    char *oaep = signer_jwk(signer_key(SIGNER_RSA, 1), "d", "\"alg\":\"RSA-OAEP\",");
    char *text = signer_printf("{\"keys\":[%s,%s,%s,%s,{\"kty\":\"new\"}],\"more\":1}", p384, encrypting, oaep, rsa);
    struct phx_err err = {0};

    (void)state;
    assert_int_equal(parse(text, &err), 0);
    free(text);
    text = signer_printf("{\"keys\":[%s,%s,%s]}", p384, encrypting, oaep);
    refuse(text, "no key for");
    free(text);
    free(rsa);
    free(p384);
    free(encrypting);
    free(oaep);
}

static void weak_and_false_keys_are_refused(void **state)
{
    (void)state;
    refuse_with(signer_key(SIGNER_RSA_SMALL, 0), "", "keys[0].n");
    refuse("{\"keys\":[{\"kty\":\"oct\",\"k\":\"AAAA\"}]}", "secret key");
    refuse_with(signer_key(SIGNER_RSA, 0), "\"d\":\"AAAA\",", "secret key");
    refuse_with(signer_key(SIGNER_ED25519, 0), "\"d\":\"AAAA\",", "secret key");
    /* a point that is not on the curve; coordinates and keys of the wrong length */
    refuse("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE\","
           "\"y\":\"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE\"}]}", "not a valid public key");
    refuse("{\"keys\":[{\"kty\":\"EC\",\"crv\":\"P-256\",\"x\":\"AAAA\",\"y\":\"AAAA\"}]}", "32 bytes");
    refuse("{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"AAAA\"}]}", "32 bytes");
    refuse("{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\"}]}", "keys[0].x");
    refuse("{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"x\":\"A===\"}]}", "base64url");
}

/* An exponent of 1 verifies everything: m^1 = m. */
static void false_exponents_are_refused(void **state)
{
    static const char *const exponents[] = {"AQ", "Ag", "AA", "AAEAAQ", "AQAA", ""};
    char                    *jwk = signer_jwk(signer_key(SIGNER_RSA, 0), "k", "");
    char                    *e = strstr(jwk, "\"e\":\"");

    (void)state;
    assert_non_null(e);
    *e = '\0';
    for (size_t i = 0; i < sizeof(exponents) / sizeof(exponents[0]); i++) {
        char *text = signer_printf("{\"keys\":[%s\"e\":\"%s\"}]}", jwk, exponents[i]);

        refuse(text, "keys[0].e");
        free(text);
    }
    free(jwk);
}

static void files_are_strict(void **state)
{
    char *a = signer_jwk(signer_key(SIGNER_ED25519, 0), "same", "");
    char *b = signer_jwk(signer_key(SIGNER_P256, 0), "same", "");
    char *text = signer_printf("{\"keys\":[%s,%s]}", a, b);

    (void)state;
    refuse(text, "keys[1].kid");
    refuse("", "key set");
    refuse("[]", "object");
    refuse("{}", "keys");
    refuse("{\"keys\":{}}", "keys");
    refuse("{\"keys\":[]}", "no key for");
    refuse("{\"keys\":[7]}", "keys[0]");
    refuse("{\"keys\":[],\"keys\":[]}", "key set");
    refuse("{\"keys\":[{\"kty\":7}]}", "keys[0].kty");
    refuse("{\"keys\":[{}]}", "keys[0].kty");
    free(a);
    free(b);
    free(text);
}

static void at_most_64_keys(void **state)
{
    char  *text = signer_printf("{\"keys\":[");
    char  *longer;
    size_t n = 0;

    (void)state;
    for (; n < 65; n++) {
        longer = signer_printf("%s%s{\"kty\":\"new\"}", text, n == 0 ? "" : ",");
        free(text);
        text = longer;
    }
    longer = signer_printf("%s]}", text);
    refuse(longer, "64");
    free(text);
    free(longer);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(other_kinds_are_passed_over),
        cmocka_unit_test(weak_and_false_keys_are_refused),
        cmocka_unit_test(false_exponents_are_refused),
        cmocka_unit_test(files_are_strict),
        cmocka_unit_test(at_most_64_keys),
    };

    return cmocka_run_group_tests_name("daemon/identity/jwks", tests, NULL, NULL);
}
