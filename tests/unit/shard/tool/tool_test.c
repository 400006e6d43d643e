/* SPDX-License-Identifier: Apache-2.0
 * phalanx-model as a process: what it prints and how it exits. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "rpc/base/json.h"
#include "rpc/base/mem.h"

static char root[64];
static char output[1 << 20];

static int make_root(void **state)
{
    (void)state;
    (void)strcpy(root, "/tmp/phx-tool-test-XXXXXX");
    return mkdtemp(root) != NULL ? 0 : -1;
}

static int remove_root(void **state)
{
    char *command = phx_mem_printf("rm -rf %s", root);
    int   rc = system(command);

    (void)state;
    phx_mem_free(command);
    return rc;
}

/* Runs `phalanx-model ARGUMENTS` in the root; stdout and stderr into output; answers the exit code. */
static int tool(const char *arguments)
{
    char  *command = phx_mem_printf("cd %s && %s/phalanx-model %s 2>&1", root, PHX_BIN_DIR, arguments);
    FILE  *f = popen(command, "r");
    size_t n;
    int    status;

    assert_non_null(f);
    n = fread(output, 1, sizeof(output) - 1, f);
    output[n] = '\0';
    status = pclose(f);
    phx_mem_free(command);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static json_t *parse_output(void)
{
    struct phx_err err = {0};
    json_t        *value;

    if (phx_json_parse(&value, output, strlen(output), sizeof(output), 0, "output", &err) != 0)
        fail_msg("%s: %s", err.text, output);
    return value;
}

static int64_t number(const json_t *o, const char *key)
{
    assert_true(json_is_integer(json_object_get(o, key)));
    return json_integer_value(json_object_get(o, key));
}

static void test_usage_and_exit_codes(void **state)
{
    (void)state;
    assert_int_equal(tool("--version"), 0);
    assert_non_null(strstr(output, "phalanx-model "));
    assert_int_equal(tool("--help"), 0);
    assert_non_null(strstr(output, "synth"));
    assert_int_equal(tool(""), 2);
    assert_int_equal(tool("frobnicate"), 2);
    assert_int_equal(tool("info"), 2);
    assert_int_equal(tool("info --tp 0 x"), 2);
    assert_non_null(strstr(output, "--tp must be a whole number from 1 to 64"));
    assert_int_equal(tool("info --tp 2x x"), 2);
    assert_int_equal(tool("info --help"), 0);
    assert_int_equal(tool("info nowhere"), 1);
    assert_non_null(strstr(output, "nowhere/model.safetensors"));
    assert_int_equal(tool("synth x"), 2);
    assert_int_equal(tool("synth --preset gpt-5 x"), 1);
    assert_non_null(strstr(output, "no preset \"gpt-5\"; there are gpt-oss-20b"));
}

static void check_preset(const char *name, int32_t n_tensors)
{
    char   *arguments = phx_mem_printf("synth --json --preset %s %s", name, name);
    json_t *o;

    assert_int_equal(tool(arguments), 0);
    o = parse_output();
    assert_int_equal(number(o, "tensors"), n_tensors);
    json_decref(o);
    phx_mem_free(arguments);
    arguments = phx_mem_printf("info --json --tp 2 --pp 2 %s", name);
    assert_int_equal(tool(arguments), 0);
    o = parse_output();
    assert_int_equal(number(o, "tensors"), n_tensors);
    assert_int_equal(json_array_size(json_object_get(o, "ranks")), 4);
    assert_true(number(json_array_get(json_object_get(o, "ranks"), 3), "weights_bytes") > 1000);
    json_decref(o);
    phx_mem_free(arguments);
    arguments = phx_mem_printf("verify %s", name);
    assert_int_equal(tool(arguments), 0);
    assert_non_null(strstr(output, "  model.safetensors"));
    assert_non_null(strstr(output, "  tokenizer.json"));
    assert_non_null(strstr(output, "ok: "));
    phx_mem_free(arguments);
}

static void test_tiny_presets_pass_their_own_checks(void **state)
{
    (void)state;
    check_preset("tiny-gpt-oss", 79);
    check_preset("tiny-llama", 39);
    assert_int_equal(tool("info tiny-llama --tp 3"), 1);
    assert_non_null(strstr(output, "nearest: 2, 4"));
    assert_int_equal(tool("info tiny-llama --tp 4 --pp 4"), 0);
    assert_non_null(strstr(output, "llama: 4 layers, hidden 64"));
    assert_int_equal(tool("synth --preset tiny-llama tiny-llama"), 1);
    assert_non_null(strstr(output, "already holds a checkpoint"));
}

static void test_values_depend_on_the_seed_alone(void **state)
{
    char *first;

    (void)state;
    assert_int_equal(tool("synth --preset tiny-gpt-oss --threads 1 --seed 7 a"), 0);
    assert_int_equal(tool("synth --preset tiny-gpt-oss --threads 5 --seed 7 b"), 0);
    assert_int_equal(tool("synth --preset tiny-gpt-oss --seed 8 c"), 0);
    assert_int_equal(tool("verify a"), 0);
    first = phx_mem_strdup(output);
    assert_int_equal(tool("verify b"), 0);
    assert_string_equal(output, first);
    assert_int_equal(tool("verify c"), 0);
    assert_string_not_equal(output, first);
    phx_mem_free(first);
}

static void test_shards_layers_and_a_small_vocabulary(void **state)
{
    json_t *o;

    (void)state;
    assert_int_equal(tool("synth --preset gpt-oss-20b --layers 1 --vocab-small --shard-mb 200 oss"), 0);
    assert_non_null(strstr(output, "22 tensors in 3 files"));
    assert_int_equal(tool("info --json --tp 8 oss"), 0);
    o = parse_output();
    assert_int_equal(number(o, "layers"), 1);
    assert_int_equal(number(o, "vocab"), 288);
    assert_string_equal(json_string_value(json_array_get(json_object_get(o, "files"), 0)),
                        "model-00000-of-00002.safetensors");
    json_decref(o);
    assert_int_equal(tool("verify --json oss"), 0);
    o = parse_output();
    assert_true(json_is_true(json_object_get(o, "ok")));
    json_decref(o);
}

static void test_a_config_file_takes_the_place_of_a_preset(void **state)
{
    (void)state;
    assert_int_equal(tool("synth --config " PHX_SOURCE_DIR
                          "/tests/golden/gpt-oss-dequantised-bf16/config.json plain"), 0);
    assert_int_equal(tool("verify plain"), 0);
    assert_int_equal(tool("info plain"), 0);
    assert_non_null(strstr(output, "stored as bf16"));
    assert_int_equal(tool("synth --config " PHX_SOURCE_DIR
                          "/tests/golden/llama3-untied-f16/config.json half"), 0);
    assert_int_equal(tool("verify half"), 0);
    assert_int_equal(tool("synth --config " PHX_SOURCE_DIR "/README.md no"), 1);
}

/* Changes n bytes of a file at an offset from its end. */
static void scribble(const char *name, int64_t from_end, const void *bytes, size_t n)
{
    char *path = phx_mem_printf("%s/%s", root, name);
    FILE *f = fopen(path, "r+b");

    assert_non_null(f);
    assert_int_equal(fseek(f, -from_end, SEEK_END), 0);
    assert_int_equal(fwrite(bytes, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    phx_mem_free(path);
}

static void test_damage_is_named(void **state)
{
    char  *path;
    json_t *o;

    (void)state;
    assert_int_equal(tool("synth --preset tiny-gpt-oss t"), 0);
    path = phx_mem_printf("%s/t/model.safetensors", root);
    scribble("t/model.safetensors", 1, "\xff", 1); /* the last tensor of U8 is a scale */
    assert_int_equal(tool("verify t"), 1);
    assert_non_null(strstr(output, "_scales: scale"));
    assert_int_equal(truncate(path, 100000), 0);
    assert_int_equal(tool("verify --json t"), 1);
    assert_non_null(strstr(output, "\"ok\":false"));
    assert_non_null(strstr(output, "lie outside the"));
    assert_int_equal(truncate(path, 4), 0);
    assert_int_equal(tool("info t"), 1);
    assert_non_null(strstr(output, "model.safetensors: 4 bytes are no safetensors file"));
    phx_mem_free(path);
    assert_int_equal(tool("synth --preset tiny-llama --layers 3 u"), 0);
    /* one layer fewer than the files: the tensors of the last one belong nowhere */
    assert_int_equal(tool("synth --preset tiny-llama --layers 2 v"), 0);
    path = phx_mem_printf("cp %s/v/config.json %s/u/config.json", root, root);
    assert_int_equal(system(path), 0);
    phx_mem_free(path);
    assert_int_equal(tool("verify u"), 1);
    assert_non_null(strstr(output, "model.layers.2."));
    assert_int_equal(tool("synth --preset gpt2 --layers 1 g"), 0);
    assert_int_equal(tool("info --json g"), 1);
    assert_non_null(strstr(output, "model_type \"gpt2\" is not served"));
    assert_int_equal(tool("info --json u --tp 2"), 0);
    o = parse_output();
    assert_int_equal(number(o, "layers"), 2);
    json_decref(o);
}

#define IN_ROOT(f) cmocka_unit_test_setup_teardown(f, make_root, remove_root)

int main(void)
{
    const struct CMUnitTest tests[] = {
        IN_ROOT(test_usage_and_exit_codes),
        IN_ROOT(test_tiny_presets_pass_their_own_checks),
        IN_ROOT(test_values_depend_on_the_seed_alone),
        IN_ROOT(test_shards_layers_and_a_small_vocabulary),
        IN_ROOT(test_a_config_file_takes_the_place_of_a_preset),
        IN_ROOT(test_damage_is_named),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
