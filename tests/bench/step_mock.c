/* SPDX-License-Identifier: Apache-2.0 */
#include "step_mock.h"

#include <stdlib.h>
#include <string.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"

enum { BLOCK_TOKENS = 16, MAX_ROWS = 8192, VOCAB = 128000, RESULTS = 4096 };

/* ---- the device ------------------------------------------------------------------------------ */

static int32_t token_at(const struct mock *m, int32_t slot, int32_t pos)
{
    uint64_t h = (uint64_t)(uint32_t)slot << 32;

    h |= (uint32_t)(m->options.period > 0 ? pos % m->options.period : pos);
    h = (h ^ h >> 31) * 0x9E3779B97F4A7C15u;
    h = (h ^ h >> 29) * 0xBF58476D1CE4E5B9u;
    return (int32_t)((h >> 33) % VOCAB);
}

/* The results of a decoded plan. */
static void answer(struct mock *m, const struct phx_wire_plan *plan)
{
    int32_t n = 0;

    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const struct phx_wire_seq *s = &plan->seqs[i];
        int32_t                    end = s->pos + s->n_rows;

        for (int32_t at = end - s->n_drafts; s->is_sampled && at <= end; at++)
            m->made.tokens[n++] = (struct phx_result_token){.slot = s->slot, .token = token_at(m, s->slot, at)};
    }
    m->made.step = plan->step;
    m->made.n_tokens = n;
}

/* ---- the head -------------------------------------------------------------------------------- */

static void submit(struct mock *m, int32_t i)
{
    const struct mock_options *o = &m->options;
    struct phx_submit          r = {.seq_id = (uint64_t)i + 1, .max_new = o->max_new};
    struct phx_err             err = {0};
    int32_t                   *tokens;

    r.n_tokens = o->min_context;
    if (o->n_seqs > 1)
        r.n_tokens += (int32_t)((int64_t)(o->max_context - o->min_context) * i / (o->n_seqs - 1));
    r.n_prompt = r.n_tokens;
    tokens = phx_mem_calloc((size_t)r.n_tokens, sizeof(*tokens));
    for (int32_t at = 0; at < r.n_tokens; at++)
        tokens[at] = token_at(m, i, at);
    r.tokens = tokens;
    phx_sampling_init(&r.sampling);
    phx_assert(phx_sched_submit(m->sched, &r, &err) == 0);
    phx_mem_free(tokens);
}

static bool has_prompts_left(const struct mock *m)
{
    for (int32_t i = 0; i < m->options.n_seqs; i++) {
        struct phx_sched_seq_info info;

        if (!phx_sched_info(m->sched, i, &info) || info.n_tokens == info.n_prompt)
            return true;
    }
    return false;
}

void mock_create(struct mock *m, const struct mock_options *o)
{
    int32_t context = o->max_context + o->max_new, n_blocks = context / BLOCK_TOKENS + 1;
    struct phx_sched_options options = {
        .max_seqs = o->n_seqs,
        .max_waiting = o->n_seqs,
        .max_rows = MAX_ROWS,
        .chunk_rows = MAX_ROWS,
        .max_context = context,
        .block_tokens = BLOCK_TOKENS,
        .n_blocks = o->n_seqs * (n_blocks + 1),
        .n_inflight = 1,
        .vocab_size = VOCAB,
        .max_results = RESULTS,
        .draft_rows = o->draft_rows,
        .has_prefix_cache = o->has_prefix_cache,
    };
    struct phx_err err = {0};

    *m = (struct mock){.options = *o};
    m->limits = (struct phx_plan_limits){
        .max_seqs = o->n_seqs, .max_rows = MAX_ROWS, .max_context = context, .max_blocks = n_blocks,
        .n_blocks = options.n_blocks, .vocab_size = VOCAB, .max_results = RESULTS,
    };
    phx_assert(phx_sched_create(&options, &m->sched, &err) == 0);
    m->encoder = phx_plan_encoder_create(&m->limits);
    m->decoder = phx_plan_decoder_create(&m->limits);
    phx_buf_init(&m->bytes, phx_plan_max_bytes(&m->limits));
    phx_buf_init(&m->result_bytes, phx_result_max_bytes(RESULTS));
    m->made.tokens = phx_mem_calloc(RESULTS, sizeof(*m->made.tokens));
    m->result.tokens = phx_mem_calloc(RESULTS, sizeof(*m->result.tokens));
    m->sampled = phx_mem_calloc(RESULTS, sizeof(*m->sampled));
    m->events = phx_mem_calloc((size_t)RESULTS + (size_t)o->n_seqs, sizeof(*m->events));
    for (int32_t i = 0; i < o->n_seqs; i++)
        submit(m, i);
    while (has_prompts_left(m))
        phx_assert(mock_step(m, NULL));
}

void mock_destroy(struct mock *m)
{
    phx_sched_destroy(m->sched);
    phx_plan_encoder_destroy(m->encoder);
    phx_plan_decoder_destroy(m->decoder);
    phx_buf_fini(&m->bytes);
    phx_buf_fini(&m->result_bytes);
    phx_mem_free(m->made.tokens);
    phx_mem_free(m->result.tokens);
    phx_mem_free(m->sampled);
    phx_mem_free(m->events);
}

/* Over the wire to the head. */
static void take_result(struct mock *m)
{
    struct phx_err err = {0};

    phx_buf_clear(&m->result_bytes);
    phx_result_encode(&m->made, &m->result_bytes);
    phx_assert(phx_result_decode(m->result_bytes.data, m->result_bytes.size, &m->limits, &m->result, &err) == 0);
    for (int32_t i = 0; i < m->result.n_tokens; i++)
        m->sampled[i] = (struct phx_sampled){m->result.tokens[i].slot, m->result.tokens[i].token};
}

static void take(struct mock *m, int32_t n_events)
{
    for (int32_t i = 0; i < n_events; i++) {
        const struct phx_sched_event *e = &m->events[i];

        m->checksum = (m->checksum ^ (e->seq_id << 32) ^ (uint32_t)e->token) * 0x100000001B3u;
        m->n_told += e->token >= 0;
    }
}

bool mock_step(struct mock *m, struct mock_times *times)
{
    const struct phx_wire_plan *wire;
    const struct phx_plan      *plan;
    struct phx_err              err = {0};
    int64_t                     at[7];

    at[0] = phx_clock_mono_ns();
    plan = phx_sched_plan(m->sched);
    if (plan == NULL)
        return false;
    at[1] = phx_clock_mono_ns();
    phx_buf_clear(&m->bytes);
    phx_plan_encode(m->encoder, m->sched, plan, &m->bytes);
    at[2] = phx_clock_mono_ns();
    phx_assert(phx_plan_decode(m->decoder, m->bytes.data, m->bytes.size, &wire, &err) == 0);
    at[3] = phx_clock_mono_ns();
    answer(m, wire);
    at[4] = phx_clock_mono_ns();
    take_result(m);
    at[5] = phx_clock_mono_ns();
    take(m, phx_sched_complete(m->sched, m->sampled, m->result.n_tokens, 0, m->events));
    at[6] = phx_clock_mono_ns();
    if (times != NULL) /* all but the device */
        *times = (struct mock_times){at[1] - at[0], at[2] - at[1], at[3] - at[2], at[5] - at[4],
                                     at[6] - at[5], at[6] - at[0] - (at[4] - at[3])};
    return true;
}
