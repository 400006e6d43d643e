/* SPDX-License-Identifier: Apache-2.0
 * One rank of an MPI job that runs the script: mpi_ranks TP PP RANKS_PER_HOST [idle]. */
#include <mpi.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "tests/unit/shard/comm/script.h"

static double cpu_seconds(void)
{
    struct timespec ts;

    (void)clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &ts);
    return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Rank 0 says nothing for two seconds; nobody may burn the time. */
static int check_idle(struct phx_comm *c)
{
    char   plan[8] = "idle";
    size_t n = 4;
    double before;
    int    rc;

    (void)usleep(300000);
    before = cpu_seconds();
    if (phx_comm_shape(c)->rank == 0)
        (void)sleep(2);
    rc = phx_comm_bcast(c, plan, sizeof(plan), &n);
    if (rc == 0 && cpu_seconds() - before > 0.1) {
        fprintf(stderr, "rank %d used %.3f s of cpu while idle\n", phx_comm_shape(c)->rank,
                cpu_seconds() - before);
        rc = -99;
    }
    return rc;
}

int main(int argc, char **argv)
{
    struct phx_comm_limits limits = script_limits;
    struct phx_comm       *c;
    struct phx_err         err = {0};
    int                    level, rc;

    if (argc < 4 || MPI_Init_thread(&argc, &argv, MPI_THREAD_MULTIPLE, &level) != MPI_SUCCESS)
        return 2;
    limits.ranks_per_host = atoi(argv[3]);
    if (phx_comm_mpi(99, 1, &limits, &c, &err) != PHX_E_INVALID)
        return 3;
    rc = phx_comm_mpi(atoi(argv[1]), atoi(argv[2]), &limits, &c, &err);
    if (rc != 0) {
        fprintf(stderr, "phx_comm_mpi: %s\n", err.text);
        return 4;
    }
    rc = script_run(c, NULL);
    if (rc == 0 && argc > 4 && strcmp(argv[4], "idle") == 0)
        rc = check_idle(c);
    if (rc != 0)
        fprintf(stderr, "rank %d: %d\n", phx_comm_shape(c)->rank, rc);
    phx_comm_close(c);
    (void)MPI_Finalize();
    return rc == 0 ? 0 : 1;
}
