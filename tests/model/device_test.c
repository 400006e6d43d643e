/* SPDX-License-Identifier: Apache-2.0
 * Whole models on backend cuda, the module beside this program (build/tests has the emulated one): golden logits of
 * every family, the same bits in every layout and chunking, and the demo model's answers as the CPU gives them.
 * Arguments: how many of the demo's questions are asked (0: none); the largest tp; the family of golden models. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "tests/model/harness.h"

enum { ANSWER_MAX = 160, PROMPTS_MAX = 64, END_TOKEN = 260, CONTEXT_MAX = 640 };

static int32_t     n_prompts = 2, tp_max = 2;
static const char *family = "";

/* ---- golden logits -------------------------------------------------------------------------- */

static int32_t best_of(const float *row, int32_t V)
{
    int32_t best = 0;

    for (int32_t v = 1; v < V; v++)
        best = row[v] > row[best] ? v : best;
    return best;
}

static float *run_over(const struct golden *g, const char *backend, enum phx_transport transport, int32_t tp, int32_t pp,
                       int32_t chunk)
{
    struct phx_ranks_options o = harness_options(g, tp, pp);

    o.backend = backend;
    o.transport = transport;
    o.kv_dtype = harness_compute == PHX_COMPUTE_BF16 ? PHX_DTYPE_BF16 : PHX_DTYPE_F32;
    return harness_text(g, &o, chunk);
}

static float *run_on(const struct golden *g, const char *backend, int32_t tp, int32_t pp, int32_t chunk)
{
    return run_over(g, backend, PHX_TRANSPORT_AUTO, tp, pp, chunk);
}

/* Rows whose best id the reference itself is sure about, by more than both may be wrong. */
static void assert_same_choice(const struct golden *g, const float *got, double error)
{
    for (int32_t t = 0; t < g->T; t++) {
        const float *want = g->logits + (ptrdiff_t)t * g->V;
        int32_t      best = best_of(want, g->V), mine = best_of(got + (ptrdiff_t)t * g->V, g->V);

        if (mine != best && (double)want[best] - (double)want[mine] > 2 * error)
            fail_msg("%s: row %d chooses %d, the reference %d", g->dir, t, mine, best);
    }
}

static double largest_of(const float *a, size_t n)
{
    double largest = 0;

    for (size_t i = 0; i < n; i++)
        largest = fabs((double)a[i]) > largest ? fabs((double)a[i]) : largest;
    return largest;
}

/* In bf16 the error is that of the arithmetic, which the CPU has as well; in another order of additions. */
static double bound_of(const struct golden *g, size_t n)
{
    float *cpu;
    double error;

    if (harness_compute == PHX_COMPUTE_F32)
        return 1e-4;
    cpu = run_on(g, "cpu", 1, 1, g->T);
    error = relative_error(cpu, g->logits, n);
    phx_mem_free(cpu);
    return 2 * error + 0.01;
}

static void golden_logits(enum phx_compute compute)
{
    harness_compute = compute;
    for (int32_t i = 0; i < CASES; i++) {
        if (strstr(case_names[i], family) == NULL)
            continue;
        struct golden g = golden_load(case_names[i]);
        size_t        n = (size_t)g.T * (size_t)g.V;
        float        *got = run_on(&g, "cuda", 1, 1, g.T);
        double        error = relative_error(got, g.logits, n), bound = bound_of(&g, n);

        print_message("%s, compute %s: relative error %.2g (below %.2g)\n", case_names[i],
                      compute == PHX_COMPUTE_F32 ? "f32" : "bf16", error, bound);
        if (!(error < bound))
            fail_msg("%s: relative error %g", case_names[i], error);
        assert_same_choice(&g, got, bound * largest_of(g.logits, n));
        phx_mem_free(got);
        golden_free(&g);
    }
    harness_compute = PHX_COMPUTE_F32;
}

static void golden_logits_in_float32(void **state)
{
    (void)state;
    golden_logits(PHX_COMPUTE_F32);
}

static void golden_logits_in_bf16(void **state)
{
    (void)state;
    golden_logits(PHX_COMPUTE_BF16);
}

static void layouts_of(const struct golden *g)
{
    static const int32_t layouts[][4] = {{1, 1, 1}, {1, 1, 5}, {2, 1, 16}, {1, 2, 7}, {2, 2, 9}, {4, 1, 16},
                                         {2, 1, 9, PHX_TRANSPORT_PEER}, {4, 1, 16, PHX_TRANSPORT_PEER}};
    float               *want = run_on(g, "cuda", 1, 1, g->T);

    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        float *got;

        if (layouts[i][0] > tp_max)
            continue;
        got = run_over(g, "cuda", (enum phx_transport)layouts[i][3], layouts[i][0], layouts[i][1], layouts[i][2]);
        assert_same_bits(got, want, g->T, g->V, g->dir);
        phx_mem_free(got);
    }
    phx_mem_free(want);
}

static void every_layout_and_chunk_gives_the_same_bits(void **state)
{
    static const char *const names[] = {"gpt-oss-window-f32", "gpt-oss-parameters-bf16", "llama3-tied-bf16"};

    (void)state;
    for (int compute = 0; compute < 2; compute++)
        for (size_t i = 0; i < 3; i++) {
            if (strstr(names[i], family) == NULL)
                continue;
            struct golden g = golden_load(names[i]);

            harness_compute = compute == 0 ? PHX_COMPUTE_F32 : PHX_COMPUTE_BF16;
            layouts_of(&g);
            golden_free(&g);
        }
    harness_compute = PHX_COMPUTE_F32;
}

/* ---- the demo model ------------------------------------------------------------------------- */

struct question {
    int32_t prompt[CONTEXT_MAX], n_prompt;
    int32_t end[ANSWER_MAX], n_end; /* how an exact answer ends */
};

struct answer {
    int32_t tokens[ANSWER_MAX], n;
};

struct quiz {
    struct question q[PROMPTS_MAX];
    int32_t         n;
    struct answer   answers[PROMPTS_MAX]; /* of rank 0 */
};

static int32_t read_ids(const json_t *ids, int32_t *out, size_t max)
{
    size_t n = json_array_size(ids);

    assert_true(n > 0 && n <= max);
    for (size_t i = 0; i < n; i++)
        out[i] = (int32_t)json_integer_value(json_array_get(ids, i));
    return (int32_t)n;
}

static struct quiz *load_quiz(void)
{
    struct quiz   *quiz = phx_mem_calloc(1, sizeof(*quiz));
    struct phx_err err = {0};
    json_t        *root = NULL;
    char          *path = phx_mem_printf("%s/tests/gpu/prompts.json", harness_root());

    if (phx_json_load(&root, path, 1 << 20, 0, &err) != 0)
        fail_msg("%s", err.text);
    phx_mem_free(path);
    for (size_t i = 0; i < json_array_size(root) && quiz->n < n_prompts; i++, quiz->n++) {
        /* spread over the kinds of questions */
        size_t           at = i * json_array_size(root) / (size_t)n_prompts;
        const json_t    *item = json_array_get(root, n_prompts < (int32_t)json_array_size(root) ? at : i);
        struct question *q = &quiz->q[i];

        q->n_prompt = read_ids(json_object_get(item, "prompt"), q->prompt, CONTEXT_MAX - ANSWER_MAX);
        q->n_end = read_ids(json_object_get(item, "end"), q->end, ANSWER_MAX);
    }
    json_decref(root);
    return quiz;
}

/* The best token behind rows of the text at [first, first + n), the same on every rank. */
static int next_token(struct phx_rank *rank, const int32_t *text, int32_t first, int32_t n, const int32_t *blocks,
                      float *logits, int32_t *token, struct phx_err *err)
{
    int32_t          zero = 0, last = n - 1, V = rank->config->vocab_size;
    struct phx_batch batch = {.n_rows = n, .tokens = text + first, .n_logits = 1, .logit_rows = &last,
                              .spans = {.n_seqs = 1, .row = &zero, .n_rows = &n, .pos = &first, .table = blocks,
                                        .table_stride = rank->options->n_blocks}};
    size_t           size = sizeof(*token);
    int              rc = phx_model_step(rank->model, &batch, phx_view(logits, 1, V), err);

    if (rc == 0 && rank->has_logits) {
        *token = best_of(logits, V);
        rc = phx_comm_result_send(rank->comm, token, size);
    }
    if (rc == 0 && rank->part->rank == 0)
        rc = phx_comm_result_recv(rank->comm, token, sizeof(*token), &size, -1);
    return rc == 0 ? phx_comm_bcast(rank->comm, token, sizeof(*token), &size) : rc;
}

static int answer_one(struct phx_rank *rank, const struct question *q, const int32_t *blocks, float *logits,
                      struct answer *out, struct phx_err *err)
{
    int32_t text[CONTEXT_MAX], n = q->n_prompt, done = 0, token = -1;
    int     rc = 0;

    memcpy(text, q->prompt, (size_t)n * sizeof(*text));
    out->n = 0;
    while (rc == 0 && token != END_TOKEN && out->n < ANSWER_MAX) {
        rc = next_token(rank, text, done, n - done, blocks, logits, &token, err);
        done = n;
        text[n++] = token;
        out->tokens[out->n++] = token;
    }
    return rc;
}

static int answer_all(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    struct quiz  *quiz = ctx;
    int32_t       blocks[CONTEXT_MAX];
    float        *logits = phx_mem_calloc((size_t)rank->config->vocab_size, sizeof(*logits));
    struct answer mine;
    int           rc = 0;

    for (int32_t i = 0; i < rank->options->n_blocks; i++)
        blocks[i] = i;
    for (int32_t i = 0; i < quiz->n && rc == 0; i++)
        rc = answer_one(rank, &quiz->q[i], blocks, logits, rank->part->rank == 0 ? &quiz->answers[i] : &mine, err);
    phx_mem_free(logits);
    return rc;
}

static void ask_with(struct quiz *quiz, const char *backend, int32_t tp, int32_t pp, enum phx_compute compute,
                     enum phx_dtype kv_dtype)
{
    struct phx_ranks_options o;
    struct phx_err           err = {0};
    char                    *dir = phx_mem_printf("%s/deploy/demo/model", harness_root());

    phx_ranks_defaults(&o);
    o.dir = dir;
    o.backend = backend;
    o.compute = compute;
    o.kv_dtype = kv_dtype;
    o.tp = tp;
    o.pp = pp;
    o.comm = PHX_RANKS_LOCAL;
    o.n_threads = 1;
    o.max_rows = o.max_context = CONTEXT_MAX;
    o.max_seqs = o.max_logits = 1;
    o.n_blocks = CONTEXT_MAX / o.block_tokens;
    if (phx_ranks_run(&o, answer_all, quiz, &err) != 0)
        fail_msg("%s at tp %d, pp %d: %s", backend, tp, pp, err.text);
    phx_mem_free(dir);
}

static void ask(struct quiz *quiz, const char *backend, int32_t tp, int32_t pp, enum phx_compute compute)
{
    ask_with(quiz, backend, tp, pp, compute, compute == PHX_COMPUTE_BF16 ? PHX_DTYPE_BF16 : PHX_DTYPE_F32);
}

static int32_t count_exact(const struct quiz *quiz)
{
    int32_t n_exact = 0;

    for (int32_t i = 0; i < quiz->n; i++) {
        const struct question *q = &quiz->q[i];
        const struct answer   *a = &quiz->answers[i];

        n_exact += a->n >= q->n_end &&
                   memcmp(a->tokens + a->n - q->n_end, q->end, (size_t)q->n_end * sizeof(*q->end)) == 0;
    }
    return n_exact;
}

static void assert_same_answers(const struct quiz *got, const struct quiz *want, const char *what)
{
    for (int32_t i = 0; i < want->n; i++)
        for (int32_t k = 0; k < want->answers[i].n || k < got->answers[i].n; k++)
            if (k >= got->answers[i].n || k >= want->answers[i].n ||
                got->answers[i].tokens[k] != want->answers[i].tokens[k])
                fail_msg("%s: answer %d is another one from token %d on", what, i, k);
}

static void the_demo_answers_as_on_the_cpu(void **state)
{
    struct quiz *cpu = load_quiz(), *cuda = load_quiz();

    (void)state;
    ask(cpu, "cpu", 1, 1, PHX_COMPUTE_F32);
    ask(cuda, "cuda", 1, 1, PHX_COMPUTE_F32);
    print_message("exact answers: %d of %d on cuda, %d on cpu\n", count_exact(cuda), cuda->n, count_exact(cpu));
    assert_same_answers(cuda, cpu, "float32");
    assert_true(count_exact(cuda) * 10 >= 8 * cuda->n);
    phx_mem_free(cpu);
    phx_mem_free(cuda);
}

static void the_demo_answers_alike_in_every_layout(void **state)
{
    static const int32_t layouts[][2] = {{2, 1}, {1, 2}, {2, 2}};
    struct quiz         *whole = load_quiz(), *split = load_quiz();

    (void)state;
    ask(whole, "cuda", 1, 1, PHX_COMPUTE_BF16);
    print_message("exact answers in bf16: %d of %d\n", count_exact(whole), whole->n);
    for (size_t i = 0; i < 3; i++) {
        ask(split, "cuda", layouts[i][0], layouts[i][1], PHX_COMPUTE_BF16);
        assert_same_answers(split, whole, "bf16");
    }
    assert_true(count_exact(whole) * 10 >= 8 * whole->n);
    phx_mem_free(whole);
    phx_mem_free(split);
}

/* In float32 as on the CPU, whose cache has the same bits; in bf16 alike in every layout. */
static void the_demo_answers_from_an_int8_cache(void **state)
{
    struct quiz *want = load_quiz(), *got = load_quiz();

    (void)state;
    ask_with(want, "cpu", 1, 1, PHX_COMPUTE_F32, PHX_DTYPE_I8);
    ask_with(got, "cuda", 1, 1, PHX_COMPUTE_F32, PHX_DTYPE_I8);
    assert_same_answers(got, want, "float32, int8 cache");
    ask_with(want, "cuda", 1, 1, PHX_COMPUTE_BF16, PHX_DTYPE_I8);
    ask_with(got, "cuda", 2, 2, PHX_COMPUTE_BF16, PHX_DTYPE_I8);
    assert_same_answers(got, want, "bf16, int8 cache");
    assert_true(count_exact(want) * 10 >= 8 * want->n);
    phx_mem_free(want);
    phx_mem_free(got);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_logits_in_float32),
        cmocka_unit_test(golden_logits_in_bf16),
        cmocka_unit_test(every_layout_and_chunk_gives_the_same_bits),
    };
    const struct CMUnitTest demo_tests[] = {
        cmocka_unit_test(the_demo_answers_as_on_the_cpu),
        cmocka_unit_test(the_demo_answers_alike_in_every_layout),
        cmocka_unit_test(the_demo_answers_from_an_int8_cache),
    };
    int rc;

    if (argc > 1)
        n_prompts = (int32_t)strtol(argv[1], NULL, 10);
    if (argc > 2)
        tp_max = (int32_t)strtol(argv[2], NULL, 10);
    if (argc > 3)
        family = argv[3];
    if (n_prompts < 0 || n_prompts > PROMPTS_MAX)
        return 2;
    rc = cmocka_run_group_tests(tests, NULL, NULL);
    return n_prompts > 0 ? rc + cmocka_run_group_tests(demo_tests, NULL, NULL) : rc;
}
