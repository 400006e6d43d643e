// SPDX-License-Identifier: Apache-2.0
// Elementwise steps of the demo model's forward and backward pass, for train.py.
// The matrix products are torch's; these loops are what torch does slowly on a CPU.
// Compiled by train.py with -O3 -march=native -ffast-math: the compiler vectorises them.
#include <math.h>
#include <stdint.h>
#include <string.h>

enum { DIM = 128, HEADS = 4, KV = 2, HEAD = 32, EXPERTS = 4, WIDTH = 128 };
enum { QKV = (HEADS + 2 * KV) * HEAD };

static inline float wide(uint16_t h) {
  uint32_t u = (uint32_t)h << 16;
  float f;
  memcpy(&f, &u, 4);
  return f;
}

static inline uint16_t narrow(float f) {
  uint32_t u;
  memcpy(&u, &f, 4);
  return (uint16_t)((u + 0x7fff + ((u >> 16) & 1)) >> 16);
}

void rms_fwd(const float *x, const float *w, uint16_t *y, float *rstd, long rows) {
  for (long t = 0; t < rows; t++, x += DIM, y += DIM) {
    float s = 0;
    for (int i = 0; i < DIM; i++) s += x[i] * x[i];
    float r = rstd[t] = 1.0f / sqrtf(s / DIM + 1e-5f);
    for (int i = 0; i < DIM; i++) y[i] = narrow(x[i] * r * w[i]);
  }
}

void rms_bwd(const float *x, const float *w, const float *rstd, const uint16_t *dy, float *dx,
             float *dw, long rows) {
  for (long t = 0; t < rows; t++, x += DIM, dy += DIM, dx += DIM) {
    float g[DIM], s = 0, r = rstd[t];
    for (int i = 0; i < DIM; i++) {
      float d = wide(dy[i]);
      dw[i] += d * x[i] * r;
      g[i] = d * w[i];
      s += g[i] * x[i];
    }
    s *= r * r / DIM;
    for (int i = 0; i < DIM; i++) dx[i] = r * (g[i] - x[i] * s);
  }
}

static void turn(const uint16_t *in, uint16_t *out, const float *c, const float *s) {
  for (int i = 0; i < HEAD / 2; i++) {
    float a = wide(in[i]), b = wide(in[i + HEAD / 2]);
    out[i] = narrow(a * c[i] - b * s[i]);
    out[i + HEAD / 2] = narrow(b * c[i] + a * s[i]);
  }
}

static void turn_back(const float *a, uint16_t *out, const float *c, const float *s) {
  for (int i = 0; i < HEAD / 2; i++) {
    out[i] = narrow(a[i] * c[i] + a[i + HEAD / 2] * s[i]);
    out[i + HEAD / 2] = narrow(a[i + HEAD / 2] * c[i] - a[i] * s[i]);
  }
}

// qkv [len, QKV] of one sequence -> q [HEADS, len, HEAD]; k, v [KV, skip + len, HEAD], rotated.
static void split_one(const uint16_t *qkv, const float *c, const float *s, uint16_t *q, uint16_t *k,
                      uint16_t *v, long len, long skip) {
  for (long t = 0; t < len; t++, qkv += QKV, c += HEAD / 2, s += HEAD / 2) {
    for (int h = 0; h < HEADS; h++) turn(qkv + h * HEAD, q + (h * len + t) * HEAD, c, s);
    for (int h = 0; h < KV; h++) {
      long at = (h * (skip + len) + skip + t) * HEAD;
      turn(qkv + (HEADS + h) * HEAD, k + at, c, s);
      memcpy(v + at, qkv + (HEADS + KV + h) * HEAD, HEAD * 2);
    }
  }
}

// Rows 0..pre-1 of qkv are a prefix that n sequences of len rows share.  The prefix gets its own
// q, k, v; each sequence gets the last `shared` keys and values of the prefix before its own.
void split_fwd(const uint16_t *qkv, const float *c, const float *s, uint16_t *qp, uint16_t *kp,
               uint16_t *vp, uint16_t *q, uint16_t *k, uint16_t *v, long pre, long shared, long n,
               long len) {
  split_one(qkv, c, s, qp, kp, vp, pre, 0);
  long keys = shared + len;
  for (long b = 0; b < n; b++) {
    long row = pre + b * len;
    uint16_t *kb = k + b * KV * keys * HEAD, *vb = v + b * KV * keys * HEAD;
    split_one(qkv + row * QKV, c + row * HEAD / 2, s + row * HEAD / 2, q + b * HEADS * len * HEAD,
              kb, vb, len, shared);
    for (int h = 0; h < KV; h++) {
      long from = ((h + 1) * pre - shared) * HEAD;
      memcpy(kb + h * keys * HEAD, kp + from, (size_t)shared * HEAD * 2);
      memcpy(vb + h * keys * HEAD, vp + from, (size_t)shared * HEAD * 2);
    }
  }
}

static void load(const uint16_t *p, float *f) {
  for (int i = 0; i < HEAD; i++) f[i] = wide(p[i]);
}

void split_bwd(uint16_t *dqkv, const float *c, const float *s, const uint16_t *qp,
               const uint16_t *kp, const uint16_t *vp, const uint16_t *q, const uint16_t *k,
               const uint16_t *v, long pre, long shared, long n, long len) {
  long keys = shared + len;
  float f[HEAD], g[HEAD];
  for (long t = 0; t < pre; t++, dqkv += QKV, c += HEAD / 2, s += HEAD / 2) {
    long in = t - (pre - shared);
    for (int h = 0; h < HEADS; h++) {
      load(qp + (h * pre + t) * HEAD, f);
      turn_back(f, dqkv + h * HEAD, c, s);
    }
    for (int h = 0; h < KV; h++) {
      load(kp + (h * pre + t) * HEAD, f);
      load(vp + (h * pre + t) * HEAD, g);
      for (long b = 0; in >= 0 && b < n; b++) {
        const uint16_t *kb = k + ((b * KV + h) * keys + in) * HEAD;
        const uint16_t *vb = v + ((b * KV + h) * keys + in) * HEAD;
        for (int i = 0; i < HEAD; i++) f[i] += wide(kb[i]), g[i] += wide(vb[i]);
      }
      turn_back(f, dqkv + (HEADS + h) * HEAD, c, s);
      for (int i = 0; i < HEAD; i++) dqkv[(HEADS + KV + h) * HEAD + i] = narrow(g[i]);
    }
  }
  for (long b = 0; b < n; b++)
    for (long t = 0; t < len; t++, dqkv += QKV, c += HEAD / 2, s += HEAD / 2) {
      for (int h = 0; h < HEADS; h++) {
        load(q + ((b * HEADS + h) * len + t) * HEAD, f);
        turn_back(f, dqkv + h * HEAD, c, s);
      }
      for (int h = 0; h < KV; h++) {
        long at = ((b * KV + h) * keys + shared + t) * HEAD;
        load(k + at, f);
        turn_back(f, dqkv + (HEADS + h) * HEAD, c, s);
        memcpy(dqkv + (HEADS + KV + h) * HEAD, v + at, HEAD * 2);
      }
    }
}

static void visible(long i, long shared, long pad, long window, long *lo, long *hi) {
  *hi = shared + i + 1;
  *lo = window && *hi - window > pad ? *hi - window : pad;
  if (*lo > *hi) *lo = *hi;
}

// Softmax in place over the visible keys of each row of p [n, HEADS, len, shared + len], with the
// head's sink in the denominator.  The first `pad` keys are padding.
void softmax_fwd(uint16_t *p, const float *sinks, float *rest, long n, long len, long shared,
                 long pad, long window) {
  const float scale = 0.17677669529663687f;
  long keys = shared + len;
  float e[8192];
  for (long r = 0; r < n * HEADS * len; r++, p += keys) {
    long lo, hi;
    visible(r % len, shared, pad, window, &lo, &hi);
    float sink = sinks[r / len % HEADS], top = sink, sum = 0;
    for (long j = lo; j < hi; j++) {
      e[j] = wide(p[j]) * scale;
      top = e[j] > top ? e[j] : top;
    }
    for (long j = lo; j < hi; j++) {
      e[j] = expf(e[j] - top);
      sum += e[j];
    }
    float last = expf(sink - top), inv = 1.0f / (sum + last);
    rest[r] = last * inv;
    memset(p, 0, (size_t)lo * 2);
    memset(p + hi, 0, (size_t)(keys - hi) * 2);
    for (long j = lo; j < hi; j++) p[j] = narrow(e[j] * inv);
  }
}

void softmax_bwd(const uint16_t *p, uint16_t *d, const float *rest, float *dsinks, long n, long len,
                 long shared, long pad, long window) {
  const float scale = 0.17677669529663687f;
  long keys = shared + len;
  for (long r = 0; r < n * HEADS * len; r++, p += keys, d += keys) {
    long lo, hi;
    visible(r % len, shared, pad, window, &lo, &hi);
    float s = 0;
    for (long j = lo; j < hi; j++) s += wide(p[j]) * wide(d[j]);
    dsinks[r / len % HEADS] -= rest[r] * s;
    memset(d, 0, (size_t)lo * 2);
    memset(d + hi, 0, (size_t)(keys - hi) * 2);
    for (long j = lo; j < hi; j++) d[j] = narrow(wide(p[j]) * (wide(d[j]) - s) * scale);
  }
}

// u [rows, EXPERTS, gate | up] and routing weights -> weighted activations [rows, EXPERTS, WIDTH].
void swiglu_fwd(const uint16_t *u, const float *w, uint16_t *a, long rows) {
  for (long r = 0; r < rows * EXPERTS; r++, u += 2 * WIDTH, a += WIDTH) {
    float share = w[r];
    if (share == 0) {
      memset(a, 0, WIDTH * 2);
      continue;
    }
    for (int i = 0; i < WIDTH; i++) {
      float g = wide(u[i]), l = wide(u[WIDTH + i]);
      g = g > 7 ? 7 : g;
      l = l > 7 ? 7 : l < -7 ? -7 : l;
      a[i] = narrow(share * g / (1 + expf(-1.702f * g)) * (l + 1));
    }
  }
}

void swiglu_bwd(const uint16_t *restrict u, const float *w, const uint16_t *restrict da,
                uint16_t *restrict du, float *dw,
                long rows) {
  for (long r = 0; r < rows * EXPERTS; r++, u += 2 * WIDTH, du += 2 * WIDTH, da += WIDTH) {
    float share = w[r], sum = 0;
    dw[r] = 0;
    if (share == 0) {
      memset(du, 0, WIDTH * 4);
      continue;
    }
    for (int i = 0; i < WIDTH; i++) {
      float g0 = wide(u[i]), l0 = wide(u[WIDTH + i]), d = wide(da[i]);
      float g = g0 > 7 ? 7 : g0, l = l0 > 7 ? 7 : l0 < -7 ? -7 : l0;
      float s = 1 / (1 + expf(-1.702f * g));
      sum += d * g * s * (l + 1);
      d *= share;
      float dg = d * (l + 1) * s * (1 + 1.702f * g * (1 - s));
      float dl = d * g * s;
      du[i] = narrow(g0 > 7 ? 0 : dg);
      du[WIDTH + i] = narrow(l0 > 7 || l0 < -7 ? 0 : dl);
    }
    dw[r] = sum;
  }
}
