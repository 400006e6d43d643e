/* SPDX-License-Identifier: Apache-2.0
 * The hashes that a host without libsodium gets have the library's answers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>
#include <sodium.h>

#include "tests/unit/rpc/base/small_hash.h"

enum { SIZES = 400 };

static void fill(unsigned char *p, size_t n, unsigned seed)
{
    for (size_t i = 0; i < n; i++)
        p[i] = (unsigned char)((seed = seed * 1103515245u + 12345u) >> 16);
}

static void blocks_have_the_same_names(void **state)
{
    unsigned char data[SIZES], got[64], want[64];

    (void)state;
    for (size_t size = 0; size < SIZES; size++)
        for (size_t out = 16; out <= 64; out += 16) {
            fill(data, size, (unsigned)size);
            assert_int_equal(small_generichash(got, out, data, size, size / 3), 0);
            assert_int_equal(crypto_generichash(want, out, data, size, NULL, 0), 0);
            assert_memory_equal(got, want, out);
        }
    assert_int_equal(small_generichash(got, 65, data, 1, 0), -1);
    assert_int_equal(small_generichash(got, 0, data, 1, 0), -1);
}

static void tables_have_the_same_hashes(void **state)
{
    unsigned char data[SIZES], key[crypto_shorthash_KEYBYTES], got[crypto_shorthash_BYTES], want[crypto_shorthash_BYTES];

    (void)state;
    for (size_t size = 0; size < SIZES; size++) {
        fill(data, size, (unsigned)size + 1);
        fill(key, sizeof(key), (unsigned)size + 2);
        assert_int_equal(small_shorthash(got, data, size, key), 0);
        assert_int_equal(crypto_shorthash(want, data, size, key), 0);
        assert_memory_equal(got, want, sizeof(want));
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_have_the_same_names),
        cmocka_unit_test(tables_have_the_same_hashes),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
