/* SPDX-License-Identifier: Apache-2.0
 * The config file.  What parses must be written so that it parses to the same text again. */
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "daemon/config/config.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct phx_config *c, *again;
    struct phx_buf     text, twice;
    struct phx_err     err = {0};

    if (phx_config_parse((const char *)data, size, "fuzz", &c, &err) != 0) {
        phx_assert(c == NULL && err.code < 0 && strncmp(err.text, "fuzz", 4) == 0);
        return 0;
    }
    phx_buf_init(&text, 0);
    phx_buf_init(&twice, 0);
    phx_config_format(c, &text);
    phx_assert(phx_config_parse(text.data, text.size, "again", &again, &err) == 0);
    phx_config_format(again, &twice);
    phx_assert(strcmp(text.data, twice.data) == 0);
    phx_buf_fini(&text);
    phx_buf_fini(&twice);
    phx_config_destroy(c);
    phx_config_destroy(again);
    return 0;
}
