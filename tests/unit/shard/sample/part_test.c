/* SPDX-License-Identifier: Apache-2.0
 * Sampling from a part of the logits: what it decides is what the whole logits give, to the last bit, for any parameters;
 * and it does decide where it should. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>
#include <math.h>

#include "shard/sample/sample.h"
#include "shard/sample/weights.h"

enum { V_MAX = 10000, BEST = PHX_SAMPLE_BEST_MAX, N_TOKENS = 9 };
enum kind { USUAL, TIES, EQUAL, HOLES, PEAK, WIDE, ODD, N_KINDS };

static uint64_t random_state = 7;

static uint32_t random_u32(void)
{
    random_state = random_state * 6364136223846793005u + 1442695040888963407u;
    return (uint32_t)(random_state >> 33);
}

static float random_share(void)
{
    return (float)(random_u32() % 100000) / 100000.0f;
}

static float make_logit(enum kind kind, int32_t i)
{
    float x = (random_share() + random_share() + random_share()) * 12.0f - 18.0f;

    switch (kind) {
    case TIES: return (float)(random_u32() % 7);
    case EQUAL: return 1.5f;
    case HOLES: return random_u32() % 50 != 0 ? -INFINITY : x;
    case PEAK: return i % 701 == 3 ? 20.0f + x : x - 20.0f;
    case WIDE: return x * 1e20f;
    case ODD: return i == 77 ? (random_u32() % 2 ? NAN : INFINITY) : x;
    default: return x;
    }
}

/* What a device would send. */
struct sent {
    int32_t                ids[BEST];
    float                  best[BEST];
    struct phx_sample_part part;
};

static void find_best(const float *logits, int32_t n, int32_t k, struct sent *s)
{
    int32_t n_best = 0;

    for (int32_t i = 0; i < n && k > 0; i++) {
        int32_t at = n_best;

        if (at == k && !(logits[i] > s->best[at - 1]))
            continue;
        at -= at == k;
        n_best = at + 1;
        for (; at > 0 && logits[i] > s->best[at - 1]; at--) {
            s->ids[at] = s->ids[at - 1];
            s->best[at] = s->best[at - 1];
        }
        s->ids[at] = i;
        s->best[at] = logits[i];
    }
}

static struct phx_sample_draw draw(const float *logits, int32_t n, float temperature, double share)
{
    static double          weight[V_MAX];
    struct phx_sample_draw d = {-1, NAN, phx_largest(logits, n), NAN};

    if (!(d.largest > -INFINITY))
        return d;
    phx_weigh(logits, n, d.largest, temperature, weight);
    d.sum = phx_weights_sum(weight, n);
    d.id = phx_weights_pick(weight, n, share);
    d.logit = logits[d.id];
    return d;
}

static void send(const float *logits, int32_t n, const struct phx_sample_need *need, struct sent *s)
{
    memset(s, 0, sizeof(*s));
    find_best(logits, n, need->n_best, s);
    s->part = (struct phx_sample_part){.ids = s->ids, .best = s->best, .is_number = phx_find_largest(logits, n) >= 0};
    if (need->has_draw)
        s->part.draw = draw(logits, n, need->temperature, need->share);
    if (need->has_norm)
        s->part.norm = draw(logits, n, 1.0f, 0.0).sum;
}

static struct phx_sampling make_sampling(void)
{
    static const float  temperatures[] = {0.0f, 0.0f, 1.0f, 1.0f, 0.7f, 0.01f, 1e-40f, 5.0f};
    static const float  shares[] = {1.0f, 1.0f, 0.9f, 0.999999f, 0.5f, 1e-6f};
    static const float  least[] = {0.0f, 0.0f, 0.05f, 1e-9f, 1.0f};
    static const int32_t tops[] = {0, 0, 1, 40, 256, 257, 9999999};
    struct phx_sampling p;

    phx_sampling_init(&p);
    p.temperature = temperatures[random_u32() % 8];
    p.top_p = shares[random_u32() % 6];
    p.min_p = least[random_u32() % 5];
    p.top_k = tops[random_u32() % 7];
    p.seed = random_u32();
    p.n_logprobs = (int32_t)(random_u32() % 3) - 1;
    if (p.n_logprobs == 1)
        p.n_logprobs = PHX_TOP_LOGPROBS_MAX;
    return p;
}

struct world {
    struct phx_sampler *sampler;
    float              *logits, *copy;
    int32_t             vocab_size, n_decided, n_sent, n_whole;
};

static const int32_t tokens[N_TOKENS + 1];

static void compare(struct world *w, const struct phx_sampling *p, bool is_final)
{
    struct phx_sample_input  in = {NULL, tokens, N_TOKENS, 3, p, 0};
    struct phx_sample_need   need;
    struct phx_sample_output got, want;
    static struct sent       s;
    struct phx_err           err;
    bool                     is_decided = false;
    int                      rc_got, rc_want;

    phx_sample_need(p, w->vocab_size, N_TOKENS, false, is_final, &need);
    w->n_whole += need.is_whole;
    if (need.is_whole)
        return;
    send(w->logits, w->vocab_size, &need, &s);
    rc_got = phx_sample_from(&in, w->vocab_size, &need, &s.part, -1, &is_decided, &got, &err);
    w->n_sent++;
    w->n_decided += is_decided;
    assert_true(is_decided || !is_final);
    if (!is_decided)
        return;
    memcpy(w->copy, w->logits, (size_t)w->vocab_size * sizeof(float));
    in.logits = w->copy;
    rc_want = phx_sample(w->sampler, &in, &want, &err);
    assert_int_equal(rc_got, rc_want);
    if (memcmp(&got, &want, sizeof(got)) != 0)
        fail_msg("temperature %g, top_k %d, top_p %g, min_p %g of %d: %d (%a), not %d (%a)", (double)p->temperature,
                 p->top_k, (double)p->top_p, (double)p->min_p, w->vocab_size, got.token, (double)got.logprob, want.token,
                 (double)want.logprob);
}

static void what_is_decided_is_what_the_whole_gives(void **state)
{
    static const int32_t sizes[] = {1, 2, 65, 256, 257, 4097, 9111};

    (void)state;
    for (int i = 0; i < 7; i++) {
        struct world w = {.vocab_size = sizes[i]};

        assert_int_equal(phx_sampler_create(w.vocab_size, &w.sampler, NULL), 0);
        w.logits = calloc(V_MAX, sizeof(float));
        w.copy = calloc(V_MAX, sizeof(float));
        for (int round = 0; round < 1400; round++) {
            struct phx_sampling p = make_sampling();

            for (int32_t v = 0; v < w.vocab_size && round % 10 == 0; v++)
                w.logits[v] = make_logit((enum kind)(round / 10 % N_KINDS), v);
            compare(&w, &p, round % 2 == 1);
        }
        print_message("%d logits: %d of %d parts decided, %d whole\n", w.vocab_size, w.n_decided, w.n_sent, w.n_whole);
        assert_true(w.n_decided * 10 >= w.n_sent * (w.vocab_size > BEST ? 7 : 9));
        phx_sampler_destroy(w.sampler);
        free(w.logits);
        free(w.copy);
    }
}

/* Answers depend on the number drawn: all seeds of one nucleus. */
static void every_seed_draws_the_same(void **state)
{
    struct world w = {.vocab_size = 5000};

    (void)state;
    assert_int_equal(phx_sampler_create(w.vocab_size, &w.sampler, NULL), 0);
    w.logits = calloc(V_MAX, sizeof(float));
    w.copy = calloc(V_MAX, sizeof(float));
    for (int32_t v = 0; v < w.vocab_size; v++)
        w.logits[v] = make_logit(USUAL, v);
    for (int i = 0; i < 600; i++) {
        struct phx_sampling p;

        phx_sampling_init(&p);
        p.temperature = 0.6f;
        p.seed = (uint64_t)i;
        p.top_p = i % 3 == 0 ? 0.8f : 1.0f;
        p.top_k = i % 3 == 1 ? 100 : 0;
        p.min_p = i % 3 == 2 ? 0.02f : 0.0f;
        compare(&w, &p, false);
    }
    assert_true(w.n_decided > 500);
    phx_sampler_destroy(w.sampler);
    free(w.logits);
    free(w.copy);
}

static void a_recorded_token_is_decided_when_it_is_drawn(void **state)
{
    const int32_t            ids[] = {4, 2};
    const float              best[] = {3.0f, 1.0f};
    struct phx_sample_part   part = {.ids = ids, .best = best, .is_number = true};
    struct phx_sampling      p;
    struct phx_sample_input  in = {NULL, tokens, N_TOKENS, 3, &p, 0};
    struct phx_sample_need   need;
    struct phx_sample_output out;
    struct phx_err           err;
    bool                     is_decided = false;

    (void)state;
    phx_sampling_init(&p);
    p.temperature = 0.0f;
    p.n_logprobs = -1;
    phx_sample_need(&p, 10, N_TOKENS, true, false, &need);
    assert_true(!need.is_whole && need.n_best == 1 && !need.has_draw && !need.has_norm);
    assert_int_equal(phx_sample_from(&in, 10, &need, &part, 4, &is_decided, &out, &err), 0);
    assert_true(is_decided && out.token == 4);
    assert_int_equal(phx_sample_from(&in, 10, &need, &part, 2, &is_decided, &out, &err), 0);
    assert_false(is_decided);
    phx_sample_need(&p, 10, N_TOKENS, true, true, &need);
    assert_true(need.is_whole);
}

static struct phx_sample_need need_of(const struct phx_sampling *p, bool is_final)
{
    struct phx_sample_need need;

    phx_sample_need(p, 50000, N_TOKENS, false, is_final, &need);
    return need;
}

static void rows_need_what_their_parameters_say(void **state)
{
    static const struct phx_bias bias = {5, 1.0f};
    struct phx_sampling          p;
    struct phx_sample_need       need;

    (void)state;
    phx_sampling_init(&p); /* temperature 1 */
    p.temperature = 1.0f;
    p.n_logprobs = -1;
    need = need_of(&p, true);
    assert_true(!need.is_whole && need.n_best == 0 && need.has_draw && !need.has_norm && need.share >= 0);
    p.n_logprobs = 5; /* at temperature 1 the draw has the sum */
    need = need_of(&p, true);
    assert_true(!need.is_whole && need.n_best == 5 && need.has_draw && !need.has_norm);
    p.temperature = 0.5f;
    need = need_of(&p, true);
    assert_true(need.has_draw && need.temperature == 0.5f && need.has_norm);
    p.top_k = 3;
    need = need_of(&p, true);
    assert_true(!need.is_whole && need.n_best == 5 && !need.has_draw && need.has_norm);
    p.top_k = 256;
    assert_int_equal(need_of(&p, true).n_best, 256);
    p.top_k = 257;
    assert_true(need_of(&p, false).is_whole);
    p.top_k = 40;
    p.top_p = 0.9f;
    assert_true(!need_of(&p, false).is_whole && need_of(&p, true).is_whole);
    p.top_k = 0;
    assert_true(need_of(&p, false).n_best == 256 && need_of(&p, false).has_draw && need_of(&p, true).is_whole);
    p.top_p = 1.0f;
    p.min_p = 0.1f;
    assert_true(need_of(&p, false).n_best == 256 && !need_of(&p, false).has_draw && need_of(&p, true).is_whole);
    p.temperature = 0.0f; /* filters mean nothing */
    p.n_logprobs = 0;
    need = need_of(&p, true);
    assert_true(!need.is_whole && need.n_best == 1 && !need.has_draw && need.has_norm);
    p.presence_penalty = 0.1f;
    assert_true(need_of(&p, false).is_whole);
    p.presence_penalty = 0.0f;
    p.frequency_penalty = -0.1f;
    assert_true(need_of(&p, false).is_whole);
    p.frequency_penalty = 0.0f;
    p.repetition_penalty = 1.1f;
    assert_true(need_of(&p, false).is_whole);
    p.repetition_penalty = 1.0f;
    p.bias = &bias;
    p.n_bias = 1;
    assert_true(need_of(&p, false).is_whole && need_of(&p, false).n_best == 0);
}

/* A share that falls on an edge of the nucleus, as near as doubles get: the part leaves it to the whole. */
static void what_is_too_near_is_left_open(void **state)
{
    float                    logits[4] = {0.0f, 0.0f, 0.0f, 0.0f};
    static struct sent       s;
    struct phx_sampling      p;
    struct phx_sample_input  in = {NULL, tokens, N_TOKENS, 3, &p, 0};
    struct phx_sample_need   need;
    struct phx_sample_output out;
    struct phx_err           err;
    bool                     is_decided = true;

    (void)state;
    phx_sampling_init(&p);
    p.temperature = 1.0f;
    p.n_logprobs = -1;
    p.top_p = 0.5f; /* exactly two of four */
    phx_sample_need(&p, 4, N_TOKENS, false, false, &need);
    send(logits, 4, &need, &s);
    assert_int_equal(phx_sample_from(&in, 4, &need, &s.part, -1, &is_decided, &out, &err), 0);
    assert_false(is_decided);
    p.top_p = 0.51f;
    assert_int_equal(phx_sample_from(&in, 4, &need, &s.part, -1, &is_decided, &out, &err), 0);
    assert_true(is_decided && out.token >= 0 && out.token < 3);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_decided_is_what_the_whole_gives),
        cmocka_unit_test(every_seed_draws_the_same),
        cmocka_unit_test(a_recorded_token_is_decided_when_it_is_drawn),
        cmocka_unit_test(rows_need_what_their_parameters_say),
        cmocka_unit_test(what_is_too_near_is_left_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
