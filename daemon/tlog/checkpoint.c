/* SPDX-License-Identifier: Apache-2.0
 * The text of a C2SP checkpoint. */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include <sodium.h>

#include "daemon/tlog/tlog.h"

enum { ROOT_TEXT_BYTES = 45 }; /* base64 of 32 bytes and a NUL */

void phx_checkpoint_format(const struct phx_checkpoint *c, struct phx_buf *out)
{
    char root[ROOT_TEXT_BYTES];

    (void)sodium_bin2base64(root, sizeof(root), c->root.bytes, PHX_TLOG_HASH_BYTES,
                            sodium_base64_VARIANT_ORIGINAL); /* fits by its type */
    phx_buf_printf(out, "%s\n%" PRIu64 "\n%s\n", c->origin, c->size, root);
}

/* The next line without its newline; false at the end or when it does not end. */
static bool next_line(const char **p, const char *end, const char **line, size_t *size)
{
    const char *newline = *p < end ? memchr(*p, '\n', (size_t)(end - *p)) : NULL;

    if (newline == NULL)
        return false;
    *line = *p;
    *size = (size_t)(newline - *p);
    *p = newline + 1;
    return true;
}

static bool read_size(const char *line, size_t size, uint64_t *out)
{
    uint64_t value = 0;

    if (size == 0 || size > 19 || (size > 1 && line[0] == '0'))
        return false;
    for (size_t i = 0; i < size; i++) {
        if (line[i] < '0' || line[i] > '9')
            return false;
        value = value * 10 + (uint64_t)(line[i] - '0');
    }
    *out = value;
    return value <= INT64_MAX;
}

/* Canonical only: what was read must be written the same way. */
static bool read_root(const char *line, size_t size, struct phx_tlog_hash *out)
{
    char   text[ROOT_TEXT_BYTES];
    size_t n = 0;

    if (size != ROOT_TEXT_BYTES - 1 ||
        sodium_base642bin(out->bytes, PHX_TLOG_HASH_BYTES, line, size, NULL, &n, NULL,
                          sodium_base64_VARIANT_ORIGINAL) != 0 ||
        n != PHX_TLOG_HASH_BYTES)
        return false;
    (void)sodium_bin2base64(text, sizeof(text), out->bytes, n, sodium_base64_VARIANT_ORIGINAL);
    return memcmp(text, line, size) == 0;
}

int phx_checkpoint_parse(const void *text, size_t size, struct phx_checkpoint *out, struct phx_err *err)
{
    const char *p = text, *end = p + size, *line = NULL;
    size_t      n = 0;

    memset(out, 0, sizeof(*out));
    if (size > 0 && memchr(text, '\0', size) != NULL)
        return phx_fail(err, PHX_E_FORMAT, "checkpoint: a NUL byte");
    if (!next_line(&p, end, &line, &n) || n == 0 || n >= sizeof(out->origin))
        return phx_fail(err, PHX_E_FORMAT, "checkpoint: the first line must be an origin of 1 to %zu bytes",
                        sizeof(out->origin) - 1);
    memcpy(out->origin, line, n);
    if (!next_line(&p, end, &line, &n) || !read_size(line, n, &out->size))
        return phx_fail(err, PHX_E_FORMAT, "checkpoint: the second line must be a tree size");
    if (!next_line(&p, end, &line, &n) || !read_root(line, n, &out->root))
        return phx_fail(err, PHX_E_FORMAT, "checkpoint: the third line must be a root in base64");
    while (p < end)
        if (!next_line(&p, end, &line, &n) || n == 0)
            return phx_fail(err, PHX_E_FORMAT, "checkpoint: an extension line is empty or does not end");
    return 0;
}
