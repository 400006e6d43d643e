/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/model/ahead.h"

#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <unistd.h>

#include "rpc/base/mem.h"

enum { N_READERS = 2, STRIDE_BYTES = 4 << 20, WINDOW_BYTES = 256 << 20, WAIT_US = 500 };

struct piece {
    const struct phx_ckpt_tensor *tensor;
    uint64_t                      offset, size_bytes;
    uint64_t                      before_bytes; /* of all pieces in front of it */
};

struct phx_ahead {
    struct piece    *pieces;
    int64_t          n_pieces, capacity;
    atomic_llong     n_packed;
    atomic_bool      is_over;
    pthread_mutex_t  lock; /* of the cursor */
    int64_t          piece;
    uint64_t         at; /* inside it */
    pthread_t        reader[N_READERS];
    int              n_readers;
};

struct phx_ahead *phx_ahead_create(void)
{
    struct phx_ahead *a = phx_mem_calloc(1, sizeof(*a));

    phx_assert(pthread_mutex_init(&a->lock, NULL) == 0); /* a plain mutex: cannot fail */
    return a;
}

void phx_ahead_add(struct phx_ahead *a, const struct phx_ckpt_tensor *t, uint64_t offset, uint64_t size_bytes)
{
    struct piece *last;

    if (a->n_pieces == a->capacity) {
        a->capacity = a->capacity > 0 ? 2 * a->capacity : 1024;
        a->pieces = phx_mem_realloc(a->pieces, (size_t)a->capacity, sizeof(*a->pieces));
    }
    last = a->n_pieces > 0 ? &a->pieces[a->n_pieces - 1] : NULL;
    a->pieces[a->n_pieces++] = (struct piece){
        t, offset, size_bytes, last != NULL ? last->before_bytes + last->size_bytes : 0};
}

/* The next stride to read; false when nothing is left.  What was packed meanwhile is left out. */
static bool take(struct phx_ahead *a, struct piece *out)
{
    bool is_found;

    (void)pthread_mutex_lock(&a->lock); /* a plain mutex: cannot fail */
    if (a->piece < atomic_load(&a->n_packed)) {
        a->piece = atomic_load(&a->n_packed);
        a->at = 0;
    }
    is_found = a->piece < a->n_pieces;
    if (is_found) {
        const struct piece *p = &a->pieces[a->piece];
        uint64_t            left = p->size_bytes - a->at;

        *out = (struct piece){p->tensor, p->offset + a->at, left < STRIDE_BYTES ? left : STRIDE_BYTES,
                              p->before_bytes + a->at};
        a->at += out->size_bytes;
        if (a->at == p->size_bytes) {
            a->piece++;
            a->at = 0;
        }
    }
    (void)pthread_mutex_unlock(&a->lock);
    return is_found;
}

static bool is_too_far(const struct phx_ahead *a, const struct piece *p)
{
    int64_t n = atomic_load(&a->n_packed);

    return n < a->n_pieces && p->before_bytes > a->pieces[n].before_bytes + WINDOW_BYTES;
}

static void *read_all(void *ctx)
{
    struct phx_ahead *a = ctx;
    struct piece      p;

    while (!atomic_load(&a->is_over) && take(a, &p)) {
        while (is_too_far(a, &p) && !atomic_load(&a->is_over))
            (void)usleep(WAIT_US); /* woken early is fine */
        if (!atomic_load(&a->is_over))
            phx_checkpoint_read(p.tensor, p.offset, p.size_bytes);
    }
    return NULL;
}

void phx_ahead_start(struct phx_ahead *a)
{
    sigset_t all, before;

    (void)sigfillset(&all); /* signals stay with the thread that expects them */
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    while (a->n_readers < N_READERS &&
           pthread_create(&a->reader[a->n_readers], NULL, read_all, a) == 0)
        a->n_readers++;
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
}

void phx_ahead_done(struct phx_ahead *a)
{
    atomic_fetch_add(&a->n_packed, 1);
}

void phx_ahead_destroy(struct phx_ahead *a)
{
    if (a == NULL)
        return;
    atomic_store(&a->is_over, true);
    for (int i = 0; i < a->n_readers; i++)
        (void)pthread_join(a->reader[i], NULL); /* threads we started ourselves */
    (void)pthread_mutex_destroy(&a->lock);
    phx_mem_free(a->pieces);
    phx_mem_free(a);
}
