/* SPDX-License-Identifier: Apache-2.0
 * The inner loops over a vocabulary.  Before it is included: WIDTH, the doubles of a vector (a divisor of
 * PHX_SAMPLE_LANES), LOOPS, the name of the table, and LOOPS_NAME. */
#include <math.h>
#include <string.h>

#include "shard/sample/loops.h"

enum { LANES = PHX_SAMPLE_LANES, ROUND = 32 /* logits that the search for the largest takes together */ };

/* A weight below e^-700 is nothing; it also keeps the scaling below inside the range of doubles. */
#define FLOOR (-700.0)

/* The compiler's portable vectors; a cast between the first two keeps the bits. */
typedef double   wide __attribute__((vector_size(8 * WIDTH)));
typedef uint64_t wide_bits __attribute__((vector_size(8 * WIDTH)));
typedef float    narrow __attribute__((vector_size(4 * WIDTH)));

/* x = k ln2 + r with |r| <= ln2 / 2: e^x = 2^k e^r, e^r by its Taylor polynomial of degree 9. */
static inline __attribute__((always_inline)) void exp_wide(wide *at)
{
    const double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    const wide   zero = {0}, floor = zero + FLOOR;
    wide         x = *at;
    wide_bits    is_in = (wide_bits)(x > floor);
    wide         bounded = (wide)(((wide_bits)x & is_in) | ((wide_bits)floor & ~is_in));
    wide         shifted = bounded * 1.44269504088896340736 + 0x1.8p52, k = shifted - 0x1.8p52;
    wide         r = (bounded - k * ln2_high) - k * ln2_low, p = r * (1.0 / 362880.0);

    p = (p + 1.0 / 40320.0) * r;
    p = (p + 1.0 / 5040.0) * r;
    p = (p + 1.0 / 720.0) * r;
    p = (p + 1.0 / 120.0) * r;
    p = (p + 1.0 / 24.0) * r;
    p = (p + 1.0 / 6.0) * r;
    p = (p + 0.5) * r;
    p = (p + 1.0) * r + 1.0;
    /* k stands in the lowest bits of shifted: add it to the exponent */
    *at = (wide)(((wide_bits)p + ((wide_bits)shifted << 52)) & is_in);
}

/* The first `count` weights of a vector. */
static inline __attribute__((always_inline)) void weigh_some(const float *logits, size_t count, double largest,
                                                             double scale, double *weight)
{
    narrow some = {0};
    wide   x;

    memcpy(&some, logits, count * sizeof(float));
    x = (__builtin_convertvector(some, wide) - largest) * scale;
    exp_wide(&x);
    memcpy(weight, &x, count * sizeof(double));
}

static void weigh(const float *logits, int32_t n, double largest, double scale, double *weight)
{
    int32_t i = 0;

    for (; i + WIDTH <= n; i += WIDTH)
        weigh_some(logits + i, WIDTH, largest, scale, weight + i);
    if (i < n)
        weigh_some(logits + i, (size_t)(n - i), largest, scale, weight + i);
}

static double sum(const double *weight, int32_t n)
{
    wide    part[LANES / WIDTH] = {{0}};
    double  lane[LANES];
    int32_t i = 0;

    for (; i + LANES <= n; i += LANES)
        for (int32_t j = 0; j < LANES / WIDTH; j++) {
            wide x;

            memcpy(&x, weight + i + j * WIDTH, sizeof(x));
            part[j] += x;
        }
    memcpy(lane, part, sizeof(lane));
    for (int32_t j = 0; i < n; i++, j++)
        lane[j] += weight[i];
    return ((lane[0] + lane[4]) + (lane[2] + lane[6])) + ((lane[1] + lane[5]) + (lane[3] + lane[7]));
}

static float largest(const float *logits, int32_t n)
{
    float   lane[ROUND];
    int32_t odd[ROUND] = {0}, i = 0, is_odd = 0;

    for (int32_t j = 0; j < ROUND; j++)
        lane[j] = -INFINITY;
    for (; i + ROUND <= n; i += ROUND)
        for (int32_t j = 0; j < ROUND; j++) {
            odd[j] |= !(logits[i + j] < INFINITY); /* NaN or infinite */
            lane[j] = logits[i + j] > lane[j] ? logits[i + j] : lane[j];
        }
    for (; i < n; i++) {
        is_odd |= !(logits[i] < INFINITY);
        lane[0] = logits[i] > lane[0] ? logits[i] : lane[0];
    }
    for (int32_t j = 0; j < ROUND; j++) {
        is_odd |= odd[j];
        lane[0] = lane[j] > lane[0] ? lane[j] : lane[0];
    }
    return is_odd != 0 ? NAN : lane[0];
}

const struct phx_sample_loops LOOPS = {LOOPS_NAME, largest, weigh, sum};
