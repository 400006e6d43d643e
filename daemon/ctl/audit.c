/* SPDX-License-Identifier: Apache-2.0
 * `phalanx audit`: the verifier is a program of its own that stands beside this one, so that it can be copied
 * and run where no cluster is; replay alone asks the running cluster. */
#include <argp.h>
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "daemon/ctl/ctl.h"
#include "daemon/ctl/operator.h"
#include "rpc/base/json.h"

enum { OPT_JSON = 256, OPT_TIMEOUT, OPT_AS, TIMEOUT_DEFAULT_S = 600 };

struct arguments {
    const char *data_dir, *grpc, *receipt, *as_class;
    int         timeout_s;
    bool        is_json;
};

static const struct argp_option options[] = {
    {"data", 'd', "DIR", 0, "data folder of the cluster (certificates, address)", 0},
    {"grpc", 'g', "HOST:PORT", 0, "gRPC address (default: from the data folder)", 0},
    {"as", OPT_AS, "CLASS", 0, "A: generate again; B: one pass over the answer (default: as recorded)", 0},
    {"json", OPT_JSON, NULL, 0, "one JSON object", 0},
    {"timeout", OPT_TIMEOUT, "S", 0, "seconds (default 600)", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct arguments *a = state->input;

    switch (key) {
    case 'd': a->data_dir = arg; return 0;
    case 'g': a->grpc = arg; return 0;
    case OPT_AS:
        if (strcmp(arg, "A") != 0 && strcmp(arg, "B") != 0)
            argp_error(state, "--as: A or B");
        a->as_class = arg;
        return 0;
    case OPT_JSON: a->is_json = true; return 0;
    case OPT_TIMEOUT:
        if (sscanf(arg, "%d", &a->timeout_s) != 1 || a->timeout_s < 1 || a->timeout_s > 86400)
            argp_error(state, "--timeout: 1 to 86400 seconds");
        return 0;
    case ARGP_KEY_ARG:
        if (a->receipt != NULL)
            argp_error(state, "one RECEIPT is expected");
        a->receipt = arg;
        return 0;
    case ARGP_KEY_END:
        if (a->receipt == NULL || a->data_dir == NULL)
            argp_error(state, "a RECEIPT and --data DIR are needed");
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static void print_verdict(const struct phx_rpc_replay_answer *v, bool is_json)
{
    if (is_json) {
        json_t *out = json_pack("{s:s,s:s,s:b,s:I,s:I,s:I,s:s}", "receipt", v->receipt_id, "class",
                                v->replay_class, "is_equal", (int)v->is_equal, "tokens",
                                (json_int_t)v->n_tokens, "checked", (json_int_t)v->n_checked,
                                "first_difference", (json_int_t)v->first_difference, "tolerance",
                                v->tolerance);

        (void)json_dumpf(out, stdout, JSON_COMPACT); /* a closed pipe ends the process anyway */
        fputs("\n", stdout);
        json_decref(out);
        return;
    }
    printf("%s: class %s, %" PRId64 " of %" PRId64 " tokens agree: %s\n", v->receipt_id, v->replay_class,
           v->n_checked, v->n_tokens, v->is_equal ? "the cluster gives this answer" : "NOT THE SAME ANSWER");
    if (v->first_difference >= 0)
        printf("first difference at token %" PRId64 "\n", v->first_difference);
    printf("tolerance: %s\n", v->tolerance);
}

static int replay(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "RECEIPT",
                                     "Runs a recorded answer again on the running cluster, or reads it back in one pass, and compares its tokens. "
                                     "Exit 0 when they agree, 1 when they do not or it cannot be run.",
                                     NULL, NULL, NULL};
    struct arguments       a = {.timeout_s = TIMEOUT_DEFAULT_S, .as_class = ""};
    struct phx_rpc_request request = {.method = PHX_RPC_AUDIT_REPLAY};
    struct phx_rpc_answer  answer;
    struct phx_rpc_client *client = NULL;
    struct phx_arena      *arena = phx_arena_create();
    struct phx_err         err = {0};
    int                    rc;

    argp_parse(&argp, argc, argv, 0, NULL, &a);
    request.u.audit_replay.receipt_id = a.receipt;
    request.u.audit_replay.as_class = a.as_class;
    rc = phx_ctl_operator_open(a.data_dir, a.grpc, &client, &err);
    if (rc == 0)
        rc = phx_rpc_ask(client, a.timeout_s * 1000, &request, arena, &answer, &err);
    if (rc == 0) {
        print_verdict(&answer.u.audit_replay, a.is_json);
        rc = answer.u.audit_replay.is_equal ? PHX_EXIT_OK : PHX_EXIT_FAILED;
    } else
        rc = phx_ctl_fail(&err);
    phx_rpc_client_close(client);
    phx_arena_destroy(arena);
    return rc;
}

int phx_ctl_audit(int argc, char **argv)
{
    static char name[] = "phalanx-audit", title[] = "phalanx audit replay";

    if (argc >= 2 && strcmp(argv[1], "replay") == 0) {
        argv[1] = title;
        return replay(argc - 1, argv + 1);
    }
    argv[0] = name;
    return phx_ctl_exec_beside(name, argv);
}
