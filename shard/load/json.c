/* SPDX-License-Identifier: Apache-2.0
 * A strict JSON cursor for safetensors headers.  A header may be 100 MB, so no tree is built: what is
 * kept grows with the tensors, not with the text. */
#include <ctype.h>
#include <string.h>

#include "shard/load/header.h"

int phx_st_bad(struct phx_st_reader *r, const char *what)
{
    return phx_fail(r->err, PHX_E_FORMAT, "%s: header: %s at byte %zu", r->file, what,
                    (size_t)(r->at - r->start));
}

void phx_st_skip_space(struct phx_st_reader *r)
{
    while (r->at < r->end && (*r->at == ' ' || *r->at == '\n' || *r->at == '\t' || *r->at == '\r'))
        r->at++;
}

bool phx_st_accept(struct phx_st_reader *r, char c)
{
    phx_st_skip_space(r);
    if (r->at == r->end || *r->at != c)
        return false;
    r->at++;
    return true;
}

int phx_st_expect(struct phx_st_reader *r, char c)
{
    char what[16] = "expected ' '";

    if (phx_st_accept(r, c))
        return 0;
    what[10] = c;
    return phx_st_bad(r, what);
}

static int read_hex4(struct phx_st_reader *r, unsigned *out)
{
    unsigned value = 0;

    if (r->end - r->at < 4)
        return phx_st_bad(r, "unfinished \\u escape");
    for (int i = 0; i < 4; i++) {
        unsigned char c = (unsigned char)*r->at;

        if (!isxdigit(c))
            return phx_st_bad(r, "bad \\u escape");
        value = value * 16 + (unsigned)(isdigit(c) ? c - '0' : (c | 32) - 'a' + 10);
        r->at++;
    }
    *out = value;
    return 0;
}

static void put_utf8(struct phx_st_reader *r, unsigned code)
{
    char *to = r->text + r->text_size;

    if (code < 0x80) {
        to[0] = (char)code;
        r->text_size += 1;
    } else if (code < 0x800) {
        to[0] = (char)(0xC0 | code >> 6);
        to[1] = (char)(0x80 | (code & 63));
        r->text_size += 2;
    } else if (code < 0x10000) {
        to[0] = (char)(0xE0 | code >> 12);
        to[1] = (char)(0x80 | (code >> 6 & 63));
        to[2] = (char)(0x80 | (code & 63));
        r->text_size += 3;
    } else {
        to[0] = (char)(0xF0 | code >> 18);
        to[1] = (char)(0x80 | (code >> 12 & 63));
        to[2] = (char)(0x80 | (code >> 6 & 63));
        to[3] = (char)(0x80 | (code & 63));
        r->text_size += 4;
    }
}

static int read_unicode(struct phx_st_reader *r)
{
    unsigned high, low;
    int      rc = read_hex4(r, &high);

    if (rc != 0)
        return rc;
    if (high >= 0xDC00 && high < 0xE000)
        return phx_st_bad(r, "lone surrogate");
    if (high >= 0xD800 && high < 0xDC00) {
        if (r->end - r->at < 2 || r->at[0] != '\\' || r->at[1] != 'u')
            return phx_st_bad(r, "lone surrogate");
        r->at += 2;
        rc = read_hex4(r, &low);
        if (rc != 0)
            return rc;
        if (low < 0xDC00 || low >= 0xE000)
            return phx_st_bad(r, "lone surrogate");
        high = 0x10000 + ((high - 0xD800) << 10) + (low - 0xDC00);
    }
    if (high == 0)
        return phx_st_bad(r, "NUL in a string");
    put_utf8(r, high);
    return 0;
}

static int read_escape(struct phx_st_reader *r)
{
    static const char from[] = "\"\\/bfnrt", to[] = "\"\\/\b\f\n\r\t";
    const char       *found;

    if (r->at == r->end)
        return phx_st_bad(r, "unfinished string");
    if (*r->at == 'u') {
        r->at++;
        return read_unicode(r);
    }
    found = *r->at != '\0' ? strchr(from, *r->at) : NULL;
    if (found == NULL)
        return phx_st_bad(r, "unknown escape");
    r->text[r->text_size++] = to[found - from];
    r->at++;
    return 0;
}

int phx_st_string(struct phx_st_reader *r)
{
    int rc = phx_st_expect(r, '"');

    r->text_size = 0;
    while (rc == 0 && r->at < r->end && *r->at != '"') {
        unsigned char c = (unsigned char)*r->at++;

        /* +5: an escape writes at most 4 bytes, and the NUL */
        if (r->text_size + 5 >= PHX_CKPT_NAME_MAX)
            return phx_st_bad(r, "string over 500 bytes");
        if (c < 0x20)
            return phx_st_bad(r, "control character in a string");
        if (c == '\\')
            rc = read_escape(r);
        else
            r->text[r->text_size++] = (char)c;
    }
    if (rc != 0)
        return rc;
    r->text[r->text_size] = '\0';
    if (r->at == r->end)
        return phx_st_bad(r, "unfinished string");
    r->at++;
    return 0;
}

int phx_st_integer(struct phx_st_reader *r, int64_t *out)
{
    const char *first;
    int64_t     value = 0;

    phx_st_skip_space(r);
    first = r->at;
    while (r->at < r->end && isdigit((unsigned char)*r->at)) {
        if (__builtin_mul_overflow(value, 10, &value) ||
            __builtin_add_overflow(value, *r->at - '0', &value))
            return phx_st_bad(r, "number over 63 bits");
        r->at++;
    }
    if (r->at == first || (*first == '0' && r->at - first > 1) ||
        (r->at < r->end && (*r->at == '.' || *r->at == 'e' || *r->at == 'E')))
        return phx_st_bad(r, "expected a whole number from 0");
    *out = value;
    return 0;
}

/* A string of any length; its text is not kept. */
static int skip_string(struct phx_st_reader *r)
{
    int rc = phx_st_expect(r, '"');

    while (rc == 0 && r->at < r->end && *r->at != '"') {
        unsigned char c = (unsigned char)*r->at++;

        r->text_size = 0;
        if (c < 0x20)
            return phx_st_bad(r, "control character in a string");
        if (c == '\\')
            rc = read_escape(r);
    }
    if (rc == 0 && r->at == r->end)
        return phx_st_bad(r, "unfinished string");
    if (rc == 0)
        r->at++;
    return rc;
}

/* null, true, false or a number. */
static int skip_word(struct phx_st_reader *r)
{
    const char *first = r->at;
    size_t      n;

    while (r->at < r->end && (isalnum((unsigned char)*r->at) || *r->at == '+' || *r->at == '-' ||
                              *r->at == '.'))
        r->at++;
    n = (size_t)(r->at - first);
    if ((n == 4 && (memcmp(first, "null", 4) == 0 || memcmp(first, "true", 4) == 0)) ||
        (n == 5 && memcmp(first, "false", 5) == 0))
        return 0;
    for (size_t i = 0; i < n; i++)
        if (strchr("0123456789+-.eE", first[i]) == NULL)
            return phx_st_bad(r, "expected a value");
    if (n == 0 || (first[0] != '-' && !isdigit((unsigned char)first[0])))
        return phx_st_bad(r, "expected a value");
    return 0;
}

/* One step into or out of `open[depth]`: what follows a complete value. */
static int after_value(struct phx_st_reader *r, char *open, int *depth)
{
    while (*depth > 0) {
        bool is_object = open[*depth - 1] == '{';

        if (phx_st_accept(r, ',')) {
            int rc = is_object ? skip_string(r) : 0;

            return rc != 0 || !is_object ? rc : phx_st_expect(r, ':');
        }
        if (!phx_st_accept(r, is_object ? '}' : ']'))
            return phx_st_bad(r, is_object ? "expected ',' or '}'" : "expected ',' or ']'");
        --*depth;
    }
    return 0;
}

int phx_st_skip_value(struct phx_st_reader *r)
{
    char open[PHX_ST_DEPTH_MAX];
    int  depth = 0, rc = 0;

    do {
        bool is_leaf = true;

        phx_st_skip_space(r);
        if (r->at < r->end && *r->at == '"') {
            rc = skip_string(r);
        } else if (r->at < r->end && (*r->at == '{' || *r->at == '[')) {
            bool is_object = *r->at == '{';

            if (depth == PHX_ST_DEPTH_MAX)
                return phx_st_bad(r, "nested too deep");
            open[depth++] = *r->at++;
            is_leaf = phx_st_accept(r, is_object ? '}' : ']');
            depth -= is_leaf;
            if (!is_leaf && is_object) {
                rc = skip_string(r);
                if (rc == 0)
                    rc = phx_st_expect(r, ':');
            }
        } else {
            rc = skip_word(r);
        }
        if (rc != 0)
            return rc;
        if (is_leaf && (rc = after_value(r, open, &depth)) != 0)
            return rc;
    } while (depth > 0);
    return 0;
}
