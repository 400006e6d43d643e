/* SPDX-License-Identifier: Apache-2.0
 * The hashes of tests/gpu/small under other names, so that a program may have the library's as well. */
#define crypto_generichash_init   small_generichash_init
#define crypto_generichash_update small_generichash_update
#define crypto_generichash_final  small_generichash_final
#define crypto_shorthash          small_shorthash
#include "tests/gpu/small/sodium.c"

#include "tests/unit/rpc/base/small_hash.h"

int small_generichash(unsigned char *out, size_t out_bytes, const unsigned char *data, size_t size, size_t first)
{
    crypto_generichash_state state;

    if (small_generichash_init(&state, NULL, 0, out_bytes) != 0)
        return -1;
    return small_generichash_update(&state, data, first) | small_generichash_update(&state, data + first, size - first) |
           small_generichash_final(&state, out, out_bytes);
}
