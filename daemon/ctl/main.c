/* SPDX-License-Identifier: Apache-2.0
 * `phalanx`: the command line.  A table of subcommands. */
#include <argp.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "rpc/base/mem.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {"ask", phx_ctl_ask, "ask one question and print the answer as it comes"},
    {"audit", phx_ctl_audit, "verify the log or a receipt; explain, reconcile, replay an answer"},
    {"bench", phx_ctl_bench, "measure the engine"},
    {"chat", phx_ctl_chat, "chat in the terminal"},
    {"cluster", phx_ctl_cluster, "what runs where; drain or restart replicas"},
    {"content", phx_ctl_content, "read or shred what is kept; legal holds, expiry"},
    {"key", phx_ctl_key, "create, list, revoke API keys"},
    {"license", phx_ctl_license, "show, install, issue licences; count seats"},
    {"model", phx_ctl_model, "info, verify, sign, synth, tokenize, logits of a checkpoint"},
    {"tenant", phx_ctl_tenant, "what a tenant has signed and chosen: privacy, retention, replay"},
    {"up", phx_ctl_up, "serve a checkpoint folder: writes the config on first use, runs phalanxd"},
    {"user", phx_ctl_user, "issue client certificates for users and services"},
    {"clock", phx_ctl_clock, "show the clock; accept it after a jump (two people)"},
    {"usage", phx_ctl_usage, "what was used, from the ledger: reports, true-up, corrections"},
    {"budget", phx_ctl_budget, "token budgets of tenants, users and keys"},
};

enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static void print_help(FILE *out)
{
    fputs("usage: phalanx COMMAND [ARGUMENTS]   (each command takes --help)\n\n", out);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-9s %s\n", commands[i].name, commands[i].help);
}

int main(int argc, char **argv)
{
    argp_err_exit_status = PHX_EXIT_USAGE;
    argp_program_version = "phalanx " PHX_VERSION;
    if (argc < 2) {
        print_help(stderr);
        return PHX_EXIT_USAGE;
    }
    if (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0 ||
        strcmp(argv[1], "help") == 0) {
        print_help(stdout);
        return PHX_EXIT_OK;
    }
    if (strcmp(argv[1], "--version") == 0) {
        puts(argp_program_version);
        return PHX_EXIT_OK;
    }
    for (int i = 0; i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0) {
            char *name = phx_mem_printf("phalanx %s", argv[1]);
            int   rc;

            argv[1] = name;
            rc = commands[i].run(argc - 1, argv + 1);
            phx_mem_free(name);
            return rc;
        }
    fprintf(stderr, "phalanx: unknown command '%.40s'; see phalanx --help\n", argv[1]);
    return PHX_EXIT_USAGE;
}
