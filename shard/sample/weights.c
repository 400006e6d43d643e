/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/sample/weights.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

#include "shard/sample/loops.h"
#include "shard/sample/sample.h"

enum { BLOCK = 4096, RUN = 64, DIGITS = 3, BINS = 2048 };

float phx_largest(const float *logits, int32_t n)
{
    return phx_sample_loops_at(0)->largest(logits, n);
}

/* Block by block, so that the walk for the place is short; the first of equal blocks stays. */
int32_t phx_find_largest(const float *logits, int32_t n)
{
    const struct phx_sample_loops *loops = phx_sample_loops_at(0);
    float                          best = -INFINITY;
    int32_t                        at = -1;

    for (int32_t i = 0; i < n; i += BLOCK) {
        float largest = loops->largest(logits + i, n - i < BLOCK ? n - i : BLOCK);

        if (largest != largest)
            return -1;
        at = largest > best ? i : at;
        best = largest > best ? largest : best;
    }
    while (at >= 0 && logits[at] != best)
        at++;
    return at;
}

void phx_weigh(const float *logits, int32_t n, float largest, float temperature, double *weight)
{
    phx_sample_loops_at(0)->weigh(logits, n, (double)largest, 1.0 / (double)temperature, weight);
}

static double sum_block(const double *weight, int32_t n)
{
    return phx_sample_loops_at(0)->sum(weight, n);
}

double phx_weights_sum(const double *weight, int32_t n)
{
    double sum = 0;

    for (int32_t i = 0; i < n; i += BLOCK)
        sum += sum_block(weight + i, n - i < BLOCK ? n - i : BLOCK);
    return sum;
}

/* Newton's method on x e^-y = 1, from the exponent of x; the error squares in each round. */
double phx_weights_log(double x)
{
    int    exponent;
    double mantissa = frexp(x, &exponent); /* 0.5 .. 1 */
    double y = (double)exponent * 6.93147180559945309417e-01 + (mantissa - 1.0) * 1.2;

    for (int i = 0; i < 5; i++) {
        const float zero = 0.0f;
        float       rough = (float)y;
        double      e, rest = y - (double)rough;

        phx_weigh(&(float){-rough}, 1, zero, 1.0f, &e);
        /* e^-y = e^-rough e^-rest, and rest is below a millionth */
        y += x * e * (1.0 - rest + rest * rest * 0.5) - 1.0;
    }
    return y;
}

/* Ascending with the logit; both zeros are one value. */
static uint32_t key_of(float logit)
{
    float    x = logit + 0.0f;
    uint32_t bits;

    memcpy(&bits, &x, sizeof(bits));
    return (bits & 0x80000000u) != 0 ? ~bits : bits | 0x80000000u;
}

static float logit_of(uint32_t key)
{
    uint32_t bits = (key & 0x80000000u) != 0 ? key & 0x7fffffffu : ~key;
    float    x;

    memcpy(&x, &bits, sizeof(x));
    return x;
}

/* Sums the amounts of the listed ids (all n when list is NULL) by one digit of the key.  Two sets of bins
 * take turns, because neighbours often share a bin and would wait for each other. */
static void fill_bins(const float *logits, const double *amount, const int32_t *list, int32_t n,
                      int shift, double *bins)
{
    double set[2][BINS];

    memset(set, 0, sizeof(set));
    for (int32_t j = 0; j < n; j++) {
        int32_t  i = list != NULL ? list[j] : j;
        uint32_t digit = (key_of(logits[i]) >> shift) & (BINS - 1);

        set[j & 1][digit] += amount != NULL ? amount[i] : 1.0;
    }
    for (int32_t b = 0; b < BINS; b++)
        bins[b] = set[0][b] + set[1][b];
}

/* Lists the ids (of list, which may be out itself; of all n when NULL) whose key starts with prefix. */
static int32_t narrow(const float *logits, const int32_t *list, int32_t n, uint32_t prefix,
                      uint32_t mask, int32_t *out)
{
    int32_t n_out = 0;

    for (int32_t j = 0; j < n; j++) {
        int32_t i = list != NULL ? list[j] : j;

        out[n_out] = i;
        n_out += (key_of(logits[i]) & mask) == prefix;
    }
    return n_out;
}

/* The bin in which the running sum from the best down reaches *want, less what is above it. */
static uint32_t find_bin(const double *bins, double *want)
{
    double   above = 0, above_last = 0;
    uint32_t last = BINS - 1;

    for (uint32_t b = BINS; b-- > 0;) {
        if (bins[b] <= 0)
            continue;
        last = b;
        above_last = above;
        above += bins[b];
        if (above >= *want)
            break;
    }
    *want -= above_last; /* when rounding kept the sum below: the last bin that holds anything */
    return last;
}

/* The last member of the shortest best-first run whose amounts (1 each when NULL) reach want: its logit,
 * and in list[*n_ties] those of the run that share it. */
static float find_cut(const float *logits, const double *amount, int32_t n, double want, int32_t *list,
                      int32_t *n_ties)
{
    static const int shifts[DIGITS] = {21, 10, 0}; /* the last digit repeats a bit of the one before */
    double           bins[BINS], sum = 0;
    uint32_t         key = 0, mask = 0;
    int32_t          taken = 0;

    for (int i = 0; i < DIGITS; i++) {
        const int32_t *from = i > 0 ? list : NULL;

        fill_bins(logits, amount, from, n, shifts[i], bins);
        key |= find_bin(bins, &want) << shifts[i];
        mask |= (uint32_t)(BINS - 1) << shifts[i];
        n = narrow(logits, from, n, key, mask, list);
    }
    while (taken < n && sum < want) {
        sum += amount != NULL ? amount[list[taken]] : 1.0;
        taken++;
    }
    *n_ties = taken;
    return logit_of(key);
}

void phx_keep_top_k(float *logits, int32_t n, int32_t k, int32_t *list)
{
    int32_t n_ties;
    float   cut;

    if (k >= n)
        return;
    cut = find_cut(logits, NULL, n, (double)k, list, &n_ties);
    for (int32_t i = 0; i < n; i++)
        logits[i] = logits[i] > cut ? logits[i] : -INFINITY;
    for (int32_t j = 0; j < n_ties; j++)
        logits[list[j]] = cut;
}

void phx_keep_top_p(const float *logits, double *weight, int32_t n, float top_p, int32_t *list)
{
    double  want = phx_weights_sum(weight, n) * (double)top_p, tie;
    int32_t n_ties;
    float   cut = find_cut(logits, weight, n, want, list, &n_ties);

    tie = weight[list[0]]; /* equal logits weigh the same */
    for (int32_t i = 0; i < n; i++)
        weight[i] = logits[i] > cut ? weight[i] : 0.0;
    for (int32_t j = 0; j < n_ties; j++)
        weight[list[j]] = tie;
}

void phx_keep_min_p(double *weight, int32_t n, float min_p)
{
    for (int32_t i = 0; i < n; i++)
        weight[i] = weight[i] >= (double)min_p ? weight[i] : 0.0;
}

/* Of n amounts the one in which their running sum passes *at, less what is before it; the last that is positive when
 * rounding kept the sum below. */
static int32_t find_share(const double *amount, int32_t n, double *at)
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

/* In a block of positive sum: the id at that amount. */
static int32_t pick_in_block(const double *weight, int32_t n, double at)
{
    double  runs[BLOCK / RUN] = {0};
    int32_t n_runs = (n - 1) / RUN + 1, first;

    for (int32_t j = 0; j < n / RUN; j++)
        for (int32_t i = 0; i < RUN; i++)
            runs[j] += weight[j * RUN + i];
    for (int32_t i = n / RUN * RUN; i < n; i++)
        runs[i / RUN] += weight[i];
    first = find_share(runs, n_runs, &at) * RUN;
    return first + find_share(weight + first, n - first < RUN ? n - first : RUN, &at);
}

int32_t phx_weights_pick(const double *weight, int32_t n, double u)
{
    double  at = u * phx_weights_sum(weight, n), last_at = 0;
    int32_t last = 0;

    for (int32_t i = 0; i < n; i += BLOCK) {
        double sum = sum_block(weight + i, n - i < BLOCK ? n - i : BLOCK);

        if (sum <= 0)
            continue;
        last = i; /* rounding may carry u past the end: then the last block that has a weight */
        last_at = at;
        if (at < sum)
            break;
        at -= sum;
    }
    return last + pick_in_block(weight + last, n - last < BLOCK ? n - last : BLOCK, last_at);
}

/* Weights that are not 0 and whose ids share a block or a run. */
static int32_t count_near(const int32_t *ids, int32_t n, int32_t size)
{
    int32_t i = 1;

    while (i < n && ids[i] / size == ids[0] / size)
        i++;
    return i;
}

static double sum_block_of(const int32_t *ids, const double *weight, int32_t n)
{
    double lane[PHX_SAMPLE_LANES] = {0};

    for (int32_t i = 0; i < n; i++)
        lane[ids[i] % PHX_SAMPLE_LANES] += weight[i];
    return phx_sample_loops_at(0)->sum(lane, PHX_SAMPLE_LANES); /* the tree */
}

double phx_weights_sum_of(const int32_t *ids, const double *weight, int32_t n)
{
    double sum = 0;

    for (int32_t i = 0, size; i < n; i += size) {
        size = count_near(ids + i, n - i, BLOCK);
        sum += sum_block_of(ids + i, weight + i, size);
    }
    return sum;
}

static double sum_run_of(const int32_t *ids, const double *weight, int32_t n)
{
    double sum = 0;

    (void)ids;
    for (int32_t i = 0; i < n; i++)
        sum += weight[i];
    return sum;
}

/* Of the pieces of so many ids the one where the running sum passes *at, as find_share(); *n: its weights. */
static int32_t find_piece(const int32_t *ids, const double *weight, int32_t *n, int32_t size,
                          double (*sum_of)(const int32_t *ids, const double *weight, int32_t n), double *at)
{
    double  rest = *at, last_rest = 0;
    int32_t last = 0, n_last = 0;

    for (int32_t i = 0, count; i < *n; i += count) {
        double sum;

        count = count_near(ids + i, *n - i, size);
        sum = sum_of(ids + i, weight + i, count);
        if (sum <= 0)
            continue;
        last = i;
        n_last = count;
        last_rest = rest;
        if (rest < sum)
            break;
        rest -= sum;
    }
    *n = n_last;
    *at = last_rest;
    return last;
}

int32_t phx_weights_pick_of(const int32_t *ids, const double *weight, int32_t n, double u)
{
    double  at = u * phx_weights_sum_of(ids, weight, n);
    int32_t block = find_piece(ids, weight, &n, BLOCK, sum_block_of, &at);
    int32_t run = block + find_piece(ids + block, weight + block, &n, RUN, sum_run_of, &at);

    return ids[run + find_share(weight + run, n, &at)];
}

double phx_weights_share(uint64_t seed, int32_t position)
{
    const uint32_t counter[4] = {(uint32_t)position, 0, 0, 0};
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint32_t       out[4];

    phx_philox(counter, key, out);
    return (double)(((uint64_t)out[0] << 21) ^ (out[1] >> 11)) * 0x1p-53;
}

double phx_weights_distance(const double *weight, int32_t n, int32_t id, double u)
{
    double sum = phx_weights_sum(weight, n), low = 0, high;

    for (int32_t i = 0; i < id; i++)
        low += weight[i];
    low /= sum;
    high = low + weight[id] / sum;
    return u < low ? low - u : u > high ? u - high : 0.0;
}
