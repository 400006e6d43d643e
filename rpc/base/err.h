/* SPDX-License-Identifier: Apache-2.0
 * Errors: functions return 0 or a negative code and fill a caller-owned struct phx_err.
 * The lowest level writes the message with the facts; callers may prefix it; whoever stops the
 * propagation logs it once.  The codes, with their HTTP and gRPC meaning, are in err.def. */
#ifndef PHX_RPC_BASE_ERR_H
#define PHX_RPC_BASE_ERR_H

#include <stdbool.h>

enum phx_err_code {
    PHX_OK = 0,
#define PHX_ERR(name, code, http, grpc, text, retryable) PHX_E_##name = (code),
#include "rpc/base/err.def"
#undef PHX_ERR
};

struct phx_err {
    int  code;      /* 0 or PHX_E_* */
    char text[240]; /* one sentence: what, which limit, the remedy; never prompt text */
};

#define PHX_CHECKED __attribute__((warn_unused_result))

/* Fills *err (which may be NULL) and returns code, so that `return phx_fail(...)` reads well. */
int phx_fail(struct phx_err *err, int code, const char *fmt, ...)
    __attribute__((format(printf, 3, 4)));

/* Puts "prefix" before the text already in *err (truncating at the end).  NULL is allowed. */
void phx_err_prefix(struct phx_err *err, const char *fmt, ...)
    __attribute__((format(printf, 2, 3)));

/* Facts from err.def.  Unknown codes answer as PHX_E_INTERNAL. */
const char *phx_err_name(int code);
const char *phx_err_text(int code);
int         phx_err_http(int code);
int         phx_err_grpc(int code);
int         phx_err_from_grpc(int grpc_status); /* the first code with that status, 0 for OK */
bool        phx_err_is_retryable(int code);

/* A bug, not an environment error: prints file, line and condition, then aborts.  On in release. */
_Noreturn void phx_assert_failed(const char *cond, const char *file, int line);
#define phx_assert(cond) ((cond) ? (void)0 : phx_assert_failed(#cond, __FILE__, __LINE__))

#endif
