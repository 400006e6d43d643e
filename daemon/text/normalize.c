/* SPDX-License-Identifier: Apache-2.0 */
#include "daemon/text/normalize.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "daemon/text/json_field.h"
#include "rpc/base/mem.h"

static const struct {
    const char *type;
    int         options;
} unicode_forms[] = {
    {"NFC", UTF8PROC_STABLE | UTF8PROC_COMPOSE},
    {"NFD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE},
    {"NFKC", UTF8PROC_STABLE | UTF8PROC_COMPOSE | UTF8PROC_COMPAT},
    {"NFKD", UTF8PROC_STABLE | UTF8PROC_DECOMPOSE | UTF8PROC_COMPAT},
};

static int parse_replace(struct phx_normal_step *step, json_t *value, const char *where,
                         struct phx_err *err)
{
    static const char *const keys[] = {"type", "pattern", "content", NULL};
    json_t                  *pattern = json_object_get(value, "pattern");
    const char              *literal = json_string_value(json_object_get(pattern, "String"));
    const char              *regex = json_string_value(json_object_get(pattern, "Regex"));
    const char              *content = phx_field_text(value, "content", where, err);
    if (!content)
        return PHX_E_FORMAT;
    int rc = phx_field_only(value, keys, where, err);
    if (rc)
        return rc;
    step->kind = PHX_NORMAL_REPLACE;
    step->text = phx_mem_strdup(content);
    if (literal && literal[0] != '\0') {
        step->pattern = phx_mem_strdup(literal);
        return 0;
    }
    if (!regex)
        return phx_fail(err, PHX_E_FORMAT, "%s: Replace needs a pattern String or Regex", where);
    return phx_regex_compile(regex, where, &step->regex, err);
}

static int parse_step(struct phx_normalizer *n, json_t *value, const char *where,
                      struct phx_err *err)
{
    const char *type = phx_field_text(value, "type", where, err);
    if (!type)
        return PHX_E_FORMAT;
    if (n->n == PHX_NORMAL_STEPS_MAX)
        return phx_fail(err, PHX_E_TOOBIG, "%s: more than %d normalizers", where,
                        PHX_NORMAL_STEPS_MAX);
    struct phx_normal_step *step = &n->steps[n->n++];
    for (size_t i = 0; i < sizeof unicode_forms / sizeof unicode_forms[0]; i++)
        if (strcmp(type, unicode_forms[i].type) == 0) {
            step->kind = PHX_NORMAL_UNICODE;
            step->utf8proc_options = unicode_forms[i].options;
            return 0;
        }
    if (strcmp(type, "Prepend") == 0) {
        const char *text = phx_field_text(value, "prepend", where, err);
        if (!text)
            return PHX_E_FORMAT;
        step->kind = PHX_NORMAL_PREPEND;
        step->text = phx_mem_strdup(text);
        return 0;
    }
    if (strcmp(type, "Replace") == 0)
        return parse_replace(step, value, where, err);
    return phx_fail(err, PHX_E_UNSUPPORTED, "%s: normalizer type \"%.40s\" is not supported", where,
                    type);
}

int phx_normalizer_parse(struct phx_normalizer *n, json_t *value, const char *where,
                         struct phx_err *err)
{
    if (!value || json_is_null(value))
        return 0;
    const char *type = json_string_value(json_object_get(value, "type"));
    if (!type || strcmp(type, "Sequence") != 0)
        return parse_step(n, value, where, err);
    json_t *list = json_object_get(value, "normalizers"), *item;
    size_t  i;
    if (!json_is_array(list))
        return phx_fail(err, PHX_E_FORMAT, "%s: normalizer Sequence has no \"normalizers\"", where);
    json_array_foreach(list, i, item)
    {
        int rc = parse_step(n, item, where, err);
        if (rc)
            return rc;
    }
    return 0;
}

void phx_normalizer_fini(struct phx_normalizer *n)
{
    for (size_t i = 0; i < n->n; i++) {
        phx_mem_free(n->steps[i].text);
        phx_mem_free(n->steps[i].pattern);
        phx_regex_free(n->steps[i].regex);
    }
    n->n = 0;
}

static int run_unicode(const struct phx_normal_step *step, struct phx_buf *text,
                       struct phx_err *err)
{
    size_t i = 0;
    while (i < text->size && (unsigned char)text->data[i] < 0x80)
        i++;
    if (i == text->size)
        return 0; /* ASCII is its own normal form in all four */
    utf8proc_uint8_t *form = NULL;
    utf8proc_ssize_t  size =
        utf8proc_map((const utf8proc_uint8_t *)text->data, (utf8proc_ssize_t)text->size, &form,
                     (utf8proc_option_t)step->utf8proc_options);
    if (size < 0)
        return phx_fail(err, PHX_E_NOMEM, "Unicode normalization failed: %s",
                        utf8proc_errmsg(size));
    phx_buf_clear(text);
    phx_buf_put(text, form, (size_t)size);
    free(form); /* utf8proc's own allocation */
    return 0;
}

/* The next match at or behind *at; a literal pattern needs no regex. */
static int find(const struct phx_normal_step *step, struct phx_regex_state *state,
                const struct phx_buf *text, size_t at, size_t *from, size_t *to,
                struct phx_err *err)
{
    if (step->regex)
        return phx_regex_find(step->regex, state, text->data, text->size, at, from, to, err);
    size_t      size = strlen(step->pattern);
    const char *hit = memmem(text->data + at, text->size - at, step->pattern, size);
    if (!hit)
        return 0;
    *from = (size_t)(hit - text->data);
    *to = *from + size;
    return 1;
}

static int run_replace(const struct phx_normal_step *step, struct phx_regex_state *state,
                       struct phx_buf *text, struct phx_err *err)
{
    struct phx_buf out;
    size_t         at = 0, from = 0, to = 0;
    int            rc = 0;
    phx_buf_init(&out, text->max);
    while (at < text->size && (rc = find(step, state, text, at, &from, &to, err)) > 0) {
        phx_buf_put(&out, text->data + at, from - at);
        if (to == from) { /* an empty match would never end */
            rc = phx_fail(err, PHX_E_UNSUPPORTED, "a Replace normalizer matches empty text");
            break;
        }
        phx_buf_puts(&out, step->text);
        at = to;
    }
    if (rc < 0) {
        phx_buf_fini(&out);
        return rc;
    }
    phx_buf_put(&out, text->data + at, text->size - at);
    phx_buf_fini(text);
    *text = out;
    return 0;
}

int phx_normalizer_run(const struct phx_normalizer *n, struct phx_regex_state *state,
                       struct phx_buf *text, struct phx_err *err)
{
    int rc = 0;
    for (size_t i = 0; i < n->n && rc == 0 && text->size > 0; i++) {
        const struct phx_normal_step *step = &n->steps[i];
        if (step->kind == PHX_NORMAL_UNICODE) {
            rc = run_unicode(step, text, err);
        } else if (step->kind == PHX_NORMAL_REPLACE) {
            rc = run_replace(step, state, text, err);
        } else {
            size_t size = text->size;
            char  *old = phx_mem_dup(text->data, size);
            phx_buf_clear(text);
            phx_buf_puts(text, step->text);
            phx_buf_put(text, old, size);
            phx_mem_free(old);
        }
        if (rc == 0)
            rc = phx_buf_check(text, "the normalized text", err);
    }
    return rc;
}
