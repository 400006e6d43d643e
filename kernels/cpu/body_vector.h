/* SPDX-License-Identifier: Apache-2.0
 * Operations on one row: norm, rotation, gated units, sums. */

/* Sum of squares: lane i takes elements i, i + 16, ... in order, then the tree of halves. */
static void rmsnorm(float *out, const float *x, const float *gain, int32_t n, float eps)
{
    v16     sum = v16_zero(), scale;
    int32_t i;

    for (i = 0; i + LANES <= n; i += LANES) {
        v16 a = v16_load(x + i);

        sum = v16_fma(a, a, sum);
    }
    if (i < n) {
        v16 a = v16_load_n(x + i, n - i);

        sum = v16_fma(a, a, sum);
    }
    scale = v16_set(1.0f / sqrtf(v16_sum(sum) / (float)n + eps));
    for (i = 0; i + LANES <= n; i += LANES)
        v16_store(out + i, v16_mul(v16_mul(v16_load(x + i), scale), v16_load(gain + i)));
    if (i < n)
        v16_store_n(out + i,
                    v16_mul(v16_mul(v16_load_n(x + i, n - i), scale), v16_load_n(gain + i, n - i)),
                    n - i);
}

INLINE v16 glu_silu(v16 gate, v16 up)
{
    v16 one = v16_set(1.0f);
    v16 e = v16_exp(v16_sub(v16_zero(), gate));

    return v16_mul(v16_div(gate, v16_add(one, e)), up);
}

/* min(g, l) * sigmoid(1.702 min(g, l)) * (clamp(u, -l, l) + 1) */
INLINE v16 glu_oai(v16 gate, v16 up, float limit)
{
    v16 one = v16_set(1.0f), high = v16_set(limit), low = v16_set(-limit);
    v16 g = v16_select_gt(gate, high, high, gate);
    v16 u = v16_select_gt(up, high, high, up);
    v16 e = v16_exp(v16_mul(g, v16_set(-1.702f)));

    u = v16_select_gt(low, u, low, u);
    return v16_mul(v16_div(g, v16_add(one, e)), v16_add(u, one));
}

static void swiglu(float *out, const float *gate, const float *up, int32_t n, enum phx_glu kind,
                   float limit)
{
    for (int32_t i = 0; i < n; i += LANES) {
        int m = n - i < LANES ? n - i : LANES;
        v16 g = v16_load_n(gate + i, m), u = v16_load_n(up + i, m);

        v16_store_n(out + i, kind == PHX_GLU_OAI ? glu_oai(g, u, limit) : glu_silu(g, u), m);
    }
}

/* Pairs (j, j + half): a cos - b sin, b cos + a sin. */
static void rope(float *x, const float *cos, const float *sin, int32_t half)
{
    for (int32_t j = 0; j < half; j += LANES) {
        int m = half - j < LANES ? half - j : LANES;
        v16 a = v16_load_n(x + j, m), b = v16_load_n(x + half + j, m);
        v16 c = v16_load_n(cos + j, m), s = v16_load_n(sin + j, m);

        v16_store_n(x + j, v16_fma(v16_sub(v16_zero(), b), s, v16_mul(a, c)), m);
        v16_store_n(x + half + j, v16_fma(a, s, v16_mul(b, c)), m);
    }
}

static void axpy(float *x, const float *y, int32_t n, float a)
{
    for (int32_t i = 0; i < n; i += LANES) {
        int m = n - i < LANES ? n - i : LANES;

        v16_store_n(x + i, v16_fma(v16_set(a), v16_load_n(y + i, m), v16_load_n(x + i, m)), m);
    }
}

static void add(float *x, const float *y, int32_t n)
{
    int32_t i;

    for (i = 0; i + LANES <= n; i += LANES)
        v16_store(x + i, v16_add(v16_load(x + i), v16_load(y + i)));
    if (i < n)
        v16_store_n(x + i, v16_add(v16_load_n(x + i, n - i), v16_load_n(y + i, n - i)), n - i);
}

static float exp_one(float x)
{
    float t[16];

    v16_store(t, v16_exp(v16_set(x)));
    return t[0];
}

/* The largest of n numbers (at least -FLT_MAX) and the sum of e^(x - largest): lane i takes elements i, i + 16, ...
 * in order, then the tree of halves. */
static void sum_exp(const float *x, int32_t n, float *largest, float *sum)
{
    float tail[LANES];
    v16   top = v16_set(-FLT_MAX), l = v16_zero();

    for (int32_t i = 0; i < LANES; i++)
        tail[i] = i < n % LANES ? x[n / LANES * LANES + i] : -INFINITY;
    for (int32_t i = 0; i < n; i += LANES) {
        v16 a = v16_load(i + LANES <= n ? x + i : tail);

        top = v16_select_gt(a, top, a, top);
    }
    *largest = v16_largest(top);
    for (int32_t i = 0; i < n; i += LANES)
        l = v16_add(l, v16_exp(v16_sub(v16_load(i + LANES <= n ? x + i : tail), v16_set(*largest))));
    *sum = v16_sum(l);
}
