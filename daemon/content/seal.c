/* SPDX-License-Identifier: Apache-2.0
 * Authenticated encryption of small and large texts; each is bound to where it lies, so that it cannot be
 * moved to another row. */
#include <sodium.h>
#include <string.h>

#include "daemon/content/vault.h"
#include "rpc/base/id.h"

enum {
    NONCE = crypto_aead_xchacha20poly1305_ietf_NPUBBYTES,
    TAG = crypto_aead_xchacha20poly1305_ietf_ABYTES
};
_Static_assert(NONCE + TAG == PHX_SEAL_OVERHEAD, "the overhead of a sealed text");
_Static_assert(crypto_aead_xchacha20poly1305_ietf_KEYBYTES == PHX_CONTENT_KEY_BYTES, "key size");

/* Each part with the NUL behind it: no two lists of parts give the same bytes. */
static void put_place(struct phx_buf *out, const struct phx_seal_place *place)
{
    phx_buf_init(out, 0);
    for (size_t i = 0; place->parts[i] != NULL; i++)
        phx_buf_put(out, place->parts[i], strlen(place->parts[i]) + 1);
}

void phx_seal(const uint8_t key[PHX_CONTENT_KEY_BYTES], const struct phx_seal_place *place, const void *text,
              size_t size, uint8_t *out)
{
    struct phx_buf aad;

    put_place(&aad, place);
    phx_id_random(out, NONCE);
    (void)crypto_aead_xchacha20poly1305_ietf_encrypt(out + NONCE, NULL, text, size, /* always answers 0 */
                                                     (const unsigned char *)aad.data, aad.size, NULL, out,
                                                     key);
    phx_buf_fini(&aad);
}

bool phx_unseal(const uint8_t key[PHX_CONTENT_KEY_BYTES], const struct phx_seal_place *place,
                const void *sealed, size_t size, uint8_t *out)
{
    const uint8_t *bytes = sealed;
    struct phx_buf aad;
    int            rc;

    if (sealed == NULL || size < PHX_SEAL_OVERHEAD)
        return false;
    put_place(&aad, place);
    rc = crypto_aead_xchacha20poly1305_ietf_decrypt(out, NULL, NULL, bytes + NONCE, size - NONCE,
                                                    (const unsigned char *)aad.data, aad.size, bytes, key);
    phx_buf_fini(&aad);
    return rc == 0;
}
