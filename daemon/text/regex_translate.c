/* SPDX-License-Identifier: Apache-2.0
 * Where PCRE2 and the dialects of tokenizers differ:
 *   \s      PCRE2 counts U+180E as white space, Unicode does not: written out as a class;
 *   \p{..}  PCRE2 10.42 knows Unicode 14: newer code points are added (unicode_new.c);
 *   \w \b \h and set operations inside classes mean other things there: refused;
 *   {m,n}+  is possessive in one dialect and a repetition in the other: refused. */
#include <stdbool.h>
#include <string.h>

#include "daemon/text/regex.h"

#define SPACES                                                                                     \
    "\\x{9}-\\x{d}\\x{20}\\x{85}\\x{a0}\\x{1680}\\x{2000}-\\x{200a}\\x{2028}\\x{2029}\\x{202f}"    \
    "\\x{205f}\\x{3000}"

struct reader {
    const char     *p;
    const char     *where;
    struct phx_buf *out;
    struct phx_err *err;
    bool            in_class;
};

static int refuse(struct reader *r, const char *what, size_t size)
{
    return phx_fail(r->err, PHX_E_UNSUPPORTED,
                    "%s: the split pattern uses %.*s, which is not supported", r->where,
                    (int)(size > 24 ? 24 : size), what);
}

/* p is at "p" or "P" behind a backslash. */
static int put_category(struct reader *r)
{
    const char *start = r->p - 1;
    bool        is_negated = *r->p == 'P';
    const char *name = r->p + 1, *end = name + 1;
    if (*name == '{') {
        name++;
        end = strchr(name, '}');
        if (!end)
            return phx_fail(r->err, PHX_E_FORMAT, "%s: \\p{ without } in the pattern", r->where);
    } else if (*name == '\0') {
        return phx_fail(r->err, PHX_E_FORMAT, "%s: the pattern ends in \\p", r->where);
    }
    size_t size = (size_t)(end - name);
    if (size == 0 || size > 2 || name[0] == '^') /* scripts and long names: not seen, not tested */
        return refuse(r, start, (size_t)(end - start) + 1);
    r->p = end + (*end == '}' && name[-1] == '{');
    const char *extra = phx_unicode_new(name, size);
    if (is_negated && r->in_class) {
        if (extra)
            return refuse(r, start, (size_t)(r->p - start));
        phx_buf_printf(r->out, "\\P{%.*s}", (int)size, name);
    } else if (r->in_class) {
        phx_buf_printf(r->out, "\\p{%.*s}%s", (int)size, name, extra ? extra : "");
    } else {
        phx_buf_printf(r->out, "[%s\\p{%.*s}%s]", is_negated ? "^" : "", (int)size, name,
                       extra ? extra : "");
    }
    return 0;
}

static int put_code_point(struct reader *r)
{
    char        kind = *r->p++;
    const char *hex = r->p;
    size_t      n = strspn(hex, "0123456789abcdefABCDEF");
    size_t      want = kind == 'u' ? 4 : 2;
    if (kind == 'x' && *hex == '{') {
        hex++;
        n = strspn(hex, "0123456789abcdefABCDEF");
        if (n == 0 || n > 6 || hex[n] != '}')
            return phx_fail(r->err, PHX_E_FORMAT, "%s: bad \\x{} in the pattern", r->where);
        r->p = hex + n + 1;
        want = n;
    } else {
        if (n < want)
            return phx_fail(r->err, PHX_E_FORMAT, "%s: bad \\%c in the pattern", r->where, kind);
        r->p = hex + want;
    }
    phx_buf_printf(r->out, "\\x{%.*s}", (int)want, hex);
    return 0;
}

/* p is behind a backslash. */
static int put_escape(struct reader *r)
{
    char c = *r->p;
    switch (c) {
    case '\0':
        return phx_fail(r->err, PHX_E_FORMAT, "%s: the pattern ends in a backslash", r->where);
    case 'p':
    case 'P':
        return put_category(r);
    case 'x':
    case 'u':
        return put_code_point(r);
    case 's':
        phx_buf_puts(r->out, r->in_class ? SPACES : "[" SPACES "]");
        break;
    case 'S':
        if (r->in_class)
            return refuse(r, "\\S in a class", 13);
        phx_buf_puts(r->out, "[^" SPACES "]");
        break;
    case 'd': {
        const char *extra = phx_unicode_new("Nd", 2);
        phx_buf_printf(r->out, r->in_class ? "\\p{Nd}%s" : "[\\p{Nd}%s]", extra ? extra : "");
        break;
    }
    case 'r':
    case 'n':
    case 't':
    case 'f':
        phx_buf_printf(r->out, "\\%c", c);
        break;
    default:
        if ((c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z'))
            return refuse(r, r->p - 1, 2);
        phx_buf_putc(r->out, '\\'); /* an escaped sign stands for itself everywhere */
        phx_buf_putc(r->out, c);
    }
    r->p++;
    return 0;
}

/* p is at "(".  Plain groups, and the "(?" forms that every dialect reads alike. */
static int put_group(struct reader *r)
{
    static const char *const known[] = {"(?:", "(?i:", "(?=", "(?!", "(?<=", "(?<!", "(?>"};
    if (r->p[1] == '*')
        return refuse(r, r->p, 2);
    if (r->p[1] != '?') {
        phx_buf_putc(r->out, *r->p++);
        return 0;
    }
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++) {
        size_t size = strlen(known[i]);
        if (strncmp(r->p, known[i], size) == 0) {
            phx_buf_put(r->out, known[i], size);
            r->p += size;
            return 0;
        }
    }
    return refuse(r, r->p, strnlen(r->p, 4));
}

/* p is at "{": a repetition count, or a literal brace. */
static int put_brace(struct reader *r)
{
    size_t n = 1 + strspn(r->p + 1, "0123456789,");
    if (n > 1 && r->p[n] == '}') {
        n++;
        if (r->p[1] == ',') /* {,n}: a count in one dialect, literal text in the other */
            return refuse(r, r->p, n);
        if (r->p[n] == '+')
            return refuse(r, r->p, n + 1);
        phx_buf_put(r->out, r->p, n);
        r->p += n;
        return 0;
    }
    phx_buf_puts(r->out, "\\{");
    r->p++;
    return 0;
}

static int put_in_class(struct reader *r)
{
    if (*r->p == '[')
        return refuse(r, r->p, strnlen(r->p, 3)); /* nested or POSIX class */
    if (r->p[0] == '&' && r->p[1] == '&')
        return refuse(r, "&& in a class", 13);
    if (*r->p == ']')
        r->in_class = false;
    phx_buf_putc(r->out, *r->p++);
    return 0;
}

static int put_plain(struct reader *r)
{
    if (*r->p == '(')
        return put_group(r);
    if (*r->p == '{')
        return put_brace(r);
    if (*r->p == '[') {
        phx_buf_putc(r->out, *r->p++);
        if (*r->p == '^')
            phx_buf_putc(r->out, *r->p++);
        if (*r->p == ']')
            return refuse(r, "[] or []...]", 12);
        r->in_class = true;
        return 0;
    }
    phx_buf_putc(r->out, *r->p++);
    return 0;
}

int phx_regex_translate(const char *pattern, const char *where, struct phx_buf *out,
                        struct phx_err *err)
{
    struct reader r = {.p = pattern, .where = where, .out = out, .err = err};
    while (*r.p) {
        int rc = 0;
        if (*r.p == '\\') {
            r.p++;
            rc = put_escape(&r);
        } else {
            rc = r.in_class ? put_in_class(&r) : put_plain(&r);
        }
        if (rc)
            return rc;
    }
    if (r.in_class)
        return phx_fail(err, PHX_E_FORMAT, "%s: a class without ] in the pattern", where);
    return 0;
}
