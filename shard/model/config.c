/* SPDX-License-Identifier: Apache-2.0
 * config.json and generation_config.json, checked against what this build serves exactly. */
#include "shard/model/config.h"

#include <jansson.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/json.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"
#include "shard/load/load.h"
#include "shard/model/parse.h"

enum {
    CONFIG_MAX_BYTES = 1 << 20,
    DIM_MAX = 1 << 18,
    HEADS_MAX = 1024,
    HEAD_DIM_MAX = 1024,
    VOCAB_MAX = 1 << 22,
    EXPERTS_MAX = 1024,
    TOP_K_MAX = 32,
    POSITION_MAX = 1 << 28
};

/* Keys that change the arithmetic of a Llama-shaped model; only the neutral value is served. */
static const struct {
    const char *key;
    double      neutral;
} neutral_keys[] = {
    {"partial_rotary_factor", 1}, {"logit_scale", 1},         {"embedding_multiplier", 1},
    {"residual_multiplier", 1},   {"attention_multiplier", 0}, {"logits_scaling", 1},
    {"attn_logit_softcapping", 0}, {"final_logit_softcapping", 0}, {"clip_qkv", 0},
};

static bool is_absent(const json_t *root, const char *key)
{
    const json_t *value = json_object_get(root, key);

    return value == NULL || json_is_null(value);
}

int phx_parse_int(const json_t *root, const char *key, int64_t min, int64_t max, int64_t fallback,
                  int32_t *out, struct phx_err *err)
{
    int64_t value = fallback;
    int     rc = fallback < min ? phx_json_get_int(root, "", key, min, max, &value, err)
                                : phx_json_opt_int(root, "", key, min, max, &value, err);

    *out = (int32_t)value;
    return rc;
}

static int parse_arch(const json_t *root, struct phx_model_config *c, struct phx_err *err)
{
    static const struct {
        const char    *name;
        enum phx_arch arch;
    } known[] = {{"gpt_oss", PHX_ARCH_GPT_OSS}, {"llama", PHX_ARCH_LLAMA}};
    const char *name = NULL;
    int         rc = phx_json_get_str(root, "", "model_type", 200, &name, err);

    if (rc != 0)
        return rc;
    for (size_t i = 0; i < sizeof(known) / sizeof(known[0]); i++)
        if (strcmp(name, known[i].name) == 0)
            c->arch = known[i].arch;
    if (c->arch == PHX_ARCH_NONE)
        return phx_fail(err, PHX_E_UNSUPPORTED,
                        "model_type \"%.40s\" is not served; served: gpt_oss, llama", name);
    (void)strncpy(c->model_type, name, sizeof(c->model_type) - 1); /* the array was zeroed */
    return 0;
}

static int parse_shape(const json_t *root, struct phx_model_config *c, struct phx_err *err)
{
    bool is_oss = c->arch == PHX_ARCH_GPT_OSS;
    int  rc = phx_parse_int(root, "num_hidden_layers", 1, PHX_LAYERS_MAX, 0, &c->n_layers, err);

    if (rc == 0)
        rc = phx_parse_int(root, "hidden_size", 2, DIM_MAX, 0, &c->dim, err);
    if (rc == 0)
        rc = phx_parse_int(root, "intermediate_size", 1, DIM_MAX, 0, &c->ffn_dim, err);
    if (rc == 0)
        rc = phx_parse_int(root, "num_attention_heads", 1, HEADS_MAX, 0, &c->n_heads, err);
    if (rc == 0)
        rc = phx_parse_int(root, "num_key_value_heads", 1, HEADS_MAX, c->n_heads, &c->n_kv_heads, err);
    if (rc == 0)
        rc = phx_parse_int(root, "head_dim", 2, HEAD_DIM_MAX, is_oss ? 64 : c->dim / c->n_heads,
                           &c->head_dim, err);
    if (rc == 0)
        rc = phx_parse_int(root, "vocab_size", 1, VOCAB_MAX, 0, &c->vocab_size, err);
    if (rc == 0)
        rc = phx_parse_int(root, "max_position_embeddings", 1, POSITION_MAX, is_oss ? 131072 : 2048,
                           &c->max_position, err);
    if (rc != 0)
        return rc;
    if (c->n_heads % c->n_kv_heads != 0)
        return phx_fail(err, PHX_E_INVALID, "num_attention_heads %d is not a multiple of "
                        "num_key_value_heads %d", c->n_heads, c->n_kv_heads);
    if (c->head_dim % 2 != 0)
        return phx_fail(err, PHX_E_INVALID, "head_dim %d is odd: rotary positions need pairs",
                        c->head_dim);
    if (!is_oss && is_absent(root, "head_dim") && c->dim % c->n_heads != 0)
        return phx_fail(err, PHX_E_INVALID, "hidden_size %d is not a multiple of "
                        "num_attention_heads %d, and head_dim is missing", c->dim, c->n_heads);
    return 0;
}

static int parse_flags(const json_t *root, struct phx_model_config *c, struct phx_err *err)
{
    bool        is_oss = c->arch == PHX_ARCH_GPT_OSS;
    const char *act = "silu";
    double      eps = is_oss ? 1e-5 : 1e-6;
    int         rc = phx_json_opt_str(root, "", "hidden_act", 100, &act, err);

    if (rc == 0 && strcmp(act, "silu") != 0)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "hidden_act \"%.40s\" is not served; served: silu", act);
    if (rc == 0)
        rc = phx_json_opt_real(root, "", "rms_norm_eps", 0, 1, &eps, err);
    c->norm_eps = (float)eps;
    c->has_attn_bias = is_oss;
    c->has_sinks = is_oss;
    if (rc == 0)
        rc = phx_json_opt_bool(root, "", "attention_bias", &c->has_attn_bias, err);
    if (rc == 0)
        rc = phx_json_opt_bool(root, "", "tie_word_embeddings", &c->is_tied, err);
    if (rc == 0 && !is_oss)
        rc = phx_json_opt_bool(root, "", "mlp_bias", &c->has_mlp_bias, err);
    for (size_t i = 0; i < sizeof(neutral_keys) / sizeof(neutral_keys[0]) && rc == 0; i++) {
        double value = neutral_keys[i].neutral;

        rc = phx_json_opt_real(root, "", neutral_keys[i].key, -1e9, 1e9, &value, err);
        if (rc == 0 && value != neutral_keys[i].neutral)
            rc = phx_fail(err, PHX_E_UNSUPPORTED, "%s %g is not served; served: %g",
                          neutral_keys[i].key, value, neutral_keys[i].neutral);
    }
    return rc;
}

static int parse_experts(const json_t *root, struct phx_model_config *c, struct phx_err *err)
{
    double  limit = 7.0, alpha = 1.702;
    int64_t same = 0;
    int     rc = phx_parse_int(root, "num_local_experts", 1, EXPERTS_MAX, 0, &c->n_experts, err);

    if (rc == 0)
        rc = phx_json_opt_int(root, "", "experts_per_token", 1, TOP_K_MAX, &same, err);
    if (rc == 0)
        rc = phx_parse_int(root, "num_experts_per_tok", 1, TOP_K_MAX, same,
                           &c->experts_per_token, err);
    if (rc == 0)
        rc = phx_json_opt_real(root, "", "swiglu_limit", 1e-3, 1e6, &limit, err);
    if (rc == 0)
        rc = phx_json_opt_real(root, "", "swiglu_alpha", -1e6, 1e6, &alpha, err);
    if (rc != 0)
        return rc;
    c->glu_limit = (float)limit;
    c->has_mlp_bias = true;
    if (same != 0 && same != c->experts_per_token)
        return phx_fail(err, PHX_E_INVALID, "experts_per_token %d and num_experts_per_tok %d differ",
                        (int)same, c->experts_per_token);
    if (c->experts_per_token > c->n_experts)
        return phx_fail(err, PHX_E_INVALID, "num_experts_per_tok %d is more than num_local_experts %d",
                        c->experts_per_token, c->n_experts);
    if ((float)alpha != 1.702F)
        return phx_fail(err, PHX_E_UNSUPPORTED, "swiglu_alpha %g is not served; served: 1.702", alpha);
    return 0;
}

/* Which layers see a window only: layer_types, or for gpt-oss every even layer. */
static int parse_windows(const json_t *root, struct phx_model_config *c, struct phx_err *err)
{
    const json_t *types = NULL;
    bool          is_oss = c->arch == PHX_ARCH_GPT_OSS;
    int64_t       window = 0;
    int rc = phx_json_opt_int(root, "", "sliding_window", 0, POSITION_MAX, &window, err);

    if (rc == 0)
        rc = phx_json_opt_array(root, "", "layer_types", PHX_LAYERS_MAX, &types, err);
    if (rc != 0)
        return rc;
    if (!is_oss && window != 0)
        return phx_fail(err, PHX_E_UNSUPPORTED, "sliding_window is not served for model_type llama");
    if (types != NULL && json_array_size(types) != (size_t)c->n_layers)
        return phx_fail(err, PHX_E_INVALID, "layer_types has %zu entries for %d layers",
                        json_array_size(types), c->n_layers);
    for (int32_t i = 0; i < c->n_layers; i++) {
        const char *type = is_oss && i % 2 == 0 ? "sliding_attention" : "full_attention";

        if (types != NULL)
            type = json_string_value(json_array_get(types, (size_t)i));
        if (type != NULL && strcmp(type, "sliding_attention") == 0 && window > 0)
            c->window[i] = (int32_t)window;
        else if (type == NULL || strcmp(type, "full_attention") != 0)
            return phx_fail(err, PHX_E_UNSUPPORTED, "layer_types[%d] \"%.40s\" is not served%s", i,
                            type != NULL ? type : "(no string)",
                            window == 0 ? " without sliding_window" : "");
    }
    return 0;
}

/* The stored types as config.json claims them; the tensors have the last word. */
/* Ours: `phalanx model quantize` writes it.  Other sizes of groups would be other numbers. */
static int parse_quantised(const json_t *q, struct phx_model_config *c, struct phx_err *err)
{
    static const char *const keys[] = {"quant_method", "bits", "group_size", "k_slices", "experts", "derived_from",
                                       NULL};
    static const struct {
        const char *key;
        int64_t     value;
    } fixed[] = {{"bits", 8}, {"group_size", PHX_I8_GROUP}, {"k_slices", PHX_SLICES_MAX}};
    const char *experts = "", *parent = "";
    int         rc = phx_json_check_keys(q, "quantization_config", keys, err);

    for (size_t i = 0; i < sizeof(fixed) / sizeof(fixed[0]) && rc == 0; i++) {
        int64_t value = 0;

        rc = phx_json_get_int(q, "quantization_config", fixed[i].key, 0, INT32_MAX, &value, err);
        if (rc == 0 && value != fixed[i].value)
            rc = phx_fail(err, PHX_E_UNSUPPORTED, "quantization_config.%s %lld is not served; served: %lld",
                          fixed[i].key, (long long)value, (long long)fixed[i].value);
    }
    if (rc == 0)
        rc = phx_json_opt_str(q, "quantization_config", "experts", 16, &experts, err);
    if (rc == 0)
        rc = phx_json_opt_str(q, "quantization_config", "derived_from", 80, &parent, err);
    if (rc == 0 && experts[0] != '\0' && (c->n_experts == 0 || strcmp(experts, "mxfp4") != 0))
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "quantization_config.experts \"%s\" is not served", experts);
    if (c->n_experts > 0)
        c->expert_dtype = experts[0] != '\0' ? PHX_DTYPE_MXFP4 : c->dtype;
    c->dtype = PHX_DTYPE_I8;
    c->is_quantised = true;
    return rc;
}

static int parse_dtypes(const json_t *root, struct phx_model_config *c, struct phx_err *err)
{
    const json_t *quantization = NULL;
    const char   *dtype = "bfloat16", *method = NULL;
    int           rc = phx_json_opt_str(root, "", "torch_dtype", 100, &dtype, err);

    if (rc == 0)
        rc = phx_json_opt_str(root, "", "dtype", 100, &dtype, err);
    if (rc == 0)
        rc = phx_json_opt_object(root, "", "quantization_config", &quantization, err);
    if (rc == 0 && quantization != NULL)
        rc = phx_json_get_str(quantization, "quantization_config", "quant_method", 100, &method, err);
    if (rc != 0)
        return rc;
    if (strcmp(dtype, "bfloat16") == 0)
        c->dtype = PHX_DTYPE_BF16;
    else if (strcmp(dtype, "float16") == 0)
        c->dtype = PHX_DTYPE_F16;
    else if (strcmp(dtype, "float32") == 0)
        c->dtype = PHX_DTYPE_F32;
    else
        return phx_fail(err, PHX_E_UNSUPPORTED, "torch_dtype \"%.40s\" is not served; served: "
                        "bfloat16, float16, float32", dtype);
    if (method != NULL && strcmp(method, PHX_QUANT_METHOD) == 0)
        return parse_quantised(quantization, c, err);
    if (method != NULL && (c->arch != PHX_ARCH_GPT_OSS || strcmp(method, "mxfp4") != 0))
        return phx_fail(err, PHX_E_UNSUPPORTED, "quantization_config.quant_method \"%.40s\" is not "
                        "served for model_type %s", method, c->model_type);
    if (c->n_experts > 0)
        c->expert_dtype = method != NULL ? PHX_DTYPE_MXFP4 : c->dtype;
    return 0;
}

static int add_stop(struct phx_model_config *c, int64_t id, struct phx_err *err)
{
    for (int32_t i = 0; i < c->n_stop_ids; i++)
        if (c->stop_ids[i] == id)
            return 0;
    if (c->n_stop_ids == PHX_EOS_IDS_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "eos_token_id: more than %d ids", PHX_EOS_IDS_MAX);
    c->stop_ids[c->n_stop_ids++] = (int32_t)id;
    return 0;
}

/* eos_token_id is one id or a list; what both files name is joined. */
static int parse_stops(const json_t *root, struct phx_model_config *c, struct phx_err *err)
{
    const json_t *value = json_object_get(root, "eos_token_id");
    size_t        n = json_is_array(value) ? json_array_size(value) : 1;
    int           rc = 0;

    if (value == NULL || json_is_null(value))
        return 0;
    for (size_t i = 0; i < n && rc == 0; i++) {
        const json_t *id = json_is_array(value) ? json_array_get(value, i) : value;

        if (!json_is_integer(id) || json_integer_value(id) < 0 ||
            json_integer_value(id) >= c->vocab_size)
            return phx_fail(err, PHX_E_INVALID, "eos_token_id must be ids below vocab_size %d",
                            c->vocab_size);
        rc = add_stop(c, json_integer_value(id), err);
    }
    return rc;
}

static int parse_ids(const json_t *root, struct phx_model_config *c, struct phx_err *err)
{
    int64_t bos = c->bos_id, pad = c->pad_id;
    int     rc = phx_json_opt_int(root, "", "bos_token_id", -1, INT32_MAX, &bos, err);

    if (rc == 0)
        rc = phx_json_opt_int(root, "", "pad_token_id", -1, INT32_MAX, &pad, err);
    if (rc == 0)
        rc = parse_stops(root, c, err);
    c->bos_id = (int32_t)bos;
    c->pad_id = (int32_t)pad;
    return rc;
}

static int parse_root(const json_t *root, struct phx_model_config *c, struct phx_err *err)
{
    int rc = parse_arch(root, c, err);

    if (rc == 0)
        rc = parse_shape(root, c, err);
    if (rc == 0)
        rc = parse_flags(root, c, err);
    if (rc == 0 && c->arch == PHX_ARCH_GPT_OSS)
        rc = parse_experts(root, c, err);
    if (rc == 0)
        rc = parse_windows(root, c, err);
    if (rc == 0)
        rc = phx_parse_rope(root, c, err);
    if (rc == 0)
        rc = parse_dtypes(root, c, err);
    if (rc == 0)
        rc = parse_ids(root, c, err);
    /* the published vocabulary: a call ends the turn, also where an early generation_config forgot it */
    if (rc == 0 && c->arch == PHX_ARCH_GPT_OSS && c->vocab_size == 201088) {
        rc = add_stop(c, 200002, err);
        if (rc == 0)
            rc = add_stop(c, 200012, err);
    }
    return rc;
}

int phx_model_config_parse(const char *json, size_t size, struct phx_model_config *config,
                           struct phx_err *err)
{
    json_t *root;
    int     rc = phx_json_parse(&root, json, size, CONFIG_MAX_BYTES, 0, "config.json", err);

    memset(config, 0, sizeof(*config));
    config->bos_id = config->pad_id = -1;
    if (rc != 0)
        return rc;
    rc = parse_root(root, config, err);
    if (rc != 0)
        phx_err_prefix(err, "config.json: ");
    json_decref(root);
    return rc;
}

static int resolve_dtype(const struct phx_checkpoint *checkpoint, const char *name,
                         enum phx_dtype *dtype, struct phx_err *err)
{
    const struct phx_ckpt_tensor *t = phx_checkpoint_find(checkpoint, name);

    if (t == NULL)
        return phx_fail(err, PHX_E_FORMAT, "tensor %s is missing from the checkpoint", name);
    if (t->dtype != PHX_CKPT_F32 && t->dtype != PHX_CKPT_BF16 && t->dtype != PHX_CKPT_F16)
        return phx_fail(err, PHX_E_UNSUPPORTED, "tensor %s is stored as %s; served: F32, BF16, F16",
                        name, phx_ckpt_dtype_name(t->dtype));
    *dtype = t->dtype == PHX_CKPT_F32    ? PHX_DTYPE_F32
             : t->dtype == PHX_CKPT_BF16 ? PHX_DTYPE_BF16
                                         : PHX_DTYPE_F16;
    return 0;
}

/* What lies in the files wins over what config.json says about it: re-saved configs lose their
 * quantization_config while the experts stay packed. */
static int resolve(struct phx_model_config *c, const struct phx_checkpoint *checkpoint,
                   struct phx_err *err)
{
    int rc = 0;

    if (!c->is_quantised) /* else the inventory wants int8 */
        rc = resolve_dtype(checkpoint, "model.embed_tokens.weight", &c->dtype, err);
    if (rc != 0)
        return rc;
    if (!c->is_tied && phx_checkpoint_find(checkpoint, "lm_head.weight") == NULL) {
        phx_log(PHX_LOG_WARN, "shard.config.tied", "reason=%s",
                "no lm_head.weight in the checkpoint: the embedding table is the head");
        c->is_tied = true;
    }
    if (c->n_experts == 0)
        return 0;
    if (phx_checkpoint_find(checkpoint, "model.layers.0.mlp.experts.gate_up_proj_blocks") != NULL) {
        c->expert_dtype = PHX_DTYPE_MXFP4;
        return 0;
    }
    return resolve_dtype(checkpoint, "model.layers.0.mlp.experts.gate_up_proj", &c->expert_dtype, err);
}

static int load_generation(const char *path, struct phx_model_config *config, struct phx_err *err)
{
    json_t *root;
    int     rc;

    if (access(path, F_OK) != 0)
        return 0;
    rc = phx_json_load(&root, path, CONFIG_MAX_BYTES, 0, err);
    if (rc != 0)
        return rc;
    rc = parse_ids(root, config, err);
    if (rc != 0)
        phx_err_prefix(err, "generation_config.json: ");
    json_decref(root);
    return rc;
}

int phx_model_config_load(const char *dir, const struct phx_checkpoint *checkpoint,
                          struct phx_model_config *config, struct phx_err *err)
{
    char          *path = phx_mem_printf("%s/config.json", dir);
    char          *generation = phx_mem_printf("%s/generation_config.json", dir);
    struct phx_buf text;
    int            rc = phx_buf_read_file(&text, path, CONFIG_MAX_BYTES, err);

    if (rc == 0) {
        rc = phx_model_config_parse(text.data, text.size, config, err);
        phx_buf_fini(&text);
    }
    if (rc == 0)
        rc = load_generation(generation, config, err);
    if (rc == 0 && checkpoint != NULL)
        rc = resolve(config, checkpoint, err);
    phx_mem_free(path);
    phx_mem_free(generation);
    return rc;
}

void phx_model_config_quantise(struct phx_model_config *config)
{
    config->dtype = PHX_DTYPE_I8;
}
