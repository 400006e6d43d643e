/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/queue.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdint.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"

struct phx_queue {
    pthread_mutex_t lock;
    void          **ring; /* grows by doubling up to max */
    size_t          capacity;
    size_t          head;
    size_t          count;
    size_t          max;
    bool            is_closed;
    int             fd;
};

static void signal_fd(struct phx_queue *q)
{
    uint64_t one = 1;
    ssize_t  n = write(q->fd, &one, sizeof(one));

    phx_assert(n == (ssize_t)sizeof(one)); /* the counter never comes near its limit */
}

static void clear_fd(struct phx_queue *q)
{
    uint64_t value;
    ssize_t  n = read(q->fd, &value, sizeof(value));

    phx_assert(n == (ssize_t)sizeof(value)); /* it was signalled while not empty */
}

int phx_queue_create(struct phx_queue **q, size_t max_items, struct phx_err *err)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);

    *q = NULL;
    phx_assert(max_items > 0);
    if (fd < 0)
        return phx_fail(err, PHX_E_IO, "eventfd: %s", strerror(errno));
    *q = phx_mem_calloc(1, sizeof(**q));
    phx_assert(pthread_mutex_init(&(*q)->lock, NULL) == 0);
    (*q)->max = max_items;
    (*q)->fd = fd;
    return 0;
}

void phx_queue_destroy(struct phx_queue *q, void (*item_free)(void *item))
{
    if (q == NULL)
        return;
    for (size_t i = 0; i < q->count && item_free != NULL; i++)
        item_free(q->ring[(q->head + i) % q->capacity]);
    (void)pthread_mutex_destroy(&q->lock); /* nobody holds it any more */
    (void)close(q->fd);
    phx_mem_free(q->ring);
    phx_mem_free(q);
}

static void grow(struct phx_queue *q)
{
    size_t capacity = q->capacity > 0 ? q->capacity * 2 : 16;
    void **ring;

    if (capacity > q->max)
        capacity = q->max;
    ring = phx_mem_calloc(capacity, sizeof(*ring));
    for (size_t i = 0; i < q->count; i++)
        ring[i] = q->ring[(q->head + i) % q->capacity];
    phx_mem_free(q->ring);
    q->ring = ring;
    q->capacity = capacity;
    q->head = 0;
}

int phx_queue_push(struct phx_queue *q, void *item)
{
    int rc = 0;

    phx_assert(item != NULL);
    (void)pthread_mutex_lock(&q->lock);
    if (q->is_closed) {
        rc = PHX_E_STATE;
    } else if (q->count == q->max) {
        rc = PHX_E_BUSY;
    } else {
        if (q->count == q->capacity)
            grow(q);
        q->ring[(q->head + q->count) % q->capacity] = item;
        if (q->count++ == 0)
            signal_fd(q);
    }
    (void)pthread_mutex_unlock(&q->lock);
    return rc;
}

void *phx_queue_try_pop(struct phx_queue *q)
{
    void *item = NULL;

    (void)pthread_mutex_lock(&q->lock);
    if (q->count > 0) {
        item = q->ring[q->head];
        q->head = (q->head + 1) % q->capacity;
        if (--q->count == 0 && !q->is_closed)
            clear_fd(q);
    }
    (void)pthread_mutex_unlock(&q->lock);
    return item;
}

void *phx_queue_pop(struct phx_queue *q, int timeout_ms)
{
    int64_t deadline_ns = phx_clock_mono_ns() + (int64_t)timeout_ms * 1000000;

    for (;;) {
        struct pollfd p = {.fd = q->fd, .events = POLLIN};
        void         *item = phx_queue_try_pop(q);
        int           wait_ms = timeout_ms;

        if (item != NULL || phx_queue_is_closed(q))
            return item != NULL ? item : phx_queue_try_pop(q);
        if (timeout_ms >= 0) {
            int64_t left_ns = deadline_ns - phx_clock_mono_ns();

            if (left_ns <= 0)
                return NULL;
            wait_ms = (int)((left_ns + 999999) / 1000000);
        }
        (void)poll(&p, 1, wait_ms); /* an interruption only means another round */
    }
}

void phx_queue_close(struct phx_queue *q)
{
    (void)pthread_mutex_lock(&q->lock);
    if (!q->is_closed) {
        q->is_closed = true;
        if (q->count == 0)
            signal_fd(q);
    }
    (void)pthread_mutex_unlock(&q->lock);
}

bool phx_queue_is_closed(struct phx_queue *q)
{
    bool is_closed;

    (void)pthread_mutex_lock(&q->lock);
    is_closed = q->is_closed;
    (void)pthread_mutex_unlock(&q->lock);
    return is_closed;
}

size_t phx_queue_count(struct phx_queue *q)
{
    size_t count;

    (void)pthread_mutex_lock(&q->lock);
    count = q->count;
    (void)pthread_mutex_unlock(&q->lock);
    return count;
}

int phx_queue_fd(const struct phx_queue *q)
{
    return q->fd;
}
