/* SPDX-License-Identifier: Apache-2.0
 * What the engine benchmark says, beside the machine's ceilings. */
#include <stdio.h>

#include "shard/tool/bench.h"
#include "shard/tool/tool.h"

struct totals {
    double   decode_gb_s, decode_fraction; /* batch of one */
    double   prefill_gflop_s, peak_gflop_s, load_seconds;
    double   token_bytes, context_bytes, token_macs; /* of all ranks; see struct phx_bench_rank */
    uint64_t slice_bytes, weights_bytes, kv_bytes, resident_bytes, peak_bytes, huge_bytes;
    int32_t  n_ranks;
};

/* Decoding reads every weight once and the keys and values of the context; the batch of one tells. */
static struct totals total(const struct phx_bench_command *c, const struct phx_bench_result *result)
{
    const struct phx_bench_request *r = &c->request;
    struct totals t = {.n_ranks = r->ranks.tp * r->ranks.pp};
    for (int32_t i = 0; i < t.n_ranks; i++) {
        const struct phx_bench_rank *f = &result->ranks[i];
        bool is_own_process = i == 0 || r->ranks.comm == PHX_RANKS_MPI;
        t.token_bytes += f->token_bytes;
        t.context_bytes += f->context_bytes;
        t.token_macs += f->token_macs;
        t.weights_bytes += f->weights_bytes;
        t.kv_bytes += f->kv_bytes;
        t.slice_bytes += f->weights_bytes + f->kv_bytes + f->scratch_bytes;
        t.resident_bytes += is_own_process ? f->resident_bytes : 0;
        t.huge_bytes += is_own_process ? f->huge_bytes : 0;
        t.peak_bytes += is_own_process ? f->peak_bytes : 0;
        t.load_seconds = f->load_seconds > t.load_seconds ? f->load_seconds : t.load_seconds;
    }
    for (int32_t i = 0; i < r->n_batches && r->gen > 0; i++)
        if (r->batch[i] == 1)
            t.decode_gb_s = (t.token_bytes + t.context_bytes * result->context[i]) *
                            result->decode[i].median / 1e9;
    t.decode_fraction = c->ceiling.read_gb_s > 0 ? t.decode_gb_s / c->ceiling.read_gb_s : 0;
    t.prefill_gflop_s = 2 * t.token_macs * result->prefill.median / 1e9;
    t.peak_gflop_s = c->ceiling.amx_bf16_gflop_s > 0 ? c->ceiling.amx_bf16_gflop_s
                                                     : c->ceiling.fma_gflop_s;
    return t;
}

static double decode_of_one(const struct phx_bench_request *r, const struct phx_bench_result *result)
{
    for (int32_t i = 0; i < r->n_batches && r->gen > 0; i++)
        if (r->batch[i] == 1)
            return result->decode[i].median;
    return 0;
}

static double fraction(double part, double whole)
{
    return whole > 0 ? part / whole : 0;
}

static void print_rates(const struct phx_bench_request *r, const struct phx_bench_result *result)
{
    printf("{\"prefill_tokens_per_s\": %.3f, \"prefill_min\": %.3f, \"prefill_max\": %.3f, "
           "\"decode_tokens_per_s\": %.3f, \"batch\": [",
           result->prefill.median, result->prefill.min, result->prefill.max,
           decode_of_one(r, result));
    for (int32_t i = 0; i < r->n_batches && r->gen > 0; i++)
        printf("%s{\"batch\": %d, \"tokens_per_s\": %.3f, \"min\": %.3f, \"max\": %.3f, "
               "\"context\": %d}", i ? ", " : "", r->batch[i], result->decode[i].median,
               result->decode[i].min, result->decode[i].max, result->context[i]);
    printf("], \"prompt\": %d, \"gen\": %d, \"reps\": %d, ", r->prompt, r->gen, r->reps);
}

static void print_shares(const struct phx_ceiling *c, const struct totals *t)
{
    printf("\"ceiling_read_gb_s\": %.3f, \"ceiling_fma_gflop_s\": %.1f, "
           "\"ceiling_amx_bf16_gflop_s\": %.1f, \"ceiling_amx_int8_gop_s\": %.1f, "
           "\"decode_read_gb_s\": %.3f, \"decode_read_fraction\": %.4f, "
           "\"prefill_gflop_s\": %.1f, \"prefill_peak_fraction\": %.4f, "
           "\"prefill_fma_fraction\": %.4f, ",
           c->read_gb_s, c->fma_gflop_s, c->amx_bf16_gflop_s, c->amx_int8_gop_s, t->decode_gb_s,
           t->decode_fraction, t->prefill_gflop_s, fraction(t->prefill_gflop_s, t->peak_gflop_s),
           fraction(t->prefill_gflop_s, c->fma_gflop_s));
}

void phx_bench_print_json(const struct phx_bench_command *c, const struct phx_bench_result *result)
{
    const struct phx_bench_request *r = &c->request;
    struct totals                   t = total(c, result);
    print_rates(r, result);
    print_shares(&c->ceiling, &t);
    phx_bench_print_device_json(c, result);
    printf("\"load_seconds\": %.3f, \"load_gb_s\": %.3f, \"weights_bytes\": %llu, "
           "\"kv_bytes\": %llu, \"slice_bytes\": %llu, \"resident_bytes\": %llu, "
           "\"huge_page_bytes\": %llu, \"peak_resident_bytes\": %llu, ",
           t.load_seconds, fraction((double)t.weights_bytes / 1e9, t.load_seconds),
           (unsigned long long)t.weights_bytes, (unsigned long long)t.kv_bytes,
           (unsigned long long)t.slice_bytes, (unsigned long long)t.resident_bytes,
           (unsigned long long)t.huge_bytes,
           (unsigned long long)t.peak_bytes);
    printf("\"token_bytes\": %.0f, \"context_bytes\": %.0f, \"token_macs\": %.0f, \"tp\": %d, "
           "\"pp\": %d, \"threads_per_rank\": %d, \"backend\": \"%s\", \"isa\": \"%s\"}\n",
           t.token_bytes, t.context_bytes, t.token_macs, r->ranks.tp, r->ranks.pp, result->n_threads,
           r->ranks.backend, result->isa);
}

void phx_bench_print_ceiling(const struct phx_ceiling *c)
{
    printf("machine   read %.1f GB/s   fma %.0f GFLOP/s   amx bf16 %.0f GFLOP/s   amx int8 %.0f GOP/s\n",
           c->read_gb_s, c->fma_gflop_s, c->amx_bf16_gflop_s, c->amx_int8_gop_s);
}

void phx_bench_print_text(const struct phx_bench_command *c, const struct phx_bench_result *result)
{
    const struct phx_bench_request *r = &c->request;
    struct totals                   t = total(c, result);
    char weights[24], slice[24], resident[24], peak[24];
    phx_tool_format_bytes(t.weights_bytes, weights);
    phx_tool_format_bytes(t.slice_bytes, slice);
    phx_tool_format_bytes(t.resident_bytes, resident);
    phx_tool_format_bytes(t.peak_bytes, peak);
    if (c->ceiling.read_gb_s > 0)
        phx_bench_print_ceiling(&c->ceiling);
    printf("engine    tp %d x pp %d   %d threads per rank   %s %s\n", r->ranks.tp, r->ranks.pp,
           result->n_threads, r->ranks.backend, result->isa);
    printf("load      %s in %.2f s: %.2f GB/s\n", weights, t.load_seconds,
           fraction((double)t.weights_bytes / 1e9, t.load_seconds));
    printf("memory    weights, cache and scratch %s   resident %s (%.0f %% in huge pages)   at most %s\n", slice, resident,
           t.resident_bytes > 0 ? 100.0 * (double)t.huge_bytes / (double)t.resident_bytes : 0.0,
           peak);
    if (r->prompt > 0)
        printf("prefill   %8.2f tokens/s   %.0f GFLOP/s: %.1f %% of peak, %.1f %% of fma\n",
               result->prefill.median, t.prefill_gflop_s,
               100 * fraction(t.prefill_gflop_s, t.peak_gflop_s),
               100 * fraction(t.prefill_gflop_s, c->ceiling.fma_gflop_s));
    for (int32_t i = 0; i < r->n_batches && r->gen > 0; i++) {
        printf("decode    %8.2f tokens/s   batch %d, context %d", result->decode[i].median,
               r->batch[i], result->context[i]);
        if (r->batch[i] == 1)
            printf("   %.1f GB/s: %.1f %% of read", t.decode_gb_s, 100 * t.decode_fraction);
        printf("\n");
    }
    phx_bench_print_device_text(c, result);
}
