/* SPDX-License-Identifier: Apache-2.0
 * What a device could do of the measured work at best: the bytes that a step must read over the best bandwidth that was
 * measured, or its arithmetic over the best product, whichever takes longer. */
#include <math.h>
#include <stdio.h>

#include "shard/tool/bench.h"

/* All ranks together, as one device would do it. */
struct work {
    double dense_bytes, expert_bytes, context_bytes;
    double token_macs, head_macs, attention_macs, window_share;
    double n_experts, top_k, window;
};

static struct work add_up(const struct phx_bench_command *c, const struct phx_bench_result *result)
{
    struct work w = {0};

    for (int32_t i = 0; i < c->request.ranks.tp * c->request.ranks.pp; i++) {
        const struct phx_bench_rank *r = &result->ranks[i];

        w.dense_bytes += r->dense_bytes;
        w.expert_bytes += r->expert_bytes;
        w.context_bytes += r->context_bytes;
        w.token_macs += r->token_macs;
        w.head_macs += r->head_macs;
        w.attention_macs += r->attention_macs;
        w.window_share += r->window_share / (c->request.ranks.tp * c->request.ranks.pp);
        w.n_experts = r->n_experts;
        w.top_k = r->top_k;
        w.window = r->window > w.window ? r->window : w.window;
    }
    return w;
}

/* Positions that a token at the end of such a context sees, of the average layer. */
static double positions_seen(const struct work *w, double context)
{
    return (1 - w->window_share) * context + w->window_share * fmin(context, w->window);
}

/* Of n_experts, when each row chooses top_k of them evenly. */
static double experts_touched(const struct work *w, double rows)
{
    return w->n_experts > 0 ? w->n_experts * (1 - pow(1 - w->top_k / w->n_experts, rows)) : 0;
}

static double bandwidth_of(const struct phx_device_ceiling *d)
{
    return fmax(d->copy_gb_s, d->read_gb_s) * 1e9;
}

static double seconds_at_best(const struct phx_device_ceiling *d, double bytes, double macs)
{
    double reading = bandwidth_of(d) > 0 ? bytes / bandwidth_of(d) : 0;
    double computing = d->matmul_gflop_s > 0 ? 2 * macs / (d->matmul_gflop_s * 1e9) : 0;

    return fmax(reading, computing);
}

double phx_bench_decode_ceiling(const struct phx_bench_command *c, const struct phx_bench_result *result, int32_t batch,
                                int32_t context)
{
    struct work w = add_up(c, result);
    double      seen = positions_seen(&w, context);
    double bytes = w.dense_bytes + w.expert_bytes * experts_touched(&w, batch) + batch * seen * w.context_bytes;
    double macs = batch * (w.token_macs + w.head_macs + w.attention_macs * seen);
    double best = seconds_at_best(&result->device, bytes, macs);

    return best > 0 ? batch / best : 0;
}

double phx_bench_prefill_ceiling(const struct phx_bench_command *c, const struct phx_bench_result *result)
{
    struct work w = add_up(c, result);
    double      n = c->request.prompt, steps = ceil(n / c->request.chunk), seen = 0, best;

    for (int32_t i = 1; i <= c->request.prompt; i++)
        seen += positions_seen(&w, i);
    best = seconds_at_best(&result->device, steps * (w.dense_bytes + w.expert_bytes * experts_touched(&w, c->request.chunk)),
                           n * w.token_macs + w.head_macs + w.attention_macs * seen);
    return best > 0 ? n / best : 0;
}

static void print_ops_json(const struct phx_bench_request *r, const struct phx_bench_result *result)
{
    const char *before = "";

    printf("\"ops\": [");
    for (int32_t i = 0; i < r->n_batches && r->gen > 0; i++)
        for (int32_t j = 0; j < result->ops[i].n; j++, before = ", ") {
            const struct phx_bench_op *op = &result->ops[i].ops[j];

            printf("%s{\"batch\": %d, \"op\": \"%s\", \"columns\": %d, \"calls\": %d, \"us\": %.6g, \"share\": %.4f}", before,
                   r->batch[i], op->name, op->columns, op->n, op->us, op->us / result->ops[i].us);
        }
    printf("], ");
}

static void print_timeline_json(const struct phx_bench_request *r, const struct phx_bench_result *result)
{
    const char *before = "";

    printf("\"timeline\": [");
    for (int32_t i = 0; i < r->n_batches && r->gen > 0; i++)
        for (int32_t j = 0; j < result->ops[i].n_calls; j++, before = ", ") {
            const struct phx_bench_op *op = &result->ops[i].calls[j];

            printf("%s{\"batch\": %d, \"op\": \"%s\", \"columns\": %d, \"us\": %.6g}", before, r->batch[i], op->name,
                   op->columns, op->us);
        }
    printf("], ");
}

static void print_ops_text(int32_t batch, const struct phx_bench_ops *ops)
{
    if (ops->us > 0)
        printf("ops       batch %d, one step without its graph: %.1f us\n", batch, ops->us);
    for (int32_t i = 0; i < ops->n; i++)
        printf("          %-14s %6d wide  %4d calls %10.1f us %6.1f %%\n", ops->ops[i].name, ops->ops[i].columns, ops->ops[i].n,
               ops->ops[i].us, 100 * ops->ops[i].us / ops->us);
}

void phx_bench_print_device_json(const struct phx_bench_command *c, const struct phx_bench_result *result)
{
    const struct phx_bench_request  *r = &c->request;
    const struct phx_device_ceiling *d = &result->device;
    struct work                      w = add_up(c, result);
    double                           best = r->prompt > 0 ? phx_bench_prefill_ceiling(c, result) : 0;

    if (r->device.calls == 0)
        return;
    printf("\"device\": {\"name\": \"%s\", \"copy_gb_s\": %.6g, \"read_gb_s\": %.6g, \"matmul_bf16_tflop_s\": %.6g, "
           "\"matmul_n\": %d, \"buffer_mib\": %zu, \"launch_us\": %.6g, \"launches\": \"%s\"}, ",
           result->device_name, d->copy_gb_s, d->read_gb_s, d->matmul_gflop_s / 1e3, r->device.matrix,
           r->device.buffer_bytes >> 20, d->launch_us, result->launches);
    printf("\"points\": [");
    if (r->prompt > 0)
        printf("{\"what\": \"prefill\", \"rows\": %d, \"context\": %d, \"tokens_per_s\": %.6g, \"ceiling_tokens_per_s\": %.6g, "
               "\"fraction\": %.6g, \"flop_per_byte\": %.6g, \"tflop_s\": %.6g}",
               r->chunk, r->prompt, result->prefill.median, best, best > 0 ? result->prefill.median / best : 0,
               2 * w.token_macs * r->chunk / (w.dense_bytes + w.expert_bytes * experts_touched(&w, r->chunk)),
               2 * w.token_macs * result->prefill.median / 1e12);
    for (int32_t i = 0; i < r->n_batches && r->gen > 0; i++) {
        double seen = positions_seen(&w, result->context[i]), B = r->batch[i], rate = result->decode[i].median;
        double macs = w.token_macs + w.head_macs + w.attention_macs * seen;
        double bytes = w.dense_bytes + w.expert_bytes * experts_touched(&w, B) + B * seen * w.context_bytes;

        best = phx_bench_decode_ceiling(c, result, r->batch[i], result->context[i]);
        printf("%s{\"what\": \"decode\", \"rows\": %d, \"context\": %d, \"tokens_per_s\": %.6g, \"ceiling_tokens_per_s\": %.6g, "
               "\"fraction\": %.6g, \"flop_per_byte\": %.6g, \"tflop_s\": %.6g}",
               i > 0 || r->prompt > 0 ? ", " : "", r->batch[i], result->context[i], rate, best, best > 0 ? rate / best : 0,
               2 * macs * B / bytes, 2 * macs * rate / 1e12);
    }
    printf("], ");
    print_ops_json(r, result);
    print_timeline_json(r, result);
}

void phx_bench_print_device_text(const struct phx_bench_command *c, const struct phx_bench_result *result)
{
    const struct phx_bench_request  *r = &c->request;
    const struct phx_device_ceiling *d = &result->device;
    double                           best;

    if (r->device.calls == 0)
        return;
    printf("device    %s   copy %.0f GB/s   read %.0f GB/s   bf16 %d^3 %.1f TFLOP/s   empty launch %.2f us   launches %s\n",
           result->device_name, d->copy_gb_s, d->read_gb_s, r->device.matrix, d->matmul_gflop_s / 1e3, d->launch_us,
           result->launches);
    for (int32_t i = r->prompt > 0 ? -1 : 0; i < (r->gen > 0 ? r->n_batches : 0); i++) {
        double rate = i < 0 ? result->prefill.median : result->decode[i].median;

        best = i < 0 ? phx_bench_prefill_ceiling(c, result)
                     : phx_bench_decode_ceiling(c, result, r->batch[i], result->context[i]);
        printf("ceiling   %8.2f tokens/s   %s %d: %.1f %% reached\n", best, i < 0 ? "prefill, chunk" : "decode, batch",
               i < 0 ? r->chunk : r->batch[i], best > 0 ? 100 * rate / best : 0.0);
    }
    for (int32_t i = 0; i < r->n_batches && r->gen > 0; i++)
        print_ops_text(r->batch[i], &result->ops[i]);
}
