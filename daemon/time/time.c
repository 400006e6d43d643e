/* SPDX-License-Identifier: Apache-2.0
 * The daemon's clock: a mark in memory, a copy in the store that follows it. */
#include "daemon/time/time.h"

#include <stdio.h>

#include "daemon/audit/audit.h"
#include "daemon/store/store.h"
#include "rpc/base/clock.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

static const int64_t SAVE_NS = INT64_C(60000000000);
static const int64_t LOOK_NS = INT64_C(1000000000);

/* One visit to the store.  It may outlive the clock, whose pointer is then cleared. */
struct visit {
    struct phx_time     *t;
    struct phx_time_mark mark;
    bool                 has_mark, has_event; /* to write down */
    char                 event[32], detail[96];
    int64_t              known_ns, accept_ns; /* the last acceptance: that was known, that was found */
};

struct phx_time {
    struct phx_store    *store;
    struct phx_time_mark mark;
    enum phx_clock_state state;
    int64_t              now_ns, saved_ns, looked_ns; /* the last two on the monotonic clock */
    int64_t              accept_ns;
    bool                 is_state_told;
    struct visit        *visit; /* under way */
};

static int run_visit(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct visit        *v = ctx;
    struct phx_time_mark stored;
    int                  rc = 0;

    if (v->has_mark)
        rc = phx_time_store(tx, &v->mark, err);
    if (rc == 0 && v->has_event)
        rc = phx_audit_event(tx, "clock", v->event, "clock", "phalanxd", v->detail, v->mark.hwm_ns, err);
    if (rc == 0)
        rc = phx_time_load(tx, &stored, &v->accept_ns, err);
    return rc == 0 && v->accept_ns != v->known_ns ? phx_time_take(tx, v->accept_ns, err) : rc;
}

static void take_accepted(struct phx_time *t, int64_t accept_ns)
{
    struct phx_time_reading now;

    if (accept_ns == t->accept_ns)
        return;
    t->accept_ns = accept_ns;
    phx_time_read(&now);
    now.wall_ns = accept_ns; /* what was accepted, not what the wall says by now */
    phx_time_accept(&t->mark, &now);
}

static void on_visited(void *ctx, const struct phx_err *err)
{
    struct visit    *v = ctx;
    struct phx_time *t = v->t;

    if (t != NULL)
        t->visit = NULL;
    if (err != NULL)
        phx_log(PHX_LOG_ERROR, "clock.save.fail", "reason=%s", err->text);
    if (t != NULL && err == NULL)
        take_accepted(t, v->accept_ns);
    if (t != NULL && err != NULL) { /* again at the next look */
        t->saved_ns = v->has_mark ? 0 : t->saved_ns;
        t->is_state_told = t->is_state_told && !v->has_event;
    }
    phx_mem_free(v);
}

/* At most one visit a second, and one at a time. */
static void visit_store(struct phx_time *t)
{
    int64_t       mono = phx_clock_mono_ns();
    struct visit *v;

    if (t->visit != NULL || mono - t->looked_ns < LOOK_NS)
        return;
    t->looked_ns = mono;
    v = t->visit = phx_mem_calloc(1, sizeof(*v));
    v->t = t;
    v->mark = t->mark;
    v->known_ns = t->accept_ns;
    v->has_event = !t->is_state_told;
    v->has_mark = v->has_event || t->saved_ns == 0 || mono - t->saved_ns >= SAVE_NS;
    if (v->has_event) {
        char wall[32];

        phx_clock_format_utc(phx_clock_wall_ns(), wall);
        (void)snprintf(v->event, sizeof(v->event), "clock.%s", phx_clock_state_name(t->state));
        (void)snprintf(v->detail, sizeof(v->detail), "wall clock %s", wall);
        t->is_state_told = true;
    }
    if (v->has_mark)
        t->saved_ns = mono;
    phx_store_submit(t->store, run_visit, on_visited, v);
}

static void note_state(struct phx_time *t, enum phx_clock_state state, int64_t wall_ns)
{
    char wall[32], held[32];

    if (state == t->state)
        return;
    phx_clock_format_utc(wall_ns, wall);
    phx_clock_format_utc(t->now_ns, held);
    phx_log(state == PHX_CLOCK_OK ? PHX_LOG_INFO : PHX_LOG_WARN, "clock.state",
            "state=%s before=%s wall=%s time=%s", phx_clock_state_name(state),
            phx_clock_state_name(t->state), wall, held);
    t->state = state;
    t->is_state_told = false;
}

int64_t phx_time_now(struct phx_time *t)
{
    struct phx_time_reading now;
    enum phx_clock_state    state;

    phx_time_read(&now);
    t->now_ns = phx_time_step(&t->mark, &now, &state);
    note_state(t, state, now.wall_ns);
    visit_store(t);
    return t->now_ns;
}

enum phx_clock_state phx_time_state(const struct phx_time *t)
{
    return t->state;
}

static int open_mark(struct phx_tx *tx, void *ctx, struct phx_err *err)
{
    struct phx_time        *t = ctx;
    struct phx_time_reading now;
    enum phx_clock_state    state;
    int                     rc = phx_time_load(tx, &t->mark, &t->accept_ns, err);

    if (rc != 0)
        return rc;
    phx_time_read(&now);
    t->now_ns = phx_time_step(&t->mark, &now, &state);
    if (t->accept_ns != 0)
        rc = phx_time_take(tx, t->accept_ns, err);
    return rc == 0 ? phx_time_store(tx, &t->mark, err) : rc;
}

int phx_time_open(struct phx_store *store, struct phx_time **out, struct phx_err *err)
{
    struct phx_time *t = phx_mem_calloc(1, sizeof(*t));
    int              rc;

    *out = NULL;
    t->store = store;
    t->state = PHX_CLOCK_OK;
    t->is_state_told = true;
    rc = phx_store_run(store, open_mark, t, err);
    if (rc != 0) {
        phx_mem_free(t);
        return rc;
    }
    t->saved_ns = phx_clock_mono_ns();
    (void)phx_time_now(t); /* a clock that is not right is said at once */
    *out = t;
    return 0;
}

void phx_time_close(struct phx_time *t)
{
    if (t == NULL)
        return;
    if (t->visit != NULL)
        t->visit->t = NULL;
    phx_mem_free(t);
}
