/* SPDX-License-Identifier: Apache-2.0
 * Issuing: the licensor's side.  What was written is read back with the customer's code, so that nothing is
 * signed that a cluster would refuse. */
#include <sodium.h>
#include <stdlib.h>
#include <string.h>

#include "daemon/license/terms.h"
#include "daemon/sign/sign.h"
#include "rpc/base/hash.h"
#include "rpc/base/id.h"
#include "rpc/base/json.h"

enum { SALT_BYTES = 32 };

static int load_payload(const char *text, json_t **root, struct phx_err *err)
{
    int rc = phx_json_parse(root, text, strlen(text), PHX_LICENSE_MAX_BYTES, PHX_LICENSE_DEPTH_MAX, "the payload",
                            err);

    return rc == 0 ? phx_json_check_object(*root, "", err) : rc;
}

static void put_salt(json_t *root, const uint8_t salt[SALT_BYTES])
{
    char text[sodium_base64_ENCODED_LEN(SALT_BYTES, sodium_base64_VARIANT_ORIGINAL)];

    (void)sodium_bin2base64(text, sizeof(text), salt, SALT_BYTES, sodium_base64_VARIANT_ORIGINAL);
    json_object_set_new(root, "seat_salt", json_string(text));
    phx_secret_wipe(text, sizeof(text));
}

static void add_salt(json_t *root)
{
    uint8_t salt[SALT_BYTES];

    phx_id_random(salt, sizeof(salt));
    put_salt(root, salt);
    phx_secret_wipe(salt, sizeof(salt));
}

static void fill(json_t *root, const struct phx_sign_key *issuer, int64_t now_ns)
{
    char kid[PHX_KEY_ID_BYTES], now[PHX_DATE_BYTES];

    if (json_object_get(root, "seat_salt") == NULL)
        add_salt(root);
    if (json_object_get(root, "issued_at") == NULL) {
        phx_date_format(now_ns, now);
        json_object_set_new(root, "issued_at", json_string(now));
    }
    if (json_object_get(root, "issuer_kid") == NULL) {
        phx_sign_key_id(issuer->public_key, kid);
        json_object_set_new(root, "issuer_kid", json_string(kid));
    }
}

static int seal(const json_t *root, const char *type, const struct phx_sign_key *keys, int32_t n_keys, char **out,
                struct phx_err *err)
{
    char *text = json_dumps(root, JSON_COMPACT | JSON_SORT_KEYS);

    phx_assert(text != NULL); /* it came from the parser */
    *out = phx_dsse_seal(type, text, strlen(text), keys, n_keys);
    phx_secret_wipe(text, strlen(text));
    free(text);
    if (strlen(*out) <= PHX_LICENSE_MAX_BYTES)
        return 0;
    return phx_fail(err, PHX_E_TOOBIG, "the file would have %zu bytes (limit %d)", strlen(*out),
                    PHX_LICENSE_MAX_BYTES);
}

static void drop(char **out)
{
    phx_mem_free(*out);
    *out = NULL;
}

/* As a cluster reads it whose key set holds this issuer alone. */
static int read_own(const char *file, const struct phx_sign_key *issuer, struct phx_license **l, struct phx_err *err)
{
    struct phx_key_set *keys = phx_mem_calloc(1, sizeof(*keys));
    int                 rc;

    keys->version = PHX_LICENSE_KEY_SETS_MAX;
    keys->n_issuers = 1;
    memcpy(keys->issuers[0].public_key, issuer->public_key, 32);
    keys->issuers[0].not_after_ns = INT64_MAX;
    rc = phx_license_parse(file, strlen(file), keys, l, err);
    phx_mem_free(keys);
    return rc;
}

int phx_license_renew(const char *payload_json, const char *before, const struct phx_sign_key *issuer, char **out,
                      struct phx_err *err)
{
    struct phx_license *l = NULL;
    json_t             *root = NULL;
    int                 rc = load_payload(payload_json, &root, err);

    *out = NULL;
    if (rc == 0 && json_object_get(root, "seat_salt") != NULL)
        rc = phx_fail(err, PHX_E_INVALID, "seat_salt: the payload has one; a renewal takes that of the licence before");
    if (rc == 0 && (rc = read_own(before, issuer, &l, err)) != 0)
        phx_err_prefix(err, "the licence that is renewed: ");
    if (rc == 0) {
        char *text;

        put_salt(root, phx_license_terms(l)->seat_salt);
        text = json_dumps(root, JSON_COMPACT);
        phx_assert(text != NULL); /* it came from the parser */
        *out = phx_mem_strdup(text);
        phx_secret_wipe(text, strlen(text));
        free(text);
    }
    phx_license_free(l);
    json_decref(root);
    return rc;
}

int phx_license_issue(const char *payload_json, const struct phx_sign_key *issuer, int64_t now_ns, char **out,
                      struct phx_err *err)
{
    struct phx_license *l = NULL;
    json_t             *root = NULL;
    int                 rc = load_payload(payload_json, &root, err);

    *out = NULL;
    if (rc == 0) {
        fill(root, issuer, now_ns);
        rc = seal(root, PHX_LICENSE_PAYLOAD_TYPE, issuer, 1, out, err);
    }
    if (rc == 0)
        rc = read_own(*out, issuer, &l, err);
    if (rc != 0)
        drop(out);
    phx_license_free(l);
    json_decref(root);
    return rc;
}

static int check_key_set(const char *file, const struct phx_sign_key *roots, int32_t n_roots, struct phx_err *err)
{
    struct phx_key_set      *keys = phx_mem_calloc(1, sizeof(*keys));
    struct phx_license_roots trusted = {.n_keys = n_roots, .threshold = n_roots};
    int                      rc;

    for (int32_t i = 0; i < n_roots; i++)
        memcpy(trusted.keys[i], roots[i].public_key, 32);
    rc = phx_key_set_parse(file, strlen(file), &trusted, keys, err);
    phx_mem_free(keys);
    return rc;
}

int phx_key_set_issue(const char *payload_json, const struct phx_sign_key *roots, int32_t n_roots, char **out,
                      struct phx_err *err)
{
    json_t *root = NULL;
    int     rc;

    *out = NULL;
    if (n_roots < 1 || n_roots > PHX_ROOTS_MAX)
        return phx_fail(err, PHX_E_INVALID, "%d root keys: 1 to %d", n_roots, PHX_ROOTS_MAX);
    rc = load_payload(payload_json, &root, err);
    if (rc == 0)
        rc = seal(root, PHX_KEY_SET_PAYLOAD_TYPE, roots, n_roots, out, err);
    if (rc == 0)
        rc = check_key_set(*out, roots, n_roots, err);
    if (rc != 0)
        drop(out);
    json_decref(root);
    return rc;
}
