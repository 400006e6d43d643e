/* SPDX-License-Identifier: Apache-2.0
 * Private to kernels/cuda: the paged cache.  One allocation, [layer][block][k | v][kv_head][block_tokens][head_dim]:
 * what a query head reads of a block is one contiguous piece of keys and one of values. */
#ifndef PHX_KERNELS_CUDA_KV_H
#define PHX_KERNELS_CUDA_KV_H

#include "kernels/cuda/device.h"

#ifdef __cplusplus
extern "C" {
#endif

/* How elements lie: float32, bf16, or int8 or E4M3, behind which a head of a block has its tokens' scales in float32. */
enum cuda_kv_kind { CUDA_KV_F32, CUDA_KV_BF16, CUDA_KV_I8, CUDA_KV_F8 };

/* Passed to kernels by value.  Strides in elements. */
struct cuda_kv_view {
    void   *data;         /* of the layer */
    int64_t head_stride;  /* block_tokens * head_dim, and 4 bytes per token for scales */
    int64_t v_offset;     /* kv_heads * head_stride: from a block's keys to its values */
    int64_t block_stride; /* 2 * v_offset */
    int32_t block_tokens, kv_heads, head_dim;
    enum cuda_kv_kind kind;
};

struct cuda_kv {
    struct phx_kv_desc  desc;
    struct cuda_kv_view view; /* of layer 0 */
    size_t              layer_bytes;
};

/* The view of one layer. */
static inline struct cuda_kv_view cuda_kv_layer(const struct cuda_kv *kv, int32_t layer)
{
    struct cuda_kv_view view = kv->view;

    view.data = (unsigned char *)view.data + (size_t)layer * kv->layer_bytes;
    return view;
}

/* Element 0 of the key (token `offset` of block `block`, head `head`); its value lies v_offset behind. */
#ifdef __CUDACC__
__host__ __device__
#endif
static inline int64_t cuda_kv_at(const struct cuda_kv_view *v, int32_t block, int32_t head, int32_t offset)
{
    return (int64_t)block * v->block_stride + (int64_t)head * v->head_stride + (int64_t)offset * v->head_dim;
}

/* Byte of the key's scale, 16-byte aligned for every fourth token; the value's lies v_offset behind. */
#ifdef __CUDACC__
__host__ __device__
#endif
static inline int64_t cuda_kv_scale_at(const struct cuda_kv_view *v, int32_t block, int32_t head, int32_t offset)
{
    return cuda_kv_at(v, block, head, v->block_tokens) + (int64_t)offset * 4;
}

/* One step's keys and values, float32 rows [n_rows_total][kv_heads * head_dim]; bf16 is rounded to nearest even, bytes are
 * what the CPU makes of them (kernels/cpu/kv.c), bit for bit. */
struct cuda_kv_write {
    struct cuda_kv_view kv;
    struct cuda_spans   spans;
    const float        *k, *v;
    int64_t             k_stride, v_stride;
};
int phx_cuda_kv_write_rows(cudaStream_t stream, const struct cuda_kv_write *call);

/* Heads of one step's queries and keys, rotated by the tables (vector.h); keys and values to the cache, queries in place. */
struct cuda_rope_write {
    struct cuda_kv_write write; /* k: unused */
    float               *x;     /* [n_rows_total][n_heads + kv_heads][head_dim], rows x_stride apart */
    const float         *cos, *sin;
    int64_t              x_stride, cos_stride, sin_stride;
    int32_t              n_heads;
};
/* All but its spans. */
struct cuda_rope_write phx_cuda_rope_call(const struct cuda_kv *kv, int32_t layer, struct phx_tensor x, struct phx_tensor v,
                                          struct phx_tensor cos, struct phx_tensor sin);
int phx_cuda_rope_write_rows(cudaStream_t stream, const struct cuda_rope_write *call);

/* Entries of struct phx_ops. */
void   phx_cuda_rope_write(void *device, struct phx_tensor x, void *kv, int32_t layer, struct phx_tensor v,
                           const struct phx_spans *spans, struct phx_tensor cos, struct phx_tensor sin);
size_t phx_cuda_kv_bytes(const struct phx_kv_desc *desc);
void  *phx_cuda_kv_create(void *device, const struct phx_kv_desc *desc);
void   phx_cuda_kv_destroy(void *device, void *kv);
void   phx_cuda_kv_write(void *device, void *kv, int32_t layer, struct phx_tensor k, struct phx_tensor v,
                         const struct phx_spans *spans);

#ifdef __cplusplus
}
#endif
#endif
