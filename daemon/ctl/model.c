/* SPDX-License-Identifier: Apache-2.0
 * `phalanx model` and `phalanx bench`: programs of the ranks' side that stand beside this one, save
 * tokenize and the load over HTTP, which are the daemon's. */
#include <string.h>

#include "daemon/ctl/ctl.h"

int phx_ctl_model(int argc, char **argv)
{
    static char name[] = "phalanx-model";

    if (argc >= 2 && strcmp(argv[1], "tokenize") == 0) {
        static char tokenize[] = "phalanx model tokenize";

        argv[1] = tokenize;
        return phx_ctl_tokenize(argc - 1, argv + 1);
    }
    argv[0] = name;
    return phx_ctl_exec_beside(name, argv);
}

int phx_ctl_bench(int argc, char **argv)
{
    static char name[] = "phalanx-bench";

    if (argc >= 2 && strcmp(argv[1], "http") == 0) {
        static char http[] = "phalanx bench http";

        argv[1] = http;
        return phx_ctl_bench_http(argc - 1, argv + 1);
    }
    argv[0] = name;
    return phx_ctl_exec_beside(name, argv);
}
