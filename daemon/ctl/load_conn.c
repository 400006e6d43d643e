/* SPDX-License-Identifier: Apache-2.0
 * One connection of a load: a request out, its answer in, counted as it comes. */
#include <errno.h>
#include <fcntl.h>
#include <netdb.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/socket.h>
#include <unistd.h>

#include "daemon/ctl/load.h"
#include "rpc/base/clock.h"
#include "rpc/base/json.h"

enum { READ_BYTES = 65536, HEAD_MAX_BYTES = 65536, BODY_MAX_BYTES = 64 << 20, IDS_BASE = 33, IDS_SPAN = 90 };

static int connect_socket(struct phx_load_conn *c, struct phx_err *err)
{
    const struct addrinfo hints = {.ai_family = AF_UNSPEC, .ai_socktype = SOCK_STREAM};
    struct addrinfo      *list = NULL;
    const int             on = 1;
    int                   rc = getaddrinfo(c->options->host, c->options->port, &hints, &list);

    if (rc != 0)
        return phx_fail(err, PHX_E_IO, "%s: %s", c->options->host, gai_strerror(rc));
    for (struct addrinfo *a = list; a != NULL && c->fd < 0; a = a->ai_next) {
        c->fd = socket(a->ai_family, a->ai_socktype | SOCK_CLOEXEC, a->ai_protocol);
        if (c->fd >= 0 && connect(c->fd, a->ai_addr, a->ai_addrlen) != 0) {
            (void)close(c->fd);
            c->fd = -1;
        }
    }
    freeaddrinfo(list);
    if (c->fd < 0)
        return phx_fail(err, PHX_E_IO, "%s:%s: %s", c->options->host, c->options->port, strerror(errno));
    (void)setsockopt(c->fd, IPPROTO_TCP, TCP_NODELAY, &on, sizeof(on)); /* without it only slower */
    return 0;
}

static int shake_hands(struct phx_load_conn *c, SSL_CTX *tls, struct phx_err *err)
{
    c->ssl = SSL_new(tls);
    phx_assert(c->ssl != NULL);
    if (SSL_set_tlsext_host_name(c->ssl, c->options->host) != 1 || SSL_set1_host(c->ssl, c->options->host) != 1 ||
        SSL_set_fd(c->ssl, c->fd) != 1 || SSL_connect(c->ssl) != 1)
        return phx_fail(err, PHX_E_IO, "%s:%s: TLS: %s", c->options->host, c->options->port,
                        X509_verify_cert_error_string(SSL_get_verify_result(c->ssl)));
    return 0;
}

int phx_load_conn_open(struct phx_load_conn *c, SSL_CTX *tls, struct phx_err *err)
{
    int rc;

    c->fd = -1;
    c->n_answers = 0;
    phx_buf_init(&c->in, HEAD_MAX_BYTES + 2 * READ_BYTES);
    phx_buf_init(&c->body, BODY_MAX_BYTES);
    rc = connect_socket(c, err);
    if (rc == 0 && tls != NULL)
        rc = shake_hands(c, tls, err);
    if (rc == 0 && fcntl(c->fd, F_SETFL, O_NONBLOCK) != 0)
        rc = phx_fail(err, PHX_E_IO, "fcntl: %s", strerror(errno));
    if (rc != 0)
        phx_load_conn_close(c);
    return rc;
}

void phx_load_conn_close(struct phx_load_conn *c)
{
    SSL_free(c->ssl);
    c->ssl = NULL;
    if (c->fd >= 0)
        (void)close(c->fd);
    c->fd = -1;
    c->is_busy = false;
    phx_buf_fini(&c->in);
    phx_buf_fini(&c->body);
}

/* ---- the request ----------------------------------------------------------------------------------------- */

/* Each request has a text of its own from the start on, so that no server answers from a prefix it has seen. */
static void put_words(struct phx_buf *out, int64_t number, int32_t n)
{
    static const char *const words[] = {"the", "of", "and", "to", "in", "is", "that", "it", "was", "for", "on", "are"};
    uint64_t                 h = (uint64_t)number * 0x9e3779b97f4a7c15u + 1;

    phx_buf_printf(out, "%lld", (long long)number);
    for (int32_t i = 1; i < n; i++) {
        h = h * 6364136223846793005u + 1442695040888963407u;
        phx_buf_printf(out, " %s", words[(h >> 33) % (sizeof(words) / sizeof(words[0]))]);
    }
}

/* Ids that every vocabulary has: exactly n tokens, whatever the tokenizer. */
static void put_ids(struct phx_buf *out, int64_t number, int32_t n)
{
    uint64_t h = (uint64_t)number * 0x9e3779b97f4a7c15u + 1;

    phx_buf_putc(out, '[');
    for (int32_t i = 0; i < n; i++) {
        h = h * 6364136223846793005u + 1442695040888963407u;
        phx_buf_printf(out, i == 0 ? "%d" : ",%d", IDS_BASE + (int)((h >> 33) % IDS_SPAN));
    }
    phx_buf_putc(out, ']');
}

static void put_body(struct phx_buf *out, const struct phx_load_options *o, int64_t number)
{
    phx_buf_puts(out, "{\"model\":");
    phx_json_put_str(out, o->model, strlen(o->model));
    if (o->is_chat) {
        phx_buf_puts(out, ",\"messages\":[{\"role\":\"user\",\"content\":\"");
        put_words(out, number, o->prompt_tokens);
        phx_buf_puts(out, "\"}]");
    } else {
        phx_buf_puts(out, ",\"prompt\":");
        put_ids(out, number, o->prompt_tokens);
    }
    phx_buf_printf(out, ",\"max_tokens\":%d,\"seed\":%lld", o->output_tokens, (long long)number);
    if (!o->ends_early)
        phx_buf_puts(out, ",\"ignore_eos\":true");
    if (o->is_stream)
        phx_buf_puts(out, ",\"stream\":true,\"stream_options\":{\"include_usage\":true}");
    phx_buf_putc(out, '}');
}

static bool write_all(struct phx_load_conn *c, const char *data, size_t size)
{
    while (size > 0) {
        ssize_t n = c->ssl != NULL ? SSL_write(c->ssl, data, (int)(size < INT32_MAX ? size : INT32_MAX))
                                   : send(c->fd, data, size, MSG_NOSIGNAL);

        if (n > 0) {
            data += n;
            size -= (size_t)n;
        } else if (c->ssl != NULL ? SSL_get_error(c->ssl, (int)n) != SSL_ERROR_WANT_WRITE
                                  : errno != EAGAIN && errno != EINTR)
            return false;
    }
    return true;
}

int phx_load_conn_send(struct phx_load_conn *c, int64_t number, int64_t due_ns, struct phx_err *err)
{
    const struct phx_load_options *o = c->options;
    struct phx_buf                 body, request;
    bool                           is_sent;

    phx_buf_init(&body, 0);
    phx_buf_init(&request, 0);
    put_body(&body, o, number);
    phx_buf_printf(&request,
                   "POST %s/v1/%s HTTP/1.1\r\nHost: %s:%s\r\nAuthorization: Bearer %s\r\n"
                   "Content-Type: application/json\r\nContent-Length: %zu\r\n\r\n",
                   o->path, o->is_chat ? "chat/completions" : "completions", o->host, o->port, o->key, body.size);
    phx_buf_put(&request, body.data, body.size);
    c->number = number;
    c->due_ns = due_ns;
    c->first_ns = c->last_ns = 0;
    c->n_tokens = 0;
    c->has_head = c->is_chunked = c->is_failed = false;
    c->left = -1;
    c->is_busy = true;
    phx_buf_clear(&c->in);
    phx_buf_clear(&c->body);
    is_sent = write_all(c, request.data, request.size);
    phx_buf_fini(&body);
    phx_buf_fini(&request);
    return is_sent ? 0 : phx_fail(err, PHX_E_PEER, "the server closed a connection");
}

/* ---- the answer ------------------------------------------------------------------------------------------ */

static void note_failure(struct phx_load_conn *c, const char *text, size_t size)
{
    char *out = c->result->first_failure;

    if (c->is_failed)
        return;
    c->is_failed = true;
    if (out[0] == '\0')
        (void)snprintf(out, sizeof(c->result->first_failure), "HTTP %d: %.*s", c->status, (int)(size < 250 ? size : 250),
                       text);
}

/* The number behind "name": in JSON text, or -1.  A quoted text of the model cannot hold it: its quotes are escaped. */
static int64_t find_number(const char *text, size_t size, const char *name)
{
    const char *at = memmem(text, size, name, strlen(name));

    return at != NULL ? strtoll(at + strlen(name), NULL, 10) : -1; /* the buffer is NUL-terminated */
}

static void read_usage(struct phx_load_conn *c, const char *text, size_t size)
{
    int64_t tokens = find_number(text, size, "\"completion_tokens\":");
    int64_t prompt = find_number(text, size, "\"prompt_tokens\":");

    if (tokens >= 0)
        c->n_tokens = tokens;
    if (prompt >= 0)
        c->result->n_prompt_tokens += prompt;
}

static bool has_text(const char *line, size_t size)
{
    static const char *const names[] = {"\"content\":\"", "\"text\":\"", "\"reasoning_content\":\"", "\"arguments\":\""};

    for (size_t i = 0; i < sizeof(names) / sizeof(names[0]); i++) {
        const char *at = memmem(line, size, names[i], strlen(names[i]));

        if (at != NULL && at[strlen(names[i])] != '"')
            return true;
    }
    return false;
}

static void take_event(struct phx_load_conn *c, const char *line, size_t size)
{
    int64_t now = phx_clock_mono_ns();

    if (size > 8 && memcmp(line, "{\"error\"", 8) == 0)
        note_failure(c, line, size);
    else if (has_text(line, size)) {
        if (c->first_ns == 0)
            phx_histogram_add(&c->result->ttft, now - c->due_ns);
        else
            phx_histogram_add(&c->result->gap, now - c->last_ns);
        c->first_ns = c->first_ns == 0 ? now : c->first_ns;
        c->last_ns = now;
        c->result->n_events++;
    } else
        read_usage(c, line, size);
}

static void take_lines(struct phx_load_conn *c)
{
    size_t at = 0;
    char  *end;

    while (at < c->body.size && (end = memchr(c->body.data + at, '\n', c->body.size - at)) != NULL) {
        const char *line = c->body.data + at;
        size_t      size = (size_t)(end - line);

        if (size > 6 && memcmp(line, "data: ", 6) == 0)
            take_event(c, line + 6, size - 6);
        at += size + 1;
    }
    phx_buf_consume(&c->body, at);
}

static void take_body(struct phx_load_conn *c, const char *data, size_t size)
{
    phx_buf_put(&c->body, data, size);
    if (c->options->is_stream && c->status == 200)
        take_lines(c);
}

/* Status line and the headers that frame the body; false while they are not whole. */
static bool take_head(struct phx_load_conn *c, bool *may_reuse)
{
    char *end = c->in.size > 0 ? strstr(c->in.data, "\r\n\r\n") : NULL;
    char *length;

    if (end == NULL)
        return false;
    end[2] = '\0';
    c->status = c->in.size > 12 ? atoi(c->in.data + 9) : 0;
    length = strcasestr(c->in.data, "\r\ncontent-length:");
    c->is_chunked = strcasestr(c->in.data, "\r\ntransfer-encoding: chunked") != NULL;
    *may_reuse = strcasestr(c->in.data, "\r\nconnection: close") == NULL && (length != NULL || c->is_chunked);
    c->left = c->is_chunked ? 0 : length != NULL ? atoll(length + 17) : -1;
    c->has_head = true;
    phx_buf_consume(&c->in, (size_t)(end - c->in.data) + 4);
    return true;
}

/* One piece of a chunked body; 1 = go on, 0 = more bytes are needed, -1 = it is whole, -2 = it is no chunk. */
static int take_chunk(struct phx_load_conn *c, size_t *at)
{
    size_t      have = c->in.size - *at;
    const char *data = c->in.data + *at, *end;
    char       *stop;
    long        size;

    if (c->left > 0) {
        size_t n = have < (size_t)c->left ? have : (size_t)c->left;

        if (n == 0)
            return 0;
        take_body(c, data, n);
        *at += n;
        c->left -= (int64_t)n;
        if (c->left == 0)
            c->left = -2; /* its line end follows */
        return 1;
    }
    if (c->left == -2) {
        if (have < 2)
            return 0;
        *at += 2;
        c->left = 0;
        return 1;
    }
    end = have > 0 ? memchr(data, '\n', have) : NULL;
    if (end == NULL)
        return 0;
    size = strtol(data, &stop, 16);
    if (stop == data || size < 0)
        return -2;
    if (size == 0) {
        if (have < (size_t)(end - data) + 3)
            return 0;
        return -1;
    }
    *at += (size_t)(end - data) + 1;
    c->left = size;
    return 1;
}

static enum phx_load_state take_input(struct phx_load_conn *c, bool *may_reuse)
{
    size_t at = 0;
    int    rc = 1;

    if (!c->has_head && !take_head(c, may_reuse))
        return c->in.is_over ? PHX_LOAD_CLOSED : PHX_LOAD_MORE;
    if (!c->is_chunked) {
        take_body(c, c->in.data, c->in.size);
        c->left -= c->left >= 0 ? (int64_t)c->in.size : 0;
        phx_buf_clear(&c->in);
        return c->left == 0 ? PHX_LOAD_DONE : c->left < -1 ? PHX_LOAD_CLOSED : PHX_LOAD_MORE;
    }
    while (rc == 1)
        rc = take_chunk(c, &at);
    phx_buf_consume(&c->in, at);
    return rc == 0 ? PHX_LOAD_MORE : rc == -1 ? PHX_LOAD_DONE : PHX_LOAD_CLOSED;
}

static void finish(struct phx_load_conn *c)
{
    struct phx_load_result *r = c->result;
    int64_t                 now = phx_clock_mono_ns();

    c->is_busy = false;
    if (c->status != 200)
        note_failure(c, c->body.data != NULL ? c->body.data : "", c->body.size);
    else if (!c->options->is_stream && c->body.size > 0)
        read_usage(c, c->body.data, c->body.size);
    phx_buf_clear(&c->body);
    if (c->is_failed) {
        r->n_failed++;
        return;
    }
    r->n_answered++;
    c->n_answers++;
    r->n_tokens += c->n_tokens;
    phx_histogram_add(&r->whole, now - c->due_ns);
    if (c->n_tokens > 1 && c->first_ns > 0)
        phx_histogram_add(&r->per_token, (c->last_ns - c->first_ns) / (c->n_tokens - 1));
}

enum phx_load_state phx_load_conn_read(struct phx_load_conn *c, bool may_reuse[1])
{
    char                data[READ_BYTES];
    enum phx_load_state state = PHX_LOAD_MORE;
    ssize_t             n;

    do {
        n = c->ssl != NULL ? SSL_read(c->ssl, data, sizeof(data)) : recv(c->fd, data, sizeof(data), 0);
        if (n <= 0)
            break;
        c->result->n_bytes += n;
        phx_buf_put(&c->in, data, (size_t)n);
        state = take_input(c, may_reuse);
    } while (state == PHX_LOAD_MORE && (c->ssl != NULL || n == (ssize_t)sizeof(data)));
    if (state == PHX_LOAD_MORE && n <= 0) {
        bool is_later = c->ssl != NULL ? SSL_get_error(c->ssl, (int)n) == SSL_ERROR_WANT_READ
                                       : n < 0 && (errno == EAGAIN || errno == EINTR);

        if (is_later)
            return PHX_LOAD_MORE;
        if (c->is_busy && c->n_answers > 0 && !c->has_head && c->in.size == 0)
            return PHX_LOAD_AGAIN;
        state = PHX_LOAD_CLOSED;
        if (c->has_head && !c->is_chunked && c->left == -1) /* it ends with the connection */
            state = PHX_LOAD_DONE;
        *may_reuse = false;
    }
    if (state == PHX_LOAD_CLOSED)
        note_failure(c, "the connection ended inside an answer", 37);
    if (state != PHX_LOAD_MORE)
        finish(c);
    return state;
}
