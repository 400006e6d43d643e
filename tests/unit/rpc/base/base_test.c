/* SPDX-License-Identifier: Apache-2.0
 * err, mem, buf, clock and log. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>
#include <jansson.h>

#include "rpc/base/buf.h"
#include "rpc/base/clock.h"
#include "rpc/base/log.h"
#include "rpc/base/mem.h"

static void errors_carry_code_text_and_prefix(void **state)
{
    struct phx_err err;
    char           longer[400];

    (void)state;
    assert_int_equal(phx_fail(&err, PHX_E_IO, "open %s", "x"), PHX_E_IO);
    phx_err_prefix(&err, "rank %d: ", 3);
    assert_string_equal(err.text, "rank 3: open x");
    assert_int_equal(err.code, PHX_E_IO);
    assert_int_equal(phx_fail(NULL, PHX_E_BUSY, "nobody listens"), PHX_E_BUSY);
    memset(longer, 'a', sizeof(longer) - 1);
    longer[sizeof(longer) - 1] = '\0';
    assert_int_equal(phx_fail(&err, PHX_E_IO, "%s", longer), PHX_E_IO);
    assert_int_equal(strlen(err.text), sizeof(err.text) - 1);
    phx_err_prefix(&err, "front: ");
    assert_int_equal(strncmp(err.text, "front: aaa", 10), 0);
}

static void every_code_has_its_facts(void **state)
{
    (void)state;
    for (int code = PHX_E_INTERNAL; code < 0; code++) {
        assert_true(phx_err_http(code) >= 400 && phx_err_http(code) < 600);
        assert_in_range(phx_err_grpc(code), 1, 16);
        assert_true(strlen(phx_err_name(code)) > 0 && strlen(phx_err_text(code)) > 0);
        assert_int_equal(phx_err_grpc(phx_err_from_grpc(phx_err_grpc(code))), phx_err_grpc(code));
    }
    assert_int_equal(phx_err_http(PHX_E_LIMIT), 429);
    assert_true(phx_err_is_retryable(PHX_E_BUSY) && !phx_err_is_retryable(PHX_E_INVALID));
    assert_string_equal(phx_err_name(0), "OK");
    assert_string_equal(phx_err_name(-9999), "INTERNAL");
    assert_int_equal(phx_err_from_grpc(0), PHX_OK);
}

static int n_cleanups;

static void count_cleanup(void *ctx)
{
    assert_int_equal(*(int *)ctx, n_cleanups); /* newest first */
    n_cleanups++;
}

static void an_arena_gives_zeroed_aligned_memory_and_cleans_up(void **state)
{
    struct phx_arena *a = phx_arena_create();
    int               order[2] = {1, 0};

    (void)state;
    for (size_t n = 1; n < 20000; n = n * 3 + 1) {
        unsigned char *p = phx_arena_calloc(a, n, 1);

        assert_int_equal((uintptr_t)p % 16, 0);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(p[i], 0);
        memset(p, 0xff, n);
    }
    assert_string_equal(phx_arena_strndup(a, "abcdef", 3), "abc");
    n_cleanups = 0;
    phx_arena_cleanup(a, count_cleanup, &order[0]);
    phx_arena_cleanup(a, count_cleanup, &order[1]);
    phx_arena_destroy(a);
    assert_int_equal(n_cleanups, 2);
    phx_arena_destroy(NULL);
}

static void impossible_sizes_are_no_memory(void **state)
{
    (void)state;
    assert_null(phx_mem_try(SIZE_MAX / 2, 4));
    assert_null(phx_mem_try((size_t)PTRDIFF_MAX + 1, 1));
    phx_mem_free(phx_mem_try(0, 8));
}

static void a_buffer_grows_to_its_limit_and_says_so(void **state)
{
    struct phx_buf b;
    struct phx_err err;
    char          *text;

    (void)state;
    phx_buf_init(&b, 10);
    phx_buf_puts(&b, "12345");
    phx_buf_printf(&b, "%d", 67890);
    assert_int_equal(b.size, 10);
    assert_int_equal(phx_buf_check(&b, "line", &err), 0);
    phx_buf_putc(&b, 'x');
    assert_int_equal(b.size, 10);
    assert_null(phx_buf_extend(&b, 1));
    assert_int_equal(phx_buf_check(&b, "line", &err), PHX_E_TOOBIG);
    assert_string_equal(err.text, "line is over its limit of 10 bytes");
    phx_buf_clear(&b);
    assert_null(phx_buf_extend(&b, 11));
    assert_int_equal(phx_buf_check(&b, "line", &err), PHX_E_TOOBIG);
    phx_buf_clear(&b);
    memcpy(phx_buf_extend(&b, 7), "abc\0def", 7);
    phx_buf_consume(&b, 4);
    assert_string_equal(b.data, "def");
    text = phx_buf_take(&b);
    assert_string_equal(text, "def");
    assert_int_equal(b.size, 0);
    phx_mem_free(text);
    text = phx_buf_take(&b);
    assert_string_equal(text, "");
    phx_mem_free(text);
    phx_buf_fini(&b);
}

static void files_are_written_whole_and_read_within_limits(void **state)
{
    char           dir[] = "/tmp/phx-base-XXXXXX", path[64];
    struct phx_buf b;
    struct phx_err err;
    struct stat    st;

    (void)state;
    assert_non_null(mkdtemp(dir));
    (void)snprintf(path, sizeof(path), "%s/file", dir);
    assert_int_equal(phx_file_write(path, "hello", 5, 0600, &err), 0);
    assert_int_equal(phx_file_write(path, "hello2", 6, 0600, &err), 0);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(phx_buf_read_file(&b, path, 6, &err), 0);
    assert_string_equal(b.data, "hello2");
    phx_buf_fini(&b);
    assert_int_equal(phx_buf_read_file(&b, path, 5, &err), PHX_E_TOOBIG);
    assert_int_equal(phx_buf_read_file(&b, dir, 100, &err), PHX_E_IO);
    assert_int_equal(phx_buf_read_file(&b, "/nonexistent", 100, &err), PHX_E_IO);
    assert_non_null(strstr(err.text, "/nonexistent"));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0);
}

static void times_are_formatted_in_utc(void **state)
{
    char text[32];

    (void)state;
    phx_clock_format_utc(INT64_C(1768478400123000000), text);
    assert_string_equal(text, "2026-01-15T12:00:00.123Z");
    assert_true(phx_clock_mono_ns() <= phx_clock_mono_ns());
}

/* Runs one log call with stderr in a file; the line is returned. */
static size_t capture(char *out, size_t size, const char *hostile)
{
    char    path[] = "/tmp/phx-log-XXXXXX";
    int     fd = mkstemp(path), saved = dup(STDERR_FILENO);
    ssize_t n;

    assert_int_equal(dup2(fd, STDERR_FILENO), STDERR_FILENO);
    phx_log(PHX_LOG_INFO, "test.event", "text=%s n=%d big=%llu size=%zu x=%.3f more=%s last=%d",
            hostile, -5, (unsigned long long)INT64_MAX, (size_t)77, 1.5, hostile, 1);
    assert_int_equal(dup2(saved, STDERR_FILENO), STDERR_FILENO);
    n = pread(fd, out, size - 1, 0);
    assert_true(n >= 0);
    out[n] = '\0';
    close(saved);
    close(fd);
    (void)unlink(path);
    return (size_t)n;
}

static void a_log_line_is_one_json_object_whatever_is_in_it(void **state)
{
    static char hostile[5000];
    char        line[8192];
    json_t     *root;

    (void)state;
    (void)capture(line, sizeof(line), "quote \" slash \\ newline \n tab \t high \xff end");
    assert_int_equal(strncmp(line, "<6>{", 4), 0);
    assert_ptr_equal(strchr(line, '\n'), line + strlen(line) - 1);
    root = json_loads(line + 3, 0, NULL);
    assert_non_null(root);
    assert_string_equal(json_string_value(json_object_get(root, "event")), "test.event");
    assert_int_equal(json_integer_value(json_object_get(root, "n")), -5);
    assert_int_equal(json_integer_value(json_object_get(root, "size")), 77);
    assert_non_null(strstr(line, "\"big\":9223372036854775807"));
    assert_true(json_real_value(json_object_get(root, "x")) == 1.5);
    json_decref(root);
    memset(hostile, '\n', sizeof(hostile) - 1); /* 6 bytes each when escaped */
    assert_true(capture(line, sizeof(line), hostile) <= 2048);
    root = json_loads(line + 3, 0, NULL);
    assert_non_null(root);
    assert_non_null(json_object_get(root, "text")); /* cut short */
    assert_null(json_object_get(root, "more"));     /* left out whole */
    json_decref(root);
}

static void levels_are_parsed_and_obeyed(void **state)
{
    enum phx_log_level level;
    char               line[256];

    (void)state;
    assert_int_equal(phx_log_parse_level("debug", &level), 0);
    assert_int_equal(level, PHX_LOG_DEBUG);
    assert_int_equal(phx_log_parse_level("loud", &level), -1);
    phx_log_set_level(PHX_LOG_WARN);
    assert_int_equal(capture(line, sizeof(line), "x"), 0);
    phx_log_set_level(PHX_LOG_INFO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(errors_carry_code_text_and_prefix),
        cmocka_unit_test(every_code_has_its_facts),
        cmocka_unit_test(an_arena_gives_zeroed_aligned_memory_and_cleans_up),
        cmocka_unit_test(impossible_sizes_are_no_memory),
        cmocka_unit_test(a_buffer_grows_to_its_limit_and_says_so),
        cmocka_unit_test(files_are_written_whole_and_read_within_limits),
        cmocka_unit_test(times_are_formatted_in_utc),
        cmocka_unit_test(a_log_line_is_one_json_object_whatever_is_in_it),
        cmocka_unit_test(levels_are_parsed_and_obeyed),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
