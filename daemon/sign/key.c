/* SPDX-License-Identifier: Apache-2.0 */
#include <string.h>

#include <sodium.h>

#include "daemon/sign/sign.h"
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"

static const char SECRET_PREFIX[] = "phalanx-secret-key:ed25519:";
static const char PUBLIC_PREFIX[] = "phalanx-public-key:ed25519:";

enum { KEY_FILE_MAX_BYTES = 1024, TEXT_BYTES = 128 };

int phx_sign_init(struct phx_err *err)
{
    return sodium_init() >= 0 ? 0 : phx_fail(err, PHX_E_INTERNAL, "libsodium cannot start: no source of randomness");
}

void phx_sign_key_make(struct phx_sign_key *out)
{
    (void)crypto_sign_keypair(out->public_key, out->secret); /* always answers 0 */
}

void phx_sign_key_from_seed(const uint8_t seed[32], struct phx_sign_key *out)
{
    (void)crypto_sign_seed_keypair(out->public_key, out->secret, seed); /* always answers 0 */
}

void phx_sign_wipe(struct phx_sign_key *k)
{
    sodium_memzero(k, sizeof(*k));
}

void phx_sign_key_id(const uint8_t public_key[32], char id[PHX_KEY_ID_BYTES])
{
    memcpy(id, "ed25519:", 8);
    phx_sha256_hex(public_key, 32, id + 8);
}

/* "PREFIX<64 hex digits>" and a newline at most. */
static int read_key(const char *path, const char *prefix, uint8_t out[32], struct phx_err *err)
{
    struct phx_buf text = {0};
    size_t         n = strlen(prefix);
    int            rc = phx_buf_read_file(&text, path, KEY_FILE_MAX_BYTES, err);

    if (rc == 0) {
        text.data[strcspn(text.data, "\r\n")] = '\0';
        if (strncmp(text.data, prefix, n) != 0 || phx_hex_decode(out, 32, text.data + n, NULL) != 0)
            rc = phx_fail(err, PHX_E_FORMAT, "%s: not a key file (\"%s\" and 64 hex digits)", path, prefix);
    }
    if (text.data != NULL)
        sodium_memzero(text.data, text.size);
    phx_buf_fini(&text);
    return rc;
}

static int write_key(const char *path, const char *prefix, const uint8_t key[32], unsigned mode,
                     struct phx_err *err)
{
    char   text[TEXT_BYTES];
    size_t n = strlen(prefix);
    int    rc;

    memcpy(text, prefix, n);
    phx_hex_encode(text + n, sizeof(text) - n, key, 32);
    n = strlen(text);
    text[n++] = '\n';
    rc = phx_file_write(path, text, n, mode, err);
    sodium_memzero(text, sizeof(text));
    return rc;
}

int phx_sign_key_read(const char *path, struct phx_sign_key *out, struct phx_err *err)
{
    uint8_t seed[32];
    int     rc = read_key(path, SECRET_PREFIX, seed, err);

    if (rc == 0)
        phx_sign_key_from_seed(seed, out);
    sodium_memzero(seed, sizeof(seed));
    return rc;
}

int phx_sign_key_write(const char *path, const struct phx_sign_key *k, struct phx_err *err)
{
    return write_key(path, SECRET_PREFIX, k->secret, 0600, err); /* the first half of a secret is its seed */
}

int phx_sign_public_read(const char *path, uint8_t out[32], struct phx_err *err)
{
    return read_key(path, PUBLIC_PREFIX, out, err);
}

int phx_sign_public_write(const char *path, const uint8_t key[32], struct phx_err *err)
{
    return write_key(path, PUBLIC_PREFIX, key, 0644, err);
}

void phx_sign_bytes(const struct phx_sign_key *k, const void *data, size_t size, uint8_t sig[64])
{
    (void)crypto_sign_detached(sig, NULL, data, size, k->secret); /* always answers 0 */
}

bool phx_sign_verify(const uint8_t public_key[32], const void *data, size_t size, const uint8_t sig[64])
{
    return crypto_sign_verify_detached(sig, data, size, public_key) == 0;
}
