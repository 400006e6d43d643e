/* SPDX-License-Identifier: Apache-2.0
 * For tests that run on every kind of backend: device memory is not host memory here.  What a rig hands out is freed
 * with it; memory that an op should fill is poisoned with NaN.  PHX_OPS_BACKENDS names the backends, "cpu cuda" when
 * it is not set; "cuda" is the module beside the program (build/tests has the emulated one). */
#ifndef PHX_TESTS_OPS_RIG_H
#define PHX_TESTS_OPS_RIG_H

#include "tests/ops/support.h"

struct phx_emu; /* tests/emu/control.h */

enum { RIG_MEMORY_MAX = 512 };

struct rig {
    struct phx_backend *b;
    bool                is_cuda;
    void               *memory[RIG_MEMORY_MAX];
    int                 n_memory;
};

/* Opens the next backend (*cursor from 0 on) with this arithmetic; false at the end.  close_rig() it. */
bool next_rig(struct rig *r, int *cursor, enum phx_compute compute);
void close_rig(struct rig *r);

/* "cuda" with bf16 arithmetic, of class A or B. */
struct rig rig_open_class(bool is_fast);
/* The emulated device, or NULL when that is not what "cuda" is here. */
struct phx_emu *rig_find_emulator(void);

/* Device memory with the bytes of host; NaN where a float would be. */
void  *rig_put(struct rig *r, const void *host, size_t size_bytes);
float *rig_floats(struct rig *r, const float *host, size_t n);
void  *rig_blank(struct rig *r, size_t size_bytes);
/* Frees what was handed out last, down to `n_memory` pieces (r->n_memory of before). */
void   rig_back(struct rig *r, int n_memory);
/* [rows, n] of random numbers, rows `gap` floats apart, from float `gap` on; made twice from the same seed it is the same. */
struct phx_tensor rig_rows(struct rig *r, uint64_t seed, int32_t rows, int32_t n, int32_t gap);
/* Equal numbers in two [T, n]. */
void   rig_expect_same(struct rig *r, struct phx_tensor a, struct phx_tensor b, const char *what);
/* Waits, expects that no op has failed, and reads. */
void   rig_get(struct rig *r, void *host, const void *device, size_t size_bytes);

/* |got - want| <= bound * scale for all; scale NULL: the largest |want| (1 at least). */
void expect_near(const char *what, const struct rig *r, const float *got, const double *want, const double *scale,
                 size_t n, double bound);

extern const struct CMUnitTest device_attention_tests[], device_draw_tests[], device_embed_tests[],
    device_ends_tests[], device_fused_tests[],    device_matmul_tests[], device_moe_tests[], device_top_tests[], device_vector_tests[], device_weight_tests[];
extern const size_t            n_device_attention_tests, n_device_draw_tests, n_device_embed_tests,
    n_device_ends_tests, n_device_fused_tests,    n_device_matmul_tests, n_device_moe_tests, n_device_top_tests, n_device_vector_tests, n_device_weight_tests;

#endif
