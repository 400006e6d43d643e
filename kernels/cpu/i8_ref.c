/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cpu/i8.h"
#include "kernels/cpu/v16.h"

typedef struct {
    int32_t i[LANES];
} vi;
typedef struct {
    signed char w[LANES * 4];
} vi_weights;

INLINE vi vi_zero(void)
{
    return (vi){{0}};
}
INLINE vi_weights vi_load(const unsigned char *p)
{
    vi_weights w;

    memcpy(w.w, p, sizeof(w.w));
    return w;
}
INLINE vi vi_dot(vi acc, vi_weights w, int32_t four)
{
    signed char x[4];

    memcpy(x, &four, sizeof(x));
    for (int i = 0; i < LANES; i++)
        for (int j = 0; j < 4; j++)
            acc.i[i] += w.w[i * 4 + j] * x[j];
    return acc;
}
INLINE v16 vi_finish(vi acc, int32_t sum)
{
    v16 f;

    (void)sum; /* for instructions that have no signed product */
    for (int i = 0; i < LANES; i++)
        f.f[i] = (float)acc.i[i];
    return f;
}

#define I8_TABLE i8_ref
#include "kernels/cpu/body_i8.h"
