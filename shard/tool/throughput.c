/* SPDX-License-Identifier: Apache-2.0
 * `phalanx-bench throughput`: tokens per second and latencies of requests under load. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/tool/random.h"
#include "shard/tool/throughput.h"
#include "shard/tool/tool.h"

enum { OPT_INPUT = 0x400, OPT_OUTPUT, OPT_SPREAD, OPT_CONCURRENCY, OPT_REQUESTS, OPT_ROWS, OPT_TEMPERATURE, OPT_RANDOM,
       OPT_LAYERS, OPT_JSON };
enum { LENGTH_MAX = 1 << 20, CONCURRENCY_MAX = 1024, SPREAD_MAX = 90 };

struct command {
    struct phx_throughput_request request;
    const char                   *preset;
    int32_t                       n_layers;
    bool                          is_json;
    struct phx_random            *random;
};

static const struct argp_option options[] = {
    {"input", OPT_INPUT, "N", 0, "tokens of a prompt (1024)", 0},
    {"output", OPT_OUTPUT, "N", 0, "tokens of an answer (1024)", 0},
    {"spread", OPT_SPREAD, "PERCENT", 0, "draw both lengths evenly from so much less to so much more (0)", 0},
    {"concurrency", OPT_CONCURRENCY, "N", 0, "requests under way at a time (16)", 0},
    {"requests", OPT_REQUESTS, "N", 0, "requests in all (twice the concurrency)", 0},
    {"rows", OPT_ROWS, "N", 0, "tokens of a step at most (512; 2048 on cuda)", 0},
    {"temperature", OPT_TEMPERATURE, "T", 0, "of sampling; 0 takes the likeliest token (1)", 0},
    {"random", OPT_RANDOM, "NAME", 0, "random weights of a published shape, on no disk (phalanx-model synth has the names)", 0},
    {"layers", OPT_LAYERS, "N", 0, "of random weights: another number of layers", 0},
    {"json", OPT_JSON, NULL, 0, "one JSON object", 0},
    {NULL, 0, NULL, 0, NULL, 0},
};

static void set_temperature(struct command *c, const char *arg, struct argp_state *state)
{
    char *end = NULL;

    c->request.temperature = strtof(arg, &end);
    if (end == arg || *end != '\0' || !(c->request.temperature >= 0 && c->request.temperature <= 2))
        argp_error(state, "--temperature must be a number from 0 to 2");
}

static error_t parse(int key, char *arg, struct argp_state *state)
{
    struct command                *c = state->input;
    struct phx_throughput_request *r = &c->request;

    switch (key) {
    case OPT_INPUT: r->input = (int32_t)phx_tool_number(state, "--input", arg, 1, LENGTH_MAX); break;
    case OPT_OUTPUT: r->output = (int32_t)phx_tool_number(state, "--output", arg, 1, LENGTH_MAX); break;
    case OPT_SPREAD: r->spread_percent = (int32_t)phx_tool_number(state, "--spread", arg, 0, SPREAD_MAX); break;
    case OPT_CONCURRENCY:
        r->concurrency = (int32_t)phx_tool_number(state, "--concurrency", arg, 1, CONCURRENCY_MAX);
        break;
    case OPT_REQUESTS:
        r->n_requests = (int32_t)phx_tool_number(state, "--requests", arg, 1, PHX_THROUGHPUT_REQUESTS_MAX);
        break;
    case OPT_ROWS: r->rows = (int32_t)phx_tool_number(state, "--rows", arg, 1, 1 << 14); break;
    case OPT_TEMPERATURE: set_temperature(c, arg, state); break;
    case OPT_RANDOM: c->preset = arg; break;
    case OPT_LAYERS: c->n_layers = (int32_t)phx_tool_number(state, "--layers", arg, 1, PHX_LAYERS_MAX); break;
    case OPT_JSON: c->is_json = true; break;
    case ARGP_KEY_INIT: state->child_inputs[0] = &r->ranks; break;
    case ARGP_KEY_ARG:
        if (r->ranks.dir != NULL)
            argp_error(state, "one DIR is expected");
        r->ranks.dir = arg;
        break;
    case ARGP_KEY_END:
        if ((r->ranks.dir == NULL) == (c->preset == NULL))
            argp_error(state, "DIR or --random NAME is needed");
        if (c->n_layers > 0 && c->preset == NULL)
            argp_error(state, "--layers needs --random");
        if (r->n_requests == 0)
            r->n_requests = 2 * r->concurrency;
        break;
    default: return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

static int open_random(void *ctx, struct phx_checkpoint **checkpoint, struct phx_model_config *config, struct phx_err *err)
{
    struct command *c = ctx;

    return phx_random_open(c->preset, c->n_layers, &c->random, checkpoint, config, err);
}

static void print_times_json(const char *name, const struct phx_throughput_times *t)
{
    printf(", \"%s\": {\"mean\": %.6g, \"p50\": %.6g, \"p90\": %.6g, \"p99\": %.6g, \"max\": %.6g}", name, t->mean, t->p50,
           t->p90, t->p99, t->max);
}

static void print_json(const struct command *c, const struct phx_throughput_result *result)
{
    const struct phx_throughput_request *r = &c->request;

    printf("{\"backend\": \"%s\", \"tp\": %d, \"pp\": %d, \"input\": %d, \"output\": %d, \"spread_percent\": %d, "
           "\"concurrency\": %d, \"requests\": %d, \"rows\": %d, \"temperature\": %g, ",
           r->ranks.backend, r->ranks.tp, r->ranks.pp, r->input, r->output, r->spread_percent, r->concurrency, r->n_requests,
           r->ranks.max_rows, (double)r->temperature);
    printf("\"load_seconds\": %.6g, \"seconds\": %.6g, \"input_tokens\": %llu, \"output_tokens\": %llu, "
           "\"output_tokens_per_s\": %.6g, \"requests_per_s\": %.6g, \"steps\": %llu, \"rows_per_step\": %.6g, "
           "\"preempted\": %llu",
           result->load_seconds, result->seconds, (unsigned long long)result->input_tokens,
           (unsigned long long)result->output_tokens, (double)result->output_tokens / result->seconds,
           r->n_requests / result->seconds, (unsigned long long)result->n_steps, result->rows_per_step,
           (unsigned long long)result->n_preempted);
    print_times_json("ttft_ms", &result->ttft);
    print_times_json("itl_ms", &result->itl);
    printf("}\n");
}

static void print_times_text(const char *name, const struct phx_throughput_times *t)
{
    printf("%s mean %.2f   p50 %.2f   p90 %.2f   p99 %.2f   max %.2f ms\n", name, t->mean, t->p50, t->p90, t->p99, t->max);
}

static void print_text(const struct command *c, const struct phx_throughput_result *result)
{
    const struct phx_throughput_request *r = &c->request;

    printf("requests  %d, %d at a time: %d tokens in, %d out, both +-%d %%\n", r->n_requests, r->concurrency, r->input, r->output,
           r->spread_percent);
    printf("output    %.2f tokens/s   %.3f requests/s   %.1f s\n", (double)result->output_tokens / result->seconds,
           r->n_requests / result->seconds, result->seconds);
    printf("steps     %llu   %.1f tokens each   %llu preempted\n", (unsigned long long)result->n_steps, result->rows_per_step,
           (unsigned long long)result->n_preempted);
    print_times_text("ttft     ", &result->ttft);
    print_times_text("itl      ", &result->itl);
}

static int become_mpi(const struct command *c, int argc, char **argv, struct phx_err *err)
{
    char **args = phx_mem_calloc((size_t)argc + 1, sizeof(*args));
    int    code;

    memcpy(args, argv, (size_t)argc * sizeof(*args));
    args[0] = (char *)(uintptr_t) "throughput"; /* exec does not write to its arguments */
    code = phx_ranks_exec_mpi(c->request.ranks.tp * c->request.ranks.pp, args, err);
    phx_mem_free(args);
    return code;
}

static int run(struct command *c, int argc, char **argv, struct phx_err *err)
{
    struct phx_ranks_options    *ranks = &c->request.ranks;
    struct phx_throughput_result result;
    struct phx_tool_progress     progress;
    bool                         is_head = false;
    int                          code;

    if (ranks->tp * ranks->pp > 1 && ranks->comm == PHX_RANKS_MPI && !ranks->is_in_mpi)
        return become_mpi(c, argc, argv, err);
    if (c->preset != NULL)
        ranks->source = (struct phx_ranks_source){open_random, c};
    phx_tool_progress_start(&progress, "weights");
    ranks->progress = phx_tool_progress_show;
    ranks->progress_ctx = &progress;
    code = phx_throughput_run(&c->request, &result, &is_head, err);
    if (code == 0 && is_head && c->is_json)
        print_json(c, &result);
    else if (code == 0 && is_head)
        print_text(c, &result);
    phx_random_close(c->random);
    return code;
}

int phx_throughput_command(int argc, char **argv)
{
    static const struct argp_child children[] = {{&phx_ranks_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
    static const struct argp       argp = {
              .options = options, .parser = parse, .args_doc = "DIR", .children = children,
              .doc = "Measures requests under load, from the scheduler on: tokens per second, time to the first token, time "
                     "between tokens."};
    struct command c = {.request = {.input = 1024, .output = 1024, .concurrency = 16, .temperature = 1}};
    struct phx_err err = {0};

    phx_ranks_defaults(&c.request.ranks);
    argp_parse(&argp, argc, argv, 0, NULL, &c);
    if (run(&c, argc, argv, &err) == 0)
        return PHX_TOOL_OK;
    fprintf(stderr, "phalanx-bench: %s\n", err.text);
    return PHX_TOOL_FAILED;
}
