/* SPDX-License-Identifier: Apache-2.0
 * Private to daemon/api: a generation, its parts, and how they are written to the client. */
#ifndef PHX_DAEMON_API_GENERATION_H
#define PHX_DAEMON_API_GENERATION_H

#include "daemon/api/state.h"

struct part { /* one choice and its sequence */
    struct generation     *g;
    struct phx_choice      choice;
    struct phx_engine_seq *seq;    /* NULL when over */
    struct phx_ids         output; /* its generated tokens, for the record */
    bool                   is_open;
};

struct generation {
    struct generation       *prev, *next;
    struct phx_api          *a;
    struct phx_http_request *http; /* NULL once the client has left or was answered */
    struct phx_arena        *arena;
    struct phx_api_request   request;
    struct phx_identity      who;
    struct phx_ids           prompt;
    size_t                   n_body;
    struct phx_sampling      sampling; /* final: seed and stop ids resolved */
    struct phx_lease        *lease;
    struct part             *parts;
    int32_t                  n_open;
    int32_t                  n_output; /* of all choices */
    struct phx_err           failure;
    int64_t                  retry_after_ms; /* of the failure */
    bool                     is_streaming, is_cancelled, is_refused, is_settling;
    bool                     is_dirty;    /* has news for its client: in a's list */
    struct generation       *next_dirty;
    const char              *frame_head;  /* of every frame of the stream; in the arena */
    size_t                   n_frame_head;
    char                     id[48];
    int64_t                  created_s;
    int64_t                  began_ns, asked_ns, admitted_ns, first_ns, last_ns, ended_ns;
};

/* prompt.c.  done(g) follows, at once or when a thread has rendered a large prompt; err->code tells how it went. */
typedef void phx_api_rendered_fn(struct generation *g, struct phx_err *err);
void phx_api_render(struct generation *g, phx_api_rendered_fn *done);
/* Prompt and max_tokens against the context; resolves a max_tokens that was not given. */
int phx_api_check_length(struct generation *g, int32_t max_context, struct phx_err *err) PHX_CHECKED;

/* frames.c.  What tokens brought is sent once they have all been taken: one write for a connection, one frame for a
 * choice.  A client that is behind gets it when it has read what was sent, in one frame however much it is. */
void phx_generation_begin_stream(struct generation *g);
void phx_generation_mark(struct generation *g);   /* has news */
void phx_generation_unmark(struct generation *g); /* is about to go */

/* These answer and let go of http. */
void phx_generation_fail_stream(struct generation *g, const struct phx_err *err);
void phx_generation_finish_stream(struct generation *g);
void phx_generation_finish_whole(struct generation *g);

#endif
