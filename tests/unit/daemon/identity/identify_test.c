/* SPDX-License-Identifier: Apache-2.0
 * From credentials to an identity: keys, tokens, certificates, services on behalf of users, a key file that
 * changes while the daemon runs. */
#include <event2/event.h>
#include <inttypes.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "daemon/config/config.h"
#include "daemon/identity/identity.h"
#include "daemon/store/store.h"
#include "daemon/time/time.h"
#include "rpc/base/buf.h"
#include "rpc/base/clock.h"
#include "scratch.h"
#include "signer.h"

struct fixture {
    struct scratch         scratch;
    char                   jwks[96];
    struct event_base     *base;
    struct phx_store      *store;
    struct phx_time       *time;
    struct phx_keys       *keys;
    struct phx_config     *config;
    struct phx_identities *ids;
    char                   person[PHX_KEY_TEXT_BYTES], service[PHX_KEY_TEXT_BYTES];
};

static void write_jwks(const struct fixture *f, EVP_PKEY *key, const char *kid)
{
    char *jwk = signer_jwk(key, kid, "");
    char *text = signer_printf("{\"keys\":[%s]}", jwk);

    assert_int_equal(phx_file_write(f->jwks, text, strlen(text), 0644, NULL), 0);
    free(jwk);
    free(text);
}

static void make_key(struct fixture *f, const char *user, bool is_service, unsigned roles,
                     char key[PHX_KEY_TEXT_BYTES])
{
    struct phx_key_new what = {
        .tenant = "acme", .user = user, .cost_centre = "cc-7", .roles = roles, .is_service = is_service};
    struct phx_identity made;

    assert_int_equal(phx_key_create(f->store, &what, key, &made, NULL), 0);
}

static void setup(struct fixture *f, const char *tenant_claim)
{
    struct phx_err err = {0};

    memset(f, 0, sizeof(*f));
    scratch_make(&f->scratch);
    (void)snprintf(f->jwks, sizeof(f->jwks), "%s/jwks.json", f->scratch.dir);
    write_jwks(f, signer_key(SIGNER_ED25519, 0), "one");
    f->base = event_base_new();
    assert_int_equal(phx_store_open(f->scratch.db, f->base, &f->store, &err), 0);
    make_key(f, "ann", false, PHX_ROLE_BIT_USER | PHX_ROLE_BIT_ADMIN, f->person);
    make_key(f, "portal", true, PHX_ROLE_BIT_USER | PHX_ROLE_BIT_AUDITOR, f->service);
    assert_int_equal(phx_time_open(f->store, &f->time, &err), 0);
    assert_int_equal(phx_keys_open(f->store, &f->keys, &err), 0);
    f->config = phx_config_create();
    assert_int_equal(phx_config_set(f->config, "oidc.jwks_file", f->jwks, &err), 0);
    assert_int_equal(phx_config_set(f->config, "oidc.issuer", "https://idp.example", &err), 0);
    assert_int_equal(phx_config_set(f->config, "oidc.audience", "phalanx", &err), 0);
    assert_int_equal(phx_config_set(f->config, "oidc.tenant", "acme", &err), 0);
    assert_int_equal(phx_config_set(f->config, "oidc.tenant_claim", tenant_claim, &err), 0);
    assert_int_equal(phx_config_set(f->config, "oidc.roles_claim", "roles", &err), 0);
    assert_int_equal(phx_identities_open(f->config, f->keys, f->time, &f->ids, &err), 0);
}

static void teardown(struct fixture *f)
{
    phx_identities_close(f->ids);
    phx_config_destroy(f->config);
    phx_store_drain(f->store);
    phx_keys_close(f->keys);
    phx_time_close(f->time);
    phx_store_close(f->store);
    event_base_free(f->base);
    scratch_remove(&f->scratch);
}

static char *make_token(EVP_PKEY *key, const char *kid, const char *more)
{
    char *header = signer_printf("{\"alg\":\"EdDSA\",\"kid\":\"%s\"}", kid);
    char *payload = signer_printf("{\"iss\":\"https://idp.example\",\"aud\":\"phalanx\",\"sub\":\"00u1\","
                                  "\"exp\":%" PRId64 ",\"roles\":[\"user\",\"admin\"]%s}",
                                  phx_clock_wall_ns() / 1000000000 + 600, more);
    char *token = signer_token(key, "EdDSA", header, payload);

    free(header);
    free(payload);
    return token;
}

static int ask(struct fixture *f, const char *bearer, const char *on_behalf_of, struct phx_identity *out)
{
    struct phx_credentials c = {.bearer = bearer, .on_behalf_of = on_behalf_of};
    struct phx_err         err = {0};

    return phx_identify(f->ids, &c, out, &err);
}

static void keys_and_tokens_open(void **state)
{
    struct fixture      f;
    struct phx_identity id;
    char               *token = make_token(signer_key(SIGNER_ED25519, 0), "one", "");
    char               *other = make_token(signer_key(SIGNER_ED25519, 1), "one", "");

    (void)state;
    setup(&f, "");
    assert_int_equal(ask(&f, f.person, NULL, &id), 0);
    assert_true(id.auth == PHX_AUTH_KEY && id.is_person && id.key_id[0] != '\0');
    assert_string_equal(id.user, "ann");
    assert_int_equal(ask(&f, token, NULL, &id), 0);
    assert_true(id.auth == PHX_AUTH_TOKEN && id.is_person);
    assert_string_equal(id.user, "00u1");
    assert_string_equal(id.issuer, "https://idp.example");
    assert_string_equal(id.tenant, "acme");
    assert_string_equal(id.key_id, "");
    assert_int_equal(id.roles, PHX_ROLE_BIT_USER | PHX_ROLE_BIT_ADMIN);
    assert_int_equal(ask(&f, other, NULL, &id), PHX_E_UNAUTH);
    assert_int_equal(id.roles, 0);
    assert_int_equal(ask(&f, "", NULL, &id), PHX_E_UNAUTH);
    assert_int_equal(ask(&f, "phx_wrong", NULL, &id), PHX_E_UNAUTH);
    assert_int_equal(ask(&f, NULL, NULL, &id), PHX_E_UNAUTH);
    free(token);
    free(other);
    teardown(&f);
}

static void services_ask_on_behalf_of_users(void **state)
{
    struct fixture      f;
    struct phx_identity id;
    char               *token = make_token(signer_key(SIGNER_ED25519, 0), "one", "");
    char               *other = make_token(signer_key(SIGNER_ED25519, 1), "one", "");

    (void)state;
    setup(&f, "");
    assert_int_equal(ask(&f, f.service, NULL, &id), 0);
    assert_false(id.is_person); /* nobody vouches for a person */
    assert_string_equal(id.user, "portal");
    assert_int_equal(ask(&f, f.service, token, &id), 0);
    assert_true(id.is_person);
    assert_string_equal(id.user, "00u1");
    assert_string_equal(id.issuer, "https://idp.example");
    assert_string_equal(id.service, "portal");
    assert_string_equal(id.tenant, "acme");
    assert_string_equal(id.cost_centre, "cc-7");
    assert_true(id.key_id[0] != '\0');
    assert_int_equal(id.roles, PHX_ROLE_BIT_USER); /* what both may */
    assert_true(id.expires_ns != 0);
    /* a person cannot borrow another's name; a bad token is not passed over */
    assert_int_equal(ask(&f, f.person, token, &id), PHX_E_DENIED);
    assert_int_equal(ask(&f, token, token, &id), PHX_E_DENIED);
    assert_int_equal(ask(&f, f.service, other, &id), PHX_E_UNAUTH);
    assert_int_equal(ask(&f, f.service, "", &id), PHX_E_UNAUTH);
    assert_int_equal(ask(&f, f.service, f.person, &id), PHX_E_UNAUTH);
    assert_string_equal(id.user, "");
    free(token);
    free(other);
    teardown(&f);
}

static void a_service_stays_in_its_tenant(void **state)
{
    struct fixture      f;
    struct phx_identity id;
    char               *same = make_token(signer_key(SIGNER_ED25519, 0), "one", ",\"org\":\"acme\"");
    char               *other = make_token(signer_key(SIGNER_ED25519, 0), "one", ",\"org\":\"rival\"");

    (void)state;
    setup(&f, "org");
    assert_int_equal(ask(&f, other, NULL, &id), 0);
    assert_string_equal(id.tenant, "rival");
    assert_int_equal(ask(&f, f.service, same, &id), 0);
    assert_int_equal(ask(&f, f.service, other, &id), PHX_E_DENIED);
    free(same);
    free(other);
    teardown(&f);
}

static int ask_cert(struct fixture *f, const char *const *names, int32_t n, const char *on_behalf_of,
                    struct phx_identity *out)
{
    struct phx_credentials c = {.alt_names = names, .n_alt_names = n, .on_behalf_of = on_behalf_of};
    struct phx_err         err = {0};

    return phx_identify(f->ids, &c, out, &err);
}

static void certificates_open(void **state)
{
    static const char *const user[] = {"client7", "spiffe://phalanx/tenant/acme/user/ann"};
    static const char *const service[] = {"spiffe://phalanx/tenant/acme/service/portal"};
    static const char *const two[] = {"spiffe://phalanx/tenant/a/user/x", "spiffe://phalanx/tenant/a/user/y"};
    static const char *const bad[] = {"spiffe://phalanx/tenant/acme/user/a/roles/root"};
    struct fixture           f;
    struct phx_identity      id;
    char                    *token = make_token(signer_key(SIGNER_ED25519, 0), "one", "");

    (void)state;
    setup(&f, "");
    assert_int_equal(ask_cert(&f, user, 2, NULL, &id), 0);
    assert_true(id.auth == PHX_AUTH_CERT && id.is_person);
    assert_string_equal(id.user, "ann");
    assert_int_equal(ask_cert(&f, user, 2, token, &id), PHX_E_DENIED);
    assert_int_equal(ask_cert(&f, service, 1, NULL, &id), 0);
    assert_false(id.is_person);
    assert_int_equal(ask_cert(&f, service, 1, token, &id), 0);
    assert_string_equal(id.user, "00u1");
    assert_string_equal(id.service, "portal");
    assert_int_equal(ask_cert(&f, user, 1, NULL, &id), PHX_E_UNAUTH);
    assert_int_equal(ask_cert(&f, two, 2, NULL, &id), PHX_E_UNAUTH);
    assert_int_equal(ask_cert(&f, bad, 1, NULL, &id), PHX_E_UNAUTH);
    free(token);
    teardown(&f);
}

static void the_key_file_is_read_again(void **state)
{
    struct fixture      f;
    struct phx_identity id;
    char               *old = make_token(signer_key(SIGNER_ED25519, 0), "one", "");
    char               *new = make_token(signer_key(SIGNER_ED25519, 1), "two", "");

    (void)state;
    setup(&f, "");
    assert_int_equal(ask(&f, new, NULL, &id), PHX_E_UNAUTH);
    write_jwks(&f, signer_key(SIGNER_ED25519, 1), "two");
    usleep(1100000);
    assert_int_equal(ask(&f, new, NULL, &id), 0);
    assert_int_equal(ask(&f, old, NULL, &id), PHX_E_UNAUTH); /* the provider took that key back */
    /* a damaged or missing file leaves the keys that were read */
    assert_int_equal(phx_file_write(f.jwks, "{", 1, 0644, NULL), 0);
    usleep(1100000);
    assert_int_equal(ask(&f, new, NULL, &id), 0);
    assert_int_equal(unlink(f.jwks), 0);
    usleep(1100000);
    assert_int_equal(ask(&f, new, NULL, &id), 0);
    write_jwks(&f, signer_key(SIGNER_ED25519, 0), "one");
    usleep(1100000);
    assert_int_equal(ask(&f, old, NULL, &id), 0);
    free(old);
    free(new);
    teardown(&f);
}

static void settings_are_checked_at_the_start(void **state)
{
    static const char *const needed[] = {"oidc.issuer", "oidc.audience", "oidc.tenant"};
    struct fixture           f;
    struct phx_identities   *ids = NULL;
    struct phx_err           err = {0};

    (void)state;
    setup(&f, "");
    for (int i = 0; i < 3; i++) {
        struct phx_config *c = phx_config_create();

        assert_int_equal(phx_config_set(c, "oidc.jwks_file", f.jwks, &err), 0);
        for (int k = 0; k < 3; k++)
            if (k != i)
                assert_int_equal(phx_config_set(c, needed[k], "x", &err), 0);
        assert_int_equal(phx_identities_open(c, f.keys, f.time, &ids, &err), PHX_E_INVALID);
        assert_non_null(strstr(err.text, needed[i]));
        assert_null(ids);
        phx_config_destroy(c);
    }
    assert_int_equal(phx_config_set(f.config, "oidc.jwks_file", "/nonexistent/jwks.json", &err), 0);
    assert_int_equal(phx_identities_open(f.config, f.keys, f.time, &ids, &err), PHX_E_IO);
    teardown(&f);
}

static void without_a_key_file_tokens_are_refused(void **state)
{
    struct fixture      f;
    struct phx_identity id;
    struct phx_err      err = {0};
    char               *token = make_token(signer_key(SIGNER_ED25519, 0), "one", "");

    (void)state;
    setup(&f, "");
    phx_identities_close(f.ids);
    assert_int_equal(phx_config_set(f.config, "oidc.jwks_file", "", &err), 0);
    assert_int_equal(phx_identities_open(f.config, f.keys, f.time, &f.ids, &err), 0);
    assert_int_equal(ask(&f, f.person, NULL, &id), 0);
    assert_int_equal(ask(&f, token, NULL, &id), PHX_E_UNAUTH);
    assert_int_equal(ask(&f, f.service, token, &id), PHX_E_UNAUTH);
    free(token);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(keys_and_tokens_open),
        cmocka_unit_test(services_ask_on_behalf_of_users),
        cmocka_unit_test(a_service_stays_in_its_tenant),
        cmocka_unit_test(certificates_open),
        cmocka_unit_test(the_key_file_is_read_again),
        cmocka_unit_test(settings_are_checked_at_the_start),
        cmocka_unit_test(without_a_key_file_tokens_are_refused),
    };

    return cmocka_run_group_tests_name("daemon/identity", tests, NULL, NULL);
}
