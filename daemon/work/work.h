/* SPDX-License-Identifier: Apache-2.0
 * Threads for work that would hold up the loop.  A job runs on one of them and must touch nothing but what it was given;
 * its end is told on the loop.  There is no taking back: who no longer wants a job ignores its end. */
#ifndef PHX_DAEMON_WORK_H
#define PHX_DAEMON_WORK_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

struct event_base;
struct phx_work;

typedef void (*phx_work_fn)(void *ctx);

/* n_threads 1 to 64; queue_max jobs may wait or run.  PHX_E_IO when threads or descriptors are short.
 * Owned: phx_work_close(). */
int  phx_work_open(struct event_base *base, int32_t n_threads, int32_t queue_max, struct phx_work **out,
                   struct phx_err *err) PHX_CHECKED;
/* Lets every accepted job run and tells its end, then ends the threads.  NULL is allowed. */
void phx_work_close(struct phx_work *w);

/* run(ctx) on a thread, then done(ctx) on the loop, never before this returns.  PHX_E_BUSY when queue_max jobs are
 * on their way. */
int phx_work_submit(struct phx_work *w, phx_work_fn run, phx_work_fn done, void *ctx, struct phx_err *err) PHX_CHECKED;
int32_t phx_work_pending(const struct phx_work *w);

#endif
