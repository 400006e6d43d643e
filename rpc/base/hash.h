/* SPDX-License-Identifier: Apache-2.0
 * SHA-256, HMAC-SHA-256 and comparing secrets. */
#ifndef PHX_RPC_BASE_HASH_H
#define PHX_RPC_BASE_HASH_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

enum { PHX_SHA256_BYTES = 32, PHX_SHA256_HEX = 65 /* with the NUL */ };

/* Streaming: init, update any number of times, final (which also frees) or fini. */
struct phx_sha256 {
    void *ctx; /* owned between init and final/fini */
};
void phx_sha256_init(struct phx_sha256 *h);
void phx_sha256_update(struct phx_sha256 *h, const void *data, size_t size);
void phx_sha256_final(struct phx_sha256 *h, uint8_t digest[PHX_SHA256_BYTES]);
void phx_sha256_fini(struct phx_sha256 *h); /* gives up without a digest */

void phx_sha256(const void *data, size_t size, uint8_t digest[PHX_SHA256_BYTES]);
void phx_sha256_hex(const void *data, size_t size, char text[PHX_SHA256_HEX]);
void phx_hmac_sha256(const void *key, size_t key_size, const void *data, size_t size,
                     uint8_t digest[PHX_SHA256_BYTES]);

/* Equal bytes, in time that depends on size only. */
bool phx_secret_equal(const void *a, const void *b, size_t size);
/* Equal strings, in time that depends on the lengths only (compares SHA-256 digests). */
bool phx_secret_equal_str(const char *a, const char *b);
/* Overwrites memory in a way the compiler cannot drop. */
void phx_secret_wipe(void *data, size_t size);

#endif
