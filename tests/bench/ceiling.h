/* SPDX-License-Identifier: Apache-2.0
 * What this machine can do right now: the two numbers that every figure of the bench stands beside. */
#ifndef PHX_TESTS_BENCH_CEILING_H
#define PHX_TESTS_BENCH_CEILING_H

#include <stdint.h>

struct ceiling {
    double read_gb_s;   /* plain loads of a buffer that no cache holds */
    double fma_gflop_s; /* float32 fused multiply-adds in registers */
};

double now_s(void); /* of the wall, or of the thread when there is only one */
/* The best of a few short runs with n threads, thread i on the i-th allowed core. */
void ceiling_open(int32_t n_threads);
void ceiling_measure(struct ceiling *out);
void ceiling_close(void);

#endif
