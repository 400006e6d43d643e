/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/admission/rate.h"

#include <string.h>

#include "rpc/base/mem.h"
#include "rpc/base/table.h"

enum { NAMES_MAX = 65536, SWEEP = 1024 };

/* Microseconds: a minute of them times the largest rate (1e9) fits 63 bits. */
static const int64_t MINUTE_US = 60000000;

struct bucket {
    struct bucket *next;
    char          *name;
    int64_t        level; /* what may still be taken, in units */
    int64_t        at_us; /* when `level` was right */
};

struct phx_rate {
    int64_t           per_minute;
    struct phx_table *by_name;
    struct bucket    *first;
};

struct phx_rate *phx_rate_create(int64_t per_minute)
{
    struct phx_rate *r = phx_mem_calloc(1, sizeof(*r));

    r->per_minute = per_minute;
    r->by_name = phx_table_create(NAMES_MAX);
    return r;
}

static void destroy_bucket(struct bucket *b)
{
    phx_mem_free(b->name);
    phx_mem_free(b);
}

void phx_rate_destroy(struct phx_rate *r)
{
    if (r == NULL)
        return;
    for (struct bucket *b = r->first, *next; b != NULL; b = next) {
        next = b->next;
        destroy_bucket(b);
    }
    phx_table_destroy(r->by_name);
    phx_mem_free(r);
}

/* Whole units only; the rest of the time stays for the next call. */
static void refill(const struct phx_rate *r, struct bucket *b, int64_t now_us)
{
    int64_t elapsed = now_us - b->at_us;
    int64_t units;

    if (elapsed <= 0)
        return;
    if (elapsed >= MINUTE_US) {
        b->level = r->per_minute;
        b->at_us = now_us;
        return;
    }
    units = elapsed * r->per_minute / MINUTE_US;
    b->at_us += units * MINUTE_US / r->per_minute;
    b->level = units > r->per_minute - b->level ? r->per_minute : b->level + units;
}

/* Full buckets say nothing that a new one would not say. */
static void sweep(struct phx_rate *r, int64_t now_us)
{
    struct bucket **at = &r->first;

    while (*at != NULL) {
        struct bucket *b = *at;

        refill(r, b, now_us);
        if (b->level < r->per_minute) {
            at = &b->next;
            continue;
        }
        *at = b->next;
        (void)phx_table_remove_str(r->by_name, b->name); /* it is `b` */
        destroy_bucket(b);
    }
}

static struct bucket *find(struct phx_rate *r, const char *name, int64_t now_us)
{
    struct bucket *b = phx_table_get_str(r->by_name, name);

    if (b != NULL)
        return b;
    if (phx_table_count(r->by_name) >= NAMES_MAX - SWEEP)
        sweep(r, now_us);
    b = phx_mem_calloc(1, sizeof(*b));
    b->name = phx_mem_strdup(name);
    b->level = r->per_minute;
    b->at_us = now_us;
    if (phx_table_set_str(r->by_name, name, b) != 0) { /* 65536 users within a minute */
        destroy_bucket(b);
        return NULL;
    }
    b->next = r->first;
    r->first = b;
    return b;
}

int64_t phx_rate_take(struct phx_rate *r, const char *name, int64_t want, int64_t now_ns)
{
    int64_t        now_us = now_ns / 1000;
    struct bucket *b;

    if (want > r->per_minute)
        return INT64_MAX;
    b = find(r, name, now_us);
    if (b == NULL)
        return MINUTE_US * 1000;
    refill(r, b, now_us);
    if (b->level >= want) {
        b->level -= want;
        return 0;
    }
    return ((want - b->level) * MINUTE_US / r->per_minute + 1) * 1000;
}

void phx_rate_give(struct phx_rate *r, const char *name, int64_t amount)
{
    struct bucket *b = phx_table_get_str(r->by_name, name);

    if (b != NULL && amount > 0)
        b->level = amount > r->per_minute - b->level ? r->per_minute : b->level + amount;
}
