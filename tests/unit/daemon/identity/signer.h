/* SPDX-License-Identifier: Apache-2.0
 * An identity provider for tests: keys made by OpenSSL, tokens of any header and payload. */
#ifndef PHX_TESTS_IDENTITY_SIGNER_H
#define PHX_TESTS_IDENTITY_SIGNER_H

#include <openssl/evp.h>

enum signer_kind { SIGNER_RSA = 0, SIGNER_RSA_SMALL, SIGNER_P256, SIGNER_ED25519, SIGNER_P384, N_SIGNERS };

/* Made once for the process; borrowed. */
EVP_PKEY *signer_key(enum signer_kind kind, int number);
/* One entry of a key set; extra is put into the object ("\"alg\":\"RS256\","), may be "".  Owned: free(). */
char *signer_jwk(EVP_PKEY *key, const char *kid, const char *extra);
/* base64url without padding.  Owned: free(). */
char *signer_encode(const void *data, size_t size);
/* header and payload are JSON text; alg says how to sign: "RS256", "PS256", "ES256", "EdDSA", "none",
 * "PS256 unsalted", or "HS256" with the key's PEM text as the secret.  Owned: free(). */
char *signer_token(EVP_PKEY *key, const char *alg, const char *header, const char *payload);
char *signer_printf(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
