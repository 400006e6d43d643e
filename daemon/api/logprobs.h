/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/api: the log-probabilities of one choice as JSON, in the shape of chat
 * ({"content":[..]}) or of completions ({"tokens":[..],"token_logprobs":[..],...}). */
#ifndef PHX_DAEMON_API_LOGPROBS_H
#define PHX_DAEMON_API_LOGPROBS_H

#include "daemon/text/text.h"
#include "rpc/base/buf.h"
#include "rpc/rpc.h"

enum { PHX_LOGPROB_LISTS = 4 };

struct phx_logprobs {
    const struct phx_tokenizer *tokenizer;
    bool                        is_chat;
    struct phx_buf              list[PHX_LOGPROB_LISTS]; /* entries joined by commas; chat uses one */
    size_t                      n_sent[PHX_LOGPROB_LISTS];
};

void phx_logprobs_init(struct phx_logprobs *l, const struct phx_tokenizer *tokenizer, bool is_chat);
void phx_logprobs_fini(struct phx_logprobs *l);
/* One token; text_offset is where its text starts in the answer (completions). */
void phx_logprobs_add(struct phx_logprobs *l, const struct phx_token_out *token, size_t text_offset);
/* Writes the value of "logprobs": what is new since the last call (null when nothing is), or all. */
void phx_logprobs_put_new(struct phx_logprobs *l, struct phx_buf *out);
void phx_logprobs_put_all(const struct phx_logprobs *l, struct phx_buf *out);

#endif
