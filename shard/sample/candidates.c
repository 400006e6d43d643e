/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/sample/candidates.h"

#include <math.h>
#include <stdbool.h>

double phx_sample_exp(double x)
{
    /* x = n ln2 + r, |r| <= ln2 / 2; a Taylor polynomial of degree 13 is exact to the last bit or so */
    const double ln2_high = 6.93147180369123816490e-01, ln2_low = 1.90821492927058770002e-10;
    double       n, r, p = 1.0 / 6227020800.0;
    double       factorial[] = {479001600.0, 39916800.0, 3628800.0, 362880.0, 40320.0, 5040.0,
                                720.0,       120.0,      24.0,      6.0,      2.0,     1.0, 1.0};

    if (!(x > -700.0))
        return 0.0;
    n = floor(x * 1.44269504088896340736 + 0.5);
    r = fma(n, -ln2_low, fma(n, -ln2_high, x));
    for (int i = 0; i < 13; i++)
        p = fma(p, r, 1.0 / factorial[i]);
    return ldexp(p, (int)n);
}

static bool is_better(const struct candidate *a, const struct candidate *b)
{
    return a->logit != b->logit ? a->logit > b->logit : a->id < b->id;
}

static void swap(struct candidate *a, struct candidate *b)
{
    struct candidate t = *a;

    *a = *b;
    *b = t;
}

/* A heap with the best on top (is_max) or the worst on top. */
static void sift_down(struct candidate *h, int32_t n, int32_t i, bool is_max)
{
    while (2 * i + 1 < n) {
        int32_t child = 2 * i + 1;

        if (child + 1 < n && is_better(&h[child + 1], &h[child]) == is_max)
            child++;
        if (is_better(&h[child], &h[i]) != is_max)
            return;
        swap(&h[child], &h[i]);
        i = child;
    }
}

static void make_heap(struct candidate *h, int32_t n, bool is_max)
{
    for (int32_t i = n / 2 - 1; i >= 0; i--)
        sift_down(h, n, i, is_max);
}

/* A heap of the k best so far, the worst of them on top; then a heap sort. */
void phx_candidates_top(struct candidates *c, int32_t k)
{
    if (k < c->n) {
        make_heap(c->list, k, false);
        for (int32_t i = k; i < c->n; i++)
            if (is_better(&c->list[i], &c->list[0])) {
                c->list[0] = c->list[i];
                sift_down(c->list, k, 0, false);
            }
        c->n = k;
    } else
        make_heap(c->list, c->n, false);
    for (int32_t n = c->n - 1; n > 0; n--) {
        swap(&c->list[0], &c->list[n]);
        sift_down(c->list, n, 0, false);
    }
}

void phx_candidates_weigh(struct candidates *c, float largest, float temperature)
{
    for (int32_t i = 0; i < c->n; i++)
        c->list[i].weight = phx_sample_exp(((double)c->list[i].logit - (double)largest) /
                                           (double)temperature);
}

static double total_weight(const struct candidates *c)
{
    double total = 0;

    for (int32_t i = 0; i < c->n; i++)
        total += c->list[i].weight;
    return total;
}

/* Takes the best one by one off a heap, behind the end of which they gather, until the share is reached;
 * usually few are taken of many. */
void phx_candidates_top_p(struct candidates *c, float top_p)
{
    double  want = total_weight(c) * (double)top_p, sum = 0;
    int32_t n = c->n, taken = 0;

    make_heap(c->list, n, true);
    while (n > 0 && (taken == 0 || sum < want)) {
        sum += c->list[0].weight;
        swap(&c->list[0], &c->list[--n]);
        sift_down(c->list, n, 0, true);
        taken++;
    }
    for (int32_t i = 0; i < taken; i++) { /* the taken stand reversed at the end */
        if (c->n - 1 - i <= i)
            break;
        swap(&c->list[i], &c->list[c->n - 1 - i]);
    }
    c->n = taken;
}

void phx_candidates_min_p(struct candidates *c, float min_p)
{
    double  largest = 0;
    int32_t n = 0;

    for (int32_t i = 0; i < c->n; i++)
        largest = c->list[i].weight > largest ? c->list[i].weight : largest;
    for (int32_t i = 0; i < c->n; i++)
        if (c->list[i].weight >= largest * (double)min_p)
            c->list[n++] = c->list[i];
    c->n = n;
}

int32_t phx_candidates_pick(const struct candidates *c, double u)
{
    double  at = u * total_weight(c), sum = 0;
    int32_t last = c->list[0].id;

    for (int32_t i = 0; i < c->n; i++) {
        if (c->list[i].weight <= 0)
            continue;
        last = c->list[i].id;
        sum += c->list[i].weight;
        if (at < sum)
            return last;
    }
    return last; /* rounding carried u past the end */
}
