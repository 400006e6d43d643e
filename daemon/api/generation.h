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
    struct phx_sampling      sampling; /* final: seed and stop ids resolved */
    struct phx_lease        *lease;
    struct part             *parts;
    int32_t                  n_open;
    int32_t                  n_output; /* of all choices */
    struct phx_err           failure;
    int64_t                  retry_after_ms; /* of the failure */
    bool                     is_streaming, is_cancelled, is_refused, is_settling;
    char                     id[48];
    int64_t                  created_s;
    int64_t                  began_ns, asked_ns, admitted_ns, first_ns, last_ns, ended_ns;
};

/* frames.c.  send_delta writes what part p has that was not sent yet; the two others answer and let go of http. */
void phx_generation_send_delta(struct generation *g, struct part *p, bool with_finish);
void phx_generation_finish_stream(struct generation *g);
void phx_generation_finish_whole(struct generation *g);

#endif
