/* SPDX-License-Identifier: Apache-2.0
 * The part of jansson's interface that the engine alone uses, for hosts without that library (PHX_PARTS=engine).
 * Names and meanings are jansson's (jansson.readthedocs.io, API reference); texts that it refuses are refused here. */
#ifndef PHX_TESTS_GPU_SMALL_JANSSON_H
#define PHX_TESTS_GPU_SMALL_JANSSON_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct json_t json_t;
typedef long long     json_int_t;

#define JSON_INTEGER_FORMAT    "lld"
#define JSON_REJECT_DUPLICATES 0x1
#define JSON_DECODE_ANY        0x4
#define JSON_COMPACT           0x20
#define JSON_ENCODE_ANY        0x200
#define JSON_INDENT(n)         ((n) & 0x1f)

typedef struct {
    int  line, column, position;
    char text[160];
} json_error_t;

typedef int (*json_dump_callback_t)(const char *buffer, size_t size, void *data);

json_t *json_loadb(const char *text, size_t size, size_t flags, json_error_t *error);
void    json_decref(json_t *value);

json_t *json_object(void);
json_t *json_array(void);
json_t *json_string(const char *text);
json_t *json_integer(json_int_t value);
json_t *json_real(double value);
json_t *json_boolean(int value);
json_t *json_null(void);
/* Letters s, i, I, f, b and o in one object or array. */
json_t *json_pack(const char *format, ...);

bool        json_is_object(const json_t *v);
bool        json_is_array(const json_t *v);
bool        json_is_string(const json_t *v);
bool        json_is_integer(const json_t *v);
bool        json_is_real(const json_t *v);
bool        json_is_number(const json_t *v);
bool        json_is_boolean(const json_t *v);
bool        json_is_true(const json_t *v);
bool        json_is_null(const json_t *v);
json_int_t  json_integer_value(const json_t *v);
double      json_number_value(const json_t *v);
double      json_real_value(const json_t *v);
int         json_boolean_value(const json_t *v);
const char *json_string_value(const json_t *v);
size_t      json_string_length(const json_t *v);

size_t  json_array_size(const json_t *v);
json_t *json_array_get(const json_t *v, size_t index);
int     json_array_append(json_t *array, json_t *value);
int     json_array_append_new(json_t *array, json_t *value);
size_t  json_object_size(const json_t *v);
json_t *json_object_get(const json_t *v, const char *key);
int     json_object_set_new(json_t *object, const char *key, json_t *value);
/* Member `index` in order of insertion; false behind the last. */
bool json_object_member(const json_t *v, size_t index, const char **key, json_t **value);
#define json_object_foreach(object, key, value)                                                                        \
    for (size_t small_index_ = 0; json_object_member(object, small_index_, &(key), &(value)); small_index_++)
#define json_array_foreach(array, index, value)                                                                        \
    for ((index) = 0; (index) < json_array_size(array) && ((value) = json_array_get(array, index)) != NULL; (index)++)

int   json_dump_callback(const json_t *v, json_dump_callback_t put, void *data, size_t flags);
int   json_dumpf(const json_t *v, FILE *f, size_t flags);
char *json_dumps(const json_t *v, size_t flags); /* for free() */

#endif
