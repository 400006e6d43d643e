/* SPDX-License-Identifier: Apache-2.0
 * A byte ring from one writer to one reader over memory that both see (threads or processes).
 * Private to shard/comm.
 *
 * Waits spin for a moment, then sleep on a futex; every WATCH_MS they look whether the other side still
 * lives.  Sizes that pass through a ring are multiples of 4, so that floats stay aligned. */
#ifndef PHX_SHARD_COMM_RING_H
#define PHX_SHARD_COMM_RING_H

#include <stdatomic.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

enum { PHX_RING_LINE = 64 };

/* What each rank shows the others of its host; padded to a cache line of its own. */
struct phx_member {
    _Atomic uint64_t progress; /* finished calls */
    _Atomic int32_t  pid;
    _Atomic int32_t  is_gone; /* closed, on purpose or not */
    uint8_t          padding[PHX_RING_LINE - 16];
};

/* The shared part, a line per side; `capacity` bytes follow it. */
struct phx_ring_head {
    _Atomic uint64_t tail;             /* bytes ever written */
    _Atomic uint32_t data_seq;         /* futex word of the reader */
    _Atomic uint32_t is_reader_asleep;
    uint8_t          writer_padding[PHX_RING_LINE - 16];
    _Atomic uint64_t head;             /* bytes ever read */
    _Atomic uint32_t space_seq;        /* futex word of the writer */
    _Atomic uint32_t is_writer_asleep;
    uint8_t          reader_padding[PHX_RING_LINE - 16];
};

/* One side's view.  Owned by one thread. */
struct phx_ring {
    struct phx_ring_head    *shared; /* NULL = this ring does not exist */
    uint8_t                 *bytes;
    size_t                   capacity; /* a multiple of PHX_RING_LINE */
    const struct phx_member *peer;     /* the other side; NULL = nobody to watch */
    bool                     is_pid_watched; /* its pid can be looked up here */
    int64_t                  spin_ns;
    _Atomic uint32_t        *bell; /* rung on every write for a reader with many rings; or NULL */
};

size_t phx_ring_bytes(size_t capacity); /* memory of a ring, head included */
void   phx_ring_attach(struct phx_ring *r, void *memory, size_t capacity);

/* Parts without waiting: how many bytes were moved (0 when full or empty). */
size_t phx_ring_put_some(struct phx_ring *r, const void *data, size_t size_bytes);
size_t phx_ring_take_some(struct phx_ring *r, void *data, size_t size_bytes);
/* The readable bytes that lie in one piece (at most limit); phx_ring_release() hands them back. */
const uint8_t *phx_ring_peek(const struct phx_ring *r, size_t limit, size_t *size_bytes);
void           phx_ring_release(struct phx_ring *r, size_t size_bytes);
size_t         phx_ring_readable(const struct phx_ring *r);

/* Wait until a byte can be read / written.  deadline_ns: monotonic, INT64_MAX = none.
 * 0, PHX_E_TIMEOUT, or PHX_E_PEER when the other side is gone. */
int phx_ring_wait_data(struct phx_ring *r, int64_t deadline_ns) PHX_CHECKED;
int phx_ring_wait_space(struct phx_ring *r) PHX_CHECKED;

/* The other side has closed or its process has ended, as far as can be seen from here. */
bool phx_ring_is_peer_gone(const struct phx_ring *r);

/* All bytes, waiting as needed.  0 or PHX_E_PEER. */
int phx_ring_put(struct phx_ring *r, const void *data, size_t size_bytes) PHX_CHECKED;
int phx_ring_take(struct phx_ring *r, void *data, size_t size_bytes) PHX_CHECKED;

/* Sleep while *word == seen, at most timeout_ns; woken by phx_futex_wake. */
void phx_futex_wait(_Atomic uint32_t *word, uint32_t seen, int64_t timeout_ns);
void phx_futex_wake(_Atomic uint32_t *word);

#endif
