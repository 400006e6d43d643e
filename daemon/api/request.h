/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/api: one request body of the OpenAI API, parsed and checked.  Every key is either
 * honoured or refused by name; nothing is silently ignored. */
#ifndef PHX_DAEMON_API_REQUEST_H
#define PHX_DAEMON_API_REQUEST_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#include "daemon/text/text.h"
#include "rpc/base/json.h"
#include "rpc/base/mem.h"
#include "rpc/rpc.h"

enum {
    PHX_API_MESSAGES_MAX = 2048,
    PHX_API_TOOLS_MAX = 64,
    PHX_API_CALLS_MAX = 64,
    PHX_API_PARTS_MAX = 256,
    PHX_API_CHOICES_MAX = 16,
    PHX_API_NAME_MAX = 256,
    PHX_API_USER_MAX = 128,
    PHX_API_PROMPTS_MAX = 1
};

enum phx_api_kind { PHX_API_CHAT = 1, PHX_API_COMPLETION };

struct phx_api_limits {
    size_t  body_max_bytes;
    int32_t vocab_size;
    int32_t max_context;
};

struct phx_api_request {
    enum phx_api_kind   kind;
    const char         *model;
    bool                is_stream;
    bool                has_stream_usage;
    int32_t             n_choices;
    int32_t             max_new;  /* 0 = what the context leaves */
    bool                has_seed;
    bool                wants_logprobs;
    struct phx_sampling sampling; /* seed when has_seed; stop_ids as given (stop_token_ids) */
    const char *const  *stops;
    size_t              n_stops;
    const char         *user;     /* end user's id or NULL */

    struct phx_chat chat;         /* PHX_API_CHAT */

    const char    *prompt;        /* PHX_API_COMPLETION: text ... */
    size_t         prompt_bytes;
    const int32_t *prompt_ids;    /* ... or token ids */
    size_t         n_prompt_ids;
};

/* Parses and checks a body.  All memory lives in the arena.  PHX_E_FORMAT for bad JSON, PHX_E_INVALID or
 * PHX_E_UNSUPPORTED naming the field first in the text ("messages[3].role: ..."). */
int phx_api_request_parse(enum phx_api_kind kind, const char *body, size_t size,
                          const struct phx_api_limits *limits, struct phx_arena *arena,
                          struct phx_api_request *out, struct phx_err *err) PHX_CHECKED;

/* The parts: each reads its keys of the body. */
int phx_api_parse_messages(const json_t *body, struct phx_arena *arena, struct phx_chat *chat,
                           struct phx_err *err) PHX_CHECKED;
int phx_api_parse_tools(const json_t *body, struct phx_arena *arena, struct phx_chat *chat,
                        struct phx_err *err) PHX_CHECKED;
int phx_api_parse_options(const json_t *body, const struct phx_api_limits *limits,
                          struct phx_arena *arena, struct phx_api_request *out,
                          struct phx_err *err) PHX_CHECKED;

#endif
