/* SPDX-License-Identifier: Apache-2.0
 * The signed manifest of a model folder, DIR/model.sig: a Sigstore bundle with an in-toto statement as the
 * OpenSSF model signing specification 1.0 has it (predicate "https://model_signing/signature/v1.0", method
 * "files"), signed with ECDSA over DSSE.  The predicate carries a section of ours beside it, which other
 * verifiers ignore: digests of 64 MiB pieces, so that the ranks of a host share the work of checking, and
 * where a derived model comes from.
 *
 * The root is the SHA-256 over the digests of all files in the order of their names: "sha256:...". */
#ifndef PHX_SHARD_MANIFEST_H
#define PHX_SHARD_MANIFEST_H

#include <stdbool.h>
#include <stdint.h>

#include "rpc/base/err.h"

#define PHX_MANIFEST_FILE "model.sig"

enum { PHX_MANIFEST_ROOT_BYTES = 72, PHX_MANIFEST_PIECE_BYTES = 64 << 20, PHX_MANIFEST_FILES_MAX = 4096 };

struct phx_manifest;

struct phx_manifest_facts { /* strings live in the manifest */
    const char *model_name, *root, *parent; /* parent: "sha256:..." or "" */
    bool        is_verified; /* a public key was given and the signature is its */
    int32_t     n_files;
};

/* Reads DIR/model.sig.  public_key: a PEM file, "" = do not verify the signature (the digests still bind).
 * PHX_E_NOTFOUND when there is no manifest; PHX_E_DENIED: the signature is not that key's; PHX_E_FORMAT /
 * _UNSUPPORTED naming what.  Owned: phx_manifest_close(). */
int  phx_manifest_open(const char *dir, const char *public_key, struct phx_manifest **out,
                       struct phx_err *err) PHX_CHECKED;
void phx_manifest_close(struct phx_manifest *m); /* NULL is allowed */
void phx_manifest_facts(const struct phx_manifest *m, struct phx_manifest_facts *out);

/* Checks this part's share (part of n_parts) of all bytes against the digests, the sizes of all files, that
 * no file a model is made of (*.safetensors, *.json, *.jinja, *.tiktoken, *.model) stands beside the
 * manifest's, and that a derived model carries LICENSE and NOTICE.  PHX_E_DENIED naming the file.
 * progress (may be NULL) is called from the calling thread. */
typedef void (*phx_manifest_progress_fn)(void *ctx, uint64_t done_bytes, uint64_t total_bytes);
int phx_manifest_check(const struct phx_manifest *m, const char *dir, int32_t part, int32_t n_parts,
                       phx_manifest_progress_fn progress, void *ctx, struct phx_err *err) PHX_CHECKED;

/* Writes DIR/model.sig over every regular file below DIR (but model.sig and .git*), signed with an EC key
 * (P-256, P-384 or P-521) in a PEM file.  parent: "sha256:..." of the model it is derived from, "" = none; a
 * derived model is refused without LICENSE and NOTICE files.  root gets the new root. */
int phx_manifest_sign(const char *dir, const char *model_name, const char *private_key, const char *parent,
                      phx_manifest_progress_fn progress, void *ctx, char root[PHX_MANIFEST_ROOT_BYTES],
                      struct phx_err *err) PHX_CHECKED;

#endif
