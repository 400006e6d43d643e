/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cpu: packed weights, the paged cache, and the table of inner loops that each
 * instruction set fills.  The loops are written once (body_*.h) over a vector of 16 floats (v16.h) and
 * compiled for plain C, AVX2 and AVX-512: the order of operations is the same, so are the bits. */
#ifndef PHX_KERNELS_CPU_ISA_H
#define PHX_KERNELS_CPU_ISA_H

#include "kernels/backend.h"
#include "kernels/team.h"

enum {
    LANES = 16,        /* output rows of a panel */
    GROUP_PANELS = 4,  /* panels that a tile takes together */
    GROUP_ROWS = LANES * GROUP_PANELS,
    TILE_ROWS = 6,     /* activation rows of a register tile */
    I8_VECTOR_ROWS = 4, /* of an int8 product that vectors compute in one pass */
    TILES_MIN_ROWS = 4, /* of a product on the matrix unit; fewer wait for memory on any path */
    BLOCK_K = 32,      /* k of a block: an MXFP4 block, a K-tile of the matrix unit */
    I8_BLOCK_K = 64,   /* the same for int8 */
    I8_GROUP_BLOCKS = PHX_I8_GROUP / I8_BLOCK_K,
    SUB_TOKENS = 16,   /* positions of an attention block */
    MX_DATA_BYTES = LANES * PHX_MX_BLOCK / 2, /* a block of 32 k for 16 rows */
    HEAD_DIM_MAX = 512
};

/* Layouts of one panel (16 rows), k ascending:
 *   F32   k x 16 floats
 *   F16   k x 16 halves
 *   BF16  pairs of k: 16 x (w[2j], w[2j+1]), each slice padded to whole blocks of 32 k with zeros (a
 *         block of a panel is a B tile of the matrix unit)
 *   I8    quads of k: 16 x 4 int8 (a B tile of the matrix unit has 64 k), each slice padded to whole
 *         blocks of 64 k with zeros; behind them 16 floats of scales per group of 256 k of a slice
 *   MXFP4 blocks of 32 k: 4 x 16 dwords of 8 nibbles (k ascending from bit 0), then, behind all
 *         blocks, 16 scale bytes per block */
struct cpu_weight {
    struct phx_weight_desc desc;
    int32_t                n_panels;
    int32_t                slice_begin[PHX_SLICES_MAX]; /* in k, pairs or blocks of the layout */
    int32_t                units;         /* of the layout along k: k, pairs or blocks */
    int32_t                block_end[PHX_SLICES_MAX]; /* slices in blocks of 32 k (I8: 64), padded to whole ones */
    int32_t                group_end[PHX_SLICES_MAX]; /* I8: slices in groups of 256 k */
    int32_t                n_blocks;
    int32_t                n_groups;
    bool                   is_wild;       /* MXFP4 with a scale outside 2^-40 .. 2^40 */
    size_t                 panel_bytes;
    size_t                 expert_bytes;
    size_t                 total_bytes;
    unsigned char         *data;
};

struct cpu_kv {
    struct phx_kv_desc desc;
    bool               is_tiled;     /* bf16 as A tiles of the matrix unit, for rounded attention */
    size_t             element_bytes;
    size_t             token_stride; /* elements of one token of a head; int8: with its scale */
    size_t             head_stride;  /* elements of one (block, head) */
    size_t             block_stride; /* elements of one block of one layer */
    size_t             layer_stride;
    unsigned char     *k; /* [layer][block][head][sub][Dh][16 tokens]; tiled: [..][sub][Dh / 32][16 tokens][32] */
    unsigned char     *v; /* [layer][block][head][token][Dh]; tiled: [..][Dh][token]; int8: every 16 tokens of either are
                           * followed by their 16 scales, floats */
};

/* out[t][n] (+)= sum over slices of w[n] . x[t] for panels of one matrix. */
struct matmul_job {
    const struct cpu_weight *w;
    const unsigned char     *data; /* of the expert */
    const float             *x;
    int64_t                  x_stride;
    const int32_t           *x_row; /* [n_rows] which rows of x, or NULL for the first ones */
    float                   *out;
    int64_t                  out_stride;
    const float             *bias; /* or NULL */
    int32_t                  n_rows;
    bool                     is_rounded; /* x is of a round_job; the sums are those of the matrix unit */
};

/* The down product of a mixture: rows are sorted by expert. */
struct moe_down_job {
    const struct cpu_weight *w;
    const float             *act;       /* [n_pairs, F] in expert order */
    int64_t                  act_stride;
    const int32_t           *expert_end; /* [E] end of each expert's pairs */
    const int32_t           *pair_row;   /* [n_pairs] row of x that the pair belongs to */
    const float             *pair_gate;  /* [n_pairs] */
    float                   *out;
    int64_t                  out_stride;
    int32_t                  n_rows;
    bool                     is_rounded; /* as in a matmul_job */
    float                   *partial;    /* per member: [n_rows][n_slices][GROUP_ROWS] */
    size_t                   partial_stride;
};

struct attention_job {
    const struct phx_attention_args *args;
    const struct cpu_kv             *kv;
};

/* Rows rounded to bf16 for products with w: out [n_rows][n_blocks][32] floats, padding zeros. */
struct round_job {
    const struct cpu_weight *w;
    const float             *x;
    int64_t                  x_stride;
    float                   *out;
};

struct isa {
    const char *name;
    bool        has_tiles; /* a matrix unit: amx.h */
    void (*matmul)(const struct matmul_job *job, int32_t panel_first, int32_t panel_end);
    void (*round_rows)(const struct round_job *job, int32_t first, int32_t end);
    void (*moe_down)(const struct moe_down_job *job, int32_t member, int32_t panel_first,
                     int32_t panel_end);
    void (*rmsnorm)(float *out, const float *x, const float *gain, int32_t n, float eps);
    void (*attention)(const struct attention_job *job, int32_t first, int32_t end, int32_t n_shares);
    void (*rounded_attention)(const struct attention_job *job, int32_t first, int32_t end,
                              int32_t n_shares); /* of a tiled cache */
    void (*swiglu)(float *out, const float *gate, const float *up, int32_t n, enum phx_glu kind,
                   float limit);
    void (*rope)(float *x, const float *cos, const float *sin, int32_t half);
    void (*axpy)(float *x, const float *y, int32_t n, float a); /* x = fma(a, y, x) */
    void (*add)(float *x, const float *y, int32_t n);
    float (*exp)(float x);
    void (*sum_exp)(const float *x, int32_t n, float *largest, float *sum); /* of e^(x - largest) */
};

extern const struct isa isa_ref;
extern const struct isa isa_avx2;
extern const struct isa isa_avx512;
extern const struct isa isa_amx;

/* The best one that this processor runs, or the named one; NULL with a reason. */
const struct isa *phx_isa_pick(const char *name, char *why, size_t why_size);

/* How a product of n_rows is computed. */
enum cpu_path {
    PATH_FLOAT = 1, /* float32 activations, vectors */
    PATH_ROUNDED,   /* activations rounded to bf16, vectors */
    PATH_TILES,     /* activations rounded to bf16, the matrix unit: the bits of PATH_ROUNDED */
    PATH_I8,        /* int8 weights and activations, vectors */
    PATH_I8_TILES   /* the same, the matrix unit */
};
enum cpu_path phx_cpu_pick_matmul(const struct isa *isa, enum phx_compute compute,
                                  const struct cpu_weight *w, int32_t n_rows);
/* The same for the experts of a mixture, of which n_active have n_pairs rows together. */
enum cpu_path phx_cpu_pick_moe(const struct isa *isa, enum phx_compute compute, const struct cpu_weight *gate_up,
                               const struct cpu_weight *down, int32_t n_pairs, int32_t n_active);
const char   *phx_cpu_path_name(enum cpu_path path);

/* Grows when a step is larger than any before; steps of a known size do not allocate. */
struct cpu_scratch {
    unsigned char *data;
    size_t         size_bytes;
};

/* At least size_bytes at s->data, contents lost; false when memory is short. */
bool phx_scratch_reserve(struct cpu_scratch *s, size_t size_bytes);
void phx_scratch_free(struct cpu_scratch *s);

struct cpu_device {
    const struct isa *isa;
    enum phx_compute  compute;
    struct phx_team  *team;
    struct cpu_scratch rounded; /* activations of a product */
    struct cpu_scratch sums;    /* of the matrix unit */
    /* scratch of the mixture, reserved ahead of the steps */
    unsigned char    *moe_scratch;
    size_t            moe_scratch_bytes;
};

static inline const unsigned char *expert_data(const struct cpu_weight *w, int32_t expert)
{
    return w->data + (size_t)expert * w->expert_bytes;
}

/* matmul.c, weight.c, kv.c, moe.c, top.c, draw.c: entries of phx_cpu_ops */
const char *phx_cpu_matmul(void *device, struct phx_tensor out, struct phx_tensor x, const void *weight,
                           struct phx_tensor bias);

size_t phx_cpu_weight_bytes(const struct phx_weight_desc *desc);
void  *phx_cpu_weight_create(void *device, const struct phx_weight_desc *desc);
void   phx_cpu_weight_destroy(void *device, void *weight);
void   phx_cpu_weight_pack(void *device, void *weight, const struct phx_weight_source *source);
/* One row of expert 0 as k floats. */
void   phx_cpu_weight_row(const struct cpu_weight *w, int32_t row, float *out);

size_t phx_cpu_kv_bytes(const struct phx_kv_desc *desc);
void  *phx_cpu_kv_create(void *device, const struct phx_kv_desc *desc);
void   phx_cpu_kv_destroy(void *device, void *kv);
void   phx_cpu_kv_write(void *device, void *kv, int32_t layer, struct phx_tensor k,
                        struct phx_tensor v, const struct phx_spans *spans);

/* NULL, or a static reason. */
const char *phx_cpu_moe_reserve(void *device, int32_t max_rows, int32_t top_k,
                                const struct phx_weight_desc *gate_up,
                                const struct phx_weight_desc *down);
const char *phx_cpu_moe_ffn(void *device, const struct phx_moe_args *args, const void *gate_up,
                            const void *down);
const char *phx_cpu_moe_bias(void *device, struct phx_tensor x, struct phx_tensor ids,
                             struct phx_tensor gates, struct phx_tensor bias);
void        phx_cpu_top(void *device, struct phx_tensor ids, struct phx_tensor values, struct phx_tensor lse,
                        struct phx_tensor logits);
void        phx_cpu_draw(void *device, struct phx_tensor out, struct phx_tensor logits, const struct phx_draw_row *draws);
void        phx_cpu_moe_route(void *device, struct phx_tensor ids, struct phx_tensor gates,
                              struct phx_tensor logits);

#endif
