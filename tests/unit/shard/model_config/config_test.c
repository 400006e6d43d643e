/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/buf.h"
#include "rpc/base/mem.h"
#include "shard/load/load.h"
#include "shard/model/config.h"

#define OSS_20B                                                                                     \
    "\"architectures\":[\"GptOssForCausalLM\"],\"model_type\":\"gpt_oss\",\"num_hidden_layers\":24," \
    "\"num_local_experts\":32,\"num_experts_per_tok\":4,\"experts_per_token\":4,"                    \
    "\"hidden_size\":2880,\"intermediate_size\":2880,\"head_dim\":64,\"num_attention_heads\":64,"    \
    "\"num_key_value_heads\":8,\"attention_bias\":true,\"hidden_act\":\"silu\","                     \
    "\"swiglu_limit\":7.0,\"sliding_window\":128,\"max_position_embeddings\":131072,"                \
    "\"initial_context_length\":4096,\"rope_theta\":150000,\"rms_norm_eps\":1e-05,"                  \
    "\"tie_word_embeddings\":false,\"vocab_size\":201088,\"eos_token_id\":200002,"                   \
    "\"pad_token_id\":199999,\"quantization_config\":{\"quant_method\":\"mxfp4\"}"
#define OSS_ROPE                                                                                    \
    ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32.0,\"beta_fast\":32.0,"                  \
    "\"beta_slow\":1.0,\"original_max_position_embeddings\":4096,\"truncate\":false}"
#define LLAMA                                                                                       \
    "\"model_type\":\"llama\",\"num_hidden_layers\":2,\"hidden_size\":4096,"                         \
    "\"intermediate_size\":14336,\"num_attention_heads\":32,\"num_key_value_heads\":8,"              \
    "\"vocab_size\":128256,\"rope_theta\":500000.0,\"max_position_embeddings\":131072"

static struct phx_model_config config;
static struct phx_err          err;

static int parse(const char *json)
{
    err.text[0] = '\0';
    return phx_model_config_parse(json, strlen(json), &config, &err);
}

static bool is_near(double a, double b)
{
    return fabs(a - b) <= 1e-9 * fabs(b);
}

static void test_gpt_oss_20b(void **state)
{
    (void)state;
    assert_int_equal(parse("{" OSS_20B OSS_ROPE "}"), 0);
    assert_int_equal(config.arch, PHX_ARCH_GPT_OSS);
    assert_string_equal(config.model_type, "gpt_oss");
    assert_int_equal(config.n_layers, 24);
    assert_int_equal(config.head_dim, 64);
    assert_int_equal(config.n_experts, 32);
    assert_int_equal(config.experts_per_token, 4);
    assert_int_equal(config.window[0], 128); /* even layers slide, the last one is full */
    assert_int_equal(config.window[1], 0);
    assert_int_equal(config.window[23], 0);
    assert_true(config.has_attn_bias && config.has_sinks && config.has_mlp_bias && !config.is_tied);
    assert_int_equal(config.dtype, PHX_DTYPE_BF16);
    assert_int_equal(config.expert_dtype, PHX_DTYPE_MXFP4);
    assert_true(is_near(config.rope.attention_factor, 1.3465735902799727));
    assert_int_equal(config.n_stop_ids, 2); /* 200012 joins by itself */
    assert_int_equal(config.stop_ids[0], 200002);
    assert_int_equal(config.stop_ids[1], 200012);
    assert_int_equal(config.pad_id, 199999);
    assert_int_equal(config.bos_id, -1);
}

static void test_yarn_frequencies(void **state)
{
    static const struct {
        int    j;
        double f;
    } golden[] = {{0, 1.0}, {1, 6.890443059e-01}, {7, 7.374456821e-02}, {8, 5.081327482e-02},
                  {9, 3.170569618e-02}, {12, 6.794959490e-03}, {17, 1.293187012e-04},
                  {18, 3.830881237e-05}, {31, 3.023511428e-07}};
    double inv[32], truncated[32];

    (void)state;
    assert_int_equal(parse("{" OSS_20B OSS_ROPE "}"), 0);
    phx_rope_frequencies(&config, inv);
    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++)
        assert_true(fabs(inv[golden[i].j] / golden[i].f - 1) < 1e-9);
    /* without the key the bounds are rounded: other frequencies between 8 and 18 */
    assert_int_equal(parse("{" OSS_20B ",\"rope_scaling\":{\"rope_type\":\"yarn\",\"factor\":32.0,"
                           "\"original_max_position_embeddings\":4096}}"), 0);
    assert_true(config.rope.is_truncated);
    phx_rope_frequencies(&config, truncated);
    assert_true(truncated[9] != inv[9]);
    assert_true(is_near(truncated[0], 1.0));
}

static void test_yarn_amplitude_rules(void **state)
{
    (void)state;
    assert_int_equal(parse("{" OSS_20B ",\"rope_parameters\":{\"rope_type\":\"yarn\",\"factor\":40.0,"
                           "\"rope_theta\":10000,\"mscale\":0.707,\"mscale_all_dim\":0.707}}"), 0);
    assert_true(is_near(config.rope.attention_factor, 1.0));
    assert_true(is_near(config.rope.theta, 10000));
    assert_int_equal(parse("{" OSS_20B ",\"rope_parameters\":{\"type\":\"yarn\",\"factor\":40.0,"
                           "\"attention_factor\":1.25}}"), 0);
    assert_true(is_near(config.rope.attention_factor, 1.25));
    /* without a factor it is the ratio of the contexts */
    assert_int_equal(parse("{" OSS_20B ",\"rope_parameters\":{\"rope_type\":\"yarn\","
                           "\"original_max_position_embeddings\":8192}}"), 0);
    assert_true(is_near(config.rope.factor, 16));
    assert_true(is_near(config.rope.attention_factor, 0.1 * log(16) + 1));
}

static void test_llama3_frequencies(void **state)
{
    static const struct {
        int    j;
        double f;
    } golden[] = {{28, 3.211445995e-03}, {29, 2.166570764e-03}, {30, 1.371893568e-03},
                  {32, 5.248461610e-04}, {34, 1.785078128e-04}, {35, 9.556212354e-05},
                  {63, 3.068925989e-07}};
    double inv[64];

    (void)state;
    assert_int_equal(parse("{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8.0,"
                           "\"low_freq_factor\":1.0,\"high_freq_factor\":4.0,"
                           "\"original_max_position_embeddings\":8192}}"), 0);
    phx_rope_frequencies(&config, inv);
    for (size_t i = 0; i < sizeof(golden) / sizeof(golden[0]); i++)
        assert_true(fabs(inv[golden[i].j] / golden[i].f - 1) < 1e-9);
    assert_true(is_near(config.rope.attention_factor, 1));
}

static void test_linear_and_plain(void **state)
{
    double plain[64], linear[64];

    (void)state;
    assert_int_equal(parse("{" LLAMA ",\"rope_scaling\":null}"), 0);
    assert_int_equal(config.rope.kind, PHX_ROPE_PLAIN);
    phx_rope_frequencies(&config, plain);
    assert_int_equal(parse("{" LLAMA ",\"rope_scaling\":{\"type\":\"linear\",\"factor\":2.0}}"), 0);
    phx_rope_frequencies(&config, linear);
    for (int i = 0; i < 64; i++)
        assert_true(is_near(linear[i] * 2, plain[i]));
    assert_int_equal(parse("{" LLAMA ",\"rope_parameters\":{\"rope_type\":\"default\","
                           "\"rope_theta\":1000}}"), 0);
    assert_true(is_near(config.rope.theta, 1000));
}

static void test_llama_defaults(void **state)
{
    (void)state;
    assert_int_equal(parse("{\"model_type\":\"llama\",\"num_hidden_layers\":2,\"hidden_size\":64,"
                           "\"intermediate_size\":100,\"num_attention_heads\":4,\"vocab_size\":50,"
                           "\"eos_token_id\":[2,3,2],\"head_dim\":null,\"bos_token_id\":1}"), 0);
    assert_int_equal(config.n_kv_heads, 4);
    assert_int_equal(config.head_dim, 16);
    assert_true(config.norm_eps == 1e-6F);
    assert_true(!config.has_attn_bias && !config.has_mlp_bias && !config.is_tied && !config.has_sinks);
    assert_int_equal(config.n_stop_ids, 2);
    assert_int_equal(config.bos_id, 1);
    assert_int_equal(config.max_position, 2048);
    assert_true(is_near(config.rope.theta, 10000));
    assert_int_equal(config.n_experts, 0);
}

static const struct {
    const char *json;
    int         code;
    const char *text;
} bad[] = {
    {"{\"model_type\":\"mamba\"}", PHX_E_UNSUPPORTED, "model_type \"mamba\" is not served"},
    {"{}", PHX_E_INVALID, "model_type is missing"},
    {"[]", PHX_E_INVALID, "config.json"},
    {"{" OSS_20B "}", PHX_E_INVALID, "rope_scaling is missing"},
    {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"dynamic\",\"factor\":2}}", PHX_E_UNSUPPORTED,
     "rope_scaling.rope_type \"dynamic\" is not served"},
    {"{" LLAMA ",\"rope_scaling\":{\"factor\":2}}", PHX_E_INVALID, "rope_scaling.rope_type is missing"},
    {"{" LLAMA ",\"rope_scaling\":{\"rope_type\":\"llama3\",\"factor\":8}}", PHX_E_INVALID,
     "rope_scaling.low_freq_factor is missing"},
    {"{" LLAMA ",\"rope_parameters\":{\"full_attention\":{\"rope_type\":\"default\"}}}",
     PHX_E_UNSUPPORTED, "per layer type"},
    {"{" LLAMA ",\"hidden_act\":\"gelu\"}", PHX_E_UNSUPPORTED, "hidden_act \"gelu\""},
    {"{" LLAMA ",\"quantization_config\":{\"quant_method\":\"awq\"}}", PHX_E_UNSUPPORTED,
     "quant_method \"awq\""},
    {"{" LLAMA ",\"torch_dtype\":\"float8_e4m3fn\"}", PHX_E_UNSUPPORTED, "torch_dtype"},
    {"{" LLAMA ",\"sliding_window\":4096}", PHX_E_UNSUPPORTED, "sliding_window"},
    {"{" LLAMA ",\"layer_types\":[\"full_attention\"]}", PHX_E_INVALID, "layer_types has 1 entries"},
    {"{" LLAMA ",\"layer_types\":[\"full_attention\",\"linear_attention\"]}", PHX_E_UNSUPPORTED,
     "layer_types[1] \"linear_attention\""},
    {"{" LLAMA ",\"partial_rotary_factor\":0.5}", PHX_E_UNSUPPORTED, "partial_rotary_factor"},
    {"{" LLAMA ",\"attn_logit_softcapping\":50.0}", PHX_E_UNSUPPORTED, "attn_logit_softcapping"},
    {"{" LLAMA ",\"head_dim\":63}", PHX_E_INVALID, "head_dim 63 is odd"},
    {"{" LLAMA ",\"eos_token_id\":128256}", PHX_E_INVALID, "eos_token_id"},
    {"{" LLAMA ",\"eos_token_id\":[1,\"x\"]}", PHX_E_INVALID, "eos_token_id"},
    {"{" LLAMA ",\"rms_norm_eps\":-1}", PHX_E_INVALID, "rms_norm_eps"},
    {"{" LLAMA ",\"num_hidden_layers\":3}", PHX_E_FORMAT, "not valid JSON"},
    {"{\"model_type\":\"llama\",\"num_hidden_layers\":1000000}", PHX_E_INVALID, "num_hidden_layers"},
    {"{\"model_type\":\"llama\",\"num_hidden_layers\":-2}", PHX_E_INVALID, "num_hidden_layers"},
    {"{\"model_type\":\"llama\",\"num_hidden_layers\":2.5}", PHX_E_INVALID, "num_hidden_layers"},
    {"{\"model_type\":\"llama\",\"num_hidden_layers\":2,\"hidden_size\":64,\"intermediate_size\":9,"
     "\"num_attention_heads\":6,\"num_key_value_heads\":4,\"vocab_size\":5}", PHX_E_INVALID,
     "num_key_value_heads"},
    {"{\"model_type\":\"llama\",\"num_hidden_layers\":2,\"hidden_size\":65,\"intermediate_size\":9,"
     "\"num_attention_heads\":4,\"vocab_size\":5}", PHX_E_INVALID, "hidden_size 65"},
    {"{" OSS_20B OSS_ROPE ",\"swiglu_alpha\":1.5}", PHX_E_UNSUPPORTED, "swiglu_alpha"},
    {"{\"model_type\":\"llama\"", PHX_E_FORMAT, "not valid JSON"},
};

static void test_what_cannot_be_served_is_refused_by_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        int rc = parse(bad[i].json);

        if (rc != bad[i].code || strstr(err.text, bad[i].text) == NULL)
            print_error("case %zu: %d \"%s\"\n", i, rc, err.text);
        assert_int_equal(rc, bad[i].code);
        assert_non_null(strstr(err.text, bad[i].text));
    }
}

static void test_json_of_depth_10000(void **state)
{
    char *deep = phx_mem_calloc(1, 20002);

    (void)state;
    memset(deep, '[', 10000);
    memset(deep + 10000, ']', 10000);
    assert_int_equal(parse(deep), PHX_E_FORMAT);
    assert_non_null(strstr(err.text, "deeper than"));
    phx_mem_free(deep);
}

static void load_golden(const char *name)
{
    char                  *dir = phx_mem_printf("%s/tests/golden/%s", PHX_SOURCE_DIR, name);
    struct phx_checkpoint *c;

    assert_int_equal(phx_checkpoint_open(dir, &c, &err), 0);
    assert_int_equal(phx_model_config_load(dir, c, &config, &err), 0);
    phx_checkpoint_close(c);
    phx_mem_free(dir);
}

static void test_the_tensors_decide_the_types(void **state)
{
    (void)state;
    load_golden("gpt-oss-window-f32");
    assert_int_equal(config.dtype, PHX_DTYPE_F32);
    assert_int_equal(config.expert_dtype, PHX_DTYPE_MXFP4);
    load_golden("gpt-oss-dequantised-bf16");
    assert_int_equal(config.dtype, PHX_DTYPE_BF16);
    assert_int_equal(config.expert_dtype, PHX_DTYPE_BF16);
    load_golden("llama3-untied-f16");
    assert_int_equal(config.dtype, PHX_DTYPE_F16);
    load_golden("llama3-tied-bf16");
    assert_true(config.is_tied);
    load_golden("gpt-oss-parameters-bf16"); /* own layer_types */
    assert_int_equal(config.window[0], 0);
    assert_int_equal(config.window[1], 16);
    assert_int_equal(config.window[3], 0);
}

static void put(const char *dir, const char *name, const char *text)
{
    char *path = phx_mem_printf("%s/%s", dir, name);

    assert_int_equal(phx_file_write(path, text, strlen(text), 0600, &err), 0);
    phx_mem_free(path);
}

static void drop(const char *dir, const char *name)
{
    char *path = phx_mem_printf("%s/%s", dir, name);

    assert_int_equal(unlink(path), 0);
    phx_mem_free(path);
}

static void test_generation_config_joins_the_stop_ids(void **state)
{
    char dir[] = "/tmp/phx-config-test-XXXXXX";

    (void)state;
    assert_non_null(mkdtemp(dir));
    put(dir, "config.json", "{" LLAMA ",\"eos_token_id\":128001}");
    put(dir, "generation_config.json",
        "{\"eos_token_id\":[128001,128008,128009],\"bos_token_id\":128000,\"temperature\":0.6}");
    assert_int_equal(phx_model_config_load(dir, NULL, &config, &err), 0);
    assert_int_equal(config.n_stop_ids, 3);
    assert_int_equal(config.stop_ids[2], 128009);
    assert_int_equal(config.bos_id, 128000);
    put(dir, "generation_config.json", "{\"eos_token_id\":-5}");
    assert_int_equal(phx_model_config_load(dir, NULL, &config, &err), PHX_E_INVALID);
    assert_non_null(strstr(err.text, "generation_config.json: eos_token_id"));
    drop(dir, "generation_config.json");
    drop(dir, "config.json");
    assert_int_equal(phx_model_config_load(dir, NULL, &config, &err), PHX_E_IO);
    assert_int_equal(rmdir(dir), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_gpt_oss_20b),
        cmocka_unit_test(test_yarn_frequencies),
        cmocka_unit_test(test_yarn_amplitude_rules),
        cmocka_unit_test(test_llama3_frequencies),
        cmocka_unit_test(test_linear_and_plain),
        cmocka_unit_test(test_llama_defaults),
        cmocka_unit_test(test_what_cannot_be_served_is_refused_by_name),
        cmocka_unit_test(test_json_of_depth_10000),
        cmocka_unit_test(test_the_tensors_decide_the_types),
        cmocka_unit_test(test_generation_config_joins_the_stop_ids),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
