/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/usage/out.h"

#include <inttypes.h>
#include <string.h>

enum { PASS_BYTES = 64 << 10 };

int phx_out_flush(struct out *o)
{
    int rc = phx_buf_check(&o->text, "report", o->err);

    if (rc == 0 && o->text.size > 0)
        rc = o->sink(o->ctx, o->text.data, o->text.size);
    phx_buf_clear(&o->text);
    return rc;
}

int phx_out_pass(struct out *o)
{
    return o->text.size >= PASS_BYTES ? phx_out_flush(o) : 0;
}

void phx_out_cell(struct out *o, const char *text)
{
    if (text[0] != '\0') {
        phx_buf_putc(&o->text, '"');
        if (strchr("=+-@\t\r", text[0]) != NULL)
            phx_buf_putc(&o->text, '\'');
        for (; *text != '\0'; text++) {
            if (*text == '"')
                phx_buf_putc(&o->text, '"');
            phx_buf_putc(&o->text, *text);
        }
        phx_buf_putc(&o->text, '"');
    }
    phx_buf_putc(&o->text, ',');
}

void phx_out_number(struct out *o, int64_t n)
{
    phx_buf_printf(&o->text, "%" PRId64 ",", n);
}

void phx_out_end(struct out *o)
{
    o->text.size--;
    phx_buf_puts(&o->text, "\r\n");
}
