/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/: the definition of phx_draw, for host and device.  shard/sample draws by the same one on its own
 * (weights.h); a test holds them together.
 *
 * Logits are cut into blocks, a block's sum has PHX_DRAW_LANES lanes (logit i is added to lane i modulo that, lanes
 * are joined by a tree), blocks are added in order.  The share asked for is found among the blocks, then among the runs
 * of a block, whose sums are chains, then in the run.  No fused multiply-add anywhere. */
#ifndef PHX_KERNELS_DRAW_H
#define PHX_KERNELS_DRAW_H

#include <stdint.h>
#include <string.h>

#ifdef __CUDACC__
#define PHX_DRAW_INLINE static __host__ __device__ __forceinline__
#else
#define PHX_DRAW_INLINE static inline
#endif

enum { PHX_DRAW_BLOCK = 4096, PHX_DRAW_LANES = 8, PHX_DRAW_RUN = 64, PHX_DRAW_RUNS = PHX_DRAW_BLOCK / PHX_DRAW_RUN };

/* e^((logit - largest) scale), 0 below e^-700: x = k ln2 + r with |r| <= ln2 / 2, e^r by its Taylor polynomial of
 * degree 9. */
PHX_DRAW_INLINE double phx_draw_weight(float logit, double largest, double scale)
{
    const double magic = 6755399441055744.0; /* 1.5 * 2^52: the sum's lowest bits are the nearest integer */
    double       x = ((double)logit - largest) * scale, shifted, k, r, p;
    uint64_t     bits, shifted_bits;

    if (!(x > -700.0))
        return 0.0;
    shifted = x * 1.44269504088896340736 + magic;
    k = shifted - magic;
    r = (x - k * 6.93147180369123816490e-01) - k * 1.90821492927058770002e-10;
    p = r * (1.0 / 362880.0);
    p = (p + 1.0 / 40320.0) * r;
    p = (p + 1.0 / 5040.0) * r;
    p = (p + 1.0 / 720.0) * r;
    p = (p + 1.0 / 120.0) * r;
    p = (p + 1.0 / 24.0) * r;
    p = (p + 1.0 / 6.0) * r;
    p = (p + 0.5) * r;
    p = (p + 1.0) * r + 1.0;
    memcpy(&bits, &p, sizeof(bits));
    memcpy(&shifted_bits, &shifted, sizeof(shifted_bits));
    bits += shifted_bits << 52; /* k, to the exponent */
    memcpy(&p, &bits, sizeof(p));
    return p;
}

PHX_DRAW_INLINE double phx_draw_join(const double *lane)
{
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

/* Of n amounts the one in which their running sum passes *at, less what is before it; the last that is positive when
 * rounding kept the sum below, 0 when none is. */
PHX_DRAW_INLINE int32_t phx_draw_find(const double *amount, int32_t n, double *at)
{
    double  rest = *at, last_rest = 0;
    int32_t last = 0;

    for (int32_t i = 0; i < n; i++) {
        if (amount[i] <= 0)
            continue;
        last = i;
        last_rest = rest;
        if (rest < amount[i])
            break;
        rest -= amount[i];
    }
    *at = last_rest;
    return last;
}

#endif
