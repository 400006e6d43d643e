/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"

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
