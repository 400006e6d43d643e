/* SPDX-License-Identifier: Apache-2.0
 * A signed note from outside, and the checkpoint in it. */
#include <stdlib.h>
#include <string.h>

#include "daemon/sign/sign.h"
#include "daemon/tlog/tlog.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const char vkey[] = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
    struct phx_note_verifier v;
    struct phx_checkpoint    c, again;
    struct phx_buf           text;
    struct phx_err           err = {0};
    size_t                   n = 0;
    bool                     is_signed;

    if (phx_note_vkey_parse(vkey, &v, &err) != 0)
        abort();
    if (phx_note_open(data, size, &v, 1, &is_signed, &n, &err) == 0 && n > size)
        abort();
    if (phx_checkpoint_parse(data, size, &c, &err) != 0)
        return 0;
    phx_buf_init(&text, 0); /* what is read is written back the same way */
    phx_checkpoint_format(&c, &text);
    if (text.size > size || memcmp(text.data, data, text.size) != 0 ||
        phx_checkpoint_parse(text.data, text.size, &again, &err) != 0 || again.size != c.size)
        abort();
    phx_buf_fini(&text);
    return 0;
}
