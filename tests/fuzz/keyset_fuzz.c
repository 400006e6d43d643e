/* SPDX-License-Identifier: Apache-2.0
 * Key sets: as for licences. */
#include <string.h>

#include "daemon/license/terms.h"
#include "daemon/sign/sign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static struct phx_license_roots roots;
    struct phx_key_set              keys;
    struct phx_err                  err;

    for (; roots.n_keys < 2; roots.n_keys++) {
        struct phx_sign_key key;

        phx_assert(phx_sign_init(&err) == 0);
        phx_sign_key_make(&key);
        memcpy(roots.keys[roots.n_keys], key.public_key, 32);
        roots.threshold = 2;
    }
    phx_assert(phx_key_set_parse(data, size, &roots, &keys, &err) != 0);
    if (phx_key_set_read(data, size, &keys, &err) == 0) {
        phx_assert(keys.version >= 1 && keys.n_issuers >= 1 && keys.n_issuers <= PHX_ISSUERS_MAX);
        phx_assert(keys.n_revoked >= 0 && keys.n_revoked <= PHX_REVOKED_MAX);
        for (int32_t i = 0; i < keys.n_issuers; i++)
            phx_assert(keys.issuers[i].not_after_ns > keys.issuers[i].not_before_ns);
    } else
        phx_assert(keys.n_issuers == 0 && keys.version == 0);
    return 0;
}
