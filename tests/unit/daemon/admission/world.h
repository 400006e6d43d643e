/* SPDX-License-Identifier: Apache-2.0
 * Everything admission stands on, in a folder of its own: database, clock, a licence from a test's issuer. */
#ifndef PHX_TESTS_ADMISSION_WORLD_H
#define PHX_TESTS_ADMISSION_WORLD_H

#include <event2/event.h>

#include "daemon/admission/admission.h"
#include "daemon/license/license.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "tests/unit/daemon/license/forge.h"
#include "tests/unit/daemon/records/scratch.h"

struct world {
    struct scratch               scratch;
    struct forge                 forge;
    char                         license[128], key_set[128], roots[128];
    struct event_base           *base;
    struct phx_store            *store;
    struct phx_time             *time;
    struct phx_license_store    *licenses;
    struct phx_admission        *admission;
    struct phx_admission_options options; /* may be changed before world_open() */
};

/* A payload that is valid now: from 2026-01-01 for ten years. */
json_t *world_payload(struct world *w);
/* Makes the folder, with a licence of this payload (released; NULL = world_payload). */
void world_make(struct world *w, json_t *payload);
void world_open(struct world *w);
void world_close(struct world *w);
void world_remove(struct world *w);
int64_t world_int(const struct world *w, const char *sql);

struct call { /* one request and what came of it */
    struct phx_lease *lease;
    int               n_begun, n_settled, refusal, settle_code;
    int64_t           retry_after_ms;
    char              rule[64], receipt[64];
};
struct person {
    const char *tenant, *user, *key_id, *idempotency_key, *purpose;
    unsigned    roles; /* 0 = user */
    bool        is_service;
    int32_t     max_new, n_choices; /* 0 = 10, 1 */
    int32_t     first_token;        /* of the prompt: another one is another request */
};
void world_begin(struct world *w, struct call *c, struct person p);
void world_end(struct world *w, struct call *c, const char *finish, int32_t n_output);
/* Turns the loop until *count is n, then a little longer. */
void world_turn(struct world *w, const int *count, int n);

#endif
