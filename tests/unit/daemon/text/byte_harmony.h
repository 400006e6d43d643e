/* SPDX-License-Identifier: Apache-2.0
 * A tokenizer.json of the 256 bytes (id = byte) and the harmony marks (256 on), as small models
 * have. */
#ifndef PHX_TESTS_BYTE_HARMONY_H
#define PHX_TESTS_BYTE_HARMONY_H

#include "daemon/text/bytelevel.h"
#include "rpc/base/buf.h"

enum { BYTE_HARMONY_MARKS = 9 };

static inline void put_byte_harmony(struct phx_buf *json)
{
    static const char *const marks[BYTE_HARMONY_MARKS] = {
        "<|startoftext|>", "<|endoftext|>", "<|return|>",  "<|constrain|>", "<|channel|>",
        "<|start|>",       "<|end|>",       "<|message|>", "<|call|>"};
    phx_buf_puts(json, "{\"version\":\"1.0\",\"added_tokens\":[");
    for (int i = 0; i < BYTE_HARMONY_MARKS; i++)
        phx_buf_printf(json, "%s{\"id\":%d,\"content\":\"%s\",\"special\":true}", i ? "," : "",
                       256 + i, marks[i]);
    phx_buf_puts(json,
                 "],\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false,"
                 "\"use_regex\":false},\"decoder\":{\"type\":\"ByteLevel\"},\"model\":{\"type\":"
                 "\"BPE\",\"merges\":[],\"vocab\":{");
    for (int b = 0; b < 256; b++) {
        char           byte = (char)b;
        struct phx_buf spelled;
        phx_buf_init(&spelled, 0);
        phx_bytelevel_encode(&byte, 1, &spelled);
        phx_buf_printf(json, "%s\"%s%s\":%d", b ? "," : "", b == '"' || b == '\\' ? "\\" : "",
                       spelled.data, b);
        phx_buf_fini(&spelled);
    }
    phx_buf_puts(json, "}}}");
}

#endif
