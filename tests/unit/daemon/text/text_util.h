/* SPDX-License-Identifier: Apache-2.0
 * What the tests of daemon/text share. */
#ifndef PHX_TESTS_TEXT_UTIL_H
#define PHX_TESTS_TEXT_UTIL_H

/* cmocka needs these four before it */
/* clang-format off */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
/* clang-format on */

#include <string.h>

#include "daemon/text/text.h"

#define DATA PHX_SOURCE_DIR "/tests/data/tokenizers/"

#define assert_ok(call)                                                                            \
    do {                                                                                           \
        if ((call) != 0)                                                                           \
            fail_msg("%s: %s", #call, err.text);                                                   \
    } while (0)

static inline struct phx_tokenizer *open_ranks(const char *file, const char *encoding)
{
    struct phx_err        err = {0};
    struct phx_tokenizer *t = NULL;
    assert_ok(phx_tokenizer_open_ranks(file, encoding, &t, &err));
    return t;
}

static inline struct phx_ids encode(const struct phx_tokenizer *t, const char *text, unsigned flags)
{
    struct phx_err err = {0};
    struct phx_ids ids = {0};
    assert_ok(phx_tokenizer_encode(t, text, strlen(text), flags, &ids, &err));
    return ids;
}

static inline void assert_text(const struct phx_tokenizer *t, const struct phx_ids *ids,
                               const char *want)
{
    struct phx_buf text;
    phx_buf_init(&text, 0);
    phx_tokenizer_decode(t, ids->data, ids->n, PHX_DECODE_SPECIALS, &text);
    assert_string_equal(text.data ? text.data : "", want);
    phx_buf_fini(&text);
}

static inline void assert_ids(const struct phx_ids *ids, const int32_t *want, size_t n)
{
    assert_int_equal(ids->n, n);
    assert_memory_equal(ids->data, want, n * sizeof *want);
}

#endif
