/* SPDX-License-Identifier: Apache-2.0
 * Key sets: any bytes give a set or an error, never both. */
#include "daemon/identity/identity.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct phx_err   err = {0};
    struct phx_jwks *j = NULL;
    int              rc = phx_jwks_parse(data, size, &j, &err);

    phx_assert((rc == 0) == (j != NULL));
    phx_assert(rc == 0 || err.text[0] != '\0');
    phx_jwks_free(j);
    return 0;
}
