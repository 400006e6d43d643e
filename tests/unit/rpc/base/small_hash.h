/* SPDX-License-Identifier: Apache-2.0 */
#ifndef PHX_TESTS_UNIT_RPC_BASE_SMALL_HASH_H
#define PHX_TESTS_UNIT_RPC_BASE_SMALL_HASH_H

#include <stddef.h>

/* Of `size` bytes, given in two parts, the first of `first`. */
int small_generichash(unsigned char *out, size_t out_bytes, const unsigned char *data, size_t size, size_t first);
int small_shorthash(unsigned char *out, const unsigned char *data, unsigned long long size, const unsigned char *key);

#endif
