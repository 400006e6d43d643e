/* SPDX-License-Identifier: Apache-2.0
 * UTF-8 checks (RFC 3629: no surrogates, nothing above U+10FFFF, no overlong forms). */
#ifndef PHX_RPC_BASE_UTF8_H
#define PHX_RPC_BASE_UTF8_H

#include <stdbool.h>
#include <stddef.h>

/* Length in bytes of the longest valid prefix; equal to size when all of it is valid. */
size_t phx_utf8_valid_prefix(const char *s, size_t size);
bool   phx_utf8_is_valid(const char *s, size_t size);
/* Bytes of the prefix that ends on a whole character: what follows is an unfinished one (at most 3
 * bytes).  Invalid bytes count as whole. */
size_t phx_utf8_whole_prefix(const char *s, size_t size);

#endif
