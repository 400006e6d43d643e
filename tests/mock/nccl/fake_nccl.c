/* SPDX-License-Identifier: Apache-2.0
 * NCCL over threads of one process and host memory, as far as phalanx uses it: ranks meet without waiting inside the
 * call, exchanges are done when the call returns, a rank that fails makes its peers fail. */
#include "tests/mock/nccl/fake_nccl.h"

#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { SUCCESS = 0, SYSTEM_ERROR = 2, REMOTE_ERROR = 6, IN_PROGRESS = 7, RANKS_MAX = 64, WORLDS_MAX = 256 };

/* Device memory is touched by this library as by a device: unseen by a sanitizer, which watches the host. */
#define ON_DEVICE __attribute__((no_sanitize("address", "undefined", "thread"), noinline))

ON_DEVICE static void copy_floats(void *to, const void *from, size_t count)
{
    volatile float       *t = to; /* so that no call of the library's memcpy comes of it */
    const volatile float *f = from;

    for (size_t i = 0; i < count; i++)
        t[i] = f[i];
}

ON_DEVICE static void add_floats(float *sum, const float *from, size_t count)
{
    for (size_t i = 0; i < count; i++)
        sum[i] += from[i];
}

struct id {
    char bytes[128];
};

struct config {
    size_t   size;
    unsigned magic, version;
    int      blocking;
};

struct letter {
    struct letter *next;
    size_t         size;
    float          floats[];
};

struct world {
    struct id      id;
    int            n_ranks, n_joined, n_arrived;
    unsigned       turn;
    bool           is_broken;
    const void    *from[RANKS_MAX];
    void          *to[RANKS_MAX];
    struct letter *letters[RANKS_MAX][RANKS_MAX]; /* [from][to], oldest first */
};

struct comm {
    struct world *world;
    int           rank;
};

#define EXPORT __attribute__((visibility("default")))

#ifndef FAKE_NCCL_VERSION
#define FAKE_NCCL_VERSION 22809
#endif
EXPORT struct fake_nccl fake_nccl = {.version = FAKE_NCCL_VERSION};

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t  changed = PTHREAD_COND_INITIALIZER;
static struct world    worlds[WORLDS_MAX];
static int             n_worlds, n_ids;

int ncclGetVersion(int *version);
int ncclGetUniqueId(struct id *id);
int ncclCommInitRankConfig(struct comm **comm, int n_ranks, struct id id, int rank, struct config *config);
int ncclCommFinalize(struct comm *c);
int ncclCommDestroy(struct comm *c);
int ncclCommAbort(struct comm *c);
int ncclCommGetAsyncError(struct comm *c, int *state);
const char *ncclGetErrorString(int rc);
int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, struct comm *c, void *stream);
int ncclAllGather(const void *from, void *to, size_t count, int type, struct comm *c, void *stream);
int ncclSend(const void *from, size_t count, int type, int peer, struct comm *c, void *stream);
int ncclRecv(void *to, size_t count, int type, int peer, struct comm *c, void *stream);
int ncclGroupStart(void);
int ncclGroupEnd(void);

EXPORT int ncclGetVersion(int *version)
{
    *version = fake_nccl.version;
    fake_nccl.version += fake_nccl.version_step;
    return SUCCESS;
}

EXPORT int ncclGetUniqueId(struct id *id)
{
    memset(id, 0, sizeof(*id));
    pthread_mutex_lock(&lock);
    n_ids++;
    memcpy(id->bytes, &n_ids, sizeof(n_ids));
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

static struct world *find_world(struct id id, int n_ranks)
{
    for (int i = 0; i < n_worlds; i++)
        if (memcmp(&worlds[i].id, &id, sizeof(id)) == 0)
            return &worlds[i];
    if (n_worlds == WORLDS_MAX)
        abort();
    worlds[n_worlds] = (struct world){.id = id, .n_ranks = n_ranks};
    return &worlds[n_worlds++];
}

EXPORT int ncclCommInitRankConfig(struct comm **comm, int n_ranks, struct id id, int rank, struct config *config)
{
    struct comm *c = calloc(1, sizeof(*c));

    if (c == NULL || config->magic != 0xcafebeefu || config->blocking != 0 || rank >= n_ranks || n_ranks > RANKS_MAX)
        abort();
    pthread_mutex_lock(&lock);
    c->world = find_world(id, n_ranks);
    c->rank = rank;
    c->world->n_joined++;
    pthread_mutex_unlock(&lock);
    *comm = c;
    return IN_PROGRESS;
}

EXPORT int ncclCommGetAsyncError(struct comm *c, int *state)
{
    pthread_mutex_lock(&lock);
    *state = c->world->is_broken ? REMOTE_ERROR : c->world->n_joined < c->world->n_ranks ? IN_PROGRESS : SUCCESS;
    pthread_mutex_unlock(&lock);
    return SUCCESS;
}

EXPORT int ncclCommFinalize(struct comm *c)
{
    (void)c;
    return SUCCESS;
}

/* Ranks are threads. */
static void tally(int *n)
{
    (void)__atomic_fetch_add(n, 1, __ATOMIC_RELAXED);
}

EXPORT int ncclCommDestroy(struct comm *c)
{
    tally(&fake_nccl.n_destroy);
    free(c);
    return SUCCESS;
}

static void break_world(struct world *w)
{
    w->is_broken = true;
    pthread_cond_broadcast(&changed);
}

EXPORT int ncclCommAbort(struct comm *c)
{
    pthread_mutex_lock(&lock);
    tally(&fake_nccl.n_abort);
    break_world(c->world);
    pthread_mutex_unlock(&lock);
    free(c);
    return SUCCESS;
}

EXPORT const char *ncclGetErrorString(int rc)
{
    return rc == REMOTE_ERROR ? "remote process exited or there was a network error" : "unhandled system error";
}

/* With the lock: false when this call is the one that fails. */
static bool begin(struct comm *c)
{
    if (fake_nccl.die_at_call > 0 && --fake_nccl.die_at_call == 0)
        break_world(c->world);
    return !c->world->is_broken;
}

/* Everybody's buffers; the last to come does the work for all. */
static int meet(struct comm *c, const void *from, void *to, size_t count, void (*work)(struct world *, size_t))
{
    struct world *w = c->world;
    unsigned      turn;

    fake_nccl.drain();
    pthread_mutex_lock(&lock);
    if (begin(c)) {
        turn = w->turn;
        w->from[c->rank] = from;
        w->to[c->rank] = to;
        if (++w->n_arrived == w->n_ranks) {
            work(w, count);
            w->n_arrived = 0;
            w->turn++;
            pthread_cond_broadcast(&changed);
        }
        while (w->turn == turn && !w->is_broken)
            pthread_cond_wait(&changed, &lock);
    }
    int rc = w->is_broken ? SYSTEM_ERROR : SUCCESS;
    pthread_mutex_unlock(&lock);
    return rc;
}

/* From the last rank down: not the order that phalanx fixes. */
static void reduce(struct world *w, size_t count)
{
    float *sum = calloc(count + 1, sizeof(*sum));

    for (int r = w->n_ranks - 1; r >= 0; r--)
        add_floats(sum, w->from[r], count);
    for (int r = 0; r < w->n_ranks; r++)
        copy_floats(w->to[r], sum, count);
    free(sum);
}

static void gather(struct world *w, size_t count)
{
    for (int r = 0; r < w->n_ranks; r++)
        for (int k = 0; k < w->n_ranks; k++)
            copy_floats((float *)w->to[r] + (size_t)k * count, w->from[k], count);
}

EXPORT int ncclAllReduce(const void *from, void *to, size_t count, int type, int op, struct comm *c, void *stream)
{
    (void)stream;
    if (type != 7 || op != 0)
        abort();
    tally(&fake_nccl.n_all_reduce);
    return meet(c, from, to, count, reduce);
}

EXPORT int ncclAllGather(const void *from, void *to, size_t count, int type, struct comm *c, void *stream)
{
    (void)stream;
    if (type != 7)
        abort();
    tally(&fake_nccl.n_all_gather);
    return meet(c, from, to, count, gather);
}

EXPORT int ncclSend(const void *from, size_t count, int type, int peer, struct comm *c, void *stream)
{
    struct letter *l = malloc(sizeof(*l) + count * sizeof(float)), **end;
    int            rc;

    (void)stream;
    if (l == NULL || type != 7)
        abort();
    tally(&fake_nccl.n_send);
    fake_nccl.drain();
    *l = (struct letter){NULL, count * sizeof(float)};
    copy_floats(l->floats, from, count);
    pthread_mutex_lock(&lock);
    rc = begin(c) ? SUCCESS : SYSTEM_ERROR;
    for (end = &c->world->letters[c->rank][peer]; *end != NULL; end = &(*end)->next)
        ;
    *end = l;
    pthread_cond_broadcast(&changed);
    pthread_mutex_unlock(&lock);
    return rc;
}

EXPORT int ncclRecv(void *to, size_t count, int type, int peer, struct comm *c, void *stream)
{
    struct letter **box = &c->world->letters[peer][c->rank], *l;

    (void)stream;
    if (type != 7)
        abort();
    tally(&fake_nccl.n_recv);
    fake_nccl.drain();
    pthread_mutex_lock(&lock);
    if (begin(c))
        while (*box == NULL && !c->world->is_broken)
            pthread_cond_wait(&changed, &lock);
    l = *box;
    if (l != NULL) {
        if (l->size != count * sizeof(float))
            abort();
        copy_floats(to, l->floats, l->size / sizeof(float));
        *box = l->next;
        free(l);
    }
    pthread_mutex_unlock(&lock);
    return l != NULL ? SUCCESS : SYSTEM_ERROR;
}

EXPORT int ncclGroupStart(void)
{
    return SUCCESS;
}

EXPORT int ncclGroupEnd(void)
{
    return SUCCESS;
}
