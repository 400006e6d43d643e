/* SPDX-License-Identifier: Apache-2.0
 * The licence of a running daemon: files against the installed copies, installing, and what the log says. */
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>
/* cmocka needs the headers above first */
#include <cmocka.h>

#include "daemon/store/store.h"
#include "rpc/base/mem.h"
#include "tests/unit/daemon/license/forge.h"
#include "tests/unit/daemon/records/scratch.h"

static const char HERE[] = "aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
static const int64_t HOUR_NS = INT64_C(3600) * 1000000000;

static struct forge forge;

struct site {
    struct scratch            scratch;
    char                      file[96], key_set[96], roots[96];
    struct event_base        *base;
    struct phx_store         *store;
    struct phx_license_store *s;
    int64_t                   now_ns;
};

static void write_text(const char *path, const char *text)
{
    struct phx_err err;

    assert_int_equal(phx_file_write(path, text, strlen(text), 0600, &err), 0);
}

static void site_open(struct site *x)
{
    struct phx_license_source source = {x->file, x->key_set, x->roots, HERE, x->now_ns};
    struct phx_err            err = {0};

    x->base = event_base_new();
    assert_int_equal(phx_store_open(x->scratch.db, x->base, &x->store, &err), 0);
    if (phx_license_open(x->store, &source, &x->s, &err) != 0)
        fail_msg("%s", err.text);
}

static void site_close(struct site *x)
{
    phx_license_close(x->s);
    phx_store_close(x->store);
    event_base_free(x->base);
}

static void site_reopen(struct site *x)
{
    site_close(x);
    site_open(x);
}

static void site_make(struct site *x)
{
    struct phx_buf roots;

    memset(x, 0, sizeof(*x));
    scratch_make(&x->scratch);
    (void)snprintf(x->file, sizeof(x->file), "%s/license.json", x->scratch.dir);
    (void)snprintf(x->key_set, sizeof(x->key_set), "%s/keyset.json", x->scratch.dir);
    (void)snprintf(x->roots, sizeof(x->roots), "%s/roots.pub", x->scratch.dir);
    phx_buf_init(&roots, 0);
    phx_buf_puts(&roots, "threshold 2\n");
    for (int i = 0; i < 3; i++) {
        for (int j = 0; j < 32; j++)
            phx_buf_printf(&roots, "%02x", forge.roots[i].public_key[j]);
        phx_buf_putc(&roots, '\n');
    }
    write_text(x->roots, roots.data);
    phx_buf_fini(&roots);
    x->now_ns = forge_time("2027-06-01T00:00:00Z");
}

static void site_remove(struct site *x)
{
    site_close(x);
    scratch_remove(&x->scratch);
}

static int set_up(void **state)
{
    (void)state;
    forge_init(&forge);
    return 0;
}

/* A signed licence of that serial; key and json change one more field (NULL = none).  Owned. */
static char *license_text(int serial, const char *key, const char *json)
{
    json_t *p = forge_payload(&forge);
    char   *text;

    json_object_set_new(p, "serial", json_integer(serial));
    json_object_set_new(p, "supersedes", json_null());
    if (key != NULL)
        json_object_set_new(p, key, json_loads(json, JSON_DECODE_ANY, NULL));
    text = forge_sign(p, &forge.issuers[0]);
    json_decref(p);
    return text;
}

static char *key_set_text(int version, int revoked)
{
    json_t *p = forge_key_set(&forge, version);
    char   *text;

    if (revoked != 0)
        json_object_set_new(p, "revoked_serials", json_pack("[i]", revoked));
    text = forge_sign_key_set(p, forge.roots, 2);
    json_decref(p);
    return text;
}

static void put_license(const struct site *x, int serial, const char *key, const char *json)
{
    char *text = license_text(serial, key, json);

    write_text(x->file, text);
    phx_mem_free(text);
}

static void put_key_set(const struct site *x, int version, int revoked)
{
    char *text = key_set_text(version, revoked);

    write_text(x->key_set, text);
    phx_mem_free(text);
}

static int64_t serial_of(const struct site *x)
{
    return phx_license_now(x->s) == NULL ? 0 : phx_license_terms(phx_license_now(x->s))->serial;
}

static int64_t n_leaves(const struct site *x)
{
    return scratch_int(&x->scratch, "SELECT count(*) FROM audit WHERE kind = 'licence'");
}

static void expect_problem(const struct site *x, const char *part)
{
    if (part == NULL)
        assert_string_equal(phx_license_problem(x->s), "");
    else if (strstr(phx_license_problem(x->s), part) == NULL)
        fail_msg("problem \"%s\" says nothing about \"%s\"", phx_license_problem(x->s), part);
}

/* ---- opening ------------------------------------------------------------------------------------------------------ */

static void without_files_it_observes_for_72_hours(void **state)
{
    struct site x;
    int64_t     began;

    (void)state;
    site_make(&x);
    began = x.now_ns;
    site_open(&x);
    assert_null(phx_license_now(x.s));
    assert_int_equal(phx_license_key_set_version(x.s), 0);
    expect_problem(&x, "keyset.json");
    assert_true(phx_license_is_observing(x.s, began));
    x.now_ns = began + 71 * HOUR_NS;
    site_reopen(&x); /* the count goes on */
    assert_true(phx_license_is_observing(x.s, began + 72 * HOUR_NS - 1));
    assert_false(phx_license_is_observing(x.s, began + 72 * HOUR_NS));
    put_key_set(&x, 3, 0);
    put_license(&x, 7, NULL, NULL);
    site_reopen(&x);
    assert_false(phx_license_is_observing(x.s, began));
    assert_int_equal(serial_of(&x), 7);
    assert_int_equal(scratch_int(&x.scratch, "SELECT count(*) FROM meta WHERE name = 'license_none_ns'"), 0);
    site_remove(&x);
}

static void files_are_installed_once_with_their_leaves(void **state)
{
    struct site x;

    (void)state;
    site_make(&x);
    put_key_set(&x, 3, 0);
    put_license(&x, 7, NULL, NULL);
    site_open(&x);
    assert_int_equal(serial_of(&x), 7);
    assert_int_equal(phx_license_key_set_version(x.s), 3);
    expect_problem(&x, NULL);
    assert_int_equal(n_leaves(&x), 2);
    site_reopen(&x);
    assert_int_equal(n_leaves(&x), 2);
    expect_problem(&x, NULL);
    put_license(&x, 8, "supersedes", "7");
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 8);
    assert_int_equal(n_leaves(&x), 3);
    assert_int_equal(scratch_int(&x.scratch, "SELECT count(*) FROM license"), 2);
    site_remove(&x);
}

static void the_last_verified_copy_serves(void **state)
{
    static const char *const bad[] = {"", "{}", "not json", "{\"payload\":\"\"}"};
    struct site x;

    (void)state;
    site_make(&x);
    put_key_set(&x, 3, 0);
    put_license(&x, 7, NULL, NULL);
    site_open(&x);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++) {
        write_text(x.file, bad[i]);
        site_reopen(&x);
        assert_int_equal(serial_of(&x), 7);
        expect_problem(&x, "license.json");
        write_text(x.key_set, bad[i]);
        site_reopen(&x);
        assert_int_equal(serial_of(&x), 7);
        assert_int_equal(phx_license_key_set_version(x.s), 3);
        expect_problem(&x, "keyset.json");
        put_key_set(&x, 3, 0);
    }
    (void)unlink(x.file);
    (void)unlink(x.key_set);
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 7);
    assert_int_equal(n_leaves(&x), 2);
    site_remove(&x);
}

static void a_damaged_copy_does_not_stop_a_good_file(void **state)
{
    struct site x;

    (void)state;
    site_make(&x);
    put_key_set(&x, 3, 0);
    put_license(&x, 7, NULL, NULL);
    site_open(&x);
    scratch_sql(&x.scratch, "UPDATE license SET envelope = x'00'");
    scratch_sql(&x.scratch, "UPDATE key_set SET envelope = x'00'");
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 7);
    expect_problem(&x, "the installed copy");
    put_license(&x, 6, NULL, NULL); /* but an older one is still an older one */
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 0);
    assert_true(phx_license_is_observing(x.s, x.now_ns));
    site_remove(&x);
}

static void older_files_are_refused(void **state)
{
    struct site x;

    (void)state;
    site_make(&x);
    put_key_set(&x, 4, 0);
    put_license(&x, 7, NULL, NULL);
    site_open(&x);
    put_license(&x, 6, NULL, NULL);
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 7);
    expect_problem(&x, "serial 6 is older than serial 7");
    put_license(&x, 7, "warn_days", "31"); /* the same serial twice */
    site_reopen(&x);
    assert_int_equal(phx_license_terms(phx_license_now(x.s))->warn_days, 30);
    expect_problem(&x, "another licence of serial 7");
    put_license(&x, 9, "supersedes", "6");
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 7);
    expect_problem(&x, "supersedes serial 6");
    put_license(&x, 7, NULL, NULL);
    put_key_set(&x, 3, 0);
    site_reopen(&x);
    assert_int_equal(phx_license_key_set_version(x.s), 4);
    expect_problem(&x, "version 3 is older than version 4");
    put_key_set(&x, 4, 99);
    site_reopen(&x);
    expect_problem(&x, "another key set of version 4");
    site_remove(&x);
}

static void another_cluster_and_early_files_do_not_replace(void **state)
{
    struct site x;

    (void)state;
    site_make(&x);
    put_key_set(&x, 3, 0);
    put_license(&x, 7, NULL, NULL);
    site_open(&x);
    put_license(&x, 8, "clusters", "[\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb\"]");
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 7);
    expect_problem(&x, "other clusters");
    put_license(&x, 8, "not_before", "\"2028-01-01T00:00:00Z\"");
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 7);
    expect_problem(&x, "in force from 2028-01-01");
    x.now_ns = forge_time("2028-01-01T00:00:00Z");
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 8);
    site_remove(&x);
}

static void a_revoked_licence_goes(void **state)
{
    struct site x;

    (void)state;
    site_make(&x);
    put_key_set(&x, 3, 0);
    put_license(&x, 7, NULL, NULL);
    site_open(&x);
    put_key_set(&x, 4, 7);
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 0);
    assert_int_equal(phx_license_key_set_version(x.s), 4);
    expect_problem(&x, "revoked");
    assert_true(phx_license_is_observing(x.s, x.now_ns));
    put_key_set(&x, 3, 0); /* and does not come back with the old key set */
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 0);
    put_license(&x, 8, NULL, NULL);
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 8);
    site_remove(&x);
}

static void looking_installs_nothing(void **state)
{
    struct site                x;
    struct phx_license_source  source;
    struct phx_license_store  *looked = NULL;
    struct phx_license_preview preview;
    struct phx_err             err = {0};
    char                      *license = license_text(7, NULL, NULL), *key_set = key_set_text(3, 0);

    (void)state;
    site_make(&x);
    site_open(&x);
    put_key_set(&x, 3, 0);
    put_license(&x, 7, NULL, NULL);
    source = (struct phx_license_source){x.file, x.key_set, x.roots, HERE, x.now_ns, true};
    assert_int_equal(phx_license_open(x.store, &source, &looked, &err), 0);
    assert_int_equal(phx_license_terms(phx_license_now(looked))->serial, 7);
    assert_int_equal(n_leaves(&x), 0);
    assert_int_equal(scratch_int(&x.scratch, "SELECT count(*) FROM license"), 0);
    /* the files lie there, but installing them is not done yet */
    assert_int_equal(phx_license_preview(looked, license, strlen(license), key_set, strlen(key_set), x.now_ns,
                                         &preview, &err), 0);
    assert_false(preview.is_same);
    assert_int_equal(phx_license_install_run(looked, license, strlen(license), key_set, strlen(key_set), "alice",
                                             x.now_ns, &err), 0);
    assert_int_equal(n_leaves(&x), 2);
    phx_license_close(looked);
    phx_mem_free(license);
    phx_mem_free(key_set);
    site_remove(&x);
}

static void bad_roots_verify_nothing(void **state)
{
    struct site x;

    (void)state;
    site_make(&x);
    put_key_set(&x, 3, 0);
    put_license(&x, 7, NULL, NULL);
    write_text(x.roots, "threshold 2\n");
    site_open(&x);
    assert_int_equal(serial_of(&x), 0);
    expect_problem(&x, "roots.pub");
    x.roots[0] = '\0'; /* those compiled in are others */
    site_reopen(&x);
    assert_int_equal(serial_of(&x), 0);
    site_remove(&x);
}

/* ---- installing ---------------------------------------------------------------------------------------------------- */

static int install(struct site *x, const char *license, const char *key_set, struct phx_err *err)
{
    memset(err, 0, sizeof(*err));
    return phx_license_install_run(x->s, license, strlen(license), key_set, key_set != NULL ? strlen(key_set) : 0,
                                   "alice", x->now_ns, err);
}

static void expect_install(struct site *x, char *license, char *key_set, const char *part)
{
    struct phx_license_preview preview;
    struct phx_err             err = {0};
    int64_t                    leaves = n_leaves(x), serial = serial_of(x);
    int rc = phx_license_preview(x->s, license, strlen(license), key_set, key_set != NULL ? strlen(key_set) : 0,
                                 x->now_ns, &preview, &err);

    assert_int_equal(n_leaves(x), leaves);
    assert_int_equal(rc == 0, part == NULL);
    rc = install(x, license, key_set, &err);
    if (part == NULL) {
        if (rc != 0)
            fail_msg("%s", err.text);
        assert_int_equal(serial_of(x), preview.serial);
        assert_int_equal(phx_license_key_set_version(x->s), preview.key_set_version);
        assert_int_equal(n_leaves(x) == leaves, preview.is_same);
    } else {
        assert_int_not_equal(rc, 0);
        if (strstr(err.text, part) == NULL)
            fail_msg("message \"%s\" says nothing about \"%s\"", err.text, part);
        assert_int_equal(serial_of(x), serial);
        assert_int_equal(n_leaves(x), leaves);
    }
    phx_mem_free(license);
    phx_mem_free(key_set);
}

static void installing_follows_the_rules(void **state)
{
    struct site x;

    (void)state;
    site_make(&x);
    site_open(&x);
    expect_install(&x, license_text(7, NULL, NULL), NULL, "no key set yet");
    expect_install(&x, license_text(7, NULL, NULL), key_set_text(3, 0), NULL);
    assert_int_equal(n_leaves(&x), 2);
    expect_problem(&x, NULL);
    expect_install(&x, license_text(7, NULL, NULL), NULL, NULL); /* again: nothing changes */
    assert_int_equal(n_leaves(&x), 2);
    expect_install(&x, license_text(6, NULL, NULL), NULL, "older");
    expect_install(&x, license_text(7, "grace_days", "15"), NULL, "another licence of serial 7");
    expect_install(&x, license_text(9, "supersedes", "5"), NULL, "supersedes serial 5");
    expect_install(&x, license_text(8, "clusters", "[\"bbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbbb"
                                                   "bb\"]"), NULL, "other clusters");
    expect_install(&x, license_text(8, "not_before", "\"2028-01-01T00:00:00Z\""), NULL, "in force from 2028");
    expect_install(&x, license_text(8, "key_set_min_version", "4"), NULL, "version 4 or later");
    expect_install(&x, license_text(8, NULL, NULL), key_set_text(2, 0), "older than version 3");
    expect_install(&x, license_text(8, NULL, NULL), key_set_text(3, 1), "another key set");
    expect_install(&x, license_text(8, NULL, NULL), key_set_text(4, 8), "revoked");
    expect_install(&x, license_text(8, "key_set_min_version", "4"), key_set_text(4, 0), NULL);
    assert_int_equal(n_leaves(&x), 4);
    expect_install(&x, license_text(9, "supersedes", "8"), NULL, NULL);
    x.now_ns = forge_time("2030-01-01T00:00:00Z");
    expect_install(&x, license_text(10, NULL, NULL), NULL, "ended");
    x.now_ns = forge_time("2027-06-01T00:00:00Z");
    site_reopen(&x); /* the files were written too */
    assert_int_equal(serial_of(&x), 9);
    assert_int_equal(phx_license_key_set_version(x.s), 4);
    expect_problem(&x, NULL);
    site_remove(&x);
}

static void without_a_leaf_nothing_is_installed(void **state)
{
    struct site    x;
    struct phx_err err;
    char          *license = license_text(8, NULL, NULL);

    (void)state;
    site_make(&x);
    put_key_set(&x, 3, 0);
    put_license(&x, 7, NULL, NULL);
    site_open(&x);
    scratch_sql(&x.scratch, "CREATE TRIGGER broken BEFORE INSERT ON audit BEGIN SELECT raise(ABORT, 'no'); END");
    assert_int_not_equal(install(&x, license, NULL, &err), 0);
    assert_int_equal(serial_of(&x), 7);
    assert_int_equal(scratch_int(&x.scratch, "SELECT max(serial) FROM license"), 7);
    scratch_sql(&x.scratch, "DROP TRIGGER broken");
    assert_int_equal(install(&x, license, NULL, &err), 0);
    assert_int_equal(serial_of(&x), 8);
    phx_mem_free(license);
    site_remove(&x);
}

struct waiter {
    struct event_base *base;
    int                n, code;
};

static void on_done(void *ctx, const struct phx_err *err)
{
    struct waiter *w = ctx;

    w->n++;
    w->code = err == NULL ? 0 : err->code;
    (void)event_base_loopbreak(w->base);
}

static void installing_on_a_loop_is_durable_when_it_says_so(void **state)
{
    struct site               x;
    struct waiter             w = {0};
    const struct phx_license *before;
    char                     *license = license_text(8, NULL, NULL), *bad = license_text(5, NULL, NULL);

    (void)state;
    site_make(&x);
    put_key_set(&x, 3, 0);
    put_license(&x, 7, NULL, NULL);
    site_open(&x);
    w.base = x.base;
    before = phx_license_now(x.s);
    phx_license_install(x.s, license, strlen(license), NULL, 0, true, "alice", x.now_ns, on_done, &w);
    assert_int_equal(w.n, 1); /* a dry run answers at once and changes nothing */
    assert_int_equal(w.code, 0);
    assert_int_equal(serial_of(&x), 7);
    assert_int_equal(n_leaves(&x), 2);
    phx_license_install(x.s, bad, strlen(bad), NULL, 0, false, "alice", x.now_ns, on_done, &w);
    assert_int_equal(w.n, 2);
    assert_int_equal(w.code, PHX_E_LICENSE);
    phx_license_install(x.s, license, strlen(license), NULL, 0, false, "alice", x.now_ns, on_done, &w);
    phx_mem_free(license); /* it was copied */
    (void)event_base_dispatch(x.base);
    assert_int_equal(w.n, 3);
    assert_int_equal(w.code, 0);
    assert_int_equal(serial_of(&x), 8);
    assert_int_equal(n_leaves(&x), 3);
    assert_int_equal(scratch_int(&x.scratch, "SELECT count(*) FROM audit WHERE record LIKE '%alice%'"), 1);
    assert_int_equal(phx_license_terms(before)->serial, 7); /* still there for who holds it */
    phx_mem_free(bad);
    site_remove(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_files_it_observes_for_72_hours),
        cmocka_unit_test(files_are_installed_once_with_their_leaves),
        cmocka_unit_test(the_last_verified_copy_serves),
        cmocka_unit_test(a_damaged_copy_does_not_stop_a_good_file),
        cmocka_unit_test(older_files_are_refused),
        cmocka_unit_test(another_cluster_and_early_files_do_not_replace),
        cmocka_unit_test(a_revoked_licence_goes),
        cmocka_unit_test(looking_installs_nothing),
        cmocka_unit_test(bad_roots_verify_nothing),
        cmocka_unit_test(installing_follows_the_rules),
        cmocka_unit_test(without_a_leaf_nothing_is_installed),
        cmocka_unit_test(installing_on_a_loop_is_durable_when_it_says_so),
    };

    return cmocka_run_group_tests(tests, set_up, NULL);
}
