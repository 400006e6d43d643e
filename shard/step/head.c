/* SPDX-License-Identifier: Apache-2.0
 * The head: plans steps, runs its own part of each, and turns results into token events. */
#include <string.h>

#include "rpc/base/clock.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "shard/step/stage.h"

enum {
    OPEN_RING = 512,
    WAITING_MAX = 4096,
    LEAVE_WAIT_MS = 5000, /* for the plans that are open when the head leaves */
    /* of one message, so that it stays below PHX_RPC_STEP_TOKENS_MAX: when half of them are taken the
     * head is "full" and wants to run; one SUBMIT or CANCEL and one step add less than the other half */
    TOKENS_MAX = 2 * PHX_HEAD_FULL_TOKENS
};

_Static_assert((int)TOKENS_MAX <= (int)PHX_RPC_STEP_TOKENS_MAX, "one message takes them all");
_Static_assert((int)PHX_RPC_CANCELS_MAX + (int)PHX_SCHED_SEQS_MAX <= (int)PHX_HEAD_FULL_TOKENS,
               "one message and one step fit behind a nearly full head");

struct phx_head {
    struct phx_step         *s;
    struct phx_plan_limits   limits;
    struct phx_sched        *sched;
    struct phx_plan_encoder *encoder;
    struct phx_buf           plan;
    struct phx_buf           bytes; /* of a result on its way out */
    unsigned char           *inbox; /* of a result that came in */
    struct phx_result        result;
    struct phx_sampled      *sampled; /* [max_results] */
    struct phx_sched_event  *events;
    struct phx_token_out    *tokens, *told_tokens; /* of the message in the making, and of the last one */
    struct phx_logprob      *logprobs, *told_logprobs;
    int32_t                  n_tokens, n_logprobs;
    struct phx_link_step     last;    /* of the newest completed step */
    uint64_t                 n_preempted, hit_tokens, comm_bytes;
    uint64_t                 n_drafted, n_accepted;
    int64_t                  started_ns[OPEN_RING]; /* of open plans, by step modulo */
    int32_t                  rows[OPEN_RING][2];    /* prefill, decode */
    uint64_t                 oldest;  /* step of the oldest open plan */
    int                      n_open;
};

int phx_head_create(struct phx_step *s, struct phx_head **out, struct phx_err *err)
{
    const struct phx_sched_options options = {
        .max_seqs = s->options->max_seqs,
        .max_waiting = WAITING_MAX,
        .max_rows = s->options->max_rows,
        .max_context = s->max_context,
        .block_tokens = s->options->block_tokens,
        .n_blocks = s->n_blocks,
        .n_inflight = s->options->pp,
        .vocab_size = s->config.vocab_size,
        .has_prefix_cache = s->options->has_prefix_cache,
        .max_results = phx_step_max_results(s->options),
        .draft_rows = s->options->draft_rows,
    };
    struct phx_head *h = phx_mem_calloc(1, sizeof(*h));
    size_t           n = (size_t)options.max_results;
    int              rc = phx_sched_create(&options, &h->sched, err);

    *out = NULL;
    h->s = s;
    phx_step_plan_limits(s, &h->limits);
    h->encoder = phx_plan_encoder_create(&h->limits);
    phx_buf_init(&h->plan, phx_plan_max_bytes(&h->limits));
    phx_buf_init(&h->bytes, phx_result_max_bytes(options.max_results));
    h->result.tokens = phx_mem_calloc(n, sizeof(*h->result.tokens));
    h->inbox = phx_mem_calloc(1, phx_result_max_bytes(options.max_results));
    h->sampled = phx_mem_calloc(n, sizeof(*h->sampled));
    h->events = phx_mem_calloc(n + WAITING_MAX, sizeof(*h->events));
    h->tokens = phx_mem_calloc(TOKENS_MAX, sizeof(*h->tokens));
    h->told_tokens = phx_mem_calloc(TOKENS_MAX, sizeof(*h->tokens));
    h->logprobs = phx_mem_calloc(n * PHX_TOP_LOGPROBS_MAX, sizeof(*h->logprobs));
    h->told_logprobs = phx_mem_calloc(n * PHX_TOP_LOGPROBS_MAX, sizeof(*h->logprobs));
    if (rc != 0) {
        phx_head_destroy(h);
        return rc;
    }
    *out = h;
    return 0;
}

void phx_head_destroy(struct phx_head *h)
{
    if (h == NULL)
        return;
    phx_sched_destroy(h->sched);
    phx_plan_encoder_destroy(h->encoder);
    phx_buf_fini(&h->plan);
    phx_buf_fini(&h->bytes);
    phx_mem_free(h->result.tokens);
    phx_mem_free(h->inbox);
    phx_mem_free(h->sampled);
    phx_mem_free(h->events);
    phx_mem_free(h->tokens);
    phx_mem_free(h->told_tokens);
    phx_mem_free(h->logprobs);
    phx_mem_free(h->told_logprobs);
    phx_mem_free(h);
}

static struct phx_token_out *add_token(struct phx_head *h)
{
    phx_assert(h->n_tokens < TOKENS_MAX); /* callers ask phx_head_is_full() */
    h->tokens[h->n_tokens] = (struct phx_token_out){.token = -1, .error_text = ""};
    return &h->tokens[h->n_tokens++];
}

void phx_head_refuse(struct phx_head *h, uint64_t seq_id, int code, const char *text)
{
    struct phx_token_out *t = add_token(h);

    t->seq_id = seq_id;
    t->finish = PHX_FINISH_ERROR;
    t->error_code = code;
    t->error_text = text;
}

void phx_head_submit(struct phx_head *h, const struct phx_submit *submit)
{
    struct phx_err err = {0};
    int            rc = phx_sched_submit(h->sched, submit, &err);

    if (rc == 0)
        return;
    phx_head_refuse(h, submit->seq_id, rc,
                    rc == PHX_E_BUSY ? "the replica's queue is full"
                                     : "the sequence does not fit this replica");
    phx_log(PHX_LOG_WARN, "step.submit.refuse", "seq=%llu reason=%s",
            (unsigned long long)submit->seq_id, err.text);
}

bool phx_head_is_full(const struct phx_head *h)
{
    return h->n_tokens >= PHX_HEAD_FULL_TOKENS;
}

bool phx_head_has_work(const struct phx_head *h)
{
    struct phx_sched_stats stats;

    phx_sched_stats(h->sched, &stats);
    return stats.n_running + stats.n_waiting + stats.n_open_plans + h->n_tokens > 0;
}

static void put_event(struct phx_head *h, const struct phx_sched_event *e)
{
    struct phx_token_out *t = add_token(h);

    t->seq_id = e->seq_id;
    t->token = e->token;
    t->index = e->index > 0 ? e->index : 0;
    t->cached_tokens = e->cached_tokens;
    t->finish = e->finish;
    if (e->finish == PHX_FINISH_ERROR) {
        t->error_code = PHX_E_INTERNAL;
        t->error_text = "the step failed repeatedly; see the rank's log";
    }
    if (e->result >= 0) {
        const struct phx_result_token *r = &h->result.tokens[e->result];

        t->gap = r->gap;
        t->logprob = r->logprob < 0 ? r->logprob : 0;
        t->top = h->logprobs + h->n_logprobs;
        t->n_top = r->n_top;
        for (int32_t j = 0; j < r->n_top; j++)
            h->logprobs[h->n_logprobs++] = (struct phx_logprob){
                r->top_ids[j], r->top_logprobs[j] < 0 ? r->top_logprobs[j] : 0};
    }
}

static int start_plan(struct phx_head *h, const struct phx_plan *plan, struct phx_err *err)
{
    const struct phx_result *result;
    bool                     is_stop;
    size_t                   size;
    int                      rc;

    phx_buf_clear(&h->plan);
    phx_plan_encode(h->encoder, h->sched, plan, &h->plan);
    rc = phx_buf_check(&h->plan, "step plan", err);
    if (rc != 0)
        return rc;
    h->started_ns[plan->step % OPEN_RING] = phx_clock_mono_ns();
    h->rows[plan->step % OPEN_RING][0] = plan->n_prefill_rows;
    h->rows[plan->step % OPEN_RING][1] = plan->n_decode_rows;
    if (h->n_open++ == 0)
        h->oldest = plan->step;
    size = h->plan.size;
    rc = phx_comm_bcast(h->s->comm, h->plan.data, h->plan.size, &size);
    if (rc != 0)
        return phx_fail(err, rc, "broadcast of a plan: %s", phx_err_text(rc));
    rc = phx_stage_run(h->s->stage, h->plan.data, h->plan.size, &is_stop, &result, err);
    if (rc != 0 || result == NULL)
        return rc;
    phx_buf_clear(&h->bytes);
    phx_result_encode(result, &h->bytes);
    rc = phx_comm_result_send(h->s->comm, h->bytes.data, h->bytes.size);
    return rc == 0 ? 0 : phx_fail(err, rc, "tokens of a step: %s", phx_err_text(rc));
}

static void measure(struct phx_head *h, uint64_t step)
{
    struct phx_sched_stats stats;
    struct phx_step_stats *out = &h->last.stats;
    int64_t  us = (phx_clock_mono_ns() - h->started_ns[step % OPEN_RING]) / 1000;
    uint64_t bytes = phx_comm_bytes(h->s->comm);

    phx_sched_stats(h->sched, &stats);
    *out = (struct phx_step_stats){
        .n_running = stats.n_running,
        .n_waiting = stats.n_waiting,
        .n_preempted = (int32_t)(stats.n_preempted - h->n_preempted),
        .kv_blocks_used = stats.kv.n_used,
        .kv_blocks_total = stats.kv.n_blocks,
        .prefix_hit_tokens = stats.kv.hit_tokens - h->hit_tokens,
        .step_us = us < UINT32_MAX ? (uint32_t)us : UINT32_MAX,
        .n_prefill_tokens = h->rows[step % OPEN_RING][0],
        .n_decode_tokens = h->rows[step % OPEN_RING][1],
        .n_draft_tokens = (int32_t)(stats.n_drafted - h->n_drafted),
        .n_accepted_tokens = (int32_t)(stats.n_accepted - h->n_accepted),
        .bytes_comm = bytes - h->comm_bytes,
    };
    h->n_preempted = stats.n_preempted;
    h->hit_tokens = stats.kv.hit_tokens;
    h->n_drafted = stats.n_drafted;
    h->n_accepted = stats.n_accepted;
    h->comm_bytes = bytes;
    h->last.step = step;
}

static int complete_oldest(struct phx_head *h, struct phx_err *err)
{
    size_t  size = 0, capacity = phx_result_max_bytes(h->limits.max_results);
    int32_t n;
    int     rc;

    rc = phx_comm_result_recv(h->s->comm, h->inbox, capacity, &size, -1);
    if (rc != 0)
        return phx_fail(err, rc, "waiting for tokens: %s", phx_err_text(rc));
    rc = phx_result_decode(h->inbox, size, &h->limits, &h->result, err);
    if (rc == 0 && h->result.step != h->oldest)
        rc = phx_fail(err, PHX_E_FORMAT, "step result: of step %llu, not %llu",
                      (unsigned long long)h->result.step, (unsigned long long)h->oldest);
    if (rc != 0)
        return rc;
    h->oldest++;
    for (int32_t i = 0; i < h->result.n_tokens; i++)
        h->sampled[i] = (struct phx_sampled){h->result.tokens[i].slot, h->result.tokens[i].token};
    n = phx_sched_complete(h->sched, h->sampled, h->result.n_tokens, h->result.code, h->events);
    h->n_open--;
    for (int32_t i = 0; i < n; i++)
        put_event(h, &h->events[i]);
    measure(h, h->result.step);
    return 0;
}

/* One that ran waits for its open step; else its end goes out with the next message. */
void phx_head_cancel(struct phx_head *h, uint64_t seq_id)
{
    int32_t n;

    phx_sched_cancel(h->sched, seq_id);
    n = phx_sched_drain_events(h->sched, h->events);
    for (int32_t i = 0; i < n; i++)
        put_event(h, &h->events[i]);
}

/* The state as it is, without the numbers of a step: none was completed. */
static void measure_idle(struct phx_head *h)
{
    struct phx_sched_stats stats;

    phx_sched_stats(h->sched, &stats);
    h->last.stats = (struct phx_step_stats){
        .n_running = stats.n_running,
        .n_waiting = stats.n_waiting,
        .kv_blocks_used = stats.kv.n_used,
        .kv_blocks_total = stats.kv.n_blocks,
    };
}

/* The message is the caller's until the one after it is made. */
static void hand_over(struct phx_head *h, struct phx_link_step *out)
{
    struct phx_token_out *tokens = h->told_tokens;
    struct phx_logprob   *logprobs = h->told_logprobs;

    *out = h->last;
    out->tokens = h->tokens;
    out->n_tokens = h->n_tokens;
    h->told_tokens = h->tokens;
    h->told_logprobs = h->logprobs;
    h->tokens = tokens;
    h->logprobs = logprobs;
    h->n_tokens = h->n_logprobs = 0;
}

int phx_head_run(struct phx_head *h, struct phx_link_step *out, struct phx_err *err)
{
    const struct phx_plan *plan;
    int                    rc = 0;

    while (rc == 0 && (plan = phx_sched_plan(h->sched)) != NULL)
        rc = start_plan(h, plan, err);
    if (rc == 0 && h->n_open > 0)
        rc = complete_oldest(h, err);
    else if (rc == 0)
        measure_idle(h);
    hand_over(h, out);
    return rc;
}

void phx_head_stop(struct phx_head *h)
{
    size_t size, capacity = phx_result_max_bytes(h->limits.max_results);

    /* who runs a plan wants to be rid of its result before it reads that it may go */
    while (h->n_open > 0 &&
           phx_comm_result_recv(h->s->comm, h->inbox, capacity, &size, LEAVE_WAIT_MS) == 0)
        h->n_open--;
    phx_buf_clear(&h->plan);
    phx_plan_encode_stop(&h->plan);
    size = h->plan.size;
    if (phx_comm_bcast(h->s->comm, h->plan.data, h->plan.size, &size) != 0)
        phx_log(PHX_LOG_WARN, "step.stop.fail", "reason=%s", "a peer is gone already");
}
