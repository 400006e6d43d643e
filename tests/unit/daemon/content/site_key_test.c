/* SPDX-License-Identifier: Apache-2.0
 * The site's key: its file, and what a lost one means. */
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "vault_world.h"

static void write_file(const char *path, const char *text, unsigned mode)
{
    assert_int_equal(phx_file_write(path, text, strlen(text), mode, NULL), 0);
    assert_int_equal(chmod(path, mode), 0);
}

static void test_file(void **state)
{
    struct scratch s;
    struct stat    st;
    struct phx_err err = {0};
    uint8_t        a[32], b[32];
    char           dir[96], path[128];

    (void)state;
    scratch_make(&s);
    (void)snprintf(dir, sizeof(dir), "%s/keys", s.dir);
    (void)snprintf(path, sizeof(path), "%s/content.key", dir);
    assert_int_equal(phx_content_key_read(path, a, &err), 0);
    assert_int_equal(phx_content_key_read(path, b, &err), 0);
    assert_memory_equal(a, b, 32);
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    assert_int_equal(stat(dir, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);

    assert_int_equal(chmod(path, 0640), 0);
    assert_int_equal(phx_content_key_read(path, b, &err), PHX_E_STATE);
    write_file(path, "abcd", 0600); /* damaged: never made anew */
    assert_int_equal(phx_content_key_read(path, b, &err), PHX_E_FORMAT);
    assert_non_null(strstr(err.text, "backup"));
    write_file(path, "", 0600);
    assert_int_equal(phx_content_key_read(path, b, &err), PHX_E_FORMAT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(phx_content_key_read(path, b, &err), 0);
    assert_memory_not_equal(a, b, 32);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rmdir(dir), 0); /* and nothing else was left in it */
    write_file(dir, "", 0600);
    assert_int_equal(phx_content_key_read(path, b, &err), PHX_E_IO);
    assert_int_equal(unlink(dir), 0);
    scratch_remove(&s);
}

static void test_lost(void **state)
{
    struct world            w;
    struct phx_content_text t;
    struct kept k = {"rcpt_1", "acme", "u", PHX_PRIVACY_ENCRYPTED, NOV, 0, "question", "answer", "", ""};
    struct kept l = {"rcpt_2", "acme", "u", PHX_PRIVACY_ENCRYPTED, NOV, 0, "question", "answer", "", ""};
    char        a[65], b[65];

    (void)state;
    world_make(&w);
    assert_int_equal(key_check(&w), 0);
    assert_int_equal(key_check(&w), 0);
    assert_int_equal(put(&w, &k), 0);
    assert_int_equal(pseudonym(&w, "acme", "u", NOV, a), 0);
    assert_int_equal(key_lost(&w), PHX_E_STATE); /* it is not lost: no way around a hold */
    assert_reads(&w, "rcpt_1", "question", "answer");

    w.key[31] ^= 0x80;
    assert_int_equal(key_check(&w), PHX_E_STATE);
    assert_non_null(strstr(w.err.text, "key-lost"));
    assert_int_equal(put(&w, &l), PHX_E_STATE);
    assert_int_equal(key_lost(&w), 0);
    assert_int_equal(leaves(&w, "key", "alice and bob"), 1);
    assert_int_equal(key_check(&w), 0);
    assert_int_equal(put(&w, &l), 0);
    assert_reads(&w, "rcpt_2", "question", "answer");
    assert_int_equal(get(&w, "rcpt_1", &t), PHX_E_STATE);
    assert_int_equal(pseudonym(&w, "acme", "u", NOV, b), 0);
    assert_string_not_equal(a, b);
    w.key[31] ^= 0x80; /* the old one comes back: too late, and told so */
    assert_int_equal(key_check(&w), PHX_E_STATE);
    world_remove(&w);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_file), cmocka_unit_test(test_lost)};

    return cmocka_run_group_tests(tests, NULL, NULL);
}
