/* SPDX-License-Identifier: Apache-2.0
 * What a checkpoint's config.json and generation_config.json say, checked against the closed list of
 * architectures this build serves exactly.  Anything else is refused by name. */
#ifndef PHX_SHARD_MODEL_CONFIG_H
#define PHX_SHARD_MODEL_CONFIG_H

#include <stdbool.h>
#include <stdint.h>

#include "kernels/backend.h"
#include "rpc/base/err.h"

enum phx_arch { PHX_ARCH_NONE = 0, PHX_ARCH_GPT_OSS, PHX_ARCH_LLAMA };
enum phx_rope_kind { PHX_ROPE_NONE = 0, PHX_ROPE_PLAIN, PHX_ROPE_LINEAR, PHX_ROPE_LLAMA3, PHX_ROPE_YARN };

/* quantization_config.quant_method of what `phalanx model quantize` writes. */
#define PHX_QUANT_METHOD "phalanx-int8"

enum { PHX_LAYERS_MAX = 512, PHX_EOS_IDS_MAX = 32 };

struct phx_rope_config {
    enum phx_rope_kind kind;
    double             theta;
    double             factor;
    double             low_freq_factor, high_freq_factor; /* llama3 */
    double             beta_fast, beta_slow;              /* yarn */
    double             attention_factor;                  /* amplitude of cos and sin, resolved */
    int32_t            original_max_position;
    bool               is_truncated;                      /* yarn bounds floored / ceiled */
};

struct phx_model_config {
    enum phx_arch          arch;
    char                   model_type[32];
    int32_t                n_layers;   /* L */
    int32_t                dim;        /* D */
    int32_t                n_heads;    /* H */
    int32_t                n_kv_heads; /* K */
    int32_t                head_dim;   /* Dh */
    int32_t                ffn_dim;    /* F, per expert in a mixture */
    int32_t                vocab_size; /* V, rows of the embedding */
    int32_t                n_experts;  /* 0 = dense */
    int32_t                experts_per_token;
    float                  norm_eps;
    float                  glu_limit;  /* swiglu_limit; gpt-oss */
    int32_t                max_position;
    int32_t                window[PHX_LAYERS_MAX]; /* per layer, 0 = full attention */
    struct phx_rope_config rope;
    bool                   is_tied;      /* lm_head is the embedding table */
    bool                   has_attn_bias; /* q, k, v and o */
    bool                   has_mlp_bias;
    bool                   has_sinks;
    enum phx_dtype         dtype;        /* of the dense weights as packed: F32, BF16, F16, or I8 */
    bool                   is_quantised; /* dense weights lie as int8 with scales in the files */
    enum phx_dtype         expert_dtype; /* MXFP4 or a plain one; resolved from the tensors */
    int32_t                n_stop_ids;
    int32_t                stop_ids[PHX_EOS_IDS_MAX]; /* union of both files */
    int32_t                bos_id;       /* -1 = none */
    int32_t                pad_id;
};

struct phx_checkpoint;

/* Reads DIR/config.json and, when present, DIR/generation_config.json; the checkpoint (may be NULL for
 * shape questions) decides the stored dtypes and whether experts are packed.  Errors name file and key. */
int phx_model_config_load(const char *dir, const struct phx_checkpoint *checkpoint,
                          struct phx_model_config *config, struct phx_err *err) PHX_CHECKED;

/* Weights are quantised to int8 while they are packed: attention, dense ffn, embedding and head.  Experts, router,
 * norms, biases and sinks stay as they are. */
void phx_model_config_quantise(struct phx_model_config *config);

/* The same from text, for tests and fuzzing. */
int phx_model_config_parse(const char *json, size_t size, struct phx_model_config *config,
                           struct phx_err *err) PHX_CHECKED;

/* Every tensor of the architecture is in the checkpoint with the right shape and dtype, and nothing else
 * is: a renamed, missing or additional tensor is refused by name (known buffers are skipped). */
int phx_inventory_check(const struct phx_model_config *config,
                        const struct phx_checkpoint *checkpoint, struct phx_err *err) PHX_CHECKED;

/* A dense matrix NAME [n, k] of a quantised checkpoint is int8, beside float32 NAME_scales [n, groups]; *desc: how it is
 * packed at tp 1, which says where its groups are.  False: this tensor lies as in any other checkpoint. */
bool phx_inventory_quantised(const struct phx_model_config *config, const char *name, struct phx_weight_desc *desc);

/* inverse frequencies [Dh/2] in double, amplitude already resolved in config->rope. */
void phx_rope_frequencies(const struct phx_model_config *config, double *inv_freq);

#endif
