/* SPDX-License-Identifier: Apache-2.0
 * Sampling from what a device brings of the logits, on the module beside this program, in several layouts.
 * sampling_test [ROUNDS]. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "tests/model/sampling.h"

static int32_t n_rounds = 60;

static struct sampling_seen check(const char *name, const char *backend, int32_t tp, int32_t pp)
{
    struct golden            g = golden_load(name);
    struct phx_ranks_options o = harness_options(&g, tp, pp);
    struct sampling_seen     seen;

    o.backend = backend;
    seen = sampling_check(&g, &o, n_rounds);
    golden_free(&g);
    return seen;
}

static void a_device_gives_the_tokens_of_the_whole_logits(void **state)
{
    struct sampling_seen seen = check("llama3-untied-f16", "cuda", 1, 1);

    (void)state;
    assert_true(seen.n_whole > 0 && seen.n_late > 0 && 3 * (seen.n_whole + seen.n_late) < 2 * seen.n_rows);
    (void)check("gpt-oss-window-f32", "cuda", 1, 2);
}

static void split_vocabularies_give_the_same(void **state)
{
    struct sampling_seen seen = check("llama3-untied-f16", "cuda", 2, 1);

    (void)state;
    assert_true(seen.n_late == 0 && seen.n_whole < seen.n_rows);
    (void)check("gpt-oss-window-f32", "cuda", 2, 2);
    (void)check("llama3-untied-f16", "cuda", 4, 1);
}

static void in_place_everything_is_whole(void **state)
{
    struct sampling_seen seen = check("llama3-untied-f16", "cpu", 1, 1);

    (void)state;
    assert_true(seen.n_whole == seen.n_rows);
    seen = check("llama3-untied-f16", "cpu", 2, 1);
    assert_true(seen.n_whole == seen.n_rows);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_gives_the_tokens_of_the_whole_logits),
        cmocka_unit_test(split_vocabularies_give_the_same),
        cmocka_unit_test(in_place_everything_is_whole),
    };

    if (argc > 1)
        n_rounds = (int32_t)strtol(argv[1], NULL, 10);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
