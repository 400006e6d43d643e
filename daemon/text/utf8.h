/* SPDX-License-Identifier: Apache-2.0
 * UTF-8: stepping, and a stream that repairs (private to daemon/text). */
#ifndef PHX_DAEMON_TEXT_UTF8_H
#define PHX_DAEMON_TEXT_UTF8_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"

/* The first character of valid, non-empty text: its code point and its length in bytes. */
int32_t phx_utf8_first(const char *s, size_t *length);
/* Length in bytes of the last character of valid, non-empty text. */
size_t phx_utf8_last_length(const char *s, size_t size);
/* Writes 1 to 4 bytes, returns how many. */
size_t phx_utf8_put(char *dst, int32_t code_point);

/* Bytes in, whole characters out.  What is not UTF-8 becomes U+FFFD: one for each maximal part of
 * a character (as WHATWG and Rust do), or one for each byte when is_per_byte is set (as the
 * SentencePiece byte fallback does). */
struct phx_utf8_stream {
    char tail[4];
    int  n;
    bool is_per_byte;
};
void phx_utf8_push(struct phx_utf8_stream *s, const char *data, size_t size, struct phx_buf *out);
void phx_utf8_flush(struct phx_utf8_stream *s, struct phx_buf *out);

#endif
