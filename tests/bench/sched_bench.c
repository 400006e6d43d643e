/* SPDX-License-Identifier: Apache-2.0
 * What a step costs beside the model: the plan and its result, encoded and decoded, and the events, for sequences that decode.
 *
 *   sched_bench [sequences [draft rows [period of the answers [prefix cache 0|1]]]] */
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "allocations.h"
#include "step_mock.h"

enum { EARLY = 1000, LATE = 100000, WINDOW = 1000, MIN_CONTEXT = 1024, MAX_CONTEXT = 32768 };

static int compare(const void *a, const void *b)
{
    int64_t x = *(const int64_t *)a, y = *(const int64_t *)b;

    return (x > y) - (x < y);
}

static void print_part(const char *name, int64_t *ns, const char *end)
{
    qsort(ns, WINDOW, sizeof(*ns), compare);
    printf("\"%s\": {\"median\": %.1f, \"p99\": %.1f}%s", name, (double)ns[WINDOW / 2] / 1e3,
           (double)ns[WINDOW * 99 / 100] / 1e3, end);
}

static void measure(struct mock *m, int32_t n_before, const char *end)
{
    static int64_t ns[6][WINDOW];
    uint64_t       n_allocations = allocations_count(), n_told = m->n_told;

    for (int32_t i = 0; i < WINDOW; i++) {
        struct mock_times t;

        phx_assert(mock_step(m, &t));
        ns[0][i] = t.all;
        ns[1][i] = t.plan;
        ns[2][i] = t.encode;
        ns[3][i] = t.decode;
        ns[4][i] = t.result;
        ns[5][i] = t.complete;
    }
    n_allocations = allocations_count() - n_allocations;
    printf("    {\"steps_before\": %d, \"tokens_per_step\": %.1f, \"allocations_per_step\": %.3f, \"us\": {",
           n_before, (double)(m->n_told - n_told) / WINDOW, (double)n_allocations / WINDOW);
    print_part("step", ns[0], ", ");
    print_part("plan", ns[1], ", ");
    print_part("encode", ns[2], ", ");
    print_part("decode", ns[3], ", ");
    print_part("result", ns[4], ", ");
    print_part("complete", ns[5], "}}");
    printf("%s\n", end);
}

/* A number of the command line, or what holds without it. */
static int32_t number_of(int argc, char **argv, int at, int32_t otherwise, int32_t max)
{
    char *end;
    long  n;

    if (at >= argc)
        return otherwise;
    n = strtol(argv[at], &end, 10);
    if (*end != '\0' || n < 0 || n > max) {
        fprintf(stderr, "sched_bench: %s is not 0 to %d\n", argv[at], max);
        exit(2);
    }
    return (int32_t)n;
}

static void skip(struct mock *m, int32_t n)
{
    for (int32_t i = 0; i < n; i++)
        phx_assert(mock_step(m, NULL));
}

int main(int argc, char **argv)
{
    struct mock_options o = {
        .n_seqs = number_of(argc, argv, 1, 256, 1024),
        .min_context = MIN_CONTEXT,
        .max_context = MAX_CONTEXT,
        .draft_rows = number_of(argc, argv, 2, 0, 4096),
        .period = number_of(argc, argv, 3, 0, 1 << 20),
        .has_prefix_cache = number_of(argc, argv, 4, 1, 1) != 0,
    };
    struct mock m;

    if (o.n_seqs < 1) {
        fprintf(stderr, "sched_bench: at least one sequence\n");
        return 2;
    }
    /* guesses make each of them up to 9 tokens a step */
    o.max_new = (LATE + WINDOW + EARLY) * (o.draft_rows > o.n_seqs && o.period > 0 ? 9 : 1);
    mock_create(&m, &o);
    printf("{\"sequences\": %d, \"contexts\": [%d, %d], \"draft_rows\": %d, \"period\": %d,\n", o.n_seqs, MIN_CONTEXT,
           MAX_CONTEXT, o.draft_rows, o.period);
    printf(" \"has_prefix_cache\": %s, \"windows\": [\n", o.has_prefix_cache ? "true" : "false");
    skip(&m, EARLY);
    measure(&m, EARLY, ",");
    skip(&m, LATE - EARLY - WINDOW);
    measure(&m, LATE, "");
    printf(" ], \"checksum\": \"%016" PRIx64 "\"}\n", m.checksum);
    mock_destroy(&m);
    return 0;
}
