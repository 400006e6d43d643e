/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/model/harness.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"

const char *const case_names[CASES] = {
    "gpt-oss-window-f32", "gpt-oss-long-window-bf16", "gpt-oss-dequantised-bf16",
    "gpt-oss-parameters-bf16", "llama-mha-f32", "llama3-tied-bf16", "llama-linear-bias-f32",
    "llama3-untied-f16"};

/* ---- golden data ---------------------------------------------------------------------------- */

static void read_tokens(struct golden *g)
{
    struct phx_err err;
    json_t        *root = NULL;
    char          *path = phx_mem_printf("%s/tokens.json", g->dir);
    assert_int_equal(phx_json_load(&root, path, 1 << 20, 0, &err), 0);
    g->T = (int32_t)json_array_size(root);
    g->tokens = phx_mem_calloc((size_t)g->T, sizeof *g->tokens);
    for (int32_t i = 0; i < g->T; i++)
        g->tokens[i] = (int32_t)json_integer_value(json_array_get(root, (size_t)i));
    json_decref(root);
    phx_mem_free(path);
}

static void read_logits(struct golden *g)
{
    struct phx_err err;
    struct phx_buf b;
    char          *path = phx_mem_printf("%s/logits.npy", g->dir);
    int            rows = 0;
    phx_buf_init(&b, 0);
    assert_int_equal(phx_buf_read_file(&b, path, 1 << 24, &err), 0);
    assert_true(b.size > 10 && memcmp(b.data, "\x93NUMPY\1", 7) == 0);
    size_t      start = 10 + (unsigned char)b.data[8] + 256u * (unsigned char)b.data[9];
    const char *shape = strstr(b.data + 10, "'shape': (");
    assert_non_null(shape);
    assert_non_null(strstr(b.data + 10, "'<f4'"));
    assert_int_equal(sscanf(shape, "'shape': (%d, %d)", &rows, &g->V), 2);
    assert_int_equal(rows, g->T);
    size_t size = (size_t)g->T * (size_t)g->V * sizeof(float);
    assert_int_equal(b.size, start + size);
    g->logits = phx_mem_dup(b.data + start, size);
    phx_buf_fini(&b);
    phx_mem_free(path);
}

struct golden golden_load(const char *name)
{
    struct golden g = {.T = 0};
    (void)snprintf(g.dir, sizeof g.dir, "%s/tests/golden/%s", PHX_SOURCE_DIR, name);
    read_tokens(&g);
    read_logits(&g);
    return g;
}

void golden_free(struct golden *g)
{
    phx_mem_free(g->tokens);
    phx_mem_free(g->logits);
}

/* ---- running -------------------------------------------------------------------------------- */

enum phx_compute harness_compute = PHX_COMPUTE_F32;
bool             harness_is_int8 = false;

struct phx_ranks_options harness_options(const struct golden *g, int32_t tp, int32_t pp)
{
    struct phx_ranks_options o;
    phx_ranks_defaults(&o);
    o.dir = g->dir;
    o.compute = harness_compute;
    o.is_int8 = harness_is_int8;
    o.tp = tp;
    o.pp = pp;
    o.comm = PHX_RANKS_LOCAL;
    o.n_threads = 1;
    o.max_rows = o.max_logits = 2 * g->T;
    o.max_seqs = STEP_SEQS_MAX;
    o.max_context = g->T;
    o.n_blocks = 4 * ((g->T + o.block_tokens - 1) / o.block_tokens);
    return o;
}

/* The spans of one step and the tokens in them. */
struct laid_out {
    int32_t  row[STEP_SEQS_MAX], n_rows[STEP_SEQS_MAX], pos[STEP_SEQS_MAX];
    int32_t *table, *tokens, *rows;
    int32_t  n;
};

static struct laid_out lay_out(const struct phx_rank *rank, const struct plan *plan,
                               const struct step_plan *step, const int32_t *pos)
{
    struct laid_out l = {.n = 0};
    int32_t         stride = rank->options->n_blocks;
    l.table = phx_mem_calloc(STEP_SEQS_MAX * (size_t)stride, sizeof *l.table);
    l.tokens = phx_mem_calloc((size_t)rank->options->max_rows, sizeof *l.tokens);
    l.rows = phx_mem_calloc((size_t)rank->options->max_rows, sizeof *l.rows);
    for (int32_t i = 0; i < step->n_seqs; i++) {
        const struct sequence *s = &plan->seqs[step->seq[i]];
        int32_t blocks = (s->n + rank->options->block_tokens - 1) / rank->options->block_tokens;
        l.row[i] = l.n;
        l.n_rows[i] = step->n[i];
        l.pos[i] = pos[step->seq[i]];
        memcpy(l.table + (ptrdiff_t)i * stride, s->blocks, (size_t)blocks * sizeof(int32_t));
        memcpy(l.tokens + l.n, s->tokens + l.pos[i], (size_t)step->n[i] * sizeof(int32_t));
        l.n += step->n[i];
    }
    for (int32_t i = 0; i < l.n; i++)
        l.rows[i] = i;
    return l;
}

static int run_step(struct phx_rank *rank, const struct plan *plan, const struct step_plan *step,
                    const int32_t *pos, float *logits, struct phx_err *err)
{
    int32_t          V = rank->config->vocab_size;
    struct laid_out  l = lay_out(rank, plan, step, pos);
    struct phx_batch batch = {
        .n_rows = l.n, .tokens = l.tokens, .n_logits = l.n, .logit_rows = l.rows,
        .spans = {.n_seqs = step->n_seqs, .row = l.row, .n_rows = l.n_rows, .pos = l.pos,
                  .table = l.table, .table_stride = rank->options->n_blocks}};
    int code = phx_model_step(rank->model, &batch, phx_view(logits, l.n, V), err);
    for (int32_t i = 0; i < step->n_seqs && code == 0; i++) {
        float *to = plan->seqs[step->seq[i]].logits;
        if (rank->has_logits && to != NULL)
            memcpy(to + (ptrdiff_t)l.pos[i] * V, logits + (ptrdiff_t)l.row[i] * V,
                   (size_t)step->n[i] * (size_t)V * sizeof(float));
    }
    phx_mem_free(l.table);
    phx_mem_free(l.tokens);
    phx_mem_free(l.rows);
    return code;
}

static int body(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    const struct plan *plan = ctx;
    int32_t            pos[SEQS_MAX] = {0};
    int                first = 0;
    size_t             n = (size_t)rank->options->max_rows * (size_t)rank->config->vocab_size;
    float             *logits = rank->has_logits ? phx_mem_calloc(n, sizeof *logits) : NULL;
    for (int32_t i = 0; i < SEQS_MAX; i++)
        pos[i] = plan->seqs[i].start;
    for (int32_t i = 0; i < plan->n_steps; i++) {
        struct phx_err mine = {0};
        if (plan->before != NULL)
            plan->before(rank, i, plan->ctx);
        int code = run_step(rank, plan, &plan->steps[i], pos, logits, &mine);
        if (plan->after != NULL)
            plan->after(rank, i, code, plan->ctx);
        for (int32_t j = 0; j < plan->steps[i].n_seqs && i + 1 != plan->dropped; j++)
            pos[plan->steps[i].seq[j]] += plan->steps[i].n[j];
        if (code != 0 && first == 0) {
            first = code;
            *err = mine;
        }
    }
    phx_mem_free(logits);
    return first;
}

int harness_run(const struct phx_ranks_options *options, const struct plan *plan, struct phx_err *err)
{
    return phx_ranks_run(options, body, (void *)(uintptr_t)plan, err); /* the body only reads it */
}

float *harness_text(const struct golden *g, const struct phx_ranks_options *options, int32_t chunk)
{
    struct phx_err    err = {0};
    int32_t           n_steps = (g->T + chunk - 1) / chunk;
    int32_t          *blocks = phx_mem_calloc((size_t)options->n_blocks, sizeof *blocks);
    struct step_plan *steps = phx_mem_calloc((size_t)n_steps, sizeof *steps);
    float            *logits = phx_mem_calloc((size_t)g->T * (size_t)g->V, sizeof *logits);
    struct plan       plan = {.seqs = {{g->tokens, g->T, blocks, logits}}, .steps = steps,
                              .n_steps = n_steps};
    for (int32_t i = 0; i < options->n_blocks; i++)
        blocks[i] = i;
    for (int32_t i = 0; i < n_steps; i++) {
        steps[i].n_seqs = 1;
        steps[i].n[0] = g->T - i * chunk < chunk ? g->T - i * chunk : chunk;
    }
    if (harness_run(options, &plan, &err) != 0)
        fail_msg("%s at tp %d, pp %d, chunk %d: %s", g->dir, options->tp, options->pp, chunk, err.text);
    phx_mem_free(blocks);
    phx_mem_free(steps);
    return logits;
}

/* ---- comparing ------------------------------------------------------------------------------ */

void assert_same_bits(const float *a, const float *b, int32_t T, int32_t V, const char *what)
{
    for (int32_t t = 0; t < T; t++)
        for (int32_t v = 0; v < V; v++) {
            ptrdiff_t at = (ptrdiff_t)t * V + v;
            if (memcmp(&a[at], &b[at], sizeof *a) != 0)
                fail_msg("%s: row %d, id %d: %a is not %a", what, t, v, (double)a[at], (double)b[at]);
        }
}

double relative_error(const float *a, const float *b, size_t n)
{
    double worst = 0, largest = 0;
    for (size_t i = 0; i < n; i++) {
        double d = fabs((double)a[i] - (double)b[i]);
        worst = d > worst || isnan(d) ? d : worst;
        largest = fabs((double)b[i]) > largest ? fabs((double)b[i]) : largest;
    }
    return worst / largest;
}
