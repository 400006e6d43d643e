/* SPDX-License-Identifier: Apache-2.0
 * Decoding steps that are filled up to few sizes: the sizes, the rows they are filled with, and whole answers on the
 * emulated device against those of steps that are neither filled up nor recorded. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "shard/step/pad.h"
#include "shard/step/stage.h"
#include "tests/emu/control.h"

enum { SEQS_MAX = 64, NEW_MAX = 44, PROMPT_MAX = 5 };

static struct phx_emu *emu;

static int find_emulator(void **state)
{
    void *module = dlopen(PHX_BIN_DIR "/../tests/phalanx_cuda.so", RTLD_NOW | RTLD_LOCAL);

    (void)state;
    if (module == NULL)
        fail_msg("%s", dlerror());
    emu = dlsym(module, "phx_emu");
    assert_non_null(emu);
    return 0;
}

/* ---- sizes and rows --------------------------------------------------------------------------- */

static void sizes_are_few(void **state)
{
    static const int32_t cases[][2] = {{1, 1}, {2, 2}, {15, 15}, {16, 16}, {17, 24}, {24, 24}, {25, 32}, {57, 64}, {64, 64},
                                       {65, 80}, {80, 80}, {241, 256}, {256, 256}, {257, 257}, {300, 300}};
    int32_t              n_sizes = 0, last = 0;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++)
        assert_int_equal(phx_pad_rows(cases[i][0], INT32_MAX), cases[i][1]);
    assert_int_equal(phx_pad_rows(17, 20), 20);
    assert_int_equal(phx_pad_rows(17, 17), 17);
    for (int32_t n = 1; n <= 256; n++) {
        int32_t rows = phx_pad_rows(n, 1000);

        assert_in_range(rows, n, n + 15);
        n_sizes += rows != last;
        last = rows;
    }
    assert_int_equal(n_sizes, 34);
}

/* 18 sequences with room for 20; the one at position 33 has the fewest keys. */
static void pads_repeat_the_shortest_sequence(void **state)
{
    enum { N = 18, ROOM = 20, STRIDE = 5 };
    int32_t tokens[ROOM], row[ROOM], n_rows[ROOM], pos[ROOM], table[ROOM * STRIDE], logit_rows[N];
    const struct phx_pad_room room = {tokens, row, n_rows, pos, table, ROOM};
    struct phx_batch          batch = {.tokens = tokens, .n_rows = N, .n_logits = N, .logit_rows = logit_rows,
                                       .spans = {.n_seqs = N, .row = row, .n_rows = n_rows, .pos = pos, .table = table,
                                                 .table_stride = STRIDE}};
    struct phx_batch          other = batch;

    (void)state;
    memset(table, 0x77, sizeof(table));
    for (int32_t i = 0; i < N; i++) {
        tokens[i] = 100 + i;
        row[i] = logit_rows[i] = i;
        n_rows[i] = 1;
        pos[i] = i == 7 ? 33 : 34 + i;
        for (int32_t j = 0; j < STRIDE; j++)
            table[i * STRIDE + j] = i * STRIDE + j;
    }
    other.n_logits--; /* a row whose logits nobody wants: no decoding step */
    phx_pad_batch(&other, &room, 16);
    assert_true(other.n_rows == N && other.n_pads == 0);
    phx_pad_batch(&batch, &room, 16);
    assert_int_equal(batch.n_rows, ROOM);
    assert_int_equal(batch.spans.n_seqs, ROOM);
    assert_int_equal(batch.n_logits, N);
    assert_int_equal(batch.n_pads, ROOM - N);
    for (int32_t i = N; i < ROOM; i++) {
        assert_true(tokens[i] == 107 && row[i] == i && n_rows[i] == 1 && pos[i] == 33);
        assert_memory_equal(table + i * STRIDE, table + 7 * STRIDE, 3 * sizeof(int32_t));
        assert_int_equal(table[i * STRIDE + 3], 0x77777777); /* not reached */
    }
}

/* ---- answers ---------------------------------------------------------------------------------- */

struct engine {
    struct phx_step_options options;
    struct phx_step         step;
    struct phx_head        *head;
    struct phx_err          err;
};

static struct engine *open_engine(const char *backend, const char *dir, enum phx_compute compute, bool is_eager)
{
    struct engine *e = phx_mem_calloc(1, sizeof(*e));

    e->options = (struct phx_step_options){
        .model_key = "", .model_dir = dir, .tp = 1, .pp = 1, .backend = backend, .compute = compute, .is_eager = is_eager,
        .n_shares = 1, .kv_dtype = compute == PHX_COMPUTE_BF16 ? PHX_DTYPE_BF16 : PHX_DTYPE_F32,
        .kv_blocks = SEQS_MAX * 6, .block_tokens = 16, .max_seqs = SEQS_MAX, .max_rows = SEQS_MAX * PROMPT_MAX,
        .max_context = PROMPT_MAX + NEW_MAX};
    if (phx_step_open(&e->options, &e->step, &e->err) != 0 || phx_step_load(&e->step, NULL, NULL, &e->err) != 0 ||
        phx_head_create(&e->step, &e->head, &e->err) != 0)
        fail_msg("%s", e->err.text);
    return e;
}

static void close_engine(struct engine *e)
{
    phx_head_stop(e->head);
    phx_head_destroy(e->head);
    phx_step_close(&e->step);
    phx_mem_free(e);
}

struct answer {
    int32_t tokens[NEW_MAX];
    float   logprobs[NEW_MAX];
    int32_t n;
};

struct answers {
    struct answer of[SEQS_MAX];
    uint64_t      n_prefill, n_decode; /* tokens, as the head counts them */
};

/* Sequence i begins with token i and has max_new + i * more tokens; some are drawn, some want logprobs. */
static void submit(struct engine *e, int32_t i, int32_t max_new)
{
    const int32_t     tokens[PROMPT_MAX] = {3 + i, 40 + i % 7, 9, 17, 60};
    int32_t           n = 1 + i % PROMPT_MAX;
    struct phx_submit r = {.seq_id = (uint64_t)i + 1, .tokens = tokens, .n_tokens = n, .n_prompt = n, .max_new = max_new};

    phx_sampling_init(&r.sampling);
    r.sampling.temperature = i % 3 == 0 ? 0.0f : 0.8f;
    r.sampling.top_p = i % 4 == 1 ? 0.9f : 1.0f;
    r.sampling.seed = (uint64_t)i;
    r.sampling.n_logprobs = i % 2 == 0 ? 2 : -1;
    r.sampling.presence_penalty = i % 9 == 4 ? 0.5f : 0.0f; /* needs the whole logits */
    phx_head_submit(e->head, &r);
}

static void run(struct engine *e, int32_t n, int32_t max_new, int32_t more, struct answers *all)
{
    struct phx_link_step out;

    memset(all, 0, sizeof(*all));
    for (int32_t i = 0; i < n; i++)
        submit(e, i, max_new + i * more);
    while (phx_head_has_work(e->head)) {
        if (phx_head_run(e->head, &out, &e->err) != 0)
            fail_msg("%s", e->err.text);
        all->n_prefill += (uint64_t)out.stats.n_prefill_tokens;
        all->n_decode += (uint64_t)out.stats.n_decode_tokens;
        for (int32_t j = 0; j < out.n_tokens; j++) {
            struct answer *a = &all->of[out.tokens[j].seq_id - 1];

            assert_int_equal(out.tokens[j].error_code, 0);
            assert_int_equal(out.tokens[j].index, a->n);
            a->logprobs[a->n] = out.tokens[j].logprob;
            a->tokens[a->n++] = out.tokens[j].token;
        }
    }
    for (int32_t i = 0; i < n; i++)
        assert_int_equal(all->of[i].n, max_new + i * more);
}

static const struct {
    const char      *dir;
    enum phx_compute compute;
} models[] = {{PHX_SOURCE_DIR "/tests/golden/gpt-oss-window-f32", PHX_COMPUTE_F32}, /* a mixture */
              {PHX_SOURCE_DIR "/tests/golden/llama3-tied-bf16", PHX_COMPUTE_BF16}};

static void filled_up_steps_give_the_same_answers(void **state)
{
    static const int32_t sizes[] = {1, 2, 16, 17, 23, 33, 64};
    enum { NEW = 4 };
    struct answers *want = phx_mem_calloc(2, sizeof(*want)), *got = want + 1;

    (void)state;
    for (size_t m = 0; m < sizeof(models) / sizeof(models[0]); m++) {
        struct engine *plain = open_engine("cuda", models[m].dir, models[m].compute, true);
        struct engine *filled = open_engine("cuda", models[m].dir, models[m].compute, false);

        for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
            int64_t n_graphs = emu->n_graphs, n_launches = emu->n_graph_launches;

            run(plain, sizes[i], NEW, 0, want);
            assert_int_equal(emu->n_graph_launches, n_launches);
            run(filled, sizes[i], NEW, 0, got);
            assert_memory_equal(got, want, sizeof(*want));
            if (sizes[i] == 23) { /* what 17 have left does for all steps */
                assert_int_equal(emu->n_graphs, n_graphs);
                assert_int_equal(emu->n_graph_launches, n_launches + NEW - 1);
            } else {
                assert_true(emu->n_graphs > n_graphs);
                assert_true(emu->n_graph_launches >= n_launches + NEW - 2);
            }
        }
        close_engine(plain);
        close_engine(filled);
    }
    phx_mem_free(want);
}

/* 40 sequences that end one after the other: no step has the size of another. */
static void a_shrinking_batch_needs_few_graphs(void **state)
{
    struct answers *want = phx_mem_calloc(2, sizeof(*want)), *got = want + 1;
    struct engine  *plain = open_engine("cuda", models[1].dir, models[1].compute, true);
    struct engine  *filled = open_engine("cuda", models[1].dir, models[1].compute, false);
    int64_t         n_graphs = emu->n_graphs, n_launches = emu->n_graph_launches;

    (void)state;
    run(plain, 40, 2, 1, want);
    run(filled, 40, 2, 1, got);
    assert_memory_equal(got, want, sizeof(*want));
    assert_in_range(emu->n_graphs - n_graphs, 3, 6); /* 24, 32 and 40 rows; again where the keys pass a power of two */
    assert_true(emu->n_graph_launches - n_launches >= 24 - 6);
    close_engine(plain);
    close_engine(filled);
    phx_mem_free(want);
}

/* A sequence of two rows, then n_ones of one row each. */
static int step_with(struct engine *e, int32_t n_ones, int32_t n_pads, int32_t logit_row)
{
    static const int32_t   tokens[] = {5, 6, 7, 7}, row[] = {0, 2, 3}, n_rows[] = {2, 1, 1}, pos[] = {0, 0, 0}, table[] = {0, 1, 1};
    int32_t                V = e->step.config.vocab_size;
    float                 *logits = phx_mem_calloc((size_t)V, sizeof(*logits));
    const struct phx_batch batch = {.n_rows = 2 + n_ones, .tokens = tokens, .n_logits = 1, .logit_rows = &logit_row,
                                    .n_pads = n_pads, .spans = {1 + n_ones, row, n_rows, pos, table, 1}};
    int rc = phx_model_step(e->step.model, &batch, phx_view(logits, 1, V), &e->err);

    phx_mem_free(logits);
    return rc;
}

static void what_cannot_be_a_pad_is_refused(void **state)
{
    struct engine *host = open_engine("cpu", models[0].dir, models[0].compute, false);
    struct engine *device = open_engine("cuda", models[0].dir, models[0].compute, false);

    (void)state;
    assert_int_equal(step_with(device, 2, 1, 2), 0);
    assert_int_equal(step_with(device, 2, 2, 1), 0);
    assert_int_equal(step_with(device, 2, 1, 3), PHX_E_INVALID); /* its logits are wanted */
    assert_non_null(strstr(device->err.text, "cannot be pads"));
    assert_int_equal(step_with(device, 2, 3, 0), PHX_E_INVALID); /* has two rows, and nothing is left */
    assert_int_equal(step_with(device, 0, 1, 0), PHX_E_INVALID);
    assert_int_equal(step_with(device, 2, -1, 1), PHX_E_INVALID);
    assert_int_equal(step_with(host, 2, 0, 2), 0);
    assert_int_equal(step_with(host, 2, 1, 2), PHX_E_INVALID); /* has no room for their logits */
    close_engine(host);
    close_engine(device);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_are_few),
        cmocka_unit_test(pads_repeat_the_shortest_sequence),
        cmocka_unit_test(filled_up_steps_give_the_same_answers),
        cmocka_unit_test(a_shrinking_batch_needs_few_graphs),
        cmocka_unit_test(what_cannot_be_a_pad_is_refused),
    };

    return cmocka_run_group_tests(tests, find_emulator, NULL);
}
