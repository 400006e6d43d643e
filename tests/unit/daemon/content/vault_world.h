/* SPDX-License-Identifier: Apache-2.0
 * A database with a site key, and one call per thing that content can do. */
#ifndef PHX_TESTS_VAULT_WORLD_H
#define PHX_TESTS_VAULT_WORLD_H

#include "daemon/content/content.h"
#include "daemon/store/store.h"
#include "scratch.h"

/* 2026-11-15T12:00:00Z */
#define NOV INT64_C(1794744000000000000)
#define DAY (INT64_C(86400) * 1000000000)

struct world {
    struct scratch    s;
    struct phx_store *store;
    uint8_t           key[PHX_CONTENT_KEY_BYTES];
    struct phx_err    err; /* of the last call */
};

void world_make(struct world *w);
void world_remove(struct world *w);

struct kept {
    const char      *receipt, *tenant, *user;
    enum phx_privacy mode;
    int64_t          at_ns;
    int32_t          days; /* 0 = the floor */
    const char      *request, *response; /* response NULL = none yet */
    char             request_sha256[65], response_sha256[65];
};
int  put(struct world *w, struct kept *k);
int  put_request(struct world *w, struct kept *k);
int  put_response(struct world *w, struct kept *k);
int  get(struct world *w, const char *receipt, struct phx_content_text *out);
int  shred(struct world *w, const char *receipt, int64_t at_ns);
int  shred_month(struct world *w, const char *tenant, const char *period, int64_t at_ns);
int  sweep(struct world *w, int max);
int  expire(struct world *w, int64_t now_ns, int max);
int  hold(struct world *w, const char *name, const char *tenant, const char *user);
int  unhold(struct world *w, const char *name);
int  pseudonym(struct world *w, const char *tenant, const char *subject, int64_t at_ns, char hex[65]);
int  key_check(struct world *w);
int  key_lost(struct world *w);
void assert_reads(struct world *w, const char *receipt, const char *request, const char *response);
/* Leaves of that kind whose record has `text` in it. */
int64_t leaves(struct world *w, const char *kind, const char *text);
/* How often the text stands in phalanx.db, its -wal and its -shm. */
size_t count_in_files(struct world *w, const char *text);

#endif
