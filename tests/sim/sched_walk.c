/* SPDX-License-Identifier: Apache-2.0
 * Random walks: hundreds of schedulers of random shape, hundreds of thousands of steps, everything that
 * must hold checked after each call. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "tests/sim/world.h"

enum { SEEDS = 1000, MOVES = 2500, DRAIN_MOVES = 200000 };

static void move(struct world *w, uint32_t load)
{
    uint32_t what = world_random(w, 100);

    if (what < load)
        world_submit(w);
    else if (what < load + 3)
        world_cancel(w);
    else if (what < 60)
        (void)world_plan(w);
    else
        world_complete(w, false);
    world_check(w);
}

/* With nothing new, everything ends: no deadlock, nobody starves. */
static void drain(struct world *w)
{
    int32_t n_moves = 0;

    while (w->n_open_clients > 0) {
        bool is_moving = world_plan(w) || w->n_open > 0;

        assert_true(is_moving);
        if (world_random(w, 3) != 0)
            world_complete(w, false);
        world_check(w);
        assert_true(++n_moves < DRAIN_MOVES);
    }
    while (w->n_open > 0)
        world_complete(w, false);
    world_check(w);
}

static void walk(struct world *w, uint64_t seed)
{
    uint32_t load;

    world_create(w, seed);
    load = 2 + world_random(w, 25);
    for (int i = 0; i < MOVES; i++)
        move(w, load);
    drain(w);
}

static void walks_keep_every_promise(void **state)
{
    uint64_t n_steps = 0, n_tokens = 0, n_preempted = 0, n_hits = 0, n_dropped = 0, n_checked = 0, n_drafted = 0,
             n_accepted = 0;
    int32_t  n_finish[5] = {0};

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        struct phx_sched_stats stats;
        struct world           w;

        walk(&w, seed);
        phx_sched_stats(w.sched, &stats);
        n_steps += w.n_steps;
        n_tokens += w.n_tokens;
        n_dropped += w.n_dropped;
        n_checked += w.n_checked;
        n_preempted += stats.n_preempted;
        n_hits += stats.kv.hit_tokens;
        n_drafted += stats.n_drafted;
        n_accepted += stats.n_accepted;
        for (int32_t i = 0; i < w.n_clients; i++)
            n_finish[w.clients[i].finish]++;
        world_destroy(&w);
    }
    print_message("%d walks: %llu steps, %llu tokens, %llu checked, %llu preempted, %llu hit, %llu dropped, %llu guessed, "
                  "%llu rightly; stop %d, "
                  "length %d, cancelled %d, error %d\n",
                  SEEDS, (unsigned long long)n_steps, (unsigned long long)n_tokens,
                  (unsigned long long)n_checked, (unsigned long long)n_preempted, (unsigned long long)n_hits,
                  (unsigned long long)n_dropped, (unsigned long long)n_drafted, (unsigned long long)n_accepted,
                  n_finish[PHX_FINISH_STOP], n_finish[PHX_FINISH_LENGTH],
                  n_finish[PHX_FINISH_CANCELLED], n_finish[PHX_FINISH_ERROR]);
    /* the walks went where it is interesting */
    assert_true(n_steps > 200000 && n_preempted > 1000 && n_hits > 10000 && n_dropped > 1000 && n_checked > 10000);
    assert_true(n_accepted > 4000 && n_drafted > n_accepted + 2500);
    for (int i = PHX_FINISH_STOP; i <= PHX_FINISH_CANCELLED; i++)
        assert_true(n_finish[i] > 100);
}

static void equal_events_give_equal_plans(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        struct world a, b;

        walk(&a, seed);
        walk(&b, seed);
        assert_true(a.trace == b.trace && a.n_steps == b.n_steps && a.n_tokens == b.n_tokens);
        world_destroy(&a);
        world_destroy(&b);
    }
}

/* Four failures in a row end the sequences of a step, three do not. */
static void a_step_is_tried_four_times(void **state)
{
    (void)state;
    for (int n_drops = 1; n_drops <= 4; n_drops++) {
        struct world w;
        int32_t      n_planned;

        world_create(&w, 5);
        world_submit(&w);
        for (int i = 0; i < n_drops; i++) {
            assert_true(world_plan(&w));
            world_complete(&w, true);
            world_check(&w);
        }
        n_planned = w.n_open_clients;
        assert_int_equal(n_planned, n_drops < 4 ? 1 : 0);
        if (n_drops == 4)
            assert_int_equal(w.clients[0].finish, PHX_FINISH_ERROR);
        else
            drain(&w);
        world_destroy(&w);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(walks_keep_every_promise),
        cmocka_unit_test(equal_events_give_equal_plans),
        cmocka_unit_test(a_step_is_tried_four_times),
    };

    return cmocka_run_group_tests_name("sim/sched_walk", tests, NULL, NULL);
}
