/* SPDX-License-Identifier: Apache-2.0 */
#include "kernels/desc.h"

bool phx_weight_can_store(enum phx_dtype from, enum phx_dtype to)
{
    bool is_f8 = from == PHX_DTYPE_F8_E4M3 || from == PHX_DTYPE_F8_E5M2;

    if (from == to)
        return !is_f8 && to != PHX_DTYPE_NONE && to != PHX_DTYPE_F64 && to != PHX_DTYPE_I32;
    if (to == PHX_DTYPE_F32 || to == PHX_DTYPE_I8)
        return from == PHX_DTYPE_F32 || from == PHX_DTYPE_BF16 || from == PHX_DTYPE_F16 || is_f8;
    return to == PHX_DTYPE_BF16 && is_f8;
}

const char *phx_weight_find_fault(const struct phx_weight_desc *d)
{
    int32_t  k = 0;
    uint64_t bytes;

    if (!phx_weight_can_store(d->dtype, d->dtype))
        return "dtype cannot be stored";
    if (d->dtype == PHX_DTYPE_I8 && d->n_experts != 1)
        return "I8 stores one matrix, not a stack of experts";
    if (d->n < 1 || d->k < 0 || d->n_experts < 1 || d->n_experts > 4096)
        return "n, k or n_experts out of range";
    if (d->n_slices < 1 || d->n_slices > PHX_SLICES_MAX)
        return "n_slices must be 1 to 8";
    for (int32_t i = 0; i < d->n_slices; i++) {
        if (d->slice_end[i] < k)
            return "slice ends must ascend";
        k = d->slice_end[i];
        if (d->dtype == PHX_DTYPE_MXFP4 && k % PHX_MX_BLOCK != 0)
            return "MXFP4 slices must end at blocks of 32";
    }
    if (k != d->k)
        return "the last slice must end at k";
    /* 64 bytes a weight is more than any layout takes, padding of a panel included */
    if (__builtin_mul_overflow((uint64_t)d->n + 16, ((uint64_t)d->k + 32) * 64, &bytes) ||
        __builtin_mul_overflow(bytes, (uint64_t)d->n_experts, &bytes))
        return "the size is absurd";
    return NULL;
}

bool phx_kv_is_valid(const struct phx_kv_desc *d)
{
    uint64_t elements;

    return d->n_layers >= 1 && d->n_blocks >= 1 && (d->block_tokens == 16 || d->block_tokens == 32) &&
           d->kv_heads >= 1 && d->kv_heads <= 65536 && d->head_dim >= 2 && d->head_dim <= 512 &&
           d->head_dim % 2 == 0 &&
           (d->dtype == PHX_DTYPE_F32 || d->dtype == PHX_DTYPE_BF16 || phx_kv_has_scales(d->dtype)) &&
           !__builtin_mul_overflow((uint64_t)d->n_layers * (uint64_t)d->n_blocks,
                                   (uint64_t)d->kv_heads * (uint64_t)d->head_dim * 512, &elements);
}
