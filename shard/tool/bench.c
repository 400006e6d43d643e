/* SPDX-License-Identifier: Apache-2.0
 * phalanx-bench: how fast the engine is here, beside what this machine could do at best. */
#include <argp.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/tool/bench.h"
#include "shard/tool/random.h"
#include "shard/tool/throughput.h"
#include "shard/tool/tool.h"

enum { OPT_PROMPT = 0x300, OPT_GEN, OPT_BATCH, OPT_CONTEXT, OPT_CHUNK, OPT_REPS, OPT_JSON, OPT_CEILING,
       OPT_NO_CEILING, OPT_RANDOM, OPT_LAYERS, OPT_DEVICE_CEILING };

/* ---- arguments ------------------------------------------------------------------------------ */

static void parse_batches(struct phx_bench_request *r, const char *text, struct argp_state *state)
{
    r->n_batches = 0;
    for (const char *at = text; at != NULL; at = strchr(at, ',') ? strchr(at, ',') + 1 : NULL) {
        char   item[16] = "";
        size_t n = strcspn(at, ",");
        if (r->n_batches == PHX_BENCH_BATCHES_MAX || n >= sizeof item)
            argp_error(state, "--batch takes at most %d numbers", PHX_BENCH_BATCHES_MAX);
        memcpy(item, at, n < sizeof item ? n : sizeof item - 1);
        r->batch[r->n_batches++] =
            (int32_t)phx_tool_number(state, "--batch", item, 1, PHX_BENCH_BATCH_MAX);
    }
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct phx_bench_command *c = state->input;
    struct phx_bench_request *r = &c->request;
    switch (key) {
    case OPT_PROMPT:
        r->prompt = (int32_t)phx_tool_number(state, "--prompt", arg, 0, 1 << 20);
        break;
    case OPT_GEN:
        r->gen = (int32_t)phx_tool_number(state, "--gen", arg, 0, 1 << 16);
        break;
    case OPT_BATCH:
        parse_batches(r, arg, state);
        break;
    case OPT_CONTEXT:
        r->context = (int32_t)phx_tool_number(state, "--context", arg, 0, 1 << 20);
        break;
    case OPT_CHUNK:
        r->chunk = (int32_t)phx_tool_number(state, "--prefill-chunk", arg, 1, 1 << 14);
        break;
    case OPT_REPS:
        r->reps = (int32_t)phx_tool_number(state, "--reps", arg, 1, PHX_BENCH_REPS_MAX);
        break;
    case OPT_JSON:
        c->is_json = true;
        break;
    case OPT_CEILING:
        c->has_ceiling = sscanf(arg, "%lf,%lf,%lf,%lf", &c->ceiling.read_gb_s,
                                &c->ceiling.fma_gflop_s, &c->ceiling.amx_bf16_gflop_s,
                                &c->ceiling.amx_int8_gop_s) == 4;
        break;
    case OPT_NO_CEILING:
        c->has_ceiling = true;
        r->device.calls = 0;
        break;
    case OPT_RANDOM:
        c->preset = arg;
        break;
    case OPT_LAYERS:
        c->n_layers = (int32_t)phx_tool_number(state, "--layers", arg, 1, PHX_LAYERS_MAX);
        break;
    case OPT_DEVICE_CEILING:
        if (sscanf(arg, "%zu,%d", &r->device.buffer_bytes, &r->device.matrix) != 2 || r->device.buffer_bytes < 1 ||
            r->device.buffer_bytes > 1 << 20 || r->device.matrix < 8 || r->device.matrix > 32768 || r->device.matrix % 8 != 0)
            argp_error(state, "--device-ceiling needs MIB,EDGE, the edge a multiple of 8");
        r->device.buffer_bytes <<= 20;
        break;
    case ARGP_KEY_INIT:
        state->child_inputs[0] = &r->ranks;
        break;
    case ARGP_KEY_ARG:
        if (r->ranks.dir != NULL)
            argp_error(state, "one DIR is expected");
        r->ranks.dir = arg;
        break;
    case ARGP_KEY_END:
        if ((r->ranks.dir == NULL) == (c->preset == NULL))
            argp_error(state, "DIR or --random NAME is needed");
        if (strcmp(r->ranks.backend, "cpu") == 0)
            r->device.calls = 0;
        if (c->is_first && r->prompt < 1)
            argp_error(state, "--prompt must be 1 or more");
        if (r->prompt < 1 && r->gen < 1)
            argp_error(state, "--prompt 0 and --gen 0 leave nothing to measure");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* ---- the command ---------------------------------------------------------------------------- */

/* All threads of all ranks, as the ranks will choose them. */
static int32_t all_threads(const struct phx_ranks_options *o)
{
    cpu_set_t set;
    int32_t   cores = sched_getaffinity(0, sizeof set, &set) == 0 ? CPU_COUNT(&set) : 1;
    int32_t   n_ranks = o->tp * o->pp;
    int32_t   each = o->n_threads > 0 ? o->n_threads : (cores / n_ranks > 1 ? cores / n_ranks : 1);
    int64_t   all = (int64_t)each * n_ranks;
    return all < cores ? (int32_t)all : cores;
}

static int become_mpi(const struct phx_bench_command *c, int argc, char **argv, struct phx_err *err)
{
    char **args = phx_mem_calloc((size_t)argc + 2, sizeof *args);
    char  *ceiling = phx_mem_printf("--ceiling=%.6g,%.6g,%.6g,%.6g", c->ceiling.read_gb_s,
                                    c->ceiling.fma_gflop_s, c->ceiling.amx_bf16_gflop_s,
                                    c->ceiling.amx_int8_gop_s);
    memcpy(args, argv, (size_t)argc * sizeof *args);
    /* exec does not write to its arguments */
    args[0] = (char *)(uintptr_t)(c->is_first ? "first" : "engine");
    args[argc] = ceiling;
    int code = phx_ranks_exec_mpi(c->request.ranks.tp * c->request.ranks.pp, args, err);
    phx_mem_free(ceiling);
    phx_mem_free(args);
    return code;
}

static void print_first(const struct phx_bench_command *c, const struct phx_bench_result *result)
{
    const char *format = c->is_json ? "{\"load_seconds\": %.3f, \"prompt\": %d}\n"
                                    : "loaded in %.3f s; a prompt of %d tokens has its first token\n";
    double seconds = 0;
    for (int32_t i = 0; i < c->request.ranks.tp * c->request.ranks.pp; i++)
        if (result->ranks[i].load_seconds > seconds)
            seconds = result->ranks[i].load_seconds;
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
    printf(format, seconds, c->request.prompt);
#pragma GCC diagnostic pop
}

static int open_random(void *ctx, struct phx_checkpoint **checkpoint, struct phx_model_config *config, struct phx_err *err)
{
    struct phx_bench_command *c = ctx;
    return phx_random_open(c->preset, c->n_layers, &c->random, checkpoint, config, err);
}

static int run(struct phx_bench_command *c, int argc, char **argv, struct phx_err *err)
{
    struct phx_ranks_options *ranks = &c->request.ranks;
    struct phx_bench_result  *result;
    struct phx_tool_progress  progress;
    bool                      is_head = false;
    /* a GPU is not to be measured against what the host's cores could do */
    if (!c->has_ceiling && strcmp(ranks->backend, "cpu") == 0)
        phx_ceiling_measure(all_threads(ranks), &c->ceiling);
    if (ranks->tp * ranks->pp > 1 && ranks->comm == PHX_RANKS_MPI && !ranks->is_in_mpi)
        return become_mpi(c, argc, argv, err);
    result = phx_mem_calloc(1, sizeof *result);
    if (c->preset != NULL)
        ranks->source = (struct phx_ranks_source){open_random, c};
    phx_tool_progress_start(&progress, "weights");
    ranks->progress = phx_tool_progress_show;
    ranks->progress_ctx = &progress;
    int code = c->is_first ? phx_bench_first(&c->request, result, &is_head, err)
                           : phx_bench_run(&c->request, result, &is_head, err);
    if (code == 0 && is_head) {
        if (c->is_first)
            print_first(c, result);
        else if (c->is_json)
            phx_bench_print_json(c, result);
        else
            phx_bench_print_text(c, result);
    }
    phx_random_close(c->random);
    phx_mem_free(result);
    return code;
}

static const struct argp_child children[] = {{&phx_ranks_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};

static const struct argp_option engine_options[] = {
    {"prompt", OPT_PROMPT, "N", 0, "tokens of the prompt; 0 = no prefill is measured (512)", 0},
    {"gen", OPT_GEN, "N", 0, "tokens decoded; 0 = no decoding is measured (64)", 0},
    {"batch", OPT_BATCH, "LIST", 0, "sequences decoded together, such as 1,8,32 (1)", 0},
    {"context", OPT_CONTEXT, "N", 0,
     "positions of every sequence before decoding (the prompt; at most 128 in a batch)", 0},
    {"prefill-chunk", OPT_CHUNK, "N", 0, "tokens of a prefill step (512)", 0},
    {"reps", OPT_REPS, "N", 0, "repetitions after a warm-up; the median counts (3)", 0},
    {"no-ceiling", OPT_NO_CEILING, NULL, 0, "leave out the machine's ceilings", 0},
    {"random", OPT_RANDOM, "NAME", 0, "random weights of a published shape, on no disk (phalanx-model synth has the names)", 0},
    {"layers", OPT_LAYERS, "N", 0, "of random weights: another number of layers", 0},
    {"device-ceiling", OPT_DEVICE_CEILING, "MIB,EDGE", 0, "of a GPU: buffers and square matrices that are measured (1024,8192)", 0},
    {"json", OPT_JSON, NULL, 0, "one JSON object", 0},
    {"ceiling", OPT_CEILING, "R,F,A,I", OPTION_HIDDEN, NULL, 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static const struct argp engine_argp = {
    .options = engine_options, .parser = parse, .args_doc = "DIR", .children = children,
    .doc = "Measures prefill and decode of a checkpoint, and what share of this machine's read "
           "bandwidth and arithmetic peak they reach."};

static const struct argp_option first_options[] = {
    {"prompt", OPT_PROMPT, "N", 0, "tokens of the prompt (16)", 0},
    {"prefill-chunk", OPT_CHUNK, "N", 0, "tokens of a prefill step (512)", 0},
    {"json", OPT_JSON, NULL, 0, "one JSON object", 0},
    {"ceiling", OPT_CEILING, "R,F,A,I", OPTION_HIDDEN, NULL, 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static const struct argp first_argp = {
    .options = first_options, .parser = parse, .args_doc = "DIR", .children = children,
    .doc = "Loads a checkpoint, produces one token, says so and ends: time it from outside to learn how "
           "long an engine takes from its start to its first token."};

static int bench_ranks(bool is_first, int argc, char **argv)
{
    struct phx_bench_command c = {
        .is_first = is_first, .has_ceiling = is_first,
        .request = {.prompt = is_first ? 16 : 512, .gen = is_first ? 0 : 64, .context = -1, .chunk = 512,
                    .reps = 3, .n_batches = 1, .batch = {1},
                    .device = {(size_t)1024 << 20, 8192, is_first ? 0 : 10, 1000}}};
    struct phx_err err = {0};
    phx_ranks_defaults(&c.request.ranks);
    argp_parse(is_first ? &first_argp : &engine_argp, argc, argv, 0, NULL, &c);
    if (run(&c, argc, argv, &err) == 0)
        return PHX_TOOL_OK;
    fprintf(stderr, "phalanx-bench: %s\n", err.text);
    return PHX_TOOL_FAILED;
}

/* ---- the machine alone ---------------------------------------------------------------------- */

static error_t parse_ceiling(int key, char *arg, struct argp_state *state)
{
    struct phx_bench_command *c = state->input;
    switch (key) {
    case 't':
        c->request.ranks.n_threads = (int32_t)phx_tool_number(state, "--threads", arg, 1, 256);
        return 0;
    case OPT_JSON:
        c->is_json = true;
        return 0;
    default:
        return ARGP_ERR_UNKNOWN;
    }
}

static int bench_ceiling(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"threads", 't', "N", 0, "threads (the allowed cores)", 0},
        {"json", OPT_JSON, NULL, 0, "one JSON object", 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    static const struct argp argp = {
        .options = options, .parser = parse_ceiling,
        .doc = "Measures what this machine can do at best: reading memory, float32 multiply-adds, AMX."};
    struct phx_bench_command c = {.request.ranks = {.tp = 1, .pp = 1}};
    argp_parse(&argp, argc, argv, 0, NULL, &c);
    int32_t n_threads = all_threads(&c.request.ranks);
    phx_ceiling_measure(n_threads, &c.ceiling);
    if (c.is_json)
        printf("{\"threads\": %d, \"read_gb_s\": %.3f, \"fma_gflop_s\": %.1f, "
               "\"amx_bf16_gflop_s\": %.1f, \"amx_int8_gop_s\": %.1f}\n",
               n_threads, c.ceiling.read_gb_s, c.ceiling.fma_gflop_s, c.ceiling.amx_bf16_gflop_s,
               c.ceiling.amx_int8_gop_s);
    else
        phx_bench_print_ceiling(&c.ceiling);
    return PHX_TOOL_OK;
}

int main(int argc, char **argv)
{
    static const char usage[] =
        "Usage: phalanx-bench COMMAND [OPTION...]\n\n"
        "  engine DIR       prefill and decode beside this machine's ceilings\n"
        "  throughput DIR   requests under load: tokens per second and latencies\n"
        "  first DIR        loads, produces one token and ends\n"
        "  ceiling          this machine's ceilings alone\n\n"
        "`phalanx-bench COMMAND --help` tells more.\n";
    argp_err_exit_status = PHX_TOOL_USAGE;
    const char *command = argc >= 2 ? argv[1] : "";
    char       *name = argc >= 2 ? phx_mem_printf("phalanx-bench %s", command) : NULL;
    int         status = -1;
    if (name != NULL)
        argv[1] = name; /* what argp calls the program */
    if (strcmp(command, "engine") == 0 || strcmp(command, "first") == 0)
        status = bench_ranks(strcmp(command, "first") == 0, argc - 1, argv + 1);
    else if (strcmp(command, "throughput") == 0)
        status = phx_throughput_command(argc - 1, argv + 1);
    else if (strcmp(command, "ceiling") == 0)
        status = bench_ceiling(argc - 1, argv + 1);
    phx_mem_free(name);
    if (status >= 0)
        return status;
    if (strcmp(command, "--version") == 0) {
        printf("phalanx-bench %s\n", PHX_VERSION);
        return PHX_TOOL_OK;
    }
    bool is_help = strcmp(command, "--help") == 0;
    fputs(usage, is_help ? stdout : stderr);
    return is_help ? PHX_TOOL_OK : PHX_TOOL_USAGE;
}
