/* SPDX-License-Identifier: Apache-2.0 */
#include <cmocka.h>

static jmp_buf escape;
static int     is_running, is_skipped;

void small_fail(const char *file, int line)
{
    (void)fprintf(stderr, "%s:%d: failed\n", file, line);
    if (!is_running)
        exit(1); /* a fixture */
    longjmp(escape, 1);
}

void small_skip(void)
{
    is_skipped = 1;
    longjmp(escape, 1);
}

/* One test: 0 passed, 1 failed, 2 not run. */
static int run_one(const struct CMUnitTest *t, void *shared)
{
    void *volatile state = t->initial_state != NULL ? t->initial_state : shared;
    volatile int rc = 1;

    is_running = 1;
    is_skipped = 0;
    printf("[ RUN      ] %s\n", t->name);
    (void)fflush(stdout);
    if (setjmp(escape) == 0) {
        void *own = state;

        if (t->setup_func == NULL || t->setup_func(&own) == 0) {
            t->test_func(&own);
            rc = t->teardown_func == NULL || t->teardown_func(&own) == 0 ? 0 : 1;
        }
    } else if (is_skipped) {
        rc = 2;
    }
    is_running = 0;
    printf("[ %s ] %s\n", rc == 0 ? "      OK" : rc == 1 ? " FAILED " : "SKIPPED ", t->name);
    return rc;
}

int _cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t n, CMFixtureFunction setup,
                            CMFixtureFunction teardown)
{
    void *state = NULL;
    int   n_failed = 0;

    if (setup != NULL && setup(&state) != 0)
        return (int)n;
    for (size_t i = 0; i < n; i++)
        n_failed += run_one(&tests[i], state) == 1;
    if (teardown != NULL && teardown(&state) != 0)
        n_failed++;
    printf("[  %s  ] %s: %d of %zu test(s) failed\n", n_failed == 0 ? "PASSED" : "FAILED", name, n_failed, n);
    return n_failed;
}
