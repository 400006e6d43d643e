/* SPDX-License-Identifier: Apache-2.0
 * Stop strings in a stream.  What may still become a stop string is held back: at most the longest
 * stop string less one byte. */
#include <string.h>

#include "daemon/text/text.h"
#include "rpc/base/mem.h"

struct phx_stop {
    char          *strings[PHX_STOP_STRINGS_MAX];
    size_t         sizes[PHX_STOP_STRINGS_MAX];
    size_t         n;
    struct phx_buf held;
    bool           is_found;
};

int phx_stop_create(const char *const *strings, size_t n, struct phx_stop **out,
                    struct phx_err *err)
{
    *out = NULL;
    if (n > PHX_STOP_STRINGS_MAX)
        return phx_fail(err, PHX_E_INVALID, "stop: at most %d strings are allowed",
                        PHX_STOP_STRINGS_MAX);
    for (size_t i = 0; i < n; i++)
        if (strings[i][0] == '\0' || strlen(strings[i]) > PHX_STOP_STRING_BYTES_MAX)
            return phx_fail(err, PHX_E_INVALID, "stop[%zu] must have 1 to %d bytes", i,
                            PHX_STOP_STRING_BYTES_MAX);
    struct phx_stop *s = phx_mem_calloc(1, sizeof *s);
    for (; s->n < n; s->n++) {
        s->strings[s->n] = phx_mem_strdup(strings[s->n]);
        s->sizes[s->n] = strlen(strings[s->n]);
    }
    phx_buf_init(&s->held, 0);
    *out = s;
    return 0;
}

void phx_stop_destroy(struct phx_stop *s)
{
    if (!s)
        return;
    for (size_t i = 0; i < s->n; i++)
        phx_mem_free(s->strings[i]);
    phx_buf_fini(&s->held);
    phx_mem_free(s);
}

/* Where the first stop string begins in held, or SIZE_MAX. */
static size_t find_first(const struct phx_stop *s)
{
    size_t first = SIZE_MAX;
    for (size_t i = 0; i < s->n; i++) {
        const char *hit = memmem(s->held.data, s->held.size, s->strings[i], s->sizes[i]);
        if (hit && (size_t)(hit - s->held.data) < first)
            first = (size_t)(hit - s->held.data);
    }
    return first;
}

/* Bytes at the end of held that begin some stop string. */
static size_t count_pending(const struct phx_stop *s)
{
    size_t most = 0;
    for (size_t i = 0; i < s->n; i++) {
        size_t n = s->sizes[i] - 1 < s->held.size ? s->sizes[i] - 1 : s->held.size;
        for (; n > most; n--)
            if (memcmp(s->held.data + s->held.size - n, s->strings[i], n) == 0)
                most = n;
    }
    return most;
}

bool phx_stop_push(struct phx_stop *s, const char *data, size_t size_bytes, struct phx_buf *out)
{
    if (s->is_found || size_bytes == 0)
        return s->is_found;
    phx_buf_put(&s->held, data, size_bytes);
    size_t safe = find_first(s);
    s->is_found = safe != SIZE_MAX;
    if (!s->is_found)
        safe = s->held.size - count_pending(s);
    phx_buf_put(out, s->held.data, safe);
    phx_buf_consume(&s->held, s->is_found ? s->held.size : safe);
    return s->is_found;
}

void phx_stop_flush(struct phx_stop *s, struct phx_buf *out)
{
    if (!s->is_found && s->held.size > 0)
        phx_buf_put(out, s->held.data, s->held.size);
    phx_buf_clear(&s->held);
}
