/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/small/value.h"

struct parser {
    const char   *at, *end, *start;
    json_error_t *error;
    bool          has_failed;
};

static json_t *parse_value(struct parser *p);

static json_t *fail(struct parser *p, const char *why)
{
    if (p->has_failed)
        return NULL;
    p->has_failed = true;
    p->error->line = 1;
    p->error->position = (int)(p->at - p->start);
    for (const char *c = p->start; c < p->at; c++)
        p->error->line += *c == '\n';
    (void)snprintf(p->error->text, sizeof(p->error->text), "%s", why);
    return NULL;
}

static char peek(struct parser *p)
{
    while (p->at < p->end && (*p->at == ' ' || *p->at == '\t' || *p->at == '\n' || *p->at == '\r'))
        p->at++;
    return p->at < p->end ? *p->at : '\0';
}

static bool take(struct parser *p, char c)
{
    if (peek(p) != c)
        return false;
    p->at++;
    return true;
}

/* Four hexadecimal digits, or -1. */
static long read_hex(struct parser *p)
{
    long value = 0;

    for (int i = 0; i < 4; i++, p->at++) {
        char c = p->at < p->end ? *p->at : '\0';

        if (c >= '0' && c <= '9')
            value = value * 16 + (c - '0');
        else if ((c | 32) >= 'a' && (c | 32) <= 'f')
            value = value * 16 + ((c | 32) - 'a' + 10);
        else
            return -1;
    }
    return value;
}

static size_t put_utf8(char *out, long c)
{
    if (c < 0x80) {
        out[0] = (char)c;
        return 1;
    }
    if (c < 0x800) {
        out[0] = (char)(0xc0 | c >> 6);
        out[1] = (char)(0x80 | (c & 63));
        return 2;
    }
    if (c < 0x10000) {
        out[0] = (char)(0xe0 | c >> 12);
        out[1] = (char)(0x80 | (c >> 6 & 63));
        out[2] = (char)(0x80 | (c & 63));
        return 3;
    }
    out[0] = (char)(0xf0 | c >> 18);
    out[1] = (char)(0x80 | (c >> 12 & 63));
    out[2] = (char)(0x80 | (c >> 6 & 63));
    out[3] = (char)(0x80 | (c & 63));
    return 4;
}

/* Behind the backslash; bytes written, or 0. */
static size_t read_escape(struct parser *p, char *out)
{
    static const char letters[] = "\"\\/bfnrt", values[] = "\"\\/\b\f\n\r\t";
    char              c = p->at < p->end ? *p->at++ : '\0';
    const char       *found = c != '\0' ? strchr(letters, c) : NULL;
    long              code;

    if (found != NULL) {
        *out = values[found - letters];
        return 1;
    }
    code = c == 'u' ? read_hex(p) : -1;
    if (code >= 0xd800 && code < 0xdc00 && p->end - p->at >= 6 && p->at[0] == '\\' && p->at[1] == 'u') {
        long low;

        p->at += 2;
        low = read_hex(p);
        code = low >= 0xdc00 && low < 0xe000 ? 0x10000 + ((code - 0xd800) << 10) + (low - 0xdc00) : -1;
    }
    return code <= 0 || (code >= 0xd800 && code < 0xe000) ? 0 : put_utf8(out, code);
}

static json_t *parse_string(struct parser *p)
{
    char   *text = small_alloc(NULL, (size_t)(p->end - p->at) + 1);
    size_t  n = 0;
    json_t *v = NULL;

    p->at++;
    while (p->at < p->end && *p->at != '"') {
        size_t added = 1;

        if ((unsigned char)*p->at < 32)
            break;
        if (*p->at == '\\') {
            p->at++;
            added = read_escape(p, text + n);
            if (added == 0)
                break;
        } else {
            text[n] = *p->at++;
        }
        n += added;
    }
    if (p->at < p->end && *p->at == '"') {
        p->at++;
        v = small_string(text, n);
    } else {
        (void)fail(p, "premature end or control character in a string");
    }
    free(text);
    return v;
}

static json_t *parse_number(struct parser *p)
{
    char   text[64], *end;
    size_t n = strspn(p->at, "+-0123456789.eE");
    bool   is_real;
    const char *digits = p->at[0] == '-' ? p->at + 1 : p->at;

    if (n == 0 || n >= sizeof(text) || digits[0] < '0' || digits[0] > '9' ||
        (digits[0] == '0' && digits[1] >= '0' && digits[1] <= '9'))
        return fail(p, "invalid token");
    memcpy(text, p->at, n);
    text[n] = '\0';
    is_real = strpbrk(text, ".eE") != NULL;
    errno = 0;
    if (is_real) {
        double value = strtod(text, &end);

        p->at += n;
        return *end == '\0' && isfinite(value) && end[-1] != '.' ? json_real(value) : fail(p, "invalid number");
    }
    long long value = strtoll(text, &end, 10);

    p->at += n;
    return *end == '\0' && errno == 0 ? json_integer(value) : fail(p, "too big integer");
}

static json_t *parse_object(struct parser *p)
{
    json_t *object = json_object();

    p->at++;
    if (take(p, '}'))
        return object;
    do {
        json_t *key = peek(p) == '"' ? parse_string(p) : fail(p, "string or '}' expected");
        json_t *value = key != NULL && take(p, ':') ? parse_value(p) : fail(p, "':' expected");

        if (value != NULL && (strlen(key->text) != key->text_size || json_object_get(object, key->text) != NULL)) {
            json_decref(value);
            value = fail(p, "duplicate object key");
        }
        if (value != NULL)
            (void)json_object_set_new(object, key->text, value); /* checked: it is an object */
        json_decref(key);
        if (value == NULL)
            break;
    } while (take(p, ','));
    if (!p->has_failed && take(p, '}'))
        return object;
    json_decref(object);
    return fail(p, "'}' expected");
}

static json_t *parse_array(struct parser *p)
{
    json_t *array = json_array();

    p->at++;
    if (take(p, ']'))
        return array;
    do {
        json_t *value = parse_value(p);

        if (value == NULL)
            break;
        (void)json_array_append_new(array, value); /* checked: it is an array */
    } while (take(p, ','));
    if (!p->has_failed && take(p, ']'))
        return array;
    json_decref(array);
    return fail(p, "']' expected");
}

static json_t *parse_value(struct parser *p)
{
    static const char *const words[] = {"true", "false", "null"};
    char                     c = peek(p);

    if (c == '{')
        return parse_object(p);
    if (c == '[')
        return parse_array(p);
    if (c == '"')
        return parse_string(p);
    for (int i = 0; i < 3; i++)
        if ((size_t)(p->end - p->at) >= strlen(words[i]) && memcmp(p->at, words[i], strlen(words[i])) == 0) {
            p->at += strlen(words[i]);
            return i < 2 ? json_boolean(i == 0) : json_null();
        }
    return c != '\0' ? parse_number(p) : fail(p, "unexpected end of input");
}

json_t *json_loadb(const char *text, size_t size, size_t flags, json_error_t *error)
{
    char         *copy = small_alloc(NULL, size + 1); /* ends with a zero: numbers stop there */
    struct parser p = {copy, copy + size, copy, error, false};
    json_t       *v;

    (void)flags; /* any value, no duplicates: the only way here */
    memcpy(copy, text, size);
    copy[size] = '\0';
    memset(error, 0, sizeof(*error));
    v = parse_value(&p);
    if (v != NULL && (peek(&p) != '\0' || p.at != p.end)) {
        json_decref(v);
        v = fail(&p, "end of file expected");
    }
    free(copy);
    return v;
}
