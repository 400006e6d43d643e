/* SPDX-License-Identifier: Apache-2.0
 * The tensors each architecture publishes: names, shapes, order and cut into files. */
#include <stdio.h>
#include <string.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "shard/tool/synth.h"

/* When a rule applies. */
enum need { ALWAYS, IF_ATTN_BIAS, IF_MLP_BIAS, IF_UNTIED, IF_PACKED, IF_PLAIN, IF_DENSE, IF_SPARSE };

/* name: %d takes the layer, then (with each_expert) the expert.  shape: a letter per dimension. */
struct rule {
    const char         *name, *shape;
    enum phx_synth_fill fill;
    enum need           need;
    bool                each_expert;
};

#define L "model.layers.%d."

static const struct rule top_rules[] = {{"model.embed_tokens.weight", "VD", PHX_FILL_WEIGHT, ALWAYS, 0}};
static const struct rule end_rules[] = {{"model.norm.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
                                        {"lm_head.weight", "VD", PHX_FILL_WEIGHT, IF_UNTIED, 0}};

static const struct rule oss_rules[] = {
    {L "input_layernorm.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
    {L "mlp.experts.down_proj", "EFD", PHX_FILL_WEIGHT, IF_PLAIN, 0},
    {L "mlp.experts.down_proj_bias", "ED", PHX_FILL_BIAS, ALWAYS, 0},
    {L "mlp.experts.down_proj_blocks", "EDfx", PHX_FILL_BLOCKS, IF_PACKED, 0},
    {L "mlp.experts.down_proj_scales", "EDf", PHX_FILL_SCALES, IF_PACKED, 0},
    {L "mlp.experts.gate_up_proj", "EDG", PHX_FILL_WEIGHT, IF_PLAIN, 0},
    {L "mlp.experts.gate_up_proj_bias", "EG", PHX_FILL_BIAS, ALWAYS, 0},
    {L "mlp.experts.gate_up_proj_blocks", "EGdx", PHX_FILL_BLOCKS, IF_PACKED, 0},
    {L "mlp.experts.gate_up_proj_scales", "EGd", PHX_FILL_SCALES, IF_PACKED, 0},
    {L "mlp.router.bias", "E", PHX_FILL_BIAS, ALWAYS, 0},
    {L "mlp.router.weight", "ED", PHX_FILL_WEIGHT, ALWAYS, 0},
    {L "post_attention_layernorm.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
    {L "self_attn.k_proj.bias", "K", PHX_FILL_BIAS, IF_ATTN_BIAS, 0},
    {L "self_attn.k_proj.weight", "KD", PHX_FILL_WEIGHT, ALWAYS, 0},
    {L "self_attn.o_proj.bias", "D", PHX_FILL_BIAS, IF_ATTN_BIAS, 0},
    {L "self_attn.o_proj.weight", "DQ", PHX_FILL_WEIGHT, ALWAYS, 0},
    {L "self_attn.q_proj.bias", "Q", PHX_FILL_BIAS, IF_ATTN_BIAS, 0},
    {L "self_attn.q_proj.weight", "QD", PHX_FILL_WEIGHT, ALWAYS, 0},
    {L "self_attn.sinks", "H", PHX_FILL_SINK, ALWAYS, 0},
    {L "self_attn.v_proj.bias", "K", PHX_FILL_BIAS, IF_ATTN_BIAS, 0},
    {L "self_attn.v_proj.weight", "KD", PHX_FILL_WEIGHT, ALWAYS, 0},
};

#define ATTENTION                                                                                   \
    {L "self_attn.k_proj.bias", "K", PHX_FILL_BIAS, IF_ATTN_BIAS, 0},                               \
    {L "self_attn.k_proj.weight", "KD", PHX_FILL_WEIGHT, ALWAYS, 0},                                \
    {L "self_attn.o_proj.bias", "D", PHX_FILL_BIAS, IF_ATTN_BIAS, 0},                               \
    {L "self_attn.o_proj.weight", "DQ", PHX_FILL_WEIGHT, ALWAYS, 0},                                \
    {L "self_attn.q_proj.bias", "Q", PHX_FILL_BIAS, IF_ATTN_BIAS, 0},                               \
    {L "self_attn.q_proj.weight", "QD", PHX_FILL_WEIGHT, ALWAYS, 0},                                \
    {L "self_attn.v_proj.bias", "K", PHX_FILL_BIAS, IF_ATTN_BIAS, 0},                               \
    {L "self_attn.v_proj.weight", "KD", PHX_FILL_WEIGHT, ALWAYS, 0}

static const struct rule llama_rules[] = {
    {L "input_layernorm.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
    {L "mlp.down_proj.bias", "D", PHX_FILL_BIAS, IF_MLP_BIAS, 0},
    {L "mlp.down_proj.weight", "DF", PHX_FILL_WEIGHT, ALWAYS, 0},
    {L "mlp.gate_proj.bias", "F", PHX_FILL_BIAS, IF_MLP_BIAS, 0},
    {L "mlp.gate_proj.weight", "FD", PHX_FILL_WEIGHT, ALWAYS, 0},
    {L "mlp.up_proj.bias", "F", PHX_FILL_BIAS, IF_MLP_BIAS, 0},
    {L "mlp.up_proj.weight", "FD", PHX_FILL_WEIGHT, ALWAYS, 0},
    {L "post_attention_layernorm.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
    ATTENTION,
};

static const struct rule mixtral_rules[] = {
    {L "block_sparse_moe.experts.%d.w1.weight", "FD", PHX_FILL_WEIGHT, ALWAYS, 1},
    {L "block_sparse_moe.experts.%d.w2.weight", "DF", PHX_FILL_WEIGHT, ALWAYS, 1},
    {L "block_sparse_moe.experts.%d.w3.weight", "FD", PHX_FILL_WEIGHT, ALWAYS, 1},
    {L "block_sparse_moe.gate.weight", "ED", PHX_FILL_WEIGHT, ALWAYS, 0},
    {L "input_layernorm.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
    {L "post_attention_layernorm.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
    ATTENTION,
};

/* q: heads * (nope + rope), a: latent + rope, c: latent, k: heads * (nope + v), o: heads * v,
 * m: expert width, h: width of all shared experts. */
static const struct rule deepseek_rules[] = {
    {L "input_layernorm.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
    {L "mlp.down_proj.weight", "DF", PHX_FILL_WEIGHT, IF_DENSE, 0},
    {L "mlp.gate_proj.weight", "FD", PHX_FILL_WEIGHT, IF_DENSE, 0},
    {L "mlp.up_proj.weight", "FD", PHX_FILL_WEIGHT, IF_DENSE, 0},
    {L "mlp.experts.%d.down_proj.weight", "Dm", PHX_FILL_WEIGHT, IF_SPARSE, 1},
    {L "mlp.experts.%d.gate_proj.weight", "mD", PHX_FILL_WEIGHT, IF_SPARSE, 1},
    {L "mlp.experts.%d.up_proj.weight", "mD", PHX_FILL_WEIGHT, IF_SPARSE, 1},
    {L "mlp.gate.weight", "ED", PHX_FILL_WEIGHT, IF_SPARSE, 0},
    {L "mlp.shared_experts.down_proj.weight", "Dh", PHX_FILL_WEIGHT, IF_SPARSE, 0},
    {L "mlp.shared_experts.gate_proj.weight", "hD", PHX_FILL_WEIGHT, IF_SPARSE, 0},
    {L "mlp.shared_experts.up_proj.weight", "hD", PHX_FILL_WEIGHT, IF_SPARSE, 0},
    {L "post_attention_layernorm.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
    {L "self_attn.kv_a_layernorm.weight", "c", PHX_FILL_NORM, ALWAYS, 0},
    {L "self_attn.kv_a_proj_with_mqa.weight", "aD", PHX_FILL_WEIGHT, ALWAYS, 0},
    {L "self_attn.kv_b_proj.weight", "kc", PHX_FILL_WEIGHT, ALWAYS, 0},
    {L "self_attn.o_proj.weight", "Do", PHX_FILL_WEIGHT, ALWAYS, 0},
    {L "self_attn.q_proj.weight", "qD", PHX_FILL_WEIGHT, ALWAYS, 0},
};

/* Conv1D: [in, out].  P: positions, T: 3 D, R: 4 D. */
static const struct rule gpt2_top_rules[] = {{"wte.weight", "VD", PHX_FILL_WEIGHT, ALWAYS, 0},
                                             {"wpe.weight", "PD", PHX_FILL_WEIGHT, ALWAYS, 0}};
static const struct rule gpt2_end_rules[] = {{"ln_f.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
                                             {"ln_f.bias", "D", PHX_FILL_BIAS, ALWAYS, 0}};
static const struct rule gpt2_rules[] = {
    {"h.%d.ln_1.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
    {"h.%d.ln_1.bias", "D", PHX_FILL_BIAS, ALWAYS, 0},
    {"h.%d.attn.c_attn.weight", "DT", PHX_FILL_WEIGHT, ALWAYS, 0},
    {"h.%d.attn.c_attn.bias", "T", PHX_FILL_BIAS, ALWAYS, 0},
    {"h.%d.attn.c_proj.weight", "DD", PHX_FILL_WEIGHT, ALWAYS, 0},
    {"h.%d.attn.c_proj.bias", "D", PHX_FILL_BIAS, ALWAYS, 0},
    {"h.%d.ln_2.weight", "D", PHX_FILL_NORM, ALWAYS, 0},
    {"h.%d.ln_2.bias", "D", PHX_FILL_BIAS, ALWAYS, 0},
    {"h.%d.mlp.c_fc.weight", "DR", PHX_FILL_WEIGHT, ALWAYS, 0},
    {"h.%d.mlp.c_fc.bias", "R", PHX_FILL_BIAS, ALWAYS, 0},
    {"h.%d.mlp.c_proj.weight", "RD", PHX_FILL_WEIGHT, ALWAYS, 0},
    {"h.%d.mlp.c_proj.bias", "D", PHX_FILL_BIAS, ALWAYS, 0},
};

struct arch {
    const char        *model_type;
    const struct rule *top, *layer, *end;
    int32_t            n_top, n_layer, n_end;
};

#define COUNT(a) ((int32_t)(sizeof(a) / sizeof((a)[0])))
#define RULES(a) top_rules, a, end_rules, COUNT(top_rules), COUNT(a), COUNT(end_rules)

static const struct arch archs[] = {
    {"gpt_oss", RULES(oss_rules)},
    {"llama", RULES(llama_rules)},
    {"mistral", RULES(llama_rules)},
    {"mixtral", RULES(mixtral_rules)},
    {"deepseek_v2", RULES(deepseek_rules)},
    {"gpt2", gpt2_top_rules, gpt2_rules, gpt2_end_rules, COUNT(gpt2_top_rules), COUNT(gpt2_rules),
     COUNT(gpt2_end_rules)},
};

/* What the rules are evaluated with. */
struct facts {
    int64_t             dim[128]; /* by letter */
    int32_t             n_layers, n_experts, n_dense;
    bool                has_attn_bias, has_mlp_bias, is_tied, is_packed;
    enum phx_synth_type type;
};

static int64_t number(const json_t *config, const char *key, int64_t fallback)
{
    const json_t *value = json_object_get(config, key);

    return json_is_integer(value) ? json_integer_value(value) : fallback;
}

static bool flag(const json_t *config, const char *key, bool fallback)
{
    const json_t *value = json_object_get(config, key);

    return json_is_boolean(value) ? json_boolean_value(value) : fallback;
}

static int read_type(const json_t *config, struct facts *f, struct phx_err *err)
{
    const char *type = json_string_value(json_object_get(config, "torch_dtype"));

    if (type == NULL || strcmp(type, "bfloat16") == 0)
        f->type = PHX_SYNTH_BF16;
    else if (strcmp(type, "float16") == 0)
        f->type = PHX_SYNTH_F16;
    else if (strcmp(type, "float32") == 0)
        f->type = PHX_SYNTH_F32;
    else
        return phx_fail(err, PHX_E_UNSUPPORTED, "torch_dtype \"%.40s\" is not known", type);
    return 0;
}

static void read_latent_dims(const json_t *c, struct facts *f)
{
    int64_t heads = number(c, "num_attention_heads", 0), latent = number(c, "kv_lora_rank", 0);
    int64_t nope = number(c, "qk_nope_head_dim", 0), rope = number(c, "qk_rope_head_dim", 0);
    int64_t v = number(c, "v_head_dim", 0), width = number(c, "moe_intermediate_size", 0);

    f->dim['c'] = latent;
    f->dim['a'] = latent + rope;
    f->dim['q'] = heads * (nope + rope);
    f->dim['k'] = heads * (nope + v);
    f->dim['o'] = heads * v;
    f->dim['m'] = width;
    f->dim['h'] = width * number(c, "n_shared_experts", 0);
    f->n_dense = (int32_t)number(c, "first_k_dense_replace", 0);
}

static int read_facts(const json_t *c, const char *model_type, struct facts *f, struct phx_err *err)
{
    int64_t heads = number(c, "num_attention_heads", number(c, "n_head", 0));
    int64_t hidden = number(c, "hidden_size", number(c, "n_embd", 0));
    int64_t head_dim = number(c, "head_dim", heads > 0 ? hidden / heads : 0);

    f->n_layers = (int32_t)number(c, "num_hidden_layers", number(c, "n_layer", 0));
    f->n_experts = (int32_t)number(c, "num_local_experts", number(c, "n_routed_experts", 0));
    f->dim['V'] = number(c, "vocab_size", 0);
    f->dim['D'] = hidden;
    f->dim['H'] = heads;
    f->dim['Q'] = heads * head_dim;
    f->dim['K'] = number(c, "num_key_value_heads", heads) * head_dim;
    f->dim['F'] = number(c, "intermediate_size", 0);
    f->dim['G'] = 2 * f->dim['F'];
    f->dim['E'] = f->n_experts;
    f->dim['d'] = hidden / 32;
    f->dim['f'] = f->dim['F'] / 32;
    f->dim['x'] = 16;
    f->dim['P'] = number(c, "n_positions", 0);
    f->dim['T'] = 3 * hidden;
    f->dim['R'] = 4 * hidden;
    if (strcmp(model_type, "deepseek_v2") == 0)
        read_latent_dims(c, f);
    f->has_attn_bias = flag(c, "attention_bias", strcmp(model_type, "gpt_oss") == 0);
    f->has_mlp_bias = flag(c, "mlp_bias", false);
    f->is_tied = flag(c, "tie_word_embeddings", false);
    f->is_packed = json_is_object(json_object_get(c, "quantization_config"));
    if (f->is_packed && (hidden % 32 != 0 || f->dim['F'] % 32 != 0))
        return phx_fail(err, PHX_E_INVALID, "MXFP4 needs hidden_size and intermediate_size in blocks of 32");
    return read_type(c, f, err);
}

static bool applies(const struct facts *f, enum need need, int32_t layer)
{
    switch (need) {
    case IF_ATTN_BIAS:
        return f->has_attn_bias;
    case IF_MLP_BIAS:
        return f->has_mlp_bias;
    case IF_UNTIED:
        return !f->is_tied;
    case IF_PACKED:
        return f->is_packed;
    case IF_PLAIN:
        return !f->is_packed;
    case IF_DENSE:
        return layer < f->n_dense;
    case IF_SPARSE:
        return layer >= f->n_dense;
    default:
        return true;
    }
}

static uint64_t element_bytes(enum phx_synth_type type)
{
    return type == PHX_SYNTH_U8 ? 1 : type == PHX_SYNTH_F32 ? 4 : 2;
}

static int add(struct phx_synth_layout *l, const struct facts *f, const struct rule *r, int32_t layer,
               int32_t expert, struct phx_err *err)
{
    struct phx_synth_tensor t = {.fill = r->fill, .type = f->type};
    char                    name[256];

    if (r->fill == PHX_FILL_BLOCKS || r->fill == PHX_FILL_SCALES)
        t.type = PHX_SYNTH_U8;
    /* the tables' own formats: a layer, and an expert where each_expert is set */
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wformat-nonliteral"
#pragma GCC diagnostic ignored "-Wformat-extra-args"
    (void)snprintf(name, sizeof(name), r->name, layer, expert);
#pragma GCC diagnostic pop
    t.size_bytes = element_bytes(t.type);
    for (const char *letter = r->shape; *letter != '\0'; letter++) {
        int64_t n = f->dim[(unsigned char)*letter];

        if (n < 1 || n > INT32_MAX || __builtin_mul_overflow(t.size_bytes, (uint64_t)n, &t.size_bytes))
            return phx_fail(err, PHX_E_INVALID, "%s: the configuration gives no usable shape", name);
        t.dim[t.n_dims++] = n;
    }
    if (l->n == l->capacity) {
        l->capacity = l->capacity > 0 ? 2 * l->capacity : 1024;
        l->tensors = phx_mem_realloc(l->tensors, (size_t)l->capacity, sizeof(*l->tensors));
    }
    t.name = phx_mem_strdup(name);
    l->tensors[l->n++] = t;
    return 0;
}

static int add_rules(struct phx_synth_layout *l, const struct facts *f, const struct rule *rules,
                     int32_t n, int32_t layer, struct phx_err *err)
{
    int rc = 0;

    for (int32_t i = 0; i < n && rc == 0; i++) {
        int32_t n_experts = rules[i].each_expert ? f->n_experts : 1;

        for (int32_t e = 0; e < n_experts && rc == 0 && applies(f, rules[i].need, layer); e++)
            rc = add(l, f, &rules[i], layer, e, err);
    }
    return rc;
}

/* Fills files in order, like the published ones: a cut may fall inside a layer. */
static void cut_files(struct phx_synth_layout *l, uint64_t shard_bytes)
{
    uint64_t used = 0;

    l->n_files = 1;
    for (int32_t i = 0; i < l->n; i++) {
        struct phx_synth_tensor *t = &l->tensors[i];

        if (used > 0 && used + t->size_bytes > shard_bytes) {
            l->n_files++;
            used = 0;
        }
        t->file = l->n_files - 1;
        used += t->size_bytes;
        l->total_bytes += t->size_bytes;
    }
    /* wide types first, so that every tensor lies at a multiple of its element */
    for (int32_t file = 0; file < l->n_files; file++) {
        uint64_t at = 0;

        for (uint64_t width = 4; width > 0; width /= 2)
            for (int32_t i = 0; i < l->n; i++)
                if (l->tensors[i].file == file && element_bytes(l->tensors[i].type) == width) {
                    l->tensors[i].begin = at;
                    at += l->tensors[i].size_bytes;
                }
    }
}

int phx_synth_layout_make(const json_t *config, uint64_t shard_bytes, struct phx_synth_layout *l,
                          struct phx_err *err)
{
    const char        *model_type = json_string_value(json_object_get(config, "model_type"));
    const struct arch *arch = NULL;
    struct facts       f = {0};
    int                rc;

    memset(l, 0, sizeof(*l));
    for (int32_t i = 0; i < COUNT(archs) && model_type != NULL; i++)
        if (strcmp(model_type, archs[i].model_type) == 0)
            arch = &archs[i];
    if (arch == NULL)
        return phx_fail(err, PHX_E_UNSUPPORTED, "model_type \"%.40s\": its published layout is not known",
                        model_type != NULL ? model_type : "");
    rc = read_facts(config, model_type, &f, err);
    if (rc == 0)
        rc = add_rules(l, &f, arch->top, arch->n_top, 0, err);
    for (int32_t layer = 0; layer < f.n_layers && rc == 0; layer++)
        rc = add_rules(l, &f, arch->layer, arch->n_layer, layer, err);
    if (rc == 0)
        rc = add_rules(l, &f, arch->end, arch->n_end, 0, err);
    if (rc == 0)
        cut_files(l, shard_bytes);
    else
        phx_synth_layout_fini(l);
    return rc;
}

void phx_synth_layout_fini(struct phx_synth_layout *l)
{
    for (int32_t i = 0; i < l->n; i++)
        phx_mem_free(l->tensors[i].name);
    phx_mem_free(l->tensors);
    memset(l, 0, sizeof(*l));
}

void phx_synth_file_name(const json_t *config, const struct phx_synth_layout *l, int32_t i,
                         char name[64])
{
    const char *model_type = json_string_value(json_object_get(config, "model_type"));
    /* gpt-oss counts its files from 0 and names the last number as "of" */
    bool is_oss = model_type != NULL && strcmp(model_type, "gpt_oss") == 0;

    if (l->n_files == 1)
        (void)strcpy(name, "model.safetensors");
    else if (is_oss)
        (void)snprintf(name, 64, "model-%05d-of-%05d.safetensors", i, l->n_files - 1);
    else
        (void)snprintf(name, 64, "model-%05d-of-%05d.safetensors", i + 1, l->n_files);
}

void phx_synth_set_layers(json_t *config, int32_t n)
{
    const char *key = json_object_get(config, "n_layer") != NULL ? "n_layer" : "num_hidden_layers";
    json_t     *types = json_object_get(config, "layer_types");

    json_object_set_new(config, key, json_integer(n));
    if (json_is_array(types) && json_array_size(types) > 0) {
        json_t *fitted = json_array();

        for (int32_t i = 0; i < n; i++)
            json_array_append(fitted, json_array_get(types, (size_t)i % json_array_size(types)));
        json_object_set_new(config, "layer_types", fitted);
    }
}
