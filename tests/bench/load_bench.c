/* SPDX-License-Identifier: Apache-2.0
 * The host's side of loading onto a device: load_bench FOLDER [repetitions].  The emulated device beside this program
 * takes copies and kernels and does nothing with them, so what is timed is reading the files (from the page cache:
 * run it twice), checking, copying into pinned memory, and the calls.  One and two copying threads in turns, beside
 * memcpy of as many threads from the same mapped file into a ring as large: what this machine can do.
 * One JSON object per line. */
#include <dlfcn.h>
#include <fcntl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "shard/tool/ranks.h"
#include "tests/emu/control.h"

enum { THREADS = 2, REPS_MAX = 15, PIECE = 256 << 10, RING = 16 << 20 };

static struct phx_emu *emu;

struct loaded {
    double   seconds;
    uint64_t bytes;
};

static void count_bytes(void *ctx, uint64_t done_bytes, uint64_t total_bytes)
{
    struct loaded *l = ctx;

    (void)total_bytes;
    l->bytes = done_bytes;
}

static int note_time(struct phx_rank *rank, void *ctx, struct phx_err *err)
{
    (void)err;
    ((struct loaded *)ctx)->seconds = rank->load_seconds;
    return 0;
}

static struct loaded load(const char *dir, int threads)
{
    struct phx_ranks_options o;
    struct loaded            l = {0};
    struct phx_err           err = {0};

    phx_ranks_defaults(&o);
    o.dir = dir;
    o.tp = o.pp = 1;
    o.backend = "cuda";
    o.compute = PHX_COMPUTE_BF16;
    o.kv_dtype = PHX_DTYPE_BF16;
    o.n_blocks = 8;
    o.max_rows = o.max_context = 64;
    o.max_seqs = o.max_logits = 1;
    o.progress = count_bytes;
    o.progress_ctx = &l;
    emu->copy_threads = threads;
    if (phx_ranks_run(&o, note_time, &l, &err) != 0) {
        fprintf(stderr, "load_bench: %s\n", err.text);
        exit(1);
    }
    return l;
}

/* ---- the ceiling ---------------------------------------------------------------------------- */

struct share {
    const unsigned char *from;
    unsigned char       *ring;
    size_t               size_bytes;
};

static void *copy_share(void *ctx)
{
    const struct share *s = ctx;

    for (size_t at = 0; at + PIECE <= s->size_bytes; at += PIECE)
        memcpy(s->ring + at % RING, s->from + at, PIECE);
    return NULL;
}

/* GB/s of so many threads from a mapped file whose pages are present. */
static double copy_file(const unsigned char *file, size_t size_bytes, int threads)
{
    pthread_t    thread[THREADS];
    struct share share[THREADS];
    int64_t      start, end;
    size_t       part = size_bytes / (size_t)threads;

    for (int i = 0; i < threads; i++) {
        share[i] = (struct share){file + (size_t)i * part, phx_mem_calloc(RING, 1), part};
        memset(share[i].ring, 1, RING);
    }
    start = phx_clock_mono_ns();
    for (int i = 0; i < threads; i++)
        if (pthread_create(&thread[i], NULL, copy_share, &share[i]) != 0)
            exit(1);
    for (int i = 0; i < threads; i++)
        (void)pthread_join(thread[i], NULL); /* our own threads */
    end = phx_clock_mono_ns();
    for (int i = 0; i < threads; i++)
        phx_mem_free(share[i].ring);
    return (double)size_bytes / (double)(end - start);
}

static const unsigned char *map_file(const char *dir, size_t *size_bytes)
{
    char        path[4096];
    struct stat about;
    void       *at = MAP_FAILED;
    int         fd;

    (void)snprintf(path, sizeof(path), "%s/model.safetensors", dir);
    fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd >= 0 && fstat(fd, &about) == 0)
        at = mmap(NULL, (size_t)about.st_size, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, 0);
    if (at == MAP_FAILED) {
        perror(path);
        exit(1);
    }
    (void)close(fd); /* the mapping holds it */
    *size_bytes = (size_t)about.st_size;
    return at;
}

int main(int argc, char **argv)
{
    int                  reps = argc > 2 ? atoi(argv[2]) : 3;
    void                *module = dlopen(PHX_BIN_DIR "/../tests/phalanx_cuda.so", RTLD_NOW | RTLD_LOCAL);
    size_t               size_bytes = 0;
    const unsigned char *file;

    if (argc < 2 || reps < 1 || reps > REPS_MAX || module == NULL) {
        fprintf(stderr, "usage: load_bench FOLDER [repetitions 1..15]%s\n", module == NULL ? ": no emulated module" : "");
        return 2;
    }
    emu = dlsym(module, "phx_emu");
    emu->reset();
    emu->memory_bytes = (size_t)200 << 30;
    emu->landing_bytes = (size_t)16 << 20;
    emu->share_below = (size_t)4 << 20;
    emu->is_sink = 1;
    file = map_file(argv[1], &size_bytes);
    for (int rep = 0; rep < reps; rep++)
        for (int threads = 1; threads <= THREADS; threads++) {
            struct loaded l = load(argv[1], threads);
            double        ceiling = copy_file(file, size_bytes, threads);

            printf("{\"threads\": %d, \"rep\": %d, \"gb\": %.3f, \"seconds\": %.4f, \"load_gb_s\": %.2f, \"memcpy_gb_s\": %.2f}\n",
                   threads, rep, (double)l.bytes / 1e9, l.seconds, (double)l.bytes / 1e9 / l.seconds, ceiling);
            (void)fflush(stdout);
        }
    return 0;
}
