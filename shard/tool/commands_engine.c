/* SPDX-License-Identifier: Apache-2.0
 * Of a build of the engine alone: what needs neither hashes nor signatures. */
#include "shard/tool/tool.h"

const struct phx_tool_command phx_tool_commands[] = {
    {"logits", phx_tool_logits, "the logits of a list of tokens, through the real ranks"},
    {"synth", phx_tool_synth, "a random-weight checkpoint in the published layout"},
};

const int phx_tool_n_commands = sizeof(phx_tool_commands) / sizeof(phx_tool_commands[0]);
