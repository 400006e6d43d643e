/* SPDX-License-Identifier: Apache-2.0
 * A step plan, and the same bytes as a step result: whatever they say, every accepted number is within the
 * limits and every list lies inside the message. */
#include <stdint.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/step/plan_wire.h"
#include "shard/step/stage.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

enum { SIZE_MAX_BYTES = 1 << 20 };

static const struct phx_plan_limits limits = {
    .max_seqs = 8, .max_rows = 64, .max_context = 128, .max_blocks = 8, .n_blocks = 40,
    .vocab_size = 1000, .max_results = 8};

static void check_list(const int32_t *list, int32_t n, int32_t limit, const char *data, size_t size)
{
    phx_assert(n >= 0);
    if (n == 0)
        return;
    phx_assert((const char *)list >= data && (const char *)(list + n) <= data + size);
    for (int32_t i = 0; i < n; i++)
        phx_assert(list[i] >= 0 && list[i] < limit);
}

static void check_plan(const struct phx_wire_plan *plan, const char *data, size_t size)
{
    int32_t n_rows = 0, n_results = 0;

    phx_assert(plan->kind == PHX_PLAN_STEP || plan->kind == PHX_PLAN_STOP);
    phx_assert(plan->n_seqs >= 0 && plan->n_seqs <= limits.max_seqs);
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        const struct phx_wire_seq *s = &plan->seqs[i];

        phx_assert(s->slot >= 0 && s->slot < limits.max_seqs);
        for (int32_t j = 0; j < i; j++)
            phx_assert(plan->seqs[j].slot != s->slot);
        phx_assert(s->pos >= 0 && s->pos < limits.max_context && s->n_rows >= 1);
        check_list(s->tokens, s->n_tokens, limits.vocab_size, data, size);
        check_list(s->blocks, s->n_blocks, limits.n_blocks, data, size);
        phx_assert(s->n_checked >= 0 && s->n_checked <= s->n_rows && !(s->is_sampled && s->n_checked > 0));
        n_rows += s->n_rows;
        check_list(s->drafts, s->n_drafts, limits.vocab_size, data, size);
        phx_assert(s->n_drafts == 0 || (s->is_sampled && s->n_drafts == s->n_rows - 1));
        n_results += s->is_sampled + s->n_checked + s->n_drafts;
        if (s->is_new)
            phx_assert(phx_sampling_check(&s->sampling, NULL) == 0 && s->n_prompt >= 1);
    }
    phx_assert(n_rows == plan->n_rows && n_rows <= limits.max_rows);
    phx_assert(n_results == plan->n_results && n_results <= limits.max_results);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct phx_plan_decoder    *decoder = phx_plan_decoder_create(&limits);
    const struct phx_wire_plan *plan;
    struct phx_result_token     tokens[8];
    struct phx_result           result = {.tokens = tokens};
    struct phx_err              err;
    char                       *copy;

    size = size < SIZE_MAX_BYTES ? size : SIZE_MAX_BYTES;
    copy = phx_mem_dup(data, size); /* aligned, as messages are */
    if (phx_plan_decode(decoder, copy, size, &plan, &err) == 0)
        check_plan(plan, copy, size);
    else
        phx_assert(err.code == PHX_E_FORMAT && plan == NULL);
    if (phx_result_decode(copy, size, &limits, &result, &err) == 0)
        for (int32_t i = 0; i < result.n_tokens; i++)
            phx_assert(tokens[i].slot >= 0 && tokens[i].slot < limits.max_seqs &&
                       tokens[i].token >= -1 && tokens[i].token < limits.vocab_size && tokens[i].gap >= 0);
    phx_mem_free(copy);
    phx_plan_decoder_destroy(decoder);
    return 0;
}
