/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/replay: a request and its answer as they were kept. */
#ifndef PHX_DAEMON_REPLAY_RECORDED_H
#define PHX_DAEMON_REPLAY_RECORDED_H

#include "daemon/content/content.h"
#include "rpc/base/mem.h"
#include "rpc/rpc.h"

struct phx_tx;

struct phx_recorded_choice {
    int32_t *ids;
    int32_t  n;
};

struct phx_recorded { /* in an arena */
    char                        tenant[65], model_name[257], manifest_root[80], replay_class[2];
    int32_t                    *prompt;
    int32_t                     n_prompt;
    struct phx_sampling         sampling;
    struct phx_recorded_choice *choices;
    int32_t                     n_choices;
};

/* Reads and parses; reading the content is a leaf.  PHX_E_NOTFOUND, PHX_E_STATE (not kept, shredded, not
 * ended), PHX_E_FORMAT. */
int  phx_recorded_read(struct phx_tx *tx, const uint8_t site_key[PHX_CONTENT_KEY_BYTES], const char *receipt,
                       const char *by, int64_t at_ns, struct phx_arena *arena, struct phx_recorded *out,
                       struct phx_err *err) PHX_CHECKED;
void phx_recorded_wipe(struct phx_recorded *r); /* overwrites tokens */
/* The JSON of daemon/admission/keep.c back into structs. */
int phx_recorded_parse(const char *request, size_t request_size, const char *response, size_t response_size,
                       struct phx_arena *arena, struct phx_recorded *out, struct phx_err *err) PHX_CHECKED;

#endif
