/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/sim/world.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { VOCAB = 40, RETRIES = 3, EVENTS = 64 };

static const uint64_t GARBAGE = 0xdeadbeef;

static uint64_t mix(uint64_t h, uint64_t v)
{
    h = (h ^ v) * 0x9E3779B97F4A7C15u;
    return h ^ (h >> 29);
}

uint32_t world_random(struct world *w, uint32_t below)
{
    w->random = w->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)((w->random >> 33) % below);
}

/* The hash of tenant and tokens 0 .. n-1. */
static uint64_t hash_of(int32_t tenant, const int32_t *tokens, int32_t n)
{
    uint64_t h = mix(77, (uint64_t)tenant);

    for (int32_t i = 0; i < n; i++)
        h = mix(h, (uint64_t)tokens[i]);
    return h;
}

/* What the model answers behind n tokens, whose hash is `hash`: a function of everything before, but in some worlds
 * one that falls into cycles and leaves them again. */
static int32_t answer_of(const struct world *w, uint64_t hash, const int32_t *tokens, int32_t n)
{
    if (w->is_repetitive && n > 1 && hash / VOCAB % 9 != 0)
        return (tokens[n - 1] * 3 + tokens[n - 2]) % VOCAB;
    return (int32_t)(hash % VOCAB);
}

static int32_t true_answer(const struct world *w, const struct world_client *c, int32_t n)
{
    return answer_of(w, hash_of(c->tenant, c->tokens, n), c->tokens, n);
}

void world_create(struct world *w, uint64_t seed)
{
    struct phx_sched_options *o = &w->options;

    memset(w, 0, sizeof(*w));
    w->random = seed * 2654435761u + 1;
    o->max_seqs = 1 + (int32_t)world_random(w, 12);
    o->max_waiting = (int32_t)world_random(w, 12);
    o->max_rows = 1 + (int32_t)world_random(w, world_random(w, 2) ? 40 : 8);
    o->chunk_rows = world_random(w, 2) ? 0 : 1 + (int32_t)world_random(w, (uint32_t)o->max_rows);
    o->max_context = 8 + (int32_t)world_random(w, WORLD_TOKENS_MAX - 8);
    o->block_tokens = 1 + (int32_t)world_random(w, 8);
    o->n_blocks = 1 + (o->max_context - 1) / o->block_tokens +
                  (int32_t)world_random(w, world_random(w, 2) ? 200 : 8);
    o->n_inflight = 1 + (int32_t)world_random(w, 4);
    o->vocab_size = VOCAB;
    o->has_prefix_cache = world_random(w, 4) != 0;
    if (world_random(w, 4) != 0) {
        o->max_results = world_random(w, 2) ? 0 : o->max_seqs + (int32_t)world_random(w, 12);
        o->draft_rows = 1 + (int32_t)world_random(w, 30);
        w->is_repetitive = world_random(w, 4) != 0;
    }
    assert_int_equal(phx_sched_create(o, &w->sched, NULL), 0);
    w->cells = calloc((size_t)o->n_blocks * (size_t)o->block_tokens, sizeof(*w->cells));
    w->clients = calloc(WORLD_CLIENTS_MAX, sizeof(*w->clients));
    w->events = calloc(EVENTS + (size_t)o->max_waiting, sizeof(*w->events));
    w->sampled = calloc(8, sizeof(*w->sampled));
    assert_true(w->cells != NULL && w->clients != NULL && w->events != NULL && w->sampled != NULL);
}

void world_destroy(struct world *w)
{
    phx_sched_destroy(w->sched);
    free(w->cells);
    free(w->clients);
    free(w->events);
    free(w->sampled);
}

static struct world_client *find_client(struct world *w, uint64_t id)
{
    assert_true(id >= 1 && id <= (uint64_t)w->n_clients);
    return &w->clients[id - 1];
}

/* The tokens of a new request: a common prefix, then something of its own; or a finished one goes on. */
static void write_request(struct world *w, struct world_client *c)
{
    int32_t room = w->options.max_context, n = 1 + (int32_t)world_random(w, (uint32_t)room);

    n = n < room ? n : room - 1;
    for (int32_t i = 0; i < n; i++)
        c->tokens[i] = i % 7;
    for (int32_t i = (int32_t)world_random(w, (uint32_t)n); i < n; i++)
        c->tokens[i] = (int32_t)world_random(w, VOCAB);
    c->n_tokens = c->n_prompt = n;
    if (w->n_clients > 0 && world_random(w, 5) == 0) {
        const struct world_client *old = &w->clients[world_random(w, (uint32_t)w->n_clients)];

        if (old->is_over && old->n_tokens < room) { /* resumed after a cancel or on another replica */
            memcpy(c->tokens, old->tokens, sizeof(c->tokens));
            c->n_tokens = old->n_tokens;
            c->n_prompt = old->n_prompt;
            c->tenant = old->tenant;
        }
    }
    if (c->n_tokens > 1 && world_random(w, 5) == 0) { /* the end of it is an answer to be checked */
        c->n_check = 1 + (int32_t)world_random(w, (uint32_t)c->n_tokens - 1);
        c->n_prompt = 1 + (int32_t)world_random(w, (uint32_t)(c->n_tokens - c->n_check));
    }
    c->n_first = c->n_tokens;
    c->max_new = 1 + (int32_t)world_random(w, world_random(w, 2) ? 60 : 6);
}

void world_submit(struct world *w)
{
    const int32_t           stop = WORLD_STOP;
    struct world_client    *c = &w->clients[w->n_clients];
    struct phx_submit       r = {0};
    struct phx_sched_stats  stats;
    struct phx_err          err = {0};
    int                     rc;

    if (w->n_clients == WORLD_CLIENTS_MAX)
        return;
    memset(c, 0, sizeof(*c));
    c->id = (uint64_t)w->n_clients + 1;
    c->tenant = (int32_t)world_random(w, 2);
    write_request(w, c);
    c->has_stop = world_random(w, 2) != 0;
    r.seq_id = c->id;
    r.cache_salt[0] = (uint8_t)(1 + c->tenant);
    r.tokens = c->tokens;
    r.n_tokens = c->n_tokens;
    r.n_prompt = c->n_prompt;
    r.max_new = c->max_new;
    r.n_check = c->n_check;
    r.priority = (int32_t)world_random(w, 3);
    phx_sampling_init(&r.sampling);
    r.sampling.stop_ids = &stop;
    r.sampling.n_stop_ids = 1;
    r.sampling.ignore_eos = !c->has_stop;
    phx_sched_stats(w->sched, &stats);
    rc = phx_sched_submit(w->sched, &r, &err);
    if (rc != 0) { /* only for want of room in the queue: everything else about it is right */
        assert_int_equal(rc, PHX_E_BUSY);
        assert_int_equal(stats.n_running + stats.n_waiting,
                         w->options.max_waiting + w->options.max_seqs);
        return;
    }
    w->n_clients++;
    w->n_open_clients++;
}

/* The next checked position: what the model answers there, as often as there are tokens. */
static void take_check(struct world *w, struct world_client *c, const struct phx_sched_event *e)
{
    int32_t at = c->n_tokens - c->n_check + c->n_told;

    assert_true(c->n_told < c->n_check);
    assert_int_equal(e->index, at - c->n_prompt);
    assert_int_equal(e->token, true_answer(w, c, at));
    c->n_told++;
    w->n_checked++;
    if (c->n_told > 1)
        assert_int_equal(e->cached_tokens, 0);
    assert_int_equal(e->finish, c->n_told == c->n_check ? PHX_FINISH_LENGTH : PHX_FINISH_NONE);
}

static void take_event(struct world *w, const struct phx_sched_event *e)
{
    struct world_client *c = find_client(w, e->seq_id);

    assert_false(c->is_over);
    w->trace = mix(mix(mix(w->trace, e->seq_id), (uint64_t)e->token), (uint64_t)e->finish);
    assert_int_equal(e->result >= 0, e->token >= 0);
    if (e->token >= 0 && c->n_check > 0)
        take_check(w, c, e);
    else if (e->token >= 0) {
        assert_int_equal(e->index, c->n_tokens - c->n_prompt);
        assert_int_equal(e->token, true_answer(w, c, c->n_tokens));
        c->tokens[c->n_tokens++] = e->token;
        w->n_tokens++;
        if (c->n_tokens - 1 > c->n_first)
            assert_int_equal(e->cached_tokens, 0);
        assert_true(e->cached_tokens % w->options.block_tokens == 0 ? e->cached_tokens <= c->n_prompt
                                                                    : e->cached_tokens == c->n_prompt);
    }
    if (e->finish == PHX_FINISH_NONE) {
        assert_false(c->n_check == 0 && c->has_stop && e->token == WORLD_STOP);
        assert_true(c->n_check > 0 || (c->n_tokens - c->n_first < c->max_new &&
                                       c->n_tokens < w->options.max_context));
        return;
    }
    c->is_over = true;
    c->finish = e->finish;
    w->n_open_clients--;
    if (e->finish == PHX_FINISH_STOP)
        assert_true(c->has_stop && e->token == WORLD_STOP);
    else if (e->finish == PHX_FINISH_LENGTH)
        assert_true(c->n_check > 0 ? c->n_told == c->n_check
                                   : c->n_tokens - c->n_first == c->max_new ||
                                         c->n_tokens == w->options.max_context);
    else if (e->finish == PHX_FINISH_CANCELLED)
        assert_true(c->is_cancelled && e->token == -1);
    else
        assert_true(e->finish == PHX_FINISH_ERROR && w->n_dropped > RETRIES && e->token == -1);
}

void world_cancel(struct world *w)
{
    struct world_client *c;
    int32_t              n;

    if (w->n_clients == 0)
        return;
    c = &w->clients[world_random(w, (uint32_t)w->n_clients)];
    c->is_cancelled = c->is_cancelled || !c->is_over;
    phx_sched_cancel(w->sched, c->id); /* one that is over is ignored */
    n = phx_sched_drain_events(w->sched, w->events);
    for (int32_t i = 0; i < n; i++)
        take_event(w, &w->events[i]);
}

/* Rows whose next token is known and not answered yet. */
static int32_t checked_rows(const struct world_client *c, const struct phx_plan_seq *p)
{
    int32_t n = p->pos + p->n_rows - (c->n_tokens - c->n_check + c->n_told - 1);

    return c->n_check > 0 && n > 0 ? n : 0;
}

/* What a plan may say of a sequence. */
static void check_rows(const struct world *w, const struct world_client *c, const struct phx_plan_seq *p)
{
    struct phx_sched_seq_info info;

    assert_true(phx_sched_info(w->sched, p->slot, &info));
    assert_int_equal(info.n_tokens, c->n_tokens); /* it knows all that was delivered, no more */
    assert_int_equal(info.n_prompt, c->n_prompt);
    assert_memory_equal(info.tokens, c->tokens, (size_t)c->n_tokens * sizeof(int32_t));
    assert_true(p->n_rows >= 1 && p->pos + p->n_rows - p->n_drafts <= c->n_tokens);
    assert_true(p->n_blocks * w->options.block_tokens >= p->pos + p->n_rows);
    assert_int_equal(p->is_sampled, p->pos + p->n_rows - p->n_drafts == c->n_tokens);
    assert_int_equal(p->n_checked, checked_rows(c, p));
    if (p->n_drafts == 0)
        return;
    assert_true(p->is_sampled && p->n_rows == 1 + p->n_drafts);
    assert_true(c->n_tokens + p->n_drafts < w->options.max_context); /* a result behind each fits */
    assert_true(c->n_tokens + p->n_drafts - c->n_first < c->max_new);
}

/* Writes the rows of one sequence and reads everything before them, as attention does.  Returns the number of
 * results: an engine may end them at the first wrong guess. */
static int32_t run_seq(struct world *w, const struct phx_plan_seq *p, bool is_dropped,
                       struct phx_sampled *sampled)
{
    const int32_t             bt = w->options.block_tokens;
    int32_t                   end = p->pos + p->n_rows, n_results = p->n_checked + p->is_sampled + p->n_drafts, n = 0;
    int32_t                   tokens[WORLD_TOKENS_MAX];
    struct phx_sched_seq_info info;
    struct world_client      *c;
    bool                      is_short = world_random(w, 2) != 0, is_right = true;
    uint64_t                  h;

    assert_true(phx_sched_info(w->sched, p->slot, &info));
    c = find_client(w, info.seq_id);
    check_rows(w, c, p);
    memcpy(tokens, c->tokens, sizeof(tokens));
    memcpy(tokens + p->pos, p->tokens, (size_t)p->n_rows * sizeof(int32_t));
    assert_memory_equal(tokens, c->tokens, (size_t)c->n_tokens * sizeof(int32_t));
    h = mix(77, (uint64_t)c->tenant);
    for (int32_t i = 0; i < end; i++) {
        uint64_t *cell = &w->cells[(size_t)p->blocks[i / bt] * (size_t)bt + (size_t)(i % bt)];

        h = mix(h, (uint64_t)tokens[i]);
        if (i >= p->pos)
            *cell = is_dropped ? GARBAGE : h;
        else
            assert_true(*cell == h);
        if (i < end - n_results || !is_right)
            continue;
        sampled[n++] = (struct phx_sampled){p->slot, answer_of(w, h, tokens, i + 1)};
        is_right = p->n_drafts == 0 || !is_short || (i + 1 < end && sampled[n - 1].token == tokens[i + 1]);
    }
    return n;
}

static int32_t results_of(const struct phx_sched_options *o)
{
    return o->max_results > 0 ? o->max_results : o->max_seqs;
}

bool world_plan(struct world *w)
{
    const struct phx_plan *plan = phx_sched_plan(w->sched);
    int32_t                at = (w->first + w->n_open) % 8, n_rows = 0, n_kinds;
    bool                   is_dropped = world_random(w, 50) == 0;

    if (plan == NULL)
        return false;
    assert_true(w->n_open < w->options.n_inflight);
    assert_true(plan->n_rows >= 1 && plan->n_rows <= w->options.max_rows);
    w->n_sampled[at] = 0;
    w->is_dropped[at] = is_dropped;
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const struct phx_plan_seq *p = &plan->seqs[i];

        assert_int_equal(p->first_row, n_rows);
        n_rows += p->n_rows;
        w->n_sampled[at] += run_seq(w, p, is_dropped, &w->sampled[at][w->n_sampled[at]]);
        assert_true(w->n_sampled[at] <= results_of(&w->options)); /* the rows of logits that there are */
        w->trace = mix(mix(w->trace, (uint64_t)p->slot), (uint64_t)p->pos);
    }
    n_kinds = plan->n_prefill_rows + plan->n_decode_rows + plan->n_draft_rows;
    assert_true(plan->n_draft_rows == 0 || (plan->n_prefill_rows == 0 && n_rows <= w->options.draft_rows));
    assert_int_equal(n_rows, plan->n_rows);
    assert_int_equal(n_kinds, n_rows);
    w->n_open++;
    w->n_steps++;
    return true;
}

void world_complete(struct world *w, bool is_dropped)
{
    int32_t n, at = w->first;

    if (w->n_open == 0)
        return;
    is_dropped = is_dropped || w->is_dropped[at];
    w->n_dropped += is_dropped;
    n = phx_sched_complete(w->sched, w->sampled[at], is_dropped ? 0 : w->n_sampled[at],
                           is_dropped ? PHX_E_INTERNAL : 0, w->events);
    w->first = (w->first + 1) % 8;
    w->n_open--;
    for (int32_t i = 0; i < n; i++)
        take_event(w, &w->events[i]);
}

void world_check(const struct world *w)
{
    struct phx_sched_stats stats;

    assert_true(phx_sched_is_consistent(w->sched));
    phx_sched_stats(w->sched, &stats);
    assert_int_equal(stats.n_open_plans, w->n_open);
    assert_int_equal(stats.n_running + stats.n_waiting, w->n_open_clients);
    assert_true(stats.n_running <= w->options.max_seqs);
    assert_int_equal(stats.n_steps, w->n_steps);
    assert_true(stats.kv.hit_tokens <= stats.kv.lookup_tokens);
    if (stats.n_running == 0)
        assert_int_equal(stats.kv.n_used, 0);
    if (!w->options.has_prefix_cache)
        assert_int_equal(stats.kv.n_cached, 0);
}
