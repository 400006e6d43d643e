/* SPDX-License-Identifier: Apache-2.0
 * phalanx-bench: how fast the engine is here, beside what this machine could do at best. */
#include <argp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <sched.h>

#include "rpc/base/mem.h"
#include "shard/tool/bench_engine.h"
#include "shard/tool/ceiling.h"
#include "shard/tool/tool.h"

enum { OPT_PROMPT = 0x300, OPT_GEN, OPT_BATCH, OPT_CHUNK, OPT_REPS, OPT_JSON, OPT_CEILING };

struct command {
    struct phx_bench_request request;
    struct phx_ceiling       ceiling;
    bool                     has_ceiling; /* measured before mpirun was started */
    bool                     is_json;
};

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
    struct command           *c = state->input;
    struct phx_bench_request *r = &c->request;
    switch (key) {
    case OPT_PROMPT:
        r->prompt = (int32_t)phx_tool_number(state, "--prompt", arg, 1, 1 << 20);
        break;
    case OPT_GEN:
        r->gen = (int32_t)phx_tool_number(state, "--gen", arg, 1, 1 << 16);
        break;
    case OPT_BATCH:
        parse_batches(r, arg, state);
        break;
    case OPT_CHUNK:
        r->chunk = (int32_t)phx_tool_number(state, "--prefill-chunk", arg, 1, 1 << 14);
        break;
    case OPT_REPS:
        r->reps = (int32_t)phx_tool_number(state, "--reps", arg, 1, 15);
        break;
    case OPT_JSON:
        c->is_json = true;
        break;
    case OPT_CEILING:
        c->has_ceiling = sscanf(arg, "%lf,%lf,%lf", &c->ceiling.read_gb_s, &c->ceiling.fma_gflop_s,
                                &c->ceiling.amx_bf16_gflop_s) == 3;
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
        if (r->ranks.dir == NULL)
            argp_error(state, "DIR is needed");
        break;
    default:
        return ARGP_ERR_UNKNOWN;
    }
    return 0;
}

/* ---- report --------------------------------------------------------------------------------- */

struct totals {
    double   decode_gb_s, decode_fraction; /* batch of one */
    double   prefill_gflop_s, peak_gflop_s, load_seconds;
    uint64_t slice_bytes, weights_bytes, resident_bytes, peak_bytes;
    int32_t  n_ranks;
};

/* Decoding reads every weight once and the keys and values of the context; the batch of one tells. */
static struct totals total(const struct command *c, const struct phx_bench_result *result)
{
    const struct phx_bench_request *r = &c->request;
    struct totals t = {.n_ranks = r->ranks.tp * r->ranks.pp};
    double        token_bytes = 0, context_bytes = 0, macs = 0;
    for (int32_t i = 0; i < t.n_ranks; i++) {
        const struct phx_bench_rank *f = &result->ranks[i];
        bool is_own_process = i == 0 || r->ranks.comm == PHX_RANKS_MPI;
        token_bytes += f->token_bytes;
        context_bytes += f->context_bytes;
        macs += f->token_macs;
        t.weights_bytes += f->weights_bytes;
        t.slice_bytes += f->weights_bytes + f->kv_bytes + f->scratch_bytes;
        t.resident_bytes += is_own_process ? f->resident_bytes : 0;
        t.peak_bytes += is_own_process ? f->peak_bytes : 0;
        t.load_seconds = f->load_seconds > t.load_seconds ? f->load_seconds : t.load_seconds;
    }
    for (int32_t i = 0; i < r->n_batches; i++)
        if (r->batch[i] == 1)
            t.decode_gb_s = (token_bytes + context_bytes * result->context[i]) *
                            result->decode_tokens_per_s[i] / 1e9;
    t.decode_fraction = c->ceiling.read_gb_s > 0 ? t.decode_gb_s / c->ceiling.read_gb_s : 0;
    t.prefill_gflop_s = 2 * macs * result->prefill_tokens_per_s / 1e9;
    t.peak_gflop_s = c->ceiling.amx_bf16_gflop_s > 0 ? c->ceiling.amx_bf16_gflop_s
                                                     : c->ceiling.fma_gflop_s;
    return t;
}

static double decode_of_one(const struct phx_bench_request *r, const struct phx_bench_result *result)
{
    for (int32_t i = 0; i < r->n_batches; i++)
        if (r->batch[i] == 1)
            return result->decode_tokens_per_s[i];
    return 0;
}

static double fraction(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static void print_json(const struct command *c, const struct phx_bench_result *result)
{
    const struct phx_bench_request *r = &c->request;
    struct totals                   t = total(c, result);
    printf("{\"prefill_tokens_per_s\": %.3f, \"decode_tokens_per_s\": %.3f, \"batch\": [",
           result->prefill_tokens_per_s, decode_of_one(r, result));
    for (int32_t i = 0; i < r->n_batches; i++)
        printf("%s{\"batch\": %d, \"tokens_per_s\": %.3f, \"context\": %d}", i ? ", " : "", r->batch[i],
               result->decode_tokens_per_s[i], result->context[i]);
    printf("], \"ceiling_read_gb_s\": %.3f, \"ceiling_fma_gflop_s\": %.1f, "
           "\"ceiling_amx_bf16_gflop_s\": %.1f, \"decode_read_gb_s\": %.3f, "
           "\"decode_read_fraction\": %.4f, \"prefill_gflop_s\": %.1f, "
           "\"prefill_peak_fraction\": %.4f, \"prefill_fma_fraction\": %.4f, ",
           c->ceiling.read_gb_s, c->ceiling.fma_gflop_s, c->ceiling.amx_bf16_gflop_s, t.decode_gb_s,
           t.decode_fraction, t.prefill_gflop_s, fraction(t.prefill_gflop_s, t.peak_gflop_s),
           fraction(t.prefill_gflop_s, c->ceiling.fma_gflop_s));
    printf("\"load_seconds\": %.3f, \"load_gb_s\": %.3f, \"weights_bytes\": %llu, "
           "\"slice_bytes\": %llu, \"resident_bytes\": %llu, \"peak_resident_bytes\": %llu, "
           "\"tp\": %d, \"pp\": %d, \"threads_per_rank\": %d, \"backend\": \"%s\", \"isa\": \"%s\", "
           "\"prompt\": %d, \"gen\": %d}\n",
           t.load_seconds, fraction((double)t.weights_bytes / 1e9, t.load_seconds),
           (unsigned long long)t.weights_bytes, (unsigned long long)t.slice_bytes,
           (unsigned long long)t.resident_bytes, (unsigned long long)t.peak_bytes, r->ranks.tp,
           r->ranks.pp, result->n_threads, r->ranks.backend, result->isa, r->prompt, r->gen);
}

static void print_text(const struct command *c, const struct phx_bench_result *result)
{
    const struct phx_bench_request *r = &c->request;
    struct totals                   t = total(c, result);
    char weights[24], slice[24], resident[24], peak[24];
    phx_tool_format_bytes(t.weights_bytes, weights);
    phx_tool_format_bytes(t.slice_bytes, slice);
    phx_tool_format_bytes(t.resident_bytes, resident);
    phx_tool_format_bytes(t.peak_bytes, peak);
    printf("machine   read %.1f GB/s   fma %.0f GFLOP/s   amx bf16 %.0f GFLOP/s\n",
           c->ceiling.read_gb_s, c->ceiling.fma_gflop_s, c->ceiling.amx_bf16_gflop_s);
    printf("engine    tp %d x pp %d   %d threads per rank   %s %s\n", r->ranks.tp, r->ranks.pp,
           result->n_threads, r->ranks.backend, result->isa);
    printf("load      %s in %.2f s: %.2f GB/s\n", weights, t.load_seconds,
           fraction((double)t.weights_bytes / 1e9, t.load_seconds));
    printf("memory    weights, cache and scratch %s   resident %s   at most %s\n", slice, resident,
           peak);
    printf("prefill   %8.2f tokens/s   %.0f GFLOP/s: %.1f %% of peak, %.1f %% of fma\n",
           result->prefill_tokens_per_s, t.prefill_gflop_s,
           100 * fraction(t.prefill_gflop_s, t.peak_gflop_s),
           100 * fraction(t.prefill_gflop_s, c->ceiling.fma_gflop_s));
    for (int32_t i = 0; i < r->n_batches; i++) {
        printf("decode    %8.2f tokens/s   batch %d, context %d", result->decode_tokens_per_s[i],
               r->batch[i], result->context[i]);
        if (r->batch[i] == 1)
            printf("   %.1f GB/s: %.1f %% of read", t.decode_gb_s, 100 * t.decode_fraction);
        printf("\n");
    }
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

static int become_mpi(const struct command *c, int argc, char **argv, struct phx_err *err)
{
    char **args = phx_mem_calloc((size_t)argc + 2, sizeof *args);
    char  *ceiling = phx_mem_printf("--ceiling=%.6g,%.6g,%.6g", c->ceiling.read_gb_s,
                                    c->ceiling.fma_gflop_s, c->ceiling.amx_bf16_gflop_s);
    memcpy(args, argv, (size_t)argc * sizeof *args);
    args[0] = (char *)(uintptr_t) "engine"; /* exec does not write to its arguments */
    args[argc] = ceiling;
    int code = phx_ranks_exec_mpi(c->request.ranks.tp * c->request.ranks.pp, args, err);
    phx_mem_free(ceiling);
    phx_mem_free(args);
    return code;
}

static int run(struct command *c, int argc, char **argv, struct phx_err *err)
{
    struct phx_ranks_options *ranks = &c->request.ranks;
    struct phx_bench_result  *result;
    bool                      is_head = false;
    if (!c->has_ceiling)
        phx_ceiling_measure(all_threads(ranks), &c->ceiling);
    if (ranks->tp * ranks->pp > 1 && ranks->comm == PHX_RANKS_MPI && !ranks->is_in_mpi)
        return become_mpi(c, argc, argv, err);
    result = phx_mem_calloc(1, sizeof *result);
    int code = phx_bench_run(&c->request, result, &is_head, err);
    if (code == 0 && is_head) {
        if (c->is_json)
            print_json(c, result);
        else
            print_text(c, result);
    }
    phx_mem_free(result);
    return code;
}

static int bench_engine(int argc, char **argv)
{
    static const struct argp_option options[] = {
        {"prompt", OPT_PROMPT, "N", 0, "tokens of the prompt (512)", 0},
        {"gen", OPT_GEN, "N", 0, "tokens decoded after it (64)", 0},
        {"batch", OPT_BATCH, "LIST", 0, "sequences decoded together, such as 1,8,32 (1)", 0},
        {"prefill-chunk", OPT_CHUNK, "N", 0, "tokens of a prefill step (512)", 0},
        {"reps", OPT_REPS, "N", 0, "repetitions of the prefill; the median counts (3)", 0},
        {"json", OPT_JSON, NULL, 0, "one JSON object", 0},
        {"ceiling", OPT_CEILING, "R,F,A", OPTION_HIDDEN, NULL, 0},
        {NULL, 0, NULL, 0, NULL, 0},
    };
    static const struct argp_child children[] = {{&phx_ranks_argp, 0, NULL, 0}, {NULL, 0, NULL, 0}};
    static const struct argp       argp = {
        .options = options, .parser = parse, .args_doc = "DIR", .children = children,
        .doc = "Measures prefill and decode of a checkpoint, and what share of this machine's read "
               "bandwidth and arithmetic peak they reach."};
    struct command c = {.request = {.prompt = 512, .gen = 64, .chunk = 512, .reps = 3,
                                    .n_batches = 1, .batch = {1}}};
    struct phx_err err = {0};
    phx_ranks_defaults(&c.request.ranks);
    argp_parse(&argp, argc, argv, 0, NULL, &c);
    if (run(&c, argc, argv, &err) == 0)
        return PHX_TOOL_OK;
    fprintf(stderr, "phalanx-bench: %s\n", err.text);
    return PHX_TOOL_FAILED;
}

int main(int argc, char **argv)
{
    static const char usage[] = "Usage: phalanx-bench engine DIR [OPTION...]\n\n"
                                "  engine     prefill and decode beside this machine's ceilings\n\n"
                                "`phalanx-bench engine --help` tells more.\n";
    argp_err_exit_status = PHX_TOOL_USAGE;
    if (argc >= 2 && strcmp(argv[1], "engine") == 0) {
        char name[] = "phalanx-bench engine";
        argv[1] = name;
        return bench_engine(argc - 1, argv + 1);
    }
    if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
        printf("phalanx-bench %s\n", PHX_VERSION);
        return PHX_TOOL_OK;
    }
    bool is_help = argc >= 2 && strcmp(argv[1], "--help") == 0;
    fputs(usage, is_help ? stdout : stderr);
    return is_help ? PHX_TOOL_OK : PHX_TOOL_USAGE;
}
