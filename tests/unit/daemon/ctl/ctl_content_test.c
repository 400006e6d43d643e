/* SPDX-License-Identifier: Apache-2.0
 * `phalanx content` and `phalanx tenant` as a person types them: each command in a process of its own. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/ctl/ctl.h"
#include "vault_world.h"

static struct world w;
static char         keys[96], key_file[112], output[128];

static int setup(void **state)
{
    struct kept k = {"rcpt_1", "acme", "u-1", PHX_PRIVACY_ENCRYPTED, NOV, 0, "{\"prompt\":[1,2],\"v\":1}",
                     "{\"choices\":[[3]],\"v\":1}", "", ""};

    (void)state;
    world_make(&w);
    (void)snprintf(keys, sizeof(keys), "%s/keys", w.s.dir);
    (void)snprintf(key_file, sizeof(key_file), "%s/content.key", keys);
    (void)snprintf(output, sizeof(output), "%s/output", w.s.dir);
    assert_int_equal(phx_content_key_read(key_file, w.key, &w.err), 0);
    assert_int_equal(key_check(&w), 0);
    assert_int_equal(put(&w, &k), 0);
    k.receipt = "rcpt_2";
    assert_int_equal(put(&w, &k), 0);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    assert_int_equal(unlink(key_file), 0);
    assert_int_equal(rmdir(keys), 0);
    world_remove(&w);
    return 0;
}

/* Splits at blanks; "--data DIR" is added.  The exit code; what it printed is in the output file. */
static int run(const char *line)
{
    char  text[256], *argv[24] = {NULL}, *rest = NULL;
    int   argc = 0, status = 0;
    pid_t child;

    (void)snprintf(text, sizeof(text), "%s", line);
    for (char *word = strtok_r(text, " ", &rest); word != NULL; word = strtok_r(NULL, " ", &rest))
        argv[argc++] = word;
    argv[argc++] = (char *)(uintptr_t)"--data";
    argv[argc++] = w.s.dir;
    child = fork();
    if (child == 0) {
        int code;

        if (freopen(output, "w", stdout) == NULL || dup2(fileno(stdout), STDERR_FILENO) < 0)
            _exit(99);
        code = strcmp(argv[0], "tenant") == 0 ? phx_ctl_tenant(argc, argv) : phx_ctl_content(argc, argv);
        (void)fflush(stdout);
        _exit(code); /* a leak check here would look at the parent's threads, which are not in this process */
    }
    assert_true(child > 0);
    assert_int_equal(waitpid(child, &status, 0), child);
    assert_true(WIFEXITED(status));
    return WEXITSTATUS(status);
}

static bool said(const char *text)
{
    struct phx_buf b;
    bool           is_there;

    assert_int_equal(phx_buf_read_file(&b, output, 1 << 20, NULL), 0);
    is_there = strstr(b.data, text) != NULL;
    phx_buf_fini(&b);
    return is_there;
}

static void test_read(void **state)
{
    (void)state;
    assert_int_not_equal(run("content read rcpt_1 --by ann --why audit"), 0);
    assert_int_not_equal(run("content read rcpt_1 --by ann --why audit --approved-by ANN"), 0);
    assert_true(said("two different people"));
    assert_int_not_equal(run("content read rcpt_1 --by ann --approved-by bob"), 0);
    assert_int_equal(leaves(&w, "read", ""), 0);
    assert_int_equal(run("content read rcpt_1 --by ann --why audit --approved-by bob --json"), 0);
    assert_true(said("\"request\":{\"prompt\":[1,2],\"v\":1},\"response\":{\"choices\":[[3]],\"v\":1}"));
    assert_int_equal(leaves(&w, "read", "ann, approved by bob"), 1);
    assert_int_equal(run("content read rcpt_9 --by ann --why audit --approved-by bob"), 1);
}

static void test_hold_and_shred(void **state)
{
    (void)state;
    assert_int_not_equal(run("content hold open h1 --why court"), 0);
    assert_int_equal(run("content hold open h1 --why court --tenant acme --by ann"), 0);
    assert_int_equal(run("content hold list"), 0);
    assert_true(said("h1") && said("acme") && said("court"));
    assert_int_equal(run("content shred rcpt_1"), 1);
    assert_true(said("legal hold 'h1'"));
    assert_int_equal(run("content shred --tenant acme --period 2026-11"), 1);
    assert_int_equal(run("content hold close h1"), 0);
    assert_int_equal(run("content shred rcpt_1 --by ann"), 0);
    assert_int_not_equal(run("content shred rcpt_2 --period 2026-11"), 0);
    assert_int_equal(run("content shred --tenant acme --period 2026-11 --json"), 0);
    assert_true(said("{\"shredded\":1}"));
    assert_int_equal(leaves(&w, "shred", "\"by\":\"ann\""), 1);
    assert_int_equal(run("content expire"), 0);
    assert_true(said("0 shredded"));
}

static void test_key_lost(void **state)
{
    (void)state;
    assert_int_equal(run("content key-lost --by ann --approved-by bob --why disk"), 1);
    assert_true(said("nothing is lost"));
    assert_int_equal(unlink(key_file), 0);
    assert_int_equal(run("content read rcpt_1 --by ann --why audit --approved-by bob"), 1);
    assert_int_not_equal(access(key_file, F_OK), 0); /* reading makes no key */
    assert_int_equal(run("content key-lost --by ann --approved-by bob --why disk"), 0);
    assert_int_equal(leaves(&w, "key", "ann, approved by bob"), 1);
    assert_int_equal(run("content read rcpt_1 --by ann --why audit --approved-by bob"), 1);
    assert_true(said("was shredded on"));
}

static void test_tenant(void **state)
{
    char line[200];

    (void)state;
    assert_int_equal(run("tenant show acme --json"), 0);
    assert_true(said("\"privacy\":\"commit-only\""));
    assert_int_equal(run("tenant set acme --privacy encrypted --replay A"), 0);
    assert_int_equal(run("tenant set acme --retention sec-6y"), 0); /* the rest stays */
    assert_true(said("encrypted") && said("sec-6y") && said(" A "));
    assert_int_equal(run("tenant set acme --privacy secret"), 2);
    assert_int_equal(run("tenant set acme --replay AB"), 2);
    assert_int_not_equal(run("tenant set acme"), 0);
    assert_int_not_equal(run("tenant sign-aup acme --by ann"), 0);
    assert_int_equal(phx_file_write(key_file, "abc", 3, 0600, NULL), 0); /* any text will do */
    (void)snprintf(line, sizeof(line), "tenant sign-aup acme --by ann --json --file %s", key_file);
    assert_int_equal(run(line), 0);
    assert_true(said("ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"));
    assert_int_equal(run("tenant list"), 0);
    assert_true(said("acme"));
    assert_int_equal(leaves(&w, "admin", "tenant.set"), 3);
}

static void test_no_database(void **state)
{
    (void)state;
    assert_int_equal(run("tenant list"), 0);
    phx_store_close(w.store);
    w.store = NULL;
    assert_int_equal(unlink(w.s.db), 0);
    assert_int_equal(run("tenant list"), 1);
    assert_int_not_equal(access(w.s.db, F_OK), 0); /* none is made */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_read, setup, teardown),
        cmocka_unit_test_setup_teardown(test_hold_and_shred, setup, teardown),
        cmocka_unit_test_setup_teardown(test_key_lost, setup, teardown),
        cmocka_unit_test_setup_teardown(test_tenant, setup, teardown),
        cmocka_unit_test_setup_teardown(test_no_database, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
