/* SPDX-License-Identifier: Apache-2.0
 * Inside the small JSON library. */
#ifndef PHX_TESTS_GPU_SMALL_VALUE_H
#define PHX_TESTS_GPU_SMALL_VALUE_H

#include "tests/gpu/small/jansson.h"

enum small_type {
    SMALL_OBJECT = 1, SMALL_ARRAY, SMALL_STRING, SMALL_INTEGER, SMALL_REAL, SMALL_BOOLEAN, SMALL_NULL
};

struct json_t {
    enum small_type type;
    size_t          n_refs;
    json_int_t      integer; /* and booleans */
    double          real;
    char           *text;
    size_t          text_size;
    char          **keys;    /* of an object */
    json_t        **items;   /* of an object or array */
    size_t          n, capacity;
};

void   *small_alloc(void *ptr, size_t size); /* never NULL */
json_t *small_new(enum small_type type);
json_t *small_string(const char *text, size_t size);

#endif
