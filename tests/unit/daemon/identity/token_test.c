/* SPDX-License-Identifier: Apache-2.0
 * Tokens: four algorithms that open, and everything that must not. */
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

#define S INT64_C(1000000000)
#define NOW INT64_C(1793491200) /* 2026-11-01 */

static struct phx_jwks *keys;

static const struct phx_token_rules rules = {.issuer = "https://idp.example",
                                             .audience = "phalanx",
                                             .tenant_claim = "",
                                             .roles_claim = "",
                                             .tenant = "acme",
                                             .leeway_s = 60};

static int make_keys(void **state)
{
    char *a = signer_jwk(signer_key(SIGNER_RSA, 0), "rsa", "");
    char *b = signer_jwk(signer_key(SIGNER_P256, 0), "ec", "");
    char *c = signer_jwk(signer_key(SIGNER_ED25519, 0), "ed", "");
    char *d = signer_jwk(signer_key(SIGNER_RSA, 1), "ps-only", "\"alg\":\"PS256\",\"use\":\"sig\",");
    char *text = signer_printf("{\"keys\":[%s,%s,%s,%s]}", a, b, c, d);
    struct phx_err err = {0};

    (void)state;
    assert_int_equal(phx_jwks_parse(text, strlen(text), &keys, &err), 0);
    free(a);
    free(b);
    free(c);
    free(d);
    free(text);
    return 0;
}

static int free_keys(void **state)
{
    (void)state;
    phx_jwks_free(keys);
    return 0;
}

static const struct {
    const char      *alg, *kid;
    enum signer_kind kind;
    int              number;
} good[] = {{"RS256", "rsa", SIGNER_RSA, 0},
            {"PS256", "rsa", SIGNER_RSA, 0},
            {"ES256", "ec", SIGNER_P256, 0},
            {"EdDSA", "ed", SIGNER_ED25519, 0},
            {"PS256", "ps-only", SIGNER_RSA, 1}};

enum { N_GOOD = sizeof(good) / sizeof(good[0]) };

#define PAYLOAD                                                                                          \
    "{\"iss\":\"https://idp.example\",\"aud\":\"phalanx\",\"sub\":\"00u1\",\"exp\":1793494800,"          \
    "\"iat\":1793491100,\"nbf\":1793491100}"

static int verify_at(const char *token, const struct phx_token_rules *r, int64_t now_s, int64_t wall_s,
                     struct phx_token_claims *out, struct phx_err *err)
{
    return phx_token_verify(keys, r, token, now_s * S, wall_s * S, out, err);
}

/* Verifies a token of that header and payload, and frees it. */
static int try_token(int which, const char *alg, const char *header, const char *payload,
                     struct phx_token_claims *out, struct phx_err *err)
{
    char *token = signer_token(signer_key(good[which].kind, good[which].number), alg, header, payload);
    int   rc = verify_at(token, &rules, NOW, NOW, out, err);

    free(token);
    return rc;
}

static int try_payload(const char *payload, struct phx_token_claims *out)
{
    struct phx_err err = {0};

    return try_token(3, "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":\"ed\"}", payload, out, &err);
}

static void refuse_payload(const char *payload, const char *why)
{
    struct phx_token_claims claims;
    struct phx_err          err = {0};

    assert_int_equal(try_token(3, "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":\"ed\"}", payload, &claims, &err),
                     PHX_E_UNAUTH);
    if (strstr(err.text, why) == NULL)
        fail_msg("'%s' is not said of %s: %s", why, payload, err.text);
    assert_int_equal(claims.subject[0], '\0'); /* a refusal tells nothing */
}

static void refuse_header(int which, const char *alg, const char *header, const char *why)
{
    struct phx_token_claims claims;
    struct phx_err          err = {0};

    assert_int_equal(try_token(which, alg, header, PAYLOAD, &claims, &err), PHX_E_UNAUTH);
    if (strstr(err.text, why) == NULL)
        fail_msg("'%s' is not said of %s: %s", why, header, err.text);
}

/* ---- signatures ---------------------------------------------------------------------------------------- */

static void four_algorithms_open(void **state)
{
    (void)state;
    for (int i = 0; i < N_GOOD; i++) {
        char *header = signer_printf("{\"alg\":\"%s\",\"kid\":\"%s\",\"typ\":\"JWT\"}", good[i].alg,
                                     good[i].kid);
        struct phx_token_claims claims;
        struct phx_err          err = {0};

        assert_int_equal(try_token(i, good[i].alg, header, PAYLOAD, &claims, &err), 0);
        assert_string_equal(claims.subject, "00u1");
        assert_string_equal(claims.tenant, "acme");
        assert_string_equal(claims.issuer, "https://idp.example");
        assert_int_equal(claims.roles, PHX_ROLE_BIT_USER);
        assert_int_equal(claims.expires_ns, INT64_C(1793494800) * S);
        free(header);
    }
}

static void algorithms_cannot_be_confused(void **state)
{
    (void)state;
    /* the public key as an HMAC secret, and no signature at all */
    refuse_header(0, "HS256", "{\"alg\":\"HS256\",\"kid\":\"rsa\"}", "algorithm");
    refuse_header(0, "none", "{\"alg\":\"none\",\"kid\":\"rsa\"}", "algorithm");
    refuse_header(0, "none", "{\"alg\":\"None\",\"kid\":\"rsa\"}", "algorithm");
    refuse_header(0, "none", "{\"alg\":\"\",\"kid\":\"rsa\"}", "algorithm");
    refuse_header(0, "none", "{\"alg\":\"RS256\",\"kid\":\"rsa\"}", "signature");
    refuse_header(0, "HS256", "{\"alg\":\"RS256\",\"kid\":\"rsa\"}", "signature");
    /* the algorithm of another type of key */
    refuse_header(2, "ES256", "{\"alg\":\"RS256\",\"kid\":\"ec\"}", "that of its key");
    refuse_header(0, "RS256", "{\"alg\":\"ES256\",\"kid\":\"rsa\"}", "that of its key");
    refuse_header(3, "EdDSA", "{\"alg\":\"ES256\",\"kid\":\"ed\"}", "that of its key");
    /* the key is for PS256 only */
    refuse_header(4, "RS256", "{\"alg\":\"RS256\",\"kid\":\"ps-only\"}", "that of its key");
    /* signed one way, named another */
    refuse_header(0, "RS256", "{\"alg\":\"PS256\",\"kid\":\"rsa\"}", "signature");
    refuse_header(0, "PS256", "{\"alg\":\"RS256\",\"kid\":\"rsa\"}", "signature");
    refuse_header(0, "PS256 unsalted", "{\"alg\":\"PS256\",\"kid\":\"rsa\"}", "signature");
    refuse_header(0, "RS256", "{\"alg\":\"RS384\",\"kid\":\"rsa\"}", "algorithm");
}

static void keys_are_chosen_by_kid(void **state)
{
    (void)state;
    refuse_header(0, "RS256", "{\"alg\":\"RS256\",\"kid\":\"other\"}", "key is unknown");
    refuse_header(0, "RS256", "{\"alg\":\"RS256\"}", "key is unknown"); /* one of four: which? */
    refuse_header(0, "PS256", "{\"alg\":\"PS256\",\"kid\":\"ps-only\"}", "signature");
    refuse_header(4, "PS256", "{\"alg\":\"PS256\",\"kid\":\"rsa\"}", "signature");
    /* a key in the header is no key */
    refuse_header(0, "RS256", "{\"alg\":\"RS256\",\"jwk\":{\"kty\":\"oct\",\"k\":\"AA\"}}", "key is unknown");
}

static void the_only_key_needs_no_kid(void **state)
{
    char *jwk = signer_jwk(signer_key(SIGNER_ED25519, 0), "ed", "");
    char *text = signer_printf("{\"keys\":[%s]}", jwk);
    char *token = signer_token(signer_key(SIGNER_ED25519, 0), "EdDSA", "{\"alg\":\"EdDSA\"}", PAYLOAD);
    struct phx_jwks        *one;
    struct phx_token_claims claims;
    struct phx_err          err = {0};

    (void)state;
    assert_int_equal(phx_jwks_parse(text, strlen(text), &one, &err), 0);
    assert_int_equal(phx_token_verify(one, &rules, token, NOW * S, NOW * S, &claims, &err), 0);
    phx_jwks_free(one);
    free(jwk);
    free(text);
    free(token);
}

static void headers_are_strict(void **state)
{
    (void)state;
    refuse_header(3, "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":\"ed\",\"crit\":[\"exp\"]}", "crit");
    refuse_header(3, "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":\"ed\",\"crit\":null}", "crit");
    refuse_header(3, "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":\"ed\",\"typ\":\"secevent+jwt\"}", "typ");
    refuse_header(3, "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":7}", "header");
    refuse_header(3, "EdDSA", "{\"alg\":[\"EdDSA\"],\"kid\":\"ed\"}", "header");
    refuse_header(3, "EdDSA", "{\"kid\":\"ed\"}", "header");
    refuse_header(3, "EdDSA", "{\"alg\":\"none\",\"alg\":\"EdDSA\",\"kid\":\"ed\"}", "header");
    refuse_header(3, "EdDSA", "[]", "header");
    refuse_header(3, "EdDSA", "", "header");
    refuse_header(3, "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":\"ed\"} x", "header");
}

/* ---- claims ------------------------------------------------------------------------------------------------ */

#define HEAD "{\"iss\":\"https://idp.example\",\"aud\":\"phalanx\",\"sub\":\"00u1\","

static void times_are_checked(void **state)
{
    struct phx_token_claims claims;

    (void)state;
    assert_int_equal(try_payload(HEAD "\"exp\":1793491141}", &claims), 0); /* within the leeway */
    assert_int_equal(try_payload(HEAD "\"exp\":1793494800.75}", &claims), 0);
    assert_int_equal(try_payload(HEAD "\"exp\":1793494800,\"nbf\":1793491260,\"iat\":1793491260}", &claims), 0);
    refuse_payload(HEAD "\"exp\":1793491140}", "expired");
    refuse_payload(HEAD "\"exp\":0}", "expired");
    refuse_payload(HEAD "\"exp\":1793494800,\"nbf\":1793491261}", "future");
    refuse_payload(HEAD "\"exp\":1793494800,\"iat\":1793491261}", "future");
    refuse_payload(HEAD "\"iat\":1793491100}", "no exp");
    refuse_payload(HEAD "\"exp\":\"1793494800\"}", "seconds");
    refuse_payload(HEAD "\"exp\":-1}", "seconds");
    refuse_payload(HEAD "\"exp\":9e99}", "seconds");
    refuse_payload(HEAD "\"exp\":253402300801}", "seconds");
    refuse_payload(HEAD "\"exp\":null}", "seconds");
    refuse_payload(HEAD "\"exp\":1793494800,\"nbf\":\"0\"}", "seconds");
}

/* While a wall clock that is ahead is held back, tokens of the issuer's present must open; a token that both
 * clocks say is expired must not. */
static void a_held_clock_shuts_nobody_out(void **state)
{
    char *token = signer_token(signer_key(SIGNER_ED25519, 0), "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":\"ed\"}",
                               PAYLOAD);
    struct phx_token_claims claims;
    struct phx_err          err = {0};
    const int64_t           month = 31 * 86400;

    (void)state;
    assert_int_equal(verify_at(token, &rules, NOW - month, NOW, &claims, &err), 0);
    assert_int_equal(verify_at(token, &rules, NOW, NOW + 20 * 12 * month, &claims, &err), 0);
    assert_int_equal(verify_at(token, &rules, NOW - month, NOW - month, &claims, &err), PHX_E_UNAUTH);
    assert_int_equal(verify_at(token, &rules, NOW + month, NOW, &claims, &err), PHX_E_UNAUTH);
    free(token);
}

static void issuer_audience_and_subject_are_checked(void **state)
{
    struct phx_token_claims claims;
    char                    payload[512], subject[140];

    (void)state;
    refuse_payload("{\"iss\":\"https://idp.example/\",\"aud\":\"phalanx\",\"sub\":\"u\",\"exp\":1793494800}", "issuer");
    refuse_payload("{\"aud\":\"phalanx\",\"sub\":\"u\",\"exp\":1793494800}", "issuer");
    refuse_payload("{\"iss\":[\"https://idp.example\"],\"aud\":\"phalanx\",\"sub\":\"u\",\"exp\":1793494800}", "issuer");
    refuse_payload("{\"iss\":\"https://idp.example\",\"aud\":\"other\",\"sub\":\"u\",\"exp\":1793494800}", "audience");
    refuse_payload("{\"iss\":\"https://idp.example\",\"aud\":[\"a\",\"b\"],\"sub\":\"u\",\"exp\":1793494800}", "audience");
    refuse_payload("{\"iss\":\"https://idp.example\",\"aud\":[],\"sub\":\"u\",\"exp\":1793494800}", "audience");
    refuse_payload("{\"iss\":\"https://idp.example\",\"sub\":\"u\",\"exp\":1793494800}", "audience");
    refuse_payload("{\"iss\":\"https://idp.example\",\"aud\":\"phalanx\",\"exp\":1793494800}", "sub");
    refuse_payload("{\"iss\":\"https://idp.example\",\"aud\":\"phalanx\",\"sub\":\"\",\"exp\":1793494800}", "sub");
    refuse_payload("{\"iss\":\"https://idp.example\",\"aud\":\"phalanx\",\"sub\":7,\"exp\":1793494800}", "sub");
    refuse_payload("{\"iss\":\"https://idp.example\",\"aud\":\"phalanx\",\"sub\":\"a\\nb\",\"exp\":1793494800}", "control");
    refuse_payload("{\"iss\":\"https://idp.example\",\"aud\":\"phalanx\",\"sub\":\"a\\u0000b\",\"exp\":1793494800}", "payload");
    refuse_payload("{\"iss\":\"https://idp.example\",\"aud\":\"phalanx\",\"sub\":\"a\",\"sub\":\"b\",\"exp\":1793494800}", "payload");
    assert_int_equal(try_payload("{\"iss\":\"https://idp.example\",\"aud\":[\"x\",\"phalanx\"],\"sub\":\"u\","
                                 "\"exp\":1793494800}", &claims), 0);
    for (size_t n = 128; n <= 129; n++) {
        memset(subject, 's', n);
        subject[n] = '\0';
        (void)snprintf(payload, sizeof(payload),
                       "{\"iss\":\"https://idp.example\",\"aud\":\"phalanx\",\"sub\":\"%s\",\"exp\":1793494800}",
                       subject);
        assert_int_equal(try_payload(payload, &claims), n == 128 ? 0 : PHX_E_UNAUTH);
        if (n == 128)
            assert_string_equal(claims.subject, subject);
    }
}

static int try_rules(const struct phx_token_rules *r, const char *more, struct phx_token_claims *out)
{
    char *payload = signer_printf(HEAD "\"exp\":1793494800%s}", more);
    char *token = signer_token(signer_key(SIGNER_ED25519, 0), "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":\"ed\"}",
                               payload);
    struct phx_err err = {0};
    int            rc = verify_at(token, r, NOW, NOW, out, &err);

    free(payload);
    free(token);
    return rc;
}

static void tenant_and_roles_come_from_claims(void **state)
{
    struct phx_token_rules  r = rules;
    struct phx_token_claims claims;

    (void)state;
    r.tenant_claim = "org";
    r.roles_claim = "https://acme.example/roles";
    assert_int_equal(try_rules(&r, ",\"org\":\"icu\",\"https://acme.example/roles\":[\"auditor\",\"everyone\","
                                   "\"user\",7,\"user,admin\"]", &claims), 0);
    assert_string_equal(claims.tenant, "icu");
    assert_int_equal(claims.roles, PHX_ROLE_BIT_USER | PHX_ROLE_BIT_AUDITOR);
    assert_int_equal(try_rules(&r, ",\"org\":\"icu\",\"https://acme.example/roles\":\"admin,user\"", &claims), 0);
    assert_int_equal(claims.roles, PHX_ROLE_BIT_USER | PHX_ROLE_BIT_ADMIN);
    assert_int_equal(try_rules(&r, ",\"org\":\"icu\"", &claims), 0);
    assert_int_equal(claims.roles, 0); /* known, with no right */
    assert_int_equal(try_rules(&r, "", &claims), PHX_E_UNAUTH);
    assert_int_equal(try_rules(&r, ",\"org\":\"\"", &claims), PHX_E_UNAUTH);
    assert_int_equal(try_rules(&r, ",\"org\":\"a b\"", &claims), PHX_E_UNAUTH);
    assert_int_equal(try_rules(&r, ",\"org\":\"../x\"", &claims), PHX_E_UNAUTH);
    assert_int_equal(try_rules(&r, ",\"org\":{}", &claims), PHX_E_UNAUTH);
}

/* ---- form ------------------------------------------------------------------------------------------------------ */

static void damaged_tokens_are_refused(void **state)
{
    (void)state;
    for (int i = 0; i < N_GOOD; i++) {
        char *header = signer_printf("{\"alg\":\"%s\",\"kid\":\"%s\"}", good[i].alg, good[i].kid);
        char *token = signer_token(signer_key(good[i].kind, good[i].number), good[i].alg, header, PAYLOAD);
        struct phx_token_claims claims;
        struct phx_err          err = {0};
        size_t                  size = strlen(token);

        assert_int_equal(verify_at(token, &rules, NOW, NOW, &claims, &err), 0);
        for (size_t bit = 0; bit < 8 * size; bit++) {
            token[bit / 8] ^= (char)(1 << (bit % 8));
            if (verify_at(token, &rules, NOW, NOW, &claims, &err) != PHX_E_UNAUTH)
                fail_msg("%s: bit %zu of byte %zu of %zu may flip", good[i].alg, bit % 8, bit / 8, size);
            token[bit / 8] ^= (char)(1 << (bit % 8));
        }
        for (size_t n = 0; n < size; n++) {
            char *cut = strndup(token, n);

            assert_int_equal(verify_at(cut, &rules, NOW, NOW, &claims, &err), PHX_E_UNAUTH);
            free(cut);
        }
        assert_int_equal(verify_at(token, &rules, NOW, NOW, &claims, &err), 0);
        free(header);
        free(token);
    }
}

static void form_is_strict(void **state)
{
    static const char *const bad[] = {"", ".", "..", "...", "a.b", "a.b.c", "e30.e30.", "e30.e30.AA=="};
    char *token = signer_token(signer_key(SIGNER_ED25519, 0), "EdDSA", "{\"alg\":\"EdDSA\",\"kid\":\"ed\"}", PAYLOAD);
    char *forms[5];
    char *large = calloc(1, 20000);
    struct phx_token_claims claims;
    struct phx_err          err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        assert_int_equal(verify_at(bad[i], &rules, NOW, NOW, &claims, &err), PHX_E_UNAUTH);
    forms[0] = signer_printf("%s=", token);
    forms[1] = signer_printf("%s.", token);
    forms[2] = signer_printf(" %s", token);
    forms[3] = signer_printf("%s\n", token);
    forms[4] = signer_printf("%s.%s", token, token);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(verify_at(forms[i], &rules, NOW, NOW, &claims, &err), PHX_E_UNAUTH);
        free(forms[i]);
    }
    assert_non_null(large);
    memset(large, 'a', 16385);
    assert_int_equal(verify_at(large, &rules, NOW, NOW, &claims, &err), PHX_E_UNAUTH);
    assert_non_null(strstr(err.text, "16 KiB"));
    free(large);
    free(token);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(four_algorithms_open),
        cmocka_unit_test(algorithms_cannot_be_confused),
        cmocka_unit_test(keys_are_chosen_by_kid),
        cmocka_unit_test(the_only_key_needs_no_kid),
        cmocka_unit_test(headers_are_strict),
        cmocka_unit_test(times_are_checked),
        cmocka_unit_test(a_held_clock_shuts_nobody_out),
        cmocka_unit_test(issuer_audience_and_subject_are_checked),
        cmocka_unit_test(tenant_and_roles_come_from_claims),
        cmocka_unit_test(damaged_tokens_are_refused),
        cmocka_unit_test(form_is_strict),
    };

    return cmocka_run_group_tests_name("daemon/identity/token", tests, make_keys, free_keys);
}
