/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/ctl: one streamed chat request over HTTP (libcurl). */
#ifndef PHX_DAEMON_CTL_CLIENT_H
#define PHX_DAEMON_CTL_CLIENT_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "rpc/base/buf.h"
#include "rpc/base/err.h"

struct phx_client_options {
    const char *url;     /* "http://127.0.0.1:8080" */
    const char *key;
    const char *ca_file; /* for https; NULL = the system's */
};

/* One delta of the answer; either text may be NULL. */
typedef void (*phx_client_delta_fn)(void *ctx, const char *reasoning, const char *content);

struct phx_client_answer {
    struct phx_buf content; /* the whole final text */
    char           receipt[128];
    char           finish[32];
    int64_t        prompt_tokens, completion_tokens;
};

/* Sends a chat completion body (JSON text, with "stream": true) and reads its events.  The daemon's refusal
 * comes back with its message. */
int  phx_client_chat(const struct phx_client_options *options, const char *body,
                     phx_client_delta_fn fn, void *ctx, struct phx_client_answer *answer,
                     struct phx_err *err) PHX_CHECKED;
void phx_client_answer_fini(struct phx_client_answer *answer);
/* The id of the first model that is served. Owned. */
int phx_client_model(const struct phx_client_options *options, char **model, struct phx_err *err)
    PHX_CHECKED;

#endif
