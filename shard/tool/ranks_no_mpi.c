/* SPDX-License-Identifier: Apache-2.0
 * In a build without Open MPI. */
#include "shard/tool/ranks.h"

static const char no_mpi[] = "this build has no Open MPI; run the ranks as threads with --comm local";

int phx_ranks_join_mpi(int32_t tp, int32_t pp, const struct phx_comm_limits *limits, struct phx_comm **out,
                       struct phx_err *err)
{
    (void)tp;
    (void)pp;
    (void)limits;
    *out = NULL;
    return phx_fail(err, PHX_E_UNSUPPORTED, "%s", no_mpi);
}

void phx_ranks_leave_mpi(int code)
{
    (void)code;
}

int phx_ranks_exec_mpi(int32_t n_ranks, char *const *args, struct phx_err *err)
{
    (void)n_ranks;
    (void)args;
    return phx_fail(err, PHX_E_UNSUPPORTED, "%s", no_mpi);
}
