/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdbool.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/config/config.h"
#include "rpc/base/mem.h"

#define BASE "data_dir: /d\nmodel:\n  path: /m\n"

static struct phx_config *parse_ok(const char *text)
{
    struct phx_config *c;
    struct phx_err     err = {0};
    int                rc = phx_config_parse(text, strlen(text), "f.yaml", &c, &err);

    if (rc != 0)
        print_error("%s\n", err.text);
    assert_int_equal(rc, 0);
    return c;
}

/* Refused with that code, and the message holds `part`. */
static void refuse(const char *text, int code, const char *part)
{
    struct phx_config *c;
    struct phx_err     err = {0};

    assert_int_equal(phx_config_parse(text, strlen(text), "f.yaml", &c, &err), code);
    assert_null(c);
    assert_non_null(strstr(err.text, "f.yaml"));
    if (strstr(err.text, part) == NULL)
        fail_msg("'%s' is not in: %s", part, err.text);
}

static void defaults_and_values_are_read(void **state)
{
    struct phx_config *c = parse_ok(BASE "  name: demo\nengine:\n  threads: 3\n  prefix_cache: false\n"
                                         "launcher:\n  args: [\"--mca\", a, b]\nlog:\n");

    (void)state;
    assert_string_equal(c->data_dir, "/d");
    assert_string_equal(c->model_name, "demo");
    assert_int_equal(c->engine_threads, 3);
    assert_false(c->engine_prefix_cache);
    assert_int_equal(c->launcher_args.n, 3);
    assert_string_equal(c->launcher_args.items[2], "b");
    assert_int_equal(c->http_body_max_bytes, 1 << 20);
    assert_int_equal(c->timeouts_step_stall_ms, 5000);
    assert_string_equal(c->log_level, "info");
    phx_config_destroy(c);
}

static void unknown_keys_are_named_with_their_line(void **state)
{
    (void)state;
    refuse(BASE "colour: red\n", PHX_E_INVALID, "line 4: unknown key 'colour'");
    refuse(BASE "engine:\n  thread: 3\n", PHX_E_INVALID, "line 5: unknown key 'engine.thread'");
    refuse(BASE "engine:\n  threads:\n    a: 1\n", PHX_E_INVALID, "engine.threads: one value");
    refuse(BASE "engine.threads: 3\n" "engine:\n  threads: 3\n", PHX_E_INVALID, "given twice");
    refuse(BASE "engine:\n  threads: 1\nengine:\n  threads: 2\n", PHX_E_INVALID, "given twice");
}

static void what_is_not_plain_yaml_is_refused(void **state)
{
    (void)state;
    refuse("data_dir: \"x", PHX_E_FORMAT, "not YAML");
    refuse("- a\n- b\n", PHX_E_INVALID, "key: value");
    refuse(BASE "listen: &x a\ngrpc_listen: *x\n", PHX_E_INVALID, "aliases");
    refuse(BASE "---\nlisten: b\n", PHX_E_INVALID, "second document");
    refuse(BASE "listen: [a]\n", PHX_E_INVALID, "listen: one value");
    refuse(BASE "launcher:\n  args: x\n", PHX_E_INVALID, "a list is expected");
    refuse(BASE "listen: \"a\\0b\"\n", PHX_E_INVALID, "NUL");
    refuse(BASE "? [a]\n: b\n", PHX_E_INVALID, "a key");
}

static void numbers_are_taken_at_their_bounds_only(void **state)
{
    struct phx_config *c = parse_ok(BASE "cluster:\n  tp: 64\n  pp: 128\n  replicas: 64\n");

    (void)state;
    assert_int_equal(c->cluster_tp, 64);
    phx_config_destroy(c);
    refuse(BASE "cluster:\n  tp: 65\n", PHX_E_INVALID, "line 5: cluster.tp: '65'");
    refuse(BASE "cluster:\n  tp: -1\n", PHX_E_INVALID, "from 0 to 64");
    refuse(BASE "cluster:\n  tp: 2x\n", PHX_E_INVALID, "'2x'");
    refuse(BASE "cluster:\n  tp: 99999999999999999999\n", PHX_E_INVALID, "cluster.tp");
    refuse(BASE "cluster:\n  tp:\n", PHX_E_INVALID, "cluster.tp: ''");
    refuse(BASE "http:\n  body_max_bytes: 1023\n", PHX_E_INVALID, "body_max_bytes");
    refuse(BASE "engine:\n  block_tokens: 17\n", PHX_E_INVALID, "16 or 32");
    refuse(BASE "engine:\n  class: fast\n", PHX_E_INVALID, "engine.class fast is for engine.backend cuda");
    refuse(BASE "engine:\n  graphs: false\n", PHX_E_INVALID, "engine.graphs false is for engine.backend cuda");
    refuse(BASE "engine:\n  overlap: false\n", PHX_E_INVALID, "engine.overlap false is for engine.backend cuda");
    refuse(BASE "engine:\n  class: quick\n", PHX_E_INVALID, "bitwise");
    refuse(BASE "cluster:\n  transport: nccl\n", PHX_E_INVALID, "cluster.transport is for engine.backend cuda");
    refuse(BASE "cluster:\n  transport: peer\n  pp: 2\nengine:\n  backend: cuda\n", PHX_E_INVALID,
           "cluster.transport peer is for cluster.pp 1");
    refuse(BASE "cluster:\n  transport: peer\n  interface: eth0\nengine:\n  backend: cuda\n", PHX_E_INVALID,
           "cluster.interface is not for cluster.transport peer");
    refuse(BASE "cluster:\n  devices: 0,1\n", PHX_E_INVALID, "cluster.devices is for engine.backend cuda");
    refuse(BASE "cluster:\n  interface: eth0\n", PHX_E_INVALID, "cluster.interface is for engine.backend cuda");
    refuse(BASE "cluster:\n  ib_devices: none\n", PHX_E_INVALID, "cluster.ib_devices is for engine.backend cuda");
    refuse(BASE "engine:\n  backend: cuda\n  isa: avx2\n", PHX_E_INVALID, "engine.isa is for engine.backend cpu");
    refuse(BASE "engine:\n  backend: cuda\n  threads: 2\n", PHX_E_INVALID, "engine.threads is for engine.backend cpu");
    refuse(BASE "engine:\n  dtype: int3\n", PHX_E_INVALID, "not one of auto|int8");
    refuse(BASE "engine:\n  isa: avx\n", PHX_E_INVALID, "auto|ref|avx2|avx512|amx");
    refuse(BASE "engine:\n  prefix_cache: yes\n", PHX_E_INVALID, "true or false");
}

static void keys_that_depend_on_each_other_are_checked(void **state)
{
    (void)state;
    refuse("model:\n  path: /m\n", PHX_E_INVALID, "data_dir is needed");
    refuse("data_dir: /d\n", PHX_E_INVALID, "model.path is needed");
    refuse("", PHX_E_INVALID, "needed");
    refuse(BASE "http:\n  tls_cert: /c\n", PHX_E_INVALID, "belong together");
    refuse(BASE "timeouts:\n  lost_ms: 1999\n", PHX_E_INVALID, "twice");
    phx_config_destroy(parse_ok(BASE "timeouts:\n  lost_ms: 2000\n"));
    refuse(BASE "restart:\n  backoff_min_ms: 20\n  backoff_max_ms: 19\n", PHX_E_INVALID, "below");
    refuse(BASE "chat:\n  date: 2026-13-01\n", PHX_E_INVALID, "chat.date");
    phx_config_destroy(parse_ok(BASE "chat:\n  date: 2026-12-01\n"));
    refuse(BASE "  name: \"a\\\"b\"\n", PHX_E_INVALID, "model.name");
}

static void sizes_are_limited(void **state)
{
    struct phx_buf     text;
    struct phx_config *c;
    struct phx_err     err = {0};

    (void)state;
    phx_buf_init(&text, 0);
    phx_buf_puts(&text, BASE "launcher:\n  args:\n");
    for (int i = 0; i < PHX_CONFIG_ARGS_MAX; i++)
        phx_buf_puts(&text, "  - x\n");
    phx_config_destroy(parse_ok(text.data));
    phx_buf_puts(&text, "  - x\n");
    refuse(text.data, PHX_E_INVALID, "more than 64 items");

    phx_buf_clear(&text);
    phx_buf_puts(&text, BASE "listen: ");
    for (int i = 0; i < PHX_CONFIG_VALUE_MAX_BYTES; i++)
        phx_buf_putc(&text, 'x');
    phx_config_destroy(parse_ok(text.data));
    phx_buf_putc(&text, 'x');
    refuse(text.data, PHX_E_INVALID, "longer than");

    phx_buf_clear(&text);
    phx_buf_puts(&text, BASE "#");
    while (text.size < PHX_CONFIG_FILE_MAX_BYTES)
        phx_buf_putc(&text, 'x');
    phx_config_destroy(parse_ok(text.data));
    phx_buf_putc(&text, 'x');
    assert_int_equal(phx_config_parse(text.data, text.size, "f.yaml", &c, &err), PHX_E_TOOBIG);
    phx_buf_fini(&text);
}

static void a_written_config_reads_back(void **state)
{
    struct phx_config *c = parse_ok(BASE "  name: \"gpt-oss 20b: x\"\nlauncher:\n  args: [\"a: b\", \"#c\"]\n"
                                         "engine:\n  threads: 7\n  prefix_cache: false\n");
    struct phx_config *again;
    struct phx_buf     text, twice;

    (void)state;
    phx_buf_init(&text, 0);
    phx_buf_init(&twice, 0);
    phx_config_format(c, &text);
    again = parse_ok(text.data);
    assert_string_equal(again->model_name, c->model_name);
    assert_string_equal(again->launcher_args.items[0], "a: b");
    assert_string_equal(again->launcher_args.items[1], "#c");
    assert_int_equal(again->engine_threads, 7);
    phx_config_format(again, &twice);
    assert_string_equal(text.data, twice.data);
    phx_config_destroy(c);
    phx_config_destroy(again);
    phx_buf_fini(&text);
    phx_buf_fini(&twice);
}

static void ranks_follow_the_nodes_of_the_machine(void **state)
{
    struct phx_config *c = parse_ok(BASE "cluster:\n  pp: 2\n");

    (void)state;
    assert_int_equal(c->cluster_tp, 1); /* stages may lie on other machines */
    phx_config_destroy(c);
    assert_int_equal(phx_config_default_tp(1, 1, 32), 1);
    assert_int_equal(phx_config_default_tp(2, 1, 32), 2);
    assert_int_equal(phx_config_default_tp(2, 2, 32), 1); /* a node for every replica */
    assert_int_equal(phx_config_default_tp(8, 2, 32), 4);
    assert_int_equal(phx_config_default_tp(16, 1, 64), 8);
    assert_int_equal(phx_config_default_tp(6, 1, 32), 4);
    assert_int_equal(phx_config_default_tp(4, 1, 6), 2); /* four do not divide six heads */
    assert_int_equal(phx_config_default_tp(4, 1, 0), 1);
}

static void the_example_file_is_the_table(void **state)
{
    struct phx_buf     text, file, bare;
    struct phx_config *c;

    (void)state;
    phx_buf_init(&text, 0);
    phx_buf_init(&bare, 0);
    phx_config_format_example(&text);
    assert_int_equal(phx_buf_read_file(&file, PHX_SOURCE_DIR "/deploy/config/phalanxd.yaml.example",
                                       1 << 20, NULL), 0);
    assert_string_equal(text.data, file.data);
    phx_config_destroy(parse_ok(text.data));
    /* without the comment signs in front of keys it must parse as well: every default is a valid value */
    for (const char *line = text.data; *line != '\0';) {
        size_t n = strcspn(line, "\n");
        bool   is_key = line[0] == '#' && (line[1] != ' ' || line[2] == ' ');

        phx_buf_printf(&bare, "%.*s\n", (int)n - is_key, line + is_key);
        line += n + (line[n] == '\n');
    }
    c = parse_ok(bare.data);
    assert_int_equal(c->engine_max_rows, 0);
    phx_config_destroy(c);
    phx_buf_fini(&text);
    phx_buf_fini(&file);
    phx_buf_fini(&bare);
}

static void one_key_can_be_set_from_text(void **state)
{
    struct phx_config *c = phx_config_create();
    struct phx_err     err;

    (void)state;
    assert_int_equal(phx_config_set(c, "cluster.tp", "4", &err), 0);
    assert_int_equal(c->cluster_tp, 4);
    assert_int_equal(phx_config_set(c, "cluster.tp", "four", &err), PHX_E_INVALID);
    assert_int_equal(c->cluster_tp, 4);
    assert_int_equal(phx_config_set(c, "cluster.tx", "4", &err), PHX_E_INVALID);
    phx_config_destroy(c);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(defaults_and_values_are_read),
        cmocka_unit_test(unknown_keys_are_named_with_their_line),
        cmocka_unit_test(what_is_not_plain_yaml_is_refused),
        cmocka_unit_test(numbers_are_taken_at_their_bounds_only),
        cmocka_unit_test(keys_that_depend_on_each_other_are_checked),
        cmocka_unit_test(sizes_are_limited),
        cmocka_unit_test(a_written_config_reads_back),
        cmocka_unit_test(ranks_follow_the_nodes_of_the_machine),
        cmocka_unit_test(the_example_file_is_the_table),
        cmocka_unit_test(one_key_can_be_set_from_text),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
