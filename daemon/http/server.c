/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/http/request.h"

#include <arpa/inet.h>
#include <errno.h>
#include <event2/buffer.h>
#include <event2/bufferevent.h>
#include <event2/bufferevent_ssl.h>
#include <event2/http_struct.h>
#include <event2/keyvalq_struct.h>
#include <netdb.h>
#include <netinet/in.h>
#include <openssl/err.h>
#include <openssl/ssl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/queue.h>
#include <sys/socket.h>
#include <unistd.h>

#include "rpc/base/log.h"
#include "rpc/base/mem.h"

enum {
    LISTEN_BACKLOG = 4096,
    SEND_BUFFER_BYTES = 65536, /* the kernel's share of a slow reader's backlog */
    ACCEPT_PAUSE_MS = 100,
    HEADERS_MAX = 100
};

static void refuse(struct evhttp_request *evreq, int status, const char *message)
{
    struct evbuffer *body = evbuffer_new();

    phx_assert(body != NULL);
    (void)evbuffer_add_printf(body,
                              "{\"error\":{\"message\":\"%s\",\"type\":\"invalid_request_error\","
                              "\"param\":null,\"code\":null}}",
                              message); /* a short constant text always fits */
    (void)evhttp_add_header(evhttp_request_get_output_headers(evreq), "Content-Type",
                            "application/json");
    (void)evhttp_add_header(evhttp_request_get_output_headers(evreq), "Connection", "close");
    evhttp_send_reply(evreq, status, "Refused", body);
    evbuffer_free(body);
}

/* What evhttp's parser lets through and a strict server must not: request smuggling by doubtful framing. */
static const char *find_framing_fault(struct evhttp_request *evreq)
{
    struct evkeyvalq *headers = evhttp_request_get_input_headers(evreq);
    struct evkeyval  *h;
    int               n_headers = 0, n_hosts = 0, n_lengths = 0;

    TAILQ_FOREACH(h, headers, next)
    {
        if (++n_headers > HEADERS_MAX)
            return "more than 100 header lines";
        if (strpbrk(h->value, "\r\n") != NULL)
            return "a folded header line";
        if (evutil_ascii_strcasecmp(h->key, "host") == 0)
            n_hosts++;
        if (evutil_ascii_strcasecmp(h->key, "content-length") == 0) {
            n_lengths++;
            if (h->value[0] == '\0' || strspn(h->value, "0123456789") != strlen(h->value))
                return "Content-Length is not a plain number";
        }
        if (evutil_ascii_strcasecmp(h->key, "transfer-encoding") == 0 &&
            evutil_ascii_strcasecmp(h->value, "chunked") != 0)
            return "Transfer-Encoding other than chunked";
    }
    if (n_lengths > 1)
        return "more than one Content-Length";
    return n_hosts == 1 ? NULL : "exactly one Host header is needed";
}

static char *decode_path(struct evhttp_request *evreq)
{
    const struct evhttp_uri *uri = evhttp_request_get_evhttp_uri(evreq);
    const char              *raw = uri != NULL ? evhttp_uri_get_path(uri) : NULL;
    size_t                   size = 0;
    char                    *path = raw != NULL ? evhttp_uridecode(raw, 0, &size) : NULL;
    char                    *copy;

    if (path == NULL || strlen(path) != size || path[0] != '/') { /* %00 ends the text early */
        free(path);
        return NULL;
    }
    copy = phx_mem_strdup(path);
    free(path);
    return copy;
}

static void on_request(struct evhttp_request *evreq, void *ctx)
{
    struct phx_http *h = ctx;
    const char      *fault = find_framing_fault(evreq);
    char            *path;

    if (fault != NULL) {
        refuse(evreq, 400, fault);
        return;
    }
    if (h->n_requests >= h->options.requests_max) {
        refuse(evreq, 503, "http.requests_max: too many open requests; try again later");
        return;
    }
    path = decode_path(evreq);
    if (path == NULL)
        refuse(evreq, 400, "the request path cannot be decoded");
    else
        h->handler(h->ctx, phx_http_request_create(h, evreq, path));
}

/* evhttp asks for one at each connection. */
static struct bufferevent *create_bufferevent(struct event_base *base, void *ctx)
{
    struct phx_http *h = ctx;
    SSL             *ssl;

    phx_http_limit_accepted(h->limit);
    if (h->tls == NULL)
        return bufferevent_socket_new(base, -1, 0);
    ssl = SSL_new(h->tls);
    phx_assert(ssl != NULL);
    return bufferevent_openssl_socket_new(base, -1, ssl, BUFFEREVENT_SSL_ACCEPTING,
                                          BEV_OPT_CLOSE_ON_FREE);
}

static int open_tls(struct phx_http *h, struct phx_err *err)
{
    const struct phx_http_options *o = &h->options;
    SSL_CTX                       *tls = SSL_CTX_new(TLS_server_method());

    phx_assert(tls != NULL);
    h->tls = tls;
    if (SSL_CTX_set_min_proto_version(tls, TLS1_2_VERSION) != 1 ||
        SSL_CTX_use_certificate_chain_file(tls, o->tls_cert_file) != 1)
        return phx_fail(err, PHX_E_INVALID, "tls certificate %s: %s", o->tls_cert_file,
                        ERR_reason_error_string(ERR_get_error()));
    if (SSL_CTX_use_PrivateKey_file(tls, o->tls_key_file, SSL_FILETYPE_PEM) != 1 ||
        SSL_CTX_check_private_key(tls) != 1)
        return phx_fail(err, PHX_E_INVALID, "tls key %s: %s", o->tls_key_file,
                        ERR_reason_error_string(ERR_get_error()));
    return 0;
}

/* HOST:PORT or [HOST]:PORT into its two parts. */
static int split_address(const char *text, char host[256], char port[8], struct phx_err *err)
{
    const char *colon = strrchr(text, ':');
    size_t      n = colon != NULL ? (size_t)(colon - text) : 0;

    if (n > 1 && text[0] == '[' && text[n - 1] == ']') {
        text++;
        n -= 2;
    }
    if (colon == NULL || n == 0 || n >= 256 || strlen(colon + 1) == 0 || strlen(colon + 1) > 5 ||
        strspn(colon + 1, "0123456789") != strlen(colon + 1))
        return phx_fail(err, PHX_E_INVALID, "listen: '%.100s' is not HOST:PORT", text);
    memcpy(host, text, n);
    host[n] = '\0';
    (void)snprintf(port, 8, "%s", colon + 1);
    return 0;
}

static bool is_loopback(const struct sockaddr *address)
{
    if (address->sa_family == AF_INET) {
        const struct sockaddr_in *in = (const struct sockaddr_in *)(const void *)address;

        return (ntohl(in->sin_addr.s_addr) >> 24) == 127;
    }
    if (address->sa_family == AF_INET6) {
        const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)(const void *)address;

        return IN6_IS_ADDR_LOOPBACK(&in6->sin6_addr);
    }
    return false;
}

static void on_resume(evutil_socket_t fd, short what, void *ctx)
{
    struct phx_http *h = ctx;

    (void)fd;
    (void)what;
    if (!h->is_draining)
        (void)evconnlistener_enable(h->listener); /* fails only when it is closing */
}

/* Out of descriptors: pause instead of spinning on an accept that cannot succeed. */
static void on_accept_error(struct evconnlistener *listener, void *ctx)
{
    struct phx_http     *h = ctx;
    const struct timeval pause = {0, ACCEPT_PAUSE_MS * 1000};

    phx_log(PHX_LOG_WARN, "http.accept.fail", "reason=%s",
            evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
    (void)evconnlistener_disable(listener);
    (void)evtimer_add(h->resume, &pause);
}

static int listen_on(struct phx_http *h, const char *host, const struct addrinfo *ai,
                     struct phx_err *err)
{
    const unsigned flags = LEV_OPT_CLOSE_ON_FREE | LEV_OPT_CLOSE_ON_EXEC | LEV_OPT_REUSEABLE;
    const int      send_bytes = SEND_BUFFER_BYTES;
    struct sockaddr_storage real;
    socklen_t               real_size = sizeof(real);
    char                    port[8];

    if (h->tls == NULL && !is_loopback(ai->ai_addr))
        return phx_fail(err, PHX_E_INVALID,
                        "listen: %s is not loopback and no TLS certificate is configured; set "
                        "tls.cert and tls.key or listen on 127.0.0.1", host);
    h->listener = evconnlistener_new_bind(h->base, NULL, NULL, flags, LISTEN_BACKLOG, ai->ai_addr,
                                          (int)ai->ai_addrlen);
    if (h->listener == NULL)
        return phx_fail(err, PHX_E_IO, "listen on %s: %s", h->options.listen,
                        evutil_socket_error_to_string(EVUTIL_SOCKET_ERROR()));
    (void)setsockopt(evconnlistener_get_fd(h->listener), SOL_SOCKET, SO_SNDBUF, &send_bytes,
                     sizeof(send_bytes)); /* a hint: larger buffers only cost memory */
    if (getsockname(evconnlistener_get_fd(h->listener), (struct sockaddr *)&real, &real_size) != 0 ||
        getnameinfo((struct sockaddr *)&real, real_size, NULL, 0, port, sizeof(port),
                    NI_NUMERICSERV) != 0)
        return phx_fail(err, PHX_E_IO, "getsockname: %s", strerror(errno));
    h->url = phx_mem_printf(strchr(host, ':') != NULL ? "%s://[%s]:%s" : "%s://%s:%s",
                            h->tls != NULL ? "https" : "http", host, port);
    return 0;
}

static int bind_address(struct phx_http *h, struct phx_err *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM,
                                   .ai_flags = AI_PASSIVE | AI_NUMERICSERV};
    struct addrinfo      *ai = NULL;
    char                  host[256], port[8];
    int                   rc = split_address(h->options.listen, host, port, err);

    if (rc != 0)
        return rc;
    rc = getaddrinfo(host, port, &hints, &ai);
    if (rc != 0)
        return phx_fail(err, PHX_E_INVALID, "listen: %s: %s", host, gai_strerror(rc));
    rc = listen_on(h, host, ai, err);
    freeaddrinfo(ai);
    return rc;
}

static int open_server(struct phx_http *h, struct phx_err *err)
{
    int rc = h->options.tls_cert_file != NULL ? open_tls(h, err) : 0;

    if (rc == 0)
        rc = bind_address(h, err);
    if (rc != 0)
        return rc;
    evhttp_set_max_headers_size(h->evhttp, (ev_ssize_t)h->options.header_max_bytes);
    evhttp_set_max_body_size(h->evhttp, (ev_ssize_t)h->options.body_max_bytes);
    evhttp_set_timeout(h->evhttp, h->options.idle_timeout_s);
    evhttp_set_allowed_methods(h->evhttp, EVHTTP_REQ_GET | EVHTTP_REQ_POST | EVHTTP_REQ_HEAD |
                                              EVHTTP_REQ_PUT | EVHTTP_REQ_DELETE |
                                              EVHTTP_REQ_OPTIONS | EVHTTP_REQ_PATCH);
    evhttp_set_default_content_type(h->evhttp, NULL);
    evhttp_set_gencb(h->evhttp, on_request, h);
    rc = phx_http_limit_open(h, &h->limit, err);
    if (rc != 0)
        return rc;
    evhttp_set_bevcb(h->evhttp, create_bufferevent, h);
    if (evhttp_bind_listener(h->evhttp, h->listener) == NULL)
        return phx_fail(err, PHX_E_NOMEM, "bind the HTTP listener");
    evconnlistener_set_error_cb(h->listener, on_accept_error);
    return 0;
}

int phx_http_open(struct event_base *base, const struct phx_http_options *options,
                  phx_http_handler_fn handler, void *ctx, struct phx_http **out,
                  struct phx_err *err)
{
    struct phx_http *h = phx_mem_calloc(1, sizeof(*h));
    int              rc;

    *out = NULL;
    h->base = base;
    h->options = *options;
    h->handler = handler;
    h->ctx = ctx;
    h->evhttp = evhttp_new(base);
    h->resume = evtimer_new(base, on_resume, h);
    phx_assert(h->evhttp != NULL && h->resume != NULL);
    rc = open_server(h, err);
    if (rc != 0) {
        phx_http_close(h);
        return rc;
    }
    *out = h;
    return 0;
}

void phx_http_drain(struct phx_http *h)
{
    h->is_draining = true;
    phx_http_limit_drain(h->limit);
    (void)evconnlistener_disable(h->listener); /* already disabled is fine */
}

void phx_http_close(struct phx_http *h)
{
    if (h == NULL)
        return;
    event_free(h->resume);
    phx_http_limit_close(h->limit);
    evhttp_free(h->evhttp); /* closes the listener it was bound to, and every connection */
    SSL_CTX_free(h->tls);
    phx_mem_free(h->url);
    phx_mem_free(h);
}

const char *phx_http_url(const struct phx_http *h)
{
    return h->url;
}

int32_t phx_http_open_requests(const struct phx_http *h)
{
    return h->n_requests;
}
