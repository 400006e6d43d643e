/* SPDX-License-Identifier: Apache-2.0
 * E4M3 by its definition: every code, every midpoint, what is too large. */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/f8.h"

enum { CODES = 0x7f /* finite ones of a sign; behind them NaN */ };

/* (1 + m / 8) 2^(e - 7), or m / 8 2^-6 where e is 0. */
static double value_of(int code)
{
    int e = code >> 3 & 15, m = code & 7;

    return ldexp(e > 0 ? 1 + m / 8.0 : m / 8.0, e > 0 ? e - 7 : -6);
}

static void every_code_is_its_own_nearest(void **state)
{
    (void)state;
    for (int code = 0; code < CODES; code++)
        for (int sign = 0; sign < 2; sign++) {
            uint8_t bits = (uint8_t)(code | sign << 7);
            double  value = sign ? -value_of(code) : value_of(code);

            assert_true((double)phx_f8_float(bits) == value);
            assert_int_equal(phx_f8_bits((float)value), bits);
        }
    assert_true(value_of(CODES - 1) == (double)PHX_F8_MAX);
}

/* Between two codes: below the middle the lower, above it the upper, in the middle the even one. */
static void between_codes_the_nearest_is_taken(void **state)
{
    (void)state;
    for (int code = 0; code + 1 < CODES; code++) {
        float middle = (float)((value_of(code) + value_of(code + 1)) / 2);

        assert_int_equal(phx_f8_bits(middle), code % 2 == 0 ? code : code + 1);
        assert_int_equal(phx_f8_bits(nextafterf(middle, 0)), code);
        assert_int_equal(phx_f8_bits(nextafterf(middle, 1000)), code + 1);
        assert_int_equal(phx_f8_bits(-middle), 0x80 | (code % 2 == 0 ? code : code + 1));
    }
}

static void what_is_too_large_becomes_the_largest(void **state)
{
    static const float large[] = {448.0f, 449.0f, 463.9f, 464.0f, 480.0f, 1e30f, 3.4e38f};

    (void)state;
    for (size_t i = 0; i < sizeof(large) / sizeof(large[0]); i++) {
        assert_int_equal(phx_f8_bits(large[i]), 0x7e);
        assert_int_equal(phx_f8_bits(-large[i]), 0xfe);
    }
    assert_int_equal(phx_f8_bits(1e-30f), 0);
    assert_int_equal(phx_f8_bits(-1e-42f), 0x80);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_code_is_its_own_nearest),
        cmocka_unit_test(between_codes_the_nearest_is_taken),
        cmocka_unit_test(what_is_too_large_becomes_the_largest),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
