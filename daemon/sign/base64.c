/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/sign/base64.h"

#include <string.h>

#include <sodium.h>

#include "rpc/base/mem.h"

static char *encode(const void *data, size_t size, size_t *n)
{
    size_t capacity = sodium_base64_encoded_len(size, sodium_base64_VARIANT_ORIGINAL);
    char  *text = phx_mem_calloc(1, capacity);

    (void)sodium_bin2base64(text, capacity, data, size, sodium_base64_VARIANT_ORIGINAL); /* fits */
    *n = capacity - 1;
    return text;
}

void phx_base64_put(struct phx_buf *out, const void *data, size_t size)
{
    size_t n;
    char  *text = encode(data, size, &n);

    phx_buf_put(out, text, n);
    phx_mem_free(text);
}

bool phx_base64_get(const char *text, size_t size, struct phx_buf *out)
{
    uint8_t *data = phx_mem_calloc(1, size + 1);
    size_t   n = 0, n_again = 0;
    bool     is_good = sodium_base642bin(data, size + 1, text, size, NULL, &n, NULL,
                                         sodium_base64_VARIANT_ORIGINAL) == 0;
    char    *again = encode(data, n, &n_again);

    is_good = is_good && n_again == size && memcmp(again, text, size) == 0;
    if (is_good)
        phx_buf_put(out, data, n);
    phx_mem_free(again);
    phx_mem_free(data);
    return is_good;
}
