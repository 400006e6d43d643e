/* SPDX-License-Identifier: Apache-2.0
 * Values of a small JSON library; parsing is in parse.c, printing in print.c. */
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/small/value.h"

void *small_alloc(void *ptr, size_t size)
{
    void *p = realloc(ptr, size > 0 ? size : 1);

    if (p == NULL)
        abort(); /* as the rest of the programs does for small objects */
    return p;
}

json_t *small_new(enum small_type type)
{
    json_t *v = small_alloc(NULL, sizeof(*v));

    memset(v, 0, sizeof(*v));
    v->type = type;
    v->n_refs = 1;
    return v;
}

void json_decref(json_t *v)
{
    if (v == NULL || --v->n_refs > 0)
        return;
    for (size_t i = 0; i < v->n; i++) {
        if (v->keys != NULL)
            free(v->keys[i]);
        if (v->items != NULL)
            json_decref(v->items[i]);
    }
    free(v->keys);
    free(v->items);
    free(v->text);
    free(v);
}

json_t *small_string(const char *text, size_t size)
{
    json_t *v = small_new(SMALL_STRING);

    v->text = small_alloc(NULL, size + 1);
    memcpy(v->text, text, size);
    v->text[size] = '\0';
    v->text_size = size;
    return v;
}

json_t *json_object(void)
{
    return small_new(SMALL_OBJECT);
}

json_t *json_array(void)
{
    return small_new(SMALL_ARRAY);
}

json_t *json_string(const char *text)
{
    return small_string(text, strlen(text));
}

json_t *json_integer(json_int_t value)
{
    json_t *v = small_new(SMALL_INTEGER);

    v->integer = value;
    return v;
}

json_t *json_real(double value)
{
    json_t *v = small_new(SMALL_REAL);

    v->real = value;
    return v;
}

json_t *json_boolean(int value)
{
    json_t *v = small_new(SMALL_BOOLEAN);

    v->integer = value != 0;
    return v;
}

json_t *json_null(void)
{
    return small_new(SMALL_NULL);
}

static bool is(const json_t *v, enum small_type type)
{
    return v != NULL && v->type == type;
}

bool json_is_object(const json_t *v)
{
    return is(v, SMALL_OBJECT);
}

bool json_is_array(const json_t *v)
{
    return is(v, SMALL_ARRAY);
}

bool json_is_string(const json_t *v)
{
    return is(v, SMALL_STRING);
}

bool json_is_integer(const json_t *v)
{
    return is(v, SMALL_INTEGER);
}

bool json_is_real(const json_t *v)
{
    return is(v, SMALL_REAL);
}

bool json_is_number(const json_t *v)
{
    return json_is_integer(v) || json_is_real(v);
}

bool json_is_boolean(const json_t *v)
{
    return is(v, SMALL_BOOLEAN);
}

bool json_is_true(const json_t *v)
{
    return json_is_boolean(v) && v->integer != 0;
}

bool json_is_null(const json_t *v)
{
    return is(v, SMALL_NULL);
}

json_int_t json_integer_value(const json_t *v)
{
    return json_is_integer(v) ? v->integer : 0;
}

double json_real_value(const json_t *v)
{
    return json_is_real(v) ? v->real : 0;
}

double json_number_value(const json_t *v)
{
    return json_is_integer(v) ? (double)v->integer : json_real_value(v);
}

int json_boolean_value(const json_t *v)
{
    return json_is_true(v);
}

const char *json_string_value(const json_t *v)
{
    return json_is_string(v) ? v->text : NULL;
}

size_t json_string_length(const json_t *v)
{
    return json_is_string(v) ? v->text_size : 0;
}

size_t json_array_size(const json_t *v)
{
    return json_is_array(v) ? v->n : 0;
}

json_t *json_array_get(const json_t *v, size_t index)
{
    return index < json_array_size(v) ? v->items[index] : NULL;
}

size_t json_object_size(const json_t *v)
{
    return json_is_object(v) ? v->n : 0;
}

bool json_object_member(const json_t *v, size_t index, const char **key, json_t **value)
{
    if (index >= json_object_size(v))
        return false;
    *key = v->keys[index];
    *value = v->items[index];
    return true;
}

json_t *json_object_get(const json_t *v, const char *key)
{
    for (size_t i = 0; i < json_object_size(v); i++)
        if (strcmp(v->keys[i], key) == 0)
            return v->items[i];
    return NULL;
}

static void append(json_t *v, const char *key, json_t *value)
{
    if (v->n == v->capacity) {
        v->capacity = v->capacity > 0 ? 2 * v->capacity : 8;
        v->items = small_alloc(v->items, v->capacity * sizeof(*v->items));
        if (key != NULL)
            v->keys = small_alloc(v->keys, v->capacity * sizeof(*v->keys));
    }
    if (key != NULL) {
        v->keys[v->n] = small_alloc(NULL, strlen(key) + 1);
        strcpy(v->keys[v->n], key);
    }
    v->items[v->n++] = value;
}

int json_array_append_new(json_t *array, json_t *value)
{
    if (!json_is_array(array) || value == NULL)
        return -1;
    append(array, NULL, value);
    return 0;
}

int json_array_append(json_t *array, json_t *value)
{
    if (value != NULL)
        value->n_refs++;
    return json_array_append_new(array, value);
}

int json_object_set_new(json_t *object, const char *key, json_t *value)
{
    if (!json_is_object(object) || value == NULL)
        return -1;
    for (size_t i = 0; i < object->n; i++)
        if (strcmp(object->keys[i], key) == 0) {
            json_decref(object->items[i]);
            object->items[i] = value;
            return 0;
        }
    append(object, key, value);
    return 0;
}

static json_t *pack_one(char letter, va_list *ap)
{
    switch (letter) {
    case 's': return json_string(va_arg(*ap, const char *));
    case 'i': return json_integer(va_arg(*ap, int));
    case 'I': return json_integer(va_arg(*ap, json_int_t));
    case 'b': return json_boolean(va_arg(*ap, int));
    case 'f': return json_real(va_arg(*ap, double));
    case 'o': return va_arg(*ap, json_t *);
    default: abort(); /* a letter that this library does not know */
    }
}

json_t *json_pack(const char *format, ...)
{
    json_t *v = format[0] == '{' ? json_object() : json_array();
    va_list ap;

    va_start(ap, format);
    for (const char *p = format + 1; *p != '\0' && *p != '}' && *p != ']'; p++) {
        const char *key = NULL;

        if (*p == ',' || *p == ' ')
            continue;
        if (v->type == SMALL_OBJECT) { /* "s:" and the letter of the value */
            key = va_arg(ap, const char *);
            p += 2;
        }
        append(v, key, pack_one(*p, &ap));
    }
    va_end(ap);
    return v;
}
