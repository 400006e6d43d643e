/* SPDX-License-Identifier: Apache-2.0
 * The door of kernels/: one device, one ordered queue of work, about twenty operations.
 *
 * Ops return void.  They check shapes, and on the first problem the backend turns "failed": later ops
 * do nothing until phx_backend_sync() reads the error.  A failed step's outputs are discarded whole.
 *
 * Arithmetic is fixed (docs/internals/kernels.md): float32 activations, float32 fused multiply-adds in
 * one defined order per output that depends on neither the batch, the thread count nor the instruction
 * set, so every implementation of one backend kind gives the same bits for one phx_compute.
 *
 * Letters: T tokens (rows), D model dim, H query heads, K kv heads, Dh head dim, F ffn dim, E experts,
 * V vocabulary, N outputs of a product, k its contraction index. */
#ifndef PHX_KERNELS_BACKEND_H
#define PHX_KERNELS_BACKEND_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#ifdef __cplusplus
extern "C" {
#endif

enum phx_dtype {
    PHX_DTYPE_NONE = 0,
    PHX_DTYPE_F32,
    PHX_DTYPE_BF16,
    PHX_DTYPE_F16,
    PHX_DTYPE_F64,
    PHX_DTYPE_MXFP4,   /* 32-element blocks of E2M1 with one E8M0 scale (OCP MX) */
    PHX_DTYPE_F8_E4M3, /* weights: sources only, widened when packed; cache: see phx_kv_desc */
    PHX_DTYPE_F8_E5M2,
    PHX_DTYPE_I32,
    PHX_DTYPE_I8       /* weights: groups of PHX_I8_GROUP k with one float32 scale; cache: see phx_kv_desc */
};

/* The fixed cut of a contraction for products that tensor parallelism splits along k. */
enum { PHX_SLICES_MAX = 8, PHX_MX_BLOCK = 32, PHX_I8_GROUP = 256 };

/* A view of device memory; owns nothing; passed by value.  Row-major, dim[0] outermost; for [T, N]
 * stride0 is the distance between rows in elements (>= dim[1]). */
struct phx_tensor {
    void          *data;
    enum phx_dtype dtype;   /* activations F32, ids I32 */
    int32_t        dim[2];  /* [rows, columns]; a vector is [1, n] */
    int64_t        stride0;
};

struct phx_backend;
struct phx_weight; /* a packed matrix or a stack of expert matrices, owned by the backend */
struct phx_kv;     /* the paged key/value cache of all layers of a rank */

/* ---- device -------------------------------------------------------------------------------- */

/* How activations enter products with BF16 and MXFP4 weights; with F32 and F16 weights they are always
 * float32. */
enum phx_compute {
    PHX_COMPUTE_F32 = 0, /* as they are */
    PHX_COMPUTE_BF16     /* rounded to bf16, the product's sums stay float32: what matrix units do */
};

struct phx_backend_options {
    const char *isa;         /* "auto" (NULL) | "ref" | "avx2" | "avx512" | "amx"; CPU only */
    enum phx_compute compute;
    int32_t     n_threads;   /* team size including the caller; 0 = all allowed cores */
    bool        is_pinned;   /* bind thread i to the i-th allowed core */
    int32_t     first_core;  /* offset into the allowed cores when pinned */
    int32_t     device;      /* CUDA only: index among the visible devices */
    bool        is_wrapped;  /* CUDA only: device counts round the visible ones, so that ranks may share one */
    bool        is_fast;     /* CUDA only: class B, products may depend on the batch */
    bool        is_eager;    /* CUDA only: no step is recorded as a graph */
    bool        is_serial;   /* CUDA only: no launch begins before the one before it has ended */
};

/* Opens the named backend ("cpu"; "cuda" loads phalanx_cuda.so).  NULL on failure, with the reason in
 * why[why_size].  Owned: phx_backend_close(). */
struct phx_backend *phx_backend_open(const char *name, const struct phx_backend_options *options,
                                     char *why, size_t why_size);
void                phx_backend_close(struct phx_backend *b); /* NULL is allowed */
const char         *phx_backend_name(const struct phx_backend *b); /* "cpu" */
const char         *phx_backend_isa(const struct phx_backend *b);  /* "avx512" */
int32_t             phx_backend_threads(const struct phx_backend *b);

/* What a backend computes on.  All empty on the CPU. */
struct phx_device_facts {
    char    name[64];    /* "NVIDIA H200" */
    char    id[40];      /* the same for every process that uses the same device, and for no other */
    char    driver[16];  /* highest CUDA version the driver knows, "13.0" */
    char    runtime[16]; /* CUDA runtime of the module, "13.0" */
    int32_t arch;        /* 90 for compute capability 9.0 */
    char    launches[64]; /* "overlapped", or "one by one: " and why */
    int32_t index;       /* among the visible devices, of which there are n_visible */
    int32_t n_visible;
    int64_t free_bytes, total_bytes; /* of its memory, now */
};
void phx_backend_facts(struct phx_backend *b, struct phx_device_facts *facts);

/* What a device can do at best, for benchmarks; measured, in the best of a few rounds. */
struct phx_device_request {
    size_t  buffer_bytes; /* of each of two buffers */
    int32_t matrix;       /* edge of square matrices, a multiple of 8 */
    int32_t calls;        /* of a round */
    int32_t launches;     /* of a round */
};
struct phx_device_ceiling {
    double copy_gb_s;      /* bytes read plus bytes written */
    double read_gb_s;
    double matmul_gflop_s; /* bf16 with float32 sums and outputs, by the vendor's library; 0: it is not there */
    double launch_us;      /* from one launch of an empty recording to the next */
};
/* 0, or -1 with the reason for phx_backend_sync(); zeros where there is no device. */
int phx_device_measure(struct phx_backend *b, const struct phx_device_request *request, struct phx_device_ceiling *out);

/* For benchmarks: notes when the device gets to this place of its queue, i from 0 on.  Stamp 0 keeps the device busy for some
 * milliseconds first, so that what follows is not waiting for the host.  Nothing on a backend without times. */
enum { PHX_STAMPS_MAX = 2048 };
void phx_device_stamp(struct phx_backend *b, int32_t i);
/* Waits; us[i] = microseconds from stamp i to i + 1, n - 1 of them.  0, or -1: no times, or the reason is for sync. */
int phx_device_stamps(struct phx_backend *b, int32_t n, float *us);

/* Waits for the queue.  0, or -1 when an op failed since the last call: *what (may be NULL) then names
 * the op and the reason, valid until the next op.  The backend is usable again afterwards; not after
 * PHX_SYNC_LOST: the device itself has failed (ECC, Xid, a fault of a kernel), only closing is left. */
enum { PHX_SYNC_LOST = -2 };
int phx_backend_sync(struct phx_backend *b, const char **what);

/* Called after each op when set (debugging, golden dumps): op name and its output.  Traced, ops that a backend has as one are
 * computed as what they are made of; watched, as they always are.  The later call replaces the earlier; NULL: neither. */
typedef void (*phx_trace_fn)(void *ctx, const char *op, struct phx_tensor out);
void phx_backend_set_trace(struct phx_backend *b, phx_trace_fn fn, void *ctx);
void phx_backend_set_watch(struct phx_backend *b, phx_trace_fn fn, void *ctx);

/* ---- memory -------------------------------------------------------------------------------- */

/* Zeroed device memory, 64-byte aligned (huge pages asked for above 4 MiB).  NULL when short. */
void *phx_backend_alloc(struct phx_backend *b, size_t size_bytes);
void  phx_backend_free(struct phx_backend *b, void *ptr);
void  phx_upload(struct phx_backend *b, void *device, const void *host, size_t size_bytes);
void  phx_download(struct phx_backend *b, void *host, const void *device, size_t size_bytes);

/* True when what alloc answers is host memory: tensors may then be read and written in place, after a sync. */
bool phx_backend_is_host(const struct phx_backend *b);
/* Zeroed host memory that the device copies from and to at full speed (page-locked where that matters).
 * NULL when short. */
void *phx_backend_alloc_host(struct phx_backend *b, size_t size_bytes);
void  phx_backend_free_host(struct phx_backend *b, void *ptr); /* NULL is allowed */

/* ---- weights ------------------------------------------------------------------------------- */

/* y[n] = sum_k w[n][k] x[k].  n and k are this rank's local sizes. */
struct phx_weight_desc {
    enum phx_dtype dtype;    /* stored as: F32, BF16, F16, MXFP4 or I8 (one matrix only) */
    int32_t        n;        /* output rows */
    int32_t        k;        /* contraction length (MXFP4: multiple of 32) */
    int32_t        n_experts;/* stacked matrices; 1 for a plain one */
    int32_t        n_slices; /* 1, or how many of the 8 fixed K-slices this rank owns */
    int32_t        slice_end[PHX_SLICES_MAX]; /* local k where slice i ends, ascending; the last == k;
                                               * empty slices are allowed */
};

/* Bytes that a packed weight of that description takes (padding included); pure. */
size_t phx_weight_bytes(const struct phx_backend *b, const struct phx_weight_desc *desc);

/* Reserves memory for a weight; NULL when short or the description is wrong (read sync). */
struct phx_weight *phx_weight_create(struct phx_backend *b, const struct phx_weight_desc *desc);
void               phx_weight_destroy(struct phx_backend *b, struct phx_weight *w);
const struct phx_weight_desc *phx_weight_describe(const struct phx_weight *w);

/* One rectangle of source bytes as they lie in a checkpoint.  Element (row, k) of expert `expert` of
 * the weight comes from  data + row * row_stride + k * k_stride  (bytes; unaligned is fine).
 * Rows first_row .. first_row+n_rows-1 of the packed weight are written, all of k.
 * MXFP4: data points at the first 16-byte block of row 0, row_stride between rows, blocks of one row are
 * adjacent (k_stride unused); scale / scale_row_stride likewise for the scale bytes, one per block.
 * (For an interleaved gate/up the caller doubles row_stride and offsets data by one row for up.) */
struct phx_weight_source {
    const void    *data;
    enum phx_dtype dtype;
    int64_t        row_stride;
    int64_t        k_stride;
    const uint8_t *scale; /* MXFP4: bytes; I8: float32 of any alignment, one per group of the row */
    int64_t        scale_row_stride;
    int32_t        expert;
    int32_t        first_row;
    int32_t        n_rows;
};

/* Packs with the whole thread team; widening conversions are exact, F32 -> BF16 is refused.  Stored as I8, each
 * row is cut into groups of PHX_I8_GROUP k from the beginning of each K-slice, w = scale * q with
 * scale = largest |w| / 127 and q the nearest of -127..127; an I8 source (values of a row adjacent, k_stride unused;
 * one scale per group of its row at scale + row * scale_row_stride) is taken as it is. */
void phx_weight_pack(struct phx_backend *b, struct phx_weight *w,
                     const struct phx_weight_source *source);

/* Groups of a row of a matrix that is stored as I8: those of slice 0, then of slice 1, ... */
int32_t phx_i8_groups(const struct phx_weight_desc *desc);
/* What packing as I8 makes of a source of floats: values [n_rows][k], scales [n_rows][groups].  Pure, host memory. */
void phx_i8_quantise(const struct phx_weight_desc *desc, const struct phx_weight_source *source, int8_t *values,
                     float *scales);

/* ---- key/value cache ------------------------------------------------------------------------ */

struct phx_kv_desc {
    int32_t        n_layers;     /* of this rank */
    int32_t        n_blocks;     /* block ids 0 .. n_blocks-1 */
    int32_t        block_tokens; /* 16 or 32 */
    int32_t        kv_heads;     /* of this rank */
    int32_t        head_dim;
    enum phx_dtype dtype;        /* F32, BF16, or I8 or F8_E4M3 with one float32 scale per token and head */
};
static inline bool phx_kv_has_scales(enum phx_dtype dtype)
{
    return dtype == PHX_DTYPE_I8 || dtype == PHX_DTYPE_F8_E4M3;
}

/* 0 for a wrong description. */
size_t         phx_kv_bytes(const struct phx_backend *b, const struct phx_kv_desc *desc);
struct phx_kv *phx_kv_create(struct phx_backend *b, const struct phx_kv_desc *desc);
void           phx_kv_destroy(struct phx_backend *b, struct phx_kv *kv);

/* The rows of one step: sequence i owns rows row[i] .. row[i] + n_rows[i] - 1, which are its positions
 * pos[i] ...; its block table is table + i * table_stride, entry j = block of positions
 * [j * block_tokens, (j+1) * block_tokens).  Entries of blocks that lie wholly before a layer's window
 * may be -1.  All arrays are host memory, borrowed for the call. */
struct phx_spans {
    int32_t        n_seqs;
    const int32_t *row;
    const int32_t *n_rows;
    const int32_t *pos;
    const int32_t *table;
    int32_t        table_stride;
};

/* ---- what a model takes ---------------------------------------------------------------------- */

/* What a backend will be asked for at most; what its ops need besides their tensors follows from it. */
struct phx_work {
    int32_t                       max_rows;   /* of a step */
    int32_t                       top_k;      /* experts of a row; 0: there is no mixture */
    int32_t                       max_logits; /* rows that phx_top gets; 0: none */
    int32_t                       max_draws;  /* that phx_draw gets at a time; 0: none */
    int32_t                       n_columns;  /* of those rows */
    int32_t                       n_weights;  /* kinds of matrices, each once; with a mixture the last two are the ... */
    const struct phx_weight_desc *weights;    /* ... stacks of gate_up and of down */
    struct phx_kv_desc            kv;
};

/* Bytes of the device that the ops of such work take besides weights, cache and tensors: scratch.  Pure, and exact when
 * phx_work_reserve() takes them first.  0 where memory is the host's. */
size_t phx_work_bytes(const struct phx_backend *b, const struct phx_work *work);
/* Takes them, so that neither packing nor a step does; short of memory, the error is kept for sync. */
void   phx_work_reserve(struct phx_backend *b, const struct phx_work *work);

/* What allocations take of a device together, in the order in which they are made: small ones share chunks, large ones
 * take whole pages.  Starts as zeros. */
enum { PHX_CHUNKS_MAX = 32 };
struct phx_memory_count {
    uint64_t total_bytes;
    int32_t  n_chunks;
    size_t   left_bytes[PHX_CHUNKS_MAX]; /* in shared chunks, in the order in which they were taken */
};
/* Adds one of size_bytes; pure. */
void phx_memory_count_add(const struct phx_backend *b, struct phx_memory_count *c, size_t size_bytes);

/* ---- steps ---------------------------------------------------------------------------------- */

/* What the ops of one forward pass get from the host.  All arrays are borrowed until phx_step_end() and do not change
 * meanwhile; ops of the step get these very arrays.  Steps of one model whose n_rows, n_picked and n_rows of
 * every sequence are equal call equal ops on equal tensors. */
struct phx_step_inputs {
    const void             *model;      /* whoever it is; when memory it computes on is freed, what was recorded is forgotten */
    int32_t                 n_rows;
    const int32_t          *ids;        /* [n_rows] for phx_embed; NULL when the step has none */
    int32_t                 n_picked;
    const int32_t          *picked;     /* [n_picked] for phx_gather_rows */
    const struct phx_spans *spans;
    const struct phx_kv    *kv;
    int32_t                 window;     /* the widest of the step's attentions, 0 = all keys */
    bool                    is_recordable; /* nothing but ops of the backend happens until the end */
};

/* Whether steps may be recorded at all: then it pays to fill batches up to few sizes. */
bool phx_step_can_record(const struct phx_backend *b);

/* Begins a step: checks the inputs once for all its ops and sends them to the device.  False: the ops are to be called
 * now.  True: those of an earlier step of equal numbers are on their way again with these inputs, and none is
 * to be called.  Either way phx_step_end() follows. */
bool phx_step_begin(struct phx_backend *b, const struct phx_step_inputs *in);
/* Ends it.  True: nothing has been computed, the ops are to be called (once more), and the end again. */
bool phx_step_end(struct phx_backend *b);

/* ---- ops (all activations F32; shapes in brackets) ------------------------------------------ */

/* out[t] = table[ids[t] - first_row] when that row is held (0 <= . < n of table), else zeros.
 * out [T, D]; ids: host array of T; table: a weight with k = D. */
void phx_embed(struct phx_backend *b, struct phx_tensor out, const int32_t *ids,
               const struct phx_weight *table, int32_t first_row);

/* out = x / sqrt(mean(x^2) + eps) * gain.  out, x [T, D] (out may be x); gain [1, D]. */
void phx_rmsnorm(struct phx_backend *b, struct phx_tensor out, struct phx_tensor x,
                 struct phx_tensor gain, float eps);

/* out = x W^T (+ bias).  x [T, k], out [T, n]; bias [1, n] or data == NULL.  With n_slices > 1 the slices
 * combine by the fixed tree (adjacent pairs). */
void phx_matmul(struct phx_backend *b, struct phx_tensor out, struct phx_tensor x,
                const struct phx_weight *w, struct phx_tensor bias);

/* Rotates in place, half-split pairs (j, j + Dh/2), heads of Dh columns starting at column 0.
 * x [T, heads * Dh]; cos, sin: F32 [positions, Dh/2] device tables (amplitude folded in). */
void phx_rope(struct phx_backend *b, struct phx_tensor x, int32_t head_dim,
              const struct phx_spans *spans, struct phx_tensor cos, struct phx_tensor sin);

/* Appends this step's keys (already rotated) and values.  k, v [T, kv_heads * Dh]. */
void phx_kv_write(struct phx_backend *b, struct phx_kv *kv, int32_t layer, struct phx_tensor k,
                  struct phx_tensor v, const struct phx_spans *spans);

/* phx_rope() of x [T, (heads + kv_heads) * Dh] and phx_kv_write() of its last kv_heads heads with v, in one: with the bits
 * of both.  What x holds of these heads afterwards is undefined. */
void phx_rope_write(struct phx_backend *b, struct phx_tensor x, struct phx_kv *kv, int32_t layer, struct phx_tensor v,
                    const struct phx_spans *spans, struct phx_tensor cos, struct phx_tensor sin);

struct phx_matmul_rope_args {
    struct phx_tensor        x;         /* [T, k] */
    const struct phx_weight *w;         /* [(heads + 2 kv_heads) * Dh, k]: queries, keys, values */
    struct phx_tensor        bias;      /* [1, its n], or data == NULL */
    struct phx_tensor        out;       /* [T, its n]: the queries, rotated; undefined behind them */
    struct phx_kv           *kv;
    int32_t                  layer;
    const struct phx_spans  *spans;
    struct phx_tensor        cos, sin;
};

/* phx_matmul() and phx_rope_write() of what it gives, in one: with the bits of both. */
void phx_matmul_rope_write(struct phx_backend *b, const struct phx_matmul_rope_args *args);

struct phx_attention_args {
    struct phx_tensor     out;        /* [T, H * Dh] */
    struct phx_tensor     q;          /* [T, H * Dh], rotated */
    const struct phx_kv  *kv;
    int32_t               layer;
    int32_t               n_heads;    /* local query heads */
    int32_t               group;      /* query heads per kv head in the whole model */
    int32_t               head_first; /* global index of local query head 0 */
    int32_t               kv_first;   /* global index of local kv head 0; head h reads kv head
                                       * (head_first + h) / group - kv_first */
    int32_t               window;     /* keys visible including self; 0 = all */
    float                 scale;      /* multiplies q.k */
    struct phx_tensor     sinks;      /* [1, H] one logit per head, or data == NULL */
    const struct phx_spans *spans;
};

/* Causal paged attention with an optional window and sinks (MODELS: gpt-oss 1.6). */
void phx_attention(struct phx_backend *b, const struct phx_attention_args *args);

/* The top_k largest of each row (lowest index on ties) and the softmax over them.
 * logits [T, E]; ids I32 [T, top_k]; gates F32 [T, top_k], best first. */
void phx_moe_route(struct phx_backend *b, struct phx_tensor ids, struct phx_tensor gates,
                   struct phx_tensor logits);

enum phx_glu { PHX_GLU_SILU = 1, /* silu(gate) * up */
               PHX_GLU_OAI       /* min(g,l) * sigmoid(1.702 g) * (clamp(u,-l,l) + 1) */ };

/* out[:, i] = glu(gate_up[:, i], gate_up[:, F + i]); gate_up [T, 2F] as halves (gate first), out [T, F]. */
void phx_swiglu(struct phx_backend *b, struct phx_tensor out, struct phx_tensor gate_up,
                enum phx_glu kind, float limit);

struct phx_matmul_glu_args {
    struct phx_tensor        x;       /* [T, k] */
    const struct phx_weight *w;       /* [2F, k]: gate rows, then up rows */
    struct phx_tensor        bias;    /* [1, 2F], or data == NULL */
    struct phx_tensor        gate_up; /* [T, 2F]; undefined afterwards */
    struct phx_tensor        out;     /* [T, F] */
    enum phx_glu             kind;
    float                    limit;
};

/* phx_matmul() and phx_swiglu() of what it gives, in one: with the bits of both. */
void phx_matmul_glu(struct phx_backend *b, const struct phx_matmul_glu_args *args);

struct phx_moe_args {
    struct phx_tensor        out;      /* [T, D]: tree over this rank's slices, no down bias */
    struct phx_tensor        x;        /* [T, D] */
    struct phx_tensor        ids;      /* I32 [T, top_k] */
    struct phx_tensor        gates;    /* F32 [T, top_k] */
    const struct phx_weight *gate_up;  /* per expert [2F, D], gate rows first, then up rows */
    struct phx_tensor        gate_up_bias; /* [E, 2F], or data == NULL */
    const struct phx_weight *down;     /* per expert [D, F], with this rank's K-slices */
    enum phx_glu             kind;
    float                    limit;
};

/* The experts of a mixture: gate/up product + bias, glu, down product weighted by the gates. */
void phx_moe_ffn(struct phx_backend *b, const struct phx_moe_args *args);
/* phx_moe_route() by logits [T, E] into args->ids and args->gates, and phx_moe_ffn(), in one: with the bits of both. */
void phx_moe_route_ffn(struct phx_backend *b, const struct phx_moe_args *args, struct phx_tensor logits);
/* Scratch that phx_moe_ffn needs for at most T rows; reserved once so that steps do not allocate. */
void phx_moe_reserve(struct phx_backend *b, int32_t max_rows, int32_t top_k,
                     const struct phx_weight *gate_up, const struct phx_weight *down);

/* x += sum_j gates[t][j] * bias[ids[t][j]];  x [T, D], bias [E, D]. */
void phx_moe_bias(struct phx_backend *b, struct phx_tensor x, struct phx_tensor ids,
                  struct phx_tensor gates, struct phx_tensor bias);

void phx_add(struct phx_backend *b, struct phx_tensor x, struct phx_tensor y); /* x += y, [T, D] */
void phx_add_row(struct phx_backend *b, struct phx_tensor x, struct phx_tensor row); /* x[t] += row */

struct phx_add_norm_args {
    struct phx_tensor x;          /* [T, D] the residual stream */
    struct phx_tensor y;          /* [T, D] what a branch has computed; undefined afterwards */
    struct phx_tensor bias;       /* [1, D] added to y first, or data == NULL */
    struct phx_tensor ids, gates; /* with expert_bias [E, D]: added to y first, as phx_moe_bias() does; or data == NULL */
    struct phx_tensor expert_bias;
    struct phx_tensor norm, gain; /* [T, D], [1, D]: the next branch's input, rmsnorm(x); or data == NULL */
    float             eps;
};

/* The end of a branch: x += y, and the norm of the sum; in one, with the bits of phx_moe_bias(), phx_add_row(), phx_add()
 * and phx_rmsnorm() one after the other. */
void phx_add_norm(struct phx_backend *b, const struct phx_add_norm_args *args);
/* phx_matmul() of x without bias into end->y, and phx_add_norm(), in one: with the bits of both. */
void phx_matmul_add_norm(struct phx_backend *b, struct phx_tensor x, const struct phx_weight *w,
                         const struct phx_add_norm_args *end);

struct phx_mixture_args {
    const struct phx_moe_args      *experts;
    const struct phx_weight        *router;      /* [E, D] */
    struct phx_tensor               router_bias; /* [1, E], or data == NULL */
    struct phx_tensor               logits;      /* [T, E]; undefined afterwards */
    const struct phx_add_norm_args *end;         /* of experts->out, ids and gates; NULL: it is for the caller */
};

/* phx_matmul() by the router, phx_moe_route_ffn() and, with an end, phx_add_norm(), in one: with the bits of all. */
void phx_mixture(struct phx_backend *b, const struct phx_mixture_args *args);

/* out[i] = x[rows[i]]; rows: host array of dim[0] of out. */
void phx_gather_rows(struct phx_backend *b, struct phx_tensor out, struct phx_tensor x,
                     const int32_t *rows);

/* The top_k largest of each row, best first (the lowest index on ties, NaN behind everything), and ln of the sum of
 * e^logit: NaN when a logit is NaN or +infinity, -infinity when all are -infinity.
 * logits [T, V]; ids I32 [T, top_k]; values F32 [T, top_k]; lse [T, 1].  top_k 1 to PHX_TOP_MAX. */
enum { PHX_TOP_MAX = 256 };
void phx_top(struct phx_backend *b, struct phx_tensor ids, struct phx_tensor values, struct phx_tensor lse,
             struct phx_tensor logits);

/* A draw from a row of logits: each id has the share of [0, 1) that its e^(logit / temperature) has of the sum of all,
 * in the order of ids.  In double precision by one fixed definition (kernels/draw.h): every backend gives the same bits,
 * and shard/sample draws the same token from the same logits. */
struct phx_draw_row {
    int32_t row;
    float   temperature; /* finite, above 0 */
    double  share;       /* 0 <= . < 1 */
};
/* Columns of what a draw answers: the id, its logit, the largest logit, and the sum of e^((logit - largest) /
 * temperature).  When a logit is NaN or +infinity or all are -infinity: -1, NaN, NaN or -infinity, NaN. */
enum { PHX_DRAW_ID = 0, PHX_DRAW_LOGIT, PHX_DRAW_LARGEST, PHX_DRAW_SUM, PHX_DRAW_WIDTH };
enum { PHX_DRAW_COLUMNS_MAX = 1 << 21 };
/* out F64 [n, PHX_DRAW_WIDTH]; logits [T, V], V at most PHX_DRAW_COLUMNS_MAX; draws: host array of n, a row may be named
 * more than once. */
void phx_draw(struct phx_backend *b, struct phx_tensor out, struct phx_tensor logits, const struct phx_draw_row *draws);

/* Views. */
static inline struct phx_tensor phx_view(void *data, int32_t rows, int32_t columns)
{
    struct phx_tensor t = {data, PHX_DTYPE_F32, {rows, columns}, columns};
    return t;
}

/* Columns [first, first + n) of a tensor. */
static inline struct phx_tensor phx_columns(struct phx_tensor t, int32_t first, int32_t n)
{
    t.data = (char *)t.data + (size_t)first * sizeof(float);
    t.dim[1] = n;
    return t;
}

/* The first n rows of a tensor. */
static inline struct phx_tensor phx_rows(struct phx_tensor t, int32_t n)
{
    t.dim[0] = n;
    return t;
}

#ifdef __cplusplus
}
#endif
#endif
