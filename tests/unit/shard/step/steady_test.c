/* SPDX-License-Identifier: Apache-2.0
 * A step of sequences that decode takes nothing from the heap or the system: head, scheduler, codecs, model, backend and
 * sampler, in every architecture and arithmetic. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "allocations.h"
#include "rpc/base/mem.h"
#include "shard/step/stage.h"

enum { SEQS = 4, WARM = 20, STEPS = 150, MAX_CONTEXT = 256, BLOCK_TOKENS = 16 };

struct replica {
    struct phx_step_options options;
    struct phx_step         step;
    struct phx_head        *head;
    struct phx_link_step    out;
};

static void open_replica(struct replica *r, const char *model, enum phx_compute compute, bool is_int8)
{
    struct phx_err err = {0};

    *r = (struct replica){.options = {
        .model_key = "", .model_dir = model, .tp = 1, .pp = 1, .backend = "cpu", .compute = compute,
        .is_int8 = is_int8, .n_threads = 2, .n_shares = 1,
        .kv_dtype = compute == PHX_COMPUTE_BF16 ? PHX_DTYPE_BF16 : PHX_DTYPE_F32,
        .kv_blocks = SEQS * MAX_CONTEXT / BLOCK_TOKENS, .block_tokens = BLOCK_TOKENS, .max_seqs = SEQS,
        .max_rows = 64, .max_context = MAX_CONTEXT, .has_prefix_cache = true,
    }};
    if (phx_step_open(&r->options, &r->step, &err) != 0 || phx_step_load(&r->step, NULL, NULL, &err) != 0 ||
        phx_head_create(&r->step, &r->head, &err) != 0)
        fail_msg("%s: %s", model, err.text);
}

static void close_replica(struct replica *r)
{
    phx_head_stop(r->head);
    phx_head_destroy(r->head);
    phx_step_close(&r->step);
}

/* Each asks for something else: the likeliest, a draw, every filter and penalty, all that is told about a token. */
static struct phx_sampling sampling_of(int32_t i)
{
    static const struct phx_bias bias[] = {{7, 1.5f}, {9, -2.0f}};
    struct phx_sampling          s;

    phx_sampling_init(&s);
    s.ignore_eos = true;
    s.seed = (uint64_t)i;
    s.temperature = i == 0 ? 0.0f : 0.8f;
    s.n_logprobs = i == 3 ? PHX_TOP_LOGPROBS_MAX : -1;
    if (i < 2)
        return s;
    s.top_p = 0.9f;
    s.top_k = 40;
    s.min_p = 0.01f;
    s.repetition_penalty = 1.1f;
    s.presence_penalty = 0.2f;
    s.frequency_penalty = 0.1f;
    s.bias = bias;
    s.n_bias = 2;
    return s;
}

static void submit_all(struct replica *r)
{
    for (int32_t i = 0; i < SEQS; i++) {
        int32_t           tokens[40];
        struct phx_submit submit = {.seq_id = (uint64_t)i + 1, .tokens = tokens, .n_tokens = 25 + 5 * i,
                                    .n_prompt = 25 + 5 * i, .max_new = WARM + STEPS + 10,
                                    .sampling = sampling_of(i)};

        for (int32_t at = 0; at < submit.n_tokens; at++)
            tokens[at] = 3 + (at * 11 + i) % 50;
        phx_head_submit(r->head, &submit);
    }
}

static void run(struct replica *r)
{
    struct phx_err err = {0};

    if (phx_head_run(r->head, &r->out, &err) != 0)
        fail_msg("%s", err.text);
    for (int32_t i = 0; i < r->out.n_tokens; i++)
        assert_int_equal(r->out.tokens[i].finish, PHX_FINISH_NONE);
}

static void assert_steady(const char *model, enum phx_compute compute, bool is_int8)
{
    struct replica r;
    uint64_t       n;
    int32_t        n_blocks;

    open_replica(&r, model, compute, is_int8);
    submit_all(&r);
    for (int i = 0; i < WARM; i++)
        run(&r);
    n_blocks = r.out.stats.kv_blocks_used;
    n = allocations_count();
    for (int i = 0; i < STEPS; i++) {
        run(&r);
        assert_int_equal(r.out.n_tokens, SEQS);
        assert_int_equal(r.out.stats.n_decode_tokens, SEQS);
    }
    n = allocations_count() - n;
    if (n != 0)
        fail_msg("%s, compute %d, int8 %d: %llu allocations in %d steps", model, (int)compute, is_int8,
                 (unsigned long long)n, STEPS);
    /* all of them went over many ends of blocks meanwhile */
    assert_true(r.out.stats.kv_blocks_used >= n_blocks + SEQS * (STEPS / BLOCK_TOKENS));
    close_replica(&r);
}

static void a_decoding_step_allocates_nothing(void **state)
{
    static const char *const models[] = {
        PHX_SOURCE_DIR "/tests/golden/llama3-tied-bf16", PHX_SOURCE_DIR "/tests/golden/llama-linear-bias-f32",
        PHX_SOURCE_DIR "/tests/golden/gpt-oss-window-f32", PHX_SOURCE_DIR "/tests/golden/gpt-oss-long-window-bf16"};

    (void)state;
    for (size_t i = 0; i < sizeof(models) / sizeof(*models); i++)
        for (int is_int8 = 0; is_int8 < 2; is_int8++) {
            assert_steady(models[i], PHX_COMPUTE_F32, is_int8 != 0);
            assert_steady(models[i], PHX_COMPUTE_BF16, is_int8 != 0);
        }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_decoding_step_allocates_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
