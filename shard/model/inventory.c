/* SPDX-License-Identifier: Apache-2.0
 * The tensors an architecture is made of.  The tables are the specification: a checkpoint must hold
 * exactly these, so that a renamed, missing or additional tensor is refused instead of ignored. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "shard/model/state.h"
#include "shard/partition/partition.h"

enum need { ALWAYS, IF_ATTN_BIAS, IF_MLP_BIAS, IF_SINKS, IF_MXFP4, IF_PLAIN_EXPERTS, IF_UNTIED };

/* shape: one letter per dimension, see dim_of(). */
struct rule {
    const char *name; /* behind "model.layers.N." for layer rules */
    const char *shape;
    enum need   need;
};

static const struct rule MODEL_RULES[] = {
    {"model.embed_tokens.weight", "VD", ALWAYS},
    {"model.norm.weight", "D", ALWAYS},
    {"lm_head.weight", "VD", IF_UNTIED},
    {NULL, NULL, ALWAYS},
};

static const struct rule GPT_OSS_RULES[] = {
    {"input_layernorm.weight", "D", ALWAYS},
    {"self_attn.q_proj.weight", "QD", ALWAYS},
    {"self_attn.q_proj.bias", "Q", IF_ATTN_BIAS},
    {"self_attn.k_proj.weight", "KD", ALWAYS},
    {"self_attn.k_proj.bias", "K", IF_ATTN_BIAS},
    {"self_attn.v_proj.weight", "KD", ALWAYS},
    {"self_attn.v_proj.bias", "K", IF_ATTN_BIAS},
    {"self_attn.o_proj.weight", "DQ", ALWAYS},
    {"self_attn.o_proj.bias", "D", IF_ATTN_BIAS},
    {"self_attn.sinks", "H", IF_SINKS},
    {"post_attention_layernorm.weight", "D", ALWAYS},
    {"mlp.router.weight", "ED", ALWAYS},
    {"mlp.router.bias", "E", ALWAYS},
    {"mlp.experts.gate_up_proj_blocks", "EGdx", IF_MXFP4},
    {"mlp.experts.gate_up_proj_scales", "EGd", IF_MXFP4},
    {"mlp.experts.gate_up_proj", "EDG", IF_PLAIN_EXPERTS}, /* [in, out], unlike the blocks */
    {"mlp.experts.gate_up_proj_bias", "EG", ALWAYS},
    {"mlp.experts.down_proj_blocks", "EDfx", IF_MXFP4},
    {"mlp.experts.down_proj_scales", "EDf", IF_MXFP4},
    {"mlp.experts.down_proj", "EFD", IF_PLAIN_EXPERTS},
    {"mlp.experts.down_proj_bias", "ED", ALWAYS},
    {NULL, NULL, ALWAYS},
};

static const struct rule LLAMA_RULES[] = {
    {"input_layernorm.weight", "D", ALWAYS},
    {"self_attn.q_proj.weight", "QD", ALWAYS},
    {"self_attn.q_proj.bias", "Q", IF_ATTN_BIAS},
    {"self_attn.k_proj.weight", "KD", ALWAYS},
    {"self_attn.k_proj.bias", "K", IF_ATTN_BIAS},
    {"self_attn.v_proj.weight", "KD", ALWAYS},
    {"self_attn.v_proj.bias", "K", IF_ATTN_BIAS},
    {"self_attn.o_proj.weight", "DQ", ALWAYS},
    {"self_attn.o_proj.bias", "D", IF_ATTN_BIAS},
    {"post_attention_layernorm.weight", "D", ALWAYS},
    {"mlp.gate_proj.weight", "FD", ALWAYS},
    {"mlp.gate_proj.bias", "F", IF_MLP_BIAS},
    {"mlp.up_proj.weight", "FD", ALWAYS},
    {"mlp.up_proj.bias", "F", IF_MLP_BIAS},
    {"mlp.down_proj.weight", "DF", ALWAYS},
    {"mlp.down_proj.bias", "D", IF_MLP_BIAS},
    {NULL, NULL, ALWAYS},
};

static const char LAYER_PREFIX[] = "model.layers.", SCALES[] = "_scales";

static int64_t dim_of(const struct phx_model_config *c, char letter)
{
    switch (letter) {
    case 'V':
        return c->vocab_size;
    case 'D':
        return c->dim;
    case 'Q':
        return (int64_t)c->n_heads * c->head_dim;
    case 'K':
        return (int64_t)c->n_kv_heads * c->head_dim;
    case 'H':
        return c->n_heads;
    case 'E':
        return c->n_experts;
    case 'F':
        return c->ffn_dim;
    case 'G':
        return 2 * (int64_t)c->ffn_dim; /* gate and up rows, interleaved */
    case 'd':
        return c->dim / PHX_MX_BLOCK;
    case 'f':
        return c->ffn_dim / PHX_MX_BLOCK;
    default:
        return PHX_MX_BLOCK / 2; /* x: the bytes of one block */
    }
}

static bool is_needed(const struct phx_model_config *c, enum need need)
{
    switch (need) {
    case IF_ATTN_BIAS:
        return c->has_attn_bias;
    case IF_MLP_BIAS:
        return c->has_mlp_bias;
    case IF_SINKS:
        return c->has_sinks;
    case IF_MXFP4:
        return c->expert_dtype == PHX_DTYPE_MXFP4;
    case IF_PLAIN_EXPERTS:
        return c->expert_dtype != PHX_DTYPE_MXFP4;
    case IF_UNTIED:
        return !c->is_tied;
    default:
        return true;
    }
}

/* "[4, 64, 2]" into text. */
static void format_shape(char *text, size_t size, const int64_t *dim, int32_t n)
{
    size_t used = (size_t)snprintf(text, size, "[");
    for (int32_t i = 0; i < n && used < size; i++)
        used += (size_t)snprintf(text + used, size - used, "%s%lld", i ? ", " : "",
                                 (long long)dim[i]);
    if (used < size)
        (void)snprintf(text + used, size - used, "]"); /* truncation only shortens a message */
}

/* Matrices of linear layers, embedding and head; not the router, and no stacks. */
static bool is_dense(const struct rule *r)
{
    return strlen(r->shape) == 2 && r->shape[0] != 'E';
}

static struct phx_weight_desc describe(const struct phx_model_config *c, const struct rule *r)
{
    struct phx_weight_desc desc = {.dtype = PHX_DTYPE_I8, .n = (int32_t)dim_of(c, r->shape[0]),
                                   .k = (int32_t)dim_of(c, r->shape[1]), .n_experts = 1, .n_slices = 1};
    bool is_split = r->shape[1] == 'Q' || r->shape[1] == 'F'; /* by tensor parallelism, along k */
    desc.slice_end[0] = desc.k;
    if (is_split) {
        desc.n_slices = PHX_SLICES_MAX;
        phx_slice_ends(c, r->shape[1] == 'F', desc.slice_end);
    }
    return desc;
}

static int check_tensor(const struct phx_model_config *c, const struct rule *rule,
                        const struct phx_ckpt_tensor *t, struct phx_err *err)
{
    int64_t want[PHX_CKPT_DIMS_MAX];
    int32_t n = (int32_t)strlen(rule->shape);
    bool    is_same = t->n_dims == n;
    for (int32_t i = 0; i < n; i++) {
        want[i] = dim_of(c, rule->shape[i]);
        is_same = is_same && t->dim[i] == want[i];
    }
    if (!is_same) {
        char has[96], expected[96];
        format_shape(has, sizeof has, t->dim, t->n_dims);
        format_shape(expected, sizeof expected, want, n);
        return phx_fail(err, PHX_E_FORMAT, "tensor %s has shape %s, config.json asks for %s",
                        t->name, has, expected);
    }
    bool is_bytes = rule->need == IF_MXFP4;
    bool is_float = t->dtype == PHX_CKPT_F32 || t->dtype == PHX_CKPT_BF16 || t->dtype == PHX_CKPT_F16;
    if (c->is_quantised && is_dense(rule))
        return t->dtype == PHX_CKPT_I8 ? 0
                                       : phx_fail(err, PHX_E_UNSUPPORTED, "tensor %s is stored as %s, not as I8",
                                                  t->name, phx_ckpt_dtype_name(t->dtype));
    if (is_bytes ? t->dtype != PHX_CKPT_U8 : !is_float)
        return phx_fail(err, PHX_E_UNSUPPORTED, "tensor %s is stored as %s, not as %s", t->name,
                        phx_ckpt_dtype_name(t->dtype), is_bytes ? "U8" : "F32, BF16 or F16");
    return 0;
}

/* The scales beside a quantised matrix. */
static int check_scales(const struct phx_model_config *c, const struct rule *rule,
                        const struct phx_checkpoint *checkpoint, const char *matrix, struct phx_err *err)
{
    struct phx_weight_desc desc = describe(c, rule);
    int64_t                want[2] = {desc.n, phx_i8_groups(&desc)};
    char                   name[PHX_CKPT_NAME_MAX + 16], has[96], expected[96];
    (void)snprintf(name, sizeof name, "%s%s", matrix, SCALES);
    const struct phx_ckpt_tensor *t = phx_checkpoint_find(checkpoint, name);
    if (t == NULL)
        return phx_fail(err, PHX_E_FORMAT, "tensor %s is missing from the checkpoint", name);
    if (t->dtype != PHX_CKPT_F32)
        return phx_fail(err, PHX_E_UNSUPPORTED, "tensor %s is stored as %s, not as F32", name,
                        phx_ckpt_dtype_name(t->dtype));
    if (t->n_dims == 2 && t->dim[0] == want[0] && t->dim[1] == want[1])
        return 0;
    format_shape(has, sizeof has, t->dim, t->n_dims);
    format_shape(expected, sizeof expected, want, 2);
    return phx_fail(err, PHX_E_FORMAT, "tensor %s has shape %s, groups of %d ask for %s", name, has, PHX_I8_GROUP,
                    expected);
}

static const struct rule *layer_rules(const struct phx_model_config *c)
{
    return c->arch == PHX_ARCH_GPT_OSS ? GPT_OSS_RULES : LLAMA_RULES;
}

static int check_rules(const struct phx_model_config *c, const struct phx_checkpoint *checkpoint,
                       const struct rule *rules, const char *prefix, struct phx_err *err)
{
    for (const struct rule *r = rules; r->name != NULL; r++) {
        char name[PHX_CKPT_NAME_MAX];
        (void)snprintf(name, sizeof name, "%s%s", prefix, r->name); /* table names are short */
        const struct phx_ckpt_tensor *t = phx_checkpoint_find(checkpoint, name);
        if (t == NULL && is_needed(c, r->need))
            return phx_fail(err, PHX_E_FORMAT, "tensor %s is missing from the checkpoint", name);
        /* a tied model may carry its head once more: its bytes are compared when packed */
        if (t != NULL && (is_needed(c, r->need) || r->need == IF_UNTIED)) {
            int code = check_tensor(c, r, t, err);
            if (code == 0 && c->is_quantised && is_dense(r))
                code = check_scales(c, r, checkpoint, name, err);
            if (code != 0)
                return code;
        }
    }
    return 0;
}

static bool ends_with(const char *name, const char *tail)
{
    size_t n = strlen(name), m = strlen(tail);
    return n >= m && strcmp(name + n - m, tail) == 0;
}

/* Buffers that old exporters wrote beside the weights and that follow from config.json. */
static bool is_known_buffer(const char *name)
{
    return ends_with(name, ".rotary_emb.inv_freq") || ends_with(name, ".attn.masked_bias");
}

/* The rule for a name; NULL: the architecture has no such tensor. */
static const struct rule *find_rule(const struct phx_model_config *c, const char *name)
{
    const struct rule *rules = MODEL_RULES;
    const char        *rest = name;
    size_t             n_prefix = sizeof LAYER_PREFIX - 1;
    bool               is_layer = strncmp(name, LAYER_PREFIX, n_prefix) == 0;
    if (is_layer) {
        char *end = NULL;
        long  layer = strtol(name + n_prefix, &end, 10);
        char first = name[n_prefix];
        bool is_plain = first >= '0' && first <= '9' && (first != '0' || end == name + n_prefix + 1);
        if (!is_plain || *end != '.' || layer >= c->n_layers)
            return NULL;
        rest = end + 1;
        rules = layer_rules(c);
    }
    for (const struct rule *r = rules; r->name != NULL; r++)
        if (strcmp(rest, r->name) == 0)
            return is_needed(c, r->need) || (r->need == IF_UNTIED && !c->is_quantised) ? r : NULL;
    return NULL;
}

bool phx_inventory_quantised(const struct phx_model_config *c, const char *name, struct phx_weight_desc *desc)
{
    const struct rule *r = find_rule(c, name);
    if (r == NULL || !is_dense(r))
        return false;
    *desc = describe(c, r);
    return true;
}

static bool is_known(const struct phx_model_config *c, const char *name)
{
    char                   matrix[PHX_CKPT_NAME_MAX];
    struct phx_weight_desc desc;
    size_t                 n = strlen(name), n_tail = sizeof SCALES - 1;
    if (find_rule(c, name) != NULL)
        return true;
    if (!c->is_quantised || !ends_with(name, SCALES) || n - n_tail >= sizeof matrix)
        return false;
    memcpy(matrix, name, n - n_tail);
    matrix[n - n_tail] = '\0';
    return phx_inventory_quantised(c, matrix, &desc);
}

int phx_inventory_check(const struct phx_model_config *c, const struct phx_checkpoint *checkpoint,
                        struct phx_err *err)
{
    if (c->expert_dtype == PHX_DTYPE_MXFP4 &&
        (c->dim % PHX_MX_BLOCK != 0 || c->ffn_dim % PHX_MX_BLOCK != 0))
        return phx_fail(err, PHX_E_UNSUPPORTED,
                        "MXFP4 experts need hidden_size %d and intermediate_size %d to be multiples "
                        "of %d", c->dim, c->ffn_dim, PHX_MX_BLOCK);
    int code = check_rules(c, checkpoint, MODEL_RULES, "", err);
    for (int32_t i = 0; i < c->n_layers && code == 0; i++) {
        char prefix[64];
        (void)snprintf(prefix, sizeof prefix, "%s%d.", LAYER_PREFIX, i);
        code = check_rules(c, checkpoint, layer_rules(c), prefix, err);
    }
    for (int32_t i = 0; i < phx_checkpoint_count(checkpoint) && code == 0; i++) {
        const char *name = phx_checkpoint_at(checkpoint, i)->name;
        if (!is_known(c, name) && !is_known_buffer(name))
            code = phx_fail(err, PHX_E_UNSUPPORTED, "tensor %s is not part of a %s model of %d layers",
                            name, c->model_type, c->n_layers);
    }
    return code;
}
