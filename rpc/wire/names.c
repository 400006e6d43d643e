/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/rpc.h"

static const char *const link_names[] = {"none",   "hello",  "loading", "ready",  "step",
                                         "heartbeat", "fatal", "bye",   "welcome", "submit",
                                         "cancel", "drain",  "stop",    "ping"};
static const char *const finish_names[] = {"none", "stop", "length", "cancelled", "error"};
static const char *const state_names[] = {"none",     "starting", "loading", "ready",
                                          "draining", "backoff",  "stopped", "failed"};

#define NAME_OF(names, value) \
    ((unsigned)(value) < sizeof(names) / sizeof((names)[0]) ? (names)[value] : "unknown")

const char *phx_link_kind_name(enum phx_link_kind kind)
{
    return NAME_OF(link_names, kind);
}

const char *phx_finish_name(enum phx_finish finish)
{
    return NAME_OF(finish_names, finish);
}

const char *phx_replica_state_name(enum phx_replica_state state)
{
    return NAME_OF(state_names, state);
}

void phx_link_msg_free(struct phx_link_msg *msg)
{
    if (msg != NULL)
        phx_arena_destroy(msg->arena); /* the message itself lives in it */
}
