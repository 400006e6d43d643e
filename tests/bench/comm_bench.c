/* SPDX-License-Identifier: Apache-2.0
 * What the ranks of one host pay to talk: mpirun -n N comm_bench prints one JSON object.
 * Sums follow each other at once; the idle figure is the processor time of a rank that waits a second. */
#include <mpi.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <unistd.h>

#include "rpc/base/clock.h"
#include "shard/comm/comm.h"

enum { ROUNDS = 301, PER_ROUND = 20, WARM_ROUNDS = 20, IDLE_US = 1000000 };

static const int32_t SIZES[] = {1 << 10, 8 << 10, 16 << 10, 64 << 10, 256 << 10, 1 << 20};
enum { N_SIZES = sizeof(SIZES) / sizeof(SIZES[0]), FLOATS_MAX = (1 << 20) / 4 };

static float buffer[FLOATS_MAX];

static int compare(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;

    return (x > y) - (x < y);
}

static void check(int rc, const char *what)
{
    if (rc == 0)
        return;
    fprintf(stderr, "comm_bench: %s: %s\n", what, phx_err_text(rc));
    exit(1); /* mpirun ends the others */
}

struct spread {
    double least, median, most;
};

static struct spread spread_of(double *us, int n)
{
    qsort(us, (size_t)n, sizeof(*us), compare);
    return (struct spread){us[0], us[n / 2], us[n * 9 / 10]};
}

static struct spread time_sums(struct phx_comm *comm, int32_t bytes)
{
    static double     us[ROUNDS];
    struct phx_tensor x = {buffer, PHX_DTYPE_F32, {1, bytes / 4}, bytes / 4};

    for (int round = -WARM_ROUNDS; round < ROUNDS; round++) {
        int64_t start = phx_clock_mono_ns();

        for (int i = 0; i < PER_ROUND; i++) {
            buffer[0] = 1; /* stays finite over all rounds */
            check(phx_comm_sum(comm, x), "sum");
        }
        if (round >= 0)
            us[round] = (double)(phx_clock_mono_ns() - start) / 1e3 / PER_ROUND;
    }
    return spread_of(us, ROUNDS);
}

static struct spread time_status(struct phx_comm *comm)
{
    static double us[ROUNDS];
    int32_t       worst;

    for (int round = 0; round < ROUNDS; round++) {
        int64_t start = phx_clock_mono_ns();

        for (int i = 0; i < PER_ROUND; i++)
            check(phx_comm_status(comm, 0, &worst), "status");
        us[round] = (double)(phx_clock_mono_ns() - start) / 1e3 / PER_ROUND;
    }
    return spread_of(us, ROUNDS);
}

static double processor_ms(void)
{
    struct rusage u;

    (void)getrusage(RUSAGE_SELF, &u); /* cannot fail for oneself */
    return (double)(u.ru_utime.tv_sec + u.ru_stime.tv_sec) * 1e3 +
           (double)(u.ru_utime.tv_usec + u.ru_stime.tv_usec) / 1e3;
}

/* Processor time of this rank while the head says nothing for a second. */
static double idle_ms(struct phx_comm *comm, int32_t rank)
{
    double  before = processor_ms();
    int32_t word = 0;
    size_t  size = sizeof(word);

    if (rank == 0)
        usleep(IDLE_US);
    check(phx_comm_bcast(comm, &word, sizeof(word), &size), "broadcast");
    return processor_ms() - before;
}

/* One core each where there are enough: what is measured is the ring, not the scheduler. */
static void pin(int32_t rank)
{
    cpu_set_t allowed, one;
    int       left = rank;

    if (sched_getaffinity(0, sizeof(allowed), &allowed) != 0 || CPU_COUNT(&allowed) <= rank)
        return;
    CPU_ZERO(&one);
    for (int core = 0; core < CPU_SETSIZE; core++)
        if (CPU_ISSET(core, &allowed) && left-- == 0)
            CPU_SET(core, &one);
    (void)sched_setaffinity(0, sizeof(one), &one); /* unpinned is slower, not wrong */
}

int main(int argc, char **argv)
{
    struct phx_comm_limits limits = {.max_activation_bytes = sizeof(buffer), .max_plan_bytes = 4096,
                                     .max_result_bytes = 4096};
    struct phx_comm *comm = NULL;
    struct phx_err   err = {0};
    int              level = 0, n_ranks = 0, rank = 0;

    if (MPI_Init_thread(&argc, &argv, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS ||
        MPI_Comm_size(MPI_COMM_WORLD, &n_ranks) != MPI_SUCCESS ||
        MPI_Comm_rank(MPI_COMM_WORLD, &rank) != MPI_SUCCESS)
        return 1;
    if (phx_comm_mpi(n_ranks, 1, &limits, &comm, &err) != 0) {
        fprintf(stderr, "comm_bench: %s\n", err.text);
        return 1;
    }
    pin(rank);
    if (rank == 0)
        printf("{\"ranks\": %d, \"sum\": [", n_ranks);
    for (int i = 0; i < N_SIZES; i++) {
        struct spread s = time_sums(comm, SIZES[i]);

        if (rank == 0)
            printf("%s{\"bytes\": %d, \"us_min\": %.2f, \"us_median\": %.2f, \"us_p90\": %.2f}",
                   i > 0 ? ", " : "", SIZES[i], s.least, s.median, s.most);
    }
    struct spread s = time_status(comm);
    double        idle = idle_ms(comm, rank), *all = calloc((size_t)n_ranks, sizeof(*all));

    check(all == NULL ? PHX_E_NOMEM : phx_comm_collect(comm, &idle, sizeof(idle), all), "collect");
    if (rank == 0)
        printf("], \"status_us\": %.2f, \"idle_processor_ms_per_s\": %.2f}\n", s.median,
               all[n_ranks - 1]); /* the last rank: it waited for the head */
    free(all);
    phx_comm_close(comm);
    return MPI_Finalize() == MPI_SUCCESS ? 0 : 1;
}
