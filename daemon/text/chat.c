/* SPDX-License-Identifier: Apache-2.0
 * One checkpoint's way with text: opening, and rendering requests. */
#include "daemon/text/cache.h"
#include "daemon/text/chat.h"

#include <string.h>
#include <unistd.h>

#include "daemon/text/json_field.h"
#include "rpc/base/mem.h"

/* ---- the template's source ---- */

/* A template file of its own wins over tokenizer_config.json, as in the reference. */
static int read_jinja(const char *dir, struct phx_buf *source, struct phx_err *err)
{
    char *path = phx_mem_printf("%s/chat_template.jinja", dir);
    int   rc = 0;
    if (access(path, F_OK) == 0)
        rc = phx_buf_read_file(source, path, 4 << 20, err);
    phx_mem_free(path);
    return rc;
}

/* chat_template: a string, or a list of {name, template} with one named "default". */
static const char *template_of(json_t *root)
{
    json_t     *value = json_object_get(root, "chat_template"), *item;
    const char *text = json_string_value(value);
    size_t      i;
    json_array_foreach(value, i, item)
    {
        const char *name = json_string_value(json_object_get(item, "name"));
        if (name && strcmp(name, "default") == 0)
            text = json_string_value(json_object_get(item, "template"));
    }
    return text;
}

static int read_template(const char *dir, struct phx_buf *source, struct phx_err *err)
{
    static const char *const files[] = {"chat_template.json", "tokenizer_config.json"};
    int                      rc = read_jinja(dir, source, err);
    for (size_t i = 0; i < 2 && rc == 0 && source->size == 0; i++) {
        char   *path = phx_mem_printf("%s/%s", dir, files[i]);
        json_t *root = NULL;
        if (access(path, F_OK) == 0)
            rc = phx_field_load_config(path, &root, err);
        const char *text = template_of(root);
        if (text)
            phx_buf_puts(source, text);
        json_decref(root);
        phx_mem_free(path);
    }
    return rc;
}

static int find_style(struct phx_text *t, const char *dir, struct phx_err *err)
{
    t->think = t->think_end = -1;
    if (phx_harmony_init(&t->harmony, t->tokenizer)) {
        t->template = (struct phx_template){.style = PHX_STYLE_HARMONY};
        return 0;
    }
    struct phx_buf source;
    phx_buf_init(&source, 4 << 20);
    int rc = read_template(dir, &source, err);
    if (rc == 0)
        phx_template_recognise(&t->template, source.data ? source.data : "", t->tokenizer);
    if (rc == 0 && t->template.style != PHX_STYLE_NONE && source.data &&
        strstr(source.data, "</think>")) {
        t->think = phx_tokenizer_id(t->tokenizer, "<think>");
        t->think_end = phx_tokenizer_id(t->tokenizer, "</think>");
        if (t->think < 0 || t->think_end < 0)
            t->think = t->think_end = -1;
    }
    phx_buf_fini(&source);
    return rc;
}

/* ---- the door ---- */

int phx_text_open(const char *dir, struct phx_text **out, struct phx_err *err)
{
    struct phx_text *t = phx_mem_calloc(1, sizeof *t);
    *out = NULL;
    int rc = phx_tokenizer_open_dir(dir, &t->tokenizer, err);
    if (rc == 0)
        rc = find_style(t, dir, err);
    if (rc == 0)
        rc = phx_text_find_stops(t, dir, err);
    if (rc) {
        phx_text_close(t);
        return rc;
    }
    *out = t;
    return 0;
}

void phx_text_close(struct phx_text *t)
{
    if (!t)
        return;
    phx_template_fini(&t->template);
    phx_tokenizer_close(t->tokenizer);
    phx_ids_fini(&t->stops);
    phx_mem_free(t);
}

const struct phx_tokenizer *phx_text_tokenizer(const struct phx_text *t)
{
    return t->tokenizer;
}

const char *phx_text_chat_name(const struct phx_text *t)
{
    return phx_style_name(t->template.style);
}

bool phx_text_has_chat(const struct phx_text *t)
{
    return t->template.style != PHX_STYLE_NONE;
}

bool phx_text_has_reasoning(const struct phx_text *t)
{
    return t->template.style == PHX_STYLE_HARMONY || t->think >= 0;
}

bool phx_text_has_tools(const struct phx_text *t)
{
    return t->template.style == PHX_STYLE_HARMONY;
}

const int32_t *phx_text_stop_ids(const struct phx_text *t, size_t *n)
{
    *n = t->stops.n;
    return t->stops.data;
}

int phx_text_render_cached(const struct phx_text *t, const struct phx_text_scope *scope, const struct phx_chat *chat,
                           struct phx_ids *ids, struct phx_err *err)
{
    size_t before = ids->n;
    int    rc = phx_chat_check(t, chat, err);
    if (rc)
        return rc;
    struct phx_prompt p = {.t = t->tokenizer, .scope = scope, .ids = ids, .err = err};
    if (t->template.style == PHX_STYLE_HARMONY)
        phx_harmony_write_chat(&t->harmony, &p, chat);
    else
        phx_template_write(&t->template, &p, chat);
    if (p.rc)
        ids->n = before;
    return p.rc;
}

int phx_text_render(const struct phx_text *t, const struct phx_chat *chat, struct phx_ids *ids,
                    struct phx_err *err)
{
    return phx_text_render_cached(t, NULL, chat, ids, err);
}

int phx_text_prompt_cached(const struct phx_text *t, const struct phx_text_scope *scope, const char *text,
                           size_t size_bytes, struct phx_ids *ids, struct phx_err *err)
{
    return phx_text_cache_encode(scope, t->tokenizer, text, size_bytes, PHX_ENCODE_TEMPLATE, ids, err);
}

int phx_text_prompt(const struct phx_text *t, const char *text, size_t size_bytes,
                    struct phx_ids *ids, struct phx_err *err)
{
    return phx_text_prompt_cached(t, NULL, text, size_bytes, ids, err);
}
