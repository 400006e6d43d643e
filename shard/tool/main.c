/* SPDX-License-Identifier: Apache-2.0
 * phalanx-model: looks at, checks and makes checkpoints. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/tool/tool.h"

static void usage(FILE *f)
{
    fprintf(f, "Usage: phalanx-model COMMAND [ARGUMENT...]\n\n");
    for (int i = 0; i < phx_tool_n_commands; i++)
        fprintf(f, "  %-10s %s\n", phx_tool_commands[i].name, phx_tool_commands[i].help);
    fprintf(f, "\n`phalanx-model COMMAND --help` tells more.\n");
}

static int run(const struct phx_tool_command *command, int argc, char **argv)
{
    char *name = phx_mem_printf("phalanx-model %s", command->name);
    int   code;

    argp_err_exit_status = PHX_TOOL_USAGE;
    argv[0] = name;
    code = command->run(argc, argv);
    phx_mem_free(name);
    return code;
}

int main(int argc, char **argv)
{
    if (argc < 2) {
        usage(stderr);
        return PHX_TOOL_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-?") == 0) {
        usage(stdout);
        return PHX_TOOL_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        printf("phalanx-model %s\n", PHX_VERSION);
        return PHX_TOOL_OK;
    }
    for (int i = 0; i < phx_tool_n_commands; i++)
        if (strcmp(argv[1], phx_tool_commands[i].name) == 0)
            return run(&phx_tool_commands[i], argc - 1, argv + 1);
    fprintf(stderr, "phalanx-model: unknown command \"%s\"\n", argv[1]);
    usage(stderr);
    return PHX_TOOL_USAGE;
}
