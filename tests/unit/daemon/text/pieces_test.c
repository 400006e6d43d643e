/* SPDX-License-Identifier: Apache-2.0
 * The parts of encoding alone: patterns, splits, merges, added tokens. */
#include "tests/unit/daemon/text/text_util.h"

#include <stdlib.h>

#include "daemon/text/added.h"
#include "daemon/text/merge.h"
#include "daemon/text/regex.h"
#include "daemon/text/split.h"

/* ---- patterns ---- */

static void patterns_are_rewritten_or_refused(void **state)
{
    static const struct {
        const char *pattern, *want;
    } good[] = {{"a{1,3}\\r\\n", "a{1,3}\\r\\n"},
                {"(?i:'s)|x(?!y)", "(?i:'s)|x(?!y)"},
                {"\\u4e00\\x41\\x{1F600}", "\\x{4e00}\\x{41}\\x{1F600}"},
                {"[\\]\\-a]", "[\\]\\-a]"},
                {"{", "\\{"},
                {"\\pZ", "[\\p{Z}]"}};
    static const char *const bad[] = {"\\w",      "\\bx",     "[a[b]]",     "[a&&b]", "a{1,2}+",
                                      "(?P<n>x)", "[^\\S]",   "\\p{Greek}", "(*UTF)", "a{,3}",
                                      "\\K",      "[\\P{L}]", "(?m)x",      "\\1",    "[]a]"};
    static const char *const broken[] = {"a\\", "[a", "\\p{L", "\\x{}", "\\u12", "\\p"};
    (void)state;
    struct phx_err err = {0};
    struct phx_buf out;
    phx_buf_init(&out, 0);
    for (size_t i = 0; i < sizeof good / sizeof good[0]; i++) {
        phx_buf_clear(&out);
        assert_ok(phx_regex_translate(good[i].pattern, "x", &out, &err));
        assert_string_equal(out.data, good[i].want);
    }
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (phx_regex_translate(bad[i], "x", &out, &err) != PHX_E_UNSUPPORTED)
            fail_msg("%s was not refused", bad[i]);
    for (size_t i = 0; i < sizeof broken / sizeof broken[0]; i++)
        if (phx_regex_translate(broken[i], "x", &out, &err) != PHX_E_FORMAT)
            fail_msg("%s was not refused", broken[i]);
    phx_buf_fini(&out);
}

static void check_find(const char *pattern, const char *text, int want)
{
    struct phx_err         err = {0};
    struct phx_regex      *re = NULL;
    struct phx_regex_state s = {0};
    size_t                 from = 0, to = 0;
    assert_ok(phx_regex_compile(pattern, "x", &re, &err));
    int rc = phx_regex_find(re, &s, text, strlen(text), 0, &from, &to, &err);
    if (rc != want)
        fail_msg("%s on %s: %d", pattern, text, rc);
    phx_regex_state_fini(&s);
    phx_regex_free(re);
}

static void classes_follow_the_references_unicode(void **state)
{
    (void)state;
    check_find("^\\s$", "\xC2\x85", 1);     /* U+0085 is white space */
    check_find("^\\s$", "\xE1\xA0\x8E", 0); /* U+180E is not (PCRE2 thinks so) */
    check_find("^\\S$", "\xE1\xA0\x8E", 1);
    check_find("^\\p{L}$", "\xE1\xB2\x89", 1); /* U+1C89 came with Unicode 16 */
    check_find("^[^\\p{L}]$", "\xE1\xB2\x89", 0);
    check_find("^\\P{L}$", "\xE1\xB2\x89", 0);
    check_find("^\\p{Lu}$", "\xE1\xB2\x89", 1);
    check_find("^\\d$", "\xD9\xA3", 1);
    check_find("(?i:'s)", "'\xC5\xBF", 1); /* long s */
    check_find("x$", "x\ny", 1);           /* lines end at LF */
}

/* ---- splits ---- */

static int collect(void *ctx, const char *piece, size_t size, struct phx_err *err)
{
    (void)err;
    phx_buf_put(ctx, piece, size);
    phx_buf_putc(ctx, '|');
    return 0;
}

static void check_split(const char *json, const char *text, bool is_start, const char *want)
{
    struct phx_err         err = {0};
    struct phx_splitter    s = {0};
    struct phx_regex_state state = {0};
    struct phx_buf         out;
    json_t                *value = json_loads(json, 0, NULL);
    assert_non_null(value);
    phx_buf_init(&out, 0);
    assert_ok(phx_splitter_parse(&s, value, "x", &err));
    assert_ok(phx_splitter_run(&s, &state, text, strlen(text), is_start, collect, &out, &err));
    assert_string_equal(out.data ? out.data : "", want);
    phx_buf_fini(&out);
    phx_splitter_fini(&s);
    phx_regex_state_fini(&state);
    json_decref(value);
}

#define SPLIT(behavior, invert)                                                                    \
    "{\"type\":\"Split\",\"pattern\":{\"String\":\"-\"},\"behavior\":\"" behavior                  \
    "\",\"invert\":" invert "}"

/* The expected pieces are those of the reference for "the-final--countdown". */
static void every_split_behaviour_cuts_like_the_reference(void **state)
{
    static const char text[] = "the-final--countdown";
    (void)state;
    check_split(SPLIT("Isolated", "false"), text, true, "the|-|final|-|-|countdown|");
    check_split(SPLIT("Removed", "false"), text, true, "the|final|countdown|");
    check_split(SPLIT("MergedWithPrevious", "false"), text, true, "the-|final-|-|countdown|");
    check_split(SPLIT("MergedWithNext", "false"), text, true, "the|-final|-|-countdown|");
    check_split(SPLIT("Contiguous", "false"), text, true, "the|-|final|--|countdown|");
    check_split(SPLIT("Removed", "true"), text, true, "-|-|-|");
    check_split("{\"type\":\"Digits\",\"individual_digits\":true}", "a12b", true, "a|1|2|b|");
    check_split("{\"type\":\"Digits\",\"individual_digits\":false}", "a12b", true, "a|12|b|");
}

#define METASPACE(scheme, split)                                                                   \
    "{\"type\":\"Metaspace\",\"replacement\":\"_\",\"prepend_scheme\":\"" scheme                   \
    "\",\"split\":" split "}"

static void metaspace_marks_words(void **state)
{
    (void)state;
    check_split(METASPACE("always", "true"), "Hey my  x", true, "_Hey|_my|_|_x|");
    check_split(METASPACE("always", "false"), " a", false, "_a|");
    check_split(METASPACE("first", "false"), "a b", true, "_a_b|");
    check_split(METASPACE("first", "false"), "a b", false, "a_b|");
    check_split(METASPACE("never", "true"), "a b", true, "a|_b|");
}

/* ---- merges ---- */

/* The definition, slowly: the lowest rank first, leftmost on ties. */
static size_t merge_slowly(uint32_t rank[8][8], int32_t into[8][8], int32_t *ids, size_t n)
{
    for (;;) {
        size_t   best = n;
        uint32_t low = UINT32_MAX;
        for (size_t i = 0; i + 1 < n; i++)
            if (rank[ids[i]][ids[i + 1]] < low) {
                low = rank[ids[i]][ids[i + 1]];
                best = i;
            }
        if (best == n)
            return n;
        ids[best] = into[ids[best]][ids[best + 1]];
        memmove(&ids[best + 1], &ids[best + 2], (n - best - 2) * sizeof *ids);
        n--;
    }
}

static void both_merge_engines_follow_the_definition(void **state)
{
    (void)state;
    srand(5);
    for (int round = 0; round < 300; round++) {
        uint32_t          rank[8][8];
        int32_t           into[8][8], slow[600], fast[600];
        struct phx_merges m;
        struct phx_err    err = {0};
        assert_ok(phx_merges_init(&m, 64, &err));
        for (int a = 0; a < 8; a++)
            for (int b = 0; b < 8; b++) {
                /* a token longer than both parts, so that no merge repeats for ever */
                int id = a > b ? a + 1 : b + 1;
                rank[a][b] = id < 8 && rand() % 2 ? (uint32_t)(rand() % 40) : UINT32_MAX;
                into[a][b] = id;
                if (rank[a][b] != UINT32_MAX)
                    phx_merges_put(&m, a, b, rank[a][b], id);
            }
        size_t n = (size_t)(rand() % 600), left = 0;
        for (size_t i = 0; i < n; i++)
            slow[i] = fast[i] = rand() % 4;
        struct phx_merge_scratch scratch = {0};
        assert_ok(phx_merges_apply(&m, fast, n, &scratch, &left, &err));
        assert_int_equal(left, merge_slowly(rank, into, slow, n));
        assert_memory_equal(fast, slow, left * sizeof *fast);
        phx_merge_scratch_fini(&scratch);
        phx_merges_fini(&m);
    }
}

/* ---- added tokens ---- */

static void put(struct phx_added *a, const char *content, struct phx_added_token token)
{
    struct phx_err err = {0};
    assert_ok(phx_added_put(a, content, strlen(content), token, "x", &err));
}

static void added_tokens_match_leftmost_longest_with_their_flags(void **state)
{
    static const char    text[] = "ab abc  <m>  word sword <s>";
    struct phx_added     a = {0};
    struct phx_added_hit hit;
    struct phx_err       err = {0};
    struct phx_buf       log;
    size_t               at = 0, floor = 0;
    (void)state;
    put(&a, "ab", (struct phx_added_token){.id = 1});
    put(&a, "abc", (struct phx_added_token){.id = 2});
    put(&a, "<m>", (struct phx_added_token){.id = 3, .is_lstrip = true, .is_rstrip = true});
    put(&a, "word", (struct phx_added_token){.id = 4, .is_single_word = true});
    put(&a, "<s>", (struct phx_added_token){.id = 5, .is_special = true});
    assert_int_equal(phx_added_put(&a, "ab", 2, (struct phx_added_token){.id = 9}, "x", &err),
                     PHX_E_FORMAT);
    phx_buf_init(&log, 0);
    for (; phx_added_next(&a, text, sizeof text - 1, &at, floor, false, &hit); floor = hit.to)
        phx_buf_printf(&log, "%d:%zu-%zu ", hit.id, hit.from, hit.to);
    assert_string_equal(log.data, "1:0-2 2:3-6 3:6-13 4:13-17 ");
    at = 20;
    assert_true(phx_added_next(&a, text, sizeof text - 1, &at, 20, true, &hit));
    assert_int_equal(hit.id, 5);
    phx_buf_fini(&log);
    phx_added_fini(&a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(patterns_are_rewritten_or_refused),
        cmocka_unit_test(classes_follow_the_references_unicode),
        cmocka_unit_test(every_split_behaviour_cuts_like_the_reference),
        cmocka_unit_test(metaspace_marks_words),
        cmocka_unit_test(both_merge_engines_follow_the_definition),
        cmocka_unit_test(added_tokens_match_leftmost_longest_with_their_flags),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
