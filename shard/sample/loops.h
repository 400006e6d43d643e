/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/sample: the inner loops of weights.c, written once (loops_body.h) and compiled for several widths of
 * vectors.  The order of operations is the same in each, so are the bits. */
#ifndef PHX_SHARD_SAMPLE_LOOPS_H
#define PHX_SHARD_SAMPLE_LOOPS_H

#include <stdint.h>

/* The lanes of a sum: element i is added to lane i modulo this. */
enum { PHX_SAMPLE_LANES = 8 };

struct phx_sample_loops {
    const char *name;
    float (*largest)(const float *logits, int32_t n); /* as phx_largest */
    void (*weigh)(const float *logits, int32_t n, double largest, double scale, double *weight);
    double (*sum)(const double *weight, int32_t n);
};

extern const struct phx_sample_loops phx_sample_loops_plain;
extern const struct phx_sample_loops phx_sample_loops_avx2;
extern const struct phx_sample_loops phx_sample_loops_avx512;

/* Table i of those that this processor can run, the fastest first; NULL behind the last. */
const struct phx_sample_loops *phx_sample_loops_at(int i);

#endif
