/* SPDX-License-Identifier: Apache-2.0
 * Batches on backend cuda, the module beside this program (build/tests has the emulated one): many sequences decoded
 * together, in steps that are recorded and replayed as graphs, and filled up or not, have the bits of each alone in
 * steps that are not, and whose launches do not overlap.
 * Arguments: the largest batch, and how many tokens each sequence gets. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "tests/emu/control.h"
#include "tests/model/harness.h"

enum { BATCH_MAX = 64, PROMPT_MAX = 5, NEW_MAX = 32, CONTEXT_BLOCKS = 3 };

static const int32_t sizes[] = {1, 2, 7, 8, 16, 17, 33, 64};
static int32_t       batch_max = 17, n_new = 5;

/* Sequences [first, first + n) of a run: tokens [BATCH_MAX][NEW_MAX] and the logits they were chosen from
 * [BATCH_MAX][NEW_MAX][V]. */
struct run {
    const struct golden *g;
    int32_t              first, n, n_pads; /* copies of sequence `first`, in all steps but the one of prompts */
    int32_t             *tokens;
    float               *logits;
    const int32_t       *fed; /* [BATCH_MAX][NEW_MAX] what goes in: the tokens chosen, which one rank alone knows */
};

static int32_t best_of(const float *row, int32_t V)
{
    int32_t best = 0;

    for (int32_t v = 1; v < V; v++)
        best = row[v] > row[best] ? v : best;
    return best;
}

/* Sequences differ in their beginning and its length. */
static int32_t prompt_of(const struct golden *g, int32_t i, const int32_t **tokens)
{
    *tokens = g->tokens + (5 * i) % (g->T - PROMPT_MAX);
    return 1 + i % PROMPT_MAX;
}

struct seats {
    int32_t row[BATCH_MAX], n_rows[BATCH_MAX], pos[BATCH_MAX], last[BATCH_MAX], table[BATCH_MAX * CONTEXT_BLOCKS];
    int32_t tokens[BATCH_MAX * PROMPT_MAX];
    int32_t n_rows_all;
};

/* Step k of the run: the prompts, then the token that was chosen last. */
static void seat(const struct run *r, int32_t k, struct seats *s)
{
    memset(s, 0, sizeof(*s));
    for (int32_t i = 0; i < r->n; i++) {
        const int32_t *prompt;
        int32_t        seq = r->first + i, n_prompt = prompt_of(r->g, seq, &prompt);

        s->row[i] = s->n_rows_all;
        s->n_rows[i] = k == 0 ? n_prompt : 1;
        s->pos[i] = k == 0 ? 0 : n_prompt + k - 1;
        memcpy(s->tokens + s->row[i], k == 0 ? prompt : &r->fed[seq * NEW_MAX + k - 1],
               (size_t)s->n_rows[i] * sizeof(int32_t));
        s->n_rows_all += s->n_rows[i];
        s->last[i] = s->n_rows_all - 1;
        for (int32_t j = 0; j < CONTEXT_BLOCKS; j++)
            s->table[i * CONTEXT_BLOCKS + j] = (i * CONTEXT_BLOCKS + j) * 7 % (BATCH_MAX * CONTEXT_BLOCKS);
    }
}

static void add_pads(int32_t n_seqs, int32_t n_pads, struct seats *s)
{
    for (int32_t i = n_seqs; i < n_seqs + n_pads; i++) {
        s->row[i] = s->n_rows_all++;
        s->n_rows[i] = 1;
        s->pos[i] = s->pos[0];
        s->tokens[s->row[i]] = s->tokens[0];
        memcpy(s->table + (size_t)i * CONTEXT_BLOCKS, s->table, CONTEXT_BLOCKS * sizeof(int32_t));
    }
}

static int run_rank(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    struct run   *r = ctx;
    int32_t       V = rank->config->vocab_size, rc = 0;
    struct seats *s = phx_mem_calloc(1, sizeof(*s));
    float        *logits = phx_mem_calloc((size_t)r->n * (size_t)V, sizeof(*logits));

    for (int32_t k = 0; k < n_new && rc == 0; k++) {
        struct phx_batch batch;
        int32_t          n_pads = k > 0 ? r->n_pads : 0;

        seat(r, k, s);
        add_pads(r->n, n_pads, s);
        batch = (struct phx_batch){.n_rows = s->n_rows_all, .tokens = s->tokens, .n_logits = r->n, .logit_rows = s->last,
                                   .n_pads = n_pads,
                                   .spans = {.n_seqs = r->n + n_pads, .row = s->row, .n_rows = s->n_rows, .pos = s->pos,
                                             .table = s->table, .table_stride = CONTEXT_BLOCKS}};
        rc = phx_model_step(rank->model, &batch, phx_view(logits, r->n, V), err);
        for (int32_t i = 0; i < r->n && rc == 0 && rank->has_logits; i++) {
            ptrdiff_t at = (ptrdiff_t)(r->first + i) * NEW_MAX + k;

            r->tokens[at] = best_of(logits + (ptrdiff_t)i * V, V);
            memcpy(r->logits + at * V, logits + (ptrdiff_t)i * V, (size_t)V * sizeof(float));
        }
    }
    phx_mem_free(logits);
    phx_mem_free(s);
    return rc;
}

static struct run make_run(const struct golden *g)
{
    int32_t *tokens = phx_mem_calloc(BATCH_MAX * NEW_MAX, sizeof(int32_t));

    return (struct run){.g = g, .tokens = tokens, .fed = tokens,
                        .logits = phx_mem_calloc(BATCH_MAX * NEW_MAX * (size_t)g->V, sizeof(float))};
}

static void free_run(struct run *r)
{
    phx_mem_free(r->tokens);
    phx_mem_free(r->logits);
}

struct layout {
    int32_t tp, pp;
};
static const struct layout one = {1, 1};

static void decode(struct run *r, int32_t first, int32_t n, struct layout l, bool is_eager)
{
    struct phx_ranks_options o = harness_options(r->g, l.tp, l.pp);
    struct phx_err           err = {0};

    o.is_eager = o.is_serial = is_eager;
    o.transport = l.tp > 1 ? PHX_TRANSPORT_PEER : PHX_TRANSPORT_AUTO;
    o.max_rows = BATCH_MAX * PROMPT_MAX;
    o.max_seqs = o.max_logits = BATCH_MAX;
    o.n_blocks = BATCH_MAX * CONTEXT_BLOCKS;
    r->first = first;
    r->n = n;
    if (phx_ranks_run(&o, run_rank, r, &err) != 0)
        fail_msg("%s: %s", r->g->dir, err.text);
}

/* NULL on a real device, which does not count. */
static struct phx_emu *find_emulator(void)
{
    static struct phx_emu *emu;
    char                   path[600];
    ssize_t                n = readlink("/proc/self/exe", path, sizeof(path) / 2);
    void                  *module;

    if (emu == NULL && n > 0 && n < (ssize_t)sizeof(path) / 2) {
        path[n] = '\0';
        memcpy(strrchr(path, '/') + 1, "phalanx_cuda.so", sizeof("phalanx_cuda.so"));
        module = dlopen(path, RTLD_NOW | RTLD_LOCAL);
        emu = module != NULL ? dlsym(module, "phx_emu") : NULL;
    }
    return emu;
}

static void compare_size(struct run *together, const struct run *alone, int32_t n, struct layout l, int32_t n_pads)
{
    const struct golden  *g = alone->g;
    const struct phx_emu *emu = find_emulator();
    int64_t               before = emu != NULL ? emu->n_graph_launches : 0;

    together->n_pads = n_pads;
    together->fed = l.pp * l.tp > 1 ? alone->tokens : together->tokens;
    decode(together, 0, n, l, false);
    if (emu != NULL && emu->n_graph_launches < before + l.tp * l.pp * (n_new - 2))
        fail_msg("%s: a batch of %d was not replayed", g->dir, n);
    for (int32_t s = 0; s < n; s++) {
        size_t at = (size_t)s * NEW_MAX;

        assert_same_bits(together->logits + at * (size_t)g->V, alone->logits + at * (size_t)g->V, n_new, g->V, g->dir);
        assert_memory_equal(together->tokens + at, alone->tokens + at, (size_t)n_new * sizeof(int32_t));
    }
    memset(together->tokens, 0, BATCH_MAX * NEW_MAX * sizeof(int32_t));
    memset(together->logits, 0, BATCH_MAX * NEW_MAX * (size_t)g->V * sizeof(float));
}

/* Ranks whose sums go over peer memory are recorded as well: each on a device of its own, of which a real host may have
 * too few. */
static void compare_tensor_parallel(struct run *together, const struct run *alone)
{
    struct phx_emu *emu = find_emulator();

    if (emu == NULL)
        return;
    emu->n_devices = 2;
    compare_size(together, alone, 1, (struct layout){2, 1}, 0);
    if (batch_max >= 9)
        compare_size(together, alone, 9, (struct layout){2, 1}, 7);
    emu->n_devices = 1;
}

static void compare(const struct golden *g)
{
    struct run alone = make_run(g), together = make_run(g);

    for (int32_t i = 0; i < batch_max; i++)
        decode(&alone, i, 1, one, true);
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]) && sizes[i] <= batch_max; i++)
        compare_size(&together, &alone, sizes[i], one, 0);
    if (batch_max >= 9) {
        compare_size(&together, &alone, 9, one, 7);
        compare_size(&together, &alone, 9, (struct layout){1, 2}, 3);
    }
    compare_tensor_parallel(&together, &alone);
    free_run(&alone);
    free_run(&together);
}

static void a_batch_and_its_replay_change_no_bit(void **state)
{
    static const struct {
        const char      *name;
        enum phx_compute compute;
    } cases[] = {{"gpt-oss-window-f32", PHX_COMPUTE_F32}, {"gpt-oss-parameters-bf16", PHX_COMPUTE_BF16},
                 {"llama3-tied-bf16", PHX_COMPUTE_BF16}};

    (void)state;
    harness_backend = "cuda";
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct golden g = golden_load(cases[i].name);

        harness_compute = cases[i].compute;
        assert_true(g.T > PROMPT_MAX && PROMPT_MAX + n_new <= g.T);
        compare(&g);
        golden_free(&g);
    }
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_and_its_replay_change_no_bit),
    };

    if (argc > 1)
        batch_max = (int32_t)strtol(argv[1], NULL, 10);
    if (argc > 2)
        n_new = (int32_t)strtol(argv[2], NULL, 10);
    if (batch_max < 1 || batch_max > BATCH_MAX || n_new < 3 || n_new > NEW_MAX)
        return 2;
    return cmocka_run_group_tests(tests, NULL, NULL);
}
