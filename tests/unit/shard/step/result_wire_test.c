/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "shard/step/stage.h"

enum { SEQS = 4, RESULTS = 6, VOCAB = 100 };

static const struct phx_plan_limits limits = {.max_seqs = SEQS, .vocab_size = VOCAB, .max_results = RESULTS};

static void encode(struct phx_buf *out)
{
    struct phx_result_token tokens[2] = {
        {.slot = 3, .token = 99, .logprob = -0.5f, .gap = 0.25f, .n_top = 2, .top_ids = {99, 0},
         .top_logprobs = {-0.5f, -1.5f}},
        {.slot = 0, .token = -1},
    };
    const struct phx_result result = {.step = 77, .n_tokens = 2, .tokens = tokens};

    phx_buf_init(out, phx_result_max_bytes(RESULTS));
    phx_result_encode(&result, out);
    assert_int_equal(phx_buf_check(out, "result", NULL), 0);
}

static int decode(const void *data, size_t size, struct phx_result *result)
{
    static struct phx_result_token tokens[RESULTS];
    struct phx_err                 err;
    void                          *copy = phx_mem_dup(data, size);
    int                            rc;

    *result = (struct phx_result){.tokens = tokens};
    rc = phx_result_decode(copy, size, &limits, result, &err);
    assert_true(rc == 0 || rc == PHX_E_FORMAT);
    phx_mem_free(copy);
    return rc;
}

static void a_result_comes_back_as_it_was(void **state)
{
    struct phx_result r;
    struct phx_buf    bytes;

    (void)state;
    encode(&bytes);
    assert_int_equal(decode(bytes.data, bytes.size, &r), 0);
    assert_int_equal(r.step, 77);
    assert_int_equal(r.code, 0);
    assert_int_equal(r.n_tokens, 2);
    assert_int_equal(r.tokens[0].slot, 3);
    assert_int_equal(r.tokens[0].token, 99);
    assert_true(r.tokens[0].gap == 0.25f && r.tokens[1].gap == 0);
    assert_true(r.tokens[0].logprob == -0.5f && r.tokens[0].top_logprobs[1] == -1.5f);
    assert_int_equal(r.tokens[0].top_ids[0], 99);
    assert_int_equal(r.tokens[1].token, -1);
    phx_buf_fini(&bytes);
}

static void a_cut_or_longer_result_is_refused(void **state)
{
    struct phx_result r;
    struct phx_buf    bytes;

    (void)state;
    encode(&bytes);
    for (size_t n = 0; n < bytes.size; n++)
        assert_int_equal(decode(bytes.data, n, &r), PHX_E_FORMAT);
    phx_buf_putc(&bytes, 0);
    assert_int_equal(decode(bytes.data, bytes.size, &r), PHX_E_FORMAT);
    phx_buf_fini(&bytes);
}

static void a_lying_result_is_refused(void **state)
{
    static const struct {
        size_t  offset;
        int32_t value;
    } lies[] = {
        {8, 1},            /* code above 0 */
        {12, -1}, {12, 5}, /* n_tokens */
        {16, 4}, {16, -1}, /* slot */
        {20, VOCAB}, {20, -2}, /* token */
        {28, (int32_t)0xbf800000}, {28, 0x7f800000}, {28, 0x7fc00000}, /* gap: -1, infinite, no number */
        {32, 21}, {32, -1},    /* n_top */
        {36, VOCAB}, {36, -1}, /* a top id */
    };
    struct phx_result r;
    struct phx_buf    bytes;

    (void)state;
    encode(&bytes);
    for (size_t i = 0; i < sizeof(lies) / sizeof(*lies); i++) {
        char *copy = phx_mem_dup(bytes.data, bytes.size);

        memcpy(copy + lies[i].offset, &lies[i].value, 4);
        assert_int_equal(decode(copy, bytes.size, &r), PHX_E_FORMAT);
        phx_mem_free(copy);
    }
    phx_buf_fini(&bytes);
}

static void the_largest_result_fits_the_bound(void **state)
{
    static struct phx_result_token tokens[RESULTS];
    const struct phx_result        result = {.n_tokens = RESULTS, .tokens = tokens};
    struct phx_buf                 bytes;

    (void)state;
    for (int i = 0; i < RESULTS; i++)
        tokens[i].n_top = PHX_TOP_LOGPROBS_MAX;
    phx_buf_init(&bytes, phx_result_max_bytes(RESULTS));
    phx_result_encode(&result, &bytes);
    assert_int_equal(phx_buf_check(&bytes, "result", NULL), 0);
    assert_int_equal(bytes.size, phx_result_max_bytes(RESULTS));
    phx_buf_fini(&bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_result_comes_back_as_it_was),
        cmocka_unit_test(a_cut_or_longer_result_is_refused),
        cmocka_unit_test(a_lying_result_is_refused),
        cmocka_unit_test(the_largest_result_fits_the_bound),
    };

    return cmocka_run_group_tests_name("shard/step/result_wire", tests, NULL, NULL);
}
