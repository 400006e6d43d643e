/* SPDX-License-Identifier: Apache-2.0
 * The command line that everything running on ranks shares. */
#include <argp.h>
#include <string.h>

#include "shard/tool/ranks.h"
#include "shard/tool/tool.h"

enum { OPT_TP = 0x100, OPT_PP, OPT_COMM, OPT_BACKEND, OPT_ISA, OPT_COMPUTE, OPT_DTYPE, OPT_KV, OPT_IN_MPI, OPT_CLASS,
       OPT_TRANSPORT, OPT_NO_GRAPHS, OPT_NO_OVERLAP };

static const struct argp_option options[] = {
    {"tp", OPT_TP, "N", 0, "ranks that share every layer (1)", 0},
    {"pp", OPT_PP, "N", 0, "stages of layers (1)", 0},
    {"comm", OPT_COMM, "mpi|local", 0, "ranks as an MPI job, or as threads of this process (mpi)", 0},
    {"backend", OPT_BACKEND, "NAME", 0, "cpu or cuda (cpu)", 0},
    {"class", OPT_CLASS, "bitwise|fast", 0, "fast: cuda only, results may depend on the batch (bitwise)", 0},
    {"no-graphs", OPT_NO_GRAPHS, NULL, 0, "cuda only: do not record steps as graphs", 0},
    {"no-overlap", OPT_NO_OVERLAP, NULL, 0, "cuda only: begin no launch before the one before has ended", 0},
    {"transport", OPT_TRANSPORT, "auto|nccl|peer|host", 0, "of activations between GPUs (auto)", 0},
    {"isa", OPT_ISA, "NAME", 0, "ref, avx2, avx512, amx or auto", 0},
    {"compute", OPT_COMPUTE, "f32|bf16", 0, "activations in products with bf16 and MXFP4 weights", 0},
    {"threads", 't', "N", 0, "threads per rank (the allowed cores, shared out)", 0},
    {"dtype", OPT_DTYPE, "auto|int8", 0, "dense weights as they are, or quantised while loading", 0},
    {"kv-dtype", OPT_KV, "f32|bf16|int8|fp8", 0, "storage of keys and values (f32)", 0},
    {"in-mpi", OPT_IN_MPI, NULL, OPTION_HIDDEN, NULL, 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

void phx_ranks_defaults(struct phx_ranks_options *o)
{
    memset(o, 0, sizeof *o);
    o->tp = o->pp = 1;
    o->comm = PHX_RANKS_MPI;
    o->backend = "cpu";
    o->kv_dtype = PHX_DTYPE_F32;
    o->block_tokens = 16;
}

static void set_comm(struct phx_ranks_options *o, const char *text, struct argp_state *state)
{
    if (strcmp(text, "mpi") == 0)
        o->comm = PHX_RANKS_MPI;
    else if (strcmp(text, "local") == 0)
        o->comm = PHX_RANKS_LOCAL;
    else
        argp_error(state, "--comm must be mpi or local");
}

static void set_kv_dtype(struct phx_ranks_options *o, const char *text, struct argp_state *state)
{
    if (!phx_kv_dtype_parse(text, &o->kv_dtype))
        argp_error(state, "--kv-dtype must be f32, bf16, int8 or fp8");
}

static void set_compute(struct phx_ranks_options *o, const char *text, struct argp_state *state)
{
    if (strcmp(text, "f32") == 0)
        o->compute = PHX_COMPUTE_F32;
    else if (strcmp(text, "bf16") == 0)
        o->compute = PHX_COMPUTE_BF16;
    else
        argp_error(state, "--compute must be f32 or bf16");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct phx_ranks_options *o = state->input;
    switch (key) {
    case OPT_TP:
        o->tp = (int32_t)phx_tool_number(state, "--tp", arg, 1, PHX_TP_MAX);
        break;
    case OPT_PP:
        o->pp = (int32_t)phx_tool_number(state, "--pp", arg, 1, PHX_PP_MAX);
        break;
    case OPT_COMM:
        set_comm(o, arg, state);
        break;
    case OPT_BACKEND:
        o->backend = arg;
        break;
    case OPT_CLASS:
        if (strcmp(arg, "bitwise") != 0 && strcmp(arg, "fast") != 0)
            argp_error(state, "--class must be bitwise or fast");
        o->is_fast = strcmp(arg, "fast") == 0;
        break;
    case OPT_NO_GRAPHS:
        o->is_eager = true;
        break;
    case OPT_NO_OVERLAP:
        o->is_serial = true;
        break;
    case OPT_TRANSPORT:
        if (phx_transport_parse(arg, &o->transport) != 0)
            argp_error(state, "--transport must be auto, nccl, peer or host");
        break;
    case OPT_ISA:
        o->isa = arg;
        break;
    case 't':
        o->n_threads = (int32_t)phx_tool_number(state, "--threads", arg, 1, 1024);
        break;
    case OPT_COMPUTE:
        set_compute(o, arg, state);
        break;
    case OPT_DTYPE:
        if (strcmp(arg, "auto") != 0 && strcmp(arg, "int8") != 0)
            argp_error(state, "--dtype must be auto or int8");
        o->is_int8 = strcmp(arg, "int8") == 0;
        break;
    case OPT_KV:
        set_kv_dtype(o, arg, state);
        break;
    case OPT_IN_MPI:
        o->is_in_mpi = true;
        break;
    case ARGP_KEY_END:
        if (o->tp * o->pp > PHX_RANKS_MAX)
            argp_error(state, "--tp times --pp must be at most %d", PHX_RANKS_MAX);
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

const struct argp phx_ranks_argp = {.options = options, .parser = parse};
