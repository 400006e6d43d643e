/* SPDX-License-Identifier: Apache-2.0
 * Canonical form is checked by a scanner that accepts nothing else, so that no second spelling of a record
 * can have the same meaning; the few fields that the rules need fall out of the same pass. */
#include <string.h>

#include "daemon/verify/verify.h"
#include "rpc/base/utf8.h"

static const struct {
    const char *parent, *key;
} wanted[PHX_F_COUNT] = {
    [PHX_F_AT_NS] = {"", "at_ns"},           [PHX_F_CRIT] = {"", "crit"},
    [PHX_F_EPOCH] = {"", "epoch"},           [PHX_F_EVENT] = {"", "event"},
    [PHX_F_FINISH] = {"", "finish"},         [PHX_F_KIND] = {"", "kind"},
    [PHX_F_LEDGER] = {"", "ledger"},         [PHX_F_RECEIPT] = {"", "receipt"},
    [PHX_F_RULE] = {"", "rule"},             [PHX_F_SUBJECT] = {"", "subject"},
    [PHX_F_TENANT] = {"", "tenant"},         [PHX_F_V] = {"", "v"},
    [PHX_F_ASKED] = {"", "asked"},           [PHX_F_ENGINE] = {"", "engine"},
    [PHX_F_MODEL] = {"", "model"},           [PHX_F_RULES] = {"", "rules"},
    [PHX_F_SAMPLE] = {"", "sample"},         [PHX_F_WHO] = {"", "who"},
    [PHX_F_COST] = {"", "cost"},             [PHX_F_OUT] = {"", "out"},
    [PHX_F_TIMING] = {"", "timing"},         [PHX_F_PRIVACY] = {"state", "privacy"},
    [PHX_F_WHO_TENANT] = {"who", "tenant"},  [PHX_F_WHO_USER] = {"who", "user"},
    [PHX_F_CACHED] = {"cost", "cached"},     [PHX_F_COMPUTE_MS] = {"cost", "compute_ms"},
    [PHX_F_OUTPUT] = {"cost", "output"},     [PHX_F_PROMPT] = {"cost", "prompt"},
    [PHX_F_QUEUE_MS] = {"cost", "queue_ms"}, [PHX_F_REASONING] = {"cost", "reasoning"},
    [PHX_F_UPPER] = {"cost", "upper"},
};

struct scan {
    const char        *p, *end;
    struct phx_fields *out;
    struct phx_slice   parent; /* the key of the object at depth 2 */
    const char        *problem;
};

static bool fail(struct scan *s, const char *problem)
{
    s->problem = problem;
    return false;
}

bool phx_slice_is(struct phx_slice s, const char *text)
{
    return s.size == strlen(text) && memcmp(s.at, text, s.size) == 0;
}

static int hex_digit(char c)
{
    return c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

/* The character behind a backslash and how many bytes it takes; 0 when it is not the shortest spelling. */
static int read_escape(const char *p, const char *end, unsigned char *out)
{
    static const char letters[] = "\"\\bfnrt", values[] = "\"\\\b\f\n\r\t";
    const char       *found = p < end && *p != '\0' ? strchr(letters, *p) : NULL;
    int               high, low;

    if (found != NULL) {
        *out = (unsigned char)values[found - letters];
        return 1;
    }
    if (end - p < 5 || p[0] != 'u' || p[1] != '0' || p[2] != '0')
        return 0;
    high = hex_digit(p[3]);
    low = hex_digit(p[4]);
    if (high < 0 || high > 1 || low < 0)
        return 0;
    *out = (unsigned char)(high << 4 | low);
    return *out != 0 && strchr("\b\f\n\r\t", *out) != NULL ? 0 : 5;
}

static bool scan_string(struct scan *s, struct phx_slice *out)
{
    unsigned char escaped;

    if (s->p == s->end || *s->p != '"')
        return fail(s, "a string is expected");
    out->at = ++s->p;
    while (s->p < s->end && *s->p != '"') {
        int size = 0;

        if ((unsigned char)*s->p < 0x20)
            return fail(s, "a control character in a string");
        if (*s->p == '\\' && (size = read_escape(s->p + 1, s->end, &escaped)) == 0)
            return fail(s, "an escape that is not canonical");
        s->p += 1 + size;
    }
    if (s->p >= s->end)
        return fail(s, "a string without an end");
    out->size = (size_t)(s->p - out->at);
    s->p++;
    return true;
}

static bool scan_number(struct scan *s, int64_t *out)
{
    bool    is_negative = *s->p == '-';
    int64_t v = 0;

    s->p += is_negative;
    if (s->p == s->end || *s->p < '0' || *s->p > '9' || (is_negative && *s->p == '0'))
        return fail(s, "not an integer");
    if (*s->p == '0' && s->end - s->p > 1 && s->p[1] >= '0' && s->p[1] <= '9')
        return fail(s, "an integer with a leading zero");
    for (; s->p < s->end && *s->p >= '0' && *s->p <= '9'; s->p++)
        if (__builtin_mul_overflow(v, 10, &v) || __builtin_sub_overflow(v, *s->p - '0', &v))
            return fail(s, "an integer above 64 bits");
    if (!is_negative && __builtin_sub_overflow((int64_t)0, v, &v))
        return fail(s, "an integer above 64 bits");
    *out = v;
    return true;
}

static unsigned char next_byte(const char **p, const char *end)
{
    unsigned char c = (unsigned char)*(*p)++;

    if (c == '\\')
        *p += read_escape(*p, end, &c);
    return c;
}

bool phx_slice_means(struct phx_slice s, const char *text)
{
    const char *p = s.at, *end = s.at + s.size;

    while (p < end && *text != '\0')
        if (next_byte(&p, end) != (unsigned char)*text++)
            return false;
    return p == end && *text == '\0';
}

/* By the bytes that the keys mean, not by those that spell them. */
static bool is_ascending(struct phx_slice a, struct phx_slice b)
{
    const char *p = a.at, *p_end = a.at + a.size, *q = b.at, *q_end = b.at + b.size;

    while (p < p_end && q < q_end) {
        unsigned char x = next_byte(&p, p_end), y = next_byte(&q, q_end);

        if (x != y)
            return x < y;
    }
    return p == p_end && q < q_end;
}

static void keep_field(struct scan *s, int depth, struct phx_slice key, const struct phx_field *field)
{
    if (depth > 2)
        return;
    for (int i = 0; i < PHX_F_COUNT; i++)
        if (wanted[i].key[0] == (key.size > 0 ? key.at[0] : '\0') && phx_slice_is(key, wanted[i].key) &&
            (depth == 1 ? wanted[i].parent[0] == '\0' : phx_slice_is(s->parent, wanted[i].parent)))
            s->out->f[i] = *field;
}

static bool scan_object(struct scan *s, int depth);

static bool scan_value(struct scan *s, int depth, struct phx_slice key)
{
    struct phx_field field = {0};
    bool             is_good;

    if (s->p == s->end)
        return fail(s, "a value is missing");
    if (*s->p == '{') {
        if (depth == PHX_V_DEPTH_MAX)
            return fail(s, "objects nested too deep");
        if (depth == 1)
            s->parent = key;
        field.type = PHX_V_OBJECT;
        is_good = scan_object(s, depth + 1);
    } else if (*s->p == '"') {
        field.type = PHX_V_STR;
        is_good = scan_string(s, &field.text);
    } else {
        field.type = PHX_V_INT;
        is_good = scan_number(s, &field.number);
    }
    if (is_good)
        keep_field(s, depth, key, &field);
    return is_good;
}

static bool scan_object(struct scan *s, int depth)
{
    struct phx_slice key, last = {0};
    bool             is_first = true;

    if (s->p == s->end || *s->p++ != '{')
        return fail(s, "not an object");
    if (s->p < s->end && *s->p == '}') {
        s->p++;
        return true;
    }
    for (;;) {
        if (!scan_string(s, &key))
            return false;
        if (!is_first && !is_ascending(last, key))
            return fail(s, "keys are not in ascending order");
        if (s->p == s->end || *s->p++ != ':')
            return fail(s, "a colon is missing");
        if (!scan_value(s, depth, key))
            return false;
        if (s->p == s->end || (*s->p != ',' && *s->p != '}'))
            return fail(s, "an object without an end");
        if (*s->p++ == '}')
            return true;
        last = key;
        is_first = false;
    }
}

int phx_record_scan(const char *bytes, size_t size, struct phx_fields *out, struct phx_err *err)
{
    struct scan s = {.p = bytes, .end = bytes + size, .out = out};

    memset(out, 0, sizeof(*out));
    if (phx_utf8_valid_prefix(bytes, size) != size)
        return phx_fail(err, PHX_E_FORMAT, "not UTF-8");
    if (scan_object(&s, 1) && s.p != s.end)
        s.problem = "bytes behind the record";
    return s.problem == NULL ? 0 : phx_fail(err, PHX_E_FORMAT, "not in canonical form: %s", s.problem);
}

/* ---- what a record must have ------------------------------------------------------------------------------ */

static bool has_all(const struct phx_fields *f, enum phx_value_type type, enum phx_field_id first,
                    enum phx_field_id last)
{
    for (int i = (int)first; i <= (int)last; i++)
        if (f->f[i].type != type)
            return false;
    return true;
}

bool phx_record_is_start(const struct phx_fields *f)
{
    return phx_slice_is(f->f[PHX_F_KIND].text, "admin") && f->f[PHX_F_EVENT].type == PHX_V_STR &&
           phx_slice_is(f->f[PHX_F_EVENT].text, "daemon.start");
}

static bool has_fields_of_kind(const struct phx_fields *f)
{
    struct phx_slice kind = f->f[PHX_F_KIND].text;
    bool             has_epoch = f->f[PHX_F_EPOCH].type == PHX_V_INT;

    if (phx_slice_is(kind, "intent"))
        return has_epoch && has_all(f, PHX_V_OBJECT, PHX_F_ASKED, PHX_F_WHO) &&
               has_all(f, PHX_V_STR, PHX_F_WHO_TENANT, PHX_F_WHO_USER);
    if (phx_slice_is(kind, "result"))
        return has_epoch && f->f[PHX_F_FINISH].type == PHX_V_STR &&
               has_all(f, PHX_V_OBJECT, PHX_F_COST, PHX_F_TIMING) &&
               has_all(f, PHX_V_INT, PHX_F_CACHED, PHX_F_UPPER);
    if (phx_slice_is(kind, "refusal"))
        return f->f[PHX_F_RULE].type == PHX_V_STR;
    return !phx_record_is_start(f) || has_epoch;
}

int phx_record_check(const struct phx_fields *f, struct phx_err *err)
{
    if (f->f[PHX_F_V].type != PHX_V_INT || f->f[PHX_F_V].number != 1)
        return phx_fail(err, PHX_E_UNSUPPORTED, "unknown record version");
    if (f->f[PHX_F_CRIT].type != PHX_V_NONE)
        return phx_fail(err, PHX_E_UNSUPPORTED, "unknown critical field");
    if (f->f[PHX_F_AT_NS].type != PHX_V_INT || f->f[PHX_F_KIND].type != PHX_V_STR ||
        f->f[PHX_F_RECEIPT].type != PHX_V_STR || f->f[PHX_F_RECEIPT].text.size == 0 || !has_fields_of_kind(f))
        return phx_fail(err, PHX_E_FORMAT, "without the fields of its kind");
    return 0;
}
