/* SPDX-License-Identifier: Apache-2.0
 * What the op tests share: random numbers with a printed seed, every (isa, threads) backend of this machine,
 * and conversions for building sources. */
#ifndef PHX_TESTS_OPS_SUPPORT_H
#define PHX_TESTS_OPS_SUPPORT_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "kernels/backend.h"

/* How the backends of next_backend() compute; float32 until a test says otherwise. */
void set_compute(enum phx_compute compute);
enum phx_compute get_compute(void);
/* The next backend of the table (ref with 1 thread first), NULL at the end; the caller closes it. */
struct phx_backend *next_backend(int *cursor);
const char         *backend_label(const struct phx_backend *b);

void     seed_random(uint64_t seed);
uint32_t random_u32(void);
float    random_float(void); /* about normal, sometimes large */
void     fill_random(float *x, size_t n);
uint16_t to_bf16(float f);
float    from_bf16(uint16_t h);
/* zeroed test memory */
void *take(size_t n, size_t size);
void  drop(void *p);
void  expect_ok(struct phx_backend *b);

/* the test groups of the other files */
extern const struct CMUnitTest matmul_tests[], attention_tests[], batch_tests[], edge_tests[],
    i8_tests[], moe_tests[], rounded_attention_tests[];
extern const size_t            n_matmul_tests, n_attention_tests, n_batch_tests, n_edge_tests,
    n_i8_tests, n_moe_tests, n_rounded_attention_tests;

#endif
