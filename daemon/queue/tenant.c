/* SPDX-License-Identifier: Apache-2.0
 * Fairness between tenants: a virtual token counter (Sheng et al., "Fairness in serving large language
 * models", 2024).  Prompt tokens count once, generated tokens twice. */
#include <string.h>

#include "daemon/queue/engine.h"
#include "rpc/base/hash.h"
#include "rpc/base/mem.h"

enum {
    TENANTS_MAX = 4096,
    OLDEST_EVERY = 8 /* of a tenant's turns one is its oldest's, whatever the priorities */
};

struct tenant *phx_tenant_find(struct phx_engine *e, const char *name)
{
    struct tenant *t;

    for (t = e->tenants; t != NULL; t = t->next)
        if (strcmp(t->name, name) == 0)
            return t;
    if (e->n_tenants >= TENANTS_MAX) { /* forget one that has nothing open */
        for (struct tenant **at = &e->tenants; *at != NULL; at = &(*at)->next)
            if ((*at)->n_open == 0 && *at != e->last) {
                t = *at;
                *at = t->next;
                phx_mem_free(t->name);
                phx_mem_free(t);
                e->n_tenants--;
                break;
            }
    }
    t = phx_mem_calloc(1, sizeof(*t));
    t->name = phx_mem_strdup(name);
    phx_hmac_sha256(e->options.cache_secret, sizeof(e->options.cache_secret), name, strlen(name),
                    t->salt);
    t->next = e->tenants;
    e->tenants = t;
    e->n_tenants++;
    return t;
}

void phx_tenant_lift(struct phx_engine *e, struct tenant *t)
{
    uint64_t least = UINT64_MAX;

    if (t->n_waiting > 0)
        return;
    for (const struct tenant *o = e->tenants; o != NULL; o = o->next)
        if (o->n_waiting > 0 && o->served < least)
            least = o->served;
    if (least == UINT64_MAX) /* nobody waits: as far as the one whose turn was last */
        least = e->last != NULL ? e->last->served : 0;
    if (t->served < least)
        t->served = least;
}

static bool is_before(const struct phx_engine_seq *a, const struct phx_engine_seq *b)
{
    if ((a->n_resumes > 0) != (b->n_resumes > 0))
        return a->n_resumes > 0;
    if (a->tenant != b->tenant)
        return a->tenant->served < b->tenant->served;
    return a->priority > b->priority && a->tenant->n_turns % OLDEST_EVERY != OLDEST_EVERY - 1;
}

struct phx_engine_seq *phx_queue_next(struct phx_engine *e)
{
    struct phx_engine_seq *best = e->waiting.first;

    for (struct phx_engine_seq *s = best; s != NULL; s = s->next)
        if (is_before(s, best))
            best = s; /* the list is in order of arrival, so the first of equals stays */
    return best;
}

void phx_tenant_charge(struct phx_engine *e, struct tenant *t, int32_t n_tokens)
{
    t->served += (uint64_t)n_tokens;
    t->n_turns++;
    e->last = t;
}
