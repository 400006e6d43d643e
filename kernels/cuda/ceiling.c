/* SPDX-License-Identifier: Apache-2.0
 * What the device can do at best.  Each is repeated and the best round counts: a stricter measure than the median.  Times
 * are the host's, between two waits, over enough work that the waits do not matter. */
#include "kernels/cuda/ceiling.h"

#include <string.h>
#include <time.h>

#include "kernels/cuda/library.h"

enum { ROUNDS = 5, BLOCKS_OF_SM = 4 };

static int64_t now_ns(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_MONOTONIC, &ts); /* cannot fail: the clock exists */
    return (int64_t)ts.tv_sec * 1000000000 + ts.tv_nsec;
}

/* What is measured; false when a call was refused (error kept). */
typedef bool (*work_fn)(struct cuda_device *d, void *ctx);

/* Nanoseconds of one call of the best round; 0 on an error. */
static double best_ns(struct cuda_device *d, int32_t calls, work_fn work, void *ctx)
{
    double best = 0;

    for (int32_t round = 0; round <= ROUNDS; round++) { /* the first warms up */
        int64_t start = now_ns();
        double  each;

        for (int32_t i = 0; i < calls; i++)
            if (!work(d, ctx))
                return 0;
        if (!phx_cuda_check(d, cudaStreamSynchronize(d->stream), "measure"))
            return 0;
        each = (double)(now_ns() - start) / (double)calls;
        if (round == 1 || (round > 1 && each < best))
            best = each;
    }
    return best;
}

struct buffers {
    unsigned char *a, *b;
    size_t         size_bytes;
    uint32_t      *sums;
    int32_t        n_blocks, n;
};

static bool copy(struct cuda_device *d, void *ctx)
{
    const struct buffers *m = ctx;

    return phx_cuda_check(d, cudaMemcpyAsync(m->b, m->a, m->size_bytes, cudaMemcpyDeviceToDevice, d->stream), "measure copy");
}

static bool read_all(struct cuda_device *d, void *ctx)
{
    const struct buffers      *m = ctx;
    const struct cuda_read_all call = {m->a, m->size_bytes / 16, m->sums, m->n_blocks};

    return phx_cuda_check(d, phx_cuda_read_all(d->stream, &call), "measure read");
}

static bool replay(struct cuda_device *d, void *ctx)
{
    return phx_cuda_check(d, cudaGraphLaunch(ctx, d->stream), "measure launches");
}

static bool make_noise(struct cuda_device *d, void *to, size_t size_bytes, uint32_t seed, bool is_bf16)
{
    const struct cuda_noise call = {to, size_bytes / sizeof(uint32_t), seed, is_bf16};

    return phx_cuda_check(d, phx_cuda_noise(d->stream, &call), "measure");
}

static void measure_memory(struct cuda_device *d, const struct phx_device_request *r, struct phx_device_ceiling *out)
{
    struct buffers m = {.size_bytes = r->buffer_bytes / 16 * 16, .n_blocks = d->sm_count * BLOCKS_OF_SM};
    double         ns;

    m.a = phx_cuda_take(d, m.size_bytes, "measure");
    m.b = phx_cuda_take(d, m.size_bytes, "measure");
    m.sums = phx_cuda_take(d, (size_t)m.n_blocks * sizeof(*m.sums), "measure");
    if (m.a != NULL && m.b != NULL && m.sums != NULL && make_noise(d, m.a, m.size_bytes, 1, false)) {
        ns = best_ns(d, r->calls, copy, &m);
        out->copy_gb_s = ns > 0 ? 2 * (double)m.size_bytes / ns : 0;
        ns = best_ns(d, r->calls, read_all, &m);
        out->read_gb_s = ns > 0 ? (double)m.size_bytes / ns : 0;
    }
    phx_cuda_drop(d, m.a);
    phx_cuda_drop(d, m.b);
    phx_cuda_drop(d, m.sums);
}

static bool multiply(struct cuda_device *d, void *ctx)
{
    (void)d;
    return phx_cuda_library_run(ctx);
}

/* Without the library it stays 0. */
static void measure_matmul(struct cuda_device *d, const struct phx_device_request *r, struct phx_device_ceiling *out)
{
    size_t                      n = (size_t)r->matrix, size_bytes = n * n * sizeof(uint16_t);
    unsigned char              *a = phx_cuda_take(d, size_bytes, "measure"), *b = phx_cuda_take(d, size_bytes, "measure");
    float                      *c = phx_cuda_take(d, n * n * sizeof(*c), "measure");
    struct cuda_library_square *square = NULL;
    double                      ns;

    if (a != NULL && b != NULL && c != NULL && make_noise(d, a, size_bytes, 2, true) && make_noise(d, b, size_bytes, 3, true))
        square = phx_cuda_library_square(d, a, b, c, r->matrix);
    if (square != NULL) {
        ns = best_ns(d, r->calls, multiply, square);
        out->matmul_gflop_s = ns > 0 ? 2 * (double)n * (double)n * (double)n / ns : 0;
        phx_cuda_library_square_free(square);
    }
    phx_cuda_drop(d, a);
    phx_cuda_drop(d, b);
    phx_cuda_drop(d, c);
}

/* From one empty graph to the next, launched as fast as the host can. */
static void measure_launches(struct cuda_device *d, const struct phx_device_request *r, struct phx_device_ceiling *out)
{
    cudaGraph_t     graph = NULL;
    cudaGraphExec_t exec = NULL;
    bool            is_good = phx_cuda_check(d, cudaStreamBeginCapture(d->stream, cudaStreamCaptureModeThreadLocal), "measure");

    if (!is_good)
        return;
    is_good = phx_cuda_check(d, phx_cuda_nothing(d->stream), "measure");
    is_good = phx_cuda_check(d, cudaStreamEndCapture(d->stream, &graph), "measure") && is_good;
    if (is_good && phx_cuda_check(d, cudaGraphInstantiate(&exec, graph, 0), "measure"))
        out->launch_us = best_ns(d, r->launches, replay, exec) / 1e3;
    if (exec != NULL)
        (void)cudaGraphExecDestroy(exec); /* fails only with the device */
    if (graph != NULL)
        (void)cudaGraphDestroy(graph); /* as well */
}

int phx_cuda_measure(void *device, const struct phx_device_request *request, struct phx_device_ceiling *out)
{
    struct cuda_device *d = device;

    memset(out, 0, sizeof(*out));
    measure_memory(d, request, out);
    if (!d->has_failed)
        measure_matmul(d, request, out);
    if (!d->has_failed)
        measure_launches(d, request, out);
    return d->has_failed ? -1 : 0;
}
