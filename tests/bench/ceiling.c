/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/bench/ceiling.h"

#include <assert.h>
#include <immintrin.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>

enum { THREADS_MAX = 256, CHAINS = 8, FMA_LOOPS = 400000 };
static const size_t BUFFER_BYTES = (size_t)768 << 20;

static struct {
    char             *buffer;
    int32_t           n_threads;
    pthread_barrier_t barrier;
    double            seconds[2]; /* of the read, of the multiply-adds */
} state;
static volatile uint64_t sink;

/* One thread is timed by its own processor time: what else runs on the machine then hurts less. */
double now_s(void)
{
    struct timespec t;

    clock_gettime(state.n_threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

/* Four streams with prefetch: the most that plain loads reach on the machines tried. */
__attribute__((target("avx512f"))) static void read_avx512(const char *p, size_t size)
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
}

__attribute__((target("avx2"))) static void read_avx2(const char *p, size_t size)
{
    __m256i x[CHAINS];

    for (int k = 0; k < CHAINS; k++)
        x[k] = _mm256_setzero_si256();
    for (size_t i = 0; i < size; i += (size_t)CHAINS * 32)
        for (size_t k = 0; k < CHAINS; k++)
            x[k] = _mm256_or_si256(x[k], _mm256_load_si256((const void *)(p + i + 32 * k)));
    for (int k = 1; k < CHAINS; k++)
        x[0] = _mm256_or_si256(x[0], x[k]);
    sink += (uint64_t)_mm256_extract_epi64(x[0], 0);
}

/* Twelve chains hide the latency of two pipes; registers by name, because arrays would be spilled. */
#define TWELVE(op) op(0) op(1) op(2) op(3) op(4) op(5) op(6) op(7) op(8) op(9) op(10) op(11)
#define FMA512(k) "vfmadd231ps %%zmm30,%%zmm31,%%zmm" #k "\n\t"
#define FMA256(k) "vfmadd231ps %%ymm14,%%ymm15,%%ymm" #k "\n\t"
#define ZERO(k) "vxorps %%ymm" #k ",%%ymm" #k ",%%ymm" #k "\n\t"
#define USED                                                                                       \
    "xmm0", "xmm1", "xmm2", "xmm3", "xmm4", "xmm5", "xmm6", "xmm7", "xmm8", "xmm9", "xmm10", "xmm11"

__attribute__((target("avx512f"))) static void fma_avx512(void)
{
    long n = FMA_LOOPS;

    __asm__ volatile(TWELVE(ZERO) "vpxord %%zmm30,%%zmm30,%%zmm30\n\t"
                                  "vpxord %%zmm31,%%zmm31,%%zmm31\n\t"
                                  "1:\n\t" TWELVE(FMA512) "dec %0\n\tjnz 1b\n\t"
                     : "+r"(n)
                     :
                     : USED, "xmm30", "xmm31", "cc");
}

__attribute__((target("avx2,fma"))) static void fma_avx2(void)
{
    long n = FMA_LOOPS;

    __asm__ volatile(TWELVE(ZERO) ZERO(14) ZERO(15) "1:\n\t" TWELVE(FMA256) "dec %0\n\tjnz 1b\n\t"
                     : "+r"(n)
                     :
                     : USED, "xmm14", "xmm15", "cc");
}

static void stay_on_core(int32_t n)
{
    cpu_set_t allowed, one;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0)
        return;
    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &allowed) && n-- == 0)
            CPU_SET(core, &one);
    (void)sched_setaffinity(0, sizeof(one), &one); /* unpinned is only less steady */
}

static void *run_thread(void *arg)
{
    int32_t index = (int32_t)(intptr_t)arg;
    size_t  part = BUFFER_BYTES / (size_t)state.n_threads / 16384 * 16384;
    double  start;

    stay_on_core(index);
    for (int kind = 0; kind < 2; kind++) {
        (void)pthread_barrier_wait(&state.barrier);
        start = now_s();
        if (kind == 0 && __builtin_cpu_supports("avx512f"))
            read_avx512(state.buffer + part * (size_t)index, part);
        else if (kind == 0)
            read_avx2(state.buffer + part * (size_t)index, part);
        else if (__builtin_cpu_supports("avx512f"))
            fma_avx512();
        else
            fma_avx2();
        (void)pthread_barrier_wait(&state.barrier);
        if (index == 0)
            state.seconds[kind] = now_s() - start;
    }
    return NULL;
}

void ceiling_open(int32_t n_threads)
{
    assert(n_threads >= 1 && n_threads <= THREADS_MAX);
    state.n_threads = n_threads;
    state.buffer = mmap(NULL, BUFFER_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (state.buffer == MAP_FAILED)
        abort();
    (void)madvise(state.buffer, BUFFER_BYTES, MADV_HUGEPAGE); /* a hint */
    memset(state.buffer, 1, BUFFER_BYTES);
}

void ceiling_measure(struct ceiling *out)
{
    pthread_t threads[THREADS_MAX];
    int       lanes = __builtin_cpu_supports("avx512f") ? 16 : 8;

    (void)pthread_barrier_init(&state.barrier, NULL, (unsigned)state.n_threads);
    for (int32_t i = 0; i < state.n_threads; i++)
        if (pthread_create(&threads[i], NULL, run_thread, (void *)(intptr_t)i) != 0)
            abort();
    for (int32_t i = 0; i < state.n_threads; i++)
        (void)pthread_join(threads[i], NULL);
    (void)pthread_barrier_destroy(&state.barrier);
    out->read_gb_s = (double)BUFFER_BYTES / state.seconds[0] / 1e9;
    out->fma_gflop_s =
        (double)FMA_LOOPS * 12 * 2 * lanes * (double)state.n_threads / state.seconds[1] / 1e9;
}

void ceiling_close(void)
{
    (void)munmap(state.buffer, BUFFER_BYTES);
}
