/* SPDX-License-Identifier: Apache-2.0
 * GPT-2's byte alphabet: every byte is written as one printable character (private to daemon/text).
 * Bytes 21-7E, A1-AC and AE-FF stand for themselves; the other 68 are U+0100, U+0101, ... in order.
 */
#ifndef PHX_DAEMON_TEXT_BYTELEVEL_H
#define PHX_DAEMON_TEXT_BYTELEVEL_H

#include <stdbool.h>
#include <stddef.h>

#include "rpc/base/buf.h"

/* Appends the bytes that `text` spells, or answers false (nothing appended) when a character is
 * outside the alphabet. */
bool phx_bytelevel_decode(const char *text, size_t size, struct phx_buf *out);
/* Appends the spelling of `data`; the inverse, for tests and tools. */
void phx_bytelevel_encode(const char *data, size_t size, struct phx_buf *out);

#endif
