/* SPDX-License-Identifier: Apache-2.0
 * Key sets: which issuers may sign licences, and which licences are void. */
#include <stdio.h>
#include <string.h>

#include "daemon/license/terms.h"
#include "daemon/sign/sign.h"
#include "rpc/base/hash.h"
#include "rpc/base/hex.h"
#include "rpc/base/json.h"

enum { WHERE_BYTES = 32, KEY_TEXT_MAX = 128 };

static const int64_t SERIAL_MAX = INT64_C(1) << 53;

static int read_public_key(const json_t *object, const char *where, struct phx_license_key *k,
                           struct phx_err *err)
{
    char        id[PHX_KEY_ID_BYTES];
    const char *text, *kid;
    int         rc = phx_json_get_str(object, where, "public_key", KEY_TEXT_MAX, &text, err);

    if (rc == 0)
        rc = phx_json_get_str(object, where, "kid", KEY_TEXT_MAX, &kid, err);
    if (rc == 0 && (!phx_digest_is_valid(text, "") ||
                    phx_hex_decode(k->public_key, sizeof(k->public_key), text, NULL) != 0))
        rc = phx_fail(err, PHX_E_INVALID, "%s.public_key must be 64 lower-case hex digits", where);
    if (rc != 0)
        return rc;
    phx_sign_key_id(k->public_key, id);
    if (strcmp(id, kid) != 0)
        return phx_fail(err, PHX_E_INVALID, "%s.kid is not the id of its public_key", where);
    return 0;
}

static int read_issuer(const json_t *object, const char *where, struct phx_license_key *k, struct phx_err *err)
{
    static const char *const known[] = {"kid", "public_key", "not_before", "not_after", NULL};
    int                      rc = phx_json_check_object(object, where, err);

    if (rc == 0)
        rc = phx_json_check_keys(object, where, known, err);
    if (rc == 0)
        rc = read_public_key(object, where, k, err);
    if (rc == 0)
        rc = phx_terms_time(object, where, "not_before", &k->not_before_ns, err);
    if (rc == 0)
        rc = phx_terms_time(object, where, "not_after", &k->not_after_ns, err);
    if (rc == 0 && k->not_after_ns <= k->not_before_ns)
        rc = phx_fail(err, PHX_E_INVALID, "%s.not_after must be later than not_before", where);
    return rc;
}

static int read_issuers(const json_t *root, struct phx_key_set *out, struct phx_err *err)
{
    const json_t *array;
    int           rc = phx_json_get_array(root, "", "issuers", PHX_ISSUERS_MAX, &array, err);

    if (rc == 0 && json_array_size(array) == 0)
        rc = phx_fail(err, PHX_E_INVALID, "issuers is empty: no licence could be verified");
    for (size_t i = 0; rc == 0 && i < json_array_size(array); i++) {
        char where[WHERE_BYTES];

        (void)snprintf(where, sizeof(where), "issuers[%zu]", i);
        rc = read_issuer(json_array_get(array, i), where, &out->issuers[i], err);
        for (size_t j = 0; j < i && rc == 0; j++)
            if (memcmp(out->issuers[i].public_key, out->issuers[j].public_key, 32) == 0)
                rc = phx_fail(err, PHX_E_INVALID, "%s.public_key is there twice", where);
        out->n_issuers++;
    }
    return rc;
}

static int read_revoked(const json_t *root, struct phx_key_set *out, struct phx_err *err)
{
    const json_t *array = NULL;
    int           rc = phx_json_opt_array(root, "", "revoked_serials", PHX_REVOKED_MAX, &array, err);

    if (rc != 0 || array == NULL)
        return rc;
    for (size_t i = 0; i < json_array_size(array); i++) {
        const json_t *item = json_array_get(array, i);
        int64_t       serial = json_integer_value(item); /* 0 for anything else */

        if (serial < 1 || serial > SERIAL_MAX)
            return phx_fail(err, PHX_E_INVALID, "revoked_serials[%zu] must be an integer of 1 or more", i);
        out->revoked[out->n_revoked++] = serial;
    }
    return 0;
}

static int read_payload(const json_t *root, struct phx_key_set *out, struct phx_err *err)
{
    static const char *const known[] = {"schema", "version", "issued_at", "issuers", "revoked_serials", NULL};
    const char              *schema;
    int                      rc = phx_json_check_object(root, "", err);

    if (rc == 0)
        rc = phx_json_get_str(root, "", "schema", KEY_TEXT_MAX, &schema, err);
    if (rc == 0 && strcmp(schema, "keyset/1") != 0)
        rc = phx_fail(err, PHX_E_UNSUPPORTED, "schema must be \"keyset/1\"; a newer phalanx may know it");
    if (rc == 0)
        rc = phx_json_check_keys(root, "", known, err);
    if (rc == 0)
        rc = phx_json_get_int(root, "", "version", 1, PHX_LICENSE_KEY_SETS_MAX, &out->version, err);
    if (rc == 0)
        rc = phx_terms_time(root, "", "issued_at", &out->issued_ns, err);
    if (rc == 0)
        rc = read_issuers(root, out, err);
    return rc == 0 ? read_revoked(root, out, err) : rc;
}

int phx_key_set_read(const void *payload, size_t size, struct phx_key_set *out, struct phx_err *err)
{
    json_t *root = NULL;
    int rc = phx_json_parse(&root, payload, size, PHX_LICENSE_MAX_BYTES, PHX_LICENSE_DEPTH_MAX,
                            "the key set's payload", err);

    memset(out, 0, sizeof(*out));
    if (rc == 0)
        rc = read_payload(root, out, err);
    json_decref(root);
    if (rc == 0)
        phx_sha256_hex(payload, size, out->digest);
    else
        memset(out, 0, sizeof(*out));
    return rc;
}

int phx_key_set_parse(const void *data, size_t size, const struct phx_license_roots *roots,
                      struct phx_key_set *out, struct phx_err *err)
{
    struct phx_dsse_signers signers;
    struct phx_buf          payload = {0};
    int rc = phx_license_unseal(data, size, PHX_KEY_SET_PAYLOAD_TYPE, (const uint8_t(*)[32])roots->keys,
                                (size_t)roots->n_keys, roots->threshold, &payload, &signers, err);

    memset(out, 0, sizeof(*out));
    if (rc == 0)
        rc = phx_key_set_read(payload.data, payload.size, out, err);
    if (rc != 0)
        phx_err_prefix(err, "key set: ");
    phx_buf_fini(&payload);
    return rc;
}
