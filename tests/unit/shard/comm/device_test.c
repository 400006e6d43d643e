/* SPDX-License-Identifier: Apache-2.0
 * The device transport of a comm against devices that do what the test says: peers that die, hang or fail while work is
 * queued, and what the ranks decide together. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "kernels/exchange_ops.h"
#include "rpc/base/clock.h"
#include "shard/comm/nccl.h"
#include "tests/unit/shard/comm/script.h"

enum { RANKS = 2 };

/* One rank's device. */
struct device {
    int32_t     rank;
    bool        has_library, shares, is_open, fails_first;
    float       memory[4];
    atomic_bool is_busy, has_trouble;
    atomic_int  n_abort, n_close, n_sum;
};

struct rank {
    struct device            device;
    struct phx_backend       backend;
    struct phx_comm         *comm;
    enum phx_transport       transport;
    int                      rc;
    struct phx_err           err;
};

static void tell_facts(void *device, struct phx_device_facts *facts)
{
    struct device *d = device;

    (void)snprintf(facts->id, sizeof(facts->id), "gpu-%d", d->shares ? 0 : d->rank);
    (void)snprintf(facts->name, sizeof(facts->name), "double");
}

/* probe has no device: the thread is the rank. */
static __thread struct device *mine;

static int probe(int32_t *version, char *why, size_t why_size)
{
    *version = 22809;
    if (!mine->has_library)
        (void)snprintf(why, why_size, "libnccl.so.2 was not found");
    return mine->has_library ? 0 : -1;
}

static int make_id(unsigned char id[PHX_EXCHANGE_ID_BYTES], char *why, size_t why_size)
{
    (void)why;
    (void)why_size;
    memset(id, 1, PHX_EXCHANGE_ID_BYTES);
    return 0;
}

static void *open_exchange(void *device, const struct phx_exchange_options *options, char *why, size_t why_size)
{
    (void)why;
    (void)why_size;
    return (options->is_bare || options->id[0] == 1) && options->n_ranks == RANKS ? device : NULL;
}

static void close_exchange(void *exchange)
{
    atomic_fetch_add(&((struct device *)exchange)->n_close, 1);
}

static void abort_exchange(void *exchange)
{
    struct device *d = exchange;

    atomic_fetch_add(&d->n_abort, 1);
    atomic_store(&d->is_busy, false); /* what was queued ends with garbage */
}

static enum phx_exchange_state poll_exchange(void *exchange, const char **why)
{
    *why = "a cable was pulled";
    return atomic_load(&((struct device *)exchange)->has_trouble) ? PHX_EXCHANGE_FAILED : PHX_EXCHANGE_OK;
}

static enum phx_exchange_state is_done(void *device)
{
    return atomic_load(&((struct device *)device)->is_busy) ? PHX_EXCHANGE_BUSY : PHX_EXCHANGE_OK;
}

static int sum(void *exchange, struct phx_tensor t)
{
    struct device *d = exchange;

    (void)t;
    if (d->is_open) { /* not the first exchange, which is opening's own */
        atomic_fetch_add(&d->n_sum, 1);
        atomic_store(&d->is_busy, true);
    }
    return 0;
}

static int gather(void *exchange, struct phx_tensor out, struct phx_tensor part, const int32_t *first, const int32_t *n)
{
    struct device *d = exchange;

    (void)part;
    assert_int_equal(out.dim[1], RANKS);
    assert_int_equal(first[1] + n[1], RANKS);
    return d->fails_first ? -1 : 0;
}

static void *alloc_memory(void *device, size_t size_bytes)
{
    struct device *d = device;

    return size_bytes <= sizeof(d->memory) ? d->memory : NULL;
}

static void free_memory(void *device, void *ptr)
{
    (void)device;
    (void)ptr;
}

static const struct phx_exchange_ops exchange_ops = {
    .probe = probe, .make_id = make_id, .open = open_exchange, .close = close_exchange, .abort = abort_exchange,
    .poll = poll_exchange, .is_done = is_done, .sum = sum, .gather = gather,
};
static const struct phx_ops ops = {.name = "double", .alloc = alloc_memory, .free = free_memory, .facts = tell_facts,
                                   .exchange = &exchange_ops};

static void *open_rank(void *arg)
{
    struct rank                         *r = arg;
    const struct phx_comm_device_options o = {.transport = r->transport, .open_ms = 2000, .wait_ms = 400,
                                              .interface = "", .ib_devices = ""};

    mine = &r->device;
    r->rc = phx_comm_device_open(r->comm, &r->backend, &o, &r->err);
    return NULL;
}

/* Two ranks of one stage; prepare says how they differ (NULL: they do not). */
static void open_world(struct rank ranks[RANKS], enum phx_transport transport, void (*prepare)(struct rank *ranks))
{
    struct phx_comm *comm[RANKS];
    struct phx_err   err = {0};
    pthread_t        thread[RANKS];

    memset(ranks, 0, RANKS * sizeof(*ranks));
    assert_int_equal(phx_comm_local(RANKS, 1, &script_limits, comm, &err), 0);
    for (int32_t i = 0; i < RANKS; i++) {
        ranks[i].device.rank = i;
        ranks[i].device.has_library = true;
        ranks[i].backend = (struct phx_backend){.ops = &ops, .device = &ranks[i].device};
        ranks[i].comm = comm[i];
        ranks[i].transport = transport;
    }
    if (prepare != NULL)
        prepare(ranks);
    for (int32_t i = 0; i < RANKS; i++)
        assert_int_equal(pthread_create(&thread[i], NULL, open_rank, &ranks[i]), 0);
    for (int32_t i = 0; i < RANKS; i++) {
        assert_int_equal(pthread_join(thread[i], NULL), 0);
        ranks[i].device.is_open = true;
    }
}

static struct phx_tensor some_tensor(void)
{
    static float x[8];

    return phx_view(x, 2, 4);
}

/* Waits for a queued sum of rank 0; how long it took, in ms. */
static int64_t expect_lost(struct rank *r)
{
    int64_t start = phx_clock_mono_ns();

    assert_int_equal(phx_comm_wait(r->comm), PHX_E_PEER);
    start = phx_clock_mono_ns() - start;
    assert_int_equal(atomic_load(&r->device.n_abort), 1);
    assert_int_equal(atomic_load(&r->device.n_close), 1);
    assert_int_equal(phx_comm_sum(r->comm, some_tensor()), PHX_E_PEER); /* and stays so */
    assert_int_equal(phx_comm_wait(r->comm), PHX_E_PEER);
    return start / 1000000;
}

static void a_peer_that_leaves_is_noticed(void **state)
{
    struct rank ranks[RANKS];

    (void)state;
    open_world(ranks, PHX_TRANSPORT_NCCL, NULL);
    assert_true(ranks[0].rc == 0 && phx_comm_is_device(ranks[0].comm) && phx_comm_is_device(ranks[1].comm));
    assert_int_equal(phx_comm_sum(ranks[0].comm, some_tensor()), 0);
    phx_comm_close(ranks[1].comm); /* its library says nothing */
    assert_true(expect_lost(&ranks[0]) < 2000);
    phx_comm_close(ranks[0].comm);
    assert_int_equal(atomic_load(&ranks[0].device.n_close), 1);
}

static void a_peer_that_hangs_is_given_up(void **state)
{
    struct rank ranks[RANKS];
    int64_t     ms;

    (void)state;
    open_world(ranks, PHX_TRANSPORT_AUTO, NULL);
    assert_int_equal(phx_comm_sum(ranks[0].comm, some_tensor()), 0);
    ms = expect_lost(&ranks[0]);
    assert_true(ms >= 400 && ms < 5000);
    phx_comm_close(ranks[0].comm);
    phx_comm_close(ranks[1].comm);
}

static void what_the_library_says_is_heard(void **state)
{
    struct rank ranks[RANKS];

    (void)state;
    open_world(ranks, PHX_TRANSPORT_NCCL, NULL);
    assert_int_equal(phx_comm_sum(ranks[0].comm, some_tensor()), 0);
    atomic_store(&ranks[0].device.has_trouble, true);
    assert_true(expect_lost(&ranks[0]) < 400);
    phx_comm_close(ranks[0].comm);
    phx_comm_close(ranks[1].comm);
}

static void *finish_soon(void *arg)
{
    (void)usleep(250000);
    atomic_store(&((struct rank *)arg)->device.is_busy, false);
    return NULL;
}

/* The last activation of a rank that has left may still be on its way. */
static void last_words_are_read(void **state)
{
    struct rank ranks[RANKS];
    pthread_t   thread;

    (void)state;
    open_world(ranks, PHX_TRANSPORT_NCCL, NULL);
    assert_int_equal(phx_comm_sum(ranks[0].comm, some_tensor()), 0);
    phx_comm_close(ranks[1].comm);
    assert_int_equal(pthread_create(&thread, NULL, finish_soon, &ranks[0]), 0);
    assert_int_equal(phx_comm_wait(ranks[0].comm), 0);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_int_equal(atomic_load(&ranks[0].device.n_abort), 0);
    phx_comm_close(ranks[0].comm);
    assert_int_equal(atomic_load(&ranks[0].device.n_close), 1);
}

static void lack_library(struct rank *ranks)
{
    ranks[1].device.has_library = false;
}

static void share_device(struct rank *ranks)
{
    ranks[0].device.shares = ranks[1].device.shares = true;
}

static void expect_host(enum phx_transport transport, void (*prepare)(struct rank *))
{
    struct rank ranks[RANKS];

    open_world(ranks, transport, prepare);
    for (int32_t i = 0; i < RANKS; i++) {
        assert_int_equal(ranks[i].rc, 0);
        assert_false(phx_comm_is_device(ranks[i].comm));
        assert_int_equal(phx_comm_wait(ranks[i].comm), 0);
        phx_comm_close(ranks[i].comm);
    }
}

static void expect_refusal(void (*prepare)(struct rank *), const char *text)
{
    struct rank ranks[RANKS];

    open_world(ranks, PHX_TRANSPORT_NCCL, prepare);
    for (int32_t i = 0; i < RANKS; i++) {
        assert_int_equal(ranks[i].rc, PHX_E_UNSUPPORTED);
        assert_string_equal(ranks[i].err.text, text); /* the same on every rank */
        phx_comm_close(ranks[i].comm);
    }
}

static void all_ranks_decide_alike(void **state)
{
    enum phx_transport t;

    (void)state;
    expect_host(PHX_TRANSPORT_HOST, NULL);
    expect_host(PHX_TRANSPORT_AUTO, lack_library);
    expect_host(PHX_TRANSPORT_AUTO, share_device);
    expect_refusal(lack_library, "transport nccl: rank 1: libnccl.so.2 was not found");
    expect_refusal(share_device, "transport nccl: ranks 0 and 1 share the device gpu-0 (double); use transport host");
    assert_true(phx_transport_parse("host", &t) == 0 && t == PHX_TRANSPORT_HOST);
    assert_int_equal(phx_transport_parse("tcp", &t), -1);
}

static void fail_first(struct rank *ranks)
{
    ranks[1].device.fails_first = true;
}

static void a_first_exchange_that_fails_is_everybodys(void **state)
{
    struct rank ranks[RANKS];

    (void)state;
    open_world(ranks, PHX_TRANSPORT_AUTO, fail_first);
    for (int32_t i = 0; i < RANKS; i++) {
        assert_int_equal(ranks[i].rc, PHX_E_PEER);
        assert_non_null(strstr(ranks[i].err.text, "a first exchange between them failed"));
        assert_false(phx_comm_is_device(ranks[i].comm));
        assert_int_equal(atomic_load(&ranks[i].device.n_close), 1);
        phx_comm_close(ranks[i].comm);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_peer_that_leaves_is_noticed),
        cmocka_unit_test(a_peer_that_hangs_is_given_up),
        cmocka_unit_test(what_the_library_says_is_heard),
        cmocka_unit_test(last_words_are_read),
        cmocka_unit_test(all_ranks_decide_alike),
        cmocka_unit_test(a_first_exchange_that_fails_is_everybodys),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
