/* SPDX-License-Identifier: Apache-2.0
 * Bytes as hexadecimal digits. */
#ifndef PHX_RPC_BASE_HEX_H
#define PHX_RPC_BASE_HEX_H

#include <stddef.h>

#include "rpc/base/err.h"

/* Lower-case hex and a NUL; text_size >= 2 * size + 1. */
void phx_hex_encode(char *text, size_t text_size, const void *data, size_t size);
/* Exactly 2 * size hex digits and then the end; PHX_E_FORMAT else. */
int phx_hex_decode(void *out, size_t size, const char *text, struct phx_err *err) PHX_CHECKED;

#endif
