/* SPDX-License-Identifier: Apache-2.0
 * tokenizer.json from anybody: refused with a reason, or it encodes and decodes without harm. */
#include <stdint.h>
#include <string.h>

#include "daemon/text/text.h"
#include "rpc/base/utf8.h"

static void use(const struct phx_tokenizer *t)
{
    static const char *const texts[] = {
        "Hello  world\n\n 123 don't", "<s>a</s><|x|> \xE4\xBD\xA0\xC3\xA9",
        "\xE2\x96\x81\xF0\x9F\x98\x80\t ", "aaaaaaaaaaaaaaaaaaaaaaaaaaaaa"};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        for (unsigned flags = 0; flags < 4; flags++) {
            struct phx_ids ids = {0};
            struct phx_err err;
            struct phx_buf out;
            phx_buf_init(&out, 1 << 20);
            if (phx_tokenizer_encode(t, texts[i], strlen(texts[i]), flags, &ids, &err) == 0)
                phx_tokenizer_decode(t, ids.data, ids.n, flags, &out);
            if (!phx_utf8_is_valid(out.data ? out.data : "", out.size))
                __builtin_trap();
            for (size_t k = 0; k < ids.n; k++)
                if (ids.data[k] < 0 || ids.data[k] >= phx_tokenizer_vocab_size(t))
                    __builtin_trap();
            phx_buf_fini(&out);
            phx_ids_fini(&ids);
        }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct phx_tokenizer *t = NULL;
    struct phx_err        err = {0};
    int                   rc = phx_tokenizer_open_json((const char *)data, size, "fuzz", &t, &err);
    if (rc == 0)
        use(t);
    else if (t != NULL || err.text[0] == '\0')
        __builtin_trap();
    phx_tokenizer_close(t);
    return 0;
}
