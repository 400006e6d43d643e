/* SPDX-License-Identifier: Apache-2.0
 * Which way a product goes on a device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/pick_matmul.h"

enum { H200_SMS = 132 };

static struct cuda_matmul_choice pick(enum phx_compute compute, bool is_fast, enum phx_dtype dtype, int32_t n,
                                      int32_t n_slices, int32_t rows)
{
    struct phx_weight_desc w = {.dtype = dtype, .n = n, .k = 2880, .n_experts = 1, .n_slices = n_slices};

    return phx_cuda_pick_matmul(compute, is_fast, false, H200_SMS, &w, rows);
}

static enum cuda_matmul_kernel kernel_for(enum phx_dtype dtype, int32_t n, int32_t n_slices, int32_t rows)
{
    return pick(PHX_COMPUTE_BF16, false, dtype, n, n_slices, rows).kernel;
}

static void what_is_not_rounded_is_multiplied_in_float32(void **state)
{
    static const enum phx_dtype floats[] = {PHX_DTYPE_F32, PHX_DTYPE_F16}, short_ones[] = {PHX_DTYPE_BF16, PHX_DTYPE_MXFP4};

    (void)state;
    for (int i = 0; i < 2; i++)
        for (int32_t rows = 1; rows < 5000; rows *= 3) {
            assert_int_equal(kernel_for(floats[i], 5120, 1, rows), CUDA_MATMUL_FLOAT);
            assert_int_equal(pick(PHX_COMPUTE_F32, true, short_ones[i], 5120, 1, rows).kernel, CUDA_MATMUL_FLOAT);
            assert_int_not_equal(kernel_for(short_ones[i], 5120, 1, rows), CUDA_MATMUL_FLOAT);
        }
    assert_int_equal(pick(PHX_COMPUTE_F32, false, PHX_DTYPE_F32, 32, 1, 1).x_rows, 1);
    assert_int_equal(pick(PHX_COMPUTE_F32, false, PHX_DTYPE_F32, 32, 1, 2).x_rows, 8);
    assert_int_not_equal(pick(PHX_COMPUTE_F32, false, PHX_DTYPE_I8, 5120, 1, 1).kernel, CUDA_MATMUL_FLOAT);
}

static void few_rows_stream_the_weights(void **state)
{
    struct cuda_matmul_choice one = pick(PHX_COMPUTE_BF16, false, PHX_DTYPE_BF16, 2880, 8, 1);
    struct cuda_matmul_choice head = pick(PHX_COMPUTE_BF16, false, PHX_DTYPE_BF16, 201088, 1, 8);
    struct cuda_matmul_choice nine = pick(PHX_COMPUTE_BF16, false, PHX_DTYPE_BF16, 2880, 8, 9);
    struct cuda_matmul_choice i8 = pick(PHX_COMPUTE_F32, false, PHX_DTYPE_I8, 2880, 8, 1);

    (void)state;
    assert_int_equal(one.kernel, CUDA_MATMUL_STREAM);
    assert_int_equal(one.row_tiles, 1); /* 180 blocks for 132 multiprocessors */
    assert_false(one.is_rounded_first);
    assert_int_equal(head.row_tiles, 2);
    assert_int_equal(head.x_tiles, 1);
    assert_int_equal(nine.x_tiles, 2);
    assert_true(nine.is_rounded_first);
    assert_true(i8.is_rounded_first);
    assert_int_equal(pick(PHX_COMPUTE_BF16, false, PHX_DTYPE_BF16, 64, 1, 17).row_tiles, 2); /* the only one of four */
    assert_int_equal(kernel_for(PHX_DTYPE_BF16, 5120, 1, 32), CUDA_MATMUL_STREAM);
    assert_int_equal(kernel_for(PHX_DTYPE_BF16, 5120, 1, 33), CUDA_MATMUL_TILE);
}

static bool goes_on(bool is_fast, enum phx_dtype dtype, int32_t rows)
{
    struct phx_weight_desc    w = {.dtype = dtype, .n = 5120, .k = 2880, .n_experts = 1, .n_slices = 1};
    struct cuda_matmul_choice c = phx_cuda_pick_matmul(PHX_COMPUTE_BF16, is_fast, true, H200_SMS, &w, rows);

    return phx_cuda_pick_ends(&c, &w, rows);
}

static void few_rows_go_on_with_their_outputs(void **state)
{
    (void)state;
    for (int is_fast = 0; is_fast < 2; is_fast++) {
        assert_true(goes_on(is_fast, PHX_DTYPE_BF16, 1));
        assert_true(goes_on(is_fast, PHX_DTYPE_BF16, 8));
        assert_false(goes_on(is_fast, PHX_DTYPE_BF16, 9));
        assert_false(goes_on(is_fast, PHX_DTYPE_I8, 1));
        assert_false(goes_on(is_fast, PHX_DTYPE_F32, 1));
    }
}

static void pairs_are_rotated_where_a_block_has_both(void **state)
{
    static const int32_t whole[] = {2, 8, 16, 32, 64, 96, 128}, cut[] = {6, 22, 24, 48, 80};
    struct phx_kv_desc   kv = {.dtype = PHX_DTYPE_BF16};

    (void)state;
    for (size_t i = 0; i < sizeof(whole) / sizeof(whole[0]); i++) {
        kv.head_dim = whole[i];
        assert_true(phx_cuda_pick_rope(&kv));
    }
    for (size_t i = 0; i < sizeof(cut) / sizeof(cut[0]); i++) {
        kv.head_dim = cut[i];
        assert_false(phx_cuda_pick_rope(&kv));
    }
    kv.head_dim = 64;
    kv.dtype = PHX_DTYPE_I8; /* a scale of the whole head */
    assert_false(phx_cuda_pick_rope(&kv));
    kv.dtype = PHX_DTYPE_F8_E4M3;
    assert_false(phx_cuda_pick_rope(&kv));
    kv.dtype = PHX_DTYPE_F32;
    assert_true(phx_cuda_pick_rope(&kv));
}

static void large_tiles_need_one_slice_and_enough_work(void **state)
{
    (void)state;
    assert_int_equal(kernel_for(PHX_DTYPE_BF16, 201088, 1, 64), CUDA_MATMUL_TILE);
    assert_int_equal(kernel_for(PHX_DTYPE_BF16, 201088, 1, 65), CUDA_MATMUL_TILE_LARGE);
    assert_int_equal(kernel_for(PHX_DTYPE_BF16, 5120, 1, 256), CUDA_MATMUL_TILE);
    assert_int_equal(kernel_for(PHX_DTYPE_BF16, 5120, 1, 512), CUDA_MATMUL_TILE_LARGE);
    assert_int_equal(kernel_for(PHX_DTYPE_BF16, 5120, 8, 4096), CUDA_MATMUL_TILE);
    assert_int_equal(kernel_for(PHX_DTYPE_MXFP4, 5120, 1, INT32_MAX), CUDA_MATMUL_TILE_LARGE);
}

static void only_class_b_leaves_products_to_the_library(void **state)
{
    (void)state;
    assert_int_equal(pick(PHX_COMPUTE_BF16, true, PHX_DTYPE_BF16, 5120, 8, 512).kernel, CUDA_MATMUL_LIBRARY);
    assert_int_not_equal(pick(PHX_COMPUTE_BF16, true, PHX_DTYPE_BF16, 5120, 8, 511).kernel, CUDA_MATMUL_LIBRARY);
    assert_int_not_equal(pick(PHX_COMPUTE_BF16, false, PHX_DTYPE_BF16, 5120, 8, 512).kernel, CUDA_MATMUL_LIBRARY);
    assert_int_not_equal(pick(PHX_COMPUTE_BF16, true, PHX_DTYPE_MXFP4, 5120, 8, 512).kernel, CUDA_MATMUL_LIBRARY);
    assert_string_equal(phx_cuda_matmul_kernel_name(CUDA_MATMUL_LIBRARY), "library");
    assert_string_equal(phx_cuda_matmul_kernel_name(CUDA_MATMUL_STREAM), "stream");
}

static enum cuda_matmul_kernel hopper_kernel(bool is_fast, enum phx_dtype dtype, int32_t n_slices, int32_t rows)
{
    struct phx_weight_desc w = {.dtype = dtype, .n = 5120, .k = 2880, .n_experts = 1, .n_slices = n_slices};

    return phx_cuda_pick_matmul(PHX_COMPUTE_BF16, is_fast, true, H200_SMS, &w, rows).kernel;
}

static void many_rows_go_to_warpgroups_where_they_may(void **state)
{
    (void)state;
    for (int is_fast = 0; is_fast < 2; is_fast++)
        for (int32_t slices = 1; slices <= 8; slices += 7) {
            assert_int_equal(hopper_kernel(is_fast, PHX_DTYPE_BF16, slices, 64), CUDA_MATMUL_HOPPER);
            assert_int_equal(hopper_kernel(is_fast, PHX_DTYPE_MXFP4, slices, 5000), CUDA_MATMUL_HOPPER);
            assert_int_equal(hopper_kernel(is_fast, PHX_DTYPE_BF16, slices, 63), CUDA_MATMUL_TILE);
            assert_int_equal(hopper_kernel(is_fast, PHX_DTYPE_BF16, slices, 32), CUDA_MATMUL_STREAM);
            assert_int_not_equal(hopper_kernel(is_fast, PHX_DTYPE_I8, slices, 500), CUDA_MATMUL_HOPPER);
        }
    assert_int_equal(hopper_kernel(false, PHX_DTYPE_BF16, 8, 5000), CUDA_MATMUL_HOPPER);
    assert_int_equal(hopper_kernel(true, PHX_DTYPE_BF16, 8, 5000), CUDA_MATMUL_LIBRARY);
    assert_int_equal(hopper_kernel(false, PHX_DTYPE_F32, 1, 5000), CUDA_MATMUL_FLOAT);
    assert_string_equal(phx_cuda_matmul_kernel_name(CUDA_MATMUL_HOPPER), "hopper");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_not_rounded_is_multiplied_in_float32),
        cmocka_unit_test(few_rows_stream_the_weights),
        cmocka_unit_test(few_rows_go_on_with_their_outputs),
        cmocka_unit_test(pairs_are_rotated_where_a_block_has_both),
        cmocka_unit_test(large_tiles_need_one_slice_and_enough_work),
        cmocka_unit_test(only_class_b_leaves_products_to_the_library),
        cmocka_unit_test(many_rows_go_to_warpgroups_where_they_may),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
