/* SPDX-License-Identifier: Apache-2.0
 * An envelope from outside: nothing that the key has not signed comes out. */
#include <stdlib.h>
#include <string.h>

#include "daemon/sign/sign.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint8_t    seed[32] = {1};
    struct phx_sign_key     k;
    struct phx_buf          payload;
    struct phx_dsse_signers signers;
    struct phx_err          err = {0};
    int                     rc;

    phx_sign_key_from_seed(seed, &k);
    phx_buf_init(&payload, 0);
    rc = phx_dsse_open((const char *)data, size, 1 << 16, "application/x", (const uint8_t(*)[32])k.public_key, 1, 1,
                       &payload, &signers, &err);
    if (rc == 0 && (payload.size != 5 || memcmp(payload.data, "hello", 5) != 0))
        abort(); /* the corpus has one signed payload */
    phx_buf_fini(&payload);
    return 0;
}
