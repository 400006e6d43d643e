/* SPDX-License-Identifier: Apache-2.0
 * The few functions of libsodium that the scheduler's block names and tables use, for hosts that have nothing but a C
 * compiler: BLAKE2b without a key (RFC 7693) and SipHash-2-4.  Names and answers are the library's. */
#ifndef PHX_TESTS_GPU_SMALL_SODIUM_H
#define PHX_TESTS_GPU_SMALL_SODIUM_H

#include <stddef.h>
#include <stdint.h>

enum { crypto_shorthash_BYTES = 8, crypto_shorthash_KEYBYTES = 16, SMALL_BLAKE2B_BLOCK = 128 };

typedef struct {
    uint64_t      h[8], n_bytes;
    unsigned char block[SMALL_BLAKE2B_BLOCK];
    size_t        n_block;
} crypto_generichash_state;

/* out_bytes 1 to 64; a key is not supported: -1. */
int crypto_generichash_init(crypto_generichash_state *state, const unsigned char *key, size_t key_bytes, size_t out_bytes);
int crypto_generichash_update(crypto_generichash_state *state, const unsigned char *data, unsigned long long size);
int crypto_generichash_final(crypto_generichash_state *state, unsigned char *out, size_t out_bytes);
int crypto_shorthash(unsigned char *out, const unsigned char *data, unsigned long long size, const unsigned char *key);

#endif
