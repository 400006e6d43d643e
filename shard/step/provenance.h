/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/step: whether the folder is the model that was signed, checked while the weights load. */
#ifndef PHX_SHARD_STEP_PROVENANCE_H
#define PHX_SHARD_STEP_PROVENANCE_H

#include "rpc/base/err.h"

struct phx_provenance;

/* Reads the manifest.  Without one: succeeds with root "", unless public_key (PEM file) says that there must
 * be one signed by it. */
int  phx_provenance_open(const char *model_dir, const char *public_key, struct phx_provenance **out,
                         struct phx_err *err) PHX_CHECKED;
void phx_provenance_close(struct phx_provenance *p); /* waits for the check; NULL is allowed */
const char *phx_provenance_root(const struct phx_provenance *p);   /* "sha256:..." or "" */
const char *phx_provenance_parent(const struct phx_provenance *p); /* of a derived model, or "" */
/* Starts checking this rank's share of the bytes on up to n_threads (at least 1) threads of its own; ranks may
 * differ in that. */
int phx_provenance_start(struct phx_provenance *p, int rank, int n_ranks, int n_threads, struct phx_err *err)
    PHX_CHECKED;
/* Waits for it and answers what it found. */
int phx_provenance_wait(struct phx_provenance *p, struct phx_err *err) PHX_CHECKED;

#endif
