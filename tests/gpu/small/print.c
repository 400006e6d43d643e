/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>
#include <string.h>

#include "tests/gpu/small/value.h"

struct printer {
    json_dump_callback_t put;
    void                *data;
    size_t               indent; /* 0: one line */
    bool                 is_compact;
    int                  rc;
};

static void put(struct printer *p, const char *text, size_t size)
{
    if (p->rc == 0)
        p->rc = p->put(text, size, p->data);
}

static void put_text(struct printer *p, const char *text)
{
    put(p, text, strlen(text));
}

static void put_break(struct printer *p, size_t depth)
{
    if (p->indent == 0)
        return;
    put_text(p, "\n");
    for (size_t i = 0; i < depth * p->indent; i++)
        put_text(p, " ");
}

static void put_string(struct printer *p, const char *text, size_t size)
{
    static const char letters[] = "\"\\\b\f\n\r\t", names[] = "\"\\bfnrt";

    put_text(p, "\"");
    for (size_t i = 0; i < size; i++) {
        const char *found = text[i] != '\0' ? strchr(letters, text[i]) : NULL;
        char        escaped[8];

        if (found != NULL)
            (void)snprintf(escaped, sizeof(escaped), "\\%c", names[found - letters]);
        else if ((unsigned char)text[i] < 32)
            (void)snprintf(escaped, sizeof(escaped), "\\u%04x", (unsigned)text[i]);
        else
            (void)snprintf(escaped, sizeof(escaped), "%c", text[i]);
        put_text(p, escaped);
    }
    put_text(p, "\"");
}

static void put_real(struct printer *p, double value)
{
    char text[40];

    (void)snprintf(text, sizeof(text), "%.17g", value);
    put_text(p, text);
    if (strpbrk(text, ".en") == NULL)
        put_text(p, ".0");
}

static void put_value(struct printer *p, const json_t *v, size_t depth)
{
    char text[32];

    switch (v->type) {
    case SMALL_STRING: put_string(p, v->text, v->text_size); return;
    case SMALL_REAL: put_real(p, v->real); return;
    case SMALL_BOOLEAN: put_text(p, v->integer != 0 ? "true" : "false"); return;
    case SMALL_NULL: put_text(p, "null"); return;
    case SMALL_INTEGER:
        (void)snprintf(text, sizeof(text), "%lld", v->integer);
        put_text(p, text);
        return;
    default: break;
    }
    put_text(p, v->type == SMALL_OBJECT ? "{" : "[");
    for (size_t i = 0; i < v->n; i++) {
        if (i > 0)
            put_text(p, p->indent > 0 || p->is_compact ? "," : ", ");
        put_break(p, depth + 1);
        if (v->keys != NULL) {
            put_string(p, v->keys[i], strlen(v->keys[i]));
            put_text(p, p->is_compact ? ":" : ": ");
        }
        put_value(p, v->items[i], depth + 1);
    }
    if (v->n > 0)
        put_break(p, depth);
    put_text(p, v->type == SMALL_OBJECT ? "}" : "]");
}

int json_dump_callback(const json_t *v, json_dump_callback_t to, void *data, size_t flags)
{
    struct printer p = {to, data, flags & 0x1f, (flags & JSON_COMPACT) != 0, 0};

    put_value(&p, v, 0);
    return p.rc;
}

static int put_file(const char *text, size_t size, void *data)
{
    return fwrite(text, 1, size, data) == size ? 0 : -1;
}

int json_dumpf(const json_t *v, FILE *f, size_t flags)
{
    return json_dump_callback(v, put_file, f, flags);
}

struct text {
    char  *data;
    size_t size;
};

static int put_memory(const char *text, size_t size, void *data)
{
    struct text *t = data;

    t->data = small_alloc(t->data, t->size + size + 1);
    memcpy(t->data + t->size, text, size);
    t->size += size;
    t->data[t->size] = '\0';
    return 0;
}

char *json_dumps(const json_t *v, size_t flags)
{
    struct text t = {NULL, 0};

    return json_dump_callback(v, put_memory, &t, flags) == 0 ? t.data : NULL;
}
