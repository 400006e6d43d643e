/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/identity: public keys of an identity provider. */
#ifndef PHX_DAEMON_IDENTITY_JWKS_H
#define PHX_DAEMON_IDENTITY_JWKS_H

#include <openssl/evp.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/identity/identity.h"

enum phx_key_type { PHX_KEY_RSA = 1, PHX_KEY_P256, PHX_KEY_ED25519 };
enum { PHX_KID_MAX = 128 };

struct phx_jwk {
    char              kid[PHX_KID_MAX + 1]; /* "" = none */
    char              alg[8];               /* "" = any that fits the type */
    enum phx_key_type type;
    EVP_PKEY         *key;
};

/* The key a token's header asks for: by kid, or without one the only key there is.  NULL = none. */
const struct phx_jwk *phx_jwks_find(const struct phx_jwks *j, const char *kid);

/* Strict base64url: no padding, no other characters, unused bits zero.  *size: in the room, out the length. */
bool phx_base64url_decode(const char *text, size_t text_size, uint8_t *out, size_t *size);

#endif
