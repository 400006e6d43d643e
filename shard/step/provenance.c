/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/step/provenance.h"

#include <pthread.h>
#include <stdatomic.h>

#include "rpc/base/clock.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "shard/manifest/manifest.h"

/* The bytes are cut in the same parts whatever the threads of a rank, so that no piece is left out when ranks
 * have different numbers of them. */
enum { PARTS_OF_A_RANK = 8 };

struct checker { /* one thread */
    struct phx_provenance *owner;
    pthread_t              thread;
    int                    code;
    struct phx_err         err;
};

struct phx_provenance {
    struct phx_manifest *manifest; /* NULL = the folder is not signed */
    char                *dir;
    int32_t              rank, n_ranks;
    int64_t              began_ns;
    atomic_int           next; /* of this rank's parts */
    struct checker       checkers[PARTS_OF_A_RANK];
    int32_t              n_running;
};

int phx_provenance_open(const char *model_dir, const char *public_key, struct phx_provenance **out,
                        struct phx_err *err)
{
    struct phx_provenance *p = phx_mem_calloc(1, sizeof(*p));
    int                    rc = phx_manifest_open(model_dir, public_key, &p->manifest, err);

    *out = NULL;
    if (rc == PHX_E_NOTFOUND && public_key[0] == '\0')
        rc = 0;
    if (rc != 0) {
        phx_mem_free(p);
        return rc;
    }
    p->dir = phx_mem_strdup(model_dir);
    *out = p;
    return 0;
}

static void join_all(struct phx_provenance *p)
{
    for (int32_t i = 0; i < p->n_running; i++)
        (void)pthread_join(p->checkers[i].thread, NULL); /* threads we started ourselves */
    p->n_running = 0;
}

void phx_provenance_close(struct phx_provenance *p)
{
    if (p == NULL)
        return;
    join_all(p);
    phx_manifest_close(p->manifest);
    phx_mem_free(p->dir);
    phx_mem_free(p);
}

static struct phx_manifest_facts facts_of(const struct phx_provenance *p)
{
    struct phx_manifest_facts facts = {"", "", "", false, 0};

    if (p->manifest != NULL)
        phx_manifest_facts(p->manifest, &facts);
    return facts;
}

const char *phx_provenance_root(const struct phx_provenance *p)
{
    return facts_of(p).root;
}

const char *phx_provenance_parent(const struct phx_provenance *p)
{
    return facts_of(p).parent;
}

static void *check(void *ctx)
{
    struct checker        *c = ctx;
    struct phx_provenance *p = c->owner;
    int32_t                part;

    while (c->code == 0 && (part = atomic_fetch_add(&p->next, 1)) < PARTS_OF_A_RANK)
        c->code = phx_manifest_check(p->manifest, p->dir, p->rank * PARTS_OF_A_RANK + part,
                                     p->n_ranks * PARTS_OF_A_RANK, NULL, NULL, &c->err);
    return NULL;
}

int phx_provenance_start(struct phx_provenance *p, int rank, int n_ranks, int n_threads, struct phx_err *err)
{
    int32_t n = n_threads < PARTS_OF_A_RANK ? n_threads : PARTS_OF_A_RANK;

    if (p->manifest == NULL)
        return 0;
    p->rank = rank;
    p->n_ranks = n_ranks;
    p->began_ns = phx_clock_mono_ns();
    for (int32_t i = 0; i < n; i++) {
        struct checker *c = &p->checkers[i];

        *c = (struct checker){.owner = p};
        if (pthread_create(&c->thread, NULL, check, c) != 0)
            return phx_fail(err, PHX_E_NOMEM, "cannot start the threads that check the model");
        p->n_running++;
    }
    return 0;
}

int phx_provenance_wait(struct phx_provenance *p, struct phx_err *err)
{
    int32_t n = p->n_running;

    join_all(p);
    for (int32_t i = 0; i < n; i++)
        if (p->checkers[i].code != 0) {
            if (err != NULL)
                *err = p->checkers[i].err;
            return p->checkers[i].code;
        }
    if (n > 0)
        phx_log(PHX_LOG_INFO, "step.model.checked", "root=%s part=%d parts=%d threads=%d ms=%lld",
                phx_provenance_root(p), p->rank, p->n_ranks, n,
                (long long)((phx_clock_mono_ns() - p->began_ns) / 1000000));
    return 0;
}
