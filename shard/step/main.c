/* SPDX-License-Identifier: Apache-2.0
 * phalanx-rank: one rank of a replica.  Rank 0 joins the daemon (or runs a script). */
#include <argp.h>
#include <mpi.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "rpc/base/log.h"
#include "shard/step/step.h"

enum {
    OPT_MODEL = 256, OPT_MODEL_KEY, OPT_TP, OPT_PP, OPT_BACKEND, OPT_ISA, OPT_COMPUTE, OPT_DTYPE, OPT_THREADS, OPT_KV_DTYPE, OPT_KV_BLOCKS,
    OPT_KV_MEMORY, OPT_BLOCK_TOKENS, OPT_MAX_SEQS, OPT_MAX_ROWS, OPT_MAX_CONTEXT, OPT_JOIN, OPT_TOKEN,
    OPT_CA, OPT_CERT, OPT_KEY, OPT_REPLICA, OPT_NO_PREFIX, OPT_SPECULATE, OPT_LOG_LEVEL, OPT_SHARE, OPT_SCRIPT,
    OPT_CLASS, OPT_DEVICES, OPT_TRANSPORT, OPT_INTERFACE, OPT_IB, OPT_PROBE,
    OPT_NO_GRAPHS,
    OPT_NO_OVERLAP
};

static const struct argp_option options[] = {
    {"model", OPT_MODEL, "DIR", 0, "checkpoint folder", 0},
    {"model-key", OPT_MODEL_KEY, "FILE", 0, "public key (PEM) its manifest must be signed with", 0},
    {"tp", OPT_TP, "N", 0, "tensor parallel ranks (default 1)", 0},
    {"pp", OPT_PP, "N", 0, "pipeline stages (default 1)", 0},
    {"backend", OPT_BACKEND, "NAME", 0, "cpu or cuda (default cpu)", 0},
    {"class", OPT_CLASS, "C", 0, "bitwise, or fast: cuda only, answers may depend on the load (default bitwise)", 0},
    {"no-graphs", OPT_NO_GRAPHS, NULL, 0, "cuda only: do not record steps as graphs", 0},
    {"no-overlap", OPT_NO_OVERLAP, NULL, 0, "cuda only: begin no launch before the one before has ended", 0},
    {"devices", OPT_DEVICES, "LIST", 0, "GPUs of this machine's ranks in turn, such as 0,1 (default: all visible)", 0},
    {"transport", OPT_TRANSPORT, "T", 0, "of activations between GPUs: auto, nccl, peer or host (default auto)", 0},
    {"interface", OPT_INTERFACE, "NAME", 0, "network interface of transport nccl", 0},
    {"ib-devices", OPT_IB, "LIST", 0, "InfiniBand devices of transport nccl, or none", 0},
    {"probe", OPT_PROBE, NULL, 0, "say whether the backend can be used here, and end", 0},
    {"isa", OPT_ISA, "NAME", 0, "auto, ref, avx2, avx512 or amx", 0},
    {"compute", OPT_COMPUTE, "T", 0, "f32 or bf16 (default f32)", 0},
    {"dtype", OPT_DTYPE, "T", 0, "auto, or int8: dense weights are quantised (default auto)", 0},
    {"threads", OPT_THREADS, "N", 0, "threads of this rank (default: the cores of its share of the machine)", 0},
    {"share", OPT_SHARE, "I/N", 0, "this replica is number I, from 0, of N on its machines (default 0/1)", 0},
    {"kv-dtype", OPT_KV_DTYPE, "T", 0, "f32, bf16, int8 or fp8 (default f32)", 0},
    {"kv-blocks", OPT_KV_BLOCKS, "N", 0, "blocks of the cache (default: from the memory)", 0},
    {"kv-memory", OPT_KV_MEMORY, "BYTES", 0, "bytes of the cache per rank", 0},
    {"block-tokens", OPT_BLOCK_TOKENS, "N", 0, "positions of a block: 16 or 32 (default 16)", 0},
    {"max-seqs", OPT_MAX_SEQS, "N", 0, "sequences running at once (default 16, cuda 256)", 0},
    {"max-rows", OPT_MAX_ROWS, "N", 0, "rows of a step (default 512, cuda 2048)", 0},
    {"max-context", OPT_MAX_CONTEXT, "N", 0, "tokens of a sequence (default: the model's, at most 16384)", 0},
    {"no-prefix-cache", OPT_NO_PREFIX, NULL, 0, "do not share blocks between sequences", 0},
    {"speculate", OPT_SPECULATE, "HOW", 0, "guess tokens: off or lookup (default off)", 0},
    {"join", OPT_JOIN, "HOST:PORT", 0, "the daemon", 0},
    {"join-token-file", OPT_TOKEN, "FILE", 0, "one-time token", 0},
    {"tls-ca", OPT_CA, "FILE", 0, "the cluster's CA", 0},
    {"tls-cert", OPT_CERT, "FILE", 0, "this rank's certificate", 0},
    {"tls-key", OPT_KEY, "FILE", 0, "its key", 0},
    {"replica", OPT_REPLICA, "ID", 0, "which replica this is", 0},
    {"log-level", OPT_LOG_LEVEL, "LEVEL", 0, "error, warn, info, debug or trace", 0},
    {"script", OPT_SCRIPT, "FILE", 0, "run requests from a file instead of joining a daemon", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static int64_t parse_number(struct argp_state *state, const char *name, const char *arg, int64_t min,
                            int64_t max)
{
    char     *end;
    long long value = strtoll(arg, &end, 10);

    if (end == arg || *end != '\0' || value < min || value > max)
        argp_error(state, "--%s: '%s' is not a number from %lld to %lld", name, arg, (long long)min,
                   (long long)max);
    return value;
}

static error_t parse_numbers(int key, char *arg, struct argp_state *state, struct phx_step_options *o)
{
    switch (key) {
    case OPT_TP: o->tp = (int32_t)parse_number(state, "tp", arg, 1, PHX_TP_MAX); return 0;
    case OPT_PP: o->pp = (int32_t)parse_number(state, "pp", arg, 1, PHX_PP_MAX); return 0;
    case OPT_THREADS: o->n_threads = (int32_t)parse_number(state, "threads", arg, 0, 1024); return 0;
    case OPT_KV_BLOCKS:
        o->kv_blocks = (int32_t)parse_number(state, "kv-blocks", arg, 1, 1 << 22);
        return 0;
    case OPT_KV_MEMORY:
        o->kv_memory_bytes = parse_number(state, "kv-memory", arg, 1, INT64_MAX);
        return 0;
    case OPT_BLOCK_TOKENS:
        o->block_tokens = (int32_t)parse_number(state, "block-tokens", arg, 16, 32);
        if (o->block_tokens != 16 && o->block_tokens != 32)
            argp_error(state, "--block-tokens: 16 or 32");
        return 0;
    case OPT_MAX_SEQS: o->max_seqs = (int32_t)parse_number(state, "max-seqs", arg, 1, 4096); return 0;
    case OPT_MAX_ROWS: o->max_rows = (int32_t)parse_number(state, "max-rows", arg, 1, 65536); return 0;
    case OPT_MAX_CONTEXT:
        o->max_context = (int32_t)parse_number(state, "max-context", arg, 0, 1 << 20);
        return 0;
    default: return ARGP_ERR_UNKNOWN;
    }
}

static error_t check_all(struct argp_state *state, const struct phx_step_options *o)
{
    if (o->is_probe)
        return 0;
    if (o->model_dir == NULL)
        argp_error(state, "--model DIR is needed");
    if ((o->join == NULL) == (o->script_file == NULL))
        argp_error(state, "give either --join HOST:PORT or --script FILE");
    if (o->join != NULL && (o->join_token_file == NULL || o->tls_ca_file == NULL ||
                            o->tls_cert_file == NULL || o->tls_key_file == NULL ||
                            o->replica_id == NULL))
        argp_error(state, "--join needs --join-token-file, --tls-ca, --tls-cert, --tls-key, --replica");
    return 0;
}

static void parse_share(struct argp_state *state, const char *arg, struct phx_step_options *o)
{
    int end = 0;

    if (sscanf(arg, "%4d/%4d%n", &o->share, &o->n_shares, &end) != 2 || arg[end] != '\0' ||
        o->n_shares < 1 || o->share < 0 || o->share >= o->n_shares)
        argp_error(state, "--share: '%s' is not I/N with I from 0 to N - 1", arg);
}

static error_t parse_option(int key, char *arg, struct argp_state *state)
{
    struct phx_step_options *o = state->input;
    enum phx_log_level       level;

    switch (key) {
    case OPT_MODEL: o->model_dir = arg; return 0;
    case OPT_MODEL_KEY: o->model_key = arg; return 0;
    case OPT_BACKEND: o->backend = arg; return 0;
    case OPT_ISA: o->isa = arg; return 0;
    case OPT_DEVICES: o->devices = arg; return 0;
    case OPT_TRANSPORT: o->transport = arg; return 0;
    case OPT_INTERFACE: o->interface = arg; return 0;
    case OPT_IB: o->ib_devices = arg; return 0;
    case OPT_PROBE: o->is_probe = true; return 0;
    case OPT_CLASS:
        if (strcmp(arg, "bitwise") != 0 && strcmp(arg, "fast") != 0)
            argp_error(state, "--class: bitwise or fast");
        o->is_fast = strcmp(arg, "fast") == 0;
        return 0;
    case OPT_JOIN: o->join = arg; return 0;
    case OPT_TOKEN: o->join_token_file = arg; return 0;
    case OPT_CA: o->tls_ca_file = arg; return 0;
    case OPT_CERT: o->tls_cert_file = arg; return 0;
    case OPT_KEY: o->tls_key_file = arg; return 0;
    case OPT_REPLICA: o->replica_id = arg; return 0;
    case OPT_SCRIPT: o->script_file = arg; return 0;
    case OPT_SHARE: parse_share(state, arg, o); return 0;
    case OPT_NO_GRAPHS: o->is_eager = true; return 0;
    case OPT_NO_OVERLAP: o->is_serial = true; return 0;
    case OPT_NO_PREFIX: o->has_prefix_cache = false; return 0;
    case OPT_SPECULATE:
        if (strcmp(arg, "off") != 0 && strcmp(arg, "lookup") != 0)
            argp_error(state, "--speculate: off or lookup");
        o->draft_rows = strcmp(arg, "lookup") == 0 ? PHX_STEP_DRAFT_ROWS : 0;
        return 0;
    case OPT_DTYPE:
        if (strcmp(arg, "auto") != 0 && strcmp(arg, "int8") != 0)
            argp_error(state, "--dtype: auto or int8");
        o->is_int8 = strcmp(arg, "int8") == 0;
        return 0;
    case OPT_COMPUTE:
        if (strcmp(arg, "f32") != 0 && strcmp(arg, "bf16") != 0)
            argp_error(state, "--compute: f32 or bf16");
        o->compute = strcmp(arg, "f32") == 0 ? PHX_COMPUTE_F32 : PHX_COMPUTE_BF16;
        return 0;
    case OPT_KV_DTYPE:
        if (!phx_kv_dtype_parse(arg, &o->kv_dtype))
            argp_error(state, "--kv-dtype: f32, bf16, int8 or fp8");
        return 0;
    case OPT_LOG_LEVEL:
        if (phx_log_parse_level(arg, &level) != 0)
            argp_error(state, "--log-level: error, warn, info, debug or trace");
        phx_log_set_level(level);
        return 0;
    case ARGP_KEY_ARG: argp_error(state, "unexpected argument '%s'", arg); return 0;
    case ARGP_KEY_END: return check_all(state, o);
    default: return parse_numbers(key, arg, state, o);
    }
}

/* SIGTERM ends a rank at once: the daemon stops a replica by a message, and mpirun by this signal. */
static void on_term(int signal_number)
{
    (void)signal_number;
    _exit(143);
}

/* Opens the backend and says what it found. */
static int probe(const struct phx_step_options *o)
{
    struct phx_device_facts facts = {0};
    struct phx_backend     *b = NULL;
    struct phx_err          err = {0};

    if (phx_step_open_backend(o, 0, 0, false, &b, &err) != 0) {
        fprintf(stderr, "phalanx-rank: %s\n", err.text);
        return 1;
    }
    phx_backend_facts(b, &facts);
    printf("%s %s %s\n", phx_backend_name(b), phx_backend_isa(b), facts.name);
    phx_backend_close(b);
    return 0;
}

static int run(const struct phx_step_options *o)
{
    struct phx_step s;
    struct phx_err  err = {0};
    int             rc = phx_step_open(o, &s, &err);

    if (rc == 0)
        rc = o->script_file != NULL ? phx_step_script(&s, &err) : phx_step_serve(&s, &err);
    if (rc != 0) {
        phx_log(PHX_LOG_ERROR, "rank.fail", "reason=%s", err.text);
        fprintf(stderr, "phalanx-rank: %s\n", err.text);
        fflush(NULL);
        _exit(1); /* no collective clean-up: peers may be gone, and mpirun ends the others */
    }
    phx_step_close(&s);
    if (o->tp * o->pp > 1)
        (void)MPI_Finalize(); /* the work is done either way */
    return 0;
}

int main(int argc, char **argv)
{
    static const struct argp argp = {options, parse_option, "", "One rank of a phalanx replica.", NULL,
                                     NULL, NULL};
    struct phx_step_options  o = {
         .model_key = "", .tp = 1, .pp = 1, .backend = "cpu", .kv_dtype = PHX_DTYPE_F32, .block_tokens = 16,
         .n_shares = 1, .has_prefix_cache = true,
    };

    argp_err_exit_status = 2;
    argp_program_version = "phalanx-rank " PHX_VERSION;
    phx_log_set_context("role", "rank");
    argp_parse(&argp, argc, argv, 0, NULL, &o);
    phx_step_set_batch(&o);
    (void)prctl(PR_SET_PDEATHSIG, SIGKILL); /* a rank never outlives what started it */
    (void)signal(SIGTERM, on_term);
    return o.is_probe ? probe(&o) : run(&o);
}
