/* SPDX-License-Identifier: Apache-2.0
 * `phalanx audit`: the verifier is a program of its own that stands beside this one, so that it can be copied
 * and run where no cluster is. */
#include "daemon/ctl/ctl.h"

int phx_ctl_audit(int argc, char **argv)
{
    static char name[] = "phalanx-audit";

    (void)argc; /* the whole vector is passed on */
    argv[0] = name;
    return phx_ctl_exec_beside(name, argv);
}
