/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/api: one choice of an answer.  Takes tokens as they are generated, keeps the parsed
 * text (reasoning, content, tool calls), stops at stop strings, and writes it as the API's JSON. */
#ifndef PHX_DAEMON_API_CHOICE_H
#define PHX_DAEMON_API_CHOICE_H

#include "daemon/api/logprobs.h"
#include "daemon/api/request.h"
#include "daemon/text/text.h"
#include "rpc/base/buf.h"
#include "rpc/rpc.h"

enum { PHX_CHOICE_TEXT_MAX_BYTES = 64 << 20 };

struct phx_choice_call {
    char          *id;
    char          *name;
    struct phx_buf arguments;
    size_t         n_sent;    /* bytes of arguments already streamed */
    bool           is_opened; /* the first delta (id, name) was streamed */
};

struct phx_choice {
    int32_t                      index;
    const struct phx_tokenizer  *tokenizer;
    const struct phx_api_request *request;
    struct phx_reply            *reply;
    struct phx_stop             *stop;
    struct phx_buf               reasoning, content;     /* all so far */
    size_t                       n_reasoning_sent, n_content_sent;
    struct phx_choice_call       calls[PHX_API_CALLS_MAX];
    size_t                       n_calls;
    struct phx_logprobs          logprobs;
    int32_t                      n_tokens, n_reasoning_tokens;
    int32_t                      cached_tokens;
    bool                         is_in_content, is_in_reasoning;
    bool                         is_stopped;  /* a stop string was found: generation is over */
    bool                         is_ended;
    bool                         has_role;    /* the role delta was streamed */
    const char                  *finish;      /* NULL while running; a JSON-safe word */
};

/* chat is NULL for completions; text and request are borrowed until fini. */
int  phx_choice_init(struct phx_choice *c, int32_t index, const struct phx_text *text,
                     const struct phx_api_request *request, struct phx_err *err) PHX_CHECKED;
void phx_choice_fini(struct phx_choice *c);

/* The next token (token >= 0).  True when a stop string ended the choice: cancel its sequence. */
bool phx_choice_push(struct phx_choice *c, const struct phx_token_out *token);
/* No more tokens; finish names why (the model's stop, the length). */
void phx_choice_end(struct phx_choice *c, enum phx_finish finish);

/* Writes one element of "choices" with what is new since the last call; false (and nothing written) when
 * there is nothing new.  with_finish: also the finish reason. */
bool phx_choice_put_delta(struct phx_choice *c, struct phx_buf *out, bool with_finish);
/* Bytes of text (and of log-probabilities) that were not written yet. */
size_t phx_choice_unsent(const struct phx_choice *c);
/* Writes one element of "choices" of a whole answer. */
void phx_choice_put_whole(const struct phx_choice *c, struct phx_buf *out);

#endif
