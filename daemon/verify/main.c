/* SPDX-License-Identifier: Apache-2.0
 * `phalanx-audit`: a static program that verifies copies of an audit folder; `phalanx audit` runs it. */
#include <argp.h>
#include <ctype.h>
#include <sodium.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/verify/verify.h"

enum { OPT_TRUST = 256, OPT_FROM, OPT_WITNESS, OPT_INTENT, OPT_JSON, MANY = 1 << 30 };

static const struct command {
    const char *name, *args;
    enum phx_verdict (*run)(const struct phx_options *o);                /* NULL: once per argument */
    enum phx_verdict (*run_each)(const struct phx_options *o, const char *arg);
    int min_args, max_args;
} commands[] = {
    {"verify", "DIR...", NULL, phx_cmd_verify, 1, MANY},
    {"check", "RECEIPT.json...", NULL, phx_cmd_check, 1, MANY},
    {"prove", "DIR RECEIPT|INDEX", phx_cmd_prove, NULL, 2, 2},
    {"explain", "DIR RECEIPT", phx_cmd_explain, NULL, 2, 2},
    {"consistency", "CHECKPOINT_OLD CHECKPOINT_NEW [DIR]", phx_cmd_consistency, NULL, 2, 3},
    {"reconcile", "DIR USAGE.csv", phx_cmd_reconcile, NULL, 2, 2},
    {"shred-proof", "DIR SUBJECT", phx_cmd_shred_proof, NULL, 2, 2},
};
enum { N_COMMANDS = sizeof(commands) / sizeof(commands[0]) };

static const struct argp_option options[] = {
    {"trust", OPT_TRUST, "FILE", 0, "trust.json that you got with the log and kept yourself", 0},
    {"from", OPT_FROM, "FILE", 0, "verify: a checkpoint you kept; the log must contain it (repeatable)", 0},
    {"witness", OPT_WITNESS, "VKEY[:N]", 0,
     "verify: a witness's verifier key, or a file of them, of which N must have signed (default all)", 0},
    {"intent", OPT_INTENT, NULL, 0, "prove: the intent of a receipt, and not its result", 0},
    {"json", OPT_JSON, NULL, 0, "JSON on standard output", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

/* ---- files named in options ----------------------------------------------------------------------------------- */

/* An unreadable file of the caller is a usage error. */
static int read_file(const char *path, struct phx_buf *out, struct phx_err *err)
{
    if (phx_buf_read_file(out, path, PHX_V_FILE_MAX, err) != 0)
        return err->code = PHX_E_INVALID;
    return 0;
}

static int add_trust(struct phx_options *o, const char *path, struct phx_err *err)
{
    struct phx_buf data = {0};
    int            rc = o->has_trust ? phx_fail(err, PHX_E_INVALID, "--trust is there twice") : read_file(path, &data, err);

    if (rc == 0)
        rc = phx_trust_parse(&o->trust, "--trust", data.data, data.size, PHX_E_INVALID, err);
    o->has_trust = rc == 0;
    phx_buf_fini(&data);
    return rc;
}

static int add_kept(struct phx_options *o, const char *path, struct phx_err *err)
{
    struct phx_buf data = {0};
    int            rc = o->n_kept == PHX_V_KEPT_MAX
                            ? phx_fail(err, PHX_E_INVALID, "more than %d times --from", PHX_V_KEPT_MAX)
                            : read_file(path, &data, err);

    if (rc == 0)
        rc = phx_vcheckpoint_parse(&o->kept[o->n_kept], path, data.data, data.size, err);
    o->n_kept += rc == 0;
    phx_buf_fini(&data);
    return rc;
}

static int add_vkeys(struct phx_witness *w, char *text, struct phx_err *err)
{
    char *save = NULL;

    for (char *line = strtok_r(text, "\r\n", &save); line != NULL; line = strtok_r(NULL, "\r\n", &save)) {
        if (w->n == PHX_V_WITNESSES_MAX)
            return phx_fail(err, PHX_E_INVALID, "more than %d witness keys", PHX_V_WITNESSES_MAX);
        if (phx_note_vkey_parse(line, &w->verifiers[w->n++], err) != 0)
            return phx_fail(err, PHX_E_UNSUPPORTED, "%.80s: not the verifier key of an Ed25519 witness", line);
    }
    return w->n > 0 ? 0 : phx_fail(err, PHX_E_INVALID, "%s: no key in it", w->what);
}

static int add_witness(struct phx_options *o, char *text, struct phx_err *err)
{
    struct phx_witness *w = &o->witnesses[o->n_witnesses];
    struct phx_buf      data = {0};
    char               *colon = strrchr(text, ':');
    int                 rc = 0, least = -1;

    if (o->n_witnesses == PHX_V_WITNESSES_MAX)
        return phx_fail(err, PHX_E_INVALID, "more than %d times --witness", PHX_V_WITNESSES_MAX);
    if (colon != NULL && isdigit((unsigned char)colon[1]) && strspn(colon + 1, "0123456789") == strlen(colon + 1)) {
        least = atoi(colon + 1);
        *colon = '\0';
    }
    (void)snprintf(w->what, sizeof(w->what), "witness %.60s", text);
    if (strchr(text, '+') == NULL || strchr(strchr(text, '+') + 1, '+') == NULL) {
        rc = read_file(text, &data, err);
        text = data.data;
    }
    if (rc == 0)
        rc = add_vkeys(w, text, err);
    w->least = least < 0 ? w->n : least;
    o->n_witnesses += rc == 0;
    phx_buf_fini(&data);
    return rc;
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct phx_options *o = state->input;
    struct phx_err      err = {0};
    int                 rc = 0;

    switch (key) {
    case OPT_TRUST: rc = add_trust(o, arg, &err); break;
    case OPT_FROM: rc = add_kept(o, arg, &err); break;
    case OPT_WITNESS: rc = add_witness(o, arg, &err); break;
    case OPT_INTENT: o->is_intent = true; break;
    case OPT_JSON: o->is_json = true; break;
    case ARGP_KEY_ARGS:
        o->args = state->argv + state->next;
        o->n_args = state->argc - state->next;
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    if (rc != 0)
        exit(phx_cmd_fail(&err));
    return 0;
}

/* ---- commands ------------------------------------------------------------------------------------------------- */

static void print_help(FILE *out)
{
    fputs("usage: phalanx audit COMMAND [OPTIONS] ARGUMENTS   (each command takes --help)\n\n", out);
    for (int i = 0; i < N_COMMANDS; i++)
        fprintf(out, "  %-12s %s\n", commands[i].name, commands[i].args);
    fputs("\nExit codes: 0 ok, 1 tampered, 2 evidence incomplete, 3 usage error, 4 unknown key, version or field.\n",
          out);
}

static int run_command(const struct command *c, int argc, char **argv)
{
    const struct argp  argp = {options, parse_option, c->args,
                               "\vExit codes: 0 ok, 1 tampered, 2 evidence incomplete, 3 usage error, 4 unknown "
                               "key, version or field.",
                               NULL, NULL, NULL};
    struct phx_options o = {.command = c->name};
    enum phx_verdict   verdict = PHX_V_OK;

    argp_parse(&argp, argc, argv, 0, NULL, &o);
    if (o.n_args < c->min_args || o.n_args > c->max_args) {
        fprintf(stderr, "phalanx-audit: %s needs %s\n", c->name, c->args);
        verdict = PHX_V_USAGE;
    } else if (c->run != NULL) {
        verdict = c->run(&o);
    } else {
        for (int i = 0; i < o.n_args; i++)
            verdict = phx_verdict_worse(verdict, c->run_each(&o, o.args[i]));
    }
    for (int i = 0; i < o.n_kept; i++)
        phx_vcheckpoint_fini(&o.kept[i]);
    phx_trust_fini(&o.trust);
    return (int)verdict;
}

int main(int argc, char **argv)
{
    struct phx_err err = {0};

    argp_err_exit_status = PHX_V_USAGE;
    argp_program_version = "phalanx-audit " PHX_VERSION;
    if (phx_sign_init(&err) != 0)
        return phx_cmd_fail(&err);
    if (argc >= 2 && (strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "help") == 0)) {
        print_help(stdout);
        return PHX_V_OK;
    }
    if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
        puts(argp_program_version);
        return PHX_V_OK;
    }
    for (int i = 0; argc >= 2 && i < N_COMMANDS; i++)
        if (strcmp(argv[1], commands[i].name) == 0) {
            int rc = run_command(&commands[i], argc - 1, argv + 1);

            if (fflush(stdout) != 0) { /* a proof that was cut off is none */
                fputs("phalanx-audit: cannot write the output\n", stderr);
                return PHX_V_INCOMPLETE;
            }
            return rc;
        }
    print_help(stderr);
    return PHX_V_USAGE;
}
