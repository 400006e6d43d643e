/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "rpc/base/json.h"
#include "shard/tool/synth.h"

/* Facts about published checkpoints, and the sum of a shape made for speed: tensors, bytes of payload. */
static const struct {
    const char *preset;
    int32_t     n_tensors;
    uint64_t    bytes;
    int32_t     n_files;
    const char *last_file;
} facts[] = {
    {"gpt-oss-20b", 459, UINT64_C(13761264768), 3, "model-00002-of-00002.safetensors"},
    {"gpt-oss-120b", 687, UINT64_C(65248815744), 15, "model-00014-of-00014.safetensors"},
    {"gpt-oss-small", 231, UINT64_C(1634915904), 1, "model.safetensors"},
    {"llama-3.2-1b", 146, UINT64_C(2471628800), 1, "model.safetensors"},
    {"llama-3.1-8b", 291, UINT64_C(16060522496), 4, "model-00004-of-00004.safetensors"},
    {"mistral-7b", 291, UINT64_C(14483464192), 4, NULL},
    {"mixtral-8x7b", 995, UINT64_C(93405585408), 0, NULL},
    {"gpt2", 148, UINT64_C(497759232), 1, "model.safetensors"},
    {"deepseek-v2-lite", 5291, UINT64_C(31412968448), 0, NULL},
};

static void test_presets_have_the_published_totals(void **state)
{
    struct phx_err err = {0};

    (void)state;
    for (size_t i = 0; i < sizeof(facts) / sizeof(facts[0]); i++) {
        const char             *text = phx_synth_preset(facts[i].preset);
        struct phx_synth_layout l;
        json_t                 *config;
        char                    name[64];

        assert_non_null(text);
        assert_int_equal(phx_json_parse(&config, text, strlen(text), 1 << 20, 0, "preset", &err), 0);
        assert_int_equal(phx_synth_layout_make(config, UINT64_C(4800000000), &l, &err), 0);
        if (l.n != facts[i].n_tensors || l.total_bytes != facts[i].bytes)
            print_error("%s: %d tensors, %llu bytes, %d files\n", facts[i].preset, l.n,
                        (unsigned long long)l.total_bytes, l.n_files);
        assert_int_equal(l.n, facts[i].n_tensors);
        assert_int_equal(l.total_bytes, facts[i].bytes);
        if (facts[i].last_file != NULL) {
            phx_synth_file_name(config, &l, l.n_files - 1, name);
            assert_int_equal(l.n_files, facts[i].n_files);
            assert_string_equal(name, facts[i].last_file);
        }
        phx_synth_layout_fini(&l);
        json_decref(config);
    }
}

static void test_unknown_layouts_are_refused_by_name(void **state)
{
    struct phx_err          err = {0};
    struct phx_synth_layout l;
    json_t                 *config = json_pack("{s:s}", "model_type", "mamba");

    (void)state;
    assert_null(phx_synth_preset("gpt-5"));
    assert_int_equal(phx_synth_layout_make(config, 1000, &l, &err), PHX_E_UNSUPPORTED);
    assert_non_null(strstr(err.text, "mamba"));
    json_decref(config);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_presets_have_the_published_totals),
        cmocka_unit_test(test_unknown_layouts_are_refused_by_name),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
