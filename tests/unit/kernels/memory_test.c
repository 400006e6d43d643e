/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/memory.h"

static void memory_is_zeroed_aligned_and_writable_to_the_end(void **state)
{
    const size_t sizes[] = {0, 1, 63, 64, 4096, 4096 - 64, 100000, (4u << 20) - 1, 4u << 20, (9u << 20) + 5};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        unsigned char *p = phx_memory_alloc(sizes[i]);

        assert_non_null(p);
        assert_int_equal((uintptr_t)p % 64, 0);
        if (sizes[i] >= 4u << 20)
            assert_int_equal((uintptr_t)p % (2u << 20), 0); /* huge pages fit */
        for (size_t j = 0; j < sizes[i]; j++)
            if (p[j] != 0)
                fail_msg("byte %zu of %zu is not zero", j, sizes[i]);
        memset(p, 0xff, sizes[i]);
        phx_memory_free(p);
    }
    phx_memory_free(NULL);
}

static void what_cannot_be_had_is_refused(void **state)
{
    (void)state;
    assert_null(phx_memory_alloc(SIZE_MAX));
    assert_null(phx_memory_alloc(SIZE_MAX - 64));
    assert_null(phx_memory_alloc(SIZE_MAX / 2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_zeroed_aligned_and_writable_to_the_end),
        cmocka_unit_test(what_cannot_be_had_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
