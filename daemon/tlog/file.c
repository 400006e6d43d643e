/* SPDX-License-Identifier: Apache-2.0
 * Paths and bundles of C2SP tlog-tiles. */
#include <stdio.h>
#include <string.h>

#include "daemon/tlog/tlog.h"

/* Groups of three digits, all but the last behind an x: 1234067 is x001/x234/067. */
static void put_index(uint64_t index, char out[PHX_TLOG_PATH_BYTES])
{
    char   rest[PHX_TLOG_PATH_BYTES];
    size_t n;

    (void)snprintf(out, PHX_TLOG_PATH_BYTES, "%03u", (unsigned)(index % 1000));
    for (index /= 1000; index > 0; index /= 1000) {
        n = strlen(out);
        memcpy(rest, out, n + 1);
        (void)snprintf(out, PHX_TLOG_PATH_BYTES, "x%03u/%.80s", (unsigned)(index % 1000), rest);
    }
}

static void put_path(const char *folder, uint64_t index, int width, char path[PHX_TLOG_PATH_BYTES])
{
    char digits[PHX_TLOG_PATH_BYTES];

    put_index(index, digits);
    if (width == PHX_TLOG_TILE_WIDTH)
        (void)snprintf(path, PHX_TLOG_PATH_BYTES, "tile/%s/%.64s", folder, digits);
    else
        (void)snprintf(path, PHX_TLOG_PATH_BYTES, "tile/%s/%.64s.p/%d", folder, digits, width);
}

void phx_tlog_tile_path(int level, uint64_t index, int width, char path[PHX_TLOG_PATH_BYTES])
{
    char folder[8];

    phx_assert(level >= 0 && level < 8 && width >= 1 && width <= PHX_TLOG_TILE_WIDTH);
    (void)snprintf(folder, sizeof(folder), "%d", level);
    put_path(folder, index, width, path);
}

void phx_tlog_entries_path(uint64_t index, int width, char path[PHX_TLOG_PATH_BYTES])
{
    phx_assert(width >= 1 && width <= PHX_TLOG_TILE_WIDTH);
    put_path("entries", index, width, path);
}

int phx_tlog_entry_put(struct phx_buf *bundle, const void *entry, size_t size, struct phx_err *err)
{
    if (size > PHX_TLOG_ENTRY_MAX_BYTES)
        return phx_fail(err, PHX_E_TOOBIG, "record: %zu bytes; a leaf holds at most %d", size,
                        PHX_TLOG_ENTRY_MAX_BYTES);
    phx_buf_putc(bundle, (char)(size >> 8));
    phx_buf_putc(bundle, (char)(size & 0xff));
    phx_buf_put(bundle, entry, size);
    return 0;
}

int phx_tlog_entries_walk(const void *bundle, size_t size, int n, phx_tlog_entry_fn fn, void *ctx,
                          struct phx_err *err)
{
    const uint8_t *p = bundle;
    size_t         left = size;

    for (int i = 0; i < n; i++) {
        size_t bytes;
        int    rc;

        if (left < 2)
            return phx_fail(err, PHX_E_FORMAT, "entry bundle: it ends at entry %d of %d", i, n);
        bytes = (size_t)p[0] << 8 | p[1];
        if (bytes > left - 2)
            return phx_fail(err, PHX_E_FORMAT, "entry bundle: entry %d is cut off", i);
        rc = fn(ctx, i, p + 2, bytes);
        if (rc != 0)
            return rc;
        p += 2 + bytes;
        left -= 2 + bytes;
    }
    return left == 0 ? 0 : phx_fail(err, PHX_E_FORMAT, "entry bundle: %zu bytes behind its %d entries", left, n);
}
