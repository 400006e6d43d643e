/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/hash.h"

#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <string.h>

/* OpenSSL and not libsodium: it uses the CPU's SHA instructions, and whole checkpoints are hashed. */

void phx_sha256_init(struct phx_sha256 *h)
{
    h->ctx = EVP_MD_CTX_new();
    phx_assert(h->ctx != NULL);
    phx_assert(EVP_DigestInit_ex(h->ctx, EVP_sha256(), NULL) == 1);
}

void phx_sha256_update(struct phx_sha256 *h, const void *data, size_t size)
{
    phx_assert(EVP_DigestUpdate(h->ctx, data, size) == 1);
}

void phx_sha256_final(struct phx_sha256 *h, uint8_t digest[PHX_SHA256_BYTES])
{
    phx_assert(EVP_DigestFinal_ex(h->ctx, digest, NULL) == 1);
    phx_sha256_fini(h);
}

void phx_sha256_fini(struct phx_sha256 *h)
{
    EVP_MD_CTX_free(h->ctx);
    h->ctx = NULL;
}

void phx_sha256(const void *data, size_t size, uint8_t digest[PHX_SHA256_BYTES])
{
    phx_assert(EVP_Digest(data, size, digest, NULL, EVP_sha256(), NULL) == 1);
}

void phx_sha256_hex(const void *data, size_t size, char text[PHX_SHA256_HEX])
{
    uint8_t digest[PHX_SHA256_BYTES];

    phx_sha256(data, size, digest);
    phx_hex_encode(text, PHX_SHA256_HEX, digest, sizeof(digest));
}

void phx_hmac_sha256(const void *key, size_t key_size, const void *data, size_t size,
                     uint8_t digest[PHX_SHA256_BYTES])
{
    phx_assert(key_size <= 4096);
    phx_assert(HMAC(EVP_sha256(), key, (int)key_size, data, size, digest, NULL) != NULL);
}

void phx_hex_encode(char *text, size_t text_size, const void *data, size_t size)
{
    static const char    digits[] = "0123456789abcdef";
    const unsigned char *p = data;

    phx_assert(text_size > 2 * size);
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[p[i] >> 4];
        text[2 * i + 1] = digits[p[i] & 15];
    }
    text[2 * size] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int phx_hex_decode(void *out, size_t size, const char *text, struct phx_err *err)
{
    unsigned char *p = out;

    if (strlen(text) != 2 * size)
        return phx_fail(err, PHX_E_FORMAT, "expected %zu hex digits, found %zu characters",
                        2 * size, strlen(text));
    for (size_t i = 0; i < size; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return phx_fail(err, PHX_E_FORMAT, "not a hex digit at position %zu", 2 * i);
        p[i] = (unsigned char)(high << 4 | low);
    }
    return 0;
}

bool phx_secret_equal(const void *a, const void *b, size_t size)
{
    return CRYPTO_memcmp(a, b, size) == 0;
}

bool phx_secret_equal_str(const char *a, const char *b)
{
    uint8_t da[PHX_SHA256_BYTES], db[PHX_SHA256_BYTES];

    phx_sha256(a, strlen(a), da);
    phx_sha256(b, strlen(b), db);
    return phx_secret_equal(da, db, sizeof(da));
}

void phx_secret_wipe(void *data, size_t size)
{
    OPENSSL_cleanse(data, size);
}
