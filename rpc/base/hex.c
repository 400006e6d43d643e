/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/hex.h"

#include <string.h>

void phx_hex_encode(char *text, size_t text_size, const void *data, size_t size)
{
    static const char    digits[] = "0123456789abcdef";
    const unsigned char *p = data;

    phx_assert(text_size > 2 * size);
    for (size_t i = 0; i < size; i++) {
        text[2 * i] = digits[p[i] >> 4];
        text[2 * i + 1] = digits[p[i] & 15];
    }
    text[2 * size] = '\0';
}

static int hex_value(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    if (c >= 'a' && c <= 'f')
        return c - 'a' + 10;
    if (c >= 'A' && c <= 'F')
        return c - 'A' + 10;
    return -1;
}

int phx_hex_decode(void *out, size_t size, const char *text, struct phx_err *err)
{
    unsigned char *p = out;

    if (strlen(text) != 2 * size)
        return phx_fail(err, PHX_E_FORMAT, "expected %zu hex digits, found %zu characters",
                        2 * size, strlen(text));
    for (size_t i = 0; i < size; i++) {
        int high = hex_value(text[2 * i]), low = hex_value(text[2 * i + 1]);

        if (high < 0 || low < 0)
            return phx_fail(err, PHX_E_FORMAT, "not a hex digit at position %zu", 2 * i);
        p[i] = (unsigned char)(high << 4 | low);
    }
    return 0;
}
