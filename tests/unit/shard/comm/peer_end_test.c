/* SPDX-License-Identifier: Apache-2.0
 * Sums over peer memory that end a branch in the same launch, on emulated devices: the bits of phx_comm_sum() and
 * phx_add_norm() one after the other. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/mem.h"
#include "tests/unit/shard/comm/peer_world.h"

enum { EXPERTS = 5, TOP = 3, WITH_BIAS = 1, WITH_EXPERTS = 2, WITH_NORM = 4, KINDS = 8 };

/* The tensors of one end, on the device. */
struct end {
    struct phx_add_norm_args args;
    void                    *memory[8];
    int                      n_memory;
};

static struct phx_tensor make(struct rank *r, struct end *e, int32_t rows, int32_t n, int32_t gap)
{
    size_t            size = (size_t)gap + (size_t)rows * (size_t)(n + gap);
    float            *host = phx_mem_calloc(size, sizeof(*host)), *device = phx_backend_alloc(r->b, size * sizeof(*device));
    struct phx_tensor t = phx_view(device + gap, rows, n);

    for (size_t i = 0; i < size; i++)
        host[i] = draw(r);
    phx_upload(r->b, device, host, size * sizeof(*host));
    phx_mem_free(host);
    e->memory[e->n_memory++] = device;
    t.stride0 = n + gap;
    return t;
}

static struct phx_tensor make_ids(struct rank *r, struct end *e, int32_t rows)
{
    int32_t           host[64 * TOP], *device = phx_backend_alloc(r->b, sizeof(host));
    struct phx_tensor t = phx_view((float *)(void *)device, rows, TOP);

    for (int32_t i = 0; i < rows * TOP; i++)
        host[i] = (int32_t)(r->random + (uint32_t)i * 7u) & 3;
    phx_upload(r->b, device, host, sizeof(host));
    e->memory[e->n_memory++] = device;
    t.dtype = PHX_DTYPE_I32;
    return t;
}

/* From the same state of r->random it is the same. */
static void make_end(struct rank *r, struct end *e, int kind, int32_t rows, int32_t n, int32_t gap)
{
    memset(e, 0, sizeof(*e));
    e->args.eps = 1e-5f;
    e->args.x = make(r, e, rows, n, gap);
    e->args.y = make(r, e, rows, n, 0); /* what is summed is dense */
    if (kind & WITH_BIAS)
        e->args.bias = make(r, e, 1, n, gap);
    if (kind & WITH_EXPERTS) {
        e->args.ids = make_ids(r, e, rows);
        e->args.gates = make(r, e, rows, TOP, 0);
        e->args.expert_bias = make(r, e, EXPERTS, n, gap);
    }
    if (kind & WITH_NORM) {
        e->args.norm = make(r, e, rows, n, gap);
        e->args.gain = make(r, e, 1, n, gap);
    }
}

static bool has_same_bits(struct rank *r, struct phx_tensor a, struct phx_tensor b)
{
    size_t bytes = (size_t)a.dim[1] * sizeof(float);
    char  *got = phx_mem_calloc(1, bytes), *want = phx_mem_calloc(1, bytes);
    bool   same = true;

    for (int32_t i = 0; i < a.dim[0]; i++) {
        phx_download(r->b, got, (float *)a.data + i * a.stride0, bytes);
        phx_download(r->b, want, (float *)b.data + i * b.stride0, bytes);
        same = same && memcmp(got, want, bytes) == 0;
    }
    phx_mem_free(got);
    phx_mem_free(want);
    return same;
}

static void free_end(struct rank *r, struct end *e)
{
    for (int i = 0; i < e->n_memory; i++)
        phx_backend_free(r->b, e->memory[i]);
}

static int compare_end(struct rank *r, int kind, int32_t rows, int32_t n, int32_t gap)
{
    uint32_t    seed = r->random;
    struct end  one, parts;
    const char *why = "";
    bool        same;

    make_end(r, &one, kind, rows, n, gap);
    r->random = seed;
    make_end(r, &parts, kind, rows, n, gap);
    CHECK(phx_comm_sum_add_norm(r->comm, &one.args) == 0);
    CHECK(phx_comm_sum(r->comm, parts.args.y) == 0);
    phx_add_norm(r->b, &parts.args);
    CHECK(phx_comm_wait(r->comm) == 0);
    CHECK(phx_backend_sync(r->b, &why) == 0);
    same = has_same_bits(r, one.args.x, parts.args.x) &&
           (!(kind & WITH_NORM) || has_same_bits(r, one.args.norm, parts.args.norm));
    free_end(r, &one);
    free_end(r, &parts);
    CHECK(same);
    return 0;
}

static int end_branches(struct rank *r)
{
    static const int32_t shapes[][3] = {{1, 2880, 0}, {1, 7, 0}, {2, 33, 0}, {3, 1024, 4}, {5, 1028, 3}, {31, 8, 0}, {45, 72, 4},
                                        {33, 9, 1}};

    CHECK(phx_comm_is_device(r->comm));
    for (size_t i = 0; i < sizeof(shapes) / sizeof(shapes[0]); i++)
        for (int kind = 0; kind < KINDS; kind++) {
            int line;

            if (r->n > 4 && (int)(i % 4) != kind % 4)
                continue; /* eight ranks are slow to emulate */
            line = compare_end(r, kind, shapes[i][0], shapes[i][1], shapes[i][2]);
            CHECK(line == 0);
        }
    return 0;
}

static void ends_have_the_bits_of_their_parts(void **state)
{
    static const int32_t sizes[] = {2, 3, 4, 8};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        expect_world(sizes[i], PHX_TRANSPORT_PEER, end_branches);
    emu->n_devices = 1;
    expect_world(2, PHX_TRANSPORT_PEER, end_branches);
}

/* One launch for each, and a row more than fits is not touched. */
static int count_launches(struct rank *r)
{
    int32_t     n = 2880, rows = LIMIT / n;
    struct end  fits, too_large;
    const char *why = "";
    int64_t     before;
    float       first = 0, after = 1;

    make_end(r, &fits, WITH_BIAS | WITH_NORM, rows, n, 0);
    make_end(r, &too_large, WITH_BIAS | WITH_NORM, rows + 1, n, 0);
    CHECK(phx_backend_sync(r->b, &why) == 0);
    CHECK(phx_comm_sum(r->comm, fits.args.y) == 0); /* nobody is still making */
    CHECK(phx_comm_wait(r->comm) == 0);
    before = emu->n_launches;
    CHECK(phx_comm_sum_add_norm(r->comm, &fits.args) == 0);
    CHECK(phx_comm_wait(r->comm) == 0);
    CHECK(emu->n_launches - before <= r->n); /* of all ranks: this one's and those of peers that are as far */
    phx_download(r->b, &first, too_large.args.x.data, sizeof(first));
    CHECK(phx_comm_sum_add_norm(r->comm, &too_large.args) == 1);
    CHECK(phx_comm_wait(r->comm) == 0);
    phx_download(r->b, &after, too_large.args.x.data, sizeof(after));
    CHECK(memcmp(&first, &after, sizeof(first)) == 0);
    CHECK(phx_comm_can_record(r->comm, LIMIT * sizeof(float)) && phx_comm_can_record(r->comm, LIMIT * sizeof(float) + 4));
    free_end(r, &fits);
    free_end(r, &too_large);
    return 0;
}

static void an_end_is_one_launch(void **state)
{
    (void)state;
    expect_world(2, PHX_TRANSPORT_PEER, count_launches);
}

static int expect_no_record(struct rank *r)
{
    CHECK(!phx_comm_can_record(r->comm, 4));
    return 0;
}

/* What waits for a device in a process may wait for a rank of it. */
static void threads_of_one_device_are_not_recorded(void **state)
{
    (void)state;
    emu->n_devices = 1;
    expect_world(2, PHX_TRANSPORT_PEER, expect_no_record);
    expect_world(2, PHX_TRANSPORT_HOST, expect_no_record);
}

static int lead_on(struct rank *r)
{
    struct end e;

    make_end(r, &e, WITH_NORM, 2, 64, 0);
    if (r->index == 0)
        CHECK(phx_comm_sum_add_norm(r->comm, &e.args) == 0 && phx_comm_wait(r->comm) == PHX_E_PEER);
    return 0;
}

static void a_peer_that_does_not_come_is_noticed(void **state)
{
    struct rank ranks[RANKS_MAX];

    (void)state;
    run_world(ranks, 2, PHX_TRANSPORT_PEER, lead_on);
    assert_int_equal(ranks[0].line, 0);
}

static void an_end_is_one_where_a_turn_holds_it(void **state)
{
    (void)state;
    assert_true(phx_cuda_pick_peer_end(1, LIMIT, true));
    assert_false(phx_cuda_pick_peer_end(1, LIMIT + 1, true));
    assert_false(phx_cuda_pick_peer_end(1, 1, false));
    assert_false(phx_cuda_pick_peer_end(INT32_MAX, INT32_MAX, true));
    assert_int_equal(phx_cuda_peer_end_blocks(0), 1);
    assert_int_equal(phx_cuda_peer_end_blocks(7), 7);
    assert_int_equal(phx_cuda_peer_end_blocks(1000), CUDA_PEER_BLOCKS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(an_end_is_one_where_a_turn_holds_it, start),
        cmocka_unit_test_setup(ends_have_the_bits_of_their_parts, start),
        cmocka_unit_test_setup(an_end_is_one_launch, start),
        cmocka_unit_test_setup(threads_of_one_device_are_not_recorded, start),
        cmocka_unit_test_setup(a_peer_that_does_not_come_is_noticed, start),
    };

    return cmocka_run_group_tests(tests, find_emulator, NULL);
}
