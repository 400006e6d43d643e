/* SPDX-License-Identifier: Apache-2.0
 * Plans of attention: every query is in one unit, units of a step have pieces of their own, and a plan with room fits
 * every step of the same row counts that reaches no further. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/plan_attention.h"

enum { SEQS_MAX = 40, UNITS_MAX = 20000, SHARED = 227 << 10, SMS = 132 };

struct step {
    int32_t          n, row[SEQS_MAX], n_rows[SEQS_MAX], pos[SEQS_MAX];
    struct phx_spans spans;
};

static uint32_t seed = 7;

static int32_t any(int32_t most)
{
    seed = seed * 1664525u + 1013904223u;
    return (int32_t)(seed >> 8) % (most + 1);
}

static void finish_step(struct step *s)
{
    int32_t at = 0;

    for (int32_t i = 0; i < s->n; i++) {
        s->row[i] = at;
        at += s->n_rows[i];
    }
    s->spans = (struct phx_spans){s->n, s->row, s->n_rows, s->pos, NULL, 0};
}

static void make_step(struct step *s, int32_t rows_most, int32_t pos_most)
{
    s->n = 1 + any(SEQS_MAX - 1);
    for (int32_t i = 0; i < s->n; i++) {
        s->n_rows[i] = any(6) == 0 ? 0 : 1 + any(rows_most - 1);
        s->pos[i] = any(pos_most);
    }
    finish_step(s);
}

/* Pieces of n tokens of which the rows see something, by looking at every position. */
static int32_t look_for_pieces(const struct step *s, int32_t seq, int32_t window, int32_t n)
{
    int32_t count = 0, last = -1;

    for (int32_t p = 0; p < s->pos[seq] + s->n_rows[seq]; p++) {
        bool is_seen = window == 0 || p > s->pos[seq] - window;

        if (is_seen && p / n != last) {
            last = p / n;
            count++;
        }
    }
    return count;
}

static int32_t count_units_of(const struct cuda_attention_unit *units, int32_t n, int32_t seq)
{
    int32_t count = 0;

    for (int32_t i = 0; i < n; i++)
        count += units[i].seq == seq;
    return count;
}

/* The units of the plan cover the step, and their slots do not overlap. */
static void check_plan(const struct cuda_attention_plan *p, const struct step *s)
{
    static struct cuda_attention_unit units[UNITS_MAX];
    bool                              is_covered[SEQS_MAX] = {false};

    for (int wide = 0; wide < 2; wide++) {
        const struct cuda_attention_share *share = &p->share[wide];
        int32_t tokens = share->split == CUDA_SPLIT_LEAVES ? CUDA_LEAF_TOKENS : CUDA_PART_TOKENS, slot = 0;

        assert_in_range(share->n_units, 0, UNITS_MAX);
        phx_cuda_list_units(p, wide, &s->spans, units);
        for (int32_t i = 0; i < share->n_units; i++) {
            int32_t seq = units[i].seq, pieces = look_for_pieces(s, seq, p->shape.window, tokens);

            assert_in_range(seq, 0, s->n - 1);
            assert_int_equal(units[i].first % share->unit_queries, 0);
            if (units[i].first == 0) {
                int32_t n = count_units_of(units, share->n_units, seq);

                assert_false(is_covered[seq]);
                is_covered[seq] = true;
                assert_true((int64_t)n * share->unit_queries >= (int64_t)s->n_rows[seq] * p->shape.n_heads);
                assert_true((int64_t)(n - 1) * share->unit_queries < (int64_t)s->n_rows[seq] * p->shape.n_heads);
            } else {
                assert_int_equal(units[i].first, units[i - 1].first + share->unit_queries);
            }
            if (share->split == CUDA_SPLIT_NONE)
                continue;
            assert_int_equal(units[i].slot, slot);
            assert_true(pieces <= share->n_pieces);
            slot += pieces;
        }
        assert_true(share->split == CUDA_SPLIT_NONE || slot <= share->n_slots);
        assert_true(share->pieces_bytes <= PHX_CUDA_PIECES_BYTES);
    }
    for (int32_t i = 0; i < s->n; i++)
        assert_int_equal(is_covered[i], s->n_rows[i] > 0);
}

static const struct cuda_attention_shape shapes[] = {
    {0, 8, 8, 64}, {128, 8, 8, 64}, {0, 4, 8, 128}, {77, 5, 1, 128}, {0, 1, 12, 64}, {1, 16, 2, 64},
};

static void every_query_is_in_one_unit(void **state)
{
    (void)state;
    for (int turn = 0; turn < 400; turn++) {
        struct step                s;
        struct cuda_attention_plan p;

        make_step(&s, turn % 3 == 0 ? 300 : 3, turn % 2 == 0 ? 5000 : 100);
        phx_cuda_plan_attention(&shapes[turn % 6], SHARED, SMS, &s.spans, NULL, &p);
        check_plan(&p, &s);
    }
}

static void a_plan_with_room_fits_all_that_reach_no_further(void **state)
{
    int n_split = 0;

    (void)state;
    for (int turn = 0; turn < 200; turn++) {
        struct step                s, later;
        struct cuda_attention_plan p;
        int32_t                    longest = 512 << any(4), most = longest;
        struct cuda_reach          reach;

        make_step(&s, turn % 3 == 0 ? 100 : 2, 50);
        reach = (struct cuda_reach){longest, (int64_t)longest * (1 + any(s.n))};
        phx_cuda_plan_attention(&shapes[turn % 6], SHARED, SMS, &s.spans, &reach, &p);
        n_split += p.share[0].split != CUDA_SPLIT_NONE;
        for (int again = 0; again < 5; again++) {
            int64_t total = 0;

            later = s;
            for (int32_t i = 0; i < s.n; i++) { /* anywhere within the reach */
                most = longest - s.n_rows[i];
                later.pos[i] = any(most);
                if (total + later.pos[i] + s.n_rows[i] > reach.keys_total - (int64_t)100 * (s.n - i))
                    later.pos[i] = 0;
                total += later.pos[i] + s.n_rows[i];
            }
            finish_step(&later);
            if (total <= reach.keys_total)
                check_plan(&p, &later);
        }
    }
    assert_in_range(n_split, 20, 200); /* the interesting ones were there */
}

static void one_sequence_alone_is_shared_out(void **state)
{
    struct step                s = {.n = 1, .n_rows = {1}, .pos = {8000}};
    struct cuda_attention_plan p;

    (void)state;
    finish_step(&s);
    phx_cuda_plan_attention(&shapes[0], SHARED, SMS, &s.spans, NULL, &p);
    assert_int_equal(p.share[0].n_units, 1);
    assert_int_equal(p.share[0].split, CUDA_SPLIT_LEAVES);
    assert_int_equal(p.share[0].n_pieces, 126);
    assert_int_equal(p.share[1].n_units, 0);
    phx_cuda_plan_attention(&shapes[1], SHARED, SMS, &s.spans, NULL, &p);
    assert_int_equal(p.share[0].split, CUDA_SPLIT_NONE); /* a window of three leaves */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_query_is_in_one_unit),
        cmocka_unit_test(a_plan_with_room_fits_all_that_reach_no_further),
        cmocka_unit_test(one_sequence_alone_is_shared_out),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
