/* SPDX-License-Identifier: Apache-2.0
 * Ranks as an MPI job: this program started once more under mpirun. */
#include <errno.h>
#include <mpi.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/mem.h"
#include "shard/tool/ranks.h"

int phx_ranks_join_mpi(int32_t tp, int32_t pp, const struct phx_comm_limits *limits, struct phx_comm **out,
                       struct phx_err *err)
{
    int level = 0;

    if (MPI_Init_thread(NULL, NULL, MPI_THREAD_SERIALIZED, &level) != MPI_SUCCESS)
        return phx_fail(err, PHX_E_IO, "MPI did not start; was this process started by mpirun?");
    return phx_comm_mpi(tp, pp, limits, out, err);
}

void phx_ranks_leave_mpi(int code)
{
    if (code == 0)
        (void)MPI_Finalize(); /* a failed rank just exits, and mpirun ends the others */
}

/* The launcher this was built with, or the one in PATH. */
static const char *find_mpirun(void)
{
    return access(PHX_MPIRUN_PATH, X_OK) == 0 ? PHX_MPIRUN_PATH : "mpirun";
}

int phx_ranks_exec_mpi(int32_t n_ranks, char *const *args, struct phx_err *err)
{
    static const char *const fixed[] = {"--oversubscribe", "--bind-to", "none", "--mca", "pml", "ob1",
                                        "--mca", "btl", "self,vader"};
    char         self[4096], count[16];
    const char **line;
    int32_t      n_args = 0, n = 0;
    ssize_t      size = readlink("/proc/self/exe", self, sizeof self - 1);
    if (size <= 0)
        return phx_fail(err, PHX_E_IO, "/proc/self/exe: %s", strerror(errno));
    self[size] = '\0';
    while (args[n_args] != NULL)
        n_args++;
    line = phx_mem_calloc((size_t)n_args + 20, sizeof *line);
    line[n++] = find_mpirun();
    if (geteuid() == 0)
        line[n++] = "--allow-run-as-root";
    for (size_t i = 0; i < sizeof fixed / sizeof *fixed; i++)
        line[n++] = fixed[i];
    (void)snprintf(count, sizeof count, "%d", n_ranks);
    line[n++] = "-n";
    line[n++] = count;
    line[n++] = self;
    for (int32_t i = 0; i < n_args; i++)
        line[n++] = args[i];
    line[n++] = PHX_RANKS_MPI_FLAG;
    (void)fflush(NULL); /* buffered text would be printed by no one */
    (void)execvp(line[0], (char *const *)(uintptr_t)line); /* exec does not write to its arguments */
    int code = phx_fail(err, PHX_E_IO, "%s: %s; install Open MPI (openmpi-bin), or run the ranks as "
                        "threads with --comm local", line[0], strerror(errno));
    phx_mem_free(line);
    return code;
}
