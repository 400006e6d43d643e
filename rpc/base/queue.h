/* SPDX-License-Identifier: Apache-2.0
 * A bounded queue of pointers between threads, with an eventfd that is readable exactly while there is
 * something to take (or the queue is closed).  Any number of pushers and takers. */
#ifndef PHX_RPC_BASE_QUEUE_H
#define PHX_RPC_BASE_QUEUE_H

#include <stdbool.h>
#include <stddef.h>

#include "rpc/base/err.h"

struct phx_queue;

/* max_items >= 1.  PHX_E_IO when no eventfd can be made. */
int phx_queue_create(struct phx_queue **q, size_t max_items, struct phx_err *err) PHX_CHECKED;
/* item_free (may be NULL) is called for what is still inside.  NULL q is allowed. */
void phx_queue_destroy(struct phx_queue *q, void (*item_free)(void *item));
/* Takes the item (not NULL) on success only.  PHX_E_BUSY when full, PHX_E_STATE when closed. */
int phx_queue_push(struct phx_queue *q, void *item) PHX_CHECKED;
/* The oldest item, or NULL when there is none now. */
void *phx_queue_try_pop(struct phx_queue *q);
/* As try_pop, but waits up to timeout_ms (-1 = for ever).  NULL after the time or when the queue is
 * closed and empty. */
void *phx_queue_pop(struct phx_queue *q, int timeout_ms);
/* No more pushes; what is inside can still be taken; the fd stays readable. */
void   phx_queue_close(struct phx_queue *q);
bool   phx_queue_is_closed(struct phx_queue *q);
size_t phx_queue_count(struct phx_queue *q);
int    phx_queue_fd(const struct phx_queue *q); /* for poll only: never read it */

#endif
