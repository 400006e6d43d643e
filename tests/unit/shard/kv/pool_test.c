/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "shard/kv/kv.h"

enum { ROOM = 32, TOKENS = 256 };

struct owner {
    struct phx_kv_seq seq;
    int32_t           blocks[ROOM];
};

static const uint8_t salt_a[PHX_KV_SALT_BYTES] = {1}, salt_b[PHX_KV_SALT_BYTES] = {2};

static struct phx_kv_pool *pool(int32_t n_blocks, int32_t block_tokens)
{
    struct phx_kv_pool *p;

    assert_int_equal(phx_kv_pool_create(n_blocks, block_tokens, &p, NULL), 0);
    return p;
}

static void init(struct owner *o, const uint8_t *salt)
{
    phx_kv_seq_init(&o->seq, o->blocks, ROOM, salt);
}

static void count_up(int32_t *tokens, int32_t first)
{
    for (int32_t i = 0; i < TOKENS; i++)
        tokens[i] = first + i;
}

static struct phx_kv_stats stats_of(const struct phx_kv_pool *p)
{
    struct phx_kv_stats stats;

    phx_kv_stats(p, &stats);
    assert_int_equal(stats.n_free + stats.n_cached + stats.n_used, stats.n_blocks);
    assert_int_equal(stats.n_free + stats.n_cached, phx_kv_available(p));
    assert_true(phx_kv_is_consistent(p));
    return stats;
}

/* Computes n tokens for an owner: match, extend, seal. */
static int32_t run(struct phx_kv_pool *p, struct owner *o, const uint8_t *salt, const int32_t *tokens,
                   int32_t n)
{
    int32_t found;

    init(o, salt);
    found = phx_kv_match(p, &o->seq, tokens, n);
    assert_int_equal(phx_kv_extend(p, &o->seq, n), 0);
    phx_kv_seal(p, &o->seq, tokens, n);
    return found;
}

static void impossible_pools_are_refused(void **state)
{
    struct phx_kv_pool *p;
    struct phx_err      err;

    (void)state;
    assert_int_equal(phx_kv_pool_create(0, 16, &p, &err), PHX_E_INVALID);
    assert_int_equal(phx_kv_pool_create(-1, 16, &p, &err), PHX_E_INVALID);
    assert_int_equal(phx_kv_pool_create(8, 0, &p, &err), PHX_E_INVALID);
    assert_int_equal(phx_kv_pool_create(8, 1025, &p, &err), PHX_E_INVALID);
    assert_non_null(strstr(err.text, "1025"));
    assert_null(p);
    phx_kv_pool_destroy(NULL);
}

static void extending_is_all_or_nothing(void **state)
{
    struct phx_kv_pool *p = pool(4, 16);
    struct owner        a, b;

    (void)state;
    init(&a, salt_a);
    init(&b, salt_a);
    assert_int_equal(phx_kv_extend(p, &a.seq, 33), 0);
    assert_int_equal(a.seq.n_blocks, 3);
    assert_int_equal(phx_kv_extend(p, &a.seq, 48), 0); /* fits already */
    assert_int_equal(a.seq.n_blocks, 3);
    assert_int_equal(phx_kv_extend(p, &b.seq, 17), PHX_E_BUSY);
    assert_int_equal(b.seq.n_blocks, 0);
    assert_int_equal(stats_of(p).n_free, 1);
    assert_int_equal(phx_kv_extend(p, &b.seq, 16), 0);
    assert_int_equal(phx_kv_extend(p, &b.seq, 16 * (ROOM + 1)), PHX_E_TOOBIG);
    phx_kv_release(p, &a.seq);
    phx_kv_release(p, &b.seq);
    assert_int_equal(stats_of(p).n_free, 4);
    phx_kv_pool_destroy(p);
}

static void a_prefix_is_shared_in_whole_blocks(void **state)
{
    struct phx_kv_pool *p = pool(16, 4);
    struct owner        a, b;
    int32_t             tokens[TOKENS];

    (void)state;
    count_up(tokens, 0);
    assert_int_equal(run(p, &a, salt_a, tokens, 14), 0);
    assert_int_equal(run(p, &b, salt_a, tokens, 14), 12);
    assert_memory_equal(a.blocks, b.blocks, 3 * sizeof(int32_t));
    assert_int_not_equal(a.blocks[3], b.blocks[3]); /* the open block is one's own */
    assert_int_equal(stats_of(p).n_used, 5);
    phx_kv_release(p, &a.seq);
    assert_int_equal(stats_of(p).n_used, 4); /* b still holds the shared ones */
    assert_int_equal(stats_of(p).n_cached, 0);
    phx_kv_release(p, &b.seq);
    assert_int_equal(stats_of(p).n_cached, 3);
    assert_int_equal(stats_of(p).hit_tokens, 12);
    assert_int_equal(stats_of(p).lookup_tokens, 28);
    phx_kv_pool_destroy(p);
}

static void one_token_is_always_left_to_compute(void **state)
{
    struct phx_kv_pool *p = pool(16, 4);
    struct owner        a, b;
    int32_t             tokens[TOKENS];

    (void)state;
    count_up(tokens, 0);
    (void)run(p, &a, salt_a, tokens, 8);
    assert_int_equal(run(p, &b, salt_a, tokens, 8), 4);
    phx_kv_release(p, &b.seq);
    assert_int_equal(run(p, &b, salt_a, tokens, 9), 8);
    phx_kv_release(p, &b.seq);
    assert_int_equal(run(p, &b, salt_a, tokens, 1), 0);
    phx_kv_pool_destroy(p);
}

static void tenants_never_share(void **state)
{
    struct phx_kv_pool *p = pool(16, 4);
    struct owner        a, b;
    int32_t             tokens[TOKENS];

    (void)state;
    count_up(tokens, 0);
    (void)run(p, &a, salt_a, tokens, 12);
    assert_int_equal(run(p, &b, salt_b, tokens, 12), 0);
    assert_int_equal(stats_of(p).n_used, 6);
    phx_kv_pool_destroy(p);
}

static void a_block_is_known_by_all_tokens_before_it(void **state)
{
    struct phx_kv_pool *p = pool(16, 4);
    struct owner        a, b;
    int32_t             tokens[TOKENS];

    (void)state;
    count_up(tokens, 0);
    (void)run(p, &a, salt_a, tokens, 12);
    tokens[1] = 77; /* the second block has the same tokens, behind another first one */
    assert_int_equal(run(p, &b, salt_a, tokens, 12), 0);
    tokens[1] = 1;
    tokens[5] = 77;
    phx_kv_release(p, &b.seq);
    assert_int_equal(run(p, &b, salt_a, tokens, 12), 4);
    phx_kv_pool_destroy(p);
}

static void the_least_recently_used_block_is_evicted_tail_first(void **state)
{
    struct phx_kv_pool *p = pool(4, 4);
    struct owner        a, b, c;
    int32_t             one[TOKENS], two[TOKENS], three[TOKENS];

    (void)state;
    count_up(one, 0);
    count_up(two, 1000);
    count_up(three, 2000);
    (void)run(p, &a, salt_a, one, 8);
    phx_kv_release(p, &a.seq); /* cached: 2 blocks of one */
    (void)run(p, &b, salt_a, two, 8);
    phx_kv_release(p, &b.seq); /* then 2 blocks of two */
    assert_int_equal(stats_of(p).n_cached, 4);
    (void)run(p, &c, salt_a, three, 4); /* takes the tail of one */
    assert_int_equal(stats_of(p).evictions, 1);
    phx_kv_release(p, &c.seq);
    assert_int_equal(run(p, &a, salt_a, one, 5), 4); /* its head is still there */
    phx_kv_release(p, &a.seq);
    assert_int_equal(run(p, &b, salt_a, two, 9), 4); /* a's open block had taken the tail of two */
    phx_kv_release(p, &b.seq);
    (void)stats_of(p);
    phx_kv_pool_destroy(p);
}

static void a_block_in_use_is_never_evicted(void **state)
{
    struct phx_kv_pool *p = pool(3, 4);
    struct owner        a, b;
    int32_t             tokens[TOKENS], other[TOKENS];

    (void)state;
    count_up(tokens, 0);
    count_up(other, 500);
    (void)run(p, &a, salt_a, tokens, 8);
    init(&b, salt_a);
    assert_int_equal(phx_kv_extend(p, &b.seq, 8), PHX_E_BUSY);
    assert_int_equal(phx_kv_extend(p, &b.seq, 4), 0);
    phx_kv_release(p, &a.seq);
    phx_kv_release(p, &b.seq);
    assert_int_equal(run(p, &a, salt_a, tokens, 9), 8);
    phx_kv_pool_destroy(p);
}

static void two_copies_of_one_prefix_keep_one_name(void **state)
{
    struct phx_kv_pool *p = pool(8, 4);
    struct owner        a, b, c;
    int32_t             tokens[TOKENS];

    (void)state;
    count_up(tokens, 0);
    /* both start before either has sealed anything */
    init(&a, salt_a);
    init(&b, salt_a);
    assert_int_equal(phx_kv_extend(p, &a.seq, 8), 0);
    assert_int_equal(phx_kv_extend(p, &b.seq, 8), 0);
    phx_kv_seal(p, &a.seq, tokens, 8);
    phx_kv_seal(p, &b.seq, tokens, 8);
    (void)stats_of(p);
    phx_kv_release(p, &b.seq);
    assert_int_equal(stats_of(p).n_free, 6); /* the copy had no name */
    phx_kv_release(p, &a.seq);
    assert_int_equal(stats_of(p).n_cached, 2);
    assert_int_equal(run(p, &c, salt_a, tokens, 9), 8);
    phx_kv_pool_destroy(p);
}

static void a_match_that_cannot_be_used_leaves_no_trace(void **state)
{
    struct phx_kv_pool *p = pool(8, 4);
    struct phx_kv_stats before, after;
    struct owner        a, b;
    int32_t             tokens[TOKENS], found;

    (void)state;
    count_up(tokens, 0);
    (void)run(p, &a, salt_a, tokens, 12);
    before = stats_of(p);
    init(&b, salt_a);
    found = phx_kv_match(p, &b.seq, tokens, 12);
    assert_int_equal(found, 8);
    phx_kv_unmatch(p, &b.seq, found, 12);
    after = stats_of(p);
    assert_memory_equal(&before, &after, sizeof(before));
    phx_kv_pool_destroy(p);
}

static void sealing_step_by_step_names_the_same_blocks(void **state)
{
    struct phx_kv_pool *p = pool(16, 4);
    struct owner        a, b;
    int32_t             tokens[TOKENS];

    (void)state;
    count_up(tokens, 0);
    init(&a, salt_a);
    for (int32_t n = 1; n <= 13; n++) {
        assert_int_equal(phx_kv_extend(p, &a.seq, n), 0);
        phx_kv_seal(p, &a.seq, tokens, n);
        assert_int_equal(a.seq.n_sealed, n / 4);
    }
    assert_int_equal(run(p, &b, salt_a, tokens, 20), 12);
    (void)stats_of(p);
    phx_kv_pool_destroy(p);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(impossible_pools_are_refused),
        cmocka_unit_test(extending_is_all_or_nothing),
        cmocka_unit_test(a_prefix_is_shared_in_whole_blocks),
        cmocka_unit_test(one_token_is_always_left_to_compute),
        cmocka_unit_test(tenants_never_share),
        cmocka_unit_test(a_block_is_known_by_all_tokens_before_it),
        cmocka_unit_test(the_least_recently_used_block_is_evicted_tail_first),
        cmocka_unit_test(a_block_in_use_is_never_evicted),
        cmocka_unit_test(two_copies_of_one_prefix_keep_one_name),
        cmocka_unit_test(a_match_that_cannot_be_used_leaves_no_trace),
        cmocka_unit_test(sealing_step_by_step_names_the_same_blocks),
    };

    return cmocka_run_group_tests_name("shard/kv/pool", tests, NULL, NULL);
}
