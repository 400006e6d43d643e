/* SPDX-License-Identifier: Apache-2.0
 * For ranks without a model: they join a daemon as phalanx-rank does. */
#ifndef PHX_TESTS_MOCK_RANK_LINK_H
#define PHX_TESTS_MOCK_RANK_LINK_H

#include "rpc/rpc.h"

/* The value behind a long option, "" when it is not there. */
const char *mock_option(int argc, char **argv, const char *name);
/* Joins with the options of the launch line.  tp_size and token (NULL = the launch's own) may be wrong on
 * purpose.  Ends the process with 5 when it is refused. */
struct phx_link *mock_join(int argc, char **argv, int32_t tp_size, const char *token);
/* Ends the process with 6 when the daemon is gone. */
void mock_send(struct phx_link *link, const struct phx_link_msg *msg);
void mock_ready(struct phx_link *link, const struct phx_link_ready *shape); /* one rank's facts are added */
_Noreturn void mock_leave(struct phx_link *link);

#endif
