/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/table.h"

#include <sodium.h>
#include <stdbool.h>
#include <string.h>

#include "rpc/base/id.h"
#include "rpc/base/mem.h"

/* Open addressing with linear probing; removal shifts back, so there are no tombstones. */
struct entry {
    uint64_t hash;
    uint64_t number;
    char    *string; /* owned; NULL for number keys */
    void    *value;  /* NULL = free slot */
};

struct phx_table {
    struct entry *entries;
    size_t        capacity; /* power of two */
    size_t        count;
    size_t        max;
    unsigned char key[crypto_shorthash_KEYBYTES];
};

enum { FIRST_CAPACITY = 16 };

struct phx_table *phx_table_create(size_t max_items)
{
    struct phx_table *t = phx_mem_calloc(1, sizeof(*t));

    t->max = max_items;
    t->capacity = FIRST_CAPACITY;
    t->entries = phx_mem_calloc(t->capacity, sizeof(*t->entries));
    phx_id_random(t->key, sizeof(t->key));
    return t;
}

void phx_table_destroy(struct phx_table *t)
{
    if (t == NULL)
        return;
    for (size_t i = 0; i < t->capacity; i++)
        phx_mem_free(t->entries[i].string);
    phx_mem_free(t->entries);
    phx_mem_free(t);
}

size_t phx_table_count(const struct phx_table *t)
{
    return t->count;
}

static uint64_t hash_bytes(const struct phx_table *t, const void *data, size_t size)
{
    unsigned char out[crypto_shorthash_BYTES];
    uint64_t      hash;

    (void)crypto_shorthash(out, data, size, t->key); /* cannot fail */
    memcpy(&hash, out, sizeof(hash));
    return hash;
}

static struct entry make_key(const struct phx_table *t, uint64_t number, char *string)
{
    struct entry e = {.number = number, .string = string};

    e.hash = string != NULL ? hash_bytes(t, string, strlen(string))
                            : hash_bytes(t, &number, sizeof(number));
    return e;
}

static bool is_same(const struct entry *a, const struct entry *b)
{
    if (a->hash != b->hash)
        return false;
    phx_assert((a->string == NULL) == (b->string == NULL)); /* one kind of key per table */
    return a->string != NULL ? strcmp(a->string, b->string) == 0 : a->number == b->number;
}

/* The slot that holds the key, or the free one where it would go. */
static size_t find_slot(const struct phx_table *t, const struct entry *key)
{
    size_t i = key->hash & (t->capacity - 1);

    while (t->entries[i].value != NULL && !is_same(&t->entries[i], key))
        i = (i + 1) & (t->capacity - 1);
    return i;
}

static void grow(struct phx_table *t)
{
    struct entry *old = t->entries;
    size_t        n = t->capacity;

    t->capacity *= 2;
    t->entries = phx_mem_calloc(t->capacity, sizeof(*t->entries));
    for (size_t i = 0; i < n; i++)
        if (old[i].value != NULL)
            t->entries[find_slot(t, &old[i])] = old[i];
    phx_mem_free(old);
}

static int set(struct phx_table *t, struct entry key, void *value)
{
    size_t slot = find_slot(t, &key);

    phx_assert(value != NULL);
    if (t->entries[slot].value != NULL) {
        t->entries[slot].value = value;
        return 0;
    }
    if (t->count == t->max)
        return PHX_E_LIMIT;
    if ((t->count + 1) * 4 > t->capacity * 3) {
        grow(t);
        slot = find_slot(t, &key);
    }
    if (key.string != NULL)
        key.string = phx_mem_strdup(key.string);
    key.value = value;
    t->entries[slot] = key;
    t->count++;
    return 0;
}

static void *take(struct phx_table *t, const struct entry *key)
{
    size_t mask = t->capacity - 1;
    size_t hole = find_slot(t, key);
    void  *value = t->entries[hole].value;

    if (value == NULL)
        return NULL;
    phx_mem_free(t->entries[hole].string);
    for (size_t i = (hole + 1) & mask; t->entries[i].value != NULL; i = (i + 1) & mask) {
        size_t home = t->entries[i].hash & mask;

        if (((i - home) & mask) >= ((i - hole) & mask)) { /* the hole lies on its probe path */
            t->entries[hole] = t->entries[i];
            hole = i;
        }
    }
    memset(&t->entries[hole], 0, sizeof(t->entries[hole]));
    t->count--;
    return value;
}

int phx_table_set_u64(struct phx_table *t, uint64_t key, void *value)
{
    return set(t, make_key(t, key, NULL), value);
}

void *phx_table_get_u64(const struct phx_table *t, uint64_t key)
{
    struct entry e = make_key(t, key, NULL);

    return t->entries[find_slot(t, &e)].value;
}

void *phx_table_remove_u64(struct phx_table *t, uint64_t key)
{
    struct entry e = make_key(t, key, NULL);

    return take(t, &e);
}

/* The casts drop const for the lookup key only: set() copies the string before it keeps it. */
int phx_table_set_str(struct phx_table *t, const char *key, void *value)
{
    return set(t, make_key(t, 0, (char *)key), value);
}

void *phx_table_get_str(const struct phx_table *t, const char *key)
{
    struct entry e = make_key(t, 0, (char *)key);

    return t->entries[find_slot(t, &e)].value;
}

void *phx_table_remove_str(struct phx_table *t, const char *key)
{
    struct entry e = make_key(t, 0, (char *)key);

    return take(t, &e);
}

void *phx_table_next(const struct phx_table *t, size_t *cursor)
{
    while (*cursor < t->capacity) {
        void *value = t->entries[(*cursor)++].value;

        if (value != NULL)
            return value;
    }
    return NULL;
}
