/* SPDX-License-Identifier: Apache-2.0
 * Reading ahead: it ends by itself, ends when asked in the middle, and does not outrun the packing. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include <fcntl.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "rpc/base/mem.h"
#include "shard/model/ahead.h"

enum { PIECE = 32 << 20, N_PIECES = 32, WINDOW = 256 << 20, STRIDE = 4 << 20 };

/* A file of holes stands for a checkpoint: mapped pages show what was read. */
static struct phx_ckpt_tensor make_tensor(int *fd)
{
    char                   name[] = "/tmp/phx-ahead.XXXXXX";
    struct phx_ckpt_tensor t = {.name = "t", .size_bytes = (uint64_t)PIECE * N_PIECES};

    *fd = mkstemp(name);
    assert_true(*fd >= 0);
    assert_int_equal(unlink(name), 0);
    assert_int_equal(ftruncate(*fd, (off_t)t.size_bytes), 0);
    t.data = mmap(NULL, t.size_bytes, PROT_READ, MAP_SHARED, *fd, 0);
    assert_true(t.data != MAP_FAILED);
    return t;
}

static uint64_t cached_bytes(const struct phx_ckpt_tensor *t)
{
    size_t         n = t->size_bytes / 4096;
    unsigned char *pages = phx_mem_calloc(n, 1);
    uint64_t       bytes = 0;

    assert_int_equal(mincore((void *)(uintptr_t)t->data, t->size_bytes, pages), 0);
    for (size_t i = 0; i < n; i++)
        bytes += (pages[i] & 1) * 4096;
    phx_mem_free(pages);
    return bytes;
}

static void free_tensor(struct phx_ckpt_tensor *t, int fd)
{
    assert_int_equal(munmap((void *)(uintptr_t)t->data, t->size_bytes), 0);
    assert_int_equal(close(fd), 0);
}

static struct phx_ahead *start(const struct phx_ckpt_tensor *t)
{
    struct phx_ahead *a = phx_ahead_create();

    for (uint64_t i = 0; i < N_PIECES; i++)
        phx_ahead_add(a, t, i * PIECE, PIECE);
    phx_ahead_start(a);
    return a;
}

static uint64_t wait_for(const struct phx_ckpt_tensor *t, uint64_t bytes)
{
    uint64_t have = 0;

    for (int i = 0; i < 2000 && (have = cached_bytes(t)) < bytes; i++)
        (void)usleep(5000);
    return have;
}

static void test_a_window_ahead(void **state)
{
    int                    fd;
    struct phx_ckpt_tensor t = make_tensor(&fd);
    struct phx_ahead      *a = start(&t);
    const uint64_t         slack = 128 << 20; /* strides under way and the kernel's own read-ahead */

    (void)state;
    assert_true(wait_for(&t, WINDOW) >= WINDOW);
    (void)usleep(50000);
    assert_true(cached_bytes(&t) <= (uint64_t)WINDOW + 2 * STRIDE + slack);
    for (int i = 0; i < N_PIECES / 2; i++)
        phx_ahead_done(a);
    assert_true(wait_for(&t, (uint64_t)WINDOW + PIECE) >= (uint64_t)WINDOW + PIECE);
    phx_ahead_destroy(a); /* in the middle */
    free_tensor(&t, fd);
}

static void test_nothing_and_all(void **state)
{
    int                    fd;
    struct phx_ckpt_tensor t = make_tensor(&fd);
    struct phx_ahead      *a = phx_ahead_create();

    (void)state;
    phx_ahead_start(a);
    phx_ahead_destroy(a);
    a = start(&t);
    for (int i = 0; i < N_PIECES; i++)
        phx_ahead_done(a); /* packing is faster: what it has behind it is not read again */
    phx_ahead_destroy(a);
    phx_ahead_destroy(NULL);
    free_tensor(&t, fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_a_window_ahead),
                                       cmocka_unit_test(test_nothing_and_all)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
