/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/text/utf8.h"

#include <string.h>

#include "rpc/base/utf8.h"

enum scan { SCAN_VALID, SCAN_INVALID, SCAN_SHORT };

/* The range of the second byte narrows for E0, ED, F0 and F4 (no overlongs, no surrogates, at most
 * U+10FFFF). */
static bool is_second(unsigned char lead, unsigned char c)
{
    switch (lead) {
    case 0xE0:
        return c >= 0xA0 && c <= 0xBF;
    case 0xED:
        return c >= 0x80 && c <= 0x9F;
    case 0xF0:
        return c >= 0x90 && c <= 0xBF;
    case 0xF4:
        return c >= 0x80 && c <= 0x8F;
    default:
        return c >= 0x80 && c <= 0xBF;
    }
}

static size_t lead_length(unsigned char c)
{
    if (c < 0x80)
        return 1;
    if (c >= 0xC2 && c <= 0xDF)
        return 2;
    if (c >= 0xE0 && c <= 0xEF)
        return 3;
    if (c >= 0xF0 && c <= 0xF4)
        return 4;
    return 0;
}

/* Looks at the character at s.  *length: its bytes, the bytes of the maximal invalid part, or (for
 * SCAN_SHORT) all that is there. */
static enum scan scan_one(const char *s, size_t size, size_t *length)
{
    const unsigned char *p = (const unsigned char *)s;
    size_t               want = lead_length(p[0]);
    *length = 1;
    if (want == 0)
        return SCAN_INVALID;
    for (size_t i = 1; i < want; i++) {
        if (i == size) {
            *length = i;
            return SCAN_SHORT;
        }
        if (i == 1 ? !is_second(p[0], p[1]) : (p[i] & 0xC0) != 0x80) {
            *length = i;
            return SCAN_INVALID;
        }
    }
    *length = want;
    return SCAN_VALID;
}

int32_t phx_utf8_first(const char *s, size_t *length)
{
    const unsigned char *p = (const unsigned char *)s;
    *length = lead_length(p[0]);
    switch (*length) {
    case 2:
        return (p[0] & 0x1F) << 6 | (p[1] & 0x3F);
    case 3:
        return (p[0] & 0x0F) << 12 | (p[1] & 0x3F) << 6 | (p[2] & 0x3F);
    case 4:
        return (p[0] & 0x07) << 18 | (p[1] & 0x3F) << 12 | (p[2] & 0x3F) << 6 | (p[3] & 0x3F);
    default:
        *length = 1;
        return p[0];
    }
}

size_t phx_utf8_last_length(const char *s, size_t size)
{
    size_t n = 1;
    while (n < size && n < 4 && ((unsigned char)s[size - n] & 0xC0) == 0x80)
        n++;
    return n;
}

size_t phx_utf8_put(char *dst, int32_t c)
{
    if (c < 0x80) {
        dst[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        dst[0] = (char)(0xC0 | c >> 6);
        dst[1] = (char)(0x80 | (c & 0x3F));
        return 2;
    }
    if (c < 0x10000) {
        dst[0] = (char)(0xE0 | c >> 12);
        dst[1] = (char)(0x80 | (c >> 6 & 0x3F));
        dst[2] = (char)(0x80 | (c & 0x3F));
        return 3;
    }
    dst[0] = (char)(0xF0 | c >> 18);
    dst[1] = (char)(0x80 | (c >> 12 & 0x3F));
    dst[2] = (char)(0x80 | (c >> 6 & 0x3F));
    dst[3] = (char)(0x80 | (c & 0x3F));
    return 4;
}

static void put_replacement(const struct phx_utf8_stream *s, size_t bytes, struct phx_buf *out)
{
    for (size_t i = 0; i < (s->is_per_byte ? bytes : 1); i++)
        phx_buf_put(out, "\xEF\xBF\xBD", 3);
}

/* Emits what is decided in data; keeps an unfinished character in the tail. */
static void scan_all(struct phx_utf8_stream *s, const char *data, size_t size, struct phx_buf *out)
{
    size_t i = 0;
    while (i < size) {
        size_t good = phx_utf8_valid_prefix(data + i, size - i);
        phx_buf_put(out, data + i, good);
        i += good;
        if (i == size)
            return;
        size_t length;
        if (scan_one(data + i, size - i, &length) == SCAN_SHORT) {
            memcpy(s->tail, data + i, length);
            s->n = (int)length;
            return;
        }
        put_replacement(s, length, out);
        i += length;
    }
}

void phx_utf8_push(struct phx_utf8_stream *s, const char *data, size_t size, struct phx_buf *out)
{
    /* Finish the tail byte by byte: at most three steps, then the rest runs at full speed. */
    while (s->n > 0 && size > 0) {
        char joined[4];
        int  n = s->n;
        memcpy(joined, s->tail, (size_t)n);
        if (((unsigned char)*data & 0xC0) != 0x80) { /* the character ends here, unfinished */
            phx_utf8_flush(s, out);
            break;
        }
        joined[n] = *data++;
        size--;
        s->n = 0;
        scan_all(s, joined, (size_t)n + 1, out);
    }
    if (size > 0)
        scan_all(s, data, size, out);
}

void phx_utf8_flush(struct phx_utf8_stream *s, struct phx_buf *out)
{
    if (s->n > 0)
        put_replacement(s, (size_t)s->n, out);
    s->n = 0;
}
