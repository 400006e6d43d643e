/* SPDX-License-Identifier: Apache-2.0
 * Which way the experts of a mixture go on a device. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/cuda/pick_moe.h"

/* gpt-oss-20b: 32 experts, eight slices of whole MXFP4 blocks. */
static struct phx_weight_desc make_up(enum phx_dtype dtype)
{
    return (struct phx_weight_desc){dtype, 5760, 2880, 32, 1, {2880}};
}

static struct phx_weight_desc make_down(enum phx_dtype dtype)
{
    return (struct phx_weight_desc){dtype, 2880, 2880, 32, 8, {352, 704, 1056, 1440, 1792, 2144, 2496, 2880}};
}

static struct cuda_moe_choice pick(enum phx_compute compute, enum phx_dtype up, enum phx_dtype down, int32_t n_pairs)
{
    struct phx_weight_desc u = make_up(up), d = make_down(down);

    return phx_cuda_pick_moe(compute, false, false, &u, &d, n_pairs);
}

static void expect_kernel(const char *name, int32_t tile_pairs, struct cuda_moe_choice c)
{
    assert_string_equal(name, phx_cuda_moe_kernel_name(c.kernel));
    assert_int_equal(tile_pairs, c.tile_pairs);
}

static void the_kernel_follows_from_the_pairs_of_an_expert(void **state)
{
    static const struct {
        int32_t     rows, tile_pairs;
        const char *name;
    } table[] = {{1, 8, "stream"}, {8, 8, "stream"}, {40, 8, "stream"}, {41, 16, "stream"}, {80, 16, "stream"},
                 {81, 32, "tile"}, {160, 32, "tile"}, {161, 64, "tile"}, {896, 64, "tile"}};

    (void)state;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++) {
        struct cuda_moe_choice c =
            pick(PHX_COMPUTE_BF16, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, table[i].rows * 4);

        expect_kernel(table[i].name, table[i].tile_pairs, c);
        assert_true(c.is_fused && !c.is_joined);
    }
    expect_kernel("stream", 8, pick(PHX_COMPUTE_BF16, PHX_DTYPE_BF16, PHX_DTYPE_MXFP4, 0));
}

static void float_weights_want_float_activations(void **state)
{
    (void)state;
    expect_kernel("float", 16, pick(PHX_COMPUTE_F32, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, 4));
    expect_kernel("float", 16, pick(PHX_COMPUTE_BF16, PHX_DTYPE_F16, PHX_DTYPE_BF16, 4));
    expect_kernel("float", 16, pick(PHX_COMPUTE_BF16, PHX_DTYPE_BF16, PHX_DTYPE_F32, 4000));
    assert_false(pick(PHX_COMPUTE_F32, PHX_DTYPE_BF16, PHX_DTYPE_BF16, 4).is_fused);
}

static void padded_slices_are_not_fused(void **state)
{
    struct phx_weight_desc up = make_up(PHX_DTYPE_BF16), down = make_down(PHX_DTYPE_BF16);

    (void)state;
    down.slice_end[3] += 16;
    assert_false(phx_cuda_pick_moe(PHX_COMPUTE_BF16, false, false, &up, &down, 4).is_fused);
}

static void only_class_b_joins_slices_early(void **state)
{
    struct phx_weight_desc up = make_up(PHX_DTYPE_MXFP4), down = make_down(PHX_DTYPE_MXFP4);

    (void)state;
    assert_true(phx_cuda_pick_moe(PHX_COMPUTE_BF16, true, false, &up, &down, 4).is_joined);
    assert_false(phx_cuda_pick_moe(PHX_COMPUTE_F32, true, false, &up, &down, 4).is_joined);
    down.n_slices = 1;
    assert_false(phx_cuda_pick_moe(PHX_COMPUTE_BF16, true, false, &up, &down, 4).is_joined);
}

static void a_pass_has_bounded_slices_and_pairs(void **state)
{
    struct phx_weight_desc down = make_down(PHX_DTYPE_MXFP4);

    (void)state;
    assert_int_equal(phx_cuda_pick_moe_rows(&down, false, 0, 4), 0);
    assert_int_equal(phx_cuda_pick_moe_rows(&down, false, 1, 4), 1);
    assert_int_equal(phx_cuda_pick_moe_rows(&down, false, 512, 4), 512);
    assert_int_equal(phx_cuda_pick_moe_rows(&down, false, INT32_MAX, 4), 704); /* of 368640 bytes each */
    assert_int_equal(phx_cuda_pick_moe_rows(&down, true, INT32_MAX, 4), 5824);
    down.n = 1;
    assert_int_equal(phx_cuda_pick_moe_rows(&down, false, INT32_MAX, 4), 8192); /* 32768 pairs */
    down.n = INT32_MAX;
    assert_int_equal(phx_cuda_pick_moe_rows(&down, false, INT32_MAX, 4096), 1);
}

/* However the pairs fall: the most tiles are made when every expert but one has a single pair more than whole tiles. */
static void tiles_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(phx_cuda_moe_tiles_max(0, 32, 8), 0);
    assert_int_equal(phx_cuda_moe_tiles_max(4, 32, 8), 4);
    assert_int_equal(phx_cuda_moe_tiles_max(32, 32, 8), 32);
    assert_int_equal(phx_cuda_moe_tiles_max(39, 32, 8), 32);
    assert_int_equal(phx_cuda_moe_tiles_max(40, 32, 8), 33);
    assert_int_equal(phx_cuda_moe_tiles_max(32768, 1, 64), 512);
    for (int32_t tile = 8; tile <= 64; tile *= 2)
        for (int32_t a = 0; a < 200; a++)
            for (int32_t b = 0; b < 200; b += 7)
                assert_true((a + tile - 1) / tile + (b + tile - 1) / tile <= phx_cuda_moe_tiles_max(a + b, 2, tile));
}

static void many_pairs_go_to_warpgroups_where_they_may(void **state)
{
    struct phx_weight_desc up = make_up(PHX_DTYPE_MXFP4), down = make_down(PHX_DTYPE_MXFP4);

    (void)state;
    for (int32_t rows = 1; rows < 1000; rows++) { /* 80 rows: 10 pairs each */
        struct cuda_moe_choice c = phx_cuda_pick_moe(PHX_COMPUTE_BF16, false, true, &up, &down, rows * 4);

        assert_int_equal(c.kernel, rows <= 80 ? CUDA_MOE_STREAM : CUDA_MOE_HOPPER);
        assert_true(c.is_fused && !c.is_joined && (rows <= 80 || c.tile_pairs == 64));
    }
    assert_true(phx_cuda_pick_moe(PHX_COMPUTE_BF16, true, true, &up, &down, 2000).is_joined);
    expect_kernel("hopper", 64, phx_cuda_pick_moe(PHX_COMPUTE_BF16, true, true, &up, &down, 2000));
    expect_kernel("float", 16, phx_cuda_pick_moe(PHX_COMPUTE_F32, true, true, &up, &down, 2000));
    down.slice_end[3] += 16; /* activations that must be cleared */
    expect_kernel("tile", 64, phx_cuda_pick_moe(PHX_COMPUTE_BF16, true, true, &up, &down, 2000));
}

static void launches_of_few_rows_do_what_is_around_them(void **state)
{
    struct phx_weight_desc router = {.dtype = PHX_DTYPE_F32, .n = 32, .k = 2880, .n_experts = 1, .n_slices = 1};
    struct cuda_moe_choice few = pick(PHX_COMPUTE_BF16, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, 4);
    struct cuda_moe_choice many = pick(PHX_COMPUTE_BF16, PHX_DTYPE_MXFP4, PHX_DTYPE_MXFP4, 2000);

    (void)state;
    assert_true(phx_cuda_pick_finish(&few, 1) && phx_cuda_pick_finish(&few, 8));
    assert_false(phx_cuda_pick_finish(&few, 9) || phx_cuda_pick_finish(&many, 1));
    assert_true(phx_cuda_pick_router(&few, &router, 1) && phx_cuda_pick_router(&few, &router, 16));
    assert_false(phx_cuda_pick_router(&few, &router, 17) || phx_cuda_pick_router(&many, &router, 1));
    assert_true(phx_cuda_pick_choosing(&few, 64));
    assert_false(phx_cuda_pick_choosing(&few, 65) || phx_cuda_pick_choosing(&many, 1));
    router.n = CUDA_ROUTER_EXPERTS_MAX + 1;
    assert_false(phx_cuda_pick_router(&few, &router, 1));
    router.n = 32;
    router.dtype = PHX_DTYPE_F16;
    assert_false(phx_cuda_pick_router(&few, &router, 1));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_kernel_follows_from_the_pairs_of_an_expert),
        cmocka_unit_test(float_weights_want_float_activations),
        cmocka_unit_test(padded_slices_are_not_fused),
        cmocka_unit_test(only_class_b_joins_slices_early),
        cmocka_unit_test(a_pass_has_bounded_slices_and_pairs),
        cmocka_unit_test(many_pairs_go_to_warpgroups_where_they_may),
        cmocka_unit_test(launches_of_few_rows_do_what_is_around_them),
        cmocka_unit_test(tiles_are_bounded),
    };

    return cmocka_run_group_tests_name("pick_moe", tests, NULL, NULL);
}
