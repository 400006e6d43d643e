/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/err.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct err_fact {
    int         code;
    const char *name;
    const char *text;
    int         http;
    int         grpc;
    bool        is_retryable;
};

static const struct err_fact err_facts[] = {
#define PHX_ERR(name, code, http, grpc, text, retryable) {code, #name, text, http, grpc, retryable},
#include "rpc/base/err.def"
#undef PHX_ERR
};

enum { N_FACTS = sizeof(err_facts) / sizeof(err_facts[0]) };

static const struct err_fact *find_fact(int code)
{
    for (int i = 0; i < N_FACTS; i++)
        if (err_facts[i].code == code)
            return &err_facts[i];
    return &err_facts[N_FACTS - 1]; /* INTERNAL stands last in err.def */
}

int phx_fail(struct phx_err *err, int code, const char *fmt, ...)
{
    if (err != NULL) {
        va_list ap;
        err->code = code;
        va_start(ap, fmt);
        (void)vsnprintf(err->text, sizeof(err->text), fmt, ap); /* truncation is acceptable */
        va_end(ap);
    }
    return code;
}

void phx_err_prefix(struct phx_err *err, const char *fmt, ...)
{
    char    old[sizeof(err->text)];
    va_list ap;
    int     n;

    if (err == NULL)
        return;
    memcpy(old, err->text, sizeof(old));
    va_start(ap, fmt);
    n = vsnprintf(err->text, sizeof(err->text), fmt, ap);
    va_end(ap);
    if (n < 0 || (size_t)n >= sizeof(err->text))
        return;
    (void)snprintf(err->text + n, sizeof(err->text) - (size_t)n, "%s", old);
}

const char *phx_err_name(int code)
{
    return code == PHX_OK ? "OK" : find_fact(code)->name;
}

const char *phx_err_text(int code)
{
    return code == PHX_OK ? "ok" : find_fact(code)->text;
}

int phx_err_http(int code)
{
    return code == PHX_OK ? 200 : find_fact(code)->http;
}

int phx_err_grpc(int code)
{
    return code == PHX_OK ? 0 : find_fact(code)->grpc;
}

int phx_err_from_grpc(int grpc_status)
{
    if (grpc_status == 0)
        return PHX_OK;
    for (int i = 0; i < N_FACTS; i++)
        if (err_facts[i].grpc == grpc_status)
            return err_facts[i].code;
    return PHX_E_INTERNAL;
}

bool phx_err_is_retryable(int code)
{
    return code != PHX_OK && find_fact(code)->is_retryable;
}

void phx_assert_failed(const char *cond, const char *file, int line)
{
    (void)fprintf(stderr, "phalanx: bug: %s at %s:%d\n", cond, file, line);
    abort();
}
