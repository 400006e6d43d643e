/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/json.h"

#include <math.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "rpc/base/utf8.h"

/* Nesting is checked before jansson, whose parser recurses up to 2048 levels. */
static int check_depth(const char *text, size_t size, int max_depth, const char *what,
                       struct phx_err *err)
{
    bool in_string = false;
    int  depth = 0;

    for (size_t i = 0; i < size; i++) {
        char c = text[i];

        if (in_string) {
            if (c == '\\')
                i++;
            else if (c == '"')
                in_string = false;
        } else if (c == '"') {
            in_string = true;
        } else if (c == '[' || c == '{') {
            if (++depth > max_depth)
                return phx_fail(err, PHX_E_FORMAT, "%s: nested deeper than %d levels (byte %zu)",
                                what, max_depth, i);
        } else if (c == ']' || c == '}') {
            depth--;
        }
    }
    return 0;
}

int phx_json_parse(json_t **root, const char *text, size_t size, size_t max_bytes, int max_depth,
                   const char *what, struct phx_err *err)
{
    json_error_t error;
    char        *near;
    int          rc;

    *root = NULL;
    if (size > max_bytes)
        return phx_fail(err, PHX_E_TOOBIG, "%s has %zu bytes (limit %zu)", what, size, max_bytes);
    rc = check_depth(text, size, max_depth > 0 ? max_depth : PHX_JSON_DEPTH, what, err);
    if (rc != 0)
        return rc;
    *root = json_loadb(text, size, JSON_REJECT_DUPLICATES | JSON_DECODE_ANY, &error);
    if (*root != NULL)
        return 0;
    near = strstr(error.text, " near '"); /* what follows quotes the input, which may be a prompt */
    if (near != NULL)
        *near = '\0';
    return phx_fail(err, PHX_E_FORMAT, "%s is not valid JSON: %s (line %d, column %d)", what,
                    error.text, error.line, error.column);
}

int phx_json_load(json_t **root, const char *path, size_t max_bytes, int max_depth,
                  struct phx_err *err)
{
    struct phx_buf b;
    int            rc;

    *root = NULL;
    rc = phx_buf_read_file(&b, path, max_bytes, err);
    if (rc != 0)
        return rc;
    rc = phx_json_parse(root, b.data, b.size, max_bytes, max_depth, path, err);
    phx_buf_fini(&b);
    return rc;
}

int phx_json_check_object(const json_t *value, const char *where, struct phx_err *err)
{
    if (json_is_object(value))
        return 0;
    return phx_fail(err, PHX_E_INVALID, "%s must be an object", *where ? where : "the document");
}

int phx_json_check_keys(const json_t *object, const char *where, const char *const *known,
                        struct phx_err *err)
{
    const char *key;
    json_t     *value;

    json_object_foreach((json_t *)object, key, value) {
        const char *const *k = known;

        while (*k != NULL && strcmp(*k, key) != 0)
            k++;
        if (*k == NULL)
            return phx_fail(err, PHX_E_INVALID, "unknown field \"%s%s%.64s\"", where,
                            *where ? "." : "", key);
    }
    return 0;
}

/* Finds a field that is not null; *is_set false when it is absent. */
static int find(const json_t *object, const char *where, const char *key, const json_t **value,
                struct phx_err *err)
{
    int rc = phx_json_check_object(object, where, err);

    *value = rc == 0 ? json_object_get(object, key) : NULL;
    if (*value != NULL && json_is_null(*value))
        *value = NULL;
    return rc;
}

static int need(const json_t *object, const char *where, const char *key, struct phx_err *err)
{
    const json_t *value;
    int           rc = find(object, where, key, &value, err);

    if (rc == 0 && value == NULL)
        rc = phx_fail(err, PHX_E_INVALID, "%s%s%s is missing", where, *where ? "." : "", key);
    return rc;
}

static int refuse(const char *where, const char *key, const char *must, struct phx_err *err)
{
    return phx_fail(err, PHX_E_INVALID, "%s%s%s %s", where, *where ? "." : "", key, must);
}

int phx_json_opt_str(const json_t *object, const char *where, const char *key, size_t max_bytes,
                     const char **out, struct phx_err *err)
{
    const json_t *value;
    int           rc = find(object, where, key, &value, err);

    if (rc != 0 || value == NULL)
        return rc;
    if (!json_is_string(value))
        return refuse(where, key, "must be a string", err);
    if (json_string_length(value) > max_bytes)
        return phx_fail(err, PHX_E_TOOBIG, "%s%s%s has %zu bytes (limit %zu)", where,
                        *where ? "." : "", key, json_string_length(value), max_bytes);
    *out = json_string_value(value);
    return 0;
}

int phx_json_get_str(const json_t *object, const char *where, const char *key, size_t max_bytes,
                     const char **out, struct phx_err *err)
{
    int rc = need(object, where, key, err);

    return rc != 0 ? rc : phx_json_opt_str(object, where, key, max_bytes, out, err);
}

int phx_json_opt_int(const json_t *object, const char *where, const char *key, int64_t min,
                     int64_t max, int64_t *out, struct phx_err *err)
{
    const json_t *value;
    int           rc = find(object, where, key, &value, err);

    if (rc != 0 || value == NULL)
        return rc;
    if (!json_is_integer(value))
        return refuse(where, key, "must be an integer", err);
    if (json_integer_value(value) < min || json_integer_value(value) > max)
        return phx_fail(err, PHX_E_INVALID, "%s%s%s must be between %lld and %lld", where,
                        *where ? "." : "", key, (long long)min, (long long)max);
    *out = json_integer_value(value);
    return 0;
}

int phx_json_get_int(const json_t *object, const char *where, const char *key, int64_t min,
                     int64_t max, int64_t *out, struct phx_err *err)
{
    int rc = need(object, where, key, err);

    return rc != 0 ? rc : phx_json_opt_int(object, where, key, min, max, out, err);
}

int phx_json_opt_real(const json_t *object, const char *where, const char *key, double min,
                      double max, double *out, struct phx_err *err)
{
    const json_t *value;
    double        number;
    int           rc = find(object, where, key, &value, err);

    if (rc != 0 || value == NULL)
        return rc;
    if (!json_is_number(value))
        return refuse(where, key, "must be a number", err);
    number = json_number_value(value);
    if (!isfinite(number) || number < min || number > max)
        return phx_fail(err, PHX_E_INVALID, "%s%s%s must be between %g and %g", where,
                        *where ? "." : "", key, min, max);
    *out = number;
    return 0;
}

int phx_json_get_real(const json_t *object, const char *where, const char *key, double min,
                      double max, double *out, struct phx_err *err)
{
    int rc = need(object, where, key, err);

    return rc != 0 ? rc : phx_json_opt_real(object, where, key, min, max, out, err);
}

int phx_json_opt_bool(const json_t *object, const char *where, const char *key, bool *out,
                      struct phx_err *err)
{
    const json_t *value;
    int           rc = find(object, where, key, &value, err);

    if (rc != 0 || value == NULL)
        return rc;
    if (!json_is_boolean(value))
        return refuse(where, key, "must be true or false", err);
    *out = json_is_true(value);
    return 0;
}

int phx_json_get_bool(const json_t *object, const char *where, const char *key, bool *out,
                      struct phx_err *err)
{
    int rc = need(object, where, key, err);

    return rc != 0 ? rc : phx_json_opt_bool(object, where, key, out, err);
}

int phx_json_opt_array(const json_t *object, const char *where, const char *key, size_t max_items,
                       const json_t **out, struct phx_err *err)
{
    const json_t *value;
    int           rc = find(object, where, key, &value, err);

    if (rc != 0 || value == NULL)
        return rc;
    if (!json_is_array(value))
        return refuse(where, key, "must be an array", err);
    if (json_array_size(value) > max_items)
        return phx_fail(err, PHX_E_TOOBIG, "%s%s%s has %zu items (limit %zu)", where,
                        *where ? "." : "", key, json_array_size(value), max_items);
    *out = value;
    return 0;
}

int phx_json_get_array(const json_t *object, const char *where, const char *key, size_t max_items,
                       const json_t **out, struct phx_err *err)
{
    int rc = need(object, where, key, err);

    return rc != 0 ? rc : phx_json_opt_array(object, where, key, max_items, out, err);
}

int phx_json_opt_object(const json_t *object, const char *where, const char *key,
                        const json_t **out, struct phx_err *err)
{
    const json_t *value;
    int           rc = find(object, where, key, &value, err);

    if (rc != 0 || value == NULL)
        return rc;
    if (!json_is_object(value))
        return refuse(where, key, "must be an object", err);
    *out = value;
    return 0;
}

int phx_json_get_object(const json_t *object, const char *where, const char *key,
                        const json_t **out, struct phx_err *err)
{
    int rc = need(object, where, key, err);

    return rc != 0 ? rc : phx_json_opt_object(object, where, key, out, err);
}

/* One valid piece: everything but quotes, backslashes and control characters goes out as it is. */
static void put_escaped(struct phx_buf *b, const char *s, size_t size)
{
    size_t plain = 0;

    for (size_t i = 0; i < size; i++) {
        unsigned char c = (unsigned char)s[i];
        const char   *shorthand;

        if (c >= 0x20 && c != '"' && c != '\\' && c != 0x7f)
            continue;
        phx_buf_put(b, s + plain, i - plain);
        plain = i + 1;
        shorthand = c == '"' ? "\\\"" : c == '\\' ? "\\\\" : c == '\n' ? "\\n" : c == '\t' ? "\\t"
                  : c == '\r' ? "\\r" : NULL;
        if (shorthand != NULL)
            phx_buf_puts(b, shorthand);
        else
            phx_buf_printf(b, "\\u%04x", c);
    }
    phx_buf_put(b, s + plain, size - plain);
}

void phx_json_put_str(struct phx_buf *b, const char *s, size_t size)
{
    phx_buf_putc(b, '"');
    while (size > 0) {
        size_t valid = phx_utf8_valid_prefix(s, size);

        put_escaped(b, s, valid);
        s += valid;
        size -= valid;
        if (size > 0) {
            phx_buf_puts(b, "\xef\xbf\xbd");
            s++;
            size--;
        }
    }
    phx_buf_putc(b, '"');
}

static int put_piece(const char *data, size_t size, void *ctx)
{
    phx_buf_put(ctx, data, size);
    return 0;
}

void phx_json_put(struct phx_buf *b, const json_t *value)
{
    /* fails only for values that cannot come from this module: cycles, which would be a bug */
    phx_assert(json_dump_callback(value, put_piece, b, JSON_COMPACT | JSON_ENCODE_ANY) == 0);
}
