/* SPDX-License-Identifier: Apache-2.0
 * A licence file against a key set: the signature over the raw bytes first, then the payload, then whether
 * that issuer could sign it at that time. */
#include <string.h>

#include "daemon/license/terms.h"
#include "daemon/sign/sign.h"

static int check_issuer(const struct phx_license_terms *t, const struct phx_key_set *keys,
                        const struct phx_dsse_signers *signers, struct phx_err *err)
{
    for (int32_t i = 0; i < signers->n; i++) {
        const struct phx_license_key *k = &keys->issuers[signers->index[i]];
        char                          id[PHX_KEY_ID_BYTES];

        phx_sign_key_id(k->public_key, id);
        if (strcmp(id, t->issuer_kid) != 0)
            continue;
        if (t->issued_ns >= k->not_before_ns && t->issued_ns < k->not_after_ns)
            return 0;
        return phx_fail(err, PHX_E_LICENSE,
                        "issued_at is outside the time in which key set %lld lets that issuer sign",
                        (long long)keys->version);
    }
    return phx_fail(err, PHX_E_LICENSE, "issuer_kid is not the key that signed it");
}

static int check_against(const struct phx_license_terms *t, const struct phx_key_set *keys, struct phx_err *err)
{
    if (keys->version < t->key_set_min_version)
        return phx_fail(err, PHX_E_LICENSE, "it needs key set version %lld or later, this is version %lld",
                        (long long)t->key_set_min_version, (long long)keys->version);
    for (int32_t i = 0; i < keys->n_revoked; i++)
        if (keys->revoked[i] == t->serial)
            return phx_fail(err, PHX_E_LICENSE, "serial %lld was revoked by key set version %lld",
                            (long long)t->serial, (long long)keys->version);
    return 0;
}

int phx_license_parse(const void *data, size_t size, const struct phx_key_set *keys, struct phx_license **out,
                      struct phx_err *err)
{
    uint8_t                 issuers[PHX_ISSUERS_MAX][32];
    struct phx_dsse_signers signers;
    struct phx_license     *l = NULL;
    struct phx_buf          payload = {0};
    int                     rc;

    *out = NULL;
    for (int32_t i = 0; i < keys->n_issuers; i++)
        memcpy(issuers[i], keys->issuers[i].public_key, 32);
    rc = phx_license_unseal(data, size, PHX_LICENSE_PAYLOAD_TYPE, (const uint8_t(*)[32])issuers,
                            (size_t)keys->n_issuers, 1, &payload, &signers, err);
    if (rc == 0)
        rc = phx_license_read(payload.data, payload.size, &l, err);
    if (rc == 0)
        rc = check_issuer(&l->terms, keys, &signers, err);
    if (rc == 0)
        rc = check_against(&l->terms, keys, err);
    phx_buf_fini(&payload);
    if (rc != 0) {
        phx_err_prefix(err, "licence: ");
        phx_license_free(l);
        return rc;
    }
    *out = l;
    return 0;
}
