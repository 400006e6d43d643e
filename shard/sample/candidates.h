/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/sample: the tokens that may be drawn, with their weights. */
#ifndef PHX_SHARD_SAMPLE_CANDIDATES_H
#define PHX_SHARD_SAMPLE_CANDIDATES_H

#include <stdint.h>

struct candidate {
    int32_t id;
    float   logit;
    double  weight; /* e^(logit - largest), not normalised */
};

struct candidates {
    struct candidate *list;
    int32_t           n;
};

/* e^x for x <= 0 in double, from arithmetic alone so that every machine agrees; 0 below -700. */
double phx_sample_exp(double x);

/* Keeps the k likeliest, best first (the lower id on equal logits). */
void phx_candidates_top(struct candidates *c, int32_t k);
/* Weights relative to `largest`, at temperature t. */
void phx_candidates_weigh(struct candidates *c, float largest, float temperature);
/* Keeps the shortest best-first run whose share of the total weight reaches top_p. */
void phx_candidates_top_p(struct candidates *c, float top_p);
/* Drops those below min_p times the largest weight. */
void phx_candidates_min_p(struct candidates *c, float min_p);
/* The candidate at share u (0 <= u < 1) of the total weight, in list order. */
int32_t phx_candidates_pick(const struct candidates *c, double u);

#endif
