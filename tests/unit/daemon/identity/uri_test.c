/* SPDX-License-Identifier: Apache-2.0
 * Names in client certificates. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "daemon/identity/identity.h"

static void users_and_services_have_names(void **state)
{
    struct phx_identity id;
    char                uri[PHX_IDENTITY_URI_BYTES];

    (void)state;
    assert_int_equal(phx_identity_parse_uri("spiffe://phalanx/tenant/icu/user/ann@icu", &id, NULL), 1);
    assert_string_equal(id.tenant, "icu");
    assert_string_equal(id.user, "ann@icu");
    assert_string_equal(id.issuer, "phalanx");
    assert_true(id.is_person && id.auth == PHX_AUTH_CERT && id.roles == PHX_ROLE_BIT_USER);
    assert_int_equal(phx_identity_parse_uri("spiffe://phalanx/tenant/icu/service/portal/roles/user,auditor", &id,
                                            NULL),
                     1);
    assert_string_equal(id.user, "portal");
    assert_true(!id.is_person && id.roles == (PHX_ROLE_BIT_USER | PHX_ROLE_BIT_AUDITOR));
    phx_identity_format_uri(&id, uri);
    assert_string_equal(uri, "spiffe://phalanx/tenant/icu/service/portal/roles/user,auditor");
}

static void longest_names_survive(void **state)
{
    struct phx_identity id = {.is_person = true, .roles = 15}, back;
    char                uri[PHX_IDENTITY_URI_BYTES];

    (void)state;
    memset(id.tenant, 't', PHX_KEY_NAME_MAX);
    memset(id.user, 'u', PHX_KEY_NAME_MAX);
    phx_identity_format_uri(&id, uri);
    assert_int_equal(phx_identity_parse_uri(uri, &back, NULL), 1);
    assert_string_equal(back.tenant, id.tenant);
    assert_string_equal(back.user, id.user);
    assert_int_equal(back.roles, 15);
}

static void others_names_are_passed_over(void **state)
{
    static const char *const names[] = {"", "localhost", "spiffe://other/tenant/a/user/b", "SPIFFE://phalanx/",
                                        "https://phalanx/tenant/a/user/b"};
    struct phx_identity      id;

    (void)state;
    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++)
        assert_int_equal(phx_identity_parse_uri(names[i], &id, NULL), 0);
}

static void near_names_are_refused(void **state)
{
    static const char *const ends[] = {"",
                                       "tenant",
                                       "tenant/a",
                                       "tenant/a/user",
                                       "tenant/a/user/",
                                       "tenant//user/b",
                                       "tenant/a/admin/b",
                                       "tenant/a/user/b/",
                                       "tenant/a/user/b/roles",
                                       "tenant/a/user/b/roles/",
                                       "tenant/a/user/b/roles/root",
                                       "tenant/a/user/b/roles/user/x",
                                       "tenant/a/user/b c",
                                       "tenant/a/user/%62",
                                       "tenant/a/user/b?x",
                                       "tenant/a/user/b#x",
                                       "tenant/a/service/b/roles/user,root",
                                       "/tenant/a/user/b"};

    (void)state;
    for (size_t i = 0; i < sizeof(ends) / sizeof(ends[0]); i++) {
        struct phx_identity id;
        char                uri[400];

        (void)snprintf(uri, sizeof(uri), "spiffe://phalanx/%s", ends[i]);
        if (phx_identity_parse_uri(uri, &id, NULL) != PHX_E_UNAUTH)
            fail_msg("%s was taken", uri);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(users_and_services_have_names),
        cmocka_unit_test(longest_names_survive),
        cmocka_unit_test(others_names_are_passed_over),
        cmocka_unit_test(near_names_are_refused),
    };

    return cmocka_run_group_tests_name("daemon/identity/uri", tests, NULL, NULL);
}
