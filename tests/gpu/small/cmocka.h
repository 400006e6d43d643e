/* SPDX-License-Identifier: Apache-2.0
 * The part of cmocka's interface that the tests of the engine use, for hosts without that library
 * (PHX_PARTS=engine).  Names and meanings are cmocka's. */
#ifndef PHX_TESTS_GPU_SMALL_CMOCKA_H
#define PHX_TESTS_GPU_SMALL_CMOCKA_H

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef void (*CMUnitTestFunction)(void **state);
typedef int (*CMFixtureFunction)(void **state);

struct CMUnitTest {
    const char        *name;
    CMUnitTestFunction test_func;
    CMFixtureFunction  setup_func, teardown_func;
    void              *initial_state;
};

#define cmocka_unit_test(f) {#f, f, NULL, NULL, NULL}
#define cmocka_unit_test_setup_teardown(f, setup, teardown) {#f, f, setup, teardown, NULL}
#define cmocka_unit_test_prestate(f, state) {#f, f, NULL, NULL, state}

#define print_message(...) ((void)printf(__VA_ARGS__))
#define print_error(...)   ((void)fprintf(stderr, __VA_ARGS__))

void small_fail(const char *file, int line) __attribute__((noreturn));
void small_skip(void) __attribute__((noreturn));

#define fail() small_fail(__FILE__, __LINE__)
#define fail_msg(...)                                                                                                  \
    do {                                                                                                               \
        (void)fprintf(stderr, "ERROR: " __VA_ARGS__);                                                                  \
        (void)fputc('\n', stderr);                                                                                     \
        small_fail(__FILE__, __LINE__);                                                                                \
    } while (0)
#define skip() small_skip()

#define small_check(yes, text)                                                                                         \
    do {                                                                                                               \
        if (!(yes)) {                                                                                                  \
            (void)fprintf(stderr, "%s\n", text);                                                                       \
            small_fail(__FILE__, __LINE__);                                                                            \
        }                                                                                                              \
    } while (0)
#define assert_true(c)                    small_check(c, #c)
#define assert_false(c)                   small_check(!(c), "not " #c)
#define assert_non_null(p)                small_check((p) != NULL, #p " is NULL")
#define assert_null(p)                    small_check((p) == NULL, #p " is not NULL")
#define assert_ptr_equal(a, b)            small_check((a) == (b), #a " is not " #b)
#define assert_ptr_not_equal(a, b)        small_check((a) != (b), #a " is " #b)
#define assert_string_equal(a, b)         small_check(strcmp(a, b) == 0, #a " is not " #b)
#define assert_memory_equal(a, b, n)      small_check(memcmp(a, b, n) == 0, #a " is not " #b)
#define assert_memory_not_equal(a, b, n)  small_check(memcmp(a, b, n) != 0, #a " is " #b)
#define assert_float_equal(a, b, e)       small_check(fabs((double)(a) - (double)(b)) <= (double)(e), #a " is not " #b)
#define assert_in_range(v, low, high)     small_check((v) >= (low) && (v) <= (high), #v " is out of range")
#define assert_int_not_equal(a, b)        small_check((long long)(a) != (long long)(b), #a " is " #b)
#define assert_int_equal(a, b)                                                                                         \
    do {                                                                                                               \
        long long small_a_ = (long long)(a), small_b_ = (long long)(b);                                                \
        if (small_a_ != small_b_) {                                                                                    \
            (void)fprintf(stderr, "%s: %lld is not %lld\n", #a, small_a_, small_b_);                                   \
            small_fail(__FILE__, __LINE__);                                                                            \
        }                                                                                                              \
    } while (0)

/* How many tests failed. */
int _cmocka_run_group_tests(const char *name, const struct CMUnitTest *tests, size_t n, CMFixtureFunction setup,
                            CMFixtureFunction teardown);
#define cmocka_run_group_tests(tests, setup, teardown)                                                                 \
    _cmocka_run_group_tests(#tests, tests, sizeof(tests) / sizeof((tests)[0]), setup, teardown)

#endif
