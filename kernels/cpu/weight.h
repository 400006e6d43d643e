/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cpu: packing, between the files that do it. */
#ifndef PHX_KERNELS_CPU_WEIGHT_H
#define PHX_KERNELS_CPU_WEIGHT_H

#include "kernels/cpu/i8.h"

struct pack_job {
    struct cpu_weight              *w;
    const struct phx_weight_source *source;
    const struct i8_isa            *i8;
    float                           f8[256]; /* what the bytes of an 8-bit source mean */
};

void phx_weight_open_job(struct pack_job *job, const struct isa *isa, const struct phx_weight_source *source);
/* n elements of each row from k on, as floats: out [n_lanes][n], rows out_stride apart. */
void phx_weight_floats(const struct pack_job *job, float *out, int64_t out_stride, const unsigned char *const *rows,
                       int32_t n_lanes, int32_t k, int32_t n);

/* weight_i8.c: rows row ... of the source (where they lie: rows) into lanes lane_first ... of a panel; one lane back as
 * k floats. */
void phx_weight_pack_i8(const struct pack_job *job, unsigned char *panel, const unsigned char *const *rows, int32_t row,
                        int32_t lane_first, int32_t n_lanes);
void phx_weight_read_i8(const struct cpu_weight *w, const unsigned char *panel, size_t lane, float *out);

#endif
