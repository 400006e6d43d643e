/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/text/json_field.h"

#include <string.h>

#include "daemon/text/text.h"
#include "rpc/base/buf.h"

int phx_field_load_config(const char *path, json_t **out, struct phx_err *err)
{
    struct phx_buf file;
    json_error_t   why;
    *out = NULL;
    phx_buf_init(&file, PHX_TEXT_FILE_BYTES_MAX);
    int rc = phx_buf_read_file(&file, path, PHX_TEXT_FILE_BYTES_MAX, err);
    if (rc == 0)
        *out = json_loadb(file.data, file.size, JSON_REJECT_DUPLICATES | JSON_DECODE_INT_AS_REAL,
                          &why);
    if (rc == 0 && !*out)
        rc = phx_fail(err, PHX_E_FORMAT, "%s: not valid JSON (line %d, column %d)", path, why.line,
                      why.column);
    phx_buf_fini(&file);
    return rc;
}

int phx_field_only(json_t *object, const char *const *keys, const char *where, struct phx_err *err)
{
    const char *key;
    json_t     *value;
    json_object_foreach(object, key, value)
    {
        size_t i = 0;
        while (keys[i] && strcmp(keys[i], key) != 0)
            i++;
        if (!keys[i])
            return phx_fail(err, PHX_E_UNSUPPORTED, "%s: field \"%.40s\" is not known", where, key);
    }
    return 0;
}

const char *phx_field_text(json_t *object, const char *key, const char *where, struct phx_err *err)
{
    const char *text = json_string_value(json_object_get(object, key));
    if (!text)
        (void)phx_fail(err, PHX_E_FORMAT, "%s: \"%s\" must be a string", where, key);
    return text;
}

int phx_field_bool(json_t *object, const char *key, const char *where, bool *out,
                   struct phx_err *err)
{
    json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value))
        return 0;
    if (!json_is_boolean(value))
        return phx_fail(err, PHX_E_FORMAT, "%s: \"%s\" must be true or false", where, key);
    *out = json_is_true(value);
    return 0;
}

bool phx_field_is_off(json_t *object, const char *key)
{
    json_t *value = json_object_get(object, key);
    if (!value || json_is_null(value) || json_is_false(value))
        return true;
    if (json_is_number(value))
        return json_number_value(value) == 0;
    if (json_is_string(value))
        return json_string_length(value) == 0;
    return (json_is_object(value) && json_object_size(value) == 0) ||
           (json_is_array(value) && json_array_size(value) == 0);
}
