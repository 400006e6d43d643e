/* SPDX-License-Identifier: Apache-2.0
 * How much of its weights a product asks for ahead of its turn. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "kernels/cuda/pick_ahead.h"

enum { H200_SMS = 132, MIB = 1 << 20, BF16_BLOCK = 1024 /* 16 rows of 32 k */ };
static const size_t H200_L2 = (size_t)50 << 20;

static void expect(struct cuda_ahead got, int32_t n_tiles, uint32_t bytes)
{
    assert_int_equal(got.n_tiles, n_tiles);
    assert_int_equal(got.bytes, bytes);
}

/* gpt-oss-20b: what there is room for, all of what is small, the first blocks of what is large. */
static void the_products_of_a_decoding_layer(void **state)
{
    (void)state;
    expect(phx_cuda_pick_ahead(H200_L2, H200_SMS, 2880 / 16, 1, 128 * BF16_BLOCK), 180, 128 * BF16_BLOCK); /* attention out */
    expect(phx_cuda_pick_ahead(H200_L2, H200_SMS, 5120 / 16, 1, 90 * BF16_BLOCK), 320, 640 * 128);         /* qkv */
    expect(phx_cuda_pick_ahead(H200_L2, H200_SMS, 32 / 16, 1, 90 * 2 * BF16_BLOCK), 2, 180 * BF16_BLOCK);  /* router, f32 */
    expect(phx_cuda_pick_ahead(H200_L2, H200_SMS, 201088 / 16, 2, 90 * BF16_BLOCK), 1056, 193 * 128);      /* head */
}

static void never_more_than_is_read_nor_half_the_cache(void **state)
{
    int n_some = 0;

    (void)state;
    for (size_t l2 = 1000; l2 < (size_t)1 << 32; l2 = l2 * 5 / 2)
        for (int sms = 1; sms < 300; sms = sms * 3 + 1)
            for (int64_t n_tiles = 1; n_tiles < 20000; n_tiles = n_tiles * 7 / 2 + 1)
                for (int of_block = 1; of_block <= 2; of_block++)
                    for (size_t tile = 16; tile < (size_t)64 << 20; tile *= 6) {
                        struct cuda_ahead a = phx_cuda_pick_ahead(l2, sms, n_tiles, of_block, tile);

                        assert_true(a.bytes <= tile && a.bytes % 16 == 0 && a.bytes < MIB);
                        assert_true(a.n_tiles <= n_tiles && a.n_tiles <= sms * 4 * of_block);
                        assert_true((size_t)a.n_tiles * a.bytes <= l2 / 2);
                        assert_true((a.n_tiles > 0) == (a.bytes > 0));
                        n_some += a.bytes > 0;
                    }
    assert_true(n_some > 1000);
}

static void little_is_not_worth_asking_for(void **state)
{
    (void)state;
    expect(phx_cuda_pick_ahead(0, H200_SMS, 180, 1, 1 << 16), 0, 0); /* a device that does not tell */
    expect(phx_cuda_pick_ahead(H200_L2, H200_SMS, 180, 1, 512), 0, 0);
    expect(phx_cuda_pick_ahead(MIB, H200_SMS, 12568, 1, 1 << 16), 0, 0);
    expect(phx_cuda_pick_ahead(H200_L2, H200_SMS, 0, 1, 1 << 16), 0, 0);
    expect(phx_cuda_pick_ahead(H200_L2, H200_SMS, 1, 1, 1024), 1, 1024);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_products_of_a_decoding_layer),
        cmocka_unit_test(never_more_than_is_read_nor_half_the_cache),
        cmocka_unit_test(little_is_not_worth_asking_for),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
