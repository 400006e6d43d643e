/* SPDX-License-Identifier: Apache-2.0
 * A transparency log's mathematics and files: RFC 6962 tree hashes, inclusion and consistency proofs, C2SP
 * tlog-tiles paths and entry bundles, C2SP checkpoints.  Pure: no clock, no keys, no database. */
#ifndef PHX_DAEMON_TLOG_H
#define PHX_DAEMON_TLOG_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

enum {
    PHX_TLOG_HASH_BYTES = 32,
    PHX_TLOG_TILE_WIDTH = 256,
    PHX_TLOG_ENTRY_MAX_BYTES = 65535,
    PHX_TLOG_PROOF_MAX = 64,
    PHX_TLOG_PATH_BYTES = 96
};
struct phx_tlog_hash {
    uint8_t bytes[PHX_TLOG_HASH_BYTES];
};

/* SHA-256(0x00 || entry), SHA-256(0x01 || left || right), and of nothing. */
void phx_tlog_leaf(const void *entry, size_t size, struct phx_tlog_hash *out);
void phx_tlog_node(const struct phx_tlog_hash *left, const struct phx_tlog_hash *right,
                   struct phx_tlog_hash *out);
void phx_tlog_empty(struct phx_tlog_hash *out);

/* ---- growing a tree: the roots of its complete subtrees, largest first --------------------------------- */

struct phx_tlog_frontier {
    uint64_t             size;
    struct phx_tlog_hash roots[64]; /* one per bit set in size, from the highest */
    int                  n_roots;
};
void phx_tlog_frontier_init(struct phx_tlog_frontier *f);
void phx_tlog_frontier_push(struct phx_tlog_frontier *f, const struct phx_tlog_hash *leaf);
void phx_tlog_frontier_root(const struct phx_tlog_frontier *f, struct phx_tlog_hash *out);

/* ---- proofs -------------------------------------------------------------------------------------------------- */

/* Reads the hash of the complete subtree of 2^level leaves number `index` at that level.  0 or negative. */
typedef int (*phx_tlog_read_fn)(void *ctx, int level, uint64_t index, struct phx_tlog_hash *out,
                                struct phx_err *err);
int phx_tlog_root(uint64_t size, phx_tlog_read_fn read, void *ctx, struct phx_tlog_hash *out,
                  struct phx_err *err) PHX_CHECKED;
/* Number of hashes, or a negative code.  PHX_E_INVALID: index >= size, old > size. */
int phx_tlog_prove_inclusion(uint64_t index, uint64_t size, phx_tlog_read_fn read, void *ctx,
                             struct phx_tlog_hash out[PHX_TLOG_PROOF_MAX], struct phx_err *err);
int phx_tlog_prove_consistency(uint64_t old_size, uint64_t size, phx_tlog_read_fn read, void *ctx,
                               struct phx_tlog_hash out[PHX_TLOG_PROOF_MAX], struct phx_err *err);
/* True only for the one right proof: no missing and no spare hash. */
bool phx_tlog_check_inclusion(uint64_t index, uint64_t size, const struct phx_tlog_hash *leaf,
                              const struct phx_tlog_hash *proof, int n, const struct phx_tlog_hash *root);
bool phx_tlog_check_consistency(uint64_t old_size, uint64_t size, const struct phx_tlog_hash *old_root,
                                const struct phx_tlog_hash *root, const struct phx_tlog_hash *proof, int n);

/* ---- files ------------------------------------------------------------------------------------------------------ */

/* "tile/0/x001/234" and "tile/entries/x001/234.p/17"; width 256 = a full tile. */
void phx_tlog_tile_path(int level, uint64_t index, int width, char path[PHX_TLOG_PATH_BYTES]);
void phx_tlog_entries_path(uint64_t index, int width, char path[PHX_TLOG_PATH_BYTES]);
/* Appends a bundle entry: big-endian 16-bit length, bytes.  PHX_E_TOOBIG. */
int phx_tlog_entry_put(struct phx_buf *bundle, const void *entry, size_t size, struct phx_err *err) PHX_CHECKED;
/* Walks a bundle that must hold exactly n entries and not one byte more.  PHX_E_FORMAT. */
typedef int (*phx_tlog_entry_fn)(void *ctx, int i, const void *entry, size_t size);
int phx_tlog_entries_walk(const void *bundle, size_t size, int n, phx_tlog_entry_fn fn, void *ctx,
                          struct phx_err *err) PHX_CHECKED;

/* Checkpoint text: origin, decimal size, base64 root, extension lines. */
struct phx_checkpoint {
    char                 origin[256];
    uint64_t             size;
    struct phx_tlog_hash root;
};
void phx_checkpoint_format(const struct phx_checkpoint *c, struct phx_buf *out);
/* Strict: no leading zeros, no trailing bytes but extension lines (each not empty). */
int phx_checkpoint_parse(const void *text, size_t size, struct phx_checkpoint *out,
                         struct phx_err *err) PHX_CHECKED;

#endif
