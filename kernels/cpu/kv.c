/* SPDX-License-Identifier: Apache-2.0
 * The paged cache.  For float32 attention keys lie transposed in blocks of 16 positions, so that scores of 16
 * positions are one vector, and values row by row.  For rounded attention both are A tiles of the matrix unit:
 * keys 16 positions x 32 d, values 16 d x the positions of the block; what no dim fills stays 0.
 * A cache of bytes has one scale per token and head: x = scale * q, scale = largest |x| / 127 (int8) or / 448 (E4M3,
 * kernels/f8.h), q the nearest. */
#include <math.h>
#include <string.h>

#include "kernels/cpu/isa.h"
#include "kernels/f8.h"
#include "kernels/memory.h"

static void plan_kv(struct cpu_kv *kv, const struct phx_kv_desc *desc)
{
    kv->desc = *desc;
    kv->element_bytes = desc->dtype == PHX_DTYPE_BF16 ? 2 : phx_kv_has_scales(desc->dtype) ? 1 : 4;
    kv->token_stride = (size_t)desc->head_dim + (phx_kv_has_scales(desc->dtype) ? sizeof(float) : 0);
    kv->head_stride = (size_t)desc->block_tokens * kv->token_stride;
    if (desc->dtype == PHX_DTYPE_BF16) /* either layout fits */
        kv->head_stride = (size_t)desc->block_tokens * (((size_t)desc->head_dim + 31) / 32 * 32);
    kv->block_stride = kv->head_stride * (size_t)desc->kv_heads;
    kv->layer_stride = kv->block_stride * (size_t)desc->n_blocks;
}

size_t phx_cpu_kv_bytes(const struct phx_kv_desc *desc)
{
    struct cpu_kv kv;

    plan_kv(&kv, desc);
    return 2 * kv.layer_stride * (size_t)desc->n_layers * kv.element_bytes;
}

void *phx_cpu_kv_create(void *device, const struct phx_kv_desc *desc)
{
    struct cpu_kv *kv = phx_memory_alloc(sizeof(*kv));
    size_t         bytes;

    if (kv == NULL)
        return NULL;
    plan_kv(kv, desc);
    kv->is_tiled = desc->dtype == PHX_DTYPE_BF16 && ((const struct cpu_device *)device)->compute == PHX_COMPUTE_BF16;
    bytes = phx_cpu_kv_bytes(desc) / 2;
    kv->k = phx_memory_alloc(bytes);
    kv->v = phx_memory_alloc(bytes);
    if (kv->k == NULL || kv->v == NULL) {
        phx_cpu_kv_destroy(device, kv);
        return NULL;
    }
    return kv;
}

void phx_cpu_kv_destroy(void *device, void *cache)
{
    struct cpu_kv *kv = cache;

    (void)device; /* host memory needs no device */
    phx_memory_free(kv->k);
    phx_memory_free(kv->v);
    phx_memory_free(kv);
}

/* Round to nearest, ties to even; NaN stays NaN. */
static uint16_t float_to_bf16(float f)
{
    uint32_t bits;

    memcpy(&bits, &f, sizeof(bits));
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)((bits >> 16) | 0x40u);
    return (uint16_t)((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
}

static void store(unsigned char *pool, size_t at, float f, bool is_bf16)
{
    if (is_bf16)
        ((uint16_t *)(void *)pool)[at] = float_to_bf16(f);
    else
        ((float *)(void *)pool)[at] = f;
}

static void write_row(struct cpu_kv *kv, int32_t layer, int32_t block, int32_t offset, const float *k,
                      const float *v)
{
    bool    is_bf16 = kv->desc.dtype == PHX_DTYPE_BF16;
    int32_t head_dim = kv->desc.head_dim, sub = offset / SUB_TOKENS, in = offset % SUB_TOKENS;

    for (int32_t h = 0; h < kv->desc.kv_heads; h++) {
        size_t base = (size_t)layer * kv->layer_stride + (size_t)block * kv->block_stride +
                      (size_t)h * kv->head_stride + (size_t)sub * SUB_TOKENS * (size_t)head_dim;

        for (int32_t d = 0; d < head_dim; d++) {
            store(kv->k, base + (size_t)d * SUB_TOKENS + (size_t)in, k[h * head_dim + d], is_bf16);
            store(kv->v, base + (size_t)in * (size_t)head_dim + (size_t)d, v[h * head_dim + d],
                  is_bf16);
        }
    }
}

static void write_tiled_row(struct cpu_kv *kv, int32_t layer, int32_t block, int32_t offset, const float *k,
                            const float *v)
{
    size_t  head_dim = (size_t)kv->desc.head_dim, block_tokens = (size_t)kv->desc.block_tokens;
    size_t  padded_dim = kv->head_stride / block_tokens;
    int32_t sub = offset / SUB_TOKENS, in = offset % SUB_TOKENS;

    for (int32_t h = 0; h < kv->desc.kv_heads; h++) {
        size_t base = (size_t)layer * kv->layer_stride + (size_t)block * kv->block_stride + (size_t)h * kv->head_stride;
        uint16_t *keys = (uint16_t *)(void *)kv->k + base + (size_t)sub * SUB_TOKENS * padded_dim + (size_t)in * 32;
        uint16_t *values = (uint16_t *)(void *)kv->v + base + (size_t)offset;

        for (size_t d = 0; d < head_dim; d += 32)
            for (size_t i = 0; i < 32 && d + i < head_dim; i++)
                keys[d * SUB_TOKENS + i] = float_to_bf16(k[d + i]);
        for (size_t d = 0; d < head_dim; d++)
            values[d * block_tokens] = float_to_bf16(v[d]);
        k += head_dim;
        v += head_dim;
    }
}

/* Not a number when one of them is none, or infinite. */
static float find_scale(const float *x, int32_t n, float most)
{
    float top = 0.0f, strange = 0.0f;

    for (int32_t i = 0; i < n; i++) {
        top = fabsf(x[i]) > top ? fabsf(x[i]) : top;
        strange += x[i] - x[i];
    }
    if (strange != 0.0f)
        return NAN;
    return top < 0x1p-100f ? 0.0f : top / most;
}

/* A token's values, `step` apart, and its scale at *scale. */
static void store_bytes(const struct cpu_kv *kv, unsigned char *to, size_t step, unsigned char *scale_at, const float *x)
{
    bool    is_f8 = kv->desc.dtype == PHX_DTYPE_F8_E4M3;
    int32_t n = kv->desc.head_dim;
    float   scale = find_scale(x, n, is_f8 ? PHX_F8_MAX : 127.0f), inverse = scale > 0.0f ? 1.0f / scale : 0.0f;

    for (int32_t i = 0; i < n; i++)
        to[(size_t)i * step] = !(inverse > 0.0f) ? 0
                               : is_f8           ? phx_f8_bits(x[i] * inverse)
                                                 : (unsigned char)(signed char)lrintf(x[i] * inverse);
    memcpy(scale_at, &scale, sizeof(scale));
}

static void write_byte_row(struct cpu_kv *kv, int32_t layer, int32_t block, int32_t offset, const float *k,
                         const float *v)
{
    size_t head_dim = (size_t)kv->desc.head_dim, in = (size_t)(offset % SUB_TOKENS), scales = head_dim * SUB_TOKENS;

    for (int32_t h = 0; h < kv->desc.kv_heads; h++) {
        size_t base = (size_t)layer * kv->layer_stride + (size_t)block * kv->block_stride +
                      (size_t)h * kv->head_stride + (size_t)(offset / SUB_TOKENS) * SUB_TOKENS * kv->token_stride;

        store_bytes(kv, kv->k + base + in, SUB_TOKENS, kv->k + base + scales + in * sizeof(float), k + (size_t)h * head_dim);
        store_bytes(kv, kv->v + base + in * head_dim, 1, kv->v + base + scales + in * sizeof(float), v + (size_t)h * head_dim);
    }
}

typedef void (*write_row_fn)(struct cpu_kv *kv, int32_t layer, int32_t block, int32_t offset, const float *k,
                             const float *v);

static write_row_fn pick_write(const struct cpu_kv *kv)
{
    if (phx_kv_has_scales(kv->desc.dtype))
        return write_byte_row;
    return kv->is_tiled ? write_tiled_row : write_row;
}

struct write_call {
    struct cpu_kv          *kv;
    struct phx_tensor       k, v;
    const struct phx_spans *spans;
    int32_t                 layer;
};

static void run_write(void *ctx, int32_t member, int32_t first, int32_t end)
{
    const struct write_call *c = ctx;
    const struct phx_spans  *spans = c->spans;
    int32_t                  block_tokens = c->kv->desc.block_tokens;
    write_row_fn             fn = pick_write(c->kv);

    (void)member;
    for (int32_t s = 0; s < spans->n_seqs; s++) {
        const int32_t *table = spans->table + (size_t)s * (size_t)spans->table_stride;
        int32_t        row = spans->row[s] > first ? spans->row[s] : first;
        int32_t        stop = spans->row[s] + spans->n_rows[s];

        for (; row < stop && row < end; row++) {
            int32_t pos = spans->pos[s] + row - spans->row[s];

            fn(c->kv, c->layer, table[pos / block_tokens], pos % block_tokens,
               (const float *)c->k.data + row * c->k.stride0, (const float *)c->v.data + row * c->v.stride0);
        }
    }
}

void phx_cpu_kv_write(void *device, void *cache, int32_t layer, struct phx_tensor k,
                      struct phx_tensor v, const struct phx_spans *spans)
{
    struct cpu_device *d = device;
    struct write_call  c = {cache, k, v, spans, layer};

    phx_team_run(d->team, k.dim[0], run_write, &c);
}
