/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "shard/step/plan_wire.h"

enum { HEADER_BYTES = 24 };

/* The same as those of the fuzz target, whose corpus this test's plans are. */
static const struct phx_plan_limits limits = {
    .max_seqs = 8, .max_rows = 64, .max_context = 128, .max_blocks = 8, .n_blocks = 40,
    .vocab_size = 1000, .max_results = 8};

struct fixture {
    struct phx_sched        *sched;
    struct phx_plan_encoder *encoder;
    struct phx_plan_decoder *decoder;
    struct phx_buf           bytes;
    struct phx_err           err;
};

static int set_up(void **state)
{
    const struct phx_sched_options options = {
        .max_seqs = 8, .max_waiting = 8, .max_rows = 64, .max_context = 128, .block_tokens = 16,
        .n_blocks = 40, .n_inflight = 1, .vocab_size = 1000, .has_prefix_cache = true, .draft_rows = 8};
    struct fixture *f = phx_mem_calloc(1, sizeof(*f));

    assert_int_equal(phx_sched_create(&options, &f->sched, &f->err), 0);
    f->encoder = phx_plan_encoder_create(&limits);
    f->decoder = phx_plan_decoder_create(&limits);
    phx_buf_init(&f->bytes, phx_plan_max_bytes(&limits));
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    phx_sched_destroy(f->sched);
    phx_plan_encoder_destroy(f->encoder);
    phx_plan_decoder_destroy(f->decoder);
    phx_buf_fini(&f->bytes);
    phx_mem_free(f);
    return 0;
}

static void submit_check(struct fixture *f, uint64_t id, int32_t n_tokens, int32_t n_check)
{
    static const struct phx_bias bias[] = {{7, -2.5f}, {999, 100.0f}};
    static const int32_t         stops[] = {2, 3};
    int32_t                      tokens[128];
    struct phx_submit            r = {.seq_id = id, .tokens = tokens, .n_tokens = n_tokens,
                                      .n_prompt = n_tokens - n_check, .max_new = 20,
                                      .n_check = n_check};

    for (int32_t i = 0; i < n_tokens; i++)
        tokens[i] = (int32_t)(id * 100) + i;
    phx_sampling_init(&r.sampling);
    r.sampling.temperature = 0.75f;
    r.sampling.top_p = 0.5f;
    r.sampling.min_p = 0.125f;
    r.sampling.presence_penalty = -1.5f;
    r.sampling.frequency_penalty = 1.25f;
    r.sampling.repetition_penalty = 1.5f;
    r.sampling.top_k = 40;
    r.sampling.seed = 0x123456789abcdef0u;
    r.sampling.n_logprobs = 5;
    r.sampling.bias = bias;
    r.sampling.n_bias = 2;
    r.sampling.stop_ids = stops;
    r.sampling.n_stop_ids = 2;
    assert_int_equal(phx_sched_submit(f->sched, &r, &f->err), 0);
}

static void submit(struct fixture *f, uint64_t id, int32_t n_tokens)
{
    submit_check(f, id, n_tokens, 0);
}

static const struct phx_wire_plan *encode_next(struct fixture *f)
{
    const struct phx_plan      *plan = phx_sched_plan(f->sched);
    const struct phx_wire_plan *wire;

    assert_non_null(plan);
    phx_buf_clear(&f->bytes);
    phx_plan_encode(f->encoder, f->sched, plan, &f->bytes);
    assert_int_equal(phx_buf_check(&f->bytes, "plan", &f->err), 0);
    assert_int_equal(phx_plan_decode(f->decoder, f->bytes.data, f->bytes.size, &wire, &f->err), 0);
    assert_int_equal(wire->kind, PHX_PLAN_STEP);
    assert_int_equal(wire->step, plan->step);
    assert_int_equal(wire->n_seqs, plan->n_seqs);
    assert_int_equal(wire->n_rows, plan->n_rows);
    for (int32_t i = 0; i < plan->n_seqs; i++) {
        assert_int_equal(wire->seqs[i].slot, plan->seqs[i].slot);
        assert_int_equal(wire->seqs[i].pos, plan->seqs[i].pos);
        assert_int_equal(wire->seqs[i].n_rows, plan->seqs[i].n_rows);
        assert_int_equal(wire->seqs[i].is_new, plan->seqs[i].is_new);
        assert_int_equal(wire->seqs[i].is_sampled, plan->seqs[i].is_sampled);
        assert_int_equal(wire->seqs[i].n_checked, plan->seqs[i].n_checked);
        assert_int_equal(wire->seqs[i].n_drafts, plan->seqs[i].n_drafts);
    }
    return wire;
}

static void complete(struct fixture *f, int32_t token, int32_t n)
{
    struct phx_sampled     sampled[8];
    struct phx_sched_event events[16];

    for (int32_t i = 0; i < n; i++)
        sampled[i] = (struct phx_sampled){i, token + i};
    (void)phx_sched_complete(f->sched, sampled, n, 0, events);
}

static void a_new_sequence_travels_whole(void **state)
{
    struct fixture             *f = *state;
    const struct phx_wire_plan *wire;
    const struct phx_wire_seq  *s;

    submit(f, 1, 20);
    wire = encode_next(f);
    s = &wire->seqs[0];
    assert_int_equal(s->n_tokens, 20);
    assert_int_equal(s->tokens[19], 119);
    assert_int_equal(s->n_blocks, 2);
    assert_int_equal(s->n_prompt, 20);
    assert_true(s->sampling.temperature == 0.75f && s->sampling.top_p == 0.5f &&
                s->sampling.min_p == 0.125f && s->sampling.presence_penalty == -1.5f &&
                s->sampling.frequency_penalty == 1.25f && s->sampling.repetition_penalty == 1.5f);
    assert_int_equal(s->sampling.top_k, 40);
    assert_true(s->sampling.seed == 0x123456789abcdef0u);
    assert_int_equal(s->sampling.n_logprobs, 5);
    assert_int_equal(s->sampling.n_bias, 2);
    assert_int_equal(s->sampling.bias[1].token, 999);
    assert_true(s->sampling.bias[1].bias == 100.0f);
    assert_int_equal(s->sampling.n_stop_ids, 0); /* the head looks after those */
}

static void later_steps_carry_what_is_new(void **state)
{
    struct fixture             *f = *state;
    const struct phx_wire_plan *wire;

    submit(f, 1, 16);
    submit(f, 2, 3);
    (void)encode_next(f);
    complete(f, 500, 2);
    wire = encode_next(f);
    assert_int_equal(wire->seqs[0].n_tokens, 1);
    assert_int_equal(wire->seqs[0].tokens[0], 500);
    assert_int_equal(wire->seqs[0].n_blocks, 1); /* position 16 begins a block */
    assert_int_equal(wire->seqs[1].tokens[0], 501);
    assert_int_equal(wire->seqs[1].n_blocks, 0);
    assert_int_equal(f->bytes.size, HEADER_BYTES + 2 * 24 + 3 * 4);
}

static void a_dropped_step_is_not_sent_again(void **state)
{
    struct fixture             *f = *state;
    struct phx_sched_event      events[16];
    const struct phx_wire_plan *wire;

    submit(f, 1, 16);
    (void)encode_next(f);
    (void)phx_sched_complete(f->sched, NULL, 0, PHX_E_INTERNAL, events);
    wire = encode_next(f);
    assert_int_equal(wire->seqs[0].n_rows, 16);
    assert_int_equal(wire->seqs[0].n_tokens, 0);
    assert_false(wire->seqs[0].is_new);
}

static void the_stop_plan_is_only_a_header(void **state)
{
    struct fixture             *f = *state;
    const struct phx_wire_plan *wire;

    phx_plan_encode_stop(&f->bytes);
    assert_int_equal(f->bytes.size, HEADER_BYTES);
    assert_int_equal(phx_plan_decode(f->decoder, f->bytes.data, f->bytes.size, &wire, &f->err), 0);
    assert_int_equal(wire->kind, PHX_PLAN_STOP);
}

static int decode(struct fixture *f, const void *data, size_t size)
{
    const struct phx_wire_plan *wire;
    void                       *copy = phx_mem_dup(data, size); /* its end is watched by the sanitizers */
    int rc = phx_plan_decode(f->decoder, copy, size, &wire, &f->err);

    assert_true(rc == 0 || (rc == PHX_E_FORMAT && f->err.code == rc && wire == NULL &&
                            strncmp(f->err.text, "step plan: ", 11) == 0));
    phx_mem_free(copy);
    return rc;
}

static void a_cut_plan_is_refused_at_every_length(void **state)
{
    struct fixture *f = *state;

    submit(f, 1, 20);
    submit(f, 2, 5);
    (void)encode_next(f);
    for (size_t n = 0; n < f->bytes.size; n++)
        assert_int_equal(decode(f, f->bytes.data, n), PHX_E_FORMAT);
    phx_buf_put(&f->bytes, "\0\0\0\0", 4);
    assert_int_equal(decode(f, f->bytes.data, f->bytes.size), PHX_E_FORMAT);
    assert_non_null(strstr(f->err.text, "the end"));
}

/* Writes a 32-bit number over one at an offset of a good plan and expects the field in the refusal. */
static void lie(struct fixture *f, size_t offset, int32_t value, const char *field)
{
    char *copy = phx_mem_dup(f->bytes.data, f->bytes.size);

    memcpy(copy + offset, &value, sizeof(value));
    assert_int_equal(decode(f, copy, f->bytes.size), PHX_E_FORMAT);
    if (strstr(f->err.text, field) == NULL)
        fail_msg("%zu: '%s' does not name %s", offset, f->err.text, field);
    phx_mem_free(copy);
}

static void a_lying_plan_is_refused_by_field(void **state)
{
    struct fixture *f = *state;
    const size_t    seq = HEADER_BYTES, tokens = seq + 20, blocks = tokens + 20 * 4;
    const size_t    fresh = blocks + 4 + 2 * 4;
    float           nan = NAN;
    int32_t         nan_bits;

    memcpy(&nan_bits, &nan, sizeof(nan_bits));
    submit(f, 1, 20);
    (void)encode_next(f);
    lie(f, 0, 0, "magic");
    lie(f, 4, 3, "kind");
    lie(f, 16, 9, "n_seqs");
    lie(f, 16, -1, "n_seqs");
    lie(f, 20, 65, "n_rows");
    lie(f, 20, 21, "n_rows");
    lie(f, 20, 19, "n_rows");
    lie(f, seq, 8, "slot");
    lie(f, seq, -1, "slot");
    lie(f, seq + 4, 16, "flags");
    lie(f, seq + 4, 9, "guessed");
    lie(f, seq + 4, 11, "drafts");
    lie(f, seq + 4, 6, "sampled");
    lie(f, seq + 8, 128, "pos");
    lie(f, seq + 8, -1, "pos");
    lie(f, seq + 12, 0, "n_rows");
    lie(f, seq + 16, 129, "tokens");
    lie(f, seq + 16, -1, "tokens");
    lie(f, tokens, 1000, "tokens");
    lie(f, tokens, -1, "tokens");
    lie(f, blocks, 9, "blocks");
    lie(f, blocks + 4, 40, "blocks");
    lie(f, fresh, 0, "n_prompt");
    lie(f, fresh, 129, "n_prompt");
    lie(f, fresh + 4, nan_bits, "temperature");
    lie(f, fresh + 4 + 24, -1, "top_k");
    lie(f, fresh + 4 + 36, 21, "logprobs");
    lie(f, fresh + 4 + 40, 1025, "n_bias");
    lie(f, fresh + 4 + 40, 3, "bias");
}

static void checked_rows_travel_with_their_number(void **state)
{
    struct fixture             *f = *state;
    const struct phx_wire_plan *wire;

    submit_check(f, 1, 20, 5);
    submit(f, 2, 3);
    wire = encode_next(f);
    assert_int_equal(wire->seqs[0].n_rows, 19);
    assert_int_equal(wire->seqs[0].n_checked, 5);
    assert_int_equal(wire->seqs[0].n_tokens, 20); /* the last one is compared */
    assert_int_equal(wire->seqs[0].n_prompt, 15);
    assert_false(wire->seqs[0].is_sampled);
    assert_true(wire->seqs[1].is_sampled);
    assert_int_equal(wire->n_results, 6);
}

/* 7 8 9 7 8 9 .. goes on with 7 8, and then with what came of that. */
static void guesses_travel_behind_the_known_tokens(void **state)
{
    struct fixture             *f = *state;
    const int32_t               text[] = {7, 8, 9, 7, 8, 9, 7, 8};
    struct phx_submit           r = {.seq_id = 1, .tokens = text, .n_tokens = 8, .n_prompt = 8, .max_new = 20};
    const struct phx_sampled    sampled[] = {{0, 7}, {0, 8}, {0, 9}};
    const struct phx_wire_plan *wire;
    struct phx_sched_event      events[16];

    phx_sampling_init(&r.sampling);
    assert_int_equal(phx_sched_submit(f->sched, &r, &f->err), 0);
    (void)encode_next(f);
    complete(f, 9, 1);
    wire = encode_next(f);
    assert_int_equal(wire->n_results, 3);
    assert_int_equal(wire->seqs[0].n_rows, 3);
    assert_int_equal(wire->seqs[0].n_drafts, 2);
    assert_int_equal(wire->seqs[0].drafts[0], 7);
    assert_int_equal(wire->seqs[0].drafts[1], 8);
    assert_int_equal(wire->seqs[0].n_tokens, 1); /* the guesses are not known */
    lie(f, HEADER_BYTES + 16, 0, "drafts");
    lie(f, HEADER_BYTES + 16, 1, "drafts");
    lie(f, HEADER_BYTES + 16, 8, "drafts");
    lie(f, HEADER_BYTES + 20, 1000, "drafts");
    lie(f, HEADER_BYTES + 4, 2, "n_rows");
    assert_int_equal(phx_sched_complete(f->sched, sampled, 3, 0, events), 3);
    wire = encode_next(f);
    assert_int_equal(wire->seqs[0].n_tokens, 3);
    assert_int_equal(wire->seqs[0].n_drafts, 4);
    assert_int_equal(wire->seqs[0].drafts[0], 7);
    assert_int_equal(wire->seqs[0].drafts[3], 7);
}

/* More results than there are rows of logits would be written past their end. */
static void results_beyond_the_limit_are_refused(void **state)
{
    struct fixture *f = *state;
    const size_t    n_checked = HEADER_BYTES + 16;

    submit_check(f, 1, 20, 7);
    submit(f, 2, 3);
    (void)encode_next(f); /* 8 results: as many as sequences */
    lie(f, n_checked, 0, "n_checked");
    lie(f, n_checked, 9, "n_checked");
    lie(f, n_checked, INT32_MAX, "n_checked");
    lie(f, n_checked, 8, "sampled"); /* of the second */
    lie(f, HEADER_BYTES + 4, 1 | 2 | 4, "sampled");
    lie(f, HEADER_BYTES + 12, 6, "n_checked");
}

static void a_slot_may_come_once(void **state)
{
    struct fixture *f = *state;

    submit(f, 1, 4);
    submit(f, 2, 4);
    (void)encode_next(f);
    complete(f, 500, 2);
    (void)encode_next(f); /* 24 bytes and one token each */
    lie(f, HEADER_BYTES + 28, 0, "doubled");
}

static void flipped_bits_never_crash(void **state)
{
    struct fixture *f = *state;
    int             n_good = 0;

    submit(f, 1, 20);
    submit(f, 2, 5);
    (void)encode_next(f);
    for (size_t bit = 0; bit < f->bytes.size * 8; bit++) {
        f->bytes.data[bit / 8] ^= (char)(1 << bit % 8);
        n_good += decode(f, f->bytes.data, f->bytes.size) == 0;
        f->bytes.data[bit / 8] ^= (char)(1 << bit % 8);
    }
    assert_true(n_good > 100); /* another seed, another token: fine */
}

static void the_largest_plan_fits_the_bound(void **state)
{
    struct fixture *f = *state;

    for (uint64_t id = 1; id <= 8; id++)
        submit(f, id, 8);
    (void)encode_next(f);
    assert_true(f->bytes.size < phx_plan_max_bytes(&limits));
}

#define WITH_PLANS(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_PLANS(a_new_sequence_travels_whole),
        WITH_PLANS(later_steps_carry_what_is_new),
        WITH_PLANS(a_dropped_step_is_not_sent_again),
        WITH_PLANS(the_stop_plan_is_only_a_header),
        WITH_PLANS(a_cut_plan_is_refused_at_every_length),
        WITH_PLANS(a_lying_plan_is_refused_by_field),
        WITH_PLANS(checked_rows_travel_with_their_number),
        WITH_PLANS(results_beyond_the_limit_are_refused),
        WITH_PLANS(guesses_travel_behind_the_known_tokens),
        WITH_PLANS(a_slot_may_come_once),
        WITH_PLANS(flipped_bits_never_crash),
        WITH_PLANS(the_largest_plan_fits_the_bound),
    };

    return cmocka_run_group_tests_name("shard/step/plan_wire", tests, NULL, NULL);
}
