/* SPDX-License-Identifier: Apache-2.0
 * The sampler against a second one, written for reading: sort, add up in double with libm, walk.  Whole
 * requests of random parameters must give the same token and the same log-probability. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>
#include <time.h>

#include "shard/sample/sample.h"

enum { V_MAX = 400, HISTORY_MAX = 60, N_BIAS = 5, ROUNDS = 20000, V_LARGE = 201088 };

static uint64_t random_state = 7;

static uint32_t random_below(uint32_t n)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33) % n;
}

static float random_real(void)
{
    return (float)random_below(1 << 20) / (float)(1 << 20);
}

struct request {
    int32_t             v, n_tokens, n_prompt, n_masked;
    float               logits[V_MAX];
    int32_t             tokens[HISTORY_MAX];
    struct phx_bias     bias[N_BIAS];
    struct phx_sampling sampling;
};

/* Most parameters are off most of the time, so that every combination comes up. */
static void make_request(struct request *r)
{
    struct phx_sampling *s = &r->sampling;
    bool                 has_ties = random_below(2), has_holes = random_below(3) == 0;

    memset(r, 0, sizeof(*r));
    r->v = 2 + (int32_t)random_below(V_MAX - 2);
    r->n_masked = random_below(3) ? 0 : (int32_t)random_below((uint32_t)r->v - 1);
    for (int32_t i = 0; i < r->v; i++) {
        r->logits[i] = has_ties ? (float)random_below(9) * 0.5f - 2.0f : random_real() * 12.0f - 6.0f;
        if (has_holes && i > 0 && random_below(2))
            r->logits[i] = -INFINITY;
    }
    r->n_tokens = 1 + (int32_t)random_below(HISTORY_MAX);
    r->n_prompt = 1 + (int32_t)random_below((uint32_t)r->n_tokens);
    for (int32_t i = 0; i < r->n_tokens; i++)
        r->tokens[i] = (int32_t)random_below((uint32_t)r->v);
    phx_sampling_init(s);
    s->seed = ((uint64_t)random_below(1u << 31) << 32) | random_below(1u << 31);
    s->temperature = random_below(6) == 0 ? 0.0f : 0.2f + random_real() * 1.8f;
    s->top_k = random_below(3) ? 0 : 1 + (int32_t)random_below((uint32_t)r->v);
    s->top_p = random_below(3) ? 1.0f : 0.01f + random_real() * 0.98f;
    s->min_p = random_below(3) ? 0.0f : random_real() * random_real();
    s->repetition_penalty = random_below(3) ? 1.0f : 0.5f + random_real() * 1.5f;
    s->presence_penalty = random_below(3) ? 0.0f : random_real() * 4.0f - 2.0f;
    s->frequency_penalty = random_below(3) ? 0.0f : random_real() * 4.0f - 2.0f;
    s->n_logprobs = 3;
    s->bias = r->bias;
    s->n_bias = random_below(3) ? 0 : N_BIAS;
    for (int32_t i = 0; i < N_BIAS; i++)
        r->bias[i] = (struct phx_bias){(int32_t)random_below((uint32_t)r->v), random_real() * 20 - 10};
}

struct item {
    int32_t id;
    double  logit, weight;
};

static int best_first(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    if (x->logit != y->logit)
        return x->logit > y->logit ? -1 : 1;
    return x->id < y->id ? -1 : 1;
}

static int by_id(const void *a, const void *b)
{
    const struct item *x = a, *y = b;

    return x->id < y->id ? -1 : 1;
}

/* Bias, then the repetition penalty over all, then presence and frequency over the output. */
static void adjust(const struct request *r, float *x)
{
    const struct phx_sampling *s = &r->sampling;

    for (int32_t i = 0; i < s->n_bias; i++)
        x[s->bias[i].token] += s->bias[i].bias;
    for (int32_t id = 0; id < r->v; id++) {
        int32_t n_all = 0, n_output = 0;

        for (int32_t i = 0; i < r->n_tokens; i++) {
            n_all += r->tokens[i] == id;
            n_output += r->tokens[i] == id && i >= r->n_prompt;
        }
        if (n_all > 0)
            x[id] = x[id] > 0 ? x[id] / s->repetition_penalty : x[id] * s->repetition_penalty;
        if (n_output > 0)
            x[id] -= s->presence_penalty + s->frequency_penalty * (float)n_output;
    }
}

/* How many of the best-first list remain; -1 when a share is too near a boundary to call. */
static int32_t filter(const struct phx_sampling *s, struct item *items, int32_t n)
{
    double  sum = 0, above = 0;
    int32_t n_kept = 0;

    n = s->top_k > 0 && s->top_k < n ? s->top_k : n;
    for (int32_t i = 0; i < n; i++) {
        items[i].weight = exp((items[i].logit - items[0].logit) / (double)s->temperature);
        sum += items[i].weight;
    }
    while (n_kept < n && (s->top_p >= 1.0f || above < sum * (double)s->top_p)) {
        above += items[n_kept++].weight;
        if (s->top_p < 1.0f && fabs(above - sum * (double)s->top_p) < 1e-8 * sum)
            return -1;
    }
    for (n = n_kept, n_kept = 0; n_kept < n && items[n_kept].weight >= (double)s->min_p; n_kept++)
        ;
    if (n_kept < n && fabs(items[n_kept].weight - (double)s->min_p) < 1e-8)
        return -1;
    return n_kept;
}

/* The draw is part of what must never change: each seeded answer depends on it. */
static int32_t walk(const struct request *r, struct item *items, int32_t n)
{
    const uint32_t counter[4] = {(uint32_t)r->n_tokens, 0, 0, 0};
    const uint32_t key[2] = {(uint32_t)r->sampling.seed, (uint32_t)(r->sampling.seed >> 32)};
    uint32_t       out[4];
    double         sum = 0, run = 0, at;

    phx_philox(counter, key, out);
    at = ldexp((double)(((uint64_t)out[0] << 21) ^ (out[1] >> 11)), -53);
    qsort(items, (size_t)n, sizeof(*items), by_id);
    for (int32_t i = 0; i < n; i++)
        sum += items[i].weight;
    for (int32_t i = 0; i < n; i++) {
        run += items[i].weight;
        if (fabs(run - at * sum) < 1e-8 * sum)
            return -1;
        if (at * sum < run)
            return items[i].id;
    }
    return -1;
}

/* The token, -1 when rounding may decide either way; *norm = ln of the sum of e^logit. */
static int32_t reference(const struct request *r, float *x, double *norm)
{
    static struct item items[V_MAX];
    int32_t            n = r->v - r->n_masked, n_kept;
    double             sum = 0;

    adjust(r, x);
    for (int32_t i = 0; i < n; i++)
        items[i] = (struct item){i, (double)x[i], 0};
    qsort(items, (size_t)n, sizeof(*items), best_first);
    for (int32_t i = 0; i < n; i++)
        sum += exp(items[i].logit - items[0].logit);
    *norm = items[0].logit + log(sum);
    if (r->sampling.temperature == 0.0f)
        return items[0].id;
    n_kept = filter(&r->sampling, items, n);
    return n_kept > 0 ? walk(r, items, n_kept) : -1;
}

static void whole_requests_give_the_token_of_the_reference(void **state)
{
    int32_t n_unclear = 0;

    (void)state;
    for (int round = 0; round < ROUNDS; round++) {
        static struct request    r;
        float                    x[V_MAX], mine[V_MAX];
        struct phx_sampler      *sampler;
        struct phx_sample_output out;
        struct phx_err           err = {0};
        double                   norm;
        int32_t                  want;

        make_request(&r);
        memcpy(x, r.logits, sizeof(x));
        memcpy(mine, r.logits, sizeof(mine));
        want = reference(&r, x, &norm);
        assert_int_equal(phx_sampler_create(r.v, &sampler, &err), 0);
        assert_int_equal(phx_sample(sampler,
                                    &(struct phx_sample_input){mine, r.tokens, r.n_tokens, r.n_prompt,
                                                               &r.sampling, r.n_masked},
                                    &out, &err),
                         0);
        phx_sampler_destroy(sampler);
        n_unclear += want < 0;
        if (want >= 0)
            assert_int_equal(out.token, want);
        assert_in_range(out.token, 0, r.v - r.n_masked - 1);
        assert_true(x[out.token] > -INFINITY); /* a hole is never drawn */
        assert_true(fabs((double)out.logprob - ((double)x[out.token] - norm)) < 1e-5);
        assert_true(out.n_top == (r.v - r.n_masked < 3 ? r.v - r.n_masked : 3));
    }
    assert_true(n_unclear < ROUNDS / 100);
}

static double milliseconds(void)
{
    struct timespec t;

    (void)clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec * 1e3 + (double)t.tv_nsec * 1e-6;
}

/* Printed, not judged: a machine may be busy. */
static void the_largest_vocabulary_is_timed(void **state)
{
    static const struct {
        const char *name;
        int32_t     top_k, n_logprobs;
        float       temperature, top_p, min_p;
    } cases[] = {
        {"greedy", 0, -1, 0, 1, 0},     {"greedy, 20 logprobs", 0, 20, 0, 1, 0},
        {"plain", 0, -1, 1, 1, 0},      {"top_k 40", 40, -1, 1, 1, 0},
        {"top_p 0.9", 0, -1, 1, 0.9f, 0}, {"min_p 0.05", 0, -1, 1, 1, 0.05f},
        {"all of them", 40, 20, 0.8f, 0.9f, 0.05f},
    };
    static float             logits[V_LARGE], x[V_LARGE];
    const int32_t            tokens[1] = {1};
    struct phx_sampler      *sampler;
    struct phx_sample_output out;
    struct phx_err           err = {0};

    (void)state;
    assert_int_equal(phx_sampler_create(V_LARGE, &sampler, &err), 0);
    for (int32_t i = 0; i < V_LARGE; i++)
        logits[i] = random_real() * 16.0f - 8.0f;
    for (size_t c = 0; c < sizeof(cases) / sizeof(*cases); c++) {
        struct phx_sampling s;
        double              best = 1e9;

        phx_sampling_init(&s);
        s.temperature = cases[c].temperature;
        s.top_k = cases[c].top_k;
        s.top_p = cases[c].top_p;
        s.min_p = cases[c].min_p;
        s.n_logprobs = cases[c].n_logprobs;
        for (int i = 0; i < 5; i++) {
            struct phx_sample_input in = {x, tokens, 1, 1, &s, 0};
            double                  start;

            memcpy(x, logits, sizeof(x));
            start = milliseconds();
            assert_int_equal(phx_sample(sampler, &in, &out, &err), 0);
            best = fmin(best, milliseconds() - start);
        }
        print_message("%d logits, %s: %.2f ms\n", V_LARGE, cases[c].name, best);
    }
    phx_sampler_destroy(sampler);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(whole_requests_give_the_token_of_the_reference),
        cmocka_unit_test(the_largest_vocabulary_is_timed),
    };

    return cmocka_run_group_tests_name("shard/sample/reference", tests, NULL, NULL);
}
