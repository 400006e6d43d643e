/* SPDX-License-Identifier: Apache-2.0
 * Tokens: any bytes are refused with a reason, or verify and name somebody.  The corpus holds signed ones, so
 * that mutations start behind the signature too. */
#include <string.h>

#include "daemon/identity/identity.h"
#include "rpc/base/mem.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* RFC 8032's first test vector: not for use, but a valid point. */
static const char KEYS[] = "{\"keys\":[{\"kty\":\"OKP\",\"crv\":\"Ed25519\",\"kid\":\"k\","
                           "\"x\":\"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo\"}]}";

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const struct phx_token_rules rules = {"https://idp.example", "phalanx", "org", "roles", "", 60};
    static struct phx_jwks             *keys;
    struct phx_token_claims             claims;
    struct phx_err                      err = {0};
    char                               *token = phx_mem_strndup((const char *)data, size);

    if (keys == NULL)
        phx_assert(phx_jwks_parse(KEYS, strlen(KEYS), &keys, &err) == 0);
    if (phx_token_verify(keys, &rules, token, 1793491200000000000, 1793491200000000000, &claims, &err) == 0)
        phx_assert(claims.subject[0] != '\0' && claims.tenant[0] != '\0');
    else
        phx_assert(err.code == PHX_E_UNAUTH && err.text[0] != '\0' && claims.subject[0] == '\0');
    phx_mem_free(token);
    return 0;
}
