/* SPDX-License-Identifier: Apache-2.0
 * Logging: one line on stderr is one event, a JSON object behind a syslog level prefix for journald:
 *   <6>{"ts":"2026-01-15T12:00:00.123Z","level":"info","event":"shard.load.done","pid":12,...}
 * Values are made by the PHX_LOG_* pairs.  Prompts and answers are never logged. */
#ifndef PHX_RPC_BASE_LOG_H
#define PHX_RPC_BASE_LOG_H

#include <stdint.h>

enum phx_log_level { PHX_LOG_ERROR = 1, PHX_LOG_WARN, PHX_LOG_INFO, PHX_LOG_DEBUG, PHX_LOG_TRACE };

/* The process-wide threshold (default info), set once at start from the config. */
void phx_log_set_level(enum phx_log_level level);
/* 0, or -1 when name is not error|warn|info|debug|trace. */
int phx_log_parse_level(const char *name, enum phx_log_level *level);
/* Adds `"name":"value"` to every later line of this process (role, rank).  At most 4. */
void phx_log_set_context(const char *name, const char *value);

/* event: stable dotted name.  fmt: space separated `key=%conv` pairs; each value becomes a JSON string
 * or number, e.g. phx_log(PHX_LOG_INFO, "fleet.rank.exit", "replica=%d status=%d reason=%s", ...).
 * %s values may hold anything (they are escaped); conversions: %s %d %u %ld %lu %lld %llu %zu %f %g. */
void phx_log(enum phx_log_level level, const char *event, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

#endif
