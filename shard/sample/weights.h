/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/sample: arithmetic over a whole vocabulary.  Additions, multiplications and bit
 * operations in one fixed order only, so that every machine gets the same bits (libm may differ).
 *
 * Nothing is sorted: a set "the best ones until their amounts reach x" is found by its last member, whose
 * logit is looked up digit by digit (a radix selection), in time proportional to the vocabulary. */
#ifndef PHX_SHARD_SAMPLE_WEIGHTS_H
#define PHX_SHARD_SAMPLE_WEIGHTS_H

#include <stdint.h>

/* The largest logit (-INFINITY when there is no other); NaN when one is NaN or +INFINITY. */
float phx_largest(const float *logits, int32_t n);
/* Its id, the lowest on ties; -1 when one is NaN or +INFINITY, or all are -INFINITY. */
int32_t phx_find_largest(const float *logits, int32_t n);

/* weight[i] = e^((logits[i] - largest) / temperature), within 1e-11 of itself; 0 below e^-700.
 * largest is the maximum of logits, which may hold -INFINITY but neither NaN nor INFINITY. */
void phx_weigh(const float *logits, int32_t n, float largest, float temperature, double *weight);

/* Sum in one fixed order: blocks of 4096 in order, in a block 8 lanes (weight i in lane i modulo 8) and their tree. */
double phx_weights_sum(const double *weight, int32_t n);

/* ln x for x >= 1, within 1e-11. */
double phx_weights_log(double x);

/* Best first means: larger logit, lower id on ties.  list: scratch of n. */

/* Logits of all but the k best become -INFINITY. */
void phx_keep_top_k(float *logits, int32_t n, int32_t k, int32_t *list);
/* Weights of all but the shortest best-first run that holds the share top_p of their sum become 0. */
void phx_keep_top_p(const float *logits, double *weight, int32_t n, float top_p, int32_t *list);
/* Weights below min_p (of the largest, which is 1) become 0. */
void phx_keep_min_p(double *weight, int32_t n, float min_p);

/* The id at share u (0 <= u < 1) of the sum, counted in id order; never one of weight 0.  It is looked for among the
 * blocks, then among the runs of 64 of a block, then in the run.  Devices have the same definition (kernels/draw.h). */
int32_t phx_weights_pick(const double *weight, int32_t n, double u);
/* The same for weights of n ids (ascending), which are all that is not 0. */
double  phx_weights_sum_of(const int32_t *ids, const double *weight, int32_t n);
int32_t phx_weights_pick_of(const int32_t *ids, const double *weight, int32_t n, double u);
/* 53 random bits in [0, 1), keyed by the seed, counted by the position. */
double  phx_weights_share(uint64_t seed, int32_t position);
/* How far u is from the share of the sum that belongs to an id, as a share. */
double phx_weights_distance(const double *weight, int32_t n, int32_t id, double u);

#endif
