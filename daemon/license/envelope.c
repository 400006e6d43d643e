/* SPDX-License-Identifier: Apache-2.0
 * DSSE takes a keyid as a hint that proves nothing.  Here each signature that counts must carry the id of the
 * key that made it: then no byte of a file can be changed without it being refused. */
#include <string.h>

#include "daemon/license/terms.h"
#include "daemon/sign/sign.h"
#include "rpc/base/json.h"

static bool has_key_id(const json_t *list, const uint8_t key[32])
{
    char id[PHX_KEY_ID_BYTES];

    phx_sign_key_id(key, id);
    for (size_t i = 0; i < json_array_size(list); i++) {
        const char *text = json_string_value(json_object_get(json_array_get(list, i), "keyid"));

        if (text != NULL && strcmp(text, id) == 0)
            return true;
    }
    return false;
}

static int check_key_ids(const void *data, size_t size, const uint8_t (*keys)[32], int32_t threshold,
                         struct phx_dsse_signers *signers, struct phx_err *err)
{
    json_t *root = NULL;
    int32_t n = 0;
    int     rc = phx_json_parse(&root, data, size, PHX_LICENSE_MAX_BYTES, PHX_DSSE_DEPTH_MAX, "envelope", err);

    if (rc != 0)
        return rc;
    for (int32_t i = 0; i < signers->n; i++)
        if (has_key_id(json_object_get(root, "signatures"), keys[signers->index[i]]))
            signers->index[n++] = signers->index[i];
    signers->n = n;
    json_decref(root);
    if (n >= threshold)
        return 0;
    return phx_fail(err, PHX_E_LICENSE, "signatures.keyid: must be the id of the key that signed");
}

int phx_license_unseal(const void *data, size_t size, const char *type, const uint8_t (*keys)[32], size_t n_keys,
                       int32_t threshold, struct phx_buf *payload, struct phx_dsse_signers *signers,
                       struct phx_err *err)
{
    int rc = phx_dsse_open(data, size, PHX_LICENSE_MAX_BYTES, type, keys, n_keys, threshold, payload, signers, err);

    return rc == 0 ? check_key_ids(data, size, keys, threshold, signers, err) : rc;
}
