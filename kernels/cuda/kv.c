/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/cuda/kv.h"

#include "kernels/cuda/attention.h"
#include "kernels/cuda/cuda.h"
#include "kernels/memory.h"

static struct cuda_kv plan_kv(const struct phx_kv_desc *desc)
{
    bool           is_bytes = phx_kv_has_scales(desc->dtype);
    size_t         element_bytes = is_bytes ? 1 : desc->dtype == PHX_DTYPE_BF16 ? 2 : 4;
    struct cuda_kv kv = {.desc = *desc};

    kv.view.kind = desc->dtype == PHX_DTYPE_I8        ? CUDA_KV_I8
                   : desc->dtype == PHX_DTYPE_F8_E4M3 ? CUDA_KV_F8
                   : desc->dtype == PHX_DTYPE_BF16    ? CUDA_KV_BF16
                                                      : CUDA_KV_F32;
    kv.view.block_tokens = desc->block_tokens;
    kv.view.kv_heads = desc->kv_heads;
    kv.view.head_dim = desc->head_dim;
    kv.view.head_stride = (int64_t)desc->block_tokens * (desc->head_dim + (is_bytes ? (int32_t)sizeof(float) : 0));
    kv.view.v_offset = kv.view.head_stride * desc->kv_heads;
    kv.view.block_stride = 2 * kv.view.v_offset;
    kv.layer_bytes = (size_t)kv.view.block_stride * (size_t)desc->n_blocks * element_bytes;
    return kv;
}

size_t phx_cuda_kv_bytes(const struct phx_kv_desc *desc)
{
    return plan_kv(desc).layer_bytes * (size_t)desc->n_layers;
}

void *phx_cuda_kv_create(void *device, const struct phx_kv_desc *desc)
{
    struct cuda_kv *kv = phx_memory_alloc(sizeof(*kv));

    if (kv == NULL)
        return NULL;
    *kv = plan_kv(desc);
    kv->view.data = phx_cuda_alloc(device, phx_cuda_kv_bytes(desc)); /* zeros: what nobody wrote is no NaN */
    if (kv->view.data == NULL || !phx_cuda_attention_reserve(device, desc)) {
        phx_cuda_kv_destroy(device, kv);
        return NULL;
    }
    return kv;
}

void phx_cuda_kv_destroy(void *device, void *cache)
{
    struct cuda_kv *kv = cache;

    phx_cuda_drop(device, kv->view.data);
    phx_memory_free(kv);
}

void phx_cuda_kv_write(void *device, void *cache, int32_t layer, struct phx_tensor k, struct phx_tensor v,
                       const struct phx_spans *spans)
{
    struct cuda_device  *d = device;
    struct cuda_kv_write c = {.kv = cuda_kv_layer(cache, layer), .k = k.data, .v = v.data, .k_stride = k.stride0,
                              .v_stride = v.stride0};

    if (phx_cuda_spans(d, spans, &c.spans) == 0)
        (void)phx_cuda_check(d, phx_cuda_kv_write_rows(d->stream, &c), "kv_write");
}

struct cuda_rope_write phx_cuda_rope_call(const struct cuda_kv *kv, int32_t layer, struct phx_tensor x, struct phx_tensor v,
                                          struct phx_tensor cos, struct phx_tensor sin)
{
    return (struct cuda_rope_write){
        .write = {.kv = cuda_kv_layer(kv, layer), .v = v.data, .v_stride = v.stride0}, .x = x.data, .cos = cos.data,
        .sin = sin.data, .x_stride = x.stride0, .cos_stride = cos.stride0, .sin_stride = sin.stride0,
        .n_heads = x.dim[1] / kv->desc.head_dim - kv->desc.kv_heads};
}

void phx_cuda_rope_write(void *device, struct phx_tensor x, void *cache, int32_t layer, struct phx_tensor v,
                         const struct phx_spans *spans, struct phx_tensor cos, struct phx_tensor sin)
{
    struct cuda_device    *d = device;
    struct cuda_rope_write c = phx_cuda_rope_call(cache, layer, x, v, cos, sin);

    if (phx_cuda_spans(d, spans, &c.write.spans) == 0)
        (void)phx_cuda_check(d, phx_cuda_rope_write_rows(d->stream, &c), "rope_write");
}
