/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/comm/ring.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "rpc/base/clock.h"

enum {
    WATCH_NS = 250000000, /* between two looks at the peer while asleep */
    PUBLISH_BYTES = 32768, /* a large copy shows its first part while the rest is still moving */
    YIELD_NS = 50000       /* of spinning, until whoever else wants this core gets it */
};

void phx_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t timeout_ns)
{
    struct timespec ts = {timeout_ns / 1000000000, timeout_ns % 1000000000};

    /* not FUTEX_PRIVATE: the word may lie in a window shared by processes.  All outcomes (woken,
     * changed, timed out, interrupted) mean the same: look again. */
    (void)syscall(SYS_futex, word, FUTEX_WAIT, seen, &ts, NULL, 0);
}

void phx_futex_wake(_Atomic uint32_t *word)
{
    (void)syscall(SYS_futex, word, FUTEX_WAKE, 1, NULL, NULL, 0); /* no waiter is fine */
}

size_t phx_ring_bytes(size_t capacity)
{
    return sizeof(struct phx_ring_head) + capacity;
}

void phx_ring_attach(struct phx_ring *r, void *memory, size_t capacity)
{
    phx_assert(capacity > 0 && capacity % PHX_RING_LINE == 0);
    *r = (struct phx_ring){.shared = memory,
                           .bytes = (uint8_t *)memory + sizeof(struct phx_ring_head),
                           .capacity = capacity};
}

static void wake_reader(struct phx_ring *r)
{
    atomic_fetch_add(&r->shared->data_seq, 1);
    if (atomic_exchange(&r->shared->is_reader_asleep, 0) != 0)
        phx_futex_wake(&r->shared->data_seq);
    if (r->bell != NULL) {
        atomic_fetch_add(r->bell, 1);
        phx_futex_wake(r->bell);
    }
}

static void wake_writer(struct phx_ring *r)
{
    atomic_fetch_add(&r->shared->space_seq, 1);
    if (atomic_exchange(&r->shared->is_writer_asleep, 0) != 0)
        phx_futex_wake(&r->shared->space_seq);
}

size_t phx_ring_readable(const struct phx_ring *r)
{
    return (size_t)(atomic_load(&r->shared->tail) -
                    atomic_load_explicit(&r->shared->head, memory_order_relaxed));
}

static size_t writable(const struct phx_ring *r)
{
    return r->capacity - (size_t)(atomic_load_explicit(&r->shared->tail, memory_order_relaxed) -
                                  atomic_load(&r->shared->head));
}

size_t phx_ring_put_some(struct phx_ring *r, const void *data, size_t size_bytes)
{
    uint64_t tail = atomic_load_explicit(&r->shared->tail, memory_order_relaxed);
    size_t   n = writable(r), at = (size_t)(tail % r->capacity);

    if (n > size_bytes)
        n = size_bytes;
    if (n > PUBLISH_BYTES)
        n = PUBLISH_BYTES;
    if (n > r->capacity - at)
        n = r->capacity - at;
    if (n == 0)
        return 0;
    memcpy(r->bytes + at, data, n);
    atomic_store(&r->shared->tail, tail + n);
    wake_reader(r);
    return n;
}

const uint8_t *phx_ring_peek(const struct phx_ring *r, size_t limit, size_t *size_bytes)
{
    uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_relaxed);
    size_t   n = phx_ring_readable(r), at = (size_t)(head % r->capacity);

    if (n > limit)
        n = limit;
    *size_bytes = n > r->capacity - at ? r->capacity - at : n;
    return r->bytes + at;
}

void phx_ring_release(struct phx_ring *r, size_t size_bytes)
{
    uint64_t head = atomic_load_explicit(&r->shared->head, memory_order_relaxed);

    atomic_store(&r->shared->head, head + size_bytes);
    wake_writer(r);
}

size_t phx_ring_take_some(struct phx_ring *r, void *data, size_t size_bytes)
{
    size_t         n;
    const uint8_t *from =
        phx_ring_peek(r, size_bytes < PUBLISH_BYTES ? size_bytes : PUBLISH_BYTES, &n);

    if (n == 0)
        return 0;
    memcpy(data, from, n);
    phx_ring_release(r, n);
    return n;
}

/* A process that has ended: not there any more, or a zombie nobody has collected yet. */
static bool is_process_gone(int32_t pid)
{
    char    path[32], text[256];
    char   *state;
    ssize_t n;
    int     fd;

    if (kill(pid, 0) != 0)
        return errno == ESRCH;
    (void)snprintf(path, sizeof(path), "/proc/%d/stat", pid);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return errno == ENOENT;
    n = read(fd, text, sizeof(text) - 1);
    (void)close(fd); /* nothing was written */
    text[n > 0 ? n : 0] = '\0';
    state = strrchr(text, ')'); /* "pid (name) S ..." */
    return state != NULL && (state[2] == 'Z' || state[2] == 'X');
}

static bool is_peer_gone(const struct phx_ring *r)
{
    if (r->peer == NULL)
        return false;
    if (atomic_load(&r->peer->is_gone) != 0)
        return true;
    return r->is_pid_watched && is_process_gone(atomic_load(&r->peer->pid));
}

static void relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#else
    (void)sched_yield();
#endif
}

/* Spins while *count(r) is 0 and time is left; with no time to spin it only yields, for machines with
 * more ranks than cores. */
static bool spin(const struct phx_ring *r, size_t (*count)(const struct phx_ring *))
{
    int64_t now, end;

    if (r->spin_ns == 0) {
        for (int i = 0; i < 2; i++) {
            (void)sched_yield();
            if (count(r) > 0)
                return true;
        }
        return false;
    }
    now = phx_clock_mono_ns();
    end = now + r->spin_ns;
    for (int64_t yield = now + YIELD_NS; now < end; now = phx_clock_mono_ns()) {
        for (int i = 0; i < 64; i++) {
            if (count(r) > 0)
                return true;
            relax();
        }
        if (now >= yield) {
            (void)sched_yield();
            yield = now + YIELD_NS;
        }
    }
    return false;
}

static int wait_for(struct phx_ring *r, size_t (*count)(const struct phx_ring *),
                    _Atomic uint32_t *seq, _Atomic uint32_t *is_asleep, int64_t deadline_ns)
{
    if (count(r) > 0 || spin(r, count))
        return 0;
    for (bool is_gone = false;;) {
        uint32_t seen = atomic_load(seq);
        int64_t  left_ns = WATCH_NS;

        /* announce, then look again: the other side stores first and looks at the flag second */
        atomic_store(is_asleep, 1);
        if (count(r) > 0)
            return 0;
        if (is_gone)
            return PHX_E_PEER;
        if (deadline_ns != INT64_MAX) {
            left_ns = deadline_ns - phx_clock_mono_ns();
            if (left_ns <= 0)
                return PHX_E_TIMEOUT;
        }
        phx_futex_wait(seq, seen, left_ns < WATCH_NS ? left_ns : WATCH_NS);
        if (count(r) > 0)
            return 0;
        is_gone = is_peer_gone(r); /* what it wrote before it went still counts: one more look */
    }
}

int phx_ring_wait_data(struct phx_ring *r, int64_t deadline_ns)
{
    return wait_for(r, phx_ring_readable, &r->shared->data_seq, &r->shared->is_reader_asleep,
                    deadline_ns);
}

int phx_ring_wait_space(struct phx_ring *r)
{
    return wait_for(r, writable, &r->shared->space_seq, &r->shared->is_writer_asleep, INT64_MAX);
}

int phx_ring_put(struct phx_ring *r, const void *data, size_t size_bytes)
{
    const uint8_t *from = data;

    while (size_bytes > 0) {
        size_t n = phx_ring_put_some(r, from, size_bytes);

        if (n == 0) {
            int rc = phx_ring_wait_space(r);

            if (rc != 0)
                return rc;
        }
        from += n;
        size_bytes -= n;
    }
    return 0;
}

int phx_ring_take(struct phx_ring *r, void *data, size_t size_bytes)
{
    uint8_t *to = data;

    while (size_bytes > 0) {
        size_t n = phx_ring_take_some(r, to, size_bytes);

        if (n == 0) {
            int rc = phx_ring_wait_data(r, INT64_MAX);

            if (rc != 0)
                return rc;
        }
        to += n;
        size_bytes -= n;
    }
    return 0;
}
