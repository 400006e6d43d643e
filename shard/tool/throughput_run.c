/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "shard/step/step.h"
#include "shard/tool/throughput.h"

/* One request's way, by the host's clock. */
struct way {
    int64_t submitted_ns, last_ns;
    int32_t n_input, n_output;
};

struct load {
    struct phx_throughput_request *request;
    struct phx_throughput_result  *result;
    bool                          *is_head;
    int32_t                        longest_input, vocab_size;
    struct way                    *ways; /* [n_requests]; a request's id is its place + 1 */
    int32_t                        n_submitted, n_done;
    float                         *ttft, *itl; /* milliseconds, in the order they came */
    size_t                         n_ttft, n_itl;
    int32_t                       *tokens; /* of the next prompt */
    uint64_t                       state;
};

/* splitmix64: the same requests every time. */
static uint64_t next_random(struct load *l)
{
    uint64_t x = l->state += 0x9e3779b97f4a7c15;

    x = (x ^ x >> 30) * 0xbf58476d1ce4e5b9;
    x = (x ^ x >> 27) * 0x94d049bb133111eb;
    return x ^ x >> 31;
}

static int32_t most_of(int32_t middle, int32_t percent)
{
    return middle + (int32_t)((int64_t)middle * percent / 100);
}

static int32_t draw_length(struct load *l, int32_t middle)
{
    int32_t most = most_of(middle, l->request->spread_percent), least = 2 * middle - most;

    return least + (int32_t)(next_random(l) % (uint64_t)(most - least + 1));
}

static void submit_next(struct load *l, struct phx_head *h)
{
    struct way       *way = &l->ways[l->n_submitted];
    struct phx_submit submit = {.seq_id = (uint64_t)l->n_submitted + 1, .tokens = l->tokens, .n_tokens = way->n_input,
                                .n_prompt = way->n_input, .max_new = way->n_output};

    phx_sampling_init(&submit.sampling);
    submit.sampling.temperature = l->request->temperature;
    submit.sampling.ignore_eos = true;
    submit.sampling.seed = submit.seq_id;
    for (int32_t i = 0; i < way->n_input; i++)
        l->tokens[i] = (int32_t)(next_random(l) % (uint64_t)l->vocab_size);
    way->submitted_ns = phx_clock_mono_ns();
    l->n_submitted++;
    phx_head_submit(h, &submit);
}

static int take_token(struct load *l, const struct phx_token_out *t, int64_t now, struct phx_err *err)
{
    struct way *way = &l->ways[t->seq_id - 1];

    if (t->finish == PHX_FINISH_ERROR)
        return phx_fail(err, t->error_code, "request %llu: %s", (unsigned long long)t->seq_id, t->error_text);
    if (way->last_ns == 0)
        l->ttft[l->n_ttft++] = (float)(now - way->submitted_ns) / 1e6f;
    else
        l->itl[l->n_itl++] = (float)(now - way->last_ns) / 1e6f;
    way->last_ns = now;
    l->result->output_tokens++;
    if (t->finish != PHX_FINISH_NONE) {
        l->n_done++;
        l->result->input_tokens += (uint64_t)way->n_input;
    }
    return 0;
}

static int run_requests(struct load *l, struct phx_head *h, struct phx_err *err)
{
    int64_t  start = phx_clock_mono_ns();
    uint64_t rows = 0;
    int      rc = 0;

    while (l->n_done < l->request->n_requests && rc == 0) {
        struct phx_link_step out;
        int64_t              now;

        while (l->n_submitted < l->request->n_requests && l->n_submitted - l->n_done < l->request->concurrency)
            submit_next(l, h);
        rc = phx_head_run(h, &out, err);
        now = phx_clock_mono_ns();
        for (int32_t i = 0; i < out.n_tokens && rc == 0; i++)
            rc = take_token(l, &out.tokens[i], now, err);
        rows += (uint64_t)(out.stats.n_prefill_tokens + out.stats.n_decode_tokens);
        l->result->n_steps += rc == 0;
        l->result->n_preempted += (uint64_t)out.stats.n_preempted;
    }
    l->result->seconds = (double)(phx_clock_mono_ns() - start) / 1e9;
    l->result->rows_per_step = (double)rows / (double)(l->result->n_steps > 0 ? l->result->n_steps : 1);
    return rc;
}

static int compare(const void *a, const void *b)
{
    float x = *(const float *)a, y = *(const float *)b;

    return (x > y) - (x < y);
}

static struct phx_throughput_times summarise(float *ms, size_t n)
{
    struct phx_throughput_times t = {0};
    double                      sum = 0;

    if (n == 0)
        return t;
    qsort(ms, n, sizeof(*ms), compare);
    for (size_t i = 0; i < n; i++)
        sum += (double)ms[i];
    t.mean = sum / (double)n;
    t.p50 = (double)ms[n / 2];
    t.p90 = (double)ms[n * 9 / 10];
    t.p99 = (double)ms[n * 99 / 100];
    t.max = (double)ms[n - 1];
    return t;
}

/* The lengths of all requests, and room for what is measured of them. */
static int plan_requests(struct load *l, struct phx_err *err)
{
    const struct phx_throughput_request *r = l->request;
    size_t                               n = (size_t)r->n_requests, n_tokens = 0;

    l->ways = phx_mem_calloc(n, sizeof(*l->ways));
    for (size_t i = 0; i < n; i++) {
        l->ways[i].n_input = draw_length(l, r->input);
        l->ways[i].n_output = draw_length(l, r->output);
        n_tokens += (size_t)l->ways[i].n_output;
    }
    l->tokens = phx_mem_calloc((size_t)l->longest_input, sizeof(*l->tokens));
    l->ttft = phx_mem_calloc(n, sizeof(*l->ttft));
    l->itl = phx_mem_try(n_tokens, sizeof(*l->itl));
    return l->itl != NULL ? 0 : phx_fail(err, PHX_E_NOMEM, "the times of %zu tokens; ask for fewer requests", n_tokens);
}

static int lead(struct load *l, struct phx_step *s, struct phx_err *err)
{
    struct phx_head *h = NULL;
    int              rc = plan_requests(l, err);

    if (rc == 0)
        rc = phx_head_create(s, &h, err);
    rc = phx_rank_agree(s->comm, rc, err);
    if (rc == 0) {
        rc = run_requests(l, h, err);
        phx_head_stop(h);
    }
    phx_head_destroy(h);
    if (rc == 0) {
        l->result->ttft = summarise(l->ttft, l->n_ttft);
        l->result->itl = summarise(l->itl, l->n_itl);
    }
    phx_mem_free(l->ways);
    phx_mem_free(l->tokens);
    phx_mem_free(l->ttft);
    phx_mem_free(l->itl);
    return rc;
}

static int body(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    struct load                    *l = ctx;
    const struct phx_ranks_options *o = rank->options;
    struct phx_step_options         options = {
                .tp = o->tp, .pp = o->pp, .backend = o->backend, .compute = o->compute, .is_fast = o->is_fast,
                .is_eager = o->is_eager, .kv_dtype = o->kv_dtype, .block_tokens = o->block_tokens, .max_seqs = o->max_seqs,
                .max_rows = o->max_rows, .max_context = o->max_context, .has_prefix_cache = true};
    struct phx_step step = {.options = &options, .config = *rank->config, .backend = rank->backend, .comm = rank->comm,
                            .model = rank->model, .n_blocks = o->n_blocks, .max_context = o->max_context,
                            .rank = rank->part->rank};
    int             rc;

    step.parts = phx_mem_dup(rank->parts, (size_t)o->tp * (size_t)o->pp * sizeof(*step.parts));
    rc = phx_rank_agree(rank->comm, phx_step_start_stage(&step, err), err);
    if (rc == 0 && step.rank == 0) {
        *l->is_head = true;
        l->vocab_size = rank->config->vocab_size;
        l->result->load_seconds = rank->load_seconds;
        rc = lead(l, &step, err);
    } else if (rc == 0) {
        rc = phx_rank_agree(rank->comm, 0, err);
        if (rc == 0)
            rc = phx_step_follow(&step, err);
    }
    phx_step_end_stage(&step);
    phx_mem_free(step.parts);
    return rc;
}

/* What the ranks must be able to hold: every request that is under way, to its last token. */
static void set_limits(struct phx_throughput_request *r)
{
    struct phx_ranks_options *o = &r->ranks;
    struct phx_step_options   batch = {.backend = o->backend, .max_seqs = r->concurrency, .max_rows = r->rows,
                                       .block_tokens = o->block_tokens};

    phx_step_set_batch(&batch);
    if (batch.max_rows < r->concurrency)
        batch.max_rows = r->concurrency;
    o->max_seqs = o->max_logits = r->concurrency;
    o->max_rows = batch.max_rows;
    o->max_context = most_of(r->input, r->spread_percent) + most_of(r->output, r->spread_percent);
    o->n_blocks = (o->max_context + o->block_tokens - 1) / o->block_tokens * r->concurrency;
    phx_step_message_bytes(&batch, o->max_context, &o->plan_bytes, &o->result_bytes);
}

int phx_throughput_run(struct phx_throughput_request *r, struct phx_throughput_result *result, bool *is_head,
                       struct phx_err *err)
{
    struct load l = {.request = r, .result = result, .is_head = is_head,
                     .longest_input = most_of(r->input, r->spread_percent)};

    *is_head = false;
    memset(result, 0, sizeof(*result));
    set_limits(r);
    return phx_ranks_run(&r->ranks, body, &l, err);
}
