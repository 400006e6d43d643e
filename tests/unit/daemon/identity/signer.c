/* SPDX-License-Identifier: Apache-2.0 */
#include "signer.h"

#include <openssl/core_names.h>
#include <openssl/ecdsa.h>
#include <openssl/hmac.h>
#include <openssl/pem.h>
#include <openssl/rsa.h>
#include <setjmp.h>
#include <sodium.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

char *signer_printf(const char *fmt, ...)
{
    va_list args;
    char   *text = NULL;

    va_start(args, fmt);
    assert_true(vasprintf(&text, fmt, args) >= 0);
    va_end(args);
    return text;
}

EVP_PKEY *signer_key(enum signer_kind kind, int number)
{
    static EVP_PKEY *keys[N_SIGNERS][2];
    EVP_PKEY       **key = &keys[kind][number];

    if (*key == NULL)
        *key = kind == SIGNER_RSA         ? EVP_RSA_gen(2048)
               : kind == SIGNER_RSA_SMALL ? EVP_RSA_gen(1024)
               : kind == SIGNER_P256      ? EVP_EC_gen("P-256")
               : kind == SIGNER_P384      ? EVP_EC_gen("P-384")
                                          : EVP_PKEY_Q_keygen(NULL, NULL, "ED25519");
    assert_non_null(*key);
    return *key;
}

char *signer_encode(const void *data, size_t size)
{
    size_t room = sodium_base64_ENCODED_LEN(size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    char  *text = malloc(room);

    assert_non_null(text);
    sodium_bin2base64(text, room, data, size, sodium_base64_VARIANT_URLSAFE_NO_PADDING);
    return text;
}

static char *encode_number(EVP_PKEY *key, const char *name, int size)
{
    BIGNUM *n = NULL;
    uint8_t bytes[1024];

    assert_int_equal(EVP_PKEY_get_bn_param(key, name, &n), 1);
    if (size == 0)
        size = BN_num_bytes(n);
    assert_int_equal(BN_bn2binpad(n, bytes, size), size);
    BN_free(n);
    return signer_encode(bytes, (size_t)size);
}

char *signer_jwk(EVP_PKEY *key, const char *kid, const char *extra)
{
    char   *a = NULL, *b = NULL, *out;
    uint8_t raw[32];
    size_t  size = sizeof(raw);

    if (EVP_PKEY_is_a(key, "RSA")) {
        a = encode_number(key, OSSL_PKEY_PARAM_RSA_N, 0);
        b = encode_number(key, OSSL_PKEY_PARAM_RSA_E, 0);
        out = signer_printf("{%s\"kty\":\"RSA\",\"kid\":\"%s\",\"n\":\"%s\",\"e\":\"%s\"}", extra, kid, a, b);
    } else if (EVP_PKEY_is_a(key, "EC")) {
        size = (size_t)(EVP_PKEY_get_bits(key) / 8);
        a = encode_number(key, OSSL_PKEY_PARAM_EC_PUB_X, (int)size);
        b = encode_number(key, OSSL_PKEY_PARAM_EC_PUB_Y, (int)size);
        out = signer_printf("{%s\"kty\":\"EC\",\"crv\":\"P-%d\",\"kid\":\"%s\",\"x\":\"%s\",\"y\":\"%s\"}", extra,
                            EVP_PKEY_get_bits(key), kid, a, b);
    } else {
        assert_int_equal(EVP_PKEY_get_raw_public_key(key, raw, &size), 1);
        a = signer_encode(raw, size);
        out = signer_printf("{%s\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"%s\",\"x\":\"%s\"}", extra, kid, a);
    }
    free(a);
    free(b);
    return out;
}

static size_t sign_hmac(EVP_PKEY *key, const char *text, uint8_t *out)
{
    BIO     *bio = BIO_new(BIO_s_mem());
    char    *pem;
    long     n;
    unsigned size = 0;

    assert_int_equal(PEM_write_bio_PUBKEY(bio, key), 1);
    n = BIO_get_mem_data(bio, &pem);
    assert_non_null(HMAC(EVP_sha256(), pem, (int)n, (const uint8_t *)text, strlen(text), out, &size));
    BIO_free(bio);
    return size;
}

/* DER to the 64 bytes of a token. */
static size_t to_raw(uint8_t *signature, size_t size)
{
    const uint8_t *p = signature;
    ECDSA_SIG     *sig = d2i_ECDSA_SIG(NULL, &p, (long)size);
    uint8_t        raw[64];

    assert_non_null(sig);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_r(sig), raw, 32), 32);
    assert_int_equal(BN_bn2binpad(ECDSA_SIG_get0_s(sig), raw + 32, 32), 32);
    ECDSA_SIG_free(sig);
    memcpy(signature, raw, sizeof(raw));
    return sizeof(raw);
}

static size_t sign(EVP_PKEY *key, const char *alg, const char *text, uint8_t out[1024])
{
    EVP_MD_CTX   *ctx = EVP_MD_CTX_new();
    EVP_PKEY_CTX *options = NULL;
    size_t        size = 1024;

    assert_int_equal(EVP_DigestSignInit(ctx, &options, strcmp(alg, "EdDSA") == 0 ? NULL : EVP_sha256(), NULL,
                                        key),
                     1);
    if (strncmp(alg, "PS256", 5) == 0) {
        assert_true(EVP_PKEY_CTX_set_rsa_padding(options, RSA_PKCS1_PSS_PADDING) == 1);
        assert_true(EVP_PKEY_CTX_set_rsa_pss_saltlen(options, alg[5] == '\0' ? RSA_PSS_SALTLEN_DIGEST : 0) == 1);
    }
    assert_int_equal(EVP_DigestSign(ctx, out, &size, (const uint8_t *)text, strlen(text)), 1);
    EVP_MD_CTX_free(ctx);
    return strcmp(alg, "ES256") == 0 ? to_raw(out, size) : size;
}

char *signer_token(EVP_PKEY *key, const char *alg, const char *header, const char *payload)
{
    char   *h = signer_encode(header, strlen(header)), *p = signer_encode(payload, strlen(payload));
    char   *text = signer_printf("%s.%s", h, p), *s, *token;
    uint8_t signature[1024];
    size_t  size = 0;

    if (strcmp(alg, "HS256") == 0)
        size = sign_hmac(key, text, signature);
    else if (strcmp(alg, "none") != 0)
        size = sign(key, alg, text, signature);
    s = signer_encode(signature, size);
    token = signer_printf("%s.%s", text, s);
    free(h);
    free(p);
    free(text);
    free(s);
    return token;
}
