/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/router/router.h"

static const uint8_t salt_a[32] = {1}, salt_b[32] = {2};

static void the_least_loaded_with_room_is_picked(void **state)
{
    struct phx_route_candidate c[3] = {{.n_running = 4, .capacity = 8},
                                       {.n_running = 2, .capacity = 8},
                                       {.n_running = 1, .capacity = 1}};

    (void)state;
    assert_int_equal(phx_route_pick(c, 3, 100), 1);
    c[1].capacity = 2; /* at its limit */
    assert_int_equal(phx_route_pick(c, 3, 100), 0);
    c[0].capacity = 0; /* takes nothing */
    assert_int_equal(phx_route_pick(c, 3, 100), -1);
    assert_int_equal(phx_route_pick(c, 0, 100), -1);
}

static void a_known_prefix_is_worth_its_prefill(void **state)
{
    struct phx_route_candidate c[2] = {{.n_running = 0, .capacity = 8},
                                       {.n_running = 1, .capacity = 8, .n_hit_tokens = 64}};

    (void)state;
    assert_int_equal(phx_route_pick(c, 2, 1000), 0); /* 64 tokens pay for one sequence, no more */
    c[1].n_hit_tokens = 128;
    assert_int_equal(phx_route_pick(c, 2, 1000), 1);
    assert_int_equal(phx_route_pick(c, 2, 10), 0); /* hits beyond the prompt are worth nothing */
}

static void a_full_cache_is_avoided_while_there_is_a_choice(void **state)
{
    struct phx_route_candidate c[2] = {
        {.n_running = 1, .capacity = 8, .kv_blocks = 100, .kv_blocks_used = 95},
        {.n_running = 7, .capacity = 8, .kv_blocks = 100, .kv_blocks_used = 94}};

    (void)state;
    assert_int_equal(phx_route_pick(c, 2, 10), 1);
    assert_int_equal(phx_route_pick(c, 1, 10), 0);
}

static void ties_go_to_the_smaller_work(void **state)
{
    struct phx_route_candidate c[2] = {{.n_running = 2, .capacity = 8, .n_tokens = 900},
                                       {.n_running = 2, .capacity = 8, .n_tokens = 100}};

    (void)state;
    assert_int_equal(phx_route_pick(c, 2, 10), 1);
}

static void prefixes_are_known_in_whole_pieces(void **state)
{
    struct phx_affinity *a = phx_affinity_create();
    int32_t              tokens[300];

    (void)state;
    for (int32_t i = 0; i < 300; i++)
        tokens[i] = i;
    phx_affinity_add(a, salt_a, tokens, 200);
    assert_int_equal(phx_affinity_match(a, salt_a, tokens, 300), 192);
    assert_int_equal(phx_affinity_match(a, salt_a, tokens, 128), 128);
    assert_int_equal(phx_affinity_match(a, salt_a, tokens, 63), 0);
    tokens[100] = -1;
    assert_int_equal(phx_affinity_match(a, salt_a, tokens, 300), 64);
    tokens[0] = -1;
    assert_int_equal(phx_affinity_match(a, salt_a, tokens, 300), 0);
    phx_affinity_destroy(a);
}

static void tenants_never_meet(void **state)
{
    struct phx_affinity *a = phx_affinity_create();
    int32_t              tokens[64] = {0};

    (void)state;
    phx_affinity_add(a, salt_a, tokens, 64);
    assert_int_equal(phx_affinity_match(a, salt_b, tokens, 64), 0);
    phx_affinity_clear(a);
    assert_int_equal(phx_affinity_match(a, salt_a, tokens, 64), 0);
    phx_affinity_destroy(a);
}

static void the_oldest_is_forgotten(void **state)
{
    struct phx_affinity *a = phx_affinity_create();
    int32_t              tokens[64] = {0};

    (void)state;
    for (int32_t i = 0; i < 16384; i++) { /* as many as it keeps */
        tokens[0] = i;
        phx_affinity_add(a, salt_a, tokens, 64);
    }
    tokens[0] = 0;
    assert_int_equal(phx_affinity_match(a, salt_a, tokens, 64), 64);
    tokens[0] = 16384; /* one more */
    phx_affinity_add(a, salt_a, tokens, 64);
    assert_int_equal(phx_affinity_match(a, salt_a, tokens, 64), 64);
    tokens[0] = 0;
    assert_int_equal(phx_affinity_match(a, salt_a, tokens, 64), 0);
    tokens[0] = 1;
    assert_int_equal(phx_affinity_match(a, salt_a, tokens, 64), 64);
    phx_affinity_destroy(a);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_least_loaded_with_room_is_picked),
        cmocka_unit_test(a_known_prefix_is_worth_its_prefill),
        cmocka_unit_test(a_full_cache_is_avoided_while_there_is_a_choice),
        cmocka_unit_test(ties_go_to_the_smaller_work),
        cmocka_unit_test(prefixes_are_known_in_whole_pieces),
        cmocka_unit_test(tenants_never_meet),
        cmocka_unit_test(the_oldest_is_forgotten),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
