/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/id.h"

#include <errno.h>
#include <sys/random.h>

#include "rpc/base/err.h"
#include "rpc/base/hex.h"

void phx_id_random(void *out, size_t n)
{
    unsigned char *p = out;

    while (n > 0) {
        ssize_t got = getrandom(p, n, 0);

        phx_assert(got >= 0 || errno == EINTR); /* only EFAULT and EINVAL are left: bugs */
        if (got < 0)
            continue;
        p += got;
        n -= (size_t)got;
    }
}

uint64_t phx_id_random_u64(void)
{
    uint64_t value;

    phx_id_random(&value, sizeof(value));
    return value;
}

void phx_id_hex(char *text, size_t text_size, size_t n_bytes)
{
    unsigned char bytes[64];

    phx_assert(n_bytes <= sizeof(bytes) && text_size > 2 * n_bytes);
    phx_id_random(bytes, n_bytes);
    phx_hex_encode(text, text_size, bytes, n_bytes);
}
