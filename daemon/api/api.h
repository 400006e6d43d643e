/* SPDX-License-Identifier: Apache-2.0
 * The OpenAI HTTP API: routes, authentication, and the life of a generation from its body to its last frame. */
#ifndef PHX_DAEMON_API_H
#define PHX_DAEMON_API_H

#include <stdbool.h>

#include "rpc/base/err.h"

struct phx_daemon;
struct phx_api;

/* Opens the HTTP server on the configured address; d's other modules are open and outlive it. */
int         phx_api_open(struct phx_daemon *d, struct phx_api **out, struct phx_err *err) PHX_CHECKED;
const char *phx_api_url(const struct phx_api *a);
/* Refuses new generations; open ones go on. */
void phx_api_drain(struct phx_api *a);
bool phx_api_is_idle(const struct phx_api *a);
void phx_api_close(struct phx_api *a); /* NULL is allowed; cancels what is open */

#endif
