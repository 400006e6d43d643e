/* SPDX-License-Identifier: Apache-2.0
 * phalanx-model: one table of subcommands, each in a file of its name. */
#ifndef PHX_SHARD_TOOL_H
#define PHX_SHARD_TOOL_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

/* What a subcommand returns, and the process with it. */
enum { PHX_TOOL_OK = 0, PHX_TOOL_FAILED = 1, PHX_TOOL_USAGE = 2 };

struct phx_tool_command {
    const char *name;
    int (*run)(int argc, char **argv); /* argv[0] is "phalanx-model <name>"; parses with argp */
    const char *help;                  /* one line */
};

int phx_tool_info(int argc, char **argv);
int phx_tool_synth(int argc, char **argv);
int phx_tool_verify(int argc, char **argv);
int phx_tool_sign(int argc, char **argv);
int phx_tool_logits(int argc, char **argv);
int phx_tool_quantize(int argc, char **argv);

/* Prints "phalanx-model: TEXT" on stderr; answers PHX_TOOL_FAILED. */
int phx_tool_fail(const struct phx_err *err);

/* A whole number of an option within [min, max]; ends the process with usage (exit 2) otherwise, so it is
 * called from argp parsers only. */
struct argp_state;
int64_t phx_tool_number(const struct argp_state *state, const char *option, const char *text,
                        int64_t min, int64_t max);

/* A progress bar on a terminal's stderr; nothing in a pipe.  Called from one thread. */
struct phx_tool_progress {
    const char *what;
    int64_t     start_ns, shown_ns;
    int32_t     is_terminal;
};
void phx_tool_progress_start(struct phx_tool_progress *p, const char *what);
void phx_tool_progress_show(void *progress, uint64_t done_bytes, uint64_t total_bytes);
void phx_tool_progress_end(struct phx_tool_progress *p); /* wipes the line */

/* All of it at that place; 0, or -1 with errno. */
int phx_tool_write_at(int fd, const void *data, size_t size, uint64_t offset);

/* "13.8 GB" into text[24]. */
void phx_tool_format_bytes(uint64_t bytes, char text[24]);

#endif
