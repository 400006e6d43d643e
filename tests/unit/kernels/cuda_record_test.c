/* SPDX-License-Identifier: Apache-2.0
 * Steps that are recorded and replayed, on the emulated device: the bits of ops that are called one by one, for
 * sequences that come, grow and go; and what happens when recording fails. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include <dlfcn.h>

#include "tests/emu/control.h"
#include "tests/unit/kernels/small_model.h"

enum { SEQS = 12, STRIDE = 70 };

static struct phx_emu *emu;

static int find_emulator(void **state)
{
    void *module = dlopen(PHX_BIN_DIR "/../tests/phalanx_cuda.so", RTLD_NOW | RTLD_LOCAL);

    (void)state;
    if (module == NULL)
        fail_msg("%s", dlerror());
    emu = dlsym(module, "phx_emu");
    assert_non_null(emu);
    return 0;
}

static int start(void **state)
{
    (void)state;
    emu->reset();
    return 0;
}

static int finish(void **state)
{
    (void)state;
    emu->reset();
    assert_int_equal(emu->used_bytes, 0);
    assert_int_equal(emu->pinned_bytes, 0);
    assert_int_equal(emu->n_graphs, 0);
    return 0;
}

/* Sequences in a cache of their own blocks; the first n run. */
struct batch {
    int32_t                row[SEQS], n_rows[SEQS], pos[SEQS], table[SEQS * STRIDE], ids[SMALL_ROWS], picked[SEQS];
    struct phx_spans       spans;
    struct phx_step_inputs in;
};

/* Each of n sequences gets rows_each rows behind pos. */
static void make_batch(struct batch *b, const struct small_model *m, int32_t n, const int32_t *pos, int32_t rows_each,
                       int32_t token)
{
    memset(b, 0, sizeof(*b));
    for (int32_t i = 0; i < n; i++) {
        b->row[i] = i * rows_each;
        b->n_rows[i] = rows_each;
        b->pos[i] = pos[i];
        for (int32_t j = 0; j < STRIDE; j++) /* blocks are shared, but for those that are written */
            b->table[i * STRIDE + j] = j < pos[i] / 16 ? (7 * i + 3 * j) % (SMALL_BLOCKS - 3 * SEQS)
                                                       : SMALL_BLOCKS - 3 * SEQS + 3 * i + j % 3;
        b->picked[i] = (i + 1) * rows_each - 1;
    }
    for (int32_t i = 0; i < n * rows_each; i++)
        b->ids[i] = (token + 11 * i) % SMALL_VOCAB;
    b->spans = (struct phx_spans){n, b->row, b->n_rows, b->pos, b->table, STRIDE};
    b->in = (struct phx_step_inputs){.model = m, .n_rows = n * rows_each, .ids = b->ids, .n_picked = n, .picked = b->picked,
                                     .spans = &b->spans, .kv = m->kv, .is_recordable = true};
}

/* Runs the step the way a model does; whether it was replayed. */
static bool run(struct small_model *m, const struct batch *b)
{
    bool is_replayed = phx_step_begin(m->b, &b->in);

    if (!is_replayed)
        small_model_ops(m, &b->in);
    while (phx_step_end(m->b))
        small_model_ops(m, &b->in);
    return is_replayed;
}

static void read_scores(struct small_model *m, int32_t n, float *scores)
{
    const char *what = "";

    if (phx_backend_sync(m->b, &what) != 0)
        fail_msg("%s", what);
    phx_download(m->b, scores, m->scores.data, (size_t)n * SMALL_VOCAB * sizeof(float));
    assert_int_equal(phx_backend_sync(m->b, &what), 0);
}

/* The same step on a model that records, and on one whose ops are called outside any step. */
static bool compare(struct small_model *m, struct small_model *plain, struct batch *b)
{
    static float got[SEQS * SMALL_VOCAB], want[SEQS * SMALL_VOCAB];
    bool         is_replayed = run(m, b);

    read_scores(m, b->in.n_picked, got);
    small_model_ops(plain, &b->in);
    read_scores(plain, b->in.n_picked, want);
    for (int32_t i = 0; i < b->in.n_picked * SMALL_VOCAB; i++)
        assert_true(want[i] == want[i]);
    assert_memory_equal(got, want, (size_t)b->in.n_picked * SMALL_VOCAB * sizeof(float));
    return is_replayed;
}

static void open_two(struct small_model *m, struct small_model *plain)
{
    assert_true(small_model_open(m, true, false));
    assert_true(small_model_open(plain, true, false));
}

static void decoding_is_replayed_from_the_third_step_on(void **state)
{
    struct small_model m, plain;
    int32_t            pos[3] = {3, 200, 30};
    int64_t            syncs, mallocs, launches, copies;
    struct batch       b;

    (void)state;
    open_two(&m, &plain);
    for (int step = 0; step < 6; step++) {
        make_batch(&b, &m, 3, pos, 1, step);
        assert_int_equal(compare(&m, &plain, &b), step >= 2);
        for (int i = 0; i < 3; i++)
            pos[i]++;
    }
    make_batch(&b, &m, 3, pos, 1, 9);
    syncs = emu->n_syncs;
    mallocs = emu->n_mallocs;
    launches = emu->n_launches;
    copies = emu->n_copies;
    assert_true(run(&m, &b));
    assert_int_equal(emu->n_syncs, syncs);
    assert_int_equal(emu->n_mallocs, mallocs);
    assert_int_equal(emu->n_launches, launches);
    assert_int_equal(emu->n_copies, copies + 1); /* all arrays at once */
    assert_int_equal(phx_backend_sync(m.b, NULL), 0);
    small_model_close(&m);
    small_model_close(&plain);
}

/* Lengths cross 512 keys, where there is a new graph; batches of other sizes come between. */
static void sequences_come_grow_and_go(void **state)
{
    struct small_model m, plain;
    int32_t            pos[SEQS] = {0, 505, 64, 300, 1, 17, 700, 90, 33, 510, 128, 256};
    int                n_replayed = 0;
    struct batch       b;

    (void)state;
    open_two(&m, &plain);
    for (int step = 0; step < 40; step++) {
        int32_t n = step % 10 < 6 ? 3 : step % 10 == 9 ? SEQS : 1;

        make_batch(&b, &m, n, pos, n == 1 && step % 10 == 7 ? 20 : n == SEQS ? 2 : 1, step);
        n_replayed += compare(&m, &plain, &b);
        for (int i = 0; i < n; i++)
            pos[i] += b.n_rows[i];
    }
    assert_in_range(n_replayed, 20, 34);
    assert_true(emu->n_graph_launches > n_replayed); /* a recording is launched as well */
    small_model_close(&m);
    small_model_close(&plain);
}

static void more_kinds_of_steps_than_are_kept(void **state)
{
    struct small_model m, plain;
    struct batch       b;
    int64_t            most = 0;

    (void)state;
    open_two(&m, &plain);
    for (int round = 0; round < 2; round++)
        for (int32_t kind = 0; kind < 12; kind++) {
            for (int again = 0; again < 3; again++) {
                int32_t pos[2] = {kind % 2 * 600, 5};

                make_batch(&b, &m, 1 + kind / 6, pos, 1 + kind % 6, kind);
                assert_int_equal(compare(&m, &plain, &b), again == 2); /* what was given up is recorded anew */
            }
            most = emu->n_graphs > most ? emu->n_graphs : most;
        }
    assert_int_equal(most, 8);
    small_model_close(&m);
    small_model_close(&plain);
}

/* Whatever strikes while a step is recorded, its ops are called again and its bits are right. */
static void recording_may_fail(void **state)
{
    (void)state;
    for (int how = 0; how < 4; how++) {
        struct small_model m, plain;
        int32_t            pos[3] = {3, 200, 30};
        struct batch       b;

        emu->reset();
        open_two(&m, &plain);
        for (int step = 0; step < 8; step++) {
            make_batch(&b, &m, 3, pos, 1, step);
            if (how == 0)
                emu->fail_instantiate = 1;
            else if (step == 1)
                emu->fail_launch = 1 + 9 * (how - 1);
            /* one failure puts it off, after three launches no longer overlap, after three more nothing is recorded */
            assert_int_equal(compare(&m, &plain, &b), how > 0 && step >= 3);
            for (int i = 0; i < 3; i++)
                pos[i]++;
        }
        assert_int_equal(emu->n_graphs, how == 0 ? 0 : 1);
        emu->reset();
        small_model_close(&m);
        small_model_close(&plain);
    }
}

static void a_launch_of_a_graph_may_be_refused(void **state)
{
    struct small_model m, plain;
    int32_t            pos[3] = {3, 200, 30};
    struct batch       b;
    const char        *what;

    (void)state;
    open_two(&m, &plain);
    for (int step = 0; step < 3; step++) {
        make_batch(&b, &m, 3, pos, 1, step);
        (void)compare(&m, &plain, &b);
    }
    emu->fail_graph_launch = 1;
    assert_true(run(&m, &b));
    assert_int_equal(phx_backend_sync(m.b, &what), -1);
    assert_non_null(strstr(what, "replay of a step"));
    assert_true(compare(&m, &plain, &b)); /* and the next goes well */
    small_model_close(&m);
    small_model_close(&plain);
}

static void freed_memory_is_not_replayed_on(void **state)
{
    struct small_model m, plain;
    int32_t            pos[3] = {3, 200, 30};
    struct batch       b;
    void              *other;

    (void)state;
    open_two(&m, &plain);
    other = phx_backend_alloc(m.b, 1000);
    make_batch(&b, &m, 3, pos, 1, 4);
    for (int step = 0; step < 3; step++)
        assert_int_equal(compare(&m, &plain, &b), step == 2);
    phx_backend_free(m.b, other);
    assert_false(compare(&m, &plain, &b));
    assert_true(compare(&m, &plain, &b));
    small_model_close(&m);
    small_model_close(&plain);
}

static void watch(void *ctx, const char *op, struct phx_tensor out)
{
    (void)op;
    (void)out;
    ++*(int *)ctx;
}

/* An op that gets an array which the step does not know of cannot be replayed. */
static void call_with_other_arrays(struct small_model *m, struct small_model *plain, struct batch *b)
{
    static float           got[SEQS * SMALL_VOCAB], want[SEQS * SMALL_VOCAB];
    int32_t                ids[SMALL_ROWS], pos[2] = {40, 7};
    struct phx_step_inputs other;

    make_batch(b, m, 2, pos, 1, 4);
    other = b->in;
    other.ids = memcpy(ids, b->ids, sizeof(ids));
    for (int step = 0; step < 6; step++) {
        assert_false(phx_step_begin(m->b, &b->in));
        do {
            small_model_ops(m, &other);
        } while (phx_step_end(m->b));
        read_scores(m, 2, got);
        small_model_ops(plain, &other);
        read_scores(plain, 2, want);
        assert_memory_equal(got, want, 2 * SMALL_VOCAB * sizeof(float));
        ids[0] = (ids[0] + 1) % SMALL_VOCAB;
    }
}

static void what_is_watched_or_unfit_is_not_recorded(void **state)
{
    struct small_model m, plain;
    int32_t            pos[3] = {3, 200, 30};
    struct batch       b;
    int                n_ops = 0;

    (void)state;
    open_two(&m, &plain);
    make_batch(&b, &m, 3, pos, 1, 4);
    for (int step = 0; step < 3; step++)
        (void)compare(&m, &plain, &b);
    phx_backend_set_trace(m.b, watch, &n_ops);
    assert_false(compare(&m, &plain, &b));
    assert_true(n_ops > 20);
    phx_backend_set_trace(m.b, NULL, NULL);
    assert_true(compare(&m, &plain, &b));
    b.in.is_recordable = false;
    assert_false(compare(&m, &plain, &b));
    call_with_other_arrays(&m, &plain, &b);
    small_model_close(&m);
    small_model_close(&plain);
}

static void who_wants_no_graphs_has_none(void **state)
{
    struct small_model m, plain;
    int32_t            pos[3] = {3, 200, 30};
    struct batch       b;

    (void)state;
    assert_true(small_model_open(&m, true, true));
    assert_true(small_model_open(&plain, true, false));
    make_batch(&b, &m, 3, pos, 1, 4);
    for (int step = 0; step < 4; step++)
        assert_false(compare(&m, &plain, &b));
    assert_int_equal(emu->n_graphs, 0);
    small_model_close(&m);
    small_model_close(&plain);
}

static void wrong_inputs_are_refused_before_anything_runs(void **state)
{
    struct small_model m;
    int32_t            pos[3] = {3, 200, 30};
    struct batch       b;
    const char        *what = "";

    (void)state;
    assert_true(small_model_open(&m, true, false));
    for (int how = 0; how < 4; how++) {
        int64_t launches = emu->n_launches;

        make_batch(&b, &m, 3, pos, 1, 4);
        if (how == 0)
            b.picked[1] = 3;
        else if (how == 1)
            b.table[STRIDE + 3] = SMALL_BLOCKS;
        else if (how == 2)
            b.n_rows[2] = 2;
        else
            b.pos[0] = STRIDE * 16;
        assert_false(run(&m, &b));
        assert_int_equal(emu->n_launches, launches);
        assert_int_equal(phx_backend_sync(m.b, &what), -1);
        assert_non_null(strstr(what, "step_begin"));
    }
    make_batch(&b, &m, 3, pos, 1, 4);
    assert_false(run(&m, &b));
    assert_int_equal(phx_backend_sync(m.b, &what), 0);
    small_model_close(&m);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(decoding_is_replayed_from_the_third_step_on, start, finish),
        cmocka_unit_test_setup_teardown(sequences_come_grow_and_go, start, finish),
        cmocka_unit_test_setup_teardown(more_kinds_of_steps_than_are_kept, start, finish),
        cmocka_unit_test_setup_teardown(recording_may_fail, start, finish),
        cmocka_unit_test_setup_teardown(a_launch_of_a_graph_may_be_refused, start, finish),
        cmocka_unit_test_setup_teardown(freed_memory_is_not_replayed_on, start, finish),
        cmocka_unit_test_setup_teardown(what_is_watched_or_unfit_is_not_recorded, start, finish),
        cmocka_unit_test_setup_teardown(who_wants_no_graphs_has_none, start, finish),
        cmocka_unit_test_setup_teardown(wrong_inputs_are_refused_before_anything_runs, start, finish),
    };

    return cmocka_run_group_tests(tests, find_emulator, NULL);
}
