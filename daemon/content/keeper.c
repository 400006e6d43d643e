/* SPDX-License-Identifier: Apache-2.0
 * Erases what is past its time while the daemon runs. */
#include <event2/event.h>

#include "daemon/content/content.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

enum { FIRST_S = 60, PAUSE_S = 3600, BATCH = 256 };

struct phx_keeper {
    struct phx_store *store;
    struct phx_time  *time;
    struct event     *timer;
    int64_t           now_ns;
    int               n;
};

static void wait_for(struct phx_keeper *k, int seconds)
{
    const struct timeval delay = {seconds, seconds == 0 ? 100000 : 0};

    phx_assert(event_add(k->timer, &delay) == 0);
}

static int expire(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_keeper *k = ctx;

    k->n = phx_content_expire(tx, k->now_ns, BATCH, err);
    return k->n < 0 ? k->n : 0;
}

static void on_expired(void *ctx, const struct phx_err *err)
{
    struct phx_keeper *k = ctx;

    if (err != NULL)
        phx_log(PHX_LOG_ERROR, "content.expire.fail", "reason=%s", err->text);
    else if (k->n > 0)
        phx_log(PHX_LOG_INFO, "content.expire", "n=%d", k->n);
    wait_for(k, err == NULL && k->n > 0 ? 0 : PAUSE_S); /* requests come in between */
}

static void on_timer(evutil_socket_t fd, short what, void *ctx)
{
    struct phx_keeper *k = ctx;

    (void)fd;
    (void)what;
    k->now_ns = phx_time_now(k->time);
    phx_store_submit(k->store, expire, on_expired, k);
}

struct phx_keeper *phx_keeper_open(struct phx_store *store, struct event_base *base, struct phx_time *time)
{
    struct phx_keeper *k = phx_mem_calloc(1, sizeof(*k));

    k->store = store;
    k->time = time;
    k->timer = evtimer_new(base, on_timer, k);
    phx_assert(k->timer != NULL);
    wait_for(k, FIRST_S);
    return k;
}

void phx_keeper_close(struct phx_keeper *k)
{
    if (k == NULL)
        return;
    event_free(k->timer);
    phx_mem_free(k);
}
