/* SPDX-License-Identifier: Apache-2.0
 * `phalanx`: the command line.  A table of subcommands. */
#include <argp.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "rpc/base/mem.h"
#include "rpc/base/utf8.h"

struct command {
    const char *name;
    int (*run)(int argc, char **argv);
    const char *help;
};

static const struct command commands[] = {
    {"ask", phx_ctl_ask, "ask one question and print the answer as it comes"},
    {"audit", phx_ctl_audit, "verify the log or a receipt; explain, reconcile, replay an answer"},
    {"bench", phx_ctl_bench, "measure the engine, or a server over HTTP"},
    {"chat", phx_ctl_chat, "chat in the terminal"},
    {"cluster", phx_ctl_cluster, "what runs where; drain or restart replicas"},
    {"content", phx_ctl_content, "read or shred what is kept; legal holds, expiry"},
    {"key", phx_ctl_key, "create, list, revoke API keys"},
    {"license", phx_ctl_license, "show, install, issue licences; count seats"},
    {"model", phx_ctl_model, "info, verify, sign, quantize, synth, tokenize, logits of a checkpoint"},
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

/* Names and reasons end up in the audit log and on the terminals of other people: what could steer a terminal
 * (C0 and C1 controls) or is no text at all is refused here, once for all commands. */
static bool is_text(const char *s, bool has_lines)
{
    size_t n = strlen(s);

    if (!phx_utf8_is_valid(s, n))
        return false;
    for (size_t i = 0; i < n; i++) {
        unsigned char c = (unsigned char)s[i];

        if ((c < 0x20 && !(has_lines && (c == '\n' || c == '\t'))) || c == 0x7f || (c == 0xc2 && (unsigned char)s[i + 1] < 0xa0))
            return false;
    }
    return true;
}

static bool check_texts(int argc, char **argv)
{
    bool is_prompt = strcmp(argv[1], "ask") == 0 || strcmp(argv[1], "chat") == 0 || strcmp(argv[1], "model") == 0;

    for (int i = 1; i < argc; i++)
        if (!is_text(argv[i], is_prompt)) {
            fprintf(stderr, "phalanx: argument %d is not UTF-8 or has control characters\n", i);
            return false;
        }
    return true;
}

int main(int argc, char **argv)
{
    argp_err_exit_status = PHX_EXIT_USAGE;
    argp_program_version = "phalanx " PHX_VERSION;
    if (argc < 2) {
        print_help(stderr);
        return PHX_EXIT_USAGE;
    }
    if (!check_texts(argc, argv))
        return PHX_EXIT_USAGE;
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
            if (fflush(stdout) != 0 || ferror(stdout)) { /* a report that is cut short must not look whole */
                fputs("phalanx: writing to standard output failed\n", stderr);
                rc = rc != PHX_EXIT_OK ? rc : PHX_EXIT_FAILED;
            }
            return rc;
        }
    fprintf(stderr, "phalanx: unknown command '%.40s'; see phalanx --help\n", argv[1]);
    return PHX_EXIT_USAGE;
}
