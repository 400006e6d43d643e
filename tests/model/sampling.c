/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/sampling.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "shard/sample/sample.h"

enum { ROWS = 14, N_PROMPT = 3 };

/* Everything of one rank; all ranks make the same numbers. */
struct check {
    struct phx_rank        *rank;
    const struct golden    *g;
    struct sampling_seen   *seen;
    int32_t                 n_rounds;
    uint64_t                random;
    int32_t                 rows[ROWS], *blocks;
    struct phx_sampling     sampling[ROWS];
    int32_t                 recorded[ROWS]; /* -1: none */
    struct phx_sample_need  needs[ROWS];
    struct phx_logits_want  wants[ROWS];
    struct phx_logits_got   got[ROWS];
    struct phx_sampler     *sampler;
    float                  *whole, *logits, *copy; /* [ROWS, V] of the whole way, of the short one; of one row */
};

static uint32_t random_u32(struct check *c)
{
    c->random = c->random * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(c->random >> 33);
}

static const struct phx_bias bias[] = {{7, 1.5f}};

static struct phx_sampling make_sampling(struct check *c)
{
    static const float   temperatures[] = {0.0f, 0.0f, 1.0f, 1.0f, 0.6f, 0.01f, 3.0f};
    static const float   shares[] = {1.0f, 1.0f, 0.9f, 0.3f};
    static const float   least[] = {0.0f, 0.0f, 0.0f, 0.3f};
    static const int32_t tops[] = {0, 0, 0, 1, 5, 20, 36, 150, 257};
    struct phx_sampling  p = {.repetition_penalty = 1.0f};

    p.temperature = temperatures[random_u32(c) % 7];
    p.top_p = shares[random_u32(c) % 4];
    p.min_p = least[random_u32(c) % 4];
    p.top_k = tops[random_u32(c) % 9];
    p.seed = random_u32(c);
    p.n_logprobs = random_u32(c) % 2 == 0 ? -1 : (int32_t)(random_u32(c) % (PHX_TOP_LOGPROBS_MAX + 1));
    p.presence_penalty = random_u32(c) % 12 == 0 ? 0.5f : 0.0f;
    p.bias = bias;
    p.n_bias = random_u32(c) % 12 == 0;
    return p;
}

static int32_t count_tokens(const struct check *c, int32_t i)
{
    return c->rows[i] + 1;
}

static void make_wants(struct check *c)
{
    for (int32_t i = 0; i < ROWS; i++) {
        struct phx_sample_need *need = &c->needs[i];
        struct phx_logits_want *w = &c->wants[i];

        c->sampling[i] = make_sampling(c);
        c->recorded[i] = random_u32(c) % 6 == 0 ? (int32_t)(random_u32(c) % (uint32_t)c->g->V) : -1;
        phx_sample_need(&c->sampling[i], c->g->V, count_tokens(c, i), c->recorded[i] >= 0, c->rank->options->tp > 1, need);
        *w = (struct phx_logits_want){.is_whole = need->is_whole, .n_best = need->n_best};
        if (need->has_draw) {
            w->draws[w->n_draws].temperature = need->temperature;
            w->draws[w->n_draws++].share = need->share;
        }
        if (need->has_norm)
            w->draws[w->n_draws++].temperature = 1.0f;
    }
}

static int run_step(struct check *c, bool is_whole, float *logits, struct phx_err *err)
{
    int32_t          zero = 0, T = c->g->T, V = c->g->V;
    struct phx_batch batch = {.n_rows = T, .tokens = c->g->tokens, .n_logits = ROWS, .logit_rows = c->rows,
                              .wants = is_whole ? NULL : c->wants, .got = is_whole ? NULL : c->got,
                              .spans = {.n_seqs = 1, .row = &zero, .n_rows = &T, .pos = &zero, .table = c->blocks,
                                        .table_stride = c->rank->options->n_blocks}};

    return phx_model_step(c->rank->model, &batch, phx_view(logits, ROWS, V), err);
}

/* By the whole logits at row. */
static int sample_whole(struct check *c, int32_t i, const float *row, struct phx_sample_output *out, float *gap)
{
    struct phx_sample_input in = {c->copy, c->g->tokens, count_tokens(c, i), N_PROMPT, &c->sampling[i], 0};
    struct phx_err          err;

    memcpy(c->copy, row, (size_t)c->g->V * sizeof(float));
    *gap = 0;
    return c->recorded[i] >= 0 ? phx_sample_check(c->sampler, &in, c->recorded[i], out, gap, &err)
                               : phx_sample(c->sampler, &in, out, &err);
}

static struct phx_sample_draw draw_of(const struct phx_logits_drawn *d)
{
    return (struct phx_sample_draw){d->id, d->logit, d->largest, d->sum};
}

static void check_row(struct check *c, int32_t i)
{
    size_t                       V = (size_t)c->g->V;
    const struct phx_logits_got *got = &c->got[i];
    struct phx_sample_part       part = {.ids = got->ids, .best = got->best, .is_number = got->is_number};
    struct phx_sample_input      in = {NULL, c->g->tokens, count_tokens(c, i), N_PROMPT, &c->sampling[i], 0};
    struct phx_sample_output     mine, want;
    float                        gap = 0, gap_wanted, *row = c->logits + (size_t)got->row * V;
    const float                 *reference = c->whole + (size_t)i * V;
    bool                         is_decided = got->is_whole;
    struct phx_err               err;

    c->seen->n_rows++;
    c->seen->n_whole += got->is_whole;
    assert_int_equal(sample_whole(c, i, reference, &want, &gap_wanted), 0);
    if (!got->is_whole) {
        part.draw = draw_of(&got->draws[0]);
        part.norm = got->draws[c->needs[i].has_draw].sum;
        assert_int_equal(phx_sample_from(&in, c->g->V, &c->needs[i], &part, c->recorded[i], &is_decided, &mine, &err), 0);
        if (!is_decided)
            assert_int_equal(phx_model_late_logits(c->rank->model, i, row, &err), 0);
        c->seen->n_late += !is_decided;
    }
    if (got->is_whole || !is_decided) {
        assert_memory_equal(row, reference, V * sizeof(float));
        assert_int_equal(sample_whole(c, i, row, &mine, &gap), 0);
    }
    if (memcmp(&mine, &want, sizeof(mine)) != 0 || memcmp(&gap, &gap_wanted, sizeof(gap)) != 0)
        fail_msg("row %d, temperature %g, top_k %d, top_p %g, min_p %g, logprobs %d: %d (%a), not %d (%a)", c->rows[i],
                 (double)c->sampling[i].temperature, c->sampling[i].top_k, (double)c->sampling[i].top_p,
                 (double)c->sampling[i].min_p, c->sampling[i].n_logprobs, mine.token, (double)mine.logprob, want.token,
                 (double)want.logprob);
}

static int run_rounds(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    struct check *c = phx_mem_calloc(1, sizeof(*c));
    size_t        V;
    int           rc;

    memcpy(c, ctx, sizeof(*c));
    c->rank = rank;
    V = (size_t)c->g->V;
    c->whole = phx_mem_calloc(ROWS * V, sizeof(float));
    c->logits = phx_mem_calloc(ROWS * V, sizeof(float));
    c->copy = phx_mem_calloc(V, sizeof(float));
    c->blocks = phx_mem_calloc((size_t)rank->options->n_blocks, sizeof(int32_t));
    for (int32_t i = 0; i < rank->options->n_blocks; i++)
        c->blocks[i] = i;
    for (int32_t i = 0; i < ROWS; i++)
        c->rows[i] = c->g->T - ROWS + i;
    rc = phx_sampler_create(c->g->V, &c->sampler, err);
    if (rc == 0)
        rc = run_step(c, true, c->whole, err);
    for (int round = 0; round < c->n_rounds && rc == 0; round++) {
        make_wants(c);
        rc = run_step(c, false, c->logits, err);
        for (int32_t i = 0; i < ROWS && rc == 0 && rank->has_logits; i++)
            check_row(c, i);
    }
    phx_sampler_destroy(c->sampler);
    phx_mem_free(c->whole);
    phx_mem_free(c->logits);
    phx_mem_free(c->copy);
    phx_mem_free(c->blocks);
    phx_mem_free(c);
    return rc;
}

struct sampling_seen sampling_check(const struct golden *g, const struct phx_ranks_options *options, int32_t n_rounds)
{
    struct sampling_seen seen = {0};
    struct check         c = {.g = g, .seen = &seen, .n_rounds = n_rounds, .random = 5};
    struct phx_err       err = {0};

    assert_true(g->T >= ROWS + 1);
    if (phx_ranks_run(options, run_rounds, &c, &err) != 0)
        fail_msg("%s at tp %d, pp %d: %s", g->dir, options->tp, options->pp, err.text);
    print_message("tp %d, pp %d: %d rows, %d whole, %d late\n", options->tp, options->pp, seen.n_rows, seen.n_whole,
                  seen.n_late);
    assert_int_equal(seen.n_rows, ROWS * n_rounds);
    return seen;
}
