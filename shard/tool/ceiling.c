/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/tool/ceiling.h"

#include <fcntl.h>
#include <immintrin.h>
#include <math.h>
#include <pthread.h>
#include <sched.h>
#include <stdbool.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "rpc/base/err.h"
#include "rpc/base/mem.h"

enum { REPS = 7, THREADS_MAX = 256, LANES = 16, CHAINS = 8, TILE_LOOPS = 4000, TILE_DATA = 18,
       REQ_XCOMP_PERM = 0x1023 };
static const size_t READ_BYTES = (size_t)1 << 30;
static const int64_t SPIN_NS = 60000000;

/* One thread's work of one kind; returns how much it did (bytes or operations). */
typedef double (*work_fn)(const char *part, size_t size);

struct crew {
    pthread_barrier_t barrier;
    work_fn           work;
    const char       *memory;
    size_t            part_bytes;
    double            best; /* units per nanosecond of all threads */
    int64_t           start_ns;
    double            done[THREADS_MAX];
    int32_t           n;
};

struct hand {
    struct crew *crew;
    pthread_t    thread;
    int32_t      index;
    int32_t      core; /* -1 = unpinned */
};

static volatile uint64_t sink; /* keeps the loads alive */

/* ---- the three kinds of work ---------------------------------------------------------------- */

__attribute__((target("avx512f"))) static double read_avx512(const char *p, size_t size)
{
    __m512i x[CHAINS];
    for (int k = 0; k < CHAINS; k++)
        x[k] = _mm512_setzero_si512();
    for (size_t i = 0; i < size; i += CHAINS * 64)
        for (size_t k = 0; k < CHAINS; k++)
            x[k] = _mm512_or_si512(x[k], _mm512_load_si512((const void *)(p + i + 64 * k)));
    for (int k = 1; k < CHAINS; k++)
        x[0] = _mm512_or_si512(x[0], x[k]);
    sink += (uint64_t)_mm512_reduce_or_epi64(x[0]);
    return (double)size;
}

/* Four streams with prefetch: on some machines one thread reads faster so. */
__attribute__((target("avx512f"))) static double read_streams(const char *p, size_t size)
{
    __m512i x[CHAINS];
    size_t  quarter = size / 4;
    for (int k = 0; k < CHAINS; k++)
        x[k] = _mm512_setzero_si512();
    for (size_t i = 0; i < quarter; i += 128)
        for (size_t k = 0; k < CHAINS; k++) {
            const char *at = p + (k / 2) * quarter + i + 64 * (k % 2);
            _mm_prefetch(at + 2048, _MM_HINT_T0);
            x[k] = _mm512_or_si512(x[k], _mm512_load_si512((const void *)at));
        }
    for (int k = 1; k < CHAINS; k++)
        x[0] = _mm512_or_si512(x[0], x[k]);
    sink += (uint64_t)_mm512_reduce_or_epi64(x[0]);
    return (double)(4 * quarter);
}

static double read_plain(const char *p, size_t size)
{
    uint64_t x[CHAINS] = {0};
    for (size_t i = 0; i < size; i += sizeof x) {
        uint64_t y[CHAINS];
        memcpy(y, p + i, sizeof y);
        for (int k = 0; k < CHAINS; k++)
            x[k] |= y[k];
    }
    for (int k = 0; k < CHAINS; k++)
        sink += x[k];
    return (double)size;
}

/* 12 chains hide the latency of two pipes; explicit registers, because arrays would be spilled. */
#define FMA12(op)                                                                                  \
    op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11)
#define ZERO512(k) "vpxord %%zmm" #k ",%%zmm" #k ",%%zmm" #k "\n\t"
#define FMA512(k) "vfmadd231ps %%zmm30,%%zmm31,%%zmm" #k "\n\t"
#define ZERO256(k) "vpxor %%ymm" #k ",%%ymm" #k ",%%ymm" #k "\n\t"
#define FMA256(k) "vfmadd231ps %%ymm14,%%ymm15,%%ymm" #k "\n\t"
#define CLOBBER12                                                                                  \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"

__attribute__((target("avx512f"))) static double fma_avx512(const char *part, size_t size)
{
    enum { LOOPS = 20000 };
    double  operations = 0;
    int64_t end_ns = phx_clock_mono_ns() + SPIN_NS;
    (void)part;
    (void)size;
    while (phx_clock_mono_ns() < end_ns) {
        long loops = LOOPS;
        __asm__ volatile(FMA12(ZERO512) "vpxord %%zmm30,%%zmm30,%%zmm30\n\t"
                                        "vpxord %%zmm31,%%zmm31,%%zmm31\n\t"
                                        "1:\n\t" FMA12(FMA512) "dec %0\n\tjnz 1b\n\t"
                         : "+r"(loops)
                         :
                         : CLOBBER12, "xmm30", "xmm31", "cc");
        operations += (double)LOOPS * 12 * LANES * 2;
    }
    return operations;
}

__attribute__((target("avx2,fma"))) static double fma_avx2(const char *part, size_t size)
{
    enum { LOOPS = 20000 };
    double  operations = 0;
    int64_t end_ns = phx_clock_mono_ns() + SPIN_NS;
    (void)part;
    (void)size;
    while (phx_clock_mono_ns() < end_ns) {
        long loops = LOOPS;
        __asm__ volatile(FMA12(ZERO256) "vpxor %%ymm14,%%ymm14,%%ymm14\n\t"
                                        "vpxor %%ymm15,%%ymm15,%%ymm15\n\t"
                                        "1:\n\t" FMA12(FMA256) "dec %0\n\tjnz 1b\n\t"
                         : "+r"(loops)
                         :
                         : CLOBBER12, "xmm14", "xmm15", "cc");
        operations += (double)LOOPS * 12 * (LANES / 2) * 2;
    }
    return operations;
}

struct tile_config {
    uint8_t  palette, start_row, reserved[14];
    uint16_t row_bytes[16];
    uint8_t  rows[16];
};

/* All eight tiles 16 rows of 64 bytes; 4 to 7 zero. */
__attribute__((target("amx-tile"))) static void load_tiles(void)
{
    struct tile_config config = {.palette = 1};
    for (int i = 0; i < 8; i++) {
        config.row_bytes[i] = 64;
        config.rows[i] = 16;
    }
    /* gcc 12 believes that loadconfig reads 8 bytes and drops the stores to the rest */
    __asm__ volatile("ldtilecfg %0" : : "m"(config) : "memory");
    _tile_zero(4);
    _tile_zero(5);
    _tile_zero(6);
    _tile_zero(7);
}

/* Four accumulators of 16 x 16, 32 products of bf16 or 64 of int8 deep: registers alone. */
__attribute__((target("amx-tile,amx-bf16"))) static double amx_bf16(const char *part, size_t size)
{
    double  operations = 0;
    int64_t end_ns = phx_clock_mono_ns() + SPIN_NS;
    (void)part;
    (void)size;
    load_tiles();
    while (phx_clock_mono_ns() < end_ns) {
        for (int i = 0; i < TILE_LOOPS; i++) {
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
        operations += (double)TILE_LOOPS * 4 * 16 * 16 * 32 * 2;
    }
    _tile_release();
    return operations;
}

__attribute__((target("amx-tile,amx-int8"))) static double amx_int8(const char *part, size_t size)
{
    double  operations = 0;
    int64_t end_ns = phx_clock_mono_ns() + SPIN_NS;
    (void)part;
    (void)size;
    load_tiles();
    while (phx_clock_mono_ns() < end_ns) {
        for (int i = 0; i < TILE_LOOPS; i++) {
            _tile_dpbssd(0, 4, 6);
            _tile_dpbssd(1, 4, 7);
            _tile_dpbssd(2, 5, 6);
            _tile_dpbssd(3, 5, 7);
        }
        operations += (double)TILE_LOOPS * 4 * 16 * 16 * 64 * 2;
    }
    _tile_release();
    return operations;
}

/* ---- many threads at once ------------------------------------------------------------------- */

static void *hand_main(void *arg)
{
    struct hand *h = arg;
    struct crew *c = h->crew;
    const char  *part = c->memory != NULL ? c->memory + c->part_bytes * (size_t)h->index : NULL;
    if (h->core >= 0) {
        cpu_set_t set;
        CPU_ZERO(&set);
        CPU_SET(h->core, &set);
        (void)sched_setaffinity(0, sizeof set, &set); /* unpinned it is only less steady */
    }
    for (int r = 0; r < REPS; r++) {
        (void)pthread_barrier_wait(&c->barrier);
        if (h->index == 0)
            c->start_ns = phx_clock_mono_ns();
        c->done[h->index] = c->work(part, c->part_bytes);
        (void)pthread_barrier_wait(&c->barrier);
        if (h->index == 0) {
            double sum = 0, ns = (double)(phx_clock_mono_ns() - c->start_ns);
            for (int32_t i = 0; i < c->n; i++)
                sum += c->done[i];
            c->best = sum / ns > c->best ? sum / ns : c->best;
        }
    }
    return NULL;
}

static int32_t nth_allowed_core(int32_t n)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) != 0)
        return -1;
    for (int32_t core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &set) && n-- == 0)
            return core;
    return -1;
}

/* The best of a few repetitions, in units of 1e9 a second. */
static double run_crew(work_fn work, const char *memory, int32_t n)
{
    struct crew c = {.work = work, .memory = memory, .n = n};
    struct hand hands[THREADS_MAX];
    c.part_bytes = READ_BYTES / (size_t)n / 16384 * 16384;
    (void)pthread_barrier_init(&c.barrier, NULL, (unsigned)n);
    for (int32_t i = 0; i < n; i++) {
        hands[i] = (struct hand){.crew = &c, .index = i, .core = nth_allowed_core(i)};
        phx_assert(pthread_create(&hands[i].thread, NULL, hand_main, &hands[i]) == 0);
    }
    for (int32_t i = 0; i < n; i++)
        (void)pthread_join(hands[i].thread, NULL);
    (void)pthread_barrier_destroy(&c.barrier);
    return c.best;
}

/* The buffer read above must not count as the engine's peak of memory. */
static void reset_peak_memory(void)
{
    int fd = open("/proc/self/clear_refs", O_WRONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t n = write(fd, "5", 1);
    (void)n; /* an old kernel only reports a higher peak */
    (void)close(fd);
}

void phx_ceiling_measure(int32_t n_threads, struct phx_ceiling *out)
{
    bool has_avx512 = __builtin_cpu_supports("avx512f");
    bool has_avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    bool has_amx = has_avx512 && syscall(SYS_arch_prctl, REQ_XCOMP_PERM, TILE_DATA) == 0;
    memset(out, 0, sizeof *out);
    phx_assert(n_threads >= 1 && n_threads <= THREADS_MAX);
    char *memory = mmap(NULL, READ_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory != MAP_FAILED) {
        (void)madvise(memory, READ_BYTES, MADV_HUGEPAGE); /* a hint */
        memset(memory, 1, READ_BYTES);
        out->read_gb_s = run_crew(has_avx512 ? read_avx512 : read_plain, memory, n_threads);
        if (has_avx512)
            out->read_gb_s = fmax(out->read_gb_s, run_crew(read_streams, memory, n_threads));
        (void)munmap(memory, READ_BYTES);
        reset_peak_memory();
    }
    if (has_avx512)
        out->fma_gflop_s = run_crew(fma_avx512, NULL, n_threads);
    else if (has_avx2)
        out->fma_gflop_s = run_crew(fma_avx2, NULL, n_threads);
    if (has_amx) {
        out->amx_bf16_gflop_s = run_crew(amx_bf16, NULL, n_threads);
        out->amx_int8_gop_s = run_crew(amx_int8, NULL, n_threads);
    }
}
