/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/queue/queue.h"

#include <event2/event.h>
#include <string.h>

#include "daemon/config/limits.h"
#include "daemon/metrics/metrics.h"
#include "daemon/queue/engine.h"
#include "rpc/base/clock.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "rpc/base/table.h"

enum { SEQS_MAX = 1 << 20, OUTPUT_WEIGHT = 2, WATCH_MS = 250, RETRY_MIN_MS = 500, RETRY_MAX_MS = 30000 };

static void append(struct list *l, struct phx_engine_seq *s)
{
    s->prev = l->last;
    s->next = NULL;
    if (l->last != NULL)
        l->last->next = s;
    else
        l->first = s;
    l->last = s;
    l->n++;
}

static void take_out(struct list *l, struct phx_engine_seq *s)
{
    if (s->prev != NULL)
        s->prev->next = s->next;
    else
        l->first = s->next;
    if (s->next != NULL)
        s->next->prev = s->prev;
    else
        l->last = s->prev;
    l->n--;
}

static void run_later(struct phx_engine *e)
{
    event_active(e->later, EV_TIMEOUT, 0);
}

static int32_t index_of(const struct phx_replica *r)
{
    struct phx_replica_facts facts;

    phx_replica_facts(r, &facts);
    return facts.index;
}

static struct list *list_of(struct phx_engine_seq *s)
{
    struct phx_engine *e = s->e;

    return s->state == SEQ_WAITING ? &e->waiting : s->state == SEQ_SENT ? &e->sent : &e->ending;
}

static void move_to(struct phx_engine_seq *s, enum seq_state state)
{
    struct phx_engine *e = s->e;

    if (s->state != 0)
        take_out(list_of(s), s);
    if (s->state == SEQ_WAITING)
        s->tenant->n_waiting--;
    if (s->state == SEQ_SENT) {
        (void)phx_table_remove_u64(e->by_id, s->id);
        e->slots[index_of(s->replica)].n_sent--;
        e->slots[index_of(s->replica)].n_tokens -= s->n_tokens;
    }
    s->state = state;
    append(list_of(s), s);
    if (state == SEQ_WAITING)
        s->tenant->n_waiting++;
}

static void gauge(const struct phx_engine *e)
{
    if (e->options.metrics == NULL)
        return;
    phx_metrics_gauge(e->options.metrics, "phalanx_sequences", "state=\"queued\"", e->waiting.n);
    phx_metrics_gauge(e->options.metrics, "phalanx_sequences", "state=\"sent\"", e->sent.n);
}

/* Ends later, outside of whoever calls now. */
static void end(struct phx_engine_seq *s, enum phx_finish finish, const struct phx_err *err)
{
    if (s->state == SEQ_ENDING)
        return;
    s->finish = finish;
    s->has_error = err != NULL;
    if (err != NULL)
        s->error = *err;
    move_to(s, SEQ_ENDING);
    run_later(s->e);
}

static void destroy_seq(struct phx_engine_seq *s)
{
    phx_mem_free(s->tokens);
    phx_mem_free((void *)(uintptr_t)s->sampling.bias); /* own copies, const for readers */
    phx_mem_free((void *)(uintptr_t)s->sampling.stop_ids);
    phx_mem_free(s);
}

/* ---- sending ------------------------------------------------------------------------------------ */

/* A little more than a replica runs at once, so that it never waits for the next; the rest stays here, where
 * fairness decides. */
static int32_t capacity_of(const struct phx_replica_facts *facts)
{
    return facts->is_taking ? facts->max_seqs + facts->max_seqs / 4 + 1 : 0;
}

static struct phx_replica *pick_replica(struct phx_engine *e, const struct phx_engine_seq *s)
{
    struct phx_route_candidate candidates[PHX_REPLICAS_MAX];
    int32_t                    n = phx_fleet_count(e->fleet);
    int                        best;

    for (int32_t i = 0; i < n; i++) {
        struct phx_replica_facts facts;

        phx_replica_facts(phx_fleet_replica(e->fleet, i), &facts);
        candidates[i] = (struct phx_route_candidate){
            .n_running = e->slots[i].n_sent,
            .capacity = capacity_of(&facts),
            .n_tokens = e->slots[i].n_tokens,
            .kv_blocks = facts.kv_blocks,
            .kv_blocks_used = facts.kv_blocks_used,
        };
        if (n > 1) /* with one replica there is nothing to choose */
            candidates[i].n_hit_tokens =
                phx_affinity_match(e->slots[i].affinity, s->tenant->salt, s->tokens, s->n_tokens);
    }
    best = phx_route_pick(candidates, n, s->n_tokens);
    return best >= 0 ? phx_fleet_replica(e->fleet, best) : NULL;
}

static void send_to(struct phx_engine_seq *s, struct phx_replica *r)
{
    struct phx_engine *e = s->e;
    struct phx_submit  submit = {
         .seq_id = s->id,
         .tokens = s->tokens,
         .n_tokens = s->n_tokens,
         .n_prompt = s->n_prompt,
         .max_new = s->n_check > 0 ? 1 : s->max_total - s->n_tokens,
         .n_check = s->n_check,
         .priority = s->n_resumes, /* a replica knows no tenants: priorities are settled here */
         .sampling = s->sampling,
    };
    struct phx_err err = {0};

    memcpy(submit.cache_salt, s->tenant->salt, sizeof(submit.cache_salt));
    if (e->options.metrics != NULL)
        phx_metrics_observe(e->options.metrics, "phalanx_queue_seconds", "",
                            (double)(phx_clock_mono_ns() - s->queued_ns) / 1e9);
    move_to(s, SEQ_SENT);
    s->replica = r;
    e->slots[index_of(r)].n_sent++;
    e->slots[index_of(r)].n_tokens += s->n_tokens;
    phx_affinity_add(e->slots[index_of(r)].affinity, s->tenant->salt, s->tokens, s->n_tokens);
    phx_assert(phx_table_set_u64(e->by_id, s->id, s) == 0);
    phx_tenant_charge(e, s->tenant, s->n_tokens);
    if (phx_replica_submit(r, &submit, 1, &err) != 0) {
        if (err.code == PHX_E_PEER || err.code == PHX_E_BUSY)
            phx_replica_give_up(r, &err); /* on_lost takes the sequence back */
        else
            end(s, PHX_FINISH_ERROR, &err);
    }
}

/* Whose turn it is costs a look at all that wait, which a full fleet need not pay for. */
static bool has_room(const struct phx_engine *e)
{
    for (int32_t i = 0; i < phx_fleet_count(e->fleet); i++) {
        struct phx_replica_facts facts;

        phx_replica_facts(phx_fleet_replica(e->fleet, i), &facts);
        if (e->slots[i].n_sent < capacity_of(&facts))
            return true;
    }
    return false;
}

static void dispatch(struct phx_engine *e)
{
    struct phx_engine_seq *s;
    struct phx_replica    *r;

    while (has_room(e) && (s = phx_queue_next(e)) != NULL && (r = pick_replica(e, s)) != NULL)
        send_to(s, r);
    gauge(e);
}

static void run_ends(struct phx_engine *e)
{
    struct phx_engine_seq *s;

    while ((s = e->ending.first) != NULL) {
        take_out(&e->ending, s);
        s->tenant->n_open--;
        s->callbacks.on_end(s->ctx, s->finish, s->has_error ? &s->error : NULL);
        destroy_seq(s);
    }
}

/* Nobody waits for replicas that will not come back. */
static void end_hopeless(struct phx_engine *e)
{
    struct phx_fleet_facts facts;
    struct phx_err         err = {0};

    phx_fleet_facts(e->fleet, &facts);
    if (!facts.is_hopeless)
        return;
    (void)phx_fail(&err, PHX_E_PEER, "no replica runs any more: %.150s", facts.last_error); /* told */
    while (e->waiting.first != NULL)
        end(e->waiting.first, PHX_FINISH_ERROR, &err);
    run_ends(e);
}

/* Looks again while something waits: a replica that fails to start tells no listener. */
static void watch(struct phx_engine *e)
{
    const struct timeval again = {0, WATCH_MS * 1000};

    end_hopeless(e);
    if (e->waiting.n > 0 && !event_pending(e->watch, EV_TIMEOUT, NULL))
        phx_assert(event_add(e->watch, &again) == 0);
}

static void on_watch(evutil_socket_t fd, short what, void *ctx)
{
    (void)fd;
    (void)what;
    watch(ctx);
}

static void on_later(evutil_socket_t fd, short what, void *ctx)
{
    struct phx_engine *e = ctx;

    (void)fd;
    (void)what;
    run_ends(e);
    dispatch(e);
    watch(e);
}

/* ---- what the fleet tells ------------------------------------------------------------------------ */

static void on_ready(void *ctx, struct phx_replica *r)
{
    struct phx_engine       *e = ctx;
    struct phx_replica_facts facts;

    phx_replica_facts(r, &facts);
    e->vocab_size = facts.vocab_size;
    e->max_context = facts.max_context;
    e->max_seqs = facts.max_seqs;
    phx_affinity_clear(e->slots[facts.index].affinity); /* its cache is empty */
    run_later(e);
}

/* Its sequences go on elsewhere, from their tokens so far, before anything newer. */
static void on_lost(void *ctx, struct phx_replica *r, const struct phx_err *reason)
{
    struct phx_engine *e = ctx;

    for (struct phx_engine_seq *s = e->sent.first, *next; s != NULL; s = next) {
        next = s->next;
        if (s->replica != r)
            continue;
        if (s->is_cancelled)
            end(s, PHX_FINISH_CANCELLED, NULL);
        else if (++s->n_resumes > e->options.max_resumes)
            end(s, PHX_FINISH_ERROR, reason);
        else {
            move_to(s, SEQ_WAITING);
            s->queued_ns = phx_clock_mono_ns();
            s->replica = NULL;
        }
    }
    run_later(e);
}

static void keep_token(struct phx_engine_seq *s, const struct phx_token_out *t)
{
    if (s->n_check > 0) {
        s->n_checked++;
        return;
    }
    s->tokens[s->n_tokens++] = t->token;
    s->e->slots[index_of(s->replica)].n_tokens++;
    s->tenant->served += OUTPUT_WEIGHT;
}

/* One token of a sequence; false when the replica broke the protocol. */
static bool take_token(struct phx_engine_seq *s, const struct phx_token_out *t)
{
    int32_t expected = s->n_check > 0 ? s->n_checked : s->n_tokens - s->n_prompt;
    int32_t most = s->n_check > 0 ? s->n_check : s->max_total - s->n_prompt;

    if (t->token >= 0) {
        if (t->index < expected)
            return true; /* known from before a resume; a check begins again then */
        if (t->index > expected || expected >= most)
            return false;
        keep_token(s, t);
        if (!s->is_cancelled)
            s->callbacks.on_token(s->ctx, t);
    }
    if (t->finish == PHX_FINISH_NONE)
        return true;
    if (t->finish == PHX_FINISH_ERROR) {
        struct phx_err err = {.code = t->error_code != 0 ? t->error_code : PHX_E_INTERNAL};

        phx_err_prefix(&err, "%s", t->error_text != NULL ? t->error_text : "the engine failed");
        end(s, PHX_FINISH_ERROR, &err);
    } else
        end(s, t->finish, NULL);
    return true;
}

static void on_step(void *ctx, struct phx_replica *r, const struct phx_link_step *step)
{
    struct phx_engine *e = ctx;
    double             seconds = (double)step->stats.step_us / 1e6;

    e->step_seconds = e->step_seconds > 0 ? 0.9 * e->step_seconds + 0.1 * seconds : seconds;
    for (int32_t i = 0; i < step->n_tokens; i++) {
        struct phx_engine_seq *s = phx_table_get_u64(e->by_id, step->tokens[i].seq_id);

        if (s == NULL || s->replica != r)
            continue; /* ended meanwhile, or of an earlier life */
        if (!take_token(s, &step->tokens[i])) {
            struct phx_err err = {0};

            (void)phx_fail(&err, PHX_E_PEER, "sent tokens out of order"); /* told to the fleet */
            phx_replica_give_up(r, &err);
            return;
        }
    }
}

/* ---- the door -------------------------------------------------------------------------------------- */

int phx_engine_open(struct phx_fleet *fleet, const struct phx_engine_options *options,
                    struct phx_engine **out, struct phx_err *err)
{
    struct phx_engine *e = phx_mem_calloc(1, sizeof(*e));

    (void)err; /* memory alone is needed */
    e->fleet = fleet;
    e->options = *options;
    e->by_id = phx_table_create(SEQS_MAX);
    phx_assert(phx_fleet_count(fleet) <= PHX_REPLICAS_MAX); /* the config's bound */
    e->slots = phx_mem_calloc((size_t)phx_fleet_count(fleet), sizeof(*e->slots));
    for (int32_t i = 0; i < phx_fleet_count(fleet); i++)
        e->slots[i].affinity = phx_affinity_create();
    e->later = event_new(phx_fleet_base(fleet), -1, 0, on_later, e);
    e->watch = event_new(phx_fleet_base(fleet), -1, 0, on_watch, e);
    phx_assert(e->later != NULL && e->watch != NULL);
    phx_fleet_listen(fleet, &(struct phx_fleet_listener){e, on_ready, on_lost, on_step});
    *out = e;
    return 0;
}

static void end_all(struct list *l, const struct phx_err *err)
{
    while (l->first != NULL)
        end(l->first, PHX_FINISH_ERROR, err);
}

void phx_engine_close(struct phx_engine *e)
{
    struct phx_err err = {0};

    if (e == NULL)
        return;
    (void)phx_fail(&err, PHX_E_CANCELLED, "the server is shutting down"); /* told to each */
    phx_fleet_listen(e->fleet, &(struct phx_fleet_listener){0});
    end_all(&e->waiting, &err);
    end_all(&e->sent, &err);
    run_ends(e);
    for (struct tenant *t = e->tenants, *next; t != NULL; t = next) {
        next = t->next;
        phx_mem_free(t->name);
        phx_mem_free(t);
    }
    event_free(e->later);
    event_free(e->watch);
    phx_table_destroy(e->by_id);
    for (int32_t i = 0; i < phx_fleet_count(e->fleet); i++)
        phx_affinity_destroy(e->slots[i].affinity);
    phx_mem_free(e->slots);
    phx_mem_free(e);
}

static int check_length(const struct phx_engine *e, const struct phx_engine_request *r, struct phx_err *err)
{
    int32_t n_new = r->n_check > 0 ? 0 : r->max_new;

    /* the answer of a check may fill the context: nothing comes behind it */
    if (r->n_tokens < 1 || (r->n_check == 0 && r->max_new < 1) ||
        (e->max_context > 0 && r->n_tokens - (r->n_check > 0) >= e->max_context))
        return phx_fail(err, PHX_E_INVALID, "a prompt of %d tokens does not fit the context of %d",
                        r->n_tokens, e->max_context);
    if (r->n_check < 0 || r->n_check >= r->n_tokens)
        return phx_fail(err, PHX_E_INVALID, "%d of %d tokens to be checked: one at least must be prompt",
                        r->n_check, r->n_tokens);
    if (n_new > PHX_RPC_TOKENS_MAX - r->n_tokens)
        return phx_fail(err, PHX_E_INVALID, "%d prompt tokens and %d new ones are more than %d",
                        r->n_tokens, n_new, PHX_RPC_TOKENS_MAX);
    return 0;
}

static int check_request(const struct phx_engine *e, const struct phx_engine_request *r,
                         const struct tenant *t, struct phx_err *err)
{
    int rc = check_length(e, r, err);

    if (rc != 0)
        return rc;
    for (int32_t i = 0; i < r->n_tokens; i++)
        if (r->tokens[i] < 0 || (e->vocab_size > 0 && r->tokens[i] >= e->vocab_size))
            return phx_fail(err, PHX_E_INVALID, "prompt token %d is %d; the vocabulary has %d", i,
                            r->tokens[i], e->vocab_size);
    if (e->waiting.n >= e->options.max_waiting)
        return phx_fail(err, PHX_E_BUSY, "the queue of %d sequences is full", e->options.max_waiting);
    if (t->n_waiting >= e->options.max_waiting_per_tenant)
        return phx_fail(err, PHX_E_BUSY, "the tenant's queue of %d sequences is full",
                        e->options.max_waiting_per_tenant);
    return phx_sampling_check(r->sampling, err);
}

int phx_engine_submit(struct phx_engine *e, const struct phx_engine_request *r,
                      const struct phx_engine_callbacks *callbacks, void *ctx,
                      struct phx_engine_seq **out, struct phx_err *err)
{
    struct tenant         *t = phx_tenant_find(e, r->tenant);
    struct phx_engine_seq *s;
    int                    rc = check_request(e, r, t, err);

    *out = NULL;
    if (rc != 0)
        return rc;
    s = phx_mem_calloc(1, sizeof(*s));
    s->e = e;
    s->tenant = t;
    s->callbacks = *callbacks;
    s->ctx = ctx;
    s->id = ++e->next_id;
    s->order = ++e->order;
    s->n_tokens = r->n_tokens;
    s->n_check = r->n_check;
    s->n_prompt = r->n_tokens - r->n_check;
    s->max_total = r->n_tokens + (r->n_check > 0 ? 0 : r->max_new);
    s->priority = r->priority;
    s->tokens = phx_mem_calloc((size_t)s->max_total, sizeof(*s->tokens));
    memcpy(s->tokens, r->tokens, (size_t)r->n_tokens * sizeof(*s->tokens));
    s->sampling = *r->sampling;
    s->sampling.bias =
        phx_mem_dup(r->sampling->bias, (size_t)r->sampling->n_bias * sizeof(struct phx_bias));
    s->sampling.stop_ids =
        phx_mem_dup(r->sampling->stop_ids, (size_t)r->sampling->n_stop_ids * sizeof(int32_t));
    s->queued_ns = phx_clock_mono_ns();
    phx_tenant_lift(e, t);
    t->n_open++;
    move_to(s, SEQ_WAITING);
    *out = s;
    run_later(e);
    return 0;
}

void phx_engine_cancel(struct phx_engine_seq *s)
{
    if (s->is_cancelled || s->state == SEQ_ENDING)
        return;
    s->is_cancelled = true;
    if (s->state == SEQ_WAITING)
        end(s, PHX_FINISH_CANCELLED, NULL);
    else
        phx_replica_cancel(s->replica, s->id);
}

void phx_engine_facts(const struct phx_engine *e, struct phx_engine_facts *facts)
{
    struct phx_fleet_facts fleet;
    double                 wait_ms = 0;

    phx_fleet_facts(e->fleet, &fleet);
    if (e->max_seqs > 0) /* waiting rounds of about a hundred steps each */
        wait_ms = e->step_seconds * 1e5 * (double)(e->waiting.n + 1) / (double)e->max_seqs;
    wait_ms = wait_ms < RETRY_MIN_MS ? RETRY_MIN_MS : wait_ms > RETRY_MAX_MS ? RETRY_MAX_MS : wait_ms;
    *facts = (struct phx_engine_facts){
        .is_ready = fleet.n_ready > 0,
        .vocab_size = e->vocab_size,
        .max_context = e->max_context,
        .n_waiting = e->waiting.n,
        .n_running = e->sent.n,
        .retry_after_ms = (int64_t)wait_ms,
    };
}
