/* SPDX-License-Identifier: Apache-2.0
 * Ids of texts that were encoded before (private to daemon/text; the door has create and destroy). */
#ifndef PHX_DAEMON_TEXT_CACHE_H
#define PHX_DAEMON_TEXT_CACHE_H

#include "daemon/text/text.h"

/* As phx_tokenizer_encode(), asking the cache of the scope first (scope NULL: none). */
int phx_text_cache_encode(const struct phx_text_scope *scope, const struct phx_tokenizer *t, const char *text, size_t size,
                          unsigned flags, struct phx_ids *ids, struct phx_err *err) PHX_CHECKED;

#endif
