/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/kernels/small_model.h"

#include <stdlib.h>
#include <string.h>

enum { D = 64, HEADS = 4, KV_HEADS = 2, DIM = 16, F = 32, E = 3, TOP = 2, LAYERS = 2, FLOATS = 65536 };

static float next_float(uint32_t *s)
{
    *s = *s * 1664525u + 1013904223u;
    return (float)(int32_t)(*s >> 8 & 0xffffu) / 65536.0f - 0.5f;
}

static struct phx_weight *make_weight(struct phx_backend *b, enum phx_dtype dtype, int32_t n, int32_t k, int32_t n_experts,
                                      int32_t n_slices)
{
    struct phx_weight_desc   d = {dtype, n, k, n_experts, n_slices, {0}};
    static uint16_t          data[128 * 64];
    static uint8_t           scale[128 * 4];
    struct phx_weight_source s = {.data = data, .dtype = dtype == PHX_DTYPE_F32 ? PHX_DTYPE_BF16 : dtype, .k_stride = 2, .scale = scale, .n_rows = n,
                                  .row_stride = dtype == PHX_DTYPE_MXFP4 ? k / 2 : 2 * k, .scale_row_stride = k / 32};
    struct phx_weight       *w;
    uint32_t                 seed = (uint32_t)(n * 31 + k);

    for (int32_t i = 0; i < n_slices; i++)
        d.slice_end[i] = k / 32 * (i + 1) / n_slices * 32;
    for (size_t i = 0; i < sizeof(scale); i++)
        scale[i] = 124;
    w = phx_weight_create(b, &d);
    for (int32_t e = 0; e < n_experts && w != NULL; e++) {
        for (size_t i = 0; i < sizeof(data) / sizeof(data[0]); i++) {
            float    f = next_float(&seed);
            uint32_t bits;

            memcpy(&bits, &f, sizeof(bits));
            data[i] = (uint16_t)(bits >> 16);
        }
        s.expert = e;
        phx_weight_pack(b, w, &s);
    }
    return w;
}

static struct phx_tensor cut(float **at, int32_t rows, int32_t n)
{
    struct phx_tensor t = phx_view(*at, rows, n);

    *at += (size_t)rows * (size_t)n;
    return t;
}

static void place_tensors(struct small_model *m)
{
    float *at = m->memory;

    m->x = cut(&at, SMALL_ROWS, D);
    m->norm = cut(&at, SMALL_ROWS, D);
    m->gain = cut(&at, 1, D);
    m->query = cut(&at, SMALL_ROWS, HEADS * DIM);
    m->key = cut(&at, SMALL_ROWS, 2 * KV_HEADS * DIM);
    m->value = phx_columns(m->key, KV_HEADS * DIM, KV_HEADS * DIM);
    m->attn = cut(&at, SMALL_ROWS, HEADS * DIM);
    m->logits = cut(&at, SMALL_ROWS, E);
    m->gates = cut(&at, SMALL_ROWS, TOP);
    m->ids = cut(&at, SMALL_ROWS, TOP);
    m->mixed = cut(&at, SMALL_ROWS, D);
    m->scores = cut(&at, SMALL_ROWS, SMALL_VOCAB);
    m->cos = cut(&at, SMALL_POSITIONS, DIM / 2);
    m->sin = cut(&at, SMALL_POSITIONS, DIM / 2);
    m->bias = cut(&at, E, D);
    m->best = cut(&at, SMALL_ROWS, SMALL_BEST);
    m->best_ids = cut(&at, SMALL_ROWS, SMALL_BEST);
    m->lse = cut(&at, SMALL_ROWS, 1);
    m->ids.dtype = m->best_ids.dtype = PHX_DTYPE_I32;
}

static bool fill(struct small_model *m)
{
    float   *host = malloc((size_t)FLOATS * sizeof(*host));
    uint32_t seed = 5;

    if (host == NULL)
        return false;
    for (size_t i = 0; i < FLOATS; i++)
        host[i] = next_float(&seed);
    phx_upload(m->b, m->memory, host, (size_t)FLOATS * sizeof(*host));
    free(host);
    place_tensors(m);
    return phx_backend_sync(m->b, NULL) == 0;
}

/* Something in every block, 16 positions at a time. */
static bool fill_cache(struct small_model *m)
{
    for (int32_t block = 0; block < SMALL_BLOCKS; block++) {
        static const int32_t   row[1] = {0}, n[1] = {16}, pos[1] = {0};
        const struct phx_spans spans = {1, row, n, pos, &block, 1};
        struct phx_tensor      k = phx_view(m->memory + 97 * block, 16, KV_HEADS * DIM);

        for (int32_t layer = 0; layer < LAYERS; layer++)
            phx_kv_write(m->b, m->kv, layer, k, phx_view((float *)k.data + 700 * (layer + 1), 16, KV_HEADS * DIM), &spans);
        if (phx_backend_sync(m->b, NULL) != 0)
            return false;
    }
    return true;
}

bool small_model_open(struct small_model *m, bool has_prompt, bool is_eager)
{
    const struct phx_backend_options options = {.compute = PHX_COMPUTE_BF16, .is_eager = is_eager};
    const struct phx_kv_desc         kv = {LAYERS, SMALL_BLOCKS, 16, KV_HEADS, DIM, PHX_DTYPE_BF16};
    char                             why[240] = "";

    memset(m, 0, sizeof(*m));
    m->b = phx_backend_open("cuda", &options, why, sizeof(why));
    if (m->b == NULL)
        return false;
    m->table = make_weight(m->b, PHX_DTYPE_BF16, SMALL_VOCAB, D, 1, 1);
    m->q = make_weight(m->b, PHX_DTYPE_BF16, HEADS * DIM, D, 1, 1);
    m->kv_proj = make_weight(m->b, PHX_DTYPE_F16, 2 * KV_HEADS * DIM, D, 1, 1);
    m->router = make_weight(m->b, PHX_DTYPE_F32, E, D, 1, 1);
    m->up = make_weight(m->b, PHX_DTYPE_MXFP4, 2 * F, D, E, 1);
    m->down = make_weight(m->b, PHX_DTYPE_MXFP4, D, F, E, 1);
    m->head = make_weight(m->b, PHX_DTYPE_BF16, SMALL_VOCAB, D, 1, 2);
    m->kv = phx_kv_create(m->b, &kv);
    m->memory = phx_backend_alloc(m->b, (size_t)FLOATS * sizeof(float));
    if (m->memory == NULL || m->kv == NULL || m->head == NULL || m->down == NULL || m->up == NULL)
        return false;
    phx_moe_reserve(m->b, SMALL_ROWS, TOP, m->up, m->down);
    return fill(m) && (!has_prompt || fill_cache(m));
}

void small_model_close(struct small_model *m)
{
    if (m->b == NULL)
        return;
    phx_weight_destroy(m->b, m->table);
    phx_weight_destroy(m->b, m->q);
    phx_weight_destroy(m->b, m->kv_proj);
    phx_weight_destroy(m->b, m->router);
    phx_weight_destroy(m->b, m->up);
    phx_weight_destroy(m->b, m->down);
    phx_weight_destroy(m->b, m->head);
    phx_kv_destroy(m->b, m->kv);
    phx_backend_free(m->b, m->memory);
    phx_backend_close(m->b);
}

static void run_layer(struct small_model *m, int32_t layer, int32_t n, const struct phx_spans *spans)
{
    struct phx_tensor none = {0}, x = phx_rows(m->x, n), norm = phx_rows(m->norm, n), mixed = phx_rows(m->mixed, n);
    struct phx_tensor query = phx_rows(m->query, n), keys = phx_rows(m->key, n), attn = phx_rows(m->attn, n);
    struct phx_tensor key = phx_columns(keys, 0, KV_HEADS * DIM), ids = phx_rows(m->ids, n), gates = phx_rows(m->gates, n);
    struct phx_attention_args attention = {.out = attn, .q = query, .kv = m->kv, .layer = layer, .n_heads = HEADS,
                                           .window = layer == 1 ? SMALL_WINDOW : 0, .group = HEADS / KV_HEADS,
                                           .scale = 0.25f, .spans = spans};
    struct phx_moe_args       moe = {.out = mixed, .x = norm, .ids = ids, .gates = gates, .gate_up = m->up,
                                     .down = m->down, .kind = PHX_GLU_OAI, .limit = 7};
    struct phx_add_norm_args  middle = {.x = x, .y = mixed, .norm = norm, .gain = m->gain, .eps = 1e-5f}, end = middle;
    struct phx_mixture_args   mixture = {.experts = &moe, .router = m->router, .logits = phx_rows(m->logits, n), .end = &end};

    end.ids = ids;
    end.gates = gates;
    end.expert_bias = m->bias;
    phx_rmsnorm(m->b, norm, x, m->gain, 1e-5f);
    phx_matmul(m->b, query, norm, m->q, none);
    phx_matmul(m->b, keys, norm, m->kv_proj, none);
    phx_rope(m->b, query, DIM, spans, m->cos, m->sin);
    phx_rope(m->b, key, DIM, spans, m->cos, m->sin);
    phx_kv_write(m->b, m->kv, layer, key, phx_rows(m->value, n), spans);
    phx_attention(m->b, &attention);
    if (layer == 1) { /* few rows: in two launches besides the first product of the experts */
        phx_matmul_add_norm(m->b, attn, m->q, &middle);
        phx_mixture(m->b, &mixture);
        return;
    }
    phx_add(m->b, x, attn);
    phx_matmul(m->b, phx_rows(m->logits, n), norm, m->router, none);
    phx_moe_route(m->b, ids, gates, phx_rows(m->logits, n));
    phx_moe_ffn(m->b, &moe);
    phx_moe_bias(m->b, mixed, ids, gates, m->bias);
    phx_add(m->b, x, mixed);
    phx_add_row(m->b, x, m->gain);
}

void small_model_ops(struct small_model *m, const struct phx_step_inputs *in)
{
    struct phx_tensor picked = phx_rows(m->norm, in->n_picked), scores = phx_rows(m->scores, in->n_picked);

    phx_embed(m->b, phx_rows(m->x, in->n_rows), in->ids, m->table, 0);
    for (int32_t layer = 0; layer < LAYERS; layer++)
        run_layer(m, layer, in->n_rows, in->spans);
    phx_gather_rows(m->b, picked, phx_rows(m->x, in->n_rows), in->picked);
    phx_matmul(m->b, scores, picked, m->head, (struct phx_tensor){0});
    phx_top(m->b, phx_rows(m->best_ids, in->n_picked), phx_rows(m->best, in->n_picked), phx_rows(m->lse, in->n_picked),
            scores);
}
