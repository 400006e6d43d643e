/* SPDX-License-Identifier: Apache-2.0
 * Exchanges over peer memory, on emulated devices: the bits of the hosts' sums for every number of ranks, with one
 * device each or one for all; what is refused, and what happens when a rank does not come. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "tests/unit/shard/comm/peer_world.h"

enum { ROUNDS = 40 };

static int sum_sizes(struct rank *r)
{
    static const size_t sizes[] = {1, 3, 4, 5, 7, 1023, 1024, 1025, 2880, 17 * 2880, LIMIT - 1, LIMIT, LIMIT + 1, MOST};
    const char         *why = "";

    CHECK(phx_comm_is_device(r->comm));
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++) {
        struct pair p;

        if (sizes[i] > 3 * 2880 && r->n > 4 && sizes[i] != LIMIT)
            continue; /* eight ranks are slow to emulate */
        CHECK(make_pair(r, sizes[i], i % 3, &p));
        CHECK(phx_comm_sum(r->hosts, row_of(p.host, p.n)) == 0);
        CHECK(phx_comm_sum(r->comm, row_of(p.device, p.n)) == 0);
        CHECK(phx_comm_wait(r->comm) == 0);
        CHECK(phx_backend_sync(r->b, &why) == 0);
        CHECK(is_same(r, &p));
    }
    return 0;
}

static void sums_have_the_bits_of_the_hosts(void **state)
{
    static const int32_t sizes[] = {2, 3, 4, 8};

    (void)state;
    for (size_t i = 0; i < sizeof(sizes) / sizeof(sizes[0]); i++)
        expect_world(sizes[i], PHX_TRANSPORT_PEER, sum_sizes);
}

static void ranks_of_one_device_sum_too(void **state)
{
    (void)state;
    emu->n_devices = 1;
    expect_world(2, PHX_TRANSPORT_PEER, sum_sizes);
    expect_world(4, PHX_TRANSPORT_PEER, sum_sizes);
}

/* Queued without a wait, of changing sizes: a rank that is ahead must not write where another still reads. */
static int sum_rounds(struct rank *r)
{
    struct pair pairs[ROUNDS];

    for (int i = 0; i < ROUNDS; i++)
        CHECK(make_pair(r, 1 + (size_t)(i * i * 37 % 9001), 0, &pairs[i]));
    for (int i = 0; i < ROUNDS; i++) {
        if (i % 8 == r->index) /* ranks fall behind in turn */
            CHECK(phx_comm_wait(r->comm) == 0);
        CHECK(phx_comm_sum(r->comm, row_of(pairs[i].device, pairs[i].n)) == 0);
    }
    CHECK(phx_comm_wait(r->comm) == 0);
    for (int i = 0; i < ROUNDS; i++) {
        CHECK(phx_comm_sum(r->hosts, row_of(pairs[i].host, pairs[i].n)) == 0);
        CHECK(is_same(r, &pairs[i]));
    }
    return 0;
}

static void many_rounds_do_not_mix(void **state)
{
    (void)state;
    expect_world(2, PHX_TRANSPORT_PEER, sum_rounds);
    expect_world(4, PHX_TRANSPORT_PEER, sum_rounds);
    emu->n_devices = 1;
    expect_world(3, PHX_TRANSPORT_PEER, sum_rounds);
}

/* Columns that are not even, in one piece and in several. */
static int gather_columns(struct rank *r)
{
    static const int32_t rows[] = {1, 5, 40};

    for (int k = 0; k < 3; k++) {
        int32_t     first[RANKS_MAX], n[RANKS_MAX], all = 0;
        struct pair part, out;

        for (int32_t i = 0; i < r->n; i++) {
            first[i] = all;
            n[i] = 1000 * (i + 1) * (k + 1) + 13 * i;
            all += n[i];
        }
        CHECK(make_pair(r, (size_t)rows[k] * (size_t)n[r->index], 0, &part));
        CHECK(make_pair(r, (size_t)rows[k] * (size_t)all, 0, &out));
        CHECK(phx_comm_gather(r->hosts, phx_view(out.host, rows[k], all), phx_view(part.host, rows[k], n[r->index]), first,
                              n) == 0);
        CHECK(phx_comm_gather(r->comm, phx_view(out.device, rows[k], all), phx_view(part.device, rows[k], n[r->index]),
                              first, n) == 0);
        CHECK(phx_comm_wait(r->comm) == 0);
        CHECK(is_same(r, &out));
        CHECK(is_same(r, &part));
    }
    return 0;
}

static void columns_are_gathered(void **state)
{
    (void)state;
    expect_world(2, PHX_TRANSPORT_PEER, gather_columns);
    expect_world(3, PHX_TRANSPORT_PEER, gather_columns);
    expect_world(8, PHX_TRANSPORT_PEER, gather_columns);
}

/* ---- what is refused -------------------------------------------------------------------------- */

static int expect_hosts(struct rank *r)
{
    CHECK(!phx_comm_is_device(r->comm));
    return 0;
}

static int expect_devices(struct rank *r)
{
    CHECK(phx_comm_is_device(r->comm));
    return 0;
}

static void expect_refusal(int32_t n, const char *text)
{
    struct rank ranks[RANKS_MAX];

    run_world(ranks, n, PHX_TRANSPORT_PEER, NULL);
    for (int32_t i = 0; i < n; i++) {
        assert_int_equal(ranks[i].rc, PHX_E_UNSUPPORTED);
        if (strstr(ranks[i].err.text, text) == NULL)
            fail_msg("%s", ranks[i].err.text);
    }
}

static void what_cannot_be_had_is_refused_by_name(void **state)
{
    (void)state;
    expect_world(2, PHX_TRANSPORT_HOST, expect_hosts);
    emu->lacks_peers = 1;
    expect_refusal(2, "transport peer: rank 0: device 0 cannot reach the memory of device 1");
    emu->n_devices = 1; /* its own memory a device reaches; but ranks that share one do not wait for each other unasked */
    expect_world(2, PHX_TRANSPORT_PEER, expect_devices);
    expect_world(2, PHX_TRANSPORT_AUTO, expect_hosts);
}

/* Of two ranks together: opening their backends takes some, what is left fails the offers. */
static void memory_that_is_short_is_refused(void **state)
{
    int n_refused = 0;

    (void)state;
    for (int i = 1; i < 24; i++) {
        struct rank ranks[RANKS_MAX];

        emu->fail_pinned = i < 12 ? i : 0;
        emu->fail_malloc = i < 12 ? 0 : i - 11;
        run_world(ranks, 2, PHX_TRANSPORT_PEER, NULL);
        assert_true((ranks[0].rc == 0) == (ranks[1].rc == 0)); /* either way all ranks end, and alike */
        n_refused += ranks[0].rc == PHX_E_UNSUPPORTED && strstr(ranks[0].err.text, "transport peer: rank ") != NULL;
    }
    assert_true(n_refused > 1);
    emu->fail_pinned = emu->fail_malloc = 0;
}

/* ---- ranks that do not come ------------------------------------------------------------------- */

static int wait_for_nobody(struct rank *r)
{
    struct pair p;
    const char *why = "";
    int64_t     begin = phx_clock_mono_ns();

    if (r->index == 0)
        return 0; /* leaves: its comm closes */
    CHECK(make_pair(r, 100, 0, &p));
    for (int i = 0; i < 3; i++)
        CHECK(phx_comm_sum(r->comm, row_of(p.device, p.n)) == 0);
    CHECK(phx_comm_wait(r->comm) == PHX_E_PEER);
    CHECK(phx_clock_mono_ns() - begin < (int64_t)5000 * 1000000);
    CHECK(phx_comm_sum(r->comm, row_of(p.device, p.n)) == PHX_E_PEER);
    CHECK(phx_backend_sync(r->b, &why) == -1);
    CHECK(strstr(why, "a rank did not come to an exchange over peer memory") != NULL);
    (void)is_same(r, &p);
    return 0;
}

static void a_peer_that_leaves_is_noticed(void **state)
{
    (void)state;
    expect_world(2, PHX_TRANSPORT_PEER, wait_for_nobody);
    expect_world(4, PHX_TRANSPORT_PEER, wait_for_nobody);
}

static pthread_barrier_t barrier;

static int hang(struct rank *r)
{
    struct pair p;
    int64_t     begin = phx_clock_mono_ns();
    int         line = 0;

    CHECK(make_pair(r, 5000, 0, &p));
    if (r->index == 1) {
        if (phx_comm_sum(r->comm, row_of(p.device, p.n)) != 0 || phx_comm_wait(r->comm) != PHX_E_PEER ||
            phx_clock_mono_ns() - begin < (int64_t)2000 * 1000000)
            line = __LINE__;
    }
    (void)pthread_barrier_wait(&barrier);
    (void)is_same(r, &p);
    return line;
}

static void a_peer_that_hangs_is_given_up(void **state)
{
    (void)state;
    assert_int_equal(pthread_barrier_init(&barrier, NULL, 2), 0);
    expect_world(2, PHX_TRANSPORT_PEER, hang);
    assert_int_equal(pthread_barrier_destroy(&barrier), 0);
}

/* ---- below the comm --------------------------------------------------------------------------- */

struct seat {
    int32_t              index;
    struct phx_backend  *b;
    struct phx_exchange *x;
    char                 why[200];
    int                  rc;
};

static unsigned char cards[2][PHX_EXCHANGE_CARD_BYTES];

/* In the thread that the backend belongs to: the one rank that comes. */
static void open_seats(struct seat seats[2], int32_t wait_ms)
{
    struct phx_backend_options b = {.compute = PHX_COMPUTE_F32, .is_wrapped = true};

    for (int32_t i = 0; i < 2; i++) {
        struct phx_exchange_options o = {.rank = i, .n_ranks = 2, .max_bytes = 4096, .is_bare = true, .wait_ms = wait_ms};

        seats[i] = (struct seat){.index = i};
        seats[i].b = phx_backend_open("cuda", &b, seats[i].why, sizeof(seats[i].why));
        assert_non_null(seats[i].b);
        seats[i].x = phx_exchange_open(seats[i].b, &o, seats[i].why, sizeof(seats[i].why));
        assert_non_null(seats[i].x);
        assert_int_equal(phx_exchange_offer(seats[i].x, cards[i], seats[i].why, sizeof(seats[i].why)), 0);
    }
}

static void close_seats(struct seat seats[2])
{
    for (int i = 0; i < 2; i++) {
        phx_exchange_close(seats[i].x);
        phx_backend_close(seats[i].b);
    }
}

static int accept_all(struct seat *s)
{
    return phx_exchange_accept(s->x, cards[0], s->why, sizeof(s->why));
}

/* A kernel whose host does not look any more ends by itself, and so do those behind it. */
static void a_kernel_does_not_wait_for_ever(void **state)
{
    struct seat seats[2];
    const char *why = "";
    float      *x;

    (void)state;
    emu->n_devices = 1;
    open_seats(seats, 100);
    assert_int_equal(accept_all(&seats[0]), 0);
    assert_int_equal(accept_all(&seats[1]), 0);
    x = phx_backend_alloc(seats[0].b, 64);
    assert_int_equal(phx_exchange_poll(seats[0].x, &why), PHX_EXCHANGE_OK);
    for (int i = 0; i < 3; i++)
        assert_int_equal(phx_exchange_sum(seats[0].x, phx_view(x, 1, 16)), 0);
    assert_int_equal(phx_backend_sync(seats[0].b, &why), -1);
    assert_non_null(strstr(why, "a rank did not come to an exchange over peer memory"));
    assert_int_equal(phx_exchange_poll(seats[0].x, &why), PHX_EXCHANGE_FAILED);
    assert_string_equal(why, "a rank did not come in time");
    phx_backend_free(seats[0].b, x);
    /* what was sent before that is still there; who comes late gets no more, and not the parts of later sums */
    x = phx_backend_alloc(seats[1].b, 64);
    assert_int_equal(phx_exchange_sum(seats[1].x, phx_view(x, 1, 16)), 0);
    assert_int_equal(phx_backend_sync(seats[1].b, &why), 0);
    assert_int_equal(phx_exchange_sum(seats[1].x, phx_view(x, 1, 16)), 0);
    assert_int_equal(phx_backend_sync(seats[1].b, &why), -1);
    phx_backend_free(seats[1].b, x);
    close_seats(seats);
}

/* As another process would: by the handle, since the card is not of this process. */
static void memory_of_another_process_is_mapped(void **state)
{
    enum { PROCESS_AT = 16 };
    struct seat seats[2];
    const char *why = "";
    float      *x[2], got[3], value[2][3] = {{1, 2, 3}, {10, 20, 30}};
    int64_t     n_maps = emu->n_maps;

    (void)state;
    emu->n_devices = 1;
    emu->maps_own = 1;
    open_seats(seats, 1000);
    for (int i = 0; i < 2; i++) {
        cards[1 - i][PROCESS_AT] ^= 1;
        assert_int_equal(accept_all(&seats[i]), 0);
        cards[1 - i][PROCESS_AT] ^= 1;
        x[i] = phx_backend_alloc(seats[i].b, sizeof(got));
        phx_upload(seats[i].b, x[i], value[i], sizeof(got));
        assert_int_equal(phx_exchange_sum(seats[i].x, phx_view(x[i], 1, 3)), 0);
    }
    assert_int_equal(emu->n_maps, n_maps + 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(phx_backend_sync(seats[i].b, &why), 0);
        phx_download(seats[i].b, got, x[i], sizeof(got));
        for (int k = 0; k < 3; k++)
            assert_true(got[k] == value[0][k] + value[1][k]);
        phx_backend_free(seats[i].b, x[i]);
    }
    close_seats(seats);
    assert_int_equal(emu->n_maps, n_maps);
}

static void cards_are_checked(void **state)
{
    struct seat seats[2];

    (void)state;
    emu->n_devices = 1;
    open_seats(seats, 1000);
    for (size_t at = 0; at < 12; at += 4) { /* whose it is, and how many ranks */
        cards[1][at] ^= 1;
        assert_int_equal(accept_all(&seats[0]), -1);
        assert_string_equal(seats[0].why, "the card of rank 1 is not one of this build");
        cards[1][at] ^= 1;
    }
    cards[1][16] ^= 1;
    assert_int_equal(accept_all(&seats[0]), -1); /* a handle of this process, which cannot be opened */
    assert_non_null(strstr(seats[0].why, "the memory of another rank cannot be mapped"));
    close_seats(seats);
}

static void the_way_follows_from_the_size(void **state)
{
    (void)state;
    assert_string_equal(phx_cuda_sum_way_name(phx_cuda_pick_sum(CUDA_PEER_BYTES, true, true)), "peer");
    assert_string_equal(phx_cuda_sum_way_name(phx_cuda_pick_sum(CUDA_PEER_BYTES + 4, true, true)), "library");
    assert_string_equal(phx_cuda_sum_way_name(phx_cuda_pick_sum(CUDA_PEER_BYTES + 4, true, false)), "pieces");
    assert_string_equal(phx_cuda_sum_way_name(phx_cuda_pick_sum(4, false, true)), "library");
    assert_int_equal(phx_cuda_peer_blocks(0), 1);
    assert_int_equal(phx_cuda_peer_blocks(1024), 1);
    assert_int_equal(phx_cuda_peer_blocks(1025), 2);
    assert_int_equal(phx_cuda_peer_blocks(LIMIT), CUDA_PEER_BLOCKS_MAX);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(the_way_follows_from_the_size, start),
        cmocka_unit_test_setup(cards_are_checked, start),
        cmocka_unit_test_setup(memory_of_another_process_is_mapped, start),
        cmocka_unit_test_setup(a_kernel_does_not_wait_for_ever, start),
        cmocka_unit_test_setup(sums_have_the_bits_of_the_hosts, start),
        cmocka_unit_test_setup(ranks_of_one_device_sum_too, start),
        cmocka_unit_test_setup(many_rounds_do_not_mix, start),
        cmocka_unit_test_setup(columns_are_gathered, start),
        cmocka_unit_test_setup(what_cannot_be_had_is_refused_by_name, start),
        cmocka_unit_test_setup(a_peer_that_leaves_is_noticed, start),
        cmocka_unit_test_setup(a_peer_that_hangs_is_given_up, start),
        cmocka_unit_test_setup(memory_that_is_short_is_refused, start),
    };

    return cmocka_run_group_tests(tests, find_emulator, NULL);
}
