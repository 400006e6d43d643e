/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/step/provenance.h"

#include <pthread.h>
#include <stdbool.h>

#include "rpc/base/clock.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "shard/manifest/manifest.h"

struct phx_provenance {
    struct phx_manifest *manifest; /* NULL = the folder is not signed */
    char                *dir;
    int                  rank, n_ranks;
    pthread_t            thread;
    bool                 is_running;
    int                  code;
    struct phx_err       err;
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

void phx_provenance_close(struct phx_provenance *p)
{
    if (p == NULL)
        return;
    if (p->is_running)
        (void)pthread_join(p->thread, NULL); /* a thread we started ourselves */
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
    struct phx_provenance *p = ctx;
    int64_t                began = phx_clock_mono_ns();

    p->code = phx_manifest_check(p->manifest, p->dir, p->rank, p->n_ranks, NULL, NULL, &p->err);
    if (p->code == 0)
        phx_log(PHX_LOG_INFO, "step.model.checked", "root=%s part=%d parts=%d ms=%lld",
                phx_provenance_root(p), p->rank, p->n_ranks,
                (long long)((phx_clock_mono_ns() - began) / 1000000));
    return NULL;
}

int phx_provenance_start(struct phx_provenance *p, int rank, int n_ranks, struct phx_err *err)
{
    p->rank = rank;
    p->n_ranks = n_ranks;
    if (p->manifest == NULL)
        return 0;
    p->is_running = pthread_create(&p->thread, NULL, check, p) == 0;
    return p->is_running ? 0 : phx_fail(err, PHX_E_NOMEM, "cannot start the thread that checks the model");
}

int phx_provenance_wait(struct phx_provenance *p, struct phx_err *err)
{
    if (!p->is_running)
        return 0;
    (void)pthread_join(p->thread, NULL); /* a thread we started ourselves */
    p->is_running = false;
    if (p->code != 0 && err != NULL)
        *err = p->err;
    return p->code;
}
