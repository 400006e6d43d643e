/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <string.h>

#include "daemon/api/state.h"
#include "rpc/base/json.h"

static const char *type_of(int status)
{
    switch (status) {
    case 401: return "authentication_error";
    case 402:
    case 403: return "permission_error";
    case 429: return "rate_limit_error";
    case 400:
    case 404:
    case 413: return "invalid_request_error";
    default: return "server_error";
    }
}

/* Refusals of a field begin with its name: "messages[3].role: must be ...". */
static size_t field_length(const char *text)
{
    size_t n = strspn(text, "abcdefghijklmnopqrstuvwxyz_0123456789[].");

    return n > 0 && text[n] == ':' && text[n + 1] == ' ' ? n : 0;
}

void phx_api_put_error(struct phx_buf *out, const struct phx_err *err)
{
    const char *text = err->text[0] != '\0' ? err->text : phx_err_text(err->code);
    size_t      n = field_length(text);

    phx_buf_puts(out, "{\"error\":{\"message\":");
    phx_json_put_str(out, text, strlen(text));
    phx_buf_printf(out, ",\"type\":\"%s\",\"param\":", type_of(phx_err_http(err->code)));
    if (n > 0)
        phx_json_put_str(out, text, n);
    else
        phx_buf_puts(out, "null");
    phx_buf_printf(out, ",\"code\":\"%s\"}}", phx_err_name(err->code));
}

void phx_api_fail(struct phx_http_request *r, const struct phx_err *err, int64_t retry_after_ms)
{
    struct phx_buf body;

    phx_buf_init(&body, 0);
    phx_api_put_error(&body, err);
    if (retry_after_ms >= 0) {
        char seconds[24];

        (void)snprintf(seconds, sizeof(seconds), "%lld", (long long)(retry_after_ms + 999) / 1000);
        phx_http_set_header(r, "Retry-After", seconds);
    }
    if (err->code == PHX_E_UNAUTH)
        phx_http_set_header(r, "WWW-Authenticate", "Bearer");
    phx_http_reply(r, phx_err_http(err->code), "application/json", body.data, body.size);
    phx_buf_fini(&body);
}
