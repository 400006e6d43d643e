/* SPDX-License-Identifier: Apache-2.0
 * Ranks whose emulated devices talk to each other through a fake libnccl.so.2 beside the module: class bitwise keeps the
 * bits of one rank in every layout, class fast is near, failures end all ranks, differing ranks are refused. */
#include <dlfcn.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "tests/emu/control.h"
#include "tests/mock/nccl/fake_nccl.h"
#include "tests/model/sampling.h"

static struct phx_emu   *emu;
static struct fake_nccl *nccl;

static void *find_beside(const char *file, const char *symbol)
{
    char *path = phx_mem_printf("%s/tests/nccl/%s", PHX_BUILD_DIR, file);
    void *library = dlopen(path, RTLD_NOW | RTLD_LOCAL), *found;

    if (library == NULL)
        fail_msg("%s", dlerror());
    found = dlsym(library, symbol);
    assert_non_null(found);
    phx_mem_free(path);
    return found;
}

static int open_doubles(void **state)
{
    (void)state;
    emu = find_beside("phalanx_cuda.so", "phx_emu");
    nccl = find_beside("libnccl.so.2", "fake_nccl");
    emu->n_devices = 8;
    nccl->drain = emu->drain;
    return 0;
}

static struct phx_ranks_options options_of(const struct golden *g, int32_t tp, int32_t pp)
{
    struct phx_ranks_options o = harness_options(g, tp, pp);

    o.backend = "cuda";
    o.transport = PHX_TRANSPORT_NCCL;
    return o;
}

static void every_layout_has_the_bits_of_one_rank(void **state)
{
    static const int32_t layouts[][2] = {{2, 1}, {1, 2}, {2, 2}, {4, 1}, {2, 3}};
    struct golden        g = golden_load("gpt-oss-window-f32");
    struct phx_ranks_options o = options_of(&g, 1, 1);
    float               *want = harness_text(&g, &o, g.T);

    (void)state;
    for (size_t i = 0; i < sizeof(layouts) / sizeof(layouts[0]); i++) {
        float *got;

        o = options_of(&g, layouts[i][0], layouts[i][1]);
        nccl->n_all_gather = nccl->n_all_reduce = nccl->n_send = nccl->n_recv = nccl->n_abort = 0;
        got = harness_text(&g, &o, 9);
        assert_same_bits(got, want, g.T, g.V, "over nccl");
        assert_true(layouts[i][0] == 1 || nccl->n_all_gather > 0);
        assert_true(layouts[i][1] == 1 || (nccl->n_send > 0 && nccl->n_recv > 0));
        assert_int_equal(nccl->n_all_reduce, 0);
        assert_int_equal(nccl->n_abort, 0);
        phx_mem_free(got);
    }
    phx_mem_free(want);
    golden_free(&g);
}

/* Small sums by the devices themselves, with a library for the large ones and without any. */
static void peer_memory_has_the_bits_of_one_rank(void **state)
{
    static const struct {
        int32_t            tp, pp, n_devices;
        enum phx_transport transport;
    } cases[] = {{2, 1, 1, PHX_TRANSPORT_PEER}, {4, 1, 1, PHX_TRANSPORT_PEER}, {2, 1, 8, PHX_TRANSPORT_PEER},
                 {4, 1, 8, PHX_TRANSPORT_PEER}, {2, 1, 8, PHX_TRANSPORT_AUTO}, {2, 2, 8, PHX_TRANSPORT_AUTO}};
    struct golden            g = golden_load("gpt-oss-window-f32");
    struct phx_ranks_options o = options_of(&g, 1, 1);
    float                   *want = harness_text(&g, &o, g.T);

    (void)state;
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        float *got;

        o = options_of(&g, cases[i].tp, cases[i].pp);
        o.transport = cases[i].transport;
        emu->n_devices = cases[i].n_devices;
        nccl->n_all_gather = nccl->n_send = 0;
        got = harness_text(&g, &o, 9);
        assert_same_bits(got, want, g.T, g.V, "over peer memory");
        /* the library's first exchange at opening, and no sum of a step */
        assert_int_equal(nccl->n_all_gather, cases[i].transport == PHX_TRANSPORT_AUTO ? cases[i].tp * cases[i].pp : 0);
        assert_true(cases[i].pp == 1 || nccl->n_send > 0);
        phx_mem_free(got);
    }
    emu->n_devices = 8;
    phx_mem_free(want);
    golden_free(&g);
}

static void class_fast_sums_in_the_librarys_order(void **state)
{
    struct golden            g = golden_load("llama3-tied-bf16");
    struct phx_ranks_options o = options_of(&g, 4, 1);
    float                   *got;

    (void)state;
    o.is_fast = true;
    nccl->n_all_reduce = nccl->n_all_gather = 0;
    got = harness_text(&g, &o, g.T); /* by its name the library is all there is */
    assert_true(nccl->n_all_reduce > 0 && nccl->n_all_gather == 0);
    assert_true(relative_error(got, g.logits, (size_t)g.T * (size_t)g.V) < 1e-4);
    phx_mem_free(got);
    golden_free(&g);
}

static int run_once(struct phx_ranks_options *o, const struct golden *g, struct phx_err *err)
{
    int32_t          *blocks = phx_mem_calloc((size_t)o->n_blocks, sizeof(*blocks));
    float            *logits = phx_mem_calloc((size_t)g->T * (size_t)g->V, sizeof(*logits));
    struct step_plan  step = {.n_seqs = 1, .n = {g->T}};
    struct plan       plan = {.seqs = {{g->tokens, g->T, blocks, logits, 0}}, .steps = &step, .n_steps = 1};
    int               code;

    for (int32_t i = 0; i < o->n_blocks; i++)
        blocks[i] = i;
    code = harness_run(o, &plan, err);
    phx_mem_free(blocks);
    phx_mem_free(logits);
    return code;
}

static void a_rank_that_fails_ends_all_within_seconds(void **state)
{
    struct golden g = golden_load("gpt-oss-window-f32");

    (void)state;
    for (int call = 1; call < 12; call += 3) {
        struct phx_ranks_options o = options_of(&g, 2, 2);
        struct phx_err           err = {0};
        int64_t                  start = phx_clock_mono_ns();

        nccl->die_at_call = call;
        nccl->n_abort = 0;
        assert_int_equal(run_once(&o, &g, &err), PHX_E_PEER);
        assert_true(phx_clock_mono_ns() - start < (int64_t)5 * 1000000000);
        assert_true(nccl->n_abort > 0);
    }
    nccl->die_at_call = 0;
    golden_free(&g);
}

enum { REPLAYED = 6, GONE_AT = 4 };

struct decode {
    int64_t n_replays; /* before the rank goes */
    bool    leaves;
};

/* One sequence, token by token; with `leaves` rank 1 is not there any more when others are at step GONE_AT. */
static int decode_some(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    struct decode   *d = ctx;
    int32_t          zero = 0, one = 1, pos, V = rank->config->vocab_size;
    float           *logits = phx_mem_calloc((size_t)V, sizeof(*logits));
    struct phx_batch batch = {.n_rows = 1, .tokens = &zero, .n_logits = 1, .logit_rows = &zero,
                              .spans = {.n_seqs = 1, .row = &zero, .n_rows = &one, .pos = &pos, .table = &zero,
                                        .table_stride = 1}};
    int              rc = 0;

    for (pos = 0; pos < REPLAYED && rc == 0; pos++) {
        if (pos == GONE_AT && rank->part->rank == 0)
            d->n_replays = emu->n_graph_launches;
        if (pos == GONE_AT && rank->part->rank == 1 && d->leaves)
            rc = phx_fail(err, PHX_E_INTERNAL, "this rank leaves");
        else
            rc = phx_model_step(rank->model, &batch, phx_view(logits, 1, V), err);
    }
    phx_mem_free(logits);
    return rc;
}

static void a_peer_that_leaves_a_replayed_step_is_noticed(void **state)
{
    struct golden            g = golden_load("gpt-oss-window-f32");
    struct phx_ranks_options o = options_of(&g, 2, 1);
    struct decode            d = {.leaves = false};
    struct phx_err           err = {0};
    int64_t                  before = emu->n_graph_launches, start;

    (void)state;
    o.transport = PHX_TRANSPORT_PEER;
    assert_int_equal(phx_ranks_run(&o, decode_some, &d, &err), 0);
    assert_int_equal(emu->n_graph_launches - before, 2 * (REPLAYED - 1)); /* recorded when met again, and launched at once */
    d = (struct decode){.leaves = true};
    before = emu->n_graph_launches;
    start = phx_clock_mono_ns();
    assert_int_equal(phx_ranks_run(&o, decode_some, &d, &err), PHX_E_INTERNAL);
    assert_string_equal(err.text, "this rank leaves");
    assert_true(d.n_replays > before);
    assert_true(phx_clock_mono_ns() - start < (int64_t)5 * 1000000000);
    golden_free(&g);
}

static void ranks_that_differ_are_refused_by_name(void **state)
{
    struct golden            g = golden_load("llama3-tied-bf16");
    struct phx_ranks_options o = options_of(&g, 2, 1);
    struct phx_err           err = {0};

    (void)state;
    nccl->version_step = 100;
    assert_int_equal(run_once(&o, &g, &err), PHX_E_UNSUPPORTED);
    nccl->version_step = 0;
    if (strstr(err.text, "rank 0 has") == NULL || strstr(err.text, "rank 1 has") == NULL ||
        strstr(err.text, "NCCL 2.2") == NULL)
        fail_msg("%s", err.text);
    golden_free(&g);
}

static void ranks_of_one_device_fall_back_or_are_refused(void **state)
{
    struct golden            g = golden_load("llama3-tied-bf16");
    struct phx_ranks_options o = options_of(&g, 2, 1);
    struct phx_err           err = {0};

    (void)state;
    emu->n_devices = 1;
    assert_int_equal(run_once(&o, &g, &err), PHX_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "ranks 0 and 1 share the device"));
    o.transport = PHX_TRANSPORT_AUTO;
    nccl->n_all_gather = 0;
    assert_int_equal(run_once(&o, &g, &err), 0);
    assert_int_equal(nccl->n_all_gather, 0);
    emu->n_devices = 8;
    assert_int_equal(run_once(&o, &g, &err), 0);
    assert_true(nccl->n_all_gather > 0);
    golden_free(&g);
}

static void what_would_decide_unseen_is_refused(void **state)
{
    struct phx_comm_device_options o = {.interface = "", .ib_devices = ""};
    struct phx_err                 err = {0};

    (void)state;
    assert_int_equal(setenv("NCCL_P2P_DISABLE", "1", 1), 0);
    assert_int_equal(phx_comm_device_environment(&o, &err), PHX_E_INVALID);
    assert_non_null(strstr(err.text, "NCCL_P2P_DISABLE is set in the environment"));
    assert_int_equal(unsetenv("NCCL_P2P_DISABLE"), 0);
    assert_int_equal(setenv("NCCL_DEBUG", "WARN", 1), 0);
    o.interface = "no-such-interface";
    assert_int_equal(phx_comm_device_environment(&o, &err), PHX_E_INVALID);
    assert_non_null(strstr(err.text, "interface no-such-interface: there is none of that name here"));
    o.interface = "lo";
    o.ib_devices = "none";
    assert_int_equal(phx_comm_device_environment(&o, &err), 0);
    assert_string_equal(getenv("NCCL_SOCKET_IFNAME"), "=lo");
    assert_string_equal(getenv("NCCL_IB_DISABLE"), "1");
    assert_int_equal(phx_comm_device_environment(&o, &err), 0); /* its own settings are none of others */
    o.interface = "";
    assert_int_equal(phx_comm_device_environment(&o, &err), PHX_E_INVALID);
    assert_int_equal(unsetenv("NCCL_SOCKET_IFNAME"), 0);
    assert_int_equal(unsetenv("NCCL_IB_DISABLE"), 0);
}

/* What is gathered stays on the device and is drawn from there. */
static void split_vocabularies_are_sampled_on_the_device(void **state)
{
    struct golden            g = golden_load("llama3-untied-f16");
    struct phx_ranks_options o = options_of(&g, 2, 1);
    struct sampling_seen     seen = sampling_check(&g, &o, 6);

    (void)state;
    assert_true(seen.n_late == 0 && seen.n_whole > 0 && 3 * seen.n_whole < 2 * seen.n_rows);
    golden_free(&g);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_would_decide_unseen_is_refused),
        cmocka_unit_test(every_layout_has_the_bits_of_one_rank),
        cmocka_unit_test(peer_memory_has_the_bits_of_one_rank),
        cmocka_unit_test(split_vocabularies_are_sampled_on_the_device),
        cmocka_unit_test(class_fast_sums_in_the_librarys_order),
        cmocka_unit_test(a_rank_that_fails_ends_all_within_seconds),
        cmocka_unit_test(a_peer_that_leaves_a_replayed_step_is_noticed),
        cmocka_unit_test(ranks_that_differ_are_refused_by_name),
        cmocka_unit_test(ranks_of_one_device_fall_back_or_are_refused),
    };

    return cmocka_run_group_tests(tests, open_doubles, NULL);
}
