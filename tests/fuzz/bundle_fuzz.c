/* SPDX-License-Identifier: Apache-2.0
 * A bundle of log entries from outside; the first byte says how many there should be. */
#include <stdlib.h>

#include "daemon/tlog/tlog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static int add(void *ctx, int i, const void *entry, size_t size)
{
    (void)i;
    (void)entry;
    *(size_t *)ctx += 2 + size;
    return 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct phx_err err = {0};
    size_t         total = 0;

    if (size == 0)
        return 0;
    if (phx_tlog_entries_walk(data + 1, size - 1, data[0], add, &total, &err) == 0 && total != size - 1)
        abort();
    return 0;
}
