/* SPDX-License-Identifier: Apache-2.0 */
#include <float.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "shard/sample/sample.h"

enum { V = 8 };

struct fixture {
    struct phx_sampler      *sampler;
    struct phx_sampling      sampling;
    struct phx_sample_output out;
    struct phx_err           err;
    float                    logits[V];
};

static int set_up(void **state)
{
    struct fixture *f = calloc(1, sizeof(*f));

    assert_non_null(f);
    assert_int_equal(phx_sampler_create(V, &f->sampler, &f->err), 0);
    phx_sampling_init(&f->sampling);
    *state = f;
    return 0;
}

static int tear_down(void **state)
{
    struct fixture *f = *state;

    phx_sampler_destroy(f->sampler);
    free(f);
    return 0;
}

/* Samples from a copy of the logits. */
static int sample(struct fixture *f, const float logits[V], const int32_t *tokens, int32_t n_tokens,
                  int32_t n_prompt, int32_t n_masked)
{
    struct phx_sample_input in = {f->logits, tokens, n_tokens, n_prompt, &f->sampling, n_masked};

    memcpy(f->logits, logits, sizeof(f->logits));
    return phx_sample(f->sampler, &in, &f->out, &f->err);
}

static int32_t pick(struct fixture *f, const float logits[V], int32_t position)
{
    static int32_t tokens[1 << 20];

    assert_int_equal(sample(f, logits, tokens, position, position, 0), 0);
    return f->out.token;
}

static void temperature_0_takes_the_largest_and_the_lowest_id_of_equals(void **state)
{
    struct fixture *f = *state;
    const float     logits[V] = {1, 3, 2, 3, -1, 3, 0, 0};

    f->sampling.temperature = 0;
    assert_int_equal(pick(f, logits, 5), 1);
}

static void logits_that_are_no_numbers_are_refused(void **state)
{
    struct fixture *f = *state;
    float           logits[V] = {1, 2, 3};
    const int32_t   tokens[1] = {0};

    for (int i = 0; i < 3; i++) {
        const float odd[] = {NAN, INFINITY, -INFINITY};

        for (int j = 0; j < V; j++)
            logits[j] = i == 2 || j == 3 ? odd[i] : 1.0f;
        assert_int_equal(sample(f, logits, tokens, 1, 1, 0), PHX_E_INTERNAL);
        assert_int_equal(f->out.token, -1);
    }
}

static void masked_ids_are_never_produced(void **state)
{
    struct fixture *f = *state;
    const float     logits[V] = {0, 0, 0, 0, 0, 0, 50, 60};
    const int32_t   tokens[1] = {0};

    f->sampling.n_logprobs = 20;
    for (int32_t i = 0; i < 200; i++) {
        f->sampling.seed = (uint64_t)i;
        assert_int_equal(sample(f, logits, tokens, 1, 1, 2), 0);
        assert_in_range(f->out.token, 0, 5);
        assert_int_equal(f->out.n_top, 6);
    }
    assert_int_equal(sample(f, logits, tokens, 1, 1, V), PHX_E_INVALID);
}

static void a_token_depends_on_seed_and_position_alone(void **state)
{
    struct fixture *f = *state;
    const float     flat[V] = {0};
    int32_t         first[64], n_other_seed = 0, n_other_position = 0;

    for (int32_t i = 0; i < 64; i++)
        first[i] = pick(f, flat, i + 1);
    for (int32_t i = 63; i >= 0; i--)
        assert_int_equal(pick(f, flat, i + 1), first[i]);
    f->sampling.seed = 1ull << 40; /* the upper half counts too */
    for (int32_t i = 0; i < 64; i++)
        n_other_seed += pick(f, flat, i + 1) != first[i];
    for (int32_t i = 1; i < 64; i++)
        n_other_position += first[i] != first[0];
    assert_true(n_other_seed > 40 && n_other_position > 40);
}

/* Pearson's test: with 7 degrees of freedom 1 in 10^9 fair runs exceeds 56. */
static void draws_follow_the_distribution(void **state)
{
    struct fixture *f = *state;
    const float     logits[V] = {0, 1, 2, 0.5f, -1, 1.5f, -2, 0.25f};
    const float     temperatures[] = {1.0f, 0.5f, 2.0f};
    const int32_t   n = 200000;

    for (size_t t = 0; t < 3; t++) {
        double  p[V], sum = 0, chi2 = 0;
        int32_t count[V] = {0};

        f->sampling.temperature = temperatures[t];
        f->sampling.seed = 99 + t;
        for (int i = 0; i < V; i++)
            sum += p[i] = exp((double)logits[i] / (double)temperatures[t]);
        for (int32_t i = 0; i < n; i++)
            count[pick(f, logits, i + 1)]++;
        for (int i = 0; i < V; i++) {
            double want = n * p[i] / sum;

            chi2 += (count[i] - want) * (count[i] - want) / want;
        }
        assert_true(chi2 < 56.0);
    }
}

static int32_t seen(struct fixture *f, const float logits[V])
{
    int32_t set = 0;

    for (int32_t i = 1; i < 3000; i++)
        set |= 1 << pick(f, logits, i);
    return set;
}

static void filters_keep_the_right_tokens(void **state)
{
    struct fixture *f = *state;
    /* shares: 0.4 0.2 0.2 0.1 0.05 0.05, then two hopeless ones */
    const float logits[V] = {logf(4), logf(2), logf(2), logf(1), logf(0.5f), logf(0.5f), -60, -70};

    assert_int_equal(seen(f, logits), 0x3f);
    f->sampling.top_k = 2;
    assert_int_equal(seen(f, logits), 0x03); /* the lower id of equals */
    f->sampling.top_k = 100;
    assert_int_equal(seen(f, logits), 0x3f);
    f->sampling.top_k = 0;
    f->sampling.top_p = 0.39f;
    assert_int_equal(seen(f, logits), 0x01);
    f->sampling.top_p = 0.59f;
    assert_int_equal(seen(f, logits), 0x03);
    f->sampling.top_p = 0.61f;
    assert_int_equal(seen(f, logits), 0x07);
    f->sampling.top_p = 1e-6f;
    assert_int_equal(seen(f, logits), 0x01); /* never nothing */
    f->sampling.top_p = 1;
    f->sampling.min_p = 0.24f;
    assert_int_equal(seen(f, logits), 0x0f);
    f->sampling.min_p = 0.26f;
    assert_int_equal(seen(f, logits), 0x07);
    f->sampling.min_p = 1;
    assert_int_equal(seen(f, logits), 0x01);
    f->sampling.min_p = 0;
    f->sampling.top_k = 3; /* then 0.5, 0.25, 0.25: top_p counts what top_k left */
    f->sampling.top_p = 0.7f;
    assert_int_equal(seen(f, logits), 0x03);
}

static void temperature_comes_before_the_filters(void **state)
{
    struct fixture *f = *state;
    const float     logits[V] = {2, 1, 0, -20, -20, -20, -20, -20};

    f->sampling.min_p = 0.3f; /* e^-1 = 0.37 */
    assert_int_equal(seen(f, logits), 0x03);
    f->sampling.temperature = 2; /* e^-0.5 = 0.61, e^-1 = 0.37 */
    assert_int_equal(seen(f, logits), 0x07);
    f->sampling.temperature = 0.5f; /* e^-2 = 0.14 */
    assert_int_equal(seen(f, logits), 0x01);
}

static void logprobs_are_those_of_the_whole_distribution(void **state)
{
    struct fixture *f = *state;
    const float     logits[V] = {1, 4, 4, -INFINITY, 0, 3, 2, -3};
    const int32_t   order[] = {1, 2, 5, 6, 0}, tokens[1] = {0};
    double          sum = 0;

    f->sampling.temperature = 0.3f; /* neither temperature nor filters change a logprob */
    f->sampling.top_k = 1;
    f->sampling.n_logprobs = 5;
    assert_int_equal(sample(f, logits, tokens, 1, 1, 0), 0);
    for (int i = 0; i < V; i++)
        sum += exp((double)logits[i]);
    assert_int_equal(f->out.n_top, 5);
    assert_int_equal(f->out.token, 1);
    assert_true(fabs((double)f->out.logprob - (4 - log(sum))) < 1e-6);
    for (int i = 0; i < 5; i++) {
        assert_int_equal(f->out.top_ids[i], order[i]);
        assert_true(fabs((double)f->out.top_logprobs[i] - ((double)logits[order[i]] - log(sum))) < 1e-6);
    }
    f->sampling.n_logprobs = 20;
    assert_int_equal(sample(f, logits, tokens, 1, 1, 0), 0);
    assert_int_equal(f->out.n_top, V);
    assert_true(f->out.top_logprobs[V - 1] == -INFINITY);
    f->sampling.n_logprobs = 0;
    assert_int_equal(sample(f, logits, tokens, 1, 1, 0), 0);
    assert_int_equal(f->out.n_top, 0);
    assert_true(f->out.logprob < 0);
    f->sampling.n_logprobs = -1;
    assert_int_equal(sample(f, logits, tokens, 1, 1, 0), 0);
    assert_true(f->out.logprob == 0);
}

static void penalties_count_as_they_should(void **state)
{
    struct fixture *f = *state;
    const float     logits[V] = {2, -2, 2, 2, 1, 1, 1, 1};
    const int32_t   tokens[] = {0, 1, 0, 2, 3, 2}; /* the prompt is 0 1 0 */

    f->sampling.temperature = 0;
    f->sampling.repetition_penalty = 2;
    assert_int_equal(sample(f, logits, tokens, 6, 3, 0), 0);
    /* once per id that is known, prompt included; a negative logit goes down too */
    assert_true(f->logits[0] == 1 && f->logits[1] == -4 && f->logits[2] == 1 && f->logits[3] == 1 &&
                f->logits[4] == 1);
    f->sampling.repetition_penalty = 1;
    f->sampling.presence_penalty = 0.5f;
    f->sampling.frequency_penalty = 0.25f;
    assert_int_equal(sample(f, logits, tokens, 6, 3, 0), 0);
    /* output alone: 2 twice, 3 once */
    assert_true(f->logits[0] == 2 && f->logits[1] == -2 && f->logits[2] == 1 && f->logits[3] == 1.25f);
    assert_int_equal(f->out.token, 0);
    /* nothing is left over for the next sequence */
    f->sampling.presence_penalty = f->sampling.frequency_penalty = 0;
    assert_int_equal(sample(f, logits, tokens, 6, 3, 0), 0);
    assert_memory_equal(f->logits, logits, sizeof(logits));
}

static void bias_comes_before_penalties_and_logprobs(void **state)
{
    struct fixture       *f = *state;
    const float           logits[V] = {1, 0, 0, 0, 0, 0, 0, 0};
    const int32_t         tokens[] = {3};
    const struct phx_bias bias[] = {{3, 8}, {0, -100}};

    f->sampling.temperature = 0;
    f->sampling.bias = bias;
    f->sampling.n_bias = 2;
    f->sampling.repetition_penalty = 2;
    f->sampling.n_logprobs = 1;
    assert_int_equal(sample(f, logits, tokens, 1, 1, 0), 0);
    assert_true(f->logits[3] == 4 && f->logits[0] == -99);
    assert_int_equal(f->out.token, 3);
    assert_true(fabs((double)f->out.logprob - (4 - log(exp(4) + 6))) < 1e-6);
}

/* The gap of a recorded token at a position. */
static float gap_of(struct fixture *f, const float logits[V], int32_t recorded, int32_t position)
{
    static int32_t          tokens[1 << 20];
    struct phx_sample_input in = {f->logits, tokens, position, position, &f->sampling, 1}; /* id 7 is masked */
    float                   gap = -1;

    memcpy(f->logits, logits, sizeof(f->logits));
    assert_int_equal(phx_sample_check(f->sampler, &in, recorded, &f->out, &gap, &f->err), 0);
    return gap;
}

static void the_gap_of_an_argmax_is_its_lack_of_logit(void **state)
{
    struct fixture       *f = *state;
    const float           logits[V] = {1, 3, 2.5f, 3, -INFINITY, 0, 0, 9};
    const struct phx_bias bias[] = {{2, 1}};

    f->sampling.temperature = 0;
    assert_true(gap_of(f, logits, 1, 5) == 0);
    assert_int_equal(f->out.token, 1);
    assert_true(gap_of(f, logits, 3, 5) == 0); /* as likely */
    assert_int_equal(f->out.token, 1);
    assert_true(gap_of(f, logits, 2, 5) == 0.5f);
    assert_true(gap_of(f, logits, 4, 5) == FLT_MAX);
    assert_true(gap_of(f, logits, 7, 5) == FLT_MAX); /* masked */
    assert_true(gap_of(f, logits, V, 5) == FLT_MAX && gap_of(f, logits, -1, 5) == FLT_MAX);
    f->sampling.bias = bias;
    f->sampling.n_bias = 1;
    assert_true(gap_of(f, logits, 1, 5) == 0.5f); /* with the bias 2 is the largest */
    assert_true(gap_of(f, logits, 2, 5) == 0);
}

/* Equal weights: token i has the share [i / 7, (i + 1) / 7) of the mass. */
static void the_gap_of_a_draw_is_a_distance_in_mass(void **state)
{
    struct fixture *f = *state;
    const float     logits[V] = {0};

    for (int32_t position = 1; position < 200; position++) {
        double  u = 0; /* bounded from both sides by the gaps of the first and the last id */
        int32_t drawn = pick(f, (const float[V]){0, 0, 0, 0, 0, 0, 0, -1000}, position);

        assert_true(gap_of(f, logits, drawn, position) == 0);
        assert_int_equal(f->out.token, drawn);
        if (drawn > 0)
            u = 1.0 / 7 + (double)gap_of(f, logits, 0, position);
        for (int32_t id = 0; id < 7 && drawn > 0; id++) {
            double want = fmax(fmax(id / 7.0 - u, u - (id + 1) / 7.0), 0);

            assert_true(fabs((double)gap_of(f, logits, id, position) - want) < 1e-6);
            assert_int_equal(f->out.token, drawn);
        }
        assert_true(gap_of(f, logits, 7, position) == 1);
    }
}

/* Its empty share may lie right beside the number drawn: its logit tells that it could not have come. */
static void a_filtered_token_is_as_far_as_its_logit(void **state)
{
    struct fixture *f = *state;
    const float     logits[V] = {4, -3, 4, 3.9f, 4, 4, 4};

    f->sampling.top_k = 5;
    for (int32_t position = 1; position < 100; position++) {
        assert_true(gap_of(f, logits, 1, position) >= 0.7f - 1e-6f);
        assert_true(gap_of(f, logits, 3, position) >= 0.01f - 1e-6f);
        assert_true(gap_of(f, logits, 3, position) <= 0.7f);
    }
    f->sampling.top_k = 0;
    f->sampling.min_p = 0.5f;
    for (int32_t position = 1; position < 100; position++)
        assert_true(gap_of(f, logits, 1, position) >= 0.69f);
}

static void a_check_refuses_what_sampling_refuses(void **state)
{
    struct fixture         *f = *state;
    const int32_t           tokens[1] = {0};
    struct phx_sample_input in = {f->logits, tokens, 1, 1, &f->sampling, 0};
    float                   gap;

    f->logits[2] = NAN;
    assert_int_equal(phx_sample_check(f->sampler, &in, 1, &f->out, &gap, &f->err), PHX_E_INTERNAL);
    assert_int_equal(f->out.token, -1);
    assert_true(gap == 0);
}

static void impossible_samplers_are_refused(void **state)
{
    struct phx_sampler *s;
    struct phx_err      err;

    (void)state;
    assert_int_equal(phx_sampler_create(0, &s, &err), PHX_E_INVALID);
    assert_int_equal(phx_sampler_create(-5, &s, &err), PHX_E_INVALID);
    assert_int_equal(phx_sampler_create(INT32_MAX, &s, &err), PHX_E_INVALID);
    assert_null(s);
    phx_sampler_destroy(NULL);
}

#define WITH_SAMPLER(test) cmocka_unit_test_setup_teardown(test, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        WITH_SAMPLER(temperature_0_takes_the_largest_and_the_lowest_id_of_equals),
        WITH_SAMPLER(logits_that_are_no_numbers_are_refused),
        WITH_SAMPLER(masked_ids_are_never_produced),
        WITH_SAMPLER(a_token_depends_on_seed_and_position_alone),
        WITH_SAMPLER(draws_follow_the_distribution),
        WITH_SAMPLER(filters_keep_the_right_tokens),
        WITH_SAMPLER(temperature_comes_before_the_filters),
        WITH_SAMPLER(logprobs_are_those_of_the_whole_distribution),
        WITH_SAMPLER(penalties_count_as_they_should),
        WITH_SAMPLER(bias_comes_before_penalties_and_logprobs),
        WITH_SAMPLER(the_gap_of_an_argmax_is_its_lack_of_logit),
        WITH_SAMPLER(the_gap_of_a_draw_is_a_distance_in_mass),
        WITH_SAMPLER(a_filtered_token_is_as_far_as_its_logit),
        WITH_SAMPLER(a_check_refuses_what_sampling_refuses),
        cmocka_unit_test(impossible_samplers_are_refused),
    };

    return cmocka_run_group_tests_name("shard/sample", tests, NULL, NULL);
}
