/* SPDX-License-Identifier: Apache-2.0
 * What passes between the model's steps: from the end of one to the start of the next, in the real head of a replica of
 * one rank, for sequences that decode.
 *
 *   gap_bench FOLDER [sequences [temperature [threads [context]]]]
 *
 * FOLDER: a checkpoint, of which the shape matters (phalanx-model synth).  Link it with
 * -Wl,--wrap=phx_model_step,--wrap=phx_sample. */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/clock.h"
#include "rpc/base/mem.h"
#include "shard/step/stage.h"

enum { WARM = 20, STEPS = 400, BLOCK_TOKENS = 16 };

int __real_phx_model_step(struct phx_model *m, const struct phx_batch *batch, struct phx_tensor logits,
                          struct phx_err *err);
int __wrap_phx_model_step(struct phx_model *m, const struct phx_batch *batch, struct phx_tensor logits,
                          struct phx_err *err);
int __real_phx_sample(struct phx_sampler *s, const struct phx_sample_input *in, struct phx_sample_output *out,
                      struct phx_err *err);
int __wrap_phx_sample(struct phx_sampler *s, const struct phx_sample_input *in, struct phx_sample_output *out,
                      struct phx_err *err);

static struct {
    int64_t ended_ns, sample_ns; /* of the last step; between it and the next */
    int64_t gap_ns, gap_sample_ns, model_ns;
} seen;

int __wrap_phx_model_step(struct phx_model *m, const struct phx_batch *batch, struct phx_tensor logits,
                          struct phx_err *err)
{
    int64_t began = phx_clock_mono_ns();
    int     rc;

    seen.gap_ns = began - seen.ended_ns;
    seen.gap_sample_ns = seen.sample_ns;
    seen.sample_ns = 0;
    rc = __real_phx_model_step(m, batch, logits, err);
    seen.ended_ns = phx_clock_mono_ns();
    seen.model_ns = seen.ended_ns - began;
    return rc;
}

int __wrap_phx_sample(struct phx_sampler *s, const struct phx_sample_input *in, struct phx_sample_output *out,
                      struct phx_err *err)
{
    int64_t began = phx_clock_mono_ns();
    int     rc = __real_phx_sample(s, in, out, err);

    seen.sample_ns += phx_clock_mono_ns() - began;
    return rc;
}

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void print_part(const char *name, int64_t *ns, const char *end)
{
    qsort(ns, STEPS, sizeof(*ns), compare);
    printf("\"%s\": {\"median\": %.1f, \"p99\": %.1f}%s", name, (double)ns[STEPS / 2] / 1e3,
           (double)ns[STEPS * 99 / 100] / 1e3, end);
}

static void submit(struct phx_head *h, int32_t i, int32_t context, double temperature)
{
    struct phx_submit r = {.seq_id = (uint64_t)i + 1, .n_tokens = context, .n_prompt = context,
                           .max_new = WARM + STEPS + 1000};
    int32_t          *tokens = phx_mem_calloc((size_t)context, sizeof(*tokens));

    for (int32_t at = 0; at < context; at++)
        tokens[at] = 3 + (at * 7 + i) % 200;
    r.tokens = tokens;
    phx_sampling_init(&r.sampling);
    r.sampling.temperature = (float)temperature;
    r.sampling.ignore_eos = true;
    r.sampling.n_logprobs = -1;
    phx_head_submit(h, &r);
    phx_mem_free(tokens);
}

static void run(struct phx_head *h, struct phx_link_step *out)
{
    struct phx_err err = {0};

    if (phx_head_run(h, out, &err) == 0)
        return;
    fprintf(stderr, "gap_bench: %s\n", err.text);
    exit(1);
}

static void measure(struct phx_head *h, int32_t n_seqs)
{
    static int64_t       ns[4][STEPS];
    struct phx_link_step out;

    do
        run(h, &out);
    while (out.stats.n_decode_tokens < n_seqs);
    for (int i = 0; i < WARM; i++)
        run(h, &out);
    for (int i = 0; i < STEPS; i++) {
        run(h, &out);
        ns[0][i] = seen.gap_ns;
        ns[1][i] = seen.gap_sample_ns;
        ns[2][i] = seen.gap_ns - seen.gap_sample_ns;
        ns[3][i] = seen.model_ns;
    }
    printf("\"us\": {");
    print_part("gap", ns[0], ", ");
    print_part("sampling", ns[1], ", ");
    print_part("rest", ns[2], ", ");
    print_part("model", ns[3], "}}\n");
}

int main(int argc, char **argv)
{
    int32_t n_seqs = argc > 2 ? atoi(argv[2]) : 64, context = argc > 5 ? atoi(argv[5]) : 100;
    double  temperature = argc > 3 ? atof(argv[3]) : 0;
    struct phx_step_options options = {
        .model_key = "", .model_dir = argc > 1 ? argv[1] : "", .tp = 1, .pp = 1, .backend = "cpu",
        .n_threads = argc > 4 ? atoi(argv[4]) : 1, .n_shares = 1, .kv_dtype = PHX_DTYPE_BF16,
        .block_tokens = BLOCK_TOKENS, .max_seqs = n_seqs, .max_rows = 512,
        .max_context = context + WARM + STEPS + 1000,
    };
    struct phx_step  step;
    struct phx_head *head;
    struct phx_err   err = {0};

    options.kv_blocks = n_seqs * (options.max_context / BLOCK_TOKENS + 2);
    if (argc < 2 || n_seqs < 1 || context < 1 || phx_step_open(&options, &step, &err) != 0 ||
        phx_step_load(&step, NULL, NULL, &err) != 0 || phx_head_create(&step, &head, &err) != 0) {
        fprintf(stderr, "gap_bench FOLDER [sequences [temperature [threads [context]]]]: %s\n", err.text);
        return 2;
    }
    for (int32_t i = 0; i < n_seqs; i++)
        submit(head, i, context, temperature);
    printf("{\"sequences\": %d, \"temperature\": %g, \"threads\": %d, \"context\": %d, ", n_seqs, temperature,
           options.n_threads, context);
    measure(head, n_seqs);
    phx_head_stop(head);
    phx_head_destroy(head);
    phx_step_close(&step);
    return 0;
}
