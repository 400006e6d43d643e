/* SPDX-License-Identifier: Apache-2.0
 * config.json of published models (shapes are facts) and of tiny ones for tests. */
#include <string.h>

#include "shard/tool/synth.h"

#define OSS_COMMON                                                                                  \
    "\"architectures\":[\"GptOssForCausalLM\"],\"model_type\":\"gpt_oss\",\"attention_bias\":true,"   \
    "\"attention_dropout\":0.0,\"hidden_act\":\"silu\",\"swiglu_limit\":7.0,\"rms_norm_eps\":1e-05,"  \
    "\"rope_theta\":150000,\"tie_word_embeddings\":false,\"initializer_range\":0.02,"                 \
    "\"output_router_logits\":false,\"router_aux_loss_coef\":0.9,\"use_cache\":true,"                 \
    "\"torch_dtype\":\"bfloat16\",\"quantization_config\":{\"quant_method\":\"mxfp4\","               \
    "\"modules_to_not_convert\":[\"model.layers.*.self_attn\",\"model.layers.*.mlp.router\","         \
    "\"model.embed_tokens\",\"lm_head\"]},"
#define OSS_PUBLISHED                                                                               \
    OSS_COMMON                                                                                      \
    "\"num_experts_per_tok\":4,\"experts_per_token\":4,\"hidden_size\":2880,"                         \
    "\"intermediate_size\":2880,\"head_dim\":64,\"num_attention_heads\":64,"                          \
    "\"num_key_value_heads\":8,\"sliding_window\":128,\"max_position_embeddings\":131072,"            \
    "\"initial_context_length\":4096,\"vocab_size\":201088,\"eos_token_id\":200002,"                  \
    "\"pad_token_id\":199999,\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32.0,"               \
    "\"beta_fast\":32.0,\"beta_slow\":1.0,\"original_max_position_embeddings\":4096,"                 \
    "\"truncate\":false}"
#define LLAMA_COMMON                                                                                \
    "\"architectures\":[\"LlamaForCausalLM\"],\"model_type\":\"llama\",\"attention_bias\":false,"     \
    "\"attention_dropout\":0.0,\"hidden_act\":\"silu\",\"mlp_bias\":false,\"rms_norm_eps\":1e-05,"    \
    "\"initializer_range\":0.02,\"pretraining_tp\":1,\"use_cache\":true,"                             \
    "\"torch_dtype\":\"bfloat16\",\"rope_theta\":500000.0,"
#define LLAMA3_IDS "\"vocab_size\":128256,\"bos_token_id\":128000,\"eos_token_id\":128001,"
#define MISTRAL_COMMON                                                                              \
    "\"attention_dropout\":0.0,\"bos_token_id\":1,\"eos_token_id\":2,\"head_dim\":128,"               \
    "\"hidden_act\":\"silu\",\"hidden_size\":4096,\"initializer_range\":0.02,"                        \
    "\"intermediate_size\":14336,\"num_attention_heads\":32,\"num_hidden_layers\":32,"                \
    "\"num_key_value_heads\":8,\"rms_norm_eps\":1e-05,\"tie_word_embeddings\":false,"                 \
    "\"torch_dtype\":\"bfloat16\",\"use_cache\":true,\"vocab_size\":32000"

static const struct {
    const char *name, *config;
} presets[] = {
    {"gpt-oss-20b", "{" OSS_PUBLISHED ",\"num_hidden_layers\":24,\"num_local_experts\":32}"},
    {"gpt-oss-120b", "{" OSS_PUBLISHED ",\"num_hidden_layers\":36,\"num_local_experts\":128}"},
    /* a shape for speed alone, small enough for any machine: no published model has it */
    {"gpt-oss-small",
     "{" OSS_COMMON "\"num_hidden_layers\":12,\"num_local_experts\":32,\"num_experts_per_tok\":4,"
     "\"experts_per_token\":4,\"hidden_size\":1440,\"intermediate_size\":1440,\"head_dim\":64,"
     "\"num_attention_heads\":32,\"num_key_value_heads\":8,\"sliding_window\":128,"
     "\"max_position_embeddings\":131072,\"initial_context_length\":4096,\"vocab_size\":32000,"
     "\"eos_token_id\":31999,\"pad_token_id\":31998,\"rope_scaling\":{\"rope_type\":\"yarn\","
     "\"factor\":32.0,\"beta_fast\":32.0,\"beta_slow\":1.0,"
     "\"original_max_position_embeddings\":4096,\"truncate\":false}}"},
    {"llama-3.2-1b",
     "{" LLAMA_COMMON LLAMA3_IDS "\"hidden_size\":2048,\"intermediate_size\":8192,\"head_dim\":64,"
     "\"num_attention_heads\":32,\"num_key_value_heads\":8,\"num_hidden_layers\":16,"
     "\"max_position_embeddings\":131072,\"tie_word_embeddings\":true,\"rope_scaling\":"
     "{\"rope_type\":\"llama3\",\"factor\":32.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
     "\"original_max_position_embeddings\":8192}}"},
    {"llama-3.1-8b",
     "{" LLAMA_COMMON LLAMA3_IDS "\"hidden_size\":4096,\"intermediate_size\":14336,"
     "\"num_attention_heads\":32,\"num_key_value_heads\":8,\"num_hidden_layers\":32,"
     "\"max_position_embeddings\":131072,\"tie_word_embeddings\":false,\"rope_scaling\":"
     "{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
     "\"original_max_position_embeddings\":8192}}"},
    {"mistral-7b",
     "{\"architectures\":[\"MistralForCausalLM\"],\"model_type\":\"mistral\"," MISTRAL_COMMON
     ",\"max_position_embeddings\":32768,\"rope_theta\":10000.0,\"sliding_window\":4096}"},
    {"mixtral-8x7b",
     "{\"architectures\":[\"MixtralForCausalLM\"],\"model_type\":\"mixtral\"," MISTRAL_COMMON
     ",\"max_position_embeddings\":32768,\"rope_theta\":1000000.0,\"sliding_window\":null,"
     "\"num_local_experts\":8,\"num_experts_per_tok\":2,\"output_router_logits\":false,"
     "\"router_aux_loss_coef\":0.02}"},
    {"gpt2",
     "{\"architectures\":[\"GPT2LMHeadModel\"],\"model_type\":\"gpt2\",\"activation_function\":"
     "\"gelu_new\",\"bos_token_id\":50256,\"eos_token_id\":50256,\"initializer_range\":0.02,"
     "\"layer_norm_epsilon\":1e-05,\"n_ctx\":1024,\"n_embd\":768,\"n_head\":12,\"n_layer\":12,"
     "\"n_positions\":1024,\"vocab_size\":50257,\"torch_dtype\":\"float32\"}"},
    {"deepseek-v2-lite",
     "{\"architectures\":[\"DeepseekV2ForCausalLM\"],\"model_type\":\"deepseek_v2\","
     "\"attention_bias\":false,\"attention_dropout\":0.0,\"bos_token_id\":100000,"
     "\"eos_token_id\":100001,\"first_k_dense_replace\":1,\"hidden_act\":\"silu\","
     "\"hidden_size\":2048,\"initializer_range\":0.02,\"intermediate_size\":10944,"
     "\"kv_lora_rank\":512,\"max_position_embeddings\":163840,\"moe_intermediate_size\":1408,"
     "\"moe_layer_freq\":1,\"n_group\":1,\"n_routed_experts\":64,\"n_shared_experts\":2,"
     "\"norm_topk_prob\":false,\"num_attention_heads\":16,\"num_experts_per_tok\":6,"
     "\"num_hidden_layers\":27,\"num_key_value_heads\":16,\"q_lora_rank\":null,"
     "\"qk_nope_head_dim\":128,\"qk_rope_head_dim\":64,\"rms_norm_eps\":1e-06,\"rope_scaling\":"
     "{\"type\":\"yarn\",\"factor\":40,\"beta_fast\":32,\"beta_slow\":1,\"mscale\":0.707,"
     "\"mscale_all_dim\":0.707,\"original_max_position_embeddings\":4096},\"rope_theta\":10000,"
     "\"routed_scaling_factor\":1.0,\"scoring_func\":\"softmax\",\"tie_word_embeddings\":false,"
     "\"topk_group\":1,\"topk_method\":\"greedy\",\"torch_dtype\":\"bfloat16\",\"use_cache\":true,"
     "\"v_head_dim\":128,\"vocab_size\":102400}"},
    {"tiny-gpt-oss",
     "{" OSS_COMMON "\"num_hidden_layers\":4,\"num_local_experts\":8,\"num_experts_per_tok\":2,"
     "\"experts_per_token\":2,\"hidden_size\":64,\"intermediate_size\":256,\"head_dim\":16,"
     "\"num_attention_heads\":8,\"num_key_value_heads\":2,\"sliding_window\":16,"
     "\"max_position_embeddings\":4096,\"initial_context_length\":128,\"vocab_size\":288,"
     "\"eos_token_id\":260,\"pad_token_id\":257,\"rope_scaling\":{\"rope_type\":\"yarn\","
     "\"factor\":32.0,\"beta_fast\":32.0,\"beta_slow\":1.0,"
     "\"original_max_position_embeddings\":128,\"truncate\":false}}"},
    {"tiny-llama",
     "{" LLAMA_COMMON "\"hidden_size\":64,\"intermediate_size\":256,\"num_attention_heads\":8,"
     "\"num_key_value_heads\":4,\"num_hidden_layers\":4,\"max_position_embeddings\":4096,"
     "\"tie_word_embeddings\":false,\"vocab_size\":288,\"bos_token_id\":256,\"eos_token_id\":257,"
     "\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,\"low_freq_factor\":1.0,"
     "\"high_freq_factor\":4.0,\"original_max_position_embeddings\":128}}"},
};

enum { N_PRESETS = sizeof(presets) / sizeof(presets[0]) };

const char *phx_synth_preset(const char *name)
{
    for (int i = 0; i < N_PRESETS; i++)
        if (strcmp(name, presets[i].name) == 0)
            return presets[i].config;
    return NULL;
}

const char *phx_synth_preset_names(void)
{
    return "gpt-oss-20b, gpt-oss-120b, gpt-oss-small, llama-3.2-1b, llama-3.1-8b, mistral-7b, "
           "mixtral-8x7b, gpt2, deepseek-v2-lite, tiny-gpt-oss, tiny-llama";
}
