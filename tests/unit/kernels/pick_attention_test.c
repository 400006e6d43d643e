/* SPDX-License-Identifier: Apache-2.0
 * Which way attention goes on a device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/pick_attention.h"

enum { HOPPER = 227 << 10 };

static int32_t pick(enum phx_compute compute, enum phx_dtype dtype, int32_t head_dim)
{
    struct phx_kv_desc kv = {1, 1, 16, 1, head_dim, dtype};

    return phx_cuda_pick_attention(compute, &kv);
}

static void the_kernel_follows_from_the_model(void **state)
{
    (void)state;
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_BF16, 64), 64);
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_BF16, 8), 64);
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_BF16, 72), 128);
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_BF16, 128), 128);
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_BF16, 136), 0); /* too long */
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_BF16, 36), 0);  /* not in 16-byte pieces */
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_F32, 64), 0);
    assert_int_equal(pick(PHX_COMPUTE_F32, PHX_DTYPE_BF16, 64), 0);
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_I8, 64), 64);
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_I8, 80), 128);
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_I8, 72), 0); /* not in 16-byte pieces */
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_F8_E4M3, 64), 64);
    assert_int_equal(pick(PHX_COMPUTE_BF16, PHX_DTYPE_F8_E4M3, 72), 0);
    assert_int_equal(pick(PHX_COMPUTE_F32, PHX_DTYPE_I8, 64), 0);
}

static void few_queries_go_in_narrow_units(void **state)
{
    (void)state;
    assert_true(phx_cuda_pick_narrow(1, 8, 64, HOPPER));
    assert_true(phx_cuda_pick_narrow(4, 8, 128, HOPPER));
    assert_true(phx_cuda_pick_narrow(1, 32, 64, HOPPER));
    assert_false(phx_cuda_pick_narrow(5, 8, 64, HOPPER));
    assert_false(phx_cuda_pick_narrow(INT32_MAX, INT32_MAX, 128, HOPPER));
    assert_false(phx_cuda_pick_narrow(5, 8, 64, 99 << 10));
    assert_true(phx_cuda_pick_narrow(500, 8, 128, 99 << 10)); /* has no room for four warps */
    assert_int_equal(phx_cuda_pick_unit(true, 64), 16);
    assert_int_equal(phx_cuda_pick_unit(true, 128), 16);
    assert_int_equal(phx_cuda_pick_unit(false, 64), 128);
    assert_int_equal(phx_cuda_pick_unit(false, 128), 64);
}

/* n sequences of `tokens` tokens: their last rows, or units of a prefill that see all of it. */
static const char *split(bool is_narrow, int32_t n, int32_t tokens)
{
    struct cuda_split_shape s = {.is_narrow = is_narrow, .sm_count = 132, .n_kv = 8, .n_units = n,
                                 .slot_bytes = (is_narrow ? 8 : 128) * 66 * 4};

    s.leaves_max = (tokens + CUDA_LEAF_TOKENS - 1) / CUDA_LEAF_TOKENS;
    s.n_leaves = (int64_t)n * s.leaves_max;
    s.n_parts = (int64_t)n * ((tokens + CUDA_PART_TOKENS - 1) / CUDA_PART_TOKENS);
    return phx_cuda_split_name(phx_cuda_pick_split(&s));
}

static void keys_are_shared_out_until_the_device_is_busy(void **state)
{
    (void)state;
    assert_string_equal(split(true, 1, 256), "none"); /* a second launch takes longer */
    assert_string_equal(split(true, 1, 257), "leaves");
    assert_string_equal(split(true, 1, 8192), "leaves");
    assert_string_equal(split(true, 64, 8192), "parts");
    assert_string_equal(split(true, 256, 512), "none"); /* of one part each */
    assert_string_equal(split(true, 1, 131072), "parts");
    assert_string_equal(split(true, 1, 33 << 20), "none"); /* more pieces than a grid has */
    assert_string_equal(split(false, 1, 8192), "parts");
    assert_string_equal(split(false, 64, 8192), "none");
    assert_string_equal(split(false, 1, 512), "none");
    assert_string_equal(split(false, 16, 131072), "none"); /* the pieces would not fit */
}

static void few_pieces_are_joined_where_they_are_made(void **state)
{
    (void)state;
    assert_true(phx_cuda_pick_joining(64, 8, 16, 8));
    assert_false(phx_cuda_pick_joining(64, 8, 17, 8));
    assert_true(phx_cuda_pick_joining(64, 4, 32, 8));
    assert_true(phx_cuda_pick_joining(128, 4, 16, 8));
    assert_false(phx_cuda_pick_joining(128, 5, 2, 8));
    assert_true(phx_cuda_pick_joining(64, 8, 16, CUDA_JOINS_MAX));
    assert_false(phx_cuda_pick_joining(64, 8, 16, CUDA_JOINS_MAX + 1));
    assert_false(phx_cuda_pick_joining(128, 16, INT32_MAX - 20, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernel_follows_from_the_model),
        cmocka_unit_test(few_queries_go_in_narrow_units),
        cmocka_unit_test(keys_are_shared_out_until_the_device_is_busy),
        cmocka_unit_test(few_pieces_are_joined_where_they_are_made),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
