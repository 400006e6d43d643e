/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/clock.h"
#include "shard/comm/ring.h"

enum { CAPACITY = 256 };

static void *shared_memory(void)
{
    void *p = mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

    assert_true(p != MAP_FAILED);
    return p;
}

static void test_bytes_come_out_in_order_across_the_wrap(void **state)
{
    void           *memory = shared_memory();
    struct phx_ring r;
    uint32_t        next_in = 0, next_out = 0;

    (void)state;
    phx_ring_attach(&r, memory, CAPACITY);
    for (int round = 0; round < 1000; round++) {
        while (phx_ring_put_some(&r, &next_in, 4) == 4)
            next_in++;
        assert_int_equal(phx_ring_readable(&r), CAPACITY);
        for (int k = 0; k < 1 + round % 60; k++) {
            uint32_t got;

            assert_int_equal(phx_ring_take_some(&r, &got, 4), 4);
            assert_int_equal(got, next_out++);
        }
    }
    (void)munmap(memory, 4096);
}

static void test_an_empty_ring_times_out(void **state)
{
    void           *memory = shared_memory();
    struct phx_ring r;
    int64_t         start = phx_clock_mono_ns();

    (void)state;
    phx_ring_attach(&r, memory, CAPACITY);
    assert_int_equal(phx_ring_wait_data(&r, start + 20000000), PHX_E_TIMEOUT);
    assert_true(phx_clock_mono_ns() - start >= 20000000);
    assert_int_equal(phx_ring_wait_data(&r, 0), PHX_E_TIMEOUT);
    (void)munmap(memory, 4096);
}

/* The writer dies without a word, and nobody has collected it: it is a zombie. */
static void test_what_a_dead_writer_wrote_is_read_then_it_is_gone(void **state)
{
    uint8_t           *memory = shared_memory();
    struct phx_member *writer = (struct phx_member *)(void *)(memory + 2048);
    struct phx_ring    r;
    uint64_t           got = 0;
    int64_t            start = phx_clock_mono_ns();
    pid_t              child;

    (void)state;
    phx_ring_attach(&r, memory, CAPACITY);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        uint64_t value = 42;

        (void)usleep(50000);
        _exit(phx_ring_put(&r, &value, sizeof(value)) == 0 ? 0 : 1);
    }
    atomic_store(&writer->pid, child);
    r.peer = writer;
    r.is_pid_watched = true;
    assert_int_equal(phx_ring_take(&r, &got, sizeof(got)), 0);
    assert_int_equal(got, 42);
    assert_int_equal(phx_ring_take(&r, &got, sizeof(got)), PHX_E_PEER);
    assert_true(phx_clock_mono_ns() - start < 3000000000);
    assert_int_equal(waitpid(child, NULL, 0), child);
    assert_int_equal(phx_ring_take(&r, &got, sizeof(got)), PHX_E_PEER);
    (void)munmap(memory, 4096);
}

/* The reader is another process: two directions, many wakes. */
static void test_two_processes_play_ping_pong(void **state)
{
    uint8_t        *memory = shared_memory();
    struct phx_ring there, back;
    pid_t           child;

    (void)state;
    phx_ring_attach(&there, memory, CAPACITY);
    phx_ring_attach(&back, memory + 1024, CAPACITY);
    child = fork();
    assert_true(child >= 0);
    if (child == 0) {
        uint32_t value = 0;
        int      rc = 0;

        while (rc == 0 && value < 20000) {
            rc = phx_ring_take(&there, &value, sizeof(value));
            value++;
            if (rc == 0)
                rc = phx_ring_put(&back, &value, sizeof(value));
        }
        _exit(rc == 0 ? 0 : 1);
    }
    for (uint32_t value = 0, got; value < 20000; value = got) {
        assert_int_equal(phx_ring_put(&there, &value, sizeof(value)), 0);
        assert_int_equal(phx_ring_take(&back, &got, sizeof(got)), 0);
        assert_int_equal(got, value + 1);
    }
    assert_int_equal(waitpid(child, NULL, 0), child);
    (void)munmap(memory, 4096);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_bytes_come_out_in_order_across_the_wrap),
        cmocka_unit_test(test_an_empty_ring_times_out),
        cmocka_unit_test(test_what_a_dead_writer_wrote_is_read_then_it_is_gone),
        cmocka_unit_test(test_two_processes_play_ping_pong),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
