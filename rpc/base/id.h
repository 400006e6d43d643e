/* SPDX-License-Identifier: Apache-2.0
 * Random bytes and ids, from getrandom().  Ids are not secrets unless 16 bytes or more. */
#ifndef PHX_RPC_BASE_ID_H
#define PHX_RPC_BASE_ID_H

#include <stddef.h>
#include <stdint.h>

/* Fills `out` with n unpredictable bytes; never fails (blocks only before the kernel is seeded). */
void phx_id_random(void *out, size_t n);
uint64_t phx_id_random_u64(void);
/* 2 * n_bytes lower-case hex digits and a NUL into `text`, which holds text_size >= 2 * n_bytes + 1. */
void phx_id_hex(char *text, size_t text_size, size_t n_bytes);

#endif
