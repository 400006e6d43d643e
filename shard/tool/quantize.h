/* SPDX-License-Identifier: Apache-2.0
 * The parts of `phalanx-model quantize`.  Private to shard/tool. */
#ifndef PHX_SHARD_TOOL_QUANTIZE_H
#define PHX_SHARD_TOOL_QUANTIZE_H

#include "rpc/base/err.h"
#include "shard/load/load.h"
#include "shard/model/config.h"
#include "shard/tool/tool.h"

struct phx_quantize {
    const char                    *from, *to; /* folders */
    const struct phx_model_config *config;    /* of the source */
    const struct phx_checkpoint   *checkpoint;
    const char                    *parent;    /* "sha256:..." of the source, or "" */
    struct phx_tool_progress       progress;
    uint64_t                       done_bytes; /* of the source */
    uint64_t                       written_bytes;
    int32_t                        n_matrices;
};

/* quantize_file.c: the safetensors files, named as in the source, and their index where it has one. */
int phx_quantize_files(struct phx_quantize *q, struct phx_err *err) PHX_CHECKED;

/* quantize_folder.c: what is no weight: tokenizer, templates, licences; files that are not known are named on stderr
 * and left out.  Then config.json, last, so that half a copy does not load. */
int phx_quantize_folder(struct phx_quantize *q, struct phx_err *err) PHX_CHECKED;
/* Refuses unless the folder has files whose names begin with LICENSE and NOTICE. */
int phx_quantize_check_papers(const char *dir, struct phx_err *err) PHX_CHECKED;

#endif
