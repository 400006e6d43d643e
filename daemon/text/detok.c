/* SPDX-License-Identifier: Apache-2.0
 * Ids -> text, whole characters at a time. */
#include <string.h>

#include "daemon/text/tokenizer.h"
#include "daemon/text/utf8.h"
#include "rpc/base/mem.h"

struct phx_detok {
    const struct phx_tokenizer *t;
    unsigned                    flags;
    struct phx_utf8_stream      stream;
    bool                        is_first;
    int                         strip_left; /* leading spaces still to drop */
};

static void restart(struct phx_detok *d)
{
    bool goes_on = (d->flags & PHX_DECODE_CONTINUE) != 0;
    d->stream = (struct phx_utf8_stream){.is_per_byte = !d->t->decoder.is_byte_level};
    d->is_first = !goes_on;
    d->strip_left = goes_on ? 0 : d->t->decoder.strip_spaces;
}

struct phx_detok *phx_detok_create(const struct phx_tokenizer *t, unsigned decode_flags)
{
    struct phx_detok *d = phx_mem_calloc(1, sizeof *d);
    d->t = t;
    d->flags = decode_flags;
    restart(d);
    return d;
}

void phx_detok_destroy(struct phx_detok *d)
{
    phx_mem_free(d);
}

/* Tokens of a character-level vocabulary are whole characters; only <0xHH> tokens are bytes. */
static void push_characters(struct phx_detok *d, int32_t id, const char *s, size_t size,
                            struct phx_buf *out)
{
    bool is_first = d->is_first;
    d->is_first = false;
    if (d->t->shown.tokens[id].flags & PHX_TOKEN_BYTE) {
        if (s[0] != ' ' || d->strip_left == 0) {
            d->strip_left = 0;
            phx_utf8_push(&d->stream, s, size, out);
        } else {
            d->strip_left--;
        }
        return;
    }
    phx_utf8_flush(&d->stream, out);
    for (size_t i = 0; i < size; i++) {
        if (s[i] != ' ') {
            if (!(is_first && d->t->decoder.is_first_unspaced)) {
                d->strip_left = 0;
                phx_buf_put(out, s + i, size - i);
                return;
            }
            phx_buf_putc(out, s[i]);
        } else if (d->strip_left > 0) {
            d->strip_left--;
        } else if (!(is_first && d->t->decoder.is_first_unspaced)) {
            phx_buf_putc(out, ' ');
        }
    }
}

void phx_detok_push(struct phx_detok *d, int32_t id, struct phx_buf *out)
{
    size_t      size;
    const char *s = phx_tokenizer_bytes(d->t, id, &size);
    if (!s || (!(d->flags & PHX_DECODE_SPECIALS) && phx_tokenizer_is_special(d->t, id)))
        return;
    if (d->t->decoder.is_byte_level)
        phx_utf8_push(&d->stream, s, size, out);
    else
        push_characters(d, id, s, size, out);
}

void phx_detok_flush(struct phx_detok *d, struct phx_buf *out)
{
    phx_utf8_flush(&d->stream, out);
    restart(d);
}

void phx_tokenizer_decode(const struct phx_tokenizer *t, const int32_t *ids, size_t n,
                          unsigned flags, struct phx_buf *out)
{
    struct phx_detok d = {.t = t, .flags = flags};
    restart(&d);
    for (size_t i = 0; i < n; i++)
        phx_detok_push(&d, ids[i], out);
    phx_detok_flush(&d, out);
}
