/* SPDX-License-Identifier: Apache-2.0
 * phalanx-model: looks at, checks and makes checkpoints. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/tool/tool.h"

static const struct phx_tool_command commands[] = {
    {"info", phx_tool_info, "shapes, bytes, and what each rank would hold"},
    {"verify", phx_tool_verify, "every check of a checkpoint, and the SHA-256 of its files"},
    {"sign", phx_tool_sign, "signs the digests of every file (OpenSSF model signing)"},
    {"quantize", phx_tool_quantize, "a copy of a checkpoint with int8 weights"},
    {"logits", phx_tool_logits, "the logits of a list of tokens, through the real ranks"},
    {"synth", phx_tool_synth, "a random-weight checkpoint in the published layout"},
};

enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void usage(FILE *f)
{
    fprintf(f, "Usage: phalanx-model COMMAND [ARGUMENT...]\n\n");
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(f, "  %-10s %s\n", commands[i].name, commands[i].help);
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
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0)
            return run(&commands[i], argc - 1, argv + 1);
    fprintf(stderr, "phalanx-model: unknown command \"%s\"\n", argv[1]);
    usage(stderr);
    return PHX_TOOL_USAGE;
}
