/* SPDX-License-Identifier: Apache-2.0
 * Which slices of which tensors a rank holds.  Names are bound to roles here and nowhere else; how
 * bytes become packed weights is pack.c's business. */
#include <stdio.h>
#include <string.h>

#include "rpc/base/mem.h"
#include "shard/model/pack.h"

enum { CHUNK_BYTES = 32 << 20 };

struct loader {
    struct phx_packer              packer;
    const struct phx_model_config *config;
    const struct phx_part         *part;
    const struct phx_checkpoint   *checkpoint;
    int32_t                        global_layer; /* being bound */
    struct phx_layer              *layer;
};

static int32_t count(struct phx_range r)
{
    return r.end - r.first;
}

/* The tensor of that name in the layer being bound; the inventory has proven that it is there. */
static const struct phx_ckpt_tensor *find(const struct loader *l, const char *name)
{
    char full[PHX_CKPT_NAME_MAX];
    (void)snprintf(full, sizeof full, "model.layers.%d.%s", l->global_layer, name);
    const struct phx_ckpt_tensor *t = phx_checkpoint_find(l->checkpoint, full);
    phx_assert(t != NULL);
    return t;
}

/* The scales of a matrix that lies as int8; NULL when it does not. */
static const struct phx_ckpt_tensor *find_scales(const struct loader *l, const struct phx_ckpt_tensor *t)
{
    char name[PHX_CKPT_NAME_MAX + 16];
    if (t->dtype != PHX_CKPT_I8)
        return NULL;
    (void)snprintf(name, sizeof name, "%s_scales", t->name);
    const struct phx_ckpt_tensor *scales = phx_checkpoint_find(l->checkpoint, name);
    phx_assert(scales != NULL); /* by the inventory */
    return scales;
}

/* The group of a quantised matrix that begins at k. */
static int find_group(const struct loader *l, const struct phx_ckpt_tensor *t, int32_t k, int32_t *group,
                      struct phx_err *err)
{
    struct phx_weight_desc desc;
    *group = 0;
    if (t->dtype != PHX_CKPT_I8 || !phx_inventory_quantised(l->config, t->name, &desc))
        return 0;
    if (!l->part->is_layout_invariant)
        return phx_fail(err, PHX_E_UNSUPPORTED, "tensor %s: its groups fit tp 1, 2, 4 and 8, not %d", t->name,
                        l->part->tp_size);
    while (desc.n_slices > 1 && desc.slice_end[desc.n_slices - 1] > k)
        desc.n_slices--;
    if (desc.slice_end[desc.n_slices - 1] <= k)
        *group = phx_i8_groups(&desc);
    return 0;
}

/* ---- small pieces --------------------------------------------------------------------------- */

static int load_vector(struct loader *l, const char *name, int32_t first, int32_t n,
                       struct phx_tensor *out, struct phx_err *err)
{
    int code = phx_pack_alloc(&l->packer, name, 1, n, out, err);
    return code != 0 ? code : phx_pack_vector(&l->packer, find(l, name), first, 1, n, *out, 0, err);
}

/* Rows [first, first + n) of a plain matrix, all columns, at dst_row. */
static int pack_rows(struct loader *l, struct phx_weight *w, const struct phx_ckpt_tensor *t,
                     int32_t first, int32_t n, int32_t dst_row, struct phx_err *err)
{
    struct phx_rect r = {.tensor = t, .scales = find_scales(l, t), .lie = PHX_LIE_OUT_IN, .row = first,
                         .row_step = 1, .n_rows = n, .k = 0, .n_k = (int32_t)t->dim[1], .dst_row = dst_row};
    return phx_pack_rect(&l->packer, w, &r, err);
}

/* All rows of a plain matrix, columns [first, first + n). */
static int pack_columns(struct loader *l, struct phx_weight *w, const struct phx_ckpt_tensor *t,
                        int32_t first, int32_t n, struct phx_err *err)
{
    struct phx_rect r = {.tensor = t, .scales = find_scales(l, t), .lie = PHX_LIE_OUT_IN, .row = 0,
                         .row_step = 1, .n_rows = (int32_t)t->dim[0], .k = first, .n_k = n};
    int code = find_group(l, t, first, &r.group, err);
    return code != 0 ? code : phx_pack_rect(&l->packer, w, &r, err);
}

static struct phx_weight_desc whole(enum phx_dtype dtype, int32_t n, int32_t k, int32_t n_experts)
{
    struct phx_weight_desc desc = {.dtype = dtype, .n = n, .k = k, .n_experts = n_experts,
                                   .n_slices = 1, .slice_end = {k}};
    return desc;
}

/* A dense matrix as its tensor has it, or quantised. */
static enum phx_dtype packed_as(const struct loader *l, enum phx_dtype own)
{
    return l->config->dtype == PHX_DTYPE_I8 ? PHX_DTYPE_I8 : own;
}

static struct phx_weight_desc sliced(enum phx_dtype dtype, int32_t n, int32_t k, int32_t n_experts,
                                     int32_t n_slices, const int32_t *slice_end)
{
    struct phx_weight_desc desc = whole(dtype, n, k, n_experts);
    desc.n_slices = n_slices;
    memcpy(desc.slice_end, slice_end, (size_t)n_slices * sizeof *slice_end);
    return desc;
}

/* ---- attention ------------------------------------------------------------------------------ */

/* q, k and v of this rank's heads as one matrix: the rows of q, then k, then v. */
static int load_qkv(struct loader *l, struct phx_err *err)
{
    static const char *const name[3][2] = {
        {"self_attn.q_proj.weight", "self_attn.q_proj.bias"},
        {"self_attn.k_proj.weight", "self_attn.k_proj.bias"},
        {"self_attn.v_proj.weight", "self_attn.v_proj.bias"}};
    const struct phx_model_config *c = l->config;
    const struct phx_range         heads[3] = {l->part->heads, l->part->kv_heads, l->part->kv_heads};
    struct phx_layer              *w = l->layer;
    enum phx_dtype                 dtype = phx_pack_dtype(find(l, name[0][0]));
    int32_t                        n = 0;
    for (int32_t i = 0; i < 3; i++) {
        dtype = phx_pack_wider(dtype, phx_pack_dtype(find(l, name[i][0])));
        n += count(heads[i]) * c->head_dim;
    }
    struct phx_weight_desc desc = whole(packed_as(l, dtype), n, c->dim, 1);
    int code = phx_pack_create(&l->packer, "self_attn.{q,k,v}_proj", &desc, &w->attn_qkv, err);
    if (code == 0 && c->has_attn_bias)
        code = phx_pack_alloc(&l->packer, "self_attn.{q,k,v}_proj.bias", 1, n, &w->attn_qkv_bias, err);
    for (int32_t i = 0, row = 0; i < 3 && code == 0; i++) {
        int32_t first = heads[i].first * c->head_dim, rows = count(heads[i]) * c->head_dim;
        code = pack_rows(l, w->attn_qkv, find(l, name[i][0]), first, rows, row, err);
        if (code == 0 && c->has_attn_bias)
            code = phx_pack_vector(&l->packer, find(l, name[i][1]), first, 1, rows,
                                   w->attn_qkv_bias, row, err);
        row += rows;
    }
    return code;
}

static int load_attention(struct loader *l, struct phx_err *err)
{
    const struct phx_model_config *c = l->config;
    const struct phx_part         *part = l->part;
    struct phx_layer              *w = l->layer;
    const struct phx_ckpt_tensor  *out = find(l, "self_attn.o_proj.weight");
    int32_t                        k = count(part->heads) * c->head_dim;
    struct phx_weight_desc desc = sliced(packed_as(l, phx_pack_dtype(out)), c->dim, k, 1, part->n_slices,
                                         part->attn_slice_end);
    int code = load_vector(l, "input_layernorm.weight", 0, c->dim, &w->attn_norm, err);
    if (code == 0)
        code = load_qkv(l, err);
    if (code == 0)
        code = phx_pack_create(&l->packer, out->name, &desc, &w->attn_out, err);
    if (code == 0)
        code = pack_columns(l, w->attn_out, out, part->heads.first * c->head_dim, k, err);
    if (code == 0 && c->has_attn_bias)
        code = load_vector(l, "self_attn.o_proj.bias", 0, c->dim, &w->attn_out_bias, err);
    if (code == 0 && c->has_sinks)
        code = load_vector(l, "self_attn.sinks", part->heads.first, count(part->heads), &w->sinks, err);
    if (code == 0)
        code = load_vector(l, "post_attention_layernorm.weight", 0, c->dim, &w->ffn_norm, err);
    return code;
}

/* ---- the dense ffn -------------------------------------------------------------------------- */

static int load_dense_bias(struct loader *l, struct phx_err *err)
{
    struct phx_layer *w = l->layer;
    int32_t           n = count(l->part->ffn), first = l->part->ffn.first;
    int code = phx_pack_alloc(&l->packer, "mlp.{gate,up}_proj.bias", 1, 2 * n, &w->gate_up_bias, err);
    if (code == 0)
        code = phx_pack_vector(&l->packer, find(l, "mlp.gate_proj.bias"), first, 1, n,
                               w->gate_up_bias, 0, err);
    if (code == 0)
        code = phx_pack_vector(&l->packer, find(l, "mlp.up_proj.bias"), first, 1, n,
                               w->gate_up_bias, n, err);
    if (code == 0)
        code = load_vector(l, "mlp.down_proj.bias", 0, l->config->dim, &w->down_bias, err);
    return code;
}

static int load_dense(struct loader *l, struct phx_err *err)
{
    const struct phx_model_config *c = l->config;
    const struct phx_part         *part = l->part;
    struct phx_layer              *w = l->layer;
    const struct phx_ckpt_tensor  *gate = find(l, "mlp.gate_proj.weight");
    const struct phx_ckpt_tensor  *up = find(l, "mlp.up_proj.weight");
    const struct phx_ckpt_tensor  *down = find(l, "mlp.down_proj.weight");
    int32_t                        n = count(part->ffn), first = part->ffn.first;
    struct phx_weight_desc gate_up_desc =
        whole(packed_as(l, phx_pack_wider(phx_pack_dtype(gate), phx_pack_dtype(up))), 2 * n, c->dim, 1);
    struct phx_weight_desc down_desc = sliced(packed_as(l, phx_pack_dtype(down)), c->dim, n, 1,
                                              part->n_slices, part->ffn_slice_end);
    int code = phx_pack_create(&l->packer, "mlp.{gate,up}_proj", &gate_up_desc, &w->gate_up, err);
    if (code == 0)
        code = pack_rows(l, w->gate_up, gate, first, n, 0, err);
    if (code == 0)
        code = pack_rows(l, w->gate_up, up, first, n, n, err);
    if (code == 0)
        code = phx_pack_create(&l->packer, down->name, &down_desc, &w->down, err);
    if (code == 0)
        code = pack_columns(l, w->down, down, first, n, err);
    if (code == 0 && c->has_mlp_bias)
        code = load_dense_bias(l, err);
    return code;
}

/* ---- the experts ---------------------------------------------------------------------------- */

/* The stack "mlp.experts.NAME": MXFP4 blocks as [out, in], or a plain stack as [in, out]. */
static struct phx_rect expert_rect(const struct loader *l, const char *name)
{
    char suffix[96];
    struct phx_rect r = {.lie = PHX_LIE_IN_OUT, .row_step = 1};
    (void)snprintf(suffix, sizeof suffix, "mlp.experts.%s", name);
    if (l->config->expert_dtype == PHX_DTYPE_MXFP4) {
        (void)snprintf(suffix, sizeof suffix, "mlp.experts.%s_scales", name);
        r.scales = find(l, suffix);
        (void)snprintf(suffix, sizeof suffix, "mlp.experts.%s_blocks", name);
        r.lie = PHX_LIE_BLOCKS;
    }
    r.tensor = find(l, suffix);
    return r;
}

static enum phx_dtype expert_dtype(const struct phx_rect *r)
{
    return r->lie == PHX_LIE_BLOCKS ? PHX_DTYPE_MXFP4 : phx_pack_dtype(r->tensor);
}

/* Rows of gate and up alternate in the file (even = gate) and become two halves. */
static int load_gate_up(struct loader *l, struct phx_err *err)
{
    const struct phx_model_config *c = l->config;
    struct phx_layer              *w = l->layer;
    int32_t                        n = count(l->part->ffn), first = 2 * l->part->ffn.first;
    struct phx_rect                r = expert_rect(l, "gate_up_proj");
    const struct phx_ckpt_tensor  *bias = find(l, "mlp.experts.gate_up_proj_bias");
    struct phx_weight_desc         desc = whole(expert_dtype(&r), 2 * n, c->dim, c->n_experts);
    int code = phx_pack_create(&l->packer, r.tensor->name, &desc, &w->gate_up, err);
    if (code == 0)
        code = phx_pack_alloc(&l->packer, bias->name, c->n_experts, 2 * n, &w->gate_up_bias, err);
    for (int32_t i = 0; i < 2 * c->n_experts && code == 0; i++) {
        int32_t expert = i / 2, half = i % 2;
        r.expert = expert;
        r.row = first + half;
        r.row_step = 2;
        r.n_rows = n;
        r.n_k = c->dim;
        r.dst_row = half * n;
        r.is_kept = half == 0; /* the other half lies in the same pages */
        code = phx_pack_rect(&l->packer, w->gate_up, &r, err);
        if (code == 0)
            code = phx_pack_vector(&l->packer, bias, 2 * (int64_t)c->ffn_dim * expert + r.row, 2, n,
                                   w->gate_up_bias, (int64_t)i * n, err);
    }
    return code;
}

static int load_down(struct loader *l, struct phx_err *err)
{
    const struct phx_model_config *c = l->config;
    const struct phx_part         *part = l->part;
    struct phx_layer              *w = l->layer;
    struct phx_rect                r = expert_rect(l, "down_proj");
    const struct phx_ckpt_tensor  *bias = find(l, "mlp.experts.down_proj_bias");
    struct phx_weight_desc desc = sliced(expert_dtype(&r), c->dim, count(part->ffn), c->n_experts,
                                         part->n_slices, part->ffn_slice_end);
    r.n_rows = c->dim;
    r.k = part->ffn.first;
    r.n_k = count(part->ffn);
    int code = phx_pack_create(&l->packer, r.tensor->name, &desc, &w->down, err);
    for (r.expert = 0; r.expert < c->n_experts && code == 0; r.expert++)
        code = phx_pack_rect(&l->packer, w->down, &r, err);
    if (code == 0)
        code = phx_pack_alloc(&l->packer, bias->name, c->n_experts, c->dim, &w->down_bias, err);
    if (code == 0)
        code = phx_pack_vector(&l->packer, bias, 0, 1, c->n_experts * c->dim, w->down_bias, 0, err);
    return code;
}

static int load_experts(struct loader *l, struct phx_err *err)
{
    const struct phx_model_config *c = l->config;
    struct phx_layer              *w = l->layer;
    const struct phx_ckpt_tensor  *router = find(l, "mlp.router.weight");
    /* float32 products in every mode: a rounded one could choose another expert */
    struct phx_weight_desc         desc = whole(PHX_DTYPE_F32, c->n_experts, c->dim, 1);
    int code = phx_pack_create(&l->packer, router->name, &desc, &w->router, err);
    if (code == 0)
        code = pack_rows(l, w->router, router, 0, c->n_experts, 0, err);
    if (code == 0)
        code = load_vector(l, "mlp.router.bias", 0, c->n_experts, &w->router_bias, err);
    if (code == 0)
        code = load_gate_up(l, err);
    if (code == 0)
        code = load_down(l, err);
    return code;
}

/* ---- both ends ------------------------------------------------------------------------------ */

static int load_vocabulary(struct loader *l, const char *name, struct phx_weight **out,
                           struct phx_err *err)
{
    const struct phx_ckpt_tensor *t = phx_checkpoint_find(l->checkpoint, name);
    int32_t                       n = count(l->part->vocab);
    phx_assert(t != NULL);
    struct phx_weight_desc desc = whole(packed_as(l, phx_pack_dtype(t)), n, l->config->dim, 1);
    int code = phx_pack_create(&l->packer, name, &desc, out, err);
    return code != 0 ? code : pack_rows(l, *out, t, l->part->vocab.first, n, 0, err);
}

/* A tied checkpoint may carry lm_head.weight once more: then it has to be the same table. */
static int check_tied_head(const struct loader *l, struct phx_err *err)
{
    const struct phx_ckpt_tensor *head = phx_checkpoint_find(l->checkpoint, "lm_head.weight");
    const struct phx_ckpt_tensor *table =
        phx_checkpoint_find(l->checkpoint, "model.embed_tokens.weight");
    if (head == NULL)
        return 0;
    bool is_same = head->dtype == table->dtype && head->size_bytes == table->size_bytes;
    uint64_t row_bytes = table->size_bytes / (uint64_t)l->config->vocab_size;
    uint64_t first = row_bytes * (uint64_t)l->part->vocab.first;
    uint64_t size_bytes = row_bytes * (uint64_t)count(l->part->vocab);
    if (is_same)
        is_same = memcmp(head->data + first, table->data + first, (size_t)size_bytes) == 0;
    phx_checkpoint_drop(head, 0, head->size_bytes);
    phx_checkpoint_drop(table, 0, table->size_bytes);
    return is_same ? 0
                   : phx_fail(err, PHX_E_UNSUPPORTED,
                              "tensor lm_head.weight differs from model.embed_tokens.weight although "
                              "config.json says tie_word_embeddings");
}

static int load_ends(struct loader *l, struct phx_weights *w, struct phx_err *err)
{
    const struct phx_part *part = l->part;
    bool is_first = part->pp == 0, is_last = part->pp == part->pp_size - 1;
    const char *head = l->config->is_tied ? "model.embed_tokens.weight" : "lm_head.weight";
    int         code = l->config->is_tied && !l->packer.is_listing ? check_tied_head(l, err) : 0;
    if (code == 0 && is_first)
        code = load_vocabulary(l, "model.embed_tokens.weight", &w->embedding, err);
    if (code == 0 && is_last && is_first && l->config->is_tied)
        w->head = w->embedding;
    else if (code == 0 && is_last)
        code = load_vocabulary(l, head, &w->head, err);
    if (code == 0 && is_last) {
        const struct phx_ckpt_tensor *norm = phx_checkpoint_find(l->checkpoint, "model.norm.weight");
        phx_assert(norm != NULL);
        code = phx_pack_alloc(&l->packer, norm->name, 1, l->config->dim, &w->final_norm, err);
        if (code == 0)
            code = phx_pack_vector(&l->packer, norm, 0, 1, l->config->dim, w->final_norm, 0, err);
    }
    return code;
}

/* All weights of the part in the order in which they are packed; layers: of this rank. */
static int walk(struct loader *l, const struct phx_part *part, struct phx_weights *w, struct phx_err *err)
{
    int code = load_ends(l, w, err);
    for (int32_t i = 0; i < count(part->layers) && code == 0; i++) {
        struct phx_layer layer = {0};
        l->global_layer = part->layers.first + i;
        l->layer = l->packer.is_listing ? &layer : &w->layers[i];
        l->layer->index = i;
        l->layer->window = l->config->window[l->global_layer];
        code = load_attention(l, err);
        if (code == 0)
            code = l->config->n_experts > 0 ? load_experts(l, err) : load_dense(l, err);
    }
    return code;
}

/* Goes through the weights once without touching them: what there is to read, and reading can run ahead of packing. */
static int start_ahead(struct loader *l, struct phx_err *err)
{
    struct loader      listing = *l;
    struct phx_weights none = {0};
    listing.packer.is_listing = true;
    int code = walk(&listing, l->part, &none, err);
    l->packer.total_bytes = listing.packer.total_bytes;
    if (code == 0)
        phx_ahead_start(l->packer.ahead);
    return code;
}

int phx_weights_load(const struct phx_model_options *o, const struct phx_checkpoint *checkpoint,
                     struct phx_weights *w, struct phx_err *err)
{
    struct loader l = {
        .packer = {.backend = o->backend, .progress = o->progress, .progress_ctx = o->progress_ctx,
                   .chunk_bytes = CHUNK_BYTES, .ahead = phx_ahead_create()},
        .config = o->config, .part = o->part, .checkpoint = checkpoint};
    w->n_layers = count(o->part->layers);
    w->layers = phx_mem_calloc((size_t)w->n_layers, sizeof *w->layers);
    int code = start_ahead(&l, err);
    if (code == 0)
        code = walk(&l, o->part, w, err);
    if (code == 0)
        code = phx_pack_finish(&l.packer, err);
    phx_ahead_destroy(l.packer.ahead);
    w->size_bytes = l.packer.allocated_bytes;
    if (code == 0 && o->progress != NULL)
        o->progress(o->progress_ctx, l.packer.total_bytes, l.packer.total_bytes);
    if (code != 0)
        phx_weights_free(o->backend, w);
    return code;
}

void phx_weights_free(struct phx_backend *b, struct phx_weights *w)
{
    for (int32_t i = 0; w->layers != NULL && i < w->n_layers; i++) {
        struct phx_layer  *l = &w->layers[i];
        struct phx_weight *weights[] = {l->attn_qkv, l->attn_out, l->router, l->gate_up, l->down};
        void *vectors[] = {l->attn_norm.data, l->attn_qkv_bias.data, l->sinks.data,
                           l->attn_out_bias.data, l->ffn_norm.data, l->router_bias.data,
                           l->gate_up_bias.data, l->down_bias.data};
        for (size_t j = 0; j < sizeof weights / sizeof *weights; j++)
            if (weights[j] != NULL)
                phx_weight_destroy(b, weights[j]);
        for (size_t j = 0; j < sizeof vectors / sizeof *vectors; j++)
            if (vectors[j] != NULL)
                phx_backend_free(b, vectors[j]);
    }
    if (w->embedding != NULL)
        phx_weight_destroy(b, w->embedding);
    if (w->head != NULL && w->head != w->embedding)
        phx_weight_destroy(b, w->head);
    if (w->final_norm.data != NULL)
        phx_backend_free(b, w->final_norm.data);
    phx_mem_free(w->layers);
    memset(w, 0, sizeof *w);
}
