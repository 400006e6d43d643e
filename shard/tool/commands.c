/* SPDX-License-Identifier: Apache-2.0 */
#include "shard/tool/tool.h"

const struct phx_tool_command phx_tool_commands[] = {
    {"info", phx_tool_info, "shapes, bytes, and what each rank would hold"},
    {"verify", phx_tool_verify, "every check of a checkpoint, and the SHA-256 of its files"},
    {"sign", phx_tool_sign, "signs the digests of every file (OpenSSF model signing)"},
    {"quantize", phx_tool_quantize, "a copy of a checkpoint with int8 weights"},
    {"logits", phx_tool_logits, "the logits of a list of tokens, through the real ranks"},
    {"synth", phx_tool_synth, "a random-weight checkpoint in the published layout"},
};

const int phx_tool_n_commands = sizeof(phx_tool_commands) / sizeof(phx_tool_commands[0]);
