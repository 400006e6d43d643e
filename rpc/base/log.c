/* SPDX-License-Identifier: Apache-2.0 */
#include "rpc/base/log.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "rpc/base/clock.h"

enum { LINE_MAX_BYTES = 2048, VALUE_MAX_BYTES = 1024, N_CONTEXT_MAX = 4 };

struct line {
    char   text[LINE_MAX_BYTES];
    size_t size;
    bool   is_full; /* something did not fit and was left out whole */
};

static const char *const level_names[] = {"", "error", "warn", "info", "debug", "trace"};
static const int         syslog_levels[] = {0, 3, 4, 6, 7, 7};

/* Process-wide by nature: set at start, before threads, read by every thread. */
static atomic_int log_level = PHX_LOG_INFO;
static char       log_context[N_CONTEXT_MAX][96];
static int        n_log_context;

void phx_log_set_level(enum phx_log_level level)
{
    atomic_store(&log_level, (int)level);
}

int phx_log_parse_level(const char *name, enum phx_log_level *level)
{
    for (int i = PHX_LOG_ERROR; i <= PHX_LOG_TRACE; i++)
        if (strcmp(name, level_names[i]) == 0) {
            *level = (enum phx_log_level)i;
            return 0;
        }
    return -1;
}

static void put(struct line *l, const char *s, size_t n)
{
    size_t room = sizeof(l->text) - 3 - l->size; /* "}\n" always fits behind */

    if (n > room) {
        l->is_full = true;
        return;
    }
    memcpy(l->text + l->size, s, n);
    l->size += n;
}

static void put_str(struct line *l, const char *s)
{
    put(l, s, strlen(s));
}

/* A JSON string; a long one is cut between escapes, so the line stays valid. */
static void put_escaped(struct line *l, const char *s)
{
    size_t start = l->size;

    put_str(l, "\"");
    for (; *s != '\0'; s++) {
        char          out[8];
        unsigned char c = (unsigned char)*s;

        if (c == '"' || c == '\\')
            (void)snprintf(out, sizeof(out), "\\%c", c);
        else if (c < 0x20 || c >= 0x7f)
            (void)snprintf(out, sizeof(out), "\\u%04x", c);
        else
            (void)snprintf(out, sizeof(out), "%c", c);
        if (l->size + strlen(out) > start + VALUE_MAX_BYTES)
            break;
        put_str(l, out);
    }
    put_str(l, "\"");
}

void phx_log_set_context(const char *name, const char *value)
{
    struct line l = {.size = 0};

    if (n_log_context == N_CONTEXT_MAX)
        return;
    put_str(&l, ",");
    put_escaped(&l, name);
    put_str(&l, ":");
    put_escaped(&l, value);
    l.text[l.size] = '\0';
    if (l.size < sizeof(log_context[0]))
        (void)memcpy(log_context[n_log_context++], l.text, l.size + 1);
}

/* One `key=%conv` pair: formats the value with vsnprintf on a private copy of the conversion. */
static const char *put_pair(struct line *l, const char *fmt, va_list *ap)
{
    const char *eq = strchr(fmt, '=');
    const char *end;
    char        key[64], conv[16], value[512];
    bool        is_string;

    if (eq == NULL || (size_t)(eq - fmt) >= sizeof(key))
        return NULL;
    end = strchr(eq, ' ');
    if (end == NULL)
        end = eq + strlen(eq);
    if ((size_t)(end - eq - 1) >= sizeof(conv) || eq[1] != '%')
        return NULL;
    (void)snprintf(key, sizeof(key), "%.*s", (int)(eq - fmt), fmt);
    (void)snprintf(conv, sizeof(conv), "%.*s", (int)(end - eq - 1), eq + 1);
    is_string = end[-1] == 's';
    switch (end[-1]) {
    case 's': {
        const char *s = va_arg(*ap, const char *);
        (void)snprintf(value, sizeof(value), "%s", s != NULL ? s : "");
        break;
    }
    case 'f':
    case 'g':
        (void)snprintf(value, sizeof(value), "%g", va_arg(*ap, double));
        break;
    default:
        if (strstr(conv, "ll") != NULL || strchr(conv, 'l') != NULL || strchr(conv, 'z') != NULL)
            (void)snprintf(value, sizeof(value), end[-1] == 'u' ? "%llu" : "%lld",
                           va_arg(*ap, long long));
        else if (end[-1] == 'u')
            (void)snprintf(value, sizeof(value), "%u", va_arg(*ap, unsigned));
        else
            (void)snprintf(value, sizeof(value), "%d", va_arg(*ap, int));
    }
    put_str(l, ",");
    put_escaped(l, key);
    put_str(l, ":");
    if (is_string)
        put_escaped(l, value);
    else
        put_str(l, value);
    return *end == ' ' ? end + 1 : NULL;
}

void phx_log(enum phx_log_level level, const char *event, const char *fmt, ...)
{
    struct line l = {.size = 0};
    char        head[128], ts[32];
    va_list     ap;

    if ((int)level > atomic_load(&log_level))
        return;
    phx_clock_format_utc(phx_clock_wall_ns(), ts);
    (void)snprintf(head, sizeof(head), "<%d>{\"ts\":\"%s\",\"level\":\"%s\",\"event\":",
                   syslog_levels[level], ts, level_names[level]);
    put_str(&l, head);
    put_escaped(&l, event);
    (void)snprintf(head, sizeof(head), ",\"pid\":%ld", (long)getpid());
    put_str(&l, head);
    for (int i = 0; i < n_log_context; i++)
        put_str(&l, log_context[i]);
    va_start(ap, fmt);
    for (const char *p = *fmt != '\0' ? fmt : NULL; p != NULL && !l.is_full;) {
        size_t whole = l.size;

        p = put_pair(&l, p, &ap);
        if (l.is_full)
            l.size = whole; /* half a pair would break the object */
    }
    va_end(ap);
    l.text[l.size++] = '}';
    l.text[l.size++] = '\n';
    if (write(STDERR_FILENO, l.text, l.size) < 0)
        return; /* nowhere left to tell */
}
