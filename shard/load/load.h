/* SPDX-License-Identifier: Apache-2.0
 * A published checkpoint on disk: safetensors files, mapped read-only, and the tensors in them.
 * Every offset is checked against the file before it is used; nothing of a tensor is read here. */
#ifndef PHX_SHARD_LOAD_H
#define PHX_SHARD_LOAD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/err.h"

enum { PHX_CKPT_DIMS_MAX = 8, PHX_CKPT_NAME_MAX = 512 };

enum phx_ckpt_dtype {
    PHX_CKPT_NONE = 0,
    PHX_CKPT_BOOL, PHX_CKPT_F4, PHX_CKPT_F6_E2M3, PHX_CKPT_F6_E3M2, PHX_CKPT_U8, PHX_CKPT_I8,
    PHX_CKPT_F8_E5M2, PHX_CKPT_F8_E4M3, PHX_CKPT_F8_E8M0, PHX_CKPT_F8_E4M3FNUZ,
    PHX_CKPT_F8_E5M2FNUZ, PHX_CKPT_I16, PHX_CKPT_U16, PHX_CKPT_F16, PHX_CKPT_BF16, PHX_CKPT_I32,
    PHX_CKPT_U32, PHX_CKPT_F32, PHX_CKPT_C64, PHX_CKPT_F64, PHX_CKPT_I64, PHX_CKPT_U64
};

struct phx_ckpt_tensor {
    const char         *name;
    enum phx_ckpt_dtype dtype;
    int32_t             n_dims;
    int64_t             dim[PHX_CKPT_DIMS_MAX];
    const uint8_t      *data; /* mapped; any alignment; borrowed until the checkpoint closes */
    uint64_t            size_bytes;
    int32_t             file; /* index of its file */
};

struct phx_checkpoint;

/* Opens DIR/model.safetensors.index.json with its shards, or DIR/model.safetensors.  Refuses, naming file
 * and tensor: truncated or oversized headers, unknown dtypes, overlapping, holed or out-of-file offsets,
 * sizes that do not match the shape, duplicate names, an index that names what is not there.
 * Owned: phx_checkpoint_close(). */
int  phx_checkpoint_open(const char *dir, struct phx_checkpoint **out, struct phx_err *err) PHX_CHECKED;
void phx_checkpoint_close(struct phx_checkpoint *c);

/* A checkpoint of tensors that lie in memory already, whatever made them; the bytes stay the caller's until it is closed.
 * Owned: phx_checkpoint_close(). */
struct phx_checkpoint *phx_checkpoint_lend(const struct phx_ckpt_tensor *tensors, int32_t n);

int32_t                       phx_checkpoint_count(const struct phx_checkpoint *c);
const struct phx_ckpt_tensor *phx_checkpoint_at(const struct phx_checkpoint *c, int32_t i);
const struct phx_ckpt_tensor *phx_checkpoint_find(const struct phx_checkpoint *c, const char *name);
int32_t                       phx_checkpoint_files(const struct phx_checkpoint *c);
const char                   *phx_checkpoint_file(const struct phx_checkpoint *c, int32_t i);
uint64_t                      phx_checkpoint_bytes(const struct phx_checkpoint *c); /* payload */

/* Waits until the range is in memory and mapped; a file that cannot be read is found by who uses it. */
void phx_checkpoint_read(const struct phx_ckpt_tensor *t, uint64_t offset, uint64_t size_bytes);
/* It is not needed any more, so that the resident size of a rank stays near its slice. */
void phx_checkpoint_drop(const struct phx_ckpt_tensor *t, uint64_t offset, uint64_t size_bytes);

const char *phx_ckpt_dtype_name(enum phx_ckpt_dtype dtype);
int32_t     phx_ckpt_dtype_bits(enum phx_ckpt_dtype dtype);

#endif
