/* SPDX-License-Identifier: Apache-2.0
 * Keys: created, checked, expired, revoked by another process, and never stored themselves. */
#include <event2/event.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/audit/audit.h"
#include "daemon/keys/keys.h"
#include "daemon/store/store.h"
#include "rpc/base/clock.h"
#include "scratch.h"

#define NOW phx_clock_wall_ns()

struct fixture {
    struct scratch     scratch;
    struct event_base *base;
    struct phx_store  *store;
    struct phx_keys   *keys;
};

static void setup(struct fixture *f)
{
    struct phx_err err = {0};

    memset(f, 0, sizeof(*f));
    scratch_make(&f->scratch);
    f->base = event_base_new();
    assert_int_equal(phx_store_open(f->scratch.db, f->base, &f->store, &err), 0);
    assert_int_equal(phx_keys_open(f->store, &f->keys, &err), 0);
    phx_keys_watch(f->keys, f->base);
}

static void teardown(struct fixture *f)
{
    phx_keys_close(f->keys);
    phx_store_close(f->store); /* a look that is under way ends here, without the keys */
    event_base_free(f->base);
    scratch_remove(&f->scratch);
}

/* A second in which nobody asks: then every change is known. */
static void wait_for_reload(struct fixture *f)
{
    const struct timeval second = {1, 0};

    assert_int_equal(event_base_loopexit(f->base, &second), 0);
    assert_true(event_base_dispatch(f->base) >= 0);
}

static void create(struct fixture *f, int64_t expires_ns, char key[PHX_KEY_TEXT_BYTES],
                   struct phx_identity *id)
{
    struct phx_store  *other = NULL; /* as the command line does, beside the daemon */
    struct phx_err     err = {0};
    struct phx_key_new what = {.tenant = "acme",
                               .user = "ann",
                               .roles = PHX_ROLE_BIT_USER | PHX_ROLE_BIT_ADMIN,
                               .expires_ns = expires_ns};

    assert_int_equal(phx_store_open(f->scratch.db, NULL, &other, &err), 0);
    assert_int_equal(phx_key_create(other, &what, key, id, &err), 0);
    phx_store_close(other);
}

static void test_a_key_of_another_process_opens(void **state)
{
    struct fixture      f;
    struct phx_identity made, found;
    struct phx_store   *other = NULL;
    struct phx_err      err = {0};
    char                key[PHX_KEY_TEXT_BYTES], wrong[PHX_KEY_TEXT_BYTES];

    (void)state;
    setup(&f);
    create(&f, 0, key, &made);
    assert_int_equal(strlen(key), 47);
    assert_int_equal(strncmp(key, "phx_", 4), 0);
    wait_for_reload(&f);
    assert_int_equal(phx_keys_check(f.keys, key, NOW, &found, &err), 0);
    assert_string_equal(found.tenant, "acme");
    assert_string_equal(found.user, "ann");
    assert_string_equal(found.issuer, "phalanx");
    assert_true(found.is_person && found.auth == PHX_AUTH_KEY);
    assert_string_equal(found.service, "");
    assert_string_equal(found.key_id, made.key_id);
    assert_int_equal(found.roles, PHX_ROLE_BIT_USER | PHX_ROLE_BIT_ADMIN);

    memcpy(wrong, key, sizeof(wrong));
    wrong[46] = wrong[46] == 'a' ? 'b' : 'a';
    assert_int_equal(phx_keys_check(f.keys, wrong, NOW, &found, &err), PHX_E_UNAUTH);
    assert_int_equal(phx_keys_check(f.keys, "", NOW, &found, &err), PHX_E_UNAUTH);
    assert_int_equal(phx_keys_check(f.keys, made.key_id, NOW, &found, &err), PHX_E_UNAUTH);

    assert_int_equal(phx_store_open(f.scratch.db, NULL, &other, &err), 0);
    assert_int_equal(phx_key_revoke(other, made.key_id, &err), 0);
    assert_int_equal(phx_key_revoke(other, made.key_id, &err), PHX_E_NOTFOUND);
    phx_store_close(other);
    wait_for_reload(&f);
    assert_int_equal(phx_keys_check(f.keys, key, NOW, &found, &err), PHX_E_UNAUTH);
    teardown(&f);
}

static void test_expired_keys_do_not_open(void **state)
{
    struct fixture      f;
    struct phx_identity id;
    struct phx_err      err = {0};
    char                past[PHX_KEY_TEXT_BYTES], future[PHX_KEY_TEXT_BYTES];
    int64_t             now = phx_clock_wall_ns();

    (void)state;
    setup(&f);
    create(&f, now - 1, past, &id);
    create(&f, now + INT64_C(3600000000000), future, &id);
    wait_for_reload(&f);
    assert_int_equal(phx_keys_check(f.keys, past, NOW, &id, &err), PHX_E_UNAUTH);
    assert_int_equal(phx_keys_check(f.keys, future, NOW, &id, &err), 0);
    /* the time that counts is the caller's */
    assert_int_equal(phx_keys_check(f.keys, past, now - 2, &id, &err), 0);
    assert_int_equal(phx_keys_check(f.keys, future, now + INT64_C(3600000000000), &id, &err), PHX_E_UNAUTH);
    teardown(&f);
}

static void test_creating_and_revoking_are_leaves(void **state)
{
    struct fixture      f;
    struct phx_identity id, listed[4];
    struct phx_err      err = {0};
    char                key[PHX_KEY_TEXT_BYTES], sql[256];

    (void)state;
    setup(&f);
    create(&f, 0, key, &id);
    assert_int_equal(phx_key_revoke(f.store, id.key_id, &err), 0);
    assert_int_equal(phx_key_list(f.store, listed, 4, &err), 1);
    assert_true(listed[0].revoked_ns != 0);
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM audit WHERE kind = 'key'"), 2);
    assert_int_equal(scratch_int(&f.scratch, "SELECT COUNT(*) FROM audit WHERE instr(record, 'acme/ann') > 0"), 1);
    /* neither the table nor the log holds the key */
    (void)snprintf(sql, sizeof(sql), "SELECT COUNT(*) FROM audit WHERE instr(record, '%s') > 0", key);
    assert_int_equal(scratch_int(&f.scratch, sql), 0);
    (void)snprintf(sql, sizeof(sql), "SELECT COUNT(*) FROM api_key WHERE instr(digest, '%s') > 0", key);
    assert_int_equal(scratch_int(&f.scratch, sql), 0);
    teardown(&f);
}

static int create_named(struct fixture *f, const char *tenant, const char *user, const char *cost_centre,
                        struct phx_identity *id)
{
    struct phx_key_new what = {
        .tenant = tenant, .user = user, .cost_centre = cost_centre, .roles = 1, .is_service = true};
    char               key[PHX_KEY_TEXT_BYTES];
    struct phx_err     err = {0};

    return phx_key_create(f->store, &what, key, id, &err);
}

static void test_services_and_cost_centres_are_kept(void **state)
{
    struct fixture      f;
    struct phx_identity id, listed;
    struct phx_err      err = {0};

    (void)state;
    setup(&f);
    assert_int_equal(create_named(&f, "acme", "portal", "R-and-D", &id), 0);
    assert_int_equal(phx_key_list(f.store, &listed, 1, &err), 1);
    assert_false(listed.is_person || id.is_person);
    assert_string_equal(listed.user, "portal");
    assert_string_equal(listed.cost_centre, "R-and-D");
    assert_string_equal(listed.issuer, "phalanx");
    teardown(&f);
}

static void test_names_and_roles_are_checked(void **state)
{
    struct fixture      f;
    struct phx_identity id;
    struct phx_err      err = {0};
    char                longest[PHX_KEY_NAME_MAX + 2], text[64];
    unsigned            roles = 0;

    (void)state;
    setup(&f);
    memset(longest, 'x', sizeof(longest));
    longest[PHX_KEY_NAME_MAX + 1] = '\0';
    assert_int_equal(create_named(&f, longest, "u", NULL, &id), PHX_E_INVALID);
    longest[PHX_KEY_NAME_MAX] = '\0';
    assert_int_equal(create_named(&f, longest, "u", NULL, &id), 0);
    assert_int_equal(create_named(&f, "", "u", "", &id), PHX_E_INVALID);
    assert_int_equal(create_named(&f, "a\"b", "u", "", &id), PHX_E_INVALID);
    assert_int_equal(create_named(&f, "a", "u/v", "", &id), PHX_E_INVALID);
    assert_int_equal(create_named(&f, "a", "u", "c,d", &id), PHX_E_INVALID);
    assert_int_equal(phx_key_parse_roles("user,admin", &roles, &err), 0);
    assert_int_equal(roles, PHX_ROLE_BIT_USER | PHX_ROLE_BIT_ADMIN);
    phx_key_format_roles(roles, text);
    assert_string_equal(text, "user,admin");
    assert_int_equal(phx_key_parse_roles("user,root", &roles, &err), PHX_E_INVALID);
    assert_int_equal(phx_key_parse_roles("", &roles, &err), PHX_E_INVALID);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_a_key_of_another_process_opens),
        cmocka_unit_test(test_expired_keys_do_not_open),
        cmocka_unit_test(test_creating_and_revoking_are_leaves),
        cmocka_unit_test(test_services_and_cost_centres_are_kept),
        cmocka_unit_test(test_names_and_roles_are_checked),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
