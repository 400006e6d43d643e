/* SPDX-License-Identifier: Apache-2.0
 * Texts are strings here: each letter is a token. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "shard/sched/draft.h"

enum { TEXT_MAX = 8192 };

static int32_t text[TEXT_MAX + 64];

static int32_t write_text(const char *letters)
{
    int32_t n = (int32_t)strlen(letters);

    for (int32_t i = 0; i < n; i++)
        text[i] = letters[i];
    return n;
}

/* The match of a whole text, and the 6 tokens that are guessed behind it. */
static void expect(const char *letters, int32_t length, const char *guess)
{
    struct phx_lookup l;
    int32_t           n = write_text(letters), found;
    char              got[7] = "";

    phx_lookup_init(&l, n);
    found = phx_lookup_follow(&l, text, n);
    if (found > 0)
        phx_lookup_guess(&l, text, n, 6);
    for (int i = 0; i < 6 && found > 0; i++)
        got[i] = (char)text[n + i];
    if (found != length || strcmp(got, guess) != 0)
        fail_msg("'%s': a match of %d, '%s'", letters, found, got);
    phx_lookup_fini(&l);
}

static void what_stood_there_before_is_found(void **state)
{
    (void)state;
    expect("the cat sat on the cat", 7, " sat o");
    expect("abcdefghi-abc", 3, "defghi");
    expect("xabc1234 yabc", 3, "1234 y");
    expect("abcdef.bc", 2, "def.bc"); /* two are enough */
}

static void what_never_stood_there_is_not(void **state)
{
    (void)state;
    expect("", 0, "");
    expect("a", 0, "");
    expect("ab", 0, "");
    expect("aba", 0, ""); /* one token is not enough */
    expect("abcdefghij", 0, "");
    expect("abcdefgha", 0, "");
    expect("ab-ba", 0, "");
}

static void the_longest_match_counts_and_the_last_place_of_its_length(void **state)
{
    (void)state;
    expect("-abc1..+abc2..-abc", 4, "1..+ab");
    expect("abc1..bc2..abc", 3, "1..bc2");
    expect("abc1..abc2..abc", 5, "2..abc");
    expect("-bc1..-bc2..bc", 2, "2..bc2");
}

/* A match that overlaps the end goes on with its own guesses. */
static void a_repetition_goes_on(void **state)
{
    (void)state;
    expect("aaa", 2, "aaaaaa");
    expect("aaaaaaaa", 7, "aaaaaa");
    expect("ababa", 3, "bababa");
    expect("xyzxyzx", 4, "yzxyzx");
    expect("aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", PHX_LOOKUP_LENGTH, "aaaaaa");
}

/* Whatever the portions in which a text comes, a found place agrees with its end, and where a triple or a pair
 * stood before there is a match, unless the chain is long. */
static void every_match_is_one(void **state)
{
    uint64_t random = 9;
    int      n_found = 0, n_missed = 0;

    (void)state;
    for (int round = 0; round < 300; round++) {
        struct phx_lookup l;
        int32_t           n = 0, vocab = 2 + round % 40;

        phx_lookup_init(&l, 400);
        while (n < 400) {
            int32_t more = 1 + (int32_t)((random >> 40) % 9), length;
            bool    stood_there = false;

            for (int32_t i = 0; i < more && n < 400; i++, n++) {
                random = random * 6364136223846793005u + 1442695040888963407u;
                text[n] = (int32_t)((random >> 33) % (uint64_t)vocab);
            }
            length = phx_lookup_follow(&l, text, n);
            assert_true(length == 0 || (length >= 2 && l.at >= length && l.at < n));
            for (int32_t i = 1; i <= length; i++)
                assert_int_equal(text[l.at - i], text[n - i]);
            for (int32_t at = 2; at < n; at++)
                stood_there = stood_there || (text[at - 1] == text[n - 1] && text[at - 2] == text[n - 2]);
            assert_true(length == 0 || stood_there);
            n_found += length > 0;
            n_missed += length == 0 && stood_there;
        }
        phx_lookup_fini(&l);
    }
    print_message("%d matches, %d missed\n", n_found, n_missed);
    assert_true(n_found > 10000 && n_missed * 200 < n_found);
}

/* A long text is taken in over several calls. */
static void a_long_text_takes_several_calls(void **state)
{
    struct phx_lookup l;
    int32_t           n_calls = 1;

    (void)state;
    for (int32_t i = 0; i < TEXT_MAX; i++)
        text[i] = i % 3000;
    phx_lookup_init(&l, TEXT_MAX);
    while (phx_lookup_follow(&l, text, TEXT_MAX) == 0)
        assert_true(++n_calls < 20);
    assert_int_equal(n_calls, 1 + (TEXT_MAX - 2) / PHX_LOOKUP_FEED);
    phx_lookup_guess(&l, text, TEXT_MAX, 8);
    for (int32_t i = 0; i < 8; i++)
        assert_int_equal(text[TEXT_MAX + i], (TEXT_MAX + i) % 3000);
    phx_lookup_fini(&l);
}

/* ---- how much is tried ------------------------------------------------------------------------ */

/* Guesses for n tokens of output of which every `one_in`-th guessed one is wrong (0 = none, 1 = all); rejected ones. */
static int32_t run(struct phx_drafter *d, int32_t n, int32_t one_in, int32_t *n_steps, int32_t *n_accepted)
{
    int32_t n_tokens = write_text("abcabcabc"), n_told = 0, n_rejected = 0, n_seen = 0;

    for (*n_steps = *n_accepted = 0; n_told < n; ++*n_steps) {
        int32_t n_drafts = phx_drafter_guess(d, text, n_tokens, PHX_DRAFTS_MAX), right = 0;

        while (right < n_drafts && (one_in == 0 || ++n_seen % one_in != 0))
            right++;
        phx_drafter_learn(d, n_drafts, right, right + 1);
        n_told += right + 1;
        n_rejected += n_drafts - right;
        *n_accepted += right;
    }
    return n_rejected;
}

static void right_guesses_grow_and_wrong_ones_are_given_up(void **state)
{
    static const int32_t cases[] = {0, 1, 2, 3, 5, 9};
    int32_t              n_steps, n_accepted, n_rejected;

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(*cases); i++) {
        struct phx_drafter d;

        phx_drafter_init(&d, TEXT_MAX);
        n_rejected = run(&d, 3200, cases[i], &n_steps, &n_accepted);
        print_message("one wrong in %d: %d steps, %d accepted, %d rejected\n", cases[i], n_steps, n_accepted,
                      n_rejected);
        assert_true(n_rejected <= 4 + n_accepted + 3200 / 64);
        if (cases[i] == 0)
            assert_true(n_steps < 3200 / PHX_DRAFTS_MAX && n_rejected == 0);
        if (cases[i] == 1)
            assert_true(n_accepted == 0 && n_rejected <= 4 + 3200 / 64);
        phx_drafter_fini(&d);
    }
}

static void nothing_is_tried_beyond_what_is_allowed(void **state)
{
    struct phx_drafter d = {.is_on = false};
    int32_t            n = write_text("abcabcabc");

    (void)state;
    assert_int_equal(phx_drafter_guess(&d, text, n, 8), 0); /* off: it has no table */
    phx_drafter_init(&d, n);
    assert_int_equal(phx_drafter_guess(&d, text, n, 0), 0);
    assert_int_equal(phx_drafter_guess(&d, text, n, -1), 0);
    assert_int_equal(phx_drafter_guess(&d, text, n, 1), 1);
    assert_int_equal(phx_drafter_guess(&d, text, n, 8), 2);
    for (int i = 0; i < 4; i++)
        phx_drafter_learn(&d, 2, 2, 3);
    assert_int_equal(phx_drafter_guess(&d, text, n, 100), PHX_DRAFTS_MAX);
    phx_drafter_fini(&d);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_stood_there_before_is_found),
        cmocka_unit_test(what_never_stood_there_is_not),
        cmocka_unit_test(the_longest_match_counts_and_the_last_place_of_its_length),
        cmocka_unit_test(a_repetition_goes_on),
        cmocka_unit_test(every_match_is_one),
        cmocka_unit_test(a_long_text_takes_several_calls),
        cmocka_unit_test(right_guesses_grow_and_wrong_ones_are_given_up),
        cmocka_unit_test(nothing_is_tried_beyond_what_is_allowed),
    };

    return cmocka_run_group_tests_name("shard/sched/lookup", tests, NULL, NULL);
}
