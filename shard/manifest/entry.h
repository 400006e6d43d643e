/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/manifest: files with their digests, and signatures over a statement. */
#ifndef PHX_SHARD_MANIFEST_ENTRY_H
#define PHX_SHARD_MANIFEST_ENTRY_H

#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/hash.h"
#include "shard/manifest/manifest.h"

enum { PHX_MANIFEST_MAX_BYTES = 32 << 20, PHX_MANIFEST_NAME_MAX = 512 };

struct phx_manifest_entry {
    char    *name; /* relative, '/' between parts */
    uint64_t size_bytes;
    bool     has_size; /* manifests of others do not say */
    uint8_t  digest[PHX_SHA256_BYTES];
    uint8_t (*pieces)[PHX_SHA256_BYTES]; /* of 64 MiB each; NULL in manifests of others */
    int32_t  n_pieces;
};

struct phx_manifest {
    struct phx_arena          *arena;
    struct phx_manifest_entry *entries; /* in the order of their names */
    int32_t                    n_entries;
    char                      *model_name;
    char                       root[PHX_MANIFEST_ROOT_BYTES], parent[PHX_MANIFEST_ROOT_BYTES];
    bool                       is_verified;
};

/* file.c: a relative name without "..", empty parts, or a leading slash. */
int  phx_manifest_check_name(const char *name, struct phx_err *err) PHX_CHECKED;
bool phx_manifest_is_ignored(const char *name); /* model.sig and .git* at the top */
bool phx_manifest_is_part(const char *name);    /* a file that a model is made of */
/* All regular files below dir, sorted; symbolic links are refused.  Sizes are filled. */
int phx_manifest_list(const char *dir, struct phx_arena *arena, struct phx_manifest_entry **out, int32_t *n,
                      struct phx_err *err) PHX_CHECKED;
/* SHA-256 of [from, to) of a file, and (when whole is not NULL) fed into *whole as well. */
struct phx_sha256;
int phx_manifest_hash(int fd, const char *name, uint64_t from, uint64_t to, uint8_t digest[PHX_SHA256_BYTES],
                      struct phx_sha256 *whole, struct phx_err *err) PHX_CHECKED;
void phx_manifest_root(const struct phx_manifest_entry *entries, int32_t n, char root[PHX_MANIFEST_ROOT_BYTES]);

/* bundle.c: the DSSE envelope in its bundle. */
int phx_bundle_open(const char *text, size_t size, const char *path, const char *public_key,
                    struct phx_buf *payload, bool *is_verified, struct phx_err *err) PHX_CHECKED;
int phx_bundle_seal(const struct phx_buf *payload, const char *private_key, struct phx_buf *out,
                    struct phx_err *err) PHX_CHECKED;

#endif
