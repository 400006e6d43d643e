/* SPDX-License-Identifier: Apache-2.0 */
#include "tests/unit/daemon/license/forge.h"

#include <stdlib.h>
#include <string.h>

#include "daemon/license/terms.h"
#include "rpc/base/hex.h"
#include "rpc/base/mem.h"

static const char PAYLOAD[] =
    "{\"schema\":\"licence/1\",\"licence_id\":\"01JTEST\",\"serial\":7,\"supersedes\":6,"
    "\"licensee\":{\"legal_name\":\"Acme plc\",\"id\":\"LEI:5299000J2N45DDNE4Y28\","
    "\"affiliates\":[\"Acme Ltd\"],\"class\":\"commercial\"},\"attestation\":null,"
    "\"models\":[{\"manifest_root\":\"*\",\"policy\":\"any-1\",\"derived_from\":null,"
    "\"redistribution\":\"same-terms\",\"denied_purposes\":[\"bio-weapon\",\"mass-surveillance\"],"
    "\"denied_licensee_classes\":[]}],"
    "\"limits\":{\"unit\":\"person-month\",\"seats\":500,\"overdraft_pct\":10,\"indirect_users\":50,"
    "\"concurrent\":null,\"nodes\":null,\"gpus\":null,\"tokens_per_month\":null},"
    "\"seat_salt\":\"AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=\",\"clusters\":[],"
    "\"not_before\":\"2027-01-01T00:00:00Z\",\"not_after\":\"2029-01-01T00:00:00Z\",\"warn_days\":30,"
    "\"grace_days\":14,\"continuity_days\":60,\"enforce\":\"hard\",\"exempt_tenants\":[\"icu\"],"
    "\"exempt_cap_pct\":20,\"reporting\":{\"mode\":\"offline-bundle\",\"every_days\":90,"
    "\"retain_days\":400},\"key_set_min_version\":3,\"issued_at\":\"2026-12-01T00:00:00Z\"}";

int64_t forge_time(const char *text)
{
    int64_t ns = 0;

    phx_assert(phx_date_parse(text, &ns));
    return ns;
}

static void make_key(struct phx_sign_key *k, uint8_t number)
{
    uint8_t seed[32];

    memset(seed, number, sizeof(seed));
    phx_sign_key_from_seed(seed, k);
}

void forge_init(struct forge *f)
{
    struct phx_err err;

    phx_assert(phx_sign_init(&err) == 0);
    memset(f, 0, sizeof(*f));
    for (int i = 0; i < 3; i++) {
        make_key(&f->roots[i], (uint8_t)(1 + i));
        memcpy(f->trusted.keys[i], f->roots[i].public_key, 32);
    }
    f->trusted.n_keys = 3;
    f->trusted.threshold = 2;
    f->keys.version = 3;
    f->keys.n_issuers = 2;
    for (int i = 0; i < 2; i++) {
        make_key(&f->issuers[i], (uint8_t)(11 + i));
        memcpy(f->keys.issuers[i].public_key, f->issuers[i].public_key, 32);
    }
    f->keys.issuers[0].not_before_ns = forge_time("2026-01-01T00:00:00Z");
    f->keys.issuers[0].not_after_ns = forge_time("2030-01-01T00:00:00Z");
    f->keys.issuers[1].not_before_ns = forge_time("2028-01-01T00:00:00Z");
    f->keys.issuers[1].not_after_ns = forge_time("2034-01-01T00:00:00Z");
}

json_t *forge_payload(const struct forge *f)
{
    char    kid[PHX_KEY_ID_BYTES];
    json_t *root = json_loads(PAYLOAD, 0, NULL);

    phx_assert(root != NULL);
    phx_sign_key_id(f->issuers[0].public_key, kid);
    json_object_set_new(root, "issuer_kid", json_string(kid));
    return root;
}

static char *sign(const json_t *payload, const char *type, const struct phx_sign_key *keys, int n)
{
    char *text = json_dumps(payload, JSON_COMPACT | JSON_SORT_KEYS), *file;

    phx_assert(text != NULL);
    file = phx_dsse_seal(type, text, strlen(text), keys, n);
    free(text);
    return file;
}

char *forge_sign(const json_t *payload, const struct phx_sign_key *issuer)
{
    return sign(payload, PHX_LICENSE_PAYLOAD_TYPE, issuer, 1);
}

json_t *forge_key_set(const struct forge *f, int version)
{
    json_t *issuers = json_array();

    for (int i = 0; i < 2; i++) {
        char kid[PHX_KEY_ID_BYTES], hex[65], from[PHX_DATE_BYTES], until[PHX_DATE_BYTES];

        phx_sign_key_id(f->issuers[i].public_key, kid);
        phx_hex_encode(hex, sizeof(hex), f->issuers[i].public_key, 32);
        phx_date_format(f->keys.issuers[i].not_before_ns, from);
        phx_date_format(f->keys.issuers[i].not_after_ns, until);
        json_array_append_new(issuers, json_pack("{s:s,s:s,s:s,s:s}", "kid", kid, "public_key", hex, "not_before",
                                                 from, "not_after", until));
    }
    return json_pack("{s:s,s:i,s:s,s:o,s:[]}", "schema", "keyset/1", "version", version, "issued_at",
                     "2026-06-01T00:00:00Z", "issuers", issuers, "revoked_serials");
}

char *forge_sign_key_set(const json_t *payload, const struct phx_sign_key *roots, int n_roots)
{
    return sign(payload, PHX_KEY_SET_PAYLOAD_TYPE, roots, n_roots);
}

int forge_parse(const struct forge *f, const char *text, struct phx_license **out, struct phx_err *err)
{
    memset(err, 0, sizeof(*err));
    return phx_license_parse(text, strlen(text), &f->keys, out, err);
}

struct phx_license *forge_license(const struct forge *f, json_t *payload)
{
    char               *text = forge_sign(payload, &f->issuers[0]);
    struct phx_license *l = NULL;
    struct phx_err      err;

    if (forge_parse(f, text, &l, &err) != 0)
        phx_assert_failed(err.text, __FILE__, __LINE__);
    phx_mem_free(text);
    json_decref(payload);
    return l;
}
