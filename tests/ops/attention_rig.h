/* SPDX-License-Identifier: Apache-2.0
 * Two sequences in a cache, steps over pieces of them, and what attention should say. */
#ifndef PHX_TESTS_OPS_ATTENTION_RIG_H
#define PHX_TESTS_OPS_ATTENTION_RIG_H

#include "tests/emu/control.h"
#include "tests/ops/rig.h"

enum { PIECES_MAX = 8, LAYERS = 2, LAYER = 1, PAD = 3, HEADS_MAX = 40, GRAIN = 16 };

struct shape {
    int32_t        length, heads, kv_heads, dim, block_tokens, window;
    bool           has_sinks;
    float          scale;
    enum phx_dtype dtype;
    enum phx_compute compute;
};

#define TILED PHX_DTYPE_BF16, PHX_COMPUTE_BF16
#define MIXED PHX_DTYPE_F32, PHX_COMPUTE_BF16
#define EXACT PHX_DTYPE_F32, PHX_COMPUTE_F32
#define NARROW PHX_DTYPE_BF16, PHX_COMPUTE_F32
#define BYTES PHX_DTYPE_I8, PHX_COMPUTE_BF16
#define BYTES_F32 PHX_DTYPE_I8, PHX_COMPUTE_F32
#define F8 PHX_DTYPE_F8_E4M3, PHX_COMPUTE_BF16
#define F8_F32 PHX_DTYPE_F8_E4M3, PHX_COMPUTE_F32

/* Two sequences: q [length][heads * dim], k and v [length][kv_heads * dim]. */
struct input {
    float *q[2], *k[2], *v[2];
    float *kept_k[2], *kept_v[2]; /* what the cache makes of them */
    float  sinks[HEADS_MAX];
};

/* The heads of a rank. */
struct part {
    int32_t head_first, n_heads, kv_first, n_kv;
};

/* Rows pos .. pos + n of a sequence. */
struct piece {
    int32_t seq, pos, n;
};

/* Random numbers; drop_input() gives them back. */
void make_input(struct input *in, const struct shape *s);
/* What a cache of that kind makes of rows of keys or values [length][kv_heads * dim]. */
void keep_rows(float *to, const float *x, const struct shape *s);
void drop_input(struct input *in);
/* All heads. */
struct part all_of(const struct shape *s);
/* Both sequences as a whole, in blocks whose earlier owners left nothing but NaN. */
struct phx_kv *fill_cache(struct rig *r, const struct shape *s, const struct input *in,
                          struct part p);
/* The emulated device's facts, NULL on a real one. */
struct phx_emu *find_emulator(void);
/* Attention of the pieces into out[seq] [length][heads * dim]; what is not theirs stays as it is. */
void attend(struct rig *r, struct phx_kv *kv, const struct shape *s, const struct input *in,
            struct part p, const struct piece *pieces, int32_t n, float *const *out);
/* Row t of the sequence is near double precision. */
void expect_row(const struct rig *r, const struct shape *s, const struct input *in, int32_t seq,
                int32_t t, const float *out);
/* Rows [first, end) are equal to the bit. */
void expect_same(const struct rig *r, const struct shape *s, const float *want, const float *got,
                 int32_t first, int32_t end, const char *what);
/* Room for the rows of a sequence. */
float *take_out(const struct shape *s);

#endif
