/* SPDX-License-Identifier: Apache-2.0
 * The strict JSON door: what it accepts must come back the same when written and parsed again. */
#include <string.h>

#include "rpc/base/json.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void try_getters(const json_t *root)
{
    static const char *const known[] = {"a", "model", NULL};
    struct phx_err           err;
    const char              *s = NULL;
    int64_t                  n = 0;
    double                   x = 0;

    (void)(phx_json_check_keys(root, "", known, &err) == 0);
    if (phx_json_get_str(root, "", "model", 64, &s, &err) == 0)
        phx_assert(strlen(s) <= 64);
    if (phx_json_get_int(root, "", "a", 0, 9, &n, &err) == 0)
        phx_assert(n >= 0 && n <= 9);
    if (phx_json_opt_real(root, "", "a", -1, 1, &x, &err) == 0)
        phx_assert(x >= -1 && x <= 1);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct phx_err err;
    struct phx_buf b;
    json_t        *root, *again;

    phx_buf_init(&b, 0);
    phx_json_put_str(&b, (const char *)data, size); /* any bytes become a valid string */
    phx_assert(phx_json_parse(&root, b.data, b.size, b.size, 0, "string", &err) == 0 ||
               memchr(data, '\0', size) != NULL);
    json_decref(root);
    phx_buf_clear(&b);
    if (phx_json_parse(&root, (const char *)data, size, 1 << 16, 0, "input", &err) == 0) {
        if (json_is_object(root))
            try_getters(root);
        phx_json_put(&b, root);
        phx_assert(phx_json_parse(&again, b.data, b.size, b.size, 0, "again", &err) == 0);
        phx_assert(json_equal(root, again) == 1);
        json_decref(again);
        json_decref(root);
    }
    phx_buf_fini(&b);
    return 0;
}
