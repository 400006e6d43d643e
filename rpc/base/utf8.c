/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/utf8.h"

#include <stdint.h>
#include <string.h>

/* Length of the character that starts at s (1..4), 0 = invalid, -1 = cut short by the end. */
static int char_length(const unsigned char *s, size_t size)
{
    unsigned char low = 0x80, high = 0xbf; /* range of the second byte */
    int           n;

    if (s[0] < 0x80)
        return 1;
    if (s[0] < 0xc2 || s[0] > 0xf4)
        return 0;
    n = s[0] < 0xe0 ? 2 : s[0] < 0xf0 ? 3 : 4;
    if (s[0] == 0xe0)
        low = 0xa0;
    else if (s[0] == 0xed)
        high = 0x9f;
    else if (s[0] == 0xf0)
        low = 0x90;
    else if (s[0] == 0xf4)
        high = 0x8f;
    for (int i = 1; i < n; i++) {
        if ((size_t)i >= size)
            return -1;
        if (s[i] < low || s[i] > high)
            return 0;
        low = 0x80;
        high = 0xbf;
    }
    return n;
}

size_t phx_utf8_valid_prefix(const char *s, size_t size)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t               i = 0;

    while (i < size) {
        uint64_t word;
        int      n;

        if (size - i >= sizeof(word)) { /* eight ASCII bytes at once */
            memcpy(&word, p + i, sizeof(word));
            if ((word & UINT64_C(0x8080808080808080)) == 0) {
                i += sizeof(word);
                continue;
            }
        }
        n = char_length(p + i, size - i);
        if (n <= 0)
            break;
        i += (size_t)n;
    }
    return i;
}

bool phx_utf8_is_valid(const char *s, size_t size)
{
    return phx_utf8_valid_prefix(s, size) == size;
}

size_t phx_utf8_whole_prefix(const char *s, size_t size)
{
    const unsigned char *p = (const unsigned char *)s;

    for (size_t back = 1; back <= 3 && back <= size; back++) {
        size_t start = size - back;

        if ((p[start] & 0xc0) == 0x80)
            continue; /* a continuation byte: the character starts before it */
        return char_length(p + start, back) < 0 ? start : size;
    }
    return size;
}
