/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/text/bytelevel.h"

#include "daemon/text/utf8.h"

static bool stands_for_itself(int32_t c)
{
    return (c >= 0x21 && c <= 0x7E) || (c >= 0xA1 && c <= 0xAC) || (c >= 0xAE && c <= 0xFF);
}

/* The byte of a code point, -1 outside the alphabet. */
static int byte_of(int32_t c)
{
    if (stands_for_itself(c))
        return c;
    if (c < 0x100 || c > 0x143)
        return -1;
    int nth = c - 0x100; /* U+0100 is the first byte that does not stand for itself, and so on */
    if (nth <= 0x20)
        return nth; /* 00-20 */
    if (nth <= 0x42)
        return nth - 0x21 + 0x7F; /* 7F-A0 */
    return 0xAD;
}

bool phx_bytelevel_decode(const char *text, size_t size, struct phx_buf *out)
{
    size_t before = out->size;
    for (size_t i = 0; i < size;) {
        size_t length;
        int    byte = byte_of(phx_utf8_first(text + i, &length));
        if (byte < 0) {
            out->size = before;
            return false;
        }
        phx_buf_putc(out, (char)byte);
        i += length;
    }
    return true;
}

void phx_bytelevel_encode(const char *data, size_t size, struct phx_buf *out)
{
    for (size_t i = 0; i < size; i++) {
        unsigned char b = (unsigned char)data[i];
        int32_t       c = b;
        if (!stands_for_itself(b))
            c = 0x100 + (b <= 0x20 ? b : b <= 0xA0 ? b - 0x7F + 0x21 : 0x43);
        char   utf8[4];
        size_t n = phx_utf8_put(utf8, c);
        phx_buf_put(out, utf8, n);
    }
}
