/* SPDX-License-Identifier: Apache-2.0
 * Answers no model should write, and tool schemas nobody should send.  First byte even: the rest
 * are tokens (F0 to F8 stand for the marks); odd: the rest is a JSON schema. */
#include <stdint.h>
#include <string.h>

#include "daemon/text/harmony.h"
#include "rpc/base/mem.h"
#include "rpc/base/utf8.h"
#include "tests/unit/daemon/text/byte_harmony.h"

static struct phx_tokenizer *tokenizer; /* made once, kept for the life of the program */
static struct phx_harmony    harmony;

static void open_once(void)
{
    struct phx_err err;
    struct phx_buf json;
    if (tokenizer)
        return;
    phx_buf_init(&json, 0);
    put_byte_harmony(&json);
    if (phx_tokenizer_open_json(json.data, json.size, "bytes", &tokenizer, &err) ||
        !phx_harmony_init(&harmony, tokenizer))
        __builtin_trap();
    phx_buf_fini(&json);
}

/* Messages begin and end in turn; text comes inside them only, in whole characters. */
static void check(void *ctx, enum phx_harmony_event event, const struct phx_harmony_header *header,
                  const char *data, size_t size, int32_t terminator)
{
    bool *is_open = ctx;
    (void)terminator;
    if (*is_open != (event != PHX_HARMONY_BEGIN) || !memchr(header->recipient, 0, 128) ||
        !phx_utf8_is_valid(data, size))
        __builtin_trap();
    *is_open = event != PHX_HARMONY_END;
}

static void parse(const uint8_t *data, size_t size)
{
    struct phx_harmony_parser p;
    bool                      is_open = false;
    phx_harmony_parser_init(&p, &harmony, check, &is_open);
    for (size_t i = 0; i < size; i++)
        phx_harmony_parser_push(&p, data[i] >= 0xF0 && data[i] < 0xF0 + BYTE_HARMONY_MARKS
                                        ? data[i] - 0xF0 + 256
                                        : data[i]);
    phx_harmony_parser_end(&p);
    if (is_open)
        __builtin_trap();
    phx_harmony_parser_fini(&p);
}

static void render_schema(const uint8_t *data, size_t size)
{
    struct phx_err err;
    struct phx_buf out;
    char          *text = phx_mem_calloc(1, size + 1);
    memcpy(text, data, size);
    phx_buf_init(&out, 16 << 20);
    if (phx_harmony_type(text, "schema", &out, &err) != 0 && err.text[0] == '\0')
        __builtin_trap(); /* refusing is as good as rendering, but with a reason */
    phx_buf_fini(&out);
    phx_mem_free(text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    open_once();
    if (size == 0)
        return 0;
    if (data[0] & 1)
        render_schema(data + 1, size - 1);
    else
        parse(data + 1, size - 1);
    return 0;
}
