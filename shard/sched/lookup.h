/* SPDX-License-Identifier: Apache-2.0
 * Private to shard/sched: where else in a text its last tokens stand.  What followed there is a guess at what
 * follows now.
 *
 * Places with the same hash of their last two tokens, or three, are chained, the newest first, as compressors do
 * it; a few of them are compared with the text's end, and the one that agrees for longest is the match. */
#ifndef PHX_SHARD_SCHED_LOOKUP_H
#define PHX_SHARD_SCHED_LOOKUP_H

#include <stdint.h>

enum {
    PHX_LOOKUP_FEED = 1024,  /* tokens taken in by one call, which bounds its time */
    PHX_LOOKUP_LENGTH = 16   /* a match is not measured further back */
};

struct phx_lookup {
    int32_t *newest; /* [mask + 1][2] the last place (number of tokens up to it) of a hash; 0 = none */
    int32_t *older;  /* [max_tokens + 1][2] the one before a place; of pairs, of triples */
    uint32_t mask;
    int32_t  n_fed;  /* places up to this one are chained */
    int32_t  n_seen; /* tokens that the match covers */
    int32_t  at;     /* tokens [0, at) end like [0, n_seen); 0 = no match */
    int32_t  length; /* of the match: so many tokens agree */
};

/* Memory for a text of at most max_tokens; all that is ever allocated. */
void phx_lookup_init(struct phx_lookup *l, int32_t max_tokens);
void phx_lookup_fini(struct phx_lookup *l);

/* Takes in what is new of tokens[n_tokens], PHX_LOOKUP_FEED at most; earlier tokens never change.  Returns the
 * length of the match of the end of all tokens, 0 when there is none or when some are not taken in yet. */
int32_t phx_lookup_follow(struct phx_lookup *l, const int32_t *tokens, int32_t n_tokens);

/* After a match: writes the n tokens that follow it behind the text, at tokens[n_tokens], where a match that
 * reaches the end of the text goes on with what has just been written. */
void phx_lookup_guess(const struct phx_lookup *l, int32_t *tokens, int32_t n_tokens, int32_t n);

#endif
